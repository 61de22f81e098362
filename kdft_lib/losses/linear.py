"""Divergences from what goes into the last layers of networks with many classes: a block of logits at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdft_lib.losses import divergences, sparse
from kdft_lib.losses.checks import Reduction, check_mask, check_targets, positive
from kdft_lib.losses.variation import TOTAL_VARIATION

Kind: TypeAlias = Literal["forward_kl", "reverse_kl", "jensen_shannon", "total_variation"]
Terms: TypeAlias = Callable[[slice, Tensor], list[Tensor]]
"""From a block of rows and its logits, of each term the values of the rows."""

UNLABELED = -100
_KINDS = {
    "forward_kl": divergences.FORWARD_KL,
    "reverse_kl": divergences.REVERSE_KL,
    "jensen_shannon": divergences.JENSEN_SHANNON,
    "total_variation": TOTAL_VARIATION,
}
_ROOM = 15 << 18
"""Logits of a block on a CPU: 15 MiB of float32, of which there are two. Of 49,152 classes these are 80 rows, whose
products of matrices take a fifth longer than of all rows at once; those of 40 rows take half as long again."""


def linear_soft_target_loss(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: sparse.Answers,
    teacher_weight: Tensor | None = None,
    temperature: float = 1.0,
    *,
    divergence: Kind = "forward_kl",
    beta: float = 0.5,
    mask: Tensor | None = None,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    targets: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""A divergence between a student's and a teacher's distribution, from what goes into their last layers: a fused
    linear loss, for language models, whose logits are the largest tensors there are.

    The same as :func:`soft_target_loss`, :func:`reverse_kl_loss`, :func:`jensen_shannon_loss` or
    :func:`total_variation_loss` of the logits ``student_hidden @ student_weight.T + student_bias``, which are made a
    block of rows at a time, as are the teacher's. Beside the gradients, memory does not grow with the number of rows.

    Where the two have different numbers of classes, as language models whose vocabularies were padded, the first ones,
    which both have, are compared, and the others take no part.

    Args:
        student_hidden: The input of the student's last layer, ``(..., H)``.
        student_weight: The weight of that layer, ``(C, H)``: a causal model's ``lm_head.weight``.
        teacher_hidden: The input of the teacher's last layer, ``(..., H')``; its logits ``(..., C)``, where there is
            no ``teacher_weight``; or a few of them, as :func:`kdft_lib.teachers.compress` keeps them. It receives no
            gradient, nor does ``teacher_weight``.
        teacher_weight: The weight of the teacher's last layer, ``(C', H')``.
        temperature: The temperature of both distributions, positive; 1 by default, as for language models.
        divergence: ``"forward_kl"``, ``"reverse_kl"``, ``"jensen_shannon"`` or ``"total_variation"``.
        beta: The teacher's share of the mixture of ``"jensen_shannon"``.
        mask: The positions that count, ``(...)``, boolean. By default all do.
        student_bias: The bias of the student's last layer, ``(C,)``.
        teacher_bias: The bias of the teacher's last layer, ``(C',)``.
        targets: The classes, int64 ``(...)``, -100 for none; then the cross-entropy with them comes beside. Both
            gradients are found in the backward pass, which makes the logits once more.
        reduction: The reduction over positions that count: ``"mean"``, ``"sum"``, or ``"none"``, which makes the logits
            once more too.

    Returns:
        A scalar in nats times :math:`T^2`, float32 or wider, or ``(...)`` where ``reduction="none"`` (0 where masked);
        with ``targets`` two, the divergence and the cross-entropy, whose mean is over the positions with a class.

    Raises:
        ValueError: If shapes do not fit together, nothing counts, or an argument is out of range.

    Example:
        >>> hidden, weight = torch.randn(5, 8), torch.randn(100, 8)
        >>> wide, other = torch.randn(5, 16), torch.randn(100, 16)
        >>> fused = linear_soft_target_loss(hidden, weight, wide, other)
        >>> from kdft_lib.losses import soft_target_loss
        >>> torch.allclose(fused, soft_target_loss(hidden @ weight.T, wide @ other.T, 1.0), rtol=1e-4)
        True
    """
    if divergence not in _KINDS:
        raise ValueError(f"divergence is {divergence!r}; choose one of {', '.join(map(repr, _KINDS))}")
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; it must lie between 0 and 1, both excluded")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction is {reduction!r}; choose "mean", "sum" or "none"')
    positive("temperature", temperature)
    shape, count = student_hidden.shape[:-1], student_hidden.shape[:-1].numel()
    _check_layer("student", student_hidden, student_weight, student_bias)
    if mask is not None:
        check_mask(mask, student_hidden)
    if targets is not None:
        targets = targets if mask is None else targets.masked_fill(~mask, UNLABELED)
        # Of its shape, logits have the positions and the classes.
        check_targets(targets, student_hidden.new_empty(()).expand(*shape, len(student_weight)), targets != UNLABELED)
    counted = None if mask is None else mask.reshape(-1).nonzero().squeeze(1)

    def rows(column: Tensor, width: tuple[int, ...] = ()) -> Tensor:
        flat = column.reshape(count, *width)
        return flat if counted is None else flat.index_select(0, counted)

    teacher = _Teacher.of(teacher_hidden, teacher_weight, teacher_bias, shape, rows)
    of_target = None if targets is None else rows(targets)
    more = [beta] if divergence == "jensen_shannon" else []

    def terms(block: slice, logits: Tensor) -> list[Tensor]:
        overwrite = of_target is None
        found = [teacher.compared(block, logits, _KINDS[divergence], temperature, more, overwrite)]
        if of_target is not None:
            found.append(F.cross_entropy(logits, of_target[block], ignore_index=UNLABELED, reduction="none"))
        return found

    # Under autocast the two may differ.
    hidden = rows(student_hidden, student_hidden.shape[-1:]).to(student_weight.dtype)
    at_once = targets is None and reduction != "none" and torch.is_grad_enabled()
    found = _Blocks.apply(terms, at_once, reduction == "none", hidden, student_weight, student_bias)
    if reduction == "none":
        found = [
            values if counted is None else values.new_zeros(count).index_copy(0, counted, values) for values in found
        ]
        found = [values.reshape(shape) for values in found]
    elif reduction == "mean":
        numbers = [len(hidden)] if of_target is None else [len(hidden), (of_target != UNLABELED).sum().clamp(min=1)]
        found = [total / number for total, number in zip(found, numbers, strict=True)]
    return found[0] if targets is None else tuple(found)


class _Teacher:
    """What is compared with: hidden states and a layer, logits, or a few of them."""

    def __init__(self, answers: sparse.Answers, weight: Tensor | None, bias: Tensor | None):
        self.answers, self.weight, self.bias = answers, weight, bias
        self._room: Tensor | None = None

    @classmethod
    def of(
        cls,
        given: sparse.Answers,
        weight: Tensor | None,
        bias: Tensor | None,
        shape: torch.Size,
        rows: Callable[..., Any],
    ) -> _Teacher:
        if isinstance(given, Mapping):
            if weight is not None:
                raise ValueError("teacher_weight is given, and teacher_hidden keeps a few classes of logits; give one")
            if given["values"].shape[:-1] != shape:
                raise ValueError(
                    f"teacher_hidden keeps classes of {tuple(given['values'].shape[:-1])} answers; there are"
                    f" {tuple(shape)} positions"
                )
            columns = {name: rows(column, column.shape[-1:]) for name, column in given.items() if name != "classes"}
            return cls(columns | {name: given[name][:1] for name in given if name == "classes"}, None, None)
        if given.shape[:-1] != shape:
            raise ValueError(
                f"teacher_hidden has shape {tuple(given.shape)} and student_hidden {tuple(shape)} positions;"
                " both must have the same"
            )
        if weight is None and bias is not None:
            raise ValueError("teacher_bias is given without teacher_weight; logits have theirs in them")
        if weight is not None:
            _check_layer("teacher", given, weight, bias)
        detached = (None if each is None else each.detach() for each in (weight, bias))
        found = rows(given.detach(), given.shape[-1:])
        return cls(found if weight is None else found.to(weight.dtype), *detached)

    def compared(
        self,
        block: slice,
        logits: Tensor,
        kind: divergences.Divergence,
        temperature: float,
        more: list[float],
        overwrite: bool,
    ) -> Tensor:
        """The divergence of each row of a block, whose logits may be overwritten where nothing else needs them."""
        if isinstance(self.answers, Mapping):
            some = {name: column if name == "classes" else column[block] for name, column in self.answers.items()}
            return sparse.divergence(kind, logits, some, temperature, None, *more)
        shared = min(logits.shape[1], self.answers.shape[1] if self.weight is None else len(self.weight))
        theirs = self.answers[block, :shared]
        if self.weight is not None:
            bias = None if self.bias is None else self.bias[:shared]
            if self._room is None:
                self._room = self.answers.new_empty(len(logits), shared)
            theirs = _product(self.answers[block], self.weight[:shared], bias, self._room)
        return divergences.rowwise(kind, logits[:, :shared], theirs, temperature, *more, overwrite=overwrite)


class _Blocks(torch.autograd.Function):
    """Terms of a linear layer's logits: their sums, or the values of the rows. The gradients are found beside one sum,
    and otherwise in the backward pass, when it is known how much each row and term counts."""

    @staticmethod
    def forward(
        ctx: Any, terms: Terms, at_once: bool, each: bool, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        needed = ctx.needs_input_grad[3:]
        ctx.save_for_backward(hidden, weight, bias)
        ctx.terms, ctx.needed, ctx.found = terms, needed, None
        if at_once and any(needed):
            gradients = _Gradients(hidden, weight, bias, needed)
            totals = []
            for block, logits in _blocks(hidden, weight, bias):
                values = gradients.add(block, logits, lambda block, logits: terms(block, logits)[0])
                totals.append(values.sum())
            ctx.found = gradients.found
            return (torch.stack(totals).sum(),)
        pieces = [terms(block, logits) for block, logits in _blocks(hidden, weight, bias)]
        return tuple(torch.cat(column) if each else torch.cat(column).sum() for column in zip(*pieces, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        found, ctx.found = ctx.found, None
        if found is not None:
            found = [None if each is None else each.mul_(upstream[0].to(each.dtype)) for each in found]
        else:
            gradients = _Gradients(hidden, weight, bias, ctx.needed)

            def weighed(block: slice, logits: Tensor) -> Tensor:
                shares = (each if each.dim() == 0 else each[block] for each in upstream)
                values = ctx.terms(block, logits)
                return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0)

            for block, logits in _blocks(hidden, weight, bias):
                gradients.add(block, logits, weighed)
            found = gradients.found
        return (
            None,
            None,
            None,
            *(
                None if each is None else each.to(of.dtype)
                for each, of in zip(found, (hidden, weight, bias), strict=True)
            ),
        )


class _Gradients:
    """Those of a linear layer's input, weight and bias, added up in float32 or wider."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]):
        self.hidden, self.weight = hidden, weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.found: list[Tensor | None] = [
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=wide) if needed[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None,
        ]

    def add(self, block: slice, logits: Tensor, values_of: Callable[[slice, Tensor], Tensor]) -> Tensor:
        """Those of a block's rows, which are returned."""
        of_hidden, of_weight, of_bias = self.found
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            values = values_of(block, leaf)
            (slopes,) = torch.autograd.grad(values.sum(), leaf)
        if of_hidden is not None:
            of_hidden[block] = slopes.to(self.weight.dtype) @ self.weight
        if of_weight is not None:
            of_weight.addmm_(slopes.T.to(of_weight.dtype), self.hidden[block].to(of_weight.dtype))
        if of_bias is not None:
            of_bias += slopes.sum(0)
        return values.detach()


def _blocks(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """A few rows at a time, and their logits in float32 or wider."""
    most = _ROOM if hidden.is_cpu else len(weight) * max(len(hidden) // 8, 1)
    height = min(max(most // len(weight), 1), len(hidden))
    room = hidden.new_empty(height, len(weight))
    for start in range(0, len(hidden), height):
        block = slice(start, start + height)
        logits = _product(hidden[block], weight, bias, room)
        yield block, logits.to(torch.promote_types(logits.dtype, torch.float32))


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None, room: Tensor) -> Tensor:
    """A linear layer's output, in room that the block before has had."""
    out = torch.mm(hidden, weight.T, out=room[: len(hidden)])
    return out if bias is None else out.add_(bias)


def _check_layer(who: str, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or hidden.dim() == 0 or hidden.shape[-1] != weight.shape[1] or hidden.numel() == 0:
        raise ValueError(
            f"{who}_hidden has shape {tuple(hidden.shape)} and {who}_weight {tuple(weight.shape)}; they must be"
            " (..., H) and (classes, H), with one position or more"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{who}_bias has shape {tuple(bias.shape)}; it must be ({len(weight)},), one for each class")
