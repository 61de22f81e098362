"""The options of a run: one list, which the loop, its checkpoints and recipes of experiments share."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch.optim import Optimizer

from kdft_lib.training import checks
from kdft_lib.training.callbacks import Mode, check_callbacks
from kdft_lib.training.schedules import SCHEDULES, Schedule
from kdft_lib.training.scores import Metric, check_metrics

Function = TypeVar("Function", bound=Callable[..., Any])

_NUMBER, _SWITCH, _PATH = (Real, "a number"), (bool, "True or False"), ((str, os.PathLike), "a path")
_FUNCTION = (Callable, "a function")
_TYPES: dict[str, tuple[Any, str]] = {
    "epochs": _NUMBER, "steps": _NUMBER, "batch_size": _NUMBER, "num_workers": _NUMBER, "collate_fn": _FUNCTION,
    "augment": _FUNCTION, "clip_norm": _NUMBER, "accumulate": _NUMBER, "seed": _NUMBER,
    "ema_decay": _NUMBER, "log_dir": _PATH, "checkpoint_dir": _PATH, "checkpoint_every": _NUMBER, "progress": _SWITCH,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is made, beside the four choices: the options of :func:`kdft_lib.training.fit`, which says what
    each of them does.

    Raises:
        TypeError: If a metric or a callback is none.
        ValueError: If an option is out of range, or two do not fit together.

    Example:
        >>> Settings(steps=400).batch_size
        128
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    num_workers: int = 0
    collate_fn: Callable[[list[Any]], Any] | None = None
    augment: Callable[[Any], Any] | None = None
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] = torch.optim.AdamW
    schedule: Literal["one_cycle", "cosine", "constant"] | Schedule = "one_cycle"
    clip_norm: float | None = None
    accumulate: int = 1
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    metrics: Mapping[str, Metric] | None = None
    keep_best: bool | str | tuple[str, Mode] = False
    callbacks: Sequence[Any] = ()
    ema_decay: float | None = None
    log_dir: str | Path | None = None
    checkpoint_dir: str | Path | None = None
    checkpoint_every: int | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs is {self.epochs} and steps is {self.steps}; give exactly one of them")
        for name in ("epochs", "steps", "batch_size", "accumulate", "checkpoint_every"):
            count = getattr(self, name)
            if count is not None and (int(count) != count or count < 1):
                raise ValueError(f"{name} is {count}; it must be a whole number of 1 or more")
        if self.num_workers < 0 or int(self.num_workers) != self.num_workers:
            raise ValueError(f"num_workers is {self.num_workers}; it must be a whole number of 0 or more")
        if int(self.seed) != self.seed:
            raise ValueError(f"seed is {self.seed}; it must be a whole number")
        for name in ("epochs", "steps", "batch_size", "accumulate", "checkpoint_every", "num_workers", "seed"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, int(getattr(self, name)))
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; it must be positive, or None for no clipping")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; choose {', '.join(SCHEDULES)}, or give a function")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be None for no average")

        match self.keep_best:
            case bool() | str() | (str(), "min" | "max"):
                pass
            case _:
                raise ValueError(
                    f"keep_best is {self.keep_best!r}; it must be True, the name of a score, or a pair such as"
                    ' ("loss", "min")'
                )
        check_metrics(self.metrics)
        check_callbacks(self.callbacks)

    def _check_types(self) -> None:
        checks.check_optimizer(self.optimizer)
        if not isinstance(self.schedule, str):
            checks.check_schedule(self.schedule)
        for name, (kinds, wanted) in _TYPES.items():
            value = getattr(self, name)
            if value is None and getattr(type(self), name) is None:
                continue
            if not isinstance(value, kinds) or (kinds is Real and isinstance(value, bool)):
                raise TypeError(f"{name} is {checks.what(value)}; it must be {wanted}")

    @property
    def course(self) -> Schedule:
        """The schedule as a function of the progress."""
        return SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule

    @property
    def validates(self) -> bool:
        """Whether an option looks at validation data."""
        return bool(self.keep_best or self.metrics or self.callbacks)

    def decisive(self) -> dict[str, Any]:
        """Those that decide what comes out: a resumed run must have the same."""
        free = ("epochs", "steps", "num_workers", "log_dir", "checkpoint_dir", "checkpoint_every", "progress")
        named = {"metrics": [*(self.metrics or ())], "callbacks": [type(each).__name__ for each in self.callbacks]}
        return {name: value for name, value in vars(self).items() if name not in free} | named


OPTIONS = tuple(field.name for field in dataclasses.fields(Settings))


def takes_settings(function: Function) -> Function:
    """Let a function's ``**options`` show, in its signature, as the fields of :class:`Settings`."""
    own = inspect.signature(function)
    options = inspect.signature(Settings).parameters.values()
    kept = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
    return function


def settings_of(options: dict[str, Any], of: str) -> Settings:
    """Options as :class:`Settings`, where each of them exists.

    Raises:
        TypeError: If one does not.
    """
    for name in options:
        if name not in OPTIONS:
            hint = "; learning rate and weight decay belong to the strategy" if name in ("lr", "weight_decay") else ""
            raise TypeError(f"{of} has no option {name!r}{hint}; its options are {', '.join(OPTIONS)}")
    return Settings(**options)
