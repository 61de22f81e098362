"""A teacher that cannot be trained by accident."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import features, models, sharding
from kdft_lib.features import Outputs
from kdft_lib.models.files import digest


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
        try:
            with torch.no_grad():
                return features.outputs(self.model, inputs, layers)
        except RuntimeError as error:
            here = next((tensor.device for tensor in self.tensors()), None)
            there = next(iter(inputs.values())).device if isinstance(inputs, Mapping) else inputs.device
            if here is None or here == there:
                raise
            raise ValueError(
                f"the teacher is on {here} and the inputs on {there}; fit moves both, elsewhere move the"
                f" teacher: teacher.to({str(there)!r})"
            ) from error

    def before_head(self, inputs: models.Inputs) -> tuple[Tensor, Any]:
        """What goes into its last layer, and that layer, in evaluation mode and without gradient; see
        :func:`kdft_lib.models.before_head`.

        Raises:
            ValueError: If its last layer cannot be taken apart.
        """
        self.model.eval()
        with torch.no_grad():
            return models.before_head(self.model, inputs)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Teacher({sharding.own_type(self.model).__name__}, {count:,} parameters)"

    def to(self, device: torch.device | str) -> Teacher:
        """Move the model to a device; its precision stays. Shares stay where they are."""
        if sharding.kept_fingerprint(self.model) is None:
            self.model.to(device)
        return self

    def tensors(self) -> Iterator[Tensor]:
        """Its parameters and buffers."""
        return itertools.chain(self.model.parameters(), self.model.buffers())

    def fingerprint(self) -> str:
        """SHA-256 of each module's class and settings as shown, and of every parameter and buffer."""
        if (kept := sharding.kept_fingerprint(self.model)) is not None:
            return kept
        return digest(self.model)
