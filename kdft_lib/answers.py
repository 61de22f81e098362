"""What a teacher says, kept small, or brought from elsewhere."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from kdft_lib.data import TensorData
from kdft_lib.losses.checks import wider

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rest: TypeAlias = Literal["even", "bucket", "sampled"]


def compress(
    logits: Tensor, top_k: int, *, rest: Rest = "even", generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    r"""Keep a few classes of each distribution: a sparse answer, or top-k logits.

    With p the teacher's distribution and q the student's, what is lost depends on what is said of the others:

    - ``"even"``: each of them gets the same share of what they weigh together. Wrong where they differ, which a
      student learns too.
    - ``"bucket"``: they are one class more. The divergence between these k + 1 is never more than that between all
      C, and how the student divides the others is left to it. At temperature 1 alone.
    - ``"sampled"``: k classes are drawn from p, with replacement; the mean of :math:`\log p - \log q` over them, and
      its gradient, are right on average, whatever k (Anshumann et al., 2025, *Sparse logit sampling*). At
      temperature 1 alone.

    Args:
        logits: The whole distributions, ``(N, ..., C)``.
        top_k: How many classes to keep of each, the highest, from 1 to C; how many to draw, where they are drawn.
        rest: What to say of the others: ``"even"``, ``"bucket"`` or ``"sampled"``.
        generator: What classes are drawn from, on the logits' device; by default torch's own.

    Returns:
        ``values`` ``(N, ..., top_k)``, log-probabilities in the precision of the logits; ``indices``, their classes,
        int32; ``classes`` ``(N,)``, C for each sample; and ``even`` ``(N, ..., 1)``, the log-probability of each of
        the others, or ``bucket``, that of all together, or neither, where classes were drawn (in order, each as
        often as it came).

    Raises:
        ValueError: If ``top_k`` is out of range, or ``rest`` unknown.

    Example:
        >>> compact = compress(torch.tensor([[2.0, 0.0, 0.0, 1.0]]), top_k=2)
        >>> expand(compact).softmax(-1)
        tensor([[0.6103, 0.0826, 0.0826, 0.2245]])
        >>> compress(torch.tensor([[2.0, 0.0, 0.0, 1.0]]), top_k=2, rest="bucket")["bucket"].exp()
        tensor([[0.1652]])
    """
    classes = logits.shape[-1]
    if rest not in ("even", "bucket", "sampled"):
        raise ValueError(f'rest is {rest!r}; choose "even", "bucket" or "sampled"')
    if top_k < 1 or (top_k > classes and rest != "sampled"):
        raise ValueError(f"top_k is {top_k}; it must be from 1 to {classes}, the number of classes")
    log_probabilities = wider(logits).log_softmax(-1)
    known = {}
    if rest == "sampled":
        flat = log_probabilities.exp().reshape(-1, classes)
        drawn = torch.multinomial(flat, top_k, replacement=True, generator=generator)
        indices = drawn.sort(-1).values.reshape(*logits.shape[:-1], top_k)
        values = log_probabilities.gather(-1, indices)
    else:
        values, indices = log_probabilities.topk(top_k)
        others = log_probabilities.scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
        known[rest] = (others - math.log(max(classes - top_k, 1)) if rest == "even" else others).to(logits.dtype)
    return known | {
        "values": values.to(logits.dtype),
        "indices": indices.to(torch.int32),
        "classes": torch.full((len(logits),), classes, dtype=torch.int32, device=logits.device),
    }


def expand(compact: Mapping[str, Tensor]) -> Tensor:
    """Logits ``(N, ..., C)`` again, to look at; see :func:`compress`. No loss needs them.

    Args:
        compact: The mapping that :func:`compress` gave, or rows of it. A bucket is shared evenly; of what was drawn,
            each class weighs as often as it came.

    Example:
        >>> expand(compress(torch.zeros(2, 5), top_k=1)).shape
        torch.Size([2, 5])
    """
    values, indices, classes = compact["values"], compact["indices"].long(), int(compact["classes"][0])
    shape = (*values.shape[:-1], classes)
    if "even" in compact or "bucket" in compact:
        count = max(classes - values.shape[-1], 1)
        others = compact["even"] if "even" in compact else compact["bucket"] - math.log(count)
        return others.expand(shape).scatter(-1, indices, values)
    return values.new_zeros(shape).scatter_add_(-1, indices, torch.ones_like(values)).log_() - math.log(
        values.shape[-1]
    )


def answers(
    data: TensorData,
    *,
    logits: Tensor | NDArray[Any] | None = None,
    probabilities: Tensor | NDArray[Any] | None = None,
    decisions: Tensor | NDArray[Any] | None = None,
    source: str,
) -> TensorData:
    """Attach what something else than a PyTorch module said of each sample: an API, a forest, a person.

    ``SoftTargets(teacher=None)``, ``HardTargets(teacher=None)`` and ``GKD(teacher=None, on_policy=0)`` learn from it,
    and so does nothing else about the data change: labels stay, and count where ``ce_weight`` is not 0.

    Args:
        data: The samples that were answered, in order.
        logits: Scores before a softmax, ``(N, ..., C)``, tensor or array. Exactly one of the three is given.
        probabilities: Distributions, ``(N, ..., C)``, such as a classifier's ``predict_proba``. Their logarithms are
            kept in float32; a 0 becomes ``-inf``, which takes no part.
        decisions: Classes, ``(N, ...)``, of an integer type, from 0. One number for each is kept.
        source: Who answered, and when, such as ``"an API, 2026-01"``. It stands where a teacher's fingerprint would,
            so that :func:`kdft_lib.training.fit` never takes it for the answers of a model.

    Returns:
        The same rows with ``teacher_logits``.

    Raises:
        TypeError: If ``data`` is not a :class:`~kdft_lib.data.TensorData`.
        ValueError: If not exactly one of the three is given, ``source`` is empty, there is not one answer for each
            row, or an answer is none: logits that are not numbers, negative probabilities or some whose sum is not 1,
            decisions that are no class.

    Example:
        >>> said = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> taught = answers(TensorData(torch.randn(2, 3)), probabilities=said, source="a forest")
        >>> taught.teacher_logits.exp(), taught.teacher
        (tensor([[0.9000, 0.1000],
                [0.2000, 0.8000]]), 'a forest')
    """
    if not isinstance(data, TensorData):
        raise TypeError(f"data is a {type(data).__name__}; answers belong to the rows of a TensorData")
    given = {"logits": logits, "probabilities": probabilities, "decisions": decisions}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(f"{' and '.join(names) or 'no answer'} came; give exactly one of {', '.join(given)}")
    if not source:
        raise ValueError('source is empty; say who answered, such as "an API, 2026-01"')
    said = torch.as_tensor(given[names[0]], device=data.device)
    if said.dim() == 0 or len(said) != len(data):
        raise ValueError(f"{names[0]} has shape {tuple(said.shape)}; data has {len(data)} rows, each needs its answer")
    check: dict[str, Callable[[Tensor], Tensor | dict[str, Tensor]]]
    check = {"logits": _scores, "probabilities": _logarithms, "decisions": _decided}
    return data.with_teacher_logits(check[names[0]](said), source)


def named_answers(
    data: TensorData, said: Sequence[str | Mapping[str, float]], classes: Sequence[str], *, source: str
) -> TensorData:
    """Attach what something that speaks in names said: the name of a class, or probabilities of a few of them.

    Where every answer is one name, decisions are kept, for ``HardTargets(teacher=None)``. Otherwise of each answer
    those classes that are named, as many as every answer names, and the others together as one (``rest="bucket"`` of
    :func:`compress`), for ``SoftTargets(teacher=None, temperature=1)``: an even share would be wrong where the others
    differ, and be learned too. Where probabilities add up to 1, as that of a lone name does, the others have 0.

    Args:
        data: The samples that were answered, in order.
        said: For each, the name of a class, which counts as certain, or probabilities by name.
        classes: The names of all classes, in the order of the targets.
        source: Who answered, and when, such as ``"an API, 2026-01"``.

    Returns:
        The same rows with ``teacher_logits``.

    Raises:
        ValueError: If there is not one answer for each row, one names no class that is known, or probabilities are
            negative, add up to more than 1, or to less although they are of all classes; the message says which.

    Example:
        >>> data = TensorData(torch.randn(2, 3))
        >>> taught = named_answers(data, [{"cat": 0.7, "dog": 0.2}, "fox"], ["cat", "dog", "fox"], source="an API")
        >>> taught.teacher_logits["indices"].flatten(), taught.teacher_logits["bucket"].exp().flatten()
        (tensor([0, 1, 2, 0], dtype=torch.int32), tensor([0.1000, 0.0000]))
        >>> named_answers(data, ["cat", "fox"], ["cat", "dog", "fox"], source="an API").teacher_logits["values"]
        tensor([[0.],
                [0.]])
    """
    if len(said) != len(data):
        raise ValueError(f"said has {len(said)} answers; data has {len(data)} rows, each needs its answer")
    number = {name: place for place, name in enumerate(classes)}
    rows: list[list[tuple[int, float]]] = []
    for row, answer in enumerate(said):
        named = {answer: 1.0} if isinstance(answer, str) else dict(answer)
        for name, probability in named.items():
            if name not in number:
                raise ValueError(f"answer {row} names {name!r}, which is no class; there are {', '.join(classes)}")
            if not isinstance(probability, numbers.Real) or not 0 <= probability <= 1:
                raise ValueError(
                    f"answer {row} gives {name!r} the probability {probability!r}; it must be a number from 0 to 1"
                )
        total = sum(named.values())
        if not 0 < total <= 1.001:
            raise ValueError(
                f"answer {row} has probabilities whose sum is {total:g}; it must be above 0, and 1 at most"
            )
        if len(named) == len(classes) and total < 0.999:
            raise ValueError(
                f"answer {row} has probabilities of all {len(classes)} classes, whose sum is {total:g}; divide them by"
                " it, or leave out what is not known"
            )
        if total > 0.999:  # They were rounded, and nothing is left for the others.
            named = {name: named.get(name, 0) / total for name in [*named, *classes]}
        rows.append(sorted(((number[name], p) for name, p in named.items()), key=lambda pair: -pair[1]))
    if all(isinstance(answer, str) for answer in said):
        return answers(data, decisions=torch.tensor([row[0][0] for row in rows]), source=source)
    kept = [row[: min(map(len, rows))] for row in rows]
    probabilities = torch.tensor([[p for _, p in row] for row in kept], dtype=torch.float64)
    others = 1 - probabilities.sum(-1, keepdim=True)
    teacher_logits = {
        "values": probabilities.log().float(),
        "indices": torch.tensor([[place for place, _ in row] for row in kept], dtype=torch.int32),
        "classes": torch.full((len(kept),), len(classes), dtype=torch.int32),
        "bucket": others.masked_fill(others < 1e-9, 0).log().float(),
    }
    return data.with_teacher_logits(teacher_logits, source)


def _scores(logits: Tensor) -> Tensor:
    if not logits.is_floating_point() or not (logits < torch.inf).all():
        raise ValueError(f"logits has dtype {logits.dtype}, or holds NaN or infinity; give finite numbers, or -inf")
    return logits.float()


def _logarithms(probabilities: Tensor) -> Tensor:
    if not probabilities.is_floating_point() or not (probabilities >= 0).all():
        raise ValueError(
            f"probabilities has dtype {probabilities.dtype} and a lowest value of {probabilities.min():g}; give"
            " floating-point numbers from 0 to 1, or scores before a softmax as logits"
        )
    sums = probabilities.double().sum(-1)
    off = sums.flatten()[(sums - 1).abs().argmax()].item()
    if abs(off - 1) > 1e-3:
        raise ValueError(
            f"probabilities holds a distribution whose sum is {off:g}; each must be 1 over the classes, so divide by"
            " the sum, or give scores before a softmax as logits"
        )
    return probabilities.double().log().float()


def _decided(decisions: Tensor) -> dict[str, Tensor]:
    if decisions.is_floating_point() or decisions.dtype == torch.bool or (decisions < 0).any():
        raise ValueError(
            f"decisions has dtype {decisions.dtype} and a lowest value of {decisions.min().item()}; give a class from 0"
            " for each sample, and leave out those without one: data[decisions >= 0]"
        )
    indices = decisions.to(torch.int32).unsqueeze(-1)
    values = torch.zeros(indices.shape, device=indices.device)
    return {"values": values, "indices": indices, "even": torch.full_like(values, -torch.inf)}
