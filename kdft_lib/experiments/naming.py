"""Learn from what another decided of inputs without labels: pseudo-labels and self-training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdft_lib.data import Splits
from kdft_lib.experiments.methods import Wrapped
from kdft_lib.experiments.trained import Method, Source, Trained, found, shown
from kdft_lib.teachers import Teacher
from kdft_lib.training import Ledger


@dataclass(frozen=True)
class NamedBy(Wrapped):
    """A method that learns from the labels and from what another decided of the inputs without labels:
    pseudo-labels (Lee, 2013), or self-training where it is the same method.

    Names are no labels, so the ledger counts these inputs as unlabelled, and the labels of the namer apart.

    Attributes:
        method: Learns from labels and names alike.
        namer: Who names: once for each seed, whatever settings are tried.
        sure: Only names of a higher probability than this count; by default all do.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from kdft_lib.data import TensorData
        >>> from kdft_lib.experiments import Classical
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data[:4], data[4:].without_labels(), data, data)
        >>> itself = Classical(LogisticRegression())
        >>> ledger = NamedBy(itself, itself).train(splits, seed=0).ledger
        >>> ledger.labels, ledger.unlabeled, ledger.teacher_labels
        (4, 6, 4)
        >>> named = NamedBy(itself, lambda splits, seed: print("asked") or itself)
        >>> _ = [named.but(C=strength).train(splits, seed=0) for strength in (1.0, 10.0)]
        asked
    """

    method: Method
    namer: Source
    sure: float | None = None

    def __post_init__(self) -> None:
        namer = self.namer if isinstance(self.namer, _Namer) else _Namer(self.namer)
        object.__setattr__(self, "namer", namer)

    def train(self, splits: Splits, seed: int) -> Trained:
        """Ask the namer, and train the method on labels and names; where nothing is to be named, on labels."""
        if not len(splits.transfer):
            return self.method.train(splits, seed)
        namer: Any = self.namer
        first, names = namer.asked(splits, seed)
        unnamed = splits.transfer
        if self.sure is not None:
            rows = namer.certainty() > self.sure
            unnamed, names = unnamed[rows], names[rows]
        train = splits.train.with_rows(unnamed.with_targets(names))
        trained = self.method.train(splits._replace(train=train), seed)
        known = first.ledger
        if isinstance(namer.source, nn.Module | Teacher):
            known = dataclasses.replace(known, teacher_labels=Teacher(namer.source).labels)
        behind = known.teacher_labels
        ledger = dataclasses.replace(
            trained.ledger,
            labels=len(splits.train),
            unlabeled=len(splits.transfer),
            teacher_labels=None if behind is None else max(first.ledger.labels, behind),
            pretraining=(trained.ledger + Ledger(pretraining=first.ledger.pretraining)).pretraining,
        )
        return dataclasses.replace(trained, ledger=ledger)


class _Namer:
    """Whom to ask for names, and what was said of the splits that were asked about last."""

    def __init__(self, source: Source):
        self.source = source
        self._last: tuple[Splits, int, Trained, Tensor] | None = None
        self._certainty: Tensor | None = None

    def __repr__(self) -> str:
        return shown(self.source)

    def asked(self, splits: Splits, seed: int) -> tuple[Trained, Tensor]:
        """Who names for a seed, and the names of the inputs without labels."""
        if self._last is None or self._last[0] is not splits or self._last[1] != seed:
            first = found(self.source, splits, seed)
            self._last, self._certainty = (splits, seed, first, first.decide(splits.transfer)), None
        return self._last[2:]

    def certainty(self) -> Tensor:
        """The probability of each of these names."""
        assert self._last is not None
        if self._certainty is None:
            splits, _, first, _ = self._last
            self._certainty = first.logits(splits.transfer).softmax(dim=-1).amax(dim=-1)
        return self._certainty
