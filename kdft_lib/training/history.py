"""What happened in a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdft_lib.training.ledger import Ledger

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas


@dataclass
class History:
    """The record that :func:`kdft_lib.training.fit` returns.

    Attributes:
        steps: One dict for each optimiser step: ``step`` (from 1), ``epoch`` (from 0), ``lr`` (the
            highest of the groups), ``loss`` and its unweighted parts.
        epochs: One dict for each epoch, or two where a resumed run's budget grew within it: ``epoch``, ``step``, the
            means of ``loss`` and its parts, and, where there was validation data, its scores, such as ``val_accuracy``
            and ``val_loss``.
        best_epoch: The epoch (from 0) that was best by what ``keep_best`` names, by default of highest validation
            accuracy, or lowest loss where there is no accuracy; the earliest of equals, or ``None`` without
            validation data.
        stopped: Whether a callback ended it before its budget was spent.
        seconds: Of training and validation, over all sittings.
        ledger: What the run consumed.

    Example:
        >>> History(steps=[{"step": 1}], epochs=[{"epoch": 0, "step": 1, "loss": 0.5}], seconds=2.0)
        History(1 steps, 1 epochs, 2.0 s; at the end loss 0.5)
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: bool = False
    seconds: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)

    def __repr__(self) -> str:
        described = f"{len(self.steps):,} steps, {len(self.epochs)} epochs, {self.seconds:.1f} s"
        if self.epochs:
            last = {key: value for key, value in self.epochs[-1].items() if key not in ("epoch", "step")}
            described += "; at the end " + ", ".join(f"{key} {value:.4g}" for key, value in last.items())
        return f"History({described})"

    def table(self) -> pandas.DataFrame:
        """One row for each epoch."""
        import pandas

        return pandas.DataFrame(self.epochs).set_index("epoch")

    def plot(self, ax: matplotlib.axes.Axes | None = None) -> matplotlib.axes.Axes:
        """The loss and its parts over the steps."""
        from kdft_lib import plots

        return plots.history(self.steps, ax)
