"""The four choices and a budget, as something that can be compared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments.trained import Source, Trained, a_copy, as_teacher, found, shown
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import Ledger, Settings, fit
from kdft_lib.training.settings import OPTIONS, settings_of, takes_settings

Part: TypeAlias = Literal["train", "transfer", "val"] | Callable[[Splits], TensorData]
"""A part of the splits, by its name or as a function of them."""


class Recipe:
    """The four choices and a budget: one call of :func:`kdft_lib.training.fit` for each seed.

    Args:
        model: What makes the student; torch's generator is seeded before.
        objective: What it learns from: an objective or, where settings of it are to be tried or each seed has its
            own teacher, what makes one: its class, or a function, called with the teacher if there is one.
        strategy: What may move, or what makes a strategy.
        teacher: The teacher to learn from: a model for all seeds, a method that each seed trains, or a function of
            splits and seed. Its logits are computed once for each seed and part, if the objective reads nothing else
            and there is no ``augment``.
        start: Whose trained weights to start from, in place of ``model``'s.
        change: What is done to the copy of ``start``, such as giving it a new head.
        train_data: Which part of the splits to learn from.
        transfer_data: Which part to use without labels, if any.
        pretraining: What the student knew before, in words for the ledger. With a ``start`` and without such words,
            the ledger of the start is added.
        options: Options of :func:`~kdft_lib.training.fit`, such as ``steps``; the seed is the comparison's, and
            ``keep_best``, ``metrics`` and ``callbacks`` look at ``splits.val``.

    Raises:
        TypeError: If there is no such option.
        ValueError: If an option is out of range, or differs from run to run.

    Example:
        >>> from kdft_lib.models import ConvNet
        >>> from kdft_lib.objectives import SoftTargets, Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> labels = Recipe(ConvNet, Supervised, FullFineTuning(lr=1e-2), steps=400)
        >>> labels.but(lr=0.1, label_smoothing=0.1).strategy.lr
        0.1
        >>> labels.taught_by(ConvNet(width=16), SoftTargets).but(temperature=2.0).settings.steps
        400
    """

    @takes_settings
    def __init__(
        self,
        model: Callable[..., nn.Module],
        objective: Objective | Callable[..., Objective],
        strategy: Strategy | Callable[..., Strategy],
        *,
        teacher: Source | None = None,
        start: Source | None = None,
        change: Callable[[nn.Module], nn.Module] | None = None,
        train_data: Part = "train",
        transfer_data: Part | None = None,
        pretraining: str = "none",
        **options: Any,
    ):
        self.model, self.objective, self.strategy = model, objective, strategy
        self.teacher = None if teacher is None else _Asked.of(teacher)
        self.start, self.change = start, change
        self.train_data, self.transfer_data, self.pretraining = train_data, transfer_data, pretraining
        _check_options(options)
        self.settings: Settings = settings_of({"progress": False} | options, "Recipe")

    def __repr__(self) -> str:
        chosen = {name: shown(value) for name, value in vars(self).items() if value is not None}
        return f"Recipe({', '.join(f'{name}={value}' for name, value in chosen.items())})"

    def but(self, **changes: Any) -> Recipe:
        """The same with some things changed: an argument of this class, an option of
        :func:`~kdft_lib.training.fit`, or an argument of the strategy, the objective or the model, such as ``lr``,
        ``temperature`` or ``width``.

        Raises:
            ValueError: If nothing here has an argument of that name.
        """
        new = object.__new__(Recipe)
        vars(new).update(vars(self))
        for name, value in changes.items():
            if name == "teacher":
                new.teacher = None if value is None else _Asked.of(value)
            elif name in vars(self) and name != "settings":
                setattr(new, name, value)
        options = {name: value for name, value in changes.items() if name in OPTIONS}
        if "steps" in options:
            options = {"epochs": None} | options
        elif "epochs" in options:
            options = {"steps": None} | options
        _check_options(options)
        new.settings = dataclasses.replace(self.settings, **options)
        for name, value in changes.items():
            if name not in vars(self) and name not in OPTIONS:
                new._set(name, value)
        return new

    def taught_by(
        self,
        teacher: Source,
        objective: Callable[..., Objective],
        *,
        on: Literal["labels", "all"] = "labels",
        **settings: Any,
    ) -> Recipe:
        """The same student, taught.

        Args:
            teacher: The teacher: a model for all seeds, a method that each seed trains, or a function.
            objective: What makes the objective of the teacher, such as :class:`~kdft_lib.objectives.SoftTargets`.
            on: ``"labels"``: on the labelled inputs; ``"all"``: on those without labels too.
            settings: Arguments of the objective.

        Raises:
            ValueError: If ``on`` is none of these.

        Example:
            >>> from kdft_lib.models import ConvNet
            >>> from kdft_lib.objectives import SoftTargets, Supervised
            >>> from kdft_lib.strategies import FullFineTuning
            >>> alone = Recipe(ConvNet, Supervised, FullFineTuning(lr=1e-2), steps=1)
            >>> alone.taught_by(alone, SoftTargets, on="all", temperature=2.0).transfer_data
            'transfer'
        """
        if on not in ("labels", "all"):
            raise ValueError(f'on is {on!r}; it must be "labels" or "all"')
        given = {"transfer_data": "transfer" if on == "all" else None}
        return self.but(teacher=teacher, objective=functools.partial(objective, **settings), **given)

    def train(self, splits: Splits, seed: int) -> Trained:
        """Make the student and train it; one seed sets the initialisation and the order."""
        before = found(self.start, splits, seed) if self.start is not None else None
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self.model() if before is None else a_copy(before.model, self.change)
        teacher = self.teacher.teacher(splits, seed) if self.teacher is not None else None
        objective = self.objective
        if not isinstance(objective, Objective):
            objective = objective() if teacher is None else objective(teacher)
        strategy = self.strategy if isinstance(self.strategy, Strategy) else self.strategy()
        part = _part if self.teacher is None else self.teacher.part
        train, transfer = part(splits, self.train_data), None
        if self.transfer_data is not None and len(rest := part(splits, self.transfer_data)):
            transfer = rest
        if self.teacher is not None and self.settings.augment is None and _reads_logits_alone(objective):
            train = self.teacher.answered(train)
            transfer = None if transfer is None else self.teacher.answered(transfer)
        history = fit(
            model, train, objective=objective, strategy=strategy, transfer_data=transfer,
            val_data=splits.val if self.settings.validates else None, **{**vars(self.settings), "seed": seed},
        )  # fmt: skip
        ledger = history.ledger
        if before is not None and self.pretraining == "none":
            ledger = before.ledger + ledger
        return Trained(model, ledger + Ledger(pretraining=self.pretraining), history, objective, seed=seed)

    def _set(self, name: str, value: Any) -> None:
        """Change an argument of the strategy, the objective or the model."""
        if isinstance(self.strategy, Strategy) and name in vars(self.strategy):
            self.strategy = self.strategy.but(**{name: value})
            return
        for part in ("strategy", "objective", "model"):
            maker = getattr(self, part)
            if name in _arguments(maker):
                setattr(self, part, functools.partial(maker, **{name: value}))
                return
        raise ValueError(
            f"nothing in this recipe has the setting {name!r}; there are"
            f" {', '.join(dict.fromkeys([*self._names(), *OPTIONS]))}"
        )

    def _names(self) -> list[str]:
        own = list(vars(self.strategy)) if isinstance(self.strategy, Strategy) else []
        return own + [name for part in (self.strategy, self.objective, self.model) for name in _arguments(part)]


def _check_options(options: dict[str, Any]) -> None:
    for name in ("seed", "checkpoint_dir", "log_dir"):
        if name in options:
            raise ValueError(f"{name} differs from run to run, so a Recipe has none; a comparison gives the seeds")


class _Asked:
    """A teacher and, of the parts of the data that it was asked about last, what it said."""

    def __init__(self, source: Source):
        self.source = source
        self._teachers: OrderedDict[tuple[int, int], tuple[Splits, Teacher]] = OrderedDict()
        self._parts: OrderedDict[tuple[int, Any], tuple[Splits, TensorData]] = OrderedDict()
        self._answers: OrderedDict[tuple[int, int], tuple[TensorData, TensorData]] = OrderedDict()
        self._now: Teacher | None = None

    @classmethod
    def of(cls, source: Source | _Asked) -> _Asked:
        return source if isinstance(source, cls) else cls(source)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """What tells one teacher from another: a model's fingerprint, a method's settings."""
        return shown(self.source)

    def __getstate__(self) -> dict[str, Any]:
        """Without what it remembers."""
        return vars(_Asked(self.source)) | {"source": self.source}

    def teacher(self, splits: Splits, seed: int) -> Teacher:
        """The teacher of a seed."""
        key = (id(splits), seed)
        if key not in self._teachers:
            if not any(before is splits for before, _ in self._teachers.values()):
                self._parts.clear()
                self._answers.clear()
            self._teachers[key] = splits, as_teacher(self.source, splits, seed)
        self._now = _last(self._teachers, key, keep=1)[1]
        return self._now

    def part(self, splits: Splits, part: Part) -> TensorData:
        """A part of the splits: the same object as long as the teacher is, so that its answers are found again."""
        key = (id(splits), part)
        if key not in self._parts:
            self._parts[key] = splits, _part(splits, part)
        return _last(self._parts, key, keep=4)[1]

    def answered(self, data: TensorData) -> TensorData:
        """Data with the logits of the teacher asked for last, unless it carries logits already."""
        assert self._now is not None
        if data.teacher_logits is not None:
            return data
        key = (id(self._now.model), id(data))
        if key not in self._answers:
            self._answers[key] = data, cache(self._now, data)
        return _last(self._answers, key, keep=4)[1]


def _last(kept: OrderedDict[Any, Any], key: Any, keep: int) -> Any:
    """An entry, which becomes the newest; older ones than so many are dropped."""
    kept.move_to_end(key)
    while len(kept) > keep:
        kept.popitem(last=False)
    return kept[key]


def _part(splits: Splits, part: Part) -> TensorData:
    data: TensorData = getattr(splits, part) if isinstance(part, str) else part(splits)
    return data


def _reads_logits_alone(objective: Objective) -> bool:
    asking = [term for _, term in objective.terms() if term.teacher is not None]
    return bool(asking) and all(term.reads_logits for term in asking)


def _arguments(maker: Any) -> list[str]:
    """The arguments by keyword of a class or function that makes something; of a finished thing none."""
    if isinstance(maker, Strategy | Objective | nn.Module):
        return []
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(maker).parameters
    except ValueError:
        return []
    return [name for name, parameter in parameters.items() if parameter.kind in kinds]
