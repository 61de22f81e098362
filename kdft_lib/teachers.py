"""A teacher that cannot be trained by accident, and its outputs kept with their samples."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from kdft_lib import models
from kdft_lib.data import TensorData, as_batch, batches


class Teacher:
    """A model to be asked, never trained.

    It is deliberately not a module: an objective that holds one has no parameter of it to show to
    an optimiser or to write into a checkpoint, and ``.train()`` does not reach it. Each call puts
    the model into evaluation mode first, whatever a caller did to it since, and records no gradient.

    Args:
        model: Any classifier that :func:`kdft_lib.models.logits` can call, or a teacher already.

    Raises:
        TypeError: If it is not a module.

    Example:
        >>> teacher = Teacher(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout()))
        >>> bool(teacher.model.train()(torch.ones(1, 3)).requires_grad)
        True
        >>> teacher(torch.ones(1, 3)).requires_grad, teacher.model.training
        (False, False)
    """

    def __init__(self, model: nn.Module | Teacher):
        asked = model.model if isinstance(model, Teacher) else model
        if not isinstance(asked, nn.Module):
            raise TypeError(f"the teacher is a {type(asked).__name__}; it must be a torch.nn.Module")
        self.model: nn.Module = asked.eval()

    def __call__(self, inputs: models.Inputs) -> Tensor:
        """The logits for a batch of inputs, in evaluation mode and without gradient."""
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        with torch.no_grad():
            return models.logits(self.model, inputs)

    def __repr__(self) -> str:
        return f"Teacher({type(self.model).__name__}, {self.fingerprint()[:12]})"

    def to(self, device: torch.device | str) -> Teacher:
        """Move the model to a device; its precision stays."""
        self.model.to(device)
        return self

    def tensors(self) -> Iterator[Tensor]:
        """Its parameters and buffers."""
        yield from self.model.parameters()
        yield from self.model.buffers()

    def fingerprint(self) -> str:
        """SHA-256 of the class's name and of every parameter and buffer."""
        digest = hashlib.sha256(type(self.model).__qualname__.encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def cache(
    teacher: nn.Module | Teacher,
    data: TensorData | Dataset[Any],
    *,
    batch_size: int = 512,
    path: str | Path | None = None,
) -> TensorData:
    """Compute the teacher's logits once, and return the data with them.

    The logits become a column of the data, so shuffling and selecting cannot part them from their
    samples, and the teacher's fingerprint goes with them: :func:`kdft_lib.training.fit` refuses
    logits of another teacher than its objective's.

    Args:
        teacher: Where it is, there it computes.
        data: In memory, or a dataset with a length and indices whose samples do not change from
            one look to the next.
        batch_size: Of the teacher's calls.
        path: A ``.safetensors`` file to keep the logits in. If it is there already, it is read
            instead, provided that it was made by this teacher from this data.

    Returns:
        The same rows with ``teacher_logits`` ``(N, ..., C)`` in the teacher's precision, on the
        data's device.

    Raises:
        ValueError: If the data is empty or transformed at random, or ``path`` was made by another
            teacher or from other data.

    Example:
        >>> data = TensorData(torch.randn(5, 3))
        >>> cache(torch.nn.Linear(3, 2), data).teacher_logits.shape
        torch.Size([5, 2])
    """
    teacher = Teacher(teacher)
    data = data if isinstance(data, TensorData) else _in_memory(data)
    if len(data) == 0:
        raise ValueError("data is empty; there is nothing to ask the teacher")
    made_of = {"teacher": teacher.fingerprint(), "data": data.fingerprint()}
    path = Path(path) if path is not None else None
    if path is not None and path.exists():
        return data.with_teacher_logits(_read(path, made_of).to(data.device), made_of["teacher"])
    device = next((tensor.device for tensor in teacher.tensors()), data.device)
    asked = (batches.apply(batch, lambda column: column.to(device)) for batch in data.batches(batch_size))
    logits = torch.cat([teacher(batch["inputs"]).to(data.device) for batch in asked])
    if path is not None:
        _write(path, logits, made_of)
    return data.with_teacher_logits(logits, made_of["teacher"])


def _in_memory(data: Dataset[Any]) -> TensorData:
    """Stack a dataset's samples, if they are the same at a second look."""
    try:
        count = len(data)  # type: ignore[arg-type]
        data[0] if count else None
    except (TypeError, NotImplementedError):
        raise ValueError(
            f"data is a {type(data).__name__}; cache needs a TensorData or a dataset with a length and"
            " indices. For a DataLoader, pass its dataset"
        ) from None
    if count == 0:
        raise ValueError("data is empty; there is nothing to ask the teacher")
    samples = [data[index] for index in range(count)]
    for index in range(min(count, 32)):
        first, second = (as_batch(default_collate([sample])) for sample in (samples[index], data[index]))
        if TensorData(**first).fingerprint() != TensorData(**second).fingerprint():
            raise ValueError(
                f"data changes from one look to the next (sample {index}), so cached logits would belong to"
                " other inputs; cache the data without its random transform, or let the teacher answer in the loop"
            )
    return TensorData(**as_batch(default_collate(samples)))


def _write(path: Path, logits: Tensor, made_of: dict[str, str]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder, "logits")
        save_file({"teacher_logits": logits.contiguous().cpu()}, str(temporary), metadata=made_of)
        os.replace(temporary, path)


def _read(path: Path, made_of: dict[str, str]) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            found = file.metadata() or {}
            for what, fingerprint in made_of.items():
                if found.get(what) != fingerprint:
                    raise ValueError(
                        f"{path} was made {'by another teacher' if what == 'teacher' else 'from other data'}"
                        f" (fingerprint {str(found.get(what))[:12]}, wanted {fingerprint[:12]});"
                        " use another path, or delete the file to make it again"
                    )
            return file.get_tensor("teacher_logits")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to make it again") from None
