"""Several classifiers as one teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdft_lib import models


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
        return f"average={self.average}, class_dim={self.class_dim}"
