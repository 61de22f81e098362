"""What a run is given to learn from: checked, counted, described, and cut into parts."""

from __future__ import annotations

import itertools
import operator
from typing import Any

from torch import nn

from kdft_lib.data import Batch, TensorData, batches
from kdft_lib.objectives import Objective


def check_teachers(model: nn.Module, objective: Objective, sources: list[Any], augment: Any) -> None:
    """Refuse a teacher that would be trained, and cached logits that would not be its own."""
    own = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    if any(id(tensor) in own for teacher in objective.teachers() for tensor in teacher.tensors()):
        raise ValueError(
            "the teacher shares tensors with the model, so training would change it;"
            " give the objective a copy: copy.deepcopy(model)"
        )
    cached = [data for data in sources if isinstance(data, TensorData) and data.teacher_logits is not None]
    readers = [term.teacher for _, term in objective.terms() if term.teacher is not None and term.reads_logits]
    if not cached or not readers:
        return
    if augment is not None:
        raise ValueError(
            "augment changes the inputs, and the data carries teacher logits of the unchanged ones;"
            " give the data without cached logits, so that the teacher sees the same view"
        )
    for wanted in {teacher.fingerprint() for teacher in readers}:
        for data in cached:
            if data.teacher != wanted:
                raise ValueError(
                    f"the data's cached logits are of another teacher (fingerprint {str(data.teacher)[:12]}) than the"
                    f" objective's ({wanted[:12]}); cache them anew with kdft_lib.teachers.cache"
                )


def cut(batch: Batch, parts: int) -> list[Batch]:
    """Consecutive pieces of a batch, as equal as can be."""
    if parts == 1:
        return [batch]
    rows = batches.size(batch)
    if rows < parts:
        raise ValueError(f"a batch of {rows} samples cannot be cut into {parts} parts; raise batch_size")
    edges = [rows * part // parts for part in range(parts + 1)]
    return [batches.apply(batch, operator.itemgetter(slice(start, end))) for start, end in itertools.pairwise(edges)]


def count_labels(data: Any) -> tuple[int, int]:
    """Samples with and without a label; of a loader, all are taken to have one."""
    if not isinstance(data, TensorData):
        dataset = getattr(data, "dataset", data)
        return len(dataset), 0
    if data.targets is None:
        return 0, len(data)
    positions = batches.has_label(data.targets)
    labeled = int(positions.reshape(len(data), -1).any(1).sum())
    return labeled, len(data) - labeled


def described(data: Any) -> str:
    """A text that differs where the data differs, as far as that can be seen."""
    if data is None:
        return "none"
    if isinstance(data, TensorData):
        return f"TensorData {data.fingerprint()[:16]}"
    return f"{type(data).__name__} of {len(data)} batches"
