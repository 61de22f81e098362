"""A teacher that cannot be trained by accident, and its outputs kept with their samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from kdft_lib import features, models, sharding
from kdft_lib.data import TensorData, as_batch, batches
from kdft_lib.features import Outputs
from kdft_lib.files import written_whole

__all__ = [
    "Ensemble",
    "Teacher",
    "cache",
    "compress",
    "expand",
]


class Teacher:
    """A model to be asked, never trained.

    It is deliberately not a module: an objective that holds one has no parameter of it to show to
    an optimiser or to write into a checkpoint, and ``.train()`` does not reach it. Each call puts
    the model into evaluation mode first, whatever a caller did to it since, and records no gradient.

    Args:
        model: Any classifier that :func:`kdft_lib.models.logits` can call, or a teacher already.
        labels: How many labelled samples it has learned from, for the ledger of what it teaches. By default what
            the teacher that is given knows, or what the model's ``card`` says; ``None`` where nobody knows.
        pretraining: What it had learned before, in words, for the ledger.
        shard: Whether each process of a run keeps a share of the weights alone, on its device (FSDP2), for a teacher
            that does not fit on one. The model is cut at once, for good, and its blocks, what stands in a
            ``ModuleList`` or ``Sequential``, come together one by one in each call, which all processes make.

    Raises:
        TypeError: If it is not a module.
        ValueError: If ``labels`` is negative.

    Example:
        >>> teacher = Teacher(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout()))
        >>> bool(teacher.model.train()(torch.ones(1, 3)).requires_grad)
        True
        >>> teacher(torch.ones(1, 3)).requires_grad, teacher.model.training
        (False, False)
    """

    def __init__(
        self, model: nn.Module | Teacher, *, labels: int | None = None, pretraining: str | None = None,
        shard: bool = False,
    ):  # fmt: skip
        known = model if isinstance(model, Teacher) else None
        asked = known.model if known is not None else model
        if not isinstance(asked, nn.Module):
            raise TypeError(f"the teacher is a {type(asked).__name__}; it must be a torch.nn.Module")
        if labels is not None and labels < 0:
            raise ValueError(f"labels is {labels}; it must be 0 or more, or None where nobody knows")
        card = getattr(asked, "card", None) or {}
        self.model: nn.Module = asked.eval()
        self.labels: int | None = (
            labels if labels is not None else known.labels if known is not None else card.get("labels")
        )
        self.pretraining: str = pretraining or (known.pretraining if known is not None else "none")
        if shard and sharding.kept_fingerprint(asked) is None:
            sharding.shard_for_good(asked, self.fingerprint())

    def __call__(self, inputs: models.Inputs) -> Tensor:
        """The logits for a batch of inputs, in evaluation mode and without gradient."""
        return self.outputs(inputs).logits

    def outputs(self, inputs: models.Inputs, layers: Iterable[str] = ()) -> Outputs:
        """The logits and what some layers gave, in evaluation mode and without gradient; see
        :func:`kdft_lib.features.outputs`.

        Raises:
            ValueError: If the inputs are on another device than the teacher, or there is no such layer.
        """
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        here = next((tensor.device for tensor in self.tensors()), None)
        there = next(iter(inputs.values())).device if isinstance(inputs, Mapping) else inputs.device
        if here is not None and here != there:
            raise ValueError(
                f"the teacher is on {here} and the inputs on {there}; fit moves both, elsewhere move the"
                f" teacher: teacher.to({str(there)!r})"
            )
        with torch.no_grad():
            return features.outputs(self.model, inputs, layers)

    def __repr__(self) -> str:
        return f"Teacher({sharding.own_type(self.model).__name__}, {self.fingerprint()[:12]})"

    def to(self, device: torch.device | str) -> Teacher:
        """Move the model to a device; its precision stays. Shares stay where they are."""
        if sharding.kept_fingerprint(self.model) is None:
            self.model.to(device)
        return self

    def tensors(self) -> Iterator[Tensor]:
        """Its parameters and buffers."""
        yield from self.model.parameters()
        yield from self.model.buffers()

    def fingerprint(self) -> str:
        """SHA-256 of the class's name, its settings as shown, and every parameter and buffer."""
        if (kept := sharding.kept_fingerprint(self.model)) is not None:
            return kept
        digest = hashlib.sha256(f"{type(self.model).__qualname__} {self.model.extra_repr()}".encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Ensemble(nn.Module):
    """Several classifiers as one teacher: an ensemble, or multi-teacher distillation by averaging.

    Args:
        members: The classifiers, with the same classes in the same order.
        average: The mean to take of their distributions, arithmetic or geometric (Hinton, Vinyals and Dean, 2015,
            section 1, name both). With ``"probabilities"`` the logits are the logarithm of the arithmetic mean;
            with ``"logits"`` they are the mean of the logits, whose distribution is the geometric mean.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If there is no member, or ``average`` is unknown.

    Example:
        >>> fair, sure = nn.Linear(1, 2), nn.Linear(1, 2)
        >>> _ = fair.requires_grad_(False).bias.zero_(), sure.requires_grad_(False).bias.copy_(torch.tensor([9.0, 0.0]))
        >>> Ensemble([fair, sure])(torch.zeros(1, 1)).softmax(-1)
        tensor([[0.7499, 0.2501]])
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        average: Literal["probabilities", "logits"] = "probabilities",
        class_dim: int = -1,
    ):
        super().__init__()
        if not members:
            raise ValueError("members is empty; an ensemble needs at least one model")
        if average not in ("probabilities", "logits"):
            raise ValueError(f'average is {average!r}; choose "probabilities" or "logits"')
        self.members, self.average, self.class_dim = nn.ModuleList(members), average, class_dim

    def forward(self, *inputs: Tensor, **keywords: Tensor) -> Tensor:
        """The ensemble's logits for a batch of inputs."""
        answers = torch.stack([models.logits(member, *(inputs or [keywords])) for member in self.members])
        if self.average == "logits":
            return answers.mean(0)
        return answers.log_softmax(self.class_dim if self.class_dim < 0 else self.class_dim + 1).logsumexp(
            0
        ) - math.log(len(self.members))

    def extra_repr(self) -> str:
        return f"average={self.average}"


def compress(logits: Tensor, top_k: int) -> dict[str, Tensor]:
    """Keep the highest logits of each distribution, and what the others weigh together.

    Args:
        logits: The whole distributions, ``(N, ..., C)``.
        top_k: How many to keep, from 1 to below C.

    Returns:
        ``values`` ``(N, ..., top_k)`` relative to the logarithm of the sum of exponentials, that is
        log-probabilities, in the precision of the logits; ``indices``, their classes; ``rest``
        ``(N, ..., 1)``, the log-probability of each of the others, were they equal; ``classes``, C, for
        each sample.

    Raises:
        ValueError: If ``top_k`` is out of range.

    Example:
        >>> compact = compress(torch.tensor([[2.0, 0.0, 0.0, 1.0]]), top_k=2)
        >>> expand(compact).softmax(-1)
        tensor([[0.6103, 0.0826, 0.0826, 0.2245]])
    """
    classes = logits.shape[-1]
    if not 1 <= top_k < classes:
        raise ValueError(f"top_k is {top_k}; it must be from 1 to {classes - 1}, below the number of classes")
    log_probabilities = logits.double().log_softmax(-1)
    values, indices = log_probabilities.topk(top_k)
    others = log_probabilities.scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
    return {
        "values": values.to(logits.dtype),
        "indices": indices.to(torch.int32),
        "rest": (others - math.log(classes - top_k)).to(logits.dtype),
        "classes": torch.full((len(logits),), classes, dtype=torch.int32, device=logits.device),
    }


def expand(compact: Mapping[str, Tensor]) -> Tensor:
    """Logits ``(N, ..., C)`` again: those kept, and one value for all others; see :func:`compress`.

    Args:
        compact: The mapping that :func:`compress` gave, or rows of it.

    Example:
        >>> expand(compress(torch.zeros(2, 5), top_k=1)).shape
        torch.Size([2, 5])
    """
    classes = int(compact["classes"][0])
    return (
        compact["rest"]
        .expand(*compact["rest"].shape[:-1], classes)
        .scatter(-1, compact["indices"].long(), compact["values"])
    )


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
