"""A teacher's outputs, kept with their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from kdft_lib.data import TensorData, as_batch, batches
from kdft_lib.files import written_whole
from kdft_lib.teachers.compact import compress
from kdft_lib.teachers.teacher import Teacher


def cache(
    teacher: nn.Module | Teacher,
    data: TensorData | Dataset[Any],
    *,
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
    top_k: int | None = None,
    path: str | Path | None = None,
) -> TensorData:
    """Compute the teacher's logits once, and return the data with them.

    The logits become a column of the data, so shuffling and selecting cannot part them from their
    samples, and the teacher's fingerprint goes with them: :func:`kdft_lib.training.fit` refuses
    logits of another teacher than its objective's.

    Args:
        teacher: The teacher to ask; where it is, there it computes.
        data: Data in memory, or a dataset with a length and indices whose samples do not change from
            one look to the next.
        batch_size: The size of the teacher's calls.
        dtype: The precision to keep the logits in, by default the teacher's; ``torch.float16`` takes half of the
            memory and rounds to eleven bits.
        top_k: How many classes of each distribution to keep, with one number for the rest; see
            :func:`compress`. For a vocabulary of 32,000 words, 64 take a 160th of the memory in float16.
        path: A ``.safetensors`` file to keep the logits in. If it is there already, it is read
            instead, provided that it was made by this teacher from this data in this way.

    Returns:
        The same rows with ``teacher_logits`` ``(N, ..., C)``, or what :func:`compress` makes of them, on the
        data's device.

    Raises:
        ValueError: If the data is empty or transformed at random, ``dtype`` cannot hold a logit, or
            ``path`` was made by another teacher, from other data or in another way.
        OSError: If ``path`` cannot be written.

    Example:
        >>> data = TensorData(torch.randn(5, 3))
        >>> cache(torch.nn.Linear(3, 2), data).teacher_logits.shape
        torch.Size([5, 2])
    """
    teacher = Teacher(teacher)
    data = data if isinstance(data, TensorData) else _in_memory(data)
    if len(data) == 0:
        raise ValueError("data is empty; there is nothing to ask the teacher")
    kept = f"dtype={dtype}, top_k={top_k}"
    made_of = {"teacher": teacher.fingerprint(), "data": data.fingerprint(), "kept": kept}
    path = Path(path) if path is not None else None
    if path is not None and path.exists():
        columns = _read(path, made_of)
    else:
        device = next((tensor.device for tensor in teacher.tensors()), data.device)
        asked = (batches.apply(batch, lambda column: column.to(device)) for batch in data.batches(batch_size))
        answers = [_kept(teacher(batch["inputs"]), dtype, top_k, data.device) for batch in asked]
        columns = {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}
        if path is not None:
            _write(path, columns, made_of)
    columns = {name: column.to(data.device) for name, column in columns.items()}
    return data.with_teacher_logits(columns.get("logits", columns), made_of["teacher"])


def _kept(logits: Tensor, dtype: torch.dtype | None, top_k: int | None, device: torch.device) -> dict[str, Tensor]:
    """What is kept of a batch of logits."""
    columns = {"logits": logits} if top_k is None else compress(logits, top_k)
    for name, column in columns.items():
        if dtype is not None and column.is_floating_point():
            narrow = column.to(dtype)
            if (narrow.isinf() & ~column.isinf()).any():
                raise ValueError(
                    f"dtype is {dtype}, which cannot hold a logit of {column.abs().max():g}; keep torch.float32"
                )
            columns[name] = narrow
    return {name: column.to(device) for name, column in columns.items()}


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


def _write(path: Path, columns: dict[str, Tensor], made_of: dict[str, str]) -> None:
    from safetensors.torch import save_file

    columns = {name: column.contiguous().cpu() for name, column in columns.items()}
    with written_whole(path) as temporary:
        save_file(columns, str(temporary), metadata=made_of)


def _read(path: Path, made_of: dict[str, str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    others = {"teacher": "by another teacher", "data": "from other data", "kept": "in another way"}
    try:
        with safe_open(str(path), framework="pt") as file:
            found = file.metadata() or {}
            for what, wanted in made_of.items():
                if found.get(what) != wanted:
                    raise ValueError(
                        f"{path} was made {others[what]} (it has {str(found.get(what))[:40]}, wanted is"
                        f" {wanted[:40]}); use another path, or delete the file to make it again"
                    )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to make it again") from None
