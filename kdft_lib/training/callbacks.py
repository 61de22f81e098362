"""What watches a run, is told of its steps and epochs, and may end it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import nn

from kdft_lib.training.history import History

if TYPE_CHECKING:
    from kdft_lib.training.run import Run
    from kdft_lib.training.settings import Settings

EVENTS = ("on_step_end", "on_epoch_end")
Mode: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True)
class RunState:
    """What a callback is told: where a run is.

    Attributes:
        model: The model that is trained; at the end of an epoch with its averaged weights inside, where they are
            averaged, as it was validated. To be looked at, not to be changed.
        history: The record so far, this step or epoch included.
        step: The number of steps that are done.
        epoch: The epoch, from 0.
        scores: The validation scores by name, at the end of an epoch; empty elsewhere, and without validation data.

    Example:
        >>> class Printed:
        ...     def on_step_end(self, state):
        ...         print(state.step, state.history.steps[-1]["loss"])
        >>> Printed().on_step_end(RunState(nn.Linear(2, 1), History(steps=[{"step": 1, "loss": 0.5}]), step=1, epoch=0))
        1 0.5
    """

    model: nn.Module
    history: History
    step: int
    epoch: int
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Criterion:
    """A score to choose by, and which end of it is best."""

    name: str
    mode: Mode

    @classmethod
    def of(cls, name: str, mode: Mode | None = None) -> Criterion:
        """By default the lowest loss, and the highest of all else."""
        return cls(name, mode or ("min" if name == "loss" else "max"))

    def gain(self, score: float, than: float) -> float:
        """How much better a score is."""
        return score - than if self.mode == "max" else than - score

    def leads(self, row: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> bool:
        """Whether an epoch is better than all others; one whose score is not finite never is."""
        score, *before = (each.get(f"val_{self.name}", math.nan) for each in (row, *others))
        return math.isfinite(score) and all(self.gain(score, other) > 0 for other in before if math.isfinite(other))


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop where validation has not improved for some epochs: early stopping, a callback for
    :func:`~kdft_lib.training.fit`, with ``val_data``.

    It has no state of its own: what it decides follows from the run's history. The weights are those of the last
    epoch; ``keep_best`` ends with the best ones.

    Args:
        monitor: The validation score to watch: ``"accuracy"``, ``"loss"``, or the name of one of ``metrics``.
        patience: The number of epochs without an improvement after which it stops, 1 or more; 3 as in Lightning.
        mode: ``"min"`` or ``"max"``, the end that is better; by default the lowest ``"loss"``, and the highest of
            all other scores.
        min_delta: By how much a score must be better to count as an improvement, 0 or more.

    Raises:
        ValueError: If an argument is out of range; in use, before the first step, if there is no such score.

    Example:
        >>> epochs = [{"epoch": epoch, "val_loss": loss} for epoch, loss in enumerate([0.9, 0.5, 0.6, 0.5])]
        >>> stopping = EarlyStopping(monitor="loss", patience=2)
        >>> stopping.on_epoch_end(RunState(nn.Linear(2, 1), History(epochs=epochs), step=8, epoch=3))
        False
    """

    monitor: str = "accuracy"
    patience: int = 3
    mode: Mode | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or int(self.patience) != self.patience or self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it must be a whole number of epochs, 1 or more")
        if self.mode not in (None, "min", "max"):
            raise ValueError(f'mode is {self.mode!r}; choose "min", "max", or None for what suits the score')
        if not (self.min_delta >= 0 and math.isfinite(self.min_delta)):
            raise ValueError(f"min_delta is {self.min_delta}; it must be 0 or more and finite")

    def on_epoch_end(self, state: RunState) -> bool:
        """False where it is time to stop."""
        criterion = Criterion.of(self.monitor, self.mode)
        best, waited = -math.inf, 0
        for row in state.history.epochs:
            gain = criterion.gain(row[f"val_{self.monitor}"], 0.0)
            better = math.isfinite(gain) and gain - best > self.min_delta
            best, waited = (gain, 0) if better else (best, waited + 1)
        return waited < self.patience


def check_callbacks(callbacks: Any) -> None:
    """Refuse what would never be told anything.

    Raises:
        TypeError: If there is some.
    """
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks is {callbacks!r}; give a sequence of them, as in callbacks=[EarlyStopping()]")
    for callback in callbacks:
        if isinstance(callback, type) or not any(callable(getattr(callback, event, None)) for event in EVENTS):
            raise TypeError(
                f"callbacks holds {callback!r}; give objects with a method on_step_end(state) or on_epoch_end(state),"
                " such as kdft_lib.training.EarlyStopping()"
            )


def tell(run: Run, event: str, epoch: int, scores: Mapping[str, float] | None = None) -> None:
    """Let a run's callbacks know, and note in its history if one of them ends it; the first process decides for all."""
    told = [getattr(callback, event) for callback in run.settings.callbacks if hasattr(callback, event)]
    if not told:
        return
    state = RunState(run.model, run.record.history, run.step, epoch, scores or {})
    answers = [call(state) for call in told]
    stop = any(answer is not None and not answer for answer in answers)
    if run.accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        stop = bool(broadcast(torch.tensor(int(stop), device=run.accelerator.device)))
    run.record.history.stopped = run.record.history.stopped or stop


def states_of(callbacks: Sequence[Any]) -> list[dict[str, Any]]:
    """What they remember, for a checkpoint."""
    return [callback.state_dict() if hasattr(callback, "state_dict") else {} for callback in callbacks]


def restore(callbacks: Sequence[Any], states: Sequence[dict[str, Any]]) -> None:
    """From a checkpoint."""
    for callback, state in zip(callbacks, states, strict=True):
        if hasattr(callback, "load_state_dict"):
            callback.load_state_dict(state)


def criterion_of(settings: Settings, classes: bool, *, validated: bool) -> Criterion:
    """What the best epoch is chosen by, once it is sure that there are scores to choose and to watch by.

    Args:
        settings: The run's.
        classes: Whether there is an accuracy.
        validated: Whether there is data to validate with.

    Raises:
        ValueError: If there is no score of a name that is given.
    """
    scores = [*(["accuracy"] if classes else []), "loss", *(settings.metrics or ())]
    best = scores[0] if isinstance(settings.keep_best, bool) else settings.keep_best
    criterion = Criterion.of(best) if isinstance(best, str) else Criterion.of(*best)
    wanted = [("keep_best", criterion.name)] if settings.keep_best else []
    wanted += [(type(each).__name__, each.monitor) for each in settings.callbacks if getattr(each, "monitor", None)]
    for what, name in [*wanted, *(("metrics", name) for name in settings.metrics or ())]:
        if not validated:
            raise ValueError(f"{what} needs val_data to score by {name!r}; give some, never the test set")
        if name not in scores:
            raise ValueError(
                f"{what} goes by {name!r}, but the scores are {', '.join(scores)}; name one of them, or add it to"
                " metrics"
            )
    return criterion
