"""Several objectives at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn

from kdft_lib.data import Batch
from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.checks import Weight, weight_at


class Sum(Objective):
    """Several objectives at once, a weighted or multi-task loss, as ``Hint(teacher, "body", "block3") +
    SoftTargets(teacher)`` makes it.

    The student runs once, each teacher once, and the layers asked for are read in that one call.

    Args:
        objectives: The objectives to add; sums among them are taken apart.
        factors: The factor of each, a number or a schedule; 1 by default.

    Raises:
        ValueError: If a factor is negative or not finite, or terms differ in ``class_dim``.

    Example:
        >>> from kdft_lib.objectives import SoftTargets, Supervised
        >>> objective = Supervised() + 0.5 * SoftTargets(nn.Linear(3, 2), ce_weight=0.0)
        >>> batch = {"inputs": torch.zeros(4, 3), "targets": torch.tensor([0, 1, 0, 1])}
        >>> sorted(objective(nn.Linear(3, 2), batch))
        ['loss', 'soft_targets/kd', 'supervised/ce']
    """

    def __init__(self, objectives: Sequence[Objective], *, factors: Sequence[Weight] | None = None):
        nn.Module.__init__(self)
        self.objectives = nn.ModuleList()
        self._factors: list[tuple[Weight, ...]] = []
        for objective, factor in zip(objectives, factors or [1.0] * len(objectives), strict=True):
            inner = (
                zip(objective.objectives, objective._factors, strict=True)
                if isinstance(objective, Sum)
                else [(objective, ())]
            )
            for term, before in inner:
                self.objectives.append(term)
                self._factors.append((*before, factor))
        self._now = [1.0] * len(self._factors)
        dims = {term.class_dim for _, term in self.terms() if term.reads_logits}
        if len(dims) > 1:
            raise ValueError(f"class_dim is {sorted(dims)} in the terms of a sum; give all that read logits the same")
        self.class_dim = dims.pop() if dims else -1
        self._follow(0, 1)

    def terms(self) -> Iterator[tuple[float, Objective]]:
        yield from zip(self._now, self.objectives, strict=True)

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        for _, term in self.terms():
            term.prepare(model, first_batch)

    def before_epoch(self, epoch: int, epochs: int) -> None:
        for _, term in self.terms():
            if type(term).before_epoch is not Objective.before_epoch:
                term.before_epoch(epoch, epochs)
        super().before_epoch(epoch, epochs)

    def extra_repr(self) -> str:
        return "factors=" + str([[str(factor) for factor in factors] for factors in self._factors])

    def _follow(self, epoch: int, epochs: int) -> None:
        self._now = [
            math.prod(weight_at("factor", factor, epoch, epochs) for factor in factors) for factors in self._factors
        ]
        for _, term in self.terms():
            term._follow(epoch, epochs)
