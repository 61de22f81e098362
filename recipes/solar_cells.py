"""The long experiments of chapter 12, recorded: what a few labelled photographs of solar cells come to, and which of
the numbers would hold for a module that is yet to be built.

Average precision is what settings are chosen by, on modules that are set apart, and what methods are compared by. Of
each method three settings are tried on two seeds; the best of them is run on five others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from shared import IMAGENET, LOGISTIC
from solar_parts import (
    ALONE,
    AUGMENTED,
    FINE_TUNED,
    FROZEN,
    HOG,
    KEPT,
    LABELS,
    LARGE_RATES,
    MEASURES,
    PART,
    SVM,
    VIEWS,
    WHOLE,
    LastStages,
    Tuned,
    body,
    cells,
    classical,
    column,
    of_kind,
    other_modules,
    tried,
    tuned,
)
from torch import Tensor, nn

from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.datasets import SOLAR_KINDS
from kdft_lib.experiments import (
    Candidate,
    Classical,
    Comparison,
    Given,
    Once,
    OnFeatures,
    Then,
    Trained,
    found,
    grid,
    record_all,
)
from kdft_lib.objectives import HardTargets, Objective, SoftTargets
from kdft_lib.teachers import cache

# A split at random beside one by module

ASKED = [(FROZEN, SVM), (FROZEN, HOG), (HOG, SVM)]


def turns() -> dict[str, Comparison]:
    """500 labels, and four tests by turns, each of other modules."""
    made = tuned(classical(), other_modules, seeds=range(8), reference=SVM, contrasts=ASKED)
    return made.records("500 labels, four tests by turns")


def splits() -> dict[str, Comparison]:
    """The same three methods, 500 labels and 1,500."""
    made: dict[str, Comparison] = {}
    for labels in (500, 1500):
        for split, words in (("random", "at random"), ("module", "by module")):
            parts = functools.partial(cells, labeled=labels, split=split)
            made |= tuned(classical(), parts, reference=SVM, contrasts=ASKED).records(f"{labels:,} labels, {words}")
    return made


# Teacher and student


@functools.cache
def teachers() -> Tuned:
    """What 500 labels make of a large network; beside it what one would try first, and the student by itself."""
    methods = {
        WHOLE: grid(FINE_TUNED.but(image_size=160), lr=LARGE_RATES),
        PART: grid(FINE_TUNED.but(strategy=LastStages(lr=1e-3)), lr=LARGE_RATES),
        **classical(),
        LABELS: tried(ALONE),
        AUGMENTED: tried(ALONE.but(augment=VIEWS)),
    }
    asked = [(WHOLE, PART), (WHOLE, FROZEN), (PART, FROZEN), (FROZEN, SVM), (AUGMENTED, LABELS), (AUGMENTED, SVM)]
    return tuned(methods, cells, reference=FROZEN, contrasts=asked)


def best_teacher() -> str:
    """The large network that suits the modules to choose by best."""
    scores = {name: sum(teachers().tried.validation(name)) for name in (WHOLE, PART)}
    return max(scores, key=lambda name: scores[name])


class Answered:
    """A seed's splits with a teacher's answers to some views of each cell, made once for all that learn from it."""

    def __init__(self, teacher: str):
        self.teacher = teacher
        self._last: tuple[Splits, Splits] | None = None

    def __repr__(self) -> str:
        return f"Answered({self.teacher!r})"

    def __call__(self, splits: Splits, seed: int) -> Splits:
        if self._last is None or self._last[0] is not splits:
            model = found(teachers().source(self.teacher), splits, seed).model
            ask = functools.partial(cache, model, augment=VIEWS, views=KEPT, batch_size=64)
            self._last = splits, splits._replace(train=ask(splits.train), transfer=ask(splits.transfer))
        return self._last[1]


def students() -> dict[str, Comparison]:
    """The same student, of one size and for as many steps, on the labels and on what others say of all cells."""
    large = best_teacher()
    answered = {name: Answered(name) for name in (large, AUGMENTED)}

    def taught(teacher: str, objective: Callable[..., Objective], **settings: float) -> list[Candidate]:
        base = ALONE.taught_by(teachers().source(teacher), objective, on="all", **settings)
        return tried(Given(base, answered[teacher]))

    soft, hard, own = "distilled, soft", "distilled, hard", "self-trained"
    methods = {
        soft: taught(large, SoftTargets, temperature=2.0),
        hard: taught(large, HardTargets),
        own: taught(AUGMENTED, HardTargets),
    }
    before = teachers()
    methods |= {name: as_made(before, name) for name in (AUGMENTED, LABELS, large, FROZEN, HOG, SVM)}
    asked = [(soft, other) for other in (AUGMENTED, LABELS, own, hard, large, FROZEN, HOG, SVM)]
    made = tuned(methods, cells, reference=AUGMENTED, contrasts=[*asked, (hard, own)])
    return made.records("students") | before.records("teachers")


def as_made(before: Tuned, name: str) -> list[Candidate]:
    """What was trained already, in the setting that was chosen, for another table."""
    return [Candidate(Then(before.source(name), lambda run, *_: run), before.made.setting(name))]


# People's doubt


class Doubts(Objective):
    """Learn the probability that people gave: a cross-entropy with soft labels."""

    name = "doubts"

    def __init__(self) -> None:
        super().__init__({"doubts": 1.0})

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        said = batch["probability"]
        loss = F.cross_entropy(model(batch["inputs"]), torch.stack([1 - said, said], 1))
        return {"loss": loss, "doubts/doubts": loss.detach()}


def sure(splits: Splits, seed: int) -> Splits:
    """Cells on which people were sure."""
    said = column(splits.train, "probability")
    return splits._replace(train=splits.train[(said == 0) | (said == 1)])


def twice(splits: Splits, seed: int) -> Splits:
    """Each cell as defective and as functional, which weigh as people said: a classifier's soft labels."""
    columns = splits.train.rows(slice(None))
    said = columns.pop("probability")
    both = {name: torch.cat([values, values]) for name, values in columns.items() if name not in ("inputs", "targets")}
    targets = torch.arange(2).repeat_interleave(len(said))
    both["weight"] = torch.cat([1 - said, said])
    inputs = torch.cat([columns["inputs"]] * 2)
    return splits._replace(train=TensorData(inputs, targets, columns=both))


def once_each(run: Trained, splits: Splits, seed: int) -> Trained:
    """A cell that was learned from twice has one label."""
    return run.but(labels=len(splits.train))


def doubt() -> dict[str, Comparison]:
    """1,500 labels, of which some 230 are in doubt: as decisions, as probabilities, and without those in doubt."""
    augmented = ALONE.but(augment=VIEWS)
    weighed = Classical(LOGISTIC.estimator, weights=lambda data: column(data, "weight").numpy())
    frozen = functools.partial(OnFeatures, features=body(FROZEN), pretraining=IMAGENET)
    strengths = (0.003, 0.03, 0.3)
    networks = {
        "decisions": tried(augmented),
        "probabilities": tried(augmented.but(objective=Doubts)),
        "without doubt": tried(Given(augmented, sure)),
    }
    features = {
        "decisions": grid(frozen(LOGISTIC), C=strengths),
        "probabilities": grid(Then(Given(frozen(weighed), twice), once_each), C=strengths),
        "without doubt": grid(Given(frozen(LOGISTIC), sure), C=strengths),
    }
    parts = functools.partial(cells, labeled=1500)
    asked = [("probabilities", "decisions"), ("without doubt", "decisions")]
    made = tuned(networks, parts, contrasts=asked).records("students")
    return made | tuned(features, parts, contrasts=asked).records("Lite0's features")


# One kind of silicon, or two


@dataclass(frozen=True)
class Trial:
    """The parts of a seed with one kind alone to choose and to test by."""

    kind: str

    def __call__(self, seed: int) -> Splits:
        made = cells(seed)
        return made._replace(val=of_kind(self.kind, made.val), test=of_kind(self.kind, made.test))


@dataclass(frozen=True)
class Only:
    """The labelled cells of one kind."""

    kind: str

    def __call__(self, splits: Splits, seed: int) -> Splits:
        return splits._replace(train=of_kind(self.kind, splits.train))


def kinds() -> dict[str, Comparison]:
    """Of 500 labels those of one kind, of the other, or all; the students that learn from all are shared."""
    augmented, frozen = ALONE.but(augment=VIEWS), OnFeatures(LOGISTIC, body(FROZEN), IMAGENET)
    of = {
        "students": {**{kind: tried(Given(augmented, Only(kind))) for kind in SOLAR_KINDS}, "both": tried(augmented)},
        "Lite0's features": {
            **{kind: grid(Given(frozen, Only(kind)), C=(0.003, 0.03, 0.3)) for kind in SOLAR_KINDS},
            "both": grid(frozen, C=(0.003, 0.03, 0.3)),
        },
    }
    made: dict[str, Comparison] = {}
    for learner, arms in of.items():
        shared = {
            arm: [Candidate(Once(entry.method), entry.setting) for entry in entries] for arm, entries in arms.items()
        }
        for kind, other in (SOLAR_KINDS, SOLAR_KINDS[::-1]):
            asked = [("both", kind), (kind, other)]
            result = tuned(shared, Trial(kind), reference=kind, contrasts=asked, measures=MEASURES)
            made |= result.records(f"{learner}, tested on {kind}")
    return made


EXPERIMENTS = {
    "solar-cells-turns": turns,
    "solar-cells-splits": splits,
    "solar-cells-students": students,
    "solar-cells-doubt": doubt,
    "solar-cells-kinds": kinds,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
