"""What the recipe of the page on carrying is made of: the arms that three fields share, and weights in eight bits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from few_bits import rounded
from patience import OfItsClass
from solar_parts import SEEDS, TUNED_ON, Tuned, tuned
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import (
    Candidate,
    Comparison,
    Given,
    Measure,
    Members,
    Method,
    Once,
    Recipe,
    Score,
    Source,
    Then,
    Trained,
    compare,
    found,
    grid,
)
from kdft_lib.metrics import agreement
from kdft_lib.objectives import HardTargets, Hint, Objective, SoftTargets
from kdft_lib.teachers import Teacher, cache

RATES, WEIGHTS = (0.01, 0.03, 0.1), (100.0, 1000.0)
"""The rates, the same for each arm; and the weights of a hint, as in chapter 05."""
KEPT, KEPT_OF_ALL = 12, 4
"""Views of each labelled input that a teacher is asked about, and of each where those without labels are there too."""
KNOWS, SMALL, FEW = "who knows more", "of the student's size", "of the few labels"
LABELS, TAUGHT, BRIEFLY = "labels", "taught", ", briefly"
HINTED, BY_SMALL, OF_CLASS = "taught, and a hint", "taught by its own size", "taught: how sure, and the class"
HOW_SURE, WHAT_ELSE, NEITHER = "taught: how sure", "taught: what else", "taught: neither"
SOFT_FEW, SOFT_ALL = "labelled inputs, probabilities", "all inputs, probabilities"
HARD_ALL = "all inputs, decisions"
FLOAT, CHANNELS, ONE_SCALE = "float", "8 bits, a scale a channel", "8 bits, one scale"

ASKED = [
    (TAUGHT, LABELS),
    (TAUGHT + BRIEFLY, LABELS + BRIEFLY),
    (OF_CLASS, LABELS),
    (TAUGHT, OF_CLASS),
    (HINTED, TAUGHT),
    (BY_SMALL, TAUGHT),
    (HARD_ALL, SOFT_FEW),
    (HARD_ALL, SOFT_ALL),
    (SOFT_ALL, LABELS),
]


def elsewhere(recipe: Recipe) -> Then:
    """The same from other first weights: a shared seed would give a teacher of the student's size all of the student's,
    and a wider one some.
    """
    return Then(Members(recipe, 1), lambda run, *_: run.but(model=run.model.members[0]))


def as_it_is(run: Trained, splits: Splits, seed: int) -> Trained:
    return run


def labeled(splits: Splits) -> TensorData:
    return splits.train


def everything(splits: Splits) -> TensorData:
    """The inputs with labels and without."""
    return splits.train.with_rows(splits.transfer)


class Answered:
    """A seed's splits with a teacher's answers to what is learned from, asked once for all that learn from it."""

    def __init__(self, teacher: Source, views: Any, part: Callable[[Splits], TensorData] = labeled):
        self.teacher, self.views, self.part = teacher, views, part
        self._last: tuple[Splits, Splits] | None = None

    def __repr__(self) -> str:
        return f"Answered({self.teacher!r}, {self.views!r}, {self.part!r})"

    def __call__(self, splits: Splits, seed: int) -> Splits:
        if self._last is None or self._last[0] is not splits:
            kept = KEPT if self.part is labeled else KEPT_OF_ALL
            how = {} if self.views is None else {"augment": self.views, "views": kept}
            answers = cache(found(self.teacher, splits, seed).model, self.part(splits), batch_size=64, **how)
            self._last = splits, splits._replace(train=answers)
        return self._last[1]


@dataclass(frozen=True, eq=False)
class Field:
    """A student of few labels, and whom it may ask."""

    splits: Callable[[int], Splits]
    """Few labels, and the other inputs without; many to choose by, which no setting of the test's has seen."""
    more: Callable[[Splits, int], Splits]
    """The same with the labels of these other inputs, for teachers who know more."""
    alone: Recipe
    """The student on the labels."""
    knows: Method
    """A network that is larger than the student, made of the labels of all."""
    small: Method
    """One of the student's size, of as many."""
    few: Method
    """What the few labels make, when they are all that there is."""
    layers: tuple[str, str]
    """Of the student and of who knows more, for a hint: of the same resolution."""
    temperature: float
    classes: int
    rates: tuple[float, ...] = RATES
    briefly: int | None = None
    """A quarter of the student's steps, where its inputs are seen in views."""
    score: Score = Trained.accuracy

    @functools.cached_property
    def teachers(self) -> Comparison:
        """For the seeds that choose a setting too."""
        methods: dict[str, Any] = {
            KNOWS: Given(self.knows, self.more),
            SMALL: Given(self.small, self.more),
            FEW: self.few,
        }
        return compare(methods, self.splits, seeds=[*SEEDS, *TUNED_ON], score=self.score, equal_budgets=False)

    def hinted(self, teacher: Teacher, weight: float) -> Objective:
        """Soft targets, whose answers are kept, and a hint, for which the teacher looks at each view again."""
        return SoftTargets(teacher, temperature=self.temperature) + weight * Hint(teacher, *self.layers)

    def asked(self, teacher: Source, part: Callable[[Splits], TensorData] = labeled) -> Answered:
        return Answered(teacher, self.alone.settings.augment, part)

    def taught(
        self, answered: Answered, objective: Callable[..., Objective] | None = None, **settings: Any
    ) -> list[Candidate]:
        """By soft targets, or another objective, at each rate."""
        objective = objective or functools.partial(SoftTargets, temperature=self.temperature)
        lesson = self.alone.but(augment=None).taught_by(answered.teacher, objective)
        return grid(Given(lesson, answered), lr=self.rates, **settings)

    @functools.cached_property
    def students(self) -> Tuned:
        """Of one size, for as many steps of as many inputs; the same rates for each, and of the hint two weights."""
        knows, small, few = (self.teachers.source(name) for name in (KNOWS, SMALL, FEW))
        by_knowing, about_all = self.asked(knows), self.asked(few, everything)
        methods = {
            LABELS: grid(self.alone, lr=self.rates),
            TAUGHT: self.taught(by_knowing),
            HINTED: self.taught(by_knowing, self.hinted, weight=WEIGHTS),
            BY_SMALL: self.taught(self.asked(small)),
            SOFT_FEW: self.taught(self.asked(few)),
            SOFT_ALL: self.taught(about_all),
            HARD_ALL: self.taught(about_all, HardTargets),
        }
        if self.classes > 2:
            methods[OF_CLASS] = self.taught(self.asked(Once(Then(knows, self.of_its_class))))
        if self.briefly is not None:
            for name in (LABELS, TAUGHT):
                methods[name + BRIEFLY] = [
                    Candidate(each.method.but(steps=self.briefly), each.setting)  # type: ignore[attr-defined]
                    for each in methods[name]
                ]
        asked = [pair for pair in ASKED if set(pair) <= set(methods)]
        return tuned(methods, self.splits, reference=LABELS, contrasts=asked, score=self.score, measures={})

    def of_its_class(self, run: Trained, splits: Splits, seed: int) -> Trained:
        """A teacher that says, of an input, the decision and how sure it is, and of its class the rest."""
        return run.but(model=OfItsClass(run.model, splits.train, self.temperature))

    def records(self) -> dict[str, Comparison]:
        return self.students.records("students") | {"teachers": self.teachers}


class Told(nn.Module):
    """A teacher that says of an input what it decides; how sure it is, or else how sure it is on average; and what else
    the input might be, or else that it might be anything.
    """

    def __init__(self, teacher: nn.Module, data: TensorData, temperature: float, *, sure: bool, rest: bool):
        super().__init__()
        self.teacher, self.temperature, self.sure, self.rest = teacher, temperature, sure, rest
        self.usual = (cache(teacher, data).teacher_logits / temperature).softmax(-1).amax(-1).mean()

    def forward(self, inputs: Tensor) -> Tensor:
        soft = (self.teacher(inputs) / self.temperature).softmax(-1)
        sure, decided = soft.max(-1, keepdim=True)
        sure = sure if self.sure else self.usual.expand_as(sure)
        others = (soft if self.rest else torch.ones_like(soft)).scatter(-1, decided, 0.0)
        said = (1 - sure) * others / others.sum(-1, keepdim=True)
        return self.temperature * said.scatter(-1, decided, sure).clamp_min(1e-30).log()


def in_eight_bits(channels: bool, run: Trained, splits: Splits, seed: int) -> Trained:
    """Weights of convolutions and linear layers as whole numbers of 8 bits times a scale, of each channel or of the
    whole layer. Batch normalisation is folded in before, as an exporter does, and out again.
    """
    model = copy.deepcopy(run.model).eval()
    stretched: dict[Any, Tensor] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            last, stretched[layer] = layer, torch.ones(len(layer.weight))
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            stretched[last] = layer.weight.detach() / (layer.running_var + layer.eps).sqrt()
    with torch.no_grad():
        for layer, factor in stretched.items():
            whole = layer.weight
            spread = torch.where(factor == 0, 1.0, factor).view(-1, *[1] * (whole.dim() - 1))
            folded = whole * spread
            fitted = rounded(folded if channels else folded.flatten()[None], bits=8)
            whole.copy_(fitted.view(whole.shape) / spread)
    return run.but(model=model)


def agreeing(network: Source, trained: Trained, splits: Splits) -> float:
    """The share of test inputs on which it decides as the network in float."""
    whole = found(network, splits, trained.seed or 0)
    return agreement(trained.logits(splits.test), whole.logits(splits.test))


def shortened(network: Source, field: Field) -> Comparison:
    """A network in float, and in eight bits with a scale for each channel or one for each layer; nothing is chosen."""
    changes = {CHANNELS: functools.partial(in_eight_bits, True), ONE_SCALE: functools.partial(in_eight_bits, False)}
    methods = {FLOAT: Then(network, as_it_is)} | {name: Then(network, change) for name, change in changes.items()}
    measures: dict[str, Measure] = {
        "accuracy": lambda trained, splits: trained.accuracy(splits.test),
        "agreement": functools.partial(agreeing, network),
    }
    return compare(
        methods, field.splits, seeds=SEEDS, reference=FLOAT, contrasts=[(CHANNELS, ONE_SCALE), (CHANNELS, FLOAT)],
        score=field.score, measures=measures, keep=False,
    )  # fmt: skip
