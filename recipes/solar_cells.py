"""The long experiments of chapter 12, recorded: what a few labelled photographs of solar cells come to, and which of
the numbers would hold for a module that is yet to be built.

Average precision is what settings are chosen by, on modules that are set apart, and what methods are compared by. Of
each method three settings are tried on two seeds, of the large network two; the best is run on eight others. What is
ahead on some modules may be behind on others, so the modules to test by take turns: four tests, two seeds each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from shared import IMAGENET, LOGISTIC, Answered, FixedAnswers, OnViews
from solar_parts import (
    ALONE,
    AUGMENTED,
    BLIND,
    FINE_TUNED,
    FROZEN,
    HOG,
    KEPT,
    KEPT_UNLABELED,
    LARGE,
    LARGE_RATES,
    MEASURES,
    SVM,
    VIEWED,
    VIEWS,
    Tuned,
    begun_elsewhere,
    body,
    classical,
    column,
    modules,
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
    OnFeatures,
    Recipe,
    Then,
    Trained,
    found,
    grid,
    record_all,
)
from kdft_lib.objectives import HardTargets, Objective, SoftTargets
from kdft_lib.teachers import answers, cache

# A split at random beside one by module

ASKED = [(FROZEN, SVM), (FROZEN, HOG), (HOG, SVM)]


def turns() -> dict[str, Comparison]:
    """500 labels, and four tests by turns, each of other modules."""
    made = tuned(classical(), other_modules, seeds=range(8), reference=SVM, contrasts=ASKED)
    return made.records("500 labels, four tests by turns")


def splits() -> dict[str, Comparison]:
    """The same three methods, and one that is told the module's name and no more: 500 labels and 1,500. Parts are as
    large either way; 500 labels by module are in the turns.
    """
    methods = classical() | {BLIND: grid(Classical(LOGISTIC.estimator, shown=modules), C=(0.1, 1.0, 10.0))}
    made: dict[str, Comparison] = {}
    for labels, split, words in (
        (500, "random", "at random"),
        (1500, "random", "at random"),
        (1500, "module", "by module"),
    ):
        parts = functools.partial(other_modules, labeled=labels, split=split)
        made |= tuned(methods, parts, reference=SVM, contrasts=ASKED).records(f"{labels:,} labels, {words}")
    return made


# Teacher and student


@functools.cache
def teachers() -> Tuned:
    """What 500 labels make of a large network; beside it what one would try first, also with views, and the student by
    itself.
    """
    frozen = OnFeatures(LOGISTIC, body(FROZEN), IMAGENET)
    methods = {
        LARGE: grid(FINE_TUNED, lr=LARGE_RATES),
        **classical(),
        VIEWED: grid(OnViews(frozen, VIEWS, KEPT), C=(0.001, 0.01, 0.1)),
        AUGMENTED: tried(ALONE.but(augment=VIEWS)),
    }
    asked = [(LARGE, other) for other in (VIEWED, FROZEN, AUGMENTED)] + [(VIEWED, FROZEN), (FROZEN, HOG), (FROZEN, SVM)]
    asked += [(AUGMENTED, FROZEN), (AUGMENTED, SVM)]
    return tuned(methods, other_modules, reference=FROZEN, contrasts=asked)


def large() -> dict[str, Comparison]:
    """Lite0's last three stages beside its frozen features, and what one would try first."""
    return teachers().records("teachers")


def by_head(splits: Splits, seed: int) -> Splits:
    """With what logistic regression on Lite0's features says of each cell as it is; the student sees views."""
    head = found(teachers().source(FROZEN), splits, seed)
    said = [answers(part, logits=head.logits(part), source=FROZEN) for part in splits[:2]]
    train, transfer = (FixedAnswers(part, VIEWS) for part in said)
    return splits._replace(train=train, transfer=transfer)


def noted(run: Trained, splits: Splits, seed: int) -> Trained:
    """With what those answers cost in the ledger."""
    return run.but(teacher_labels=len(splits.train), pretraining=IMAGENET)


def students() -> dict[str, Comparison]:
    """The same student, of one size, for as many steps of as many pictures: on the labels, and on what others say of
    all cells, or of the labelled ones alone. Teachers that this program has not trained yet are trained first.
    """
    looks = [functools.partial(cache, augment=VIEWS, batch_size=64, views=count) for count in (KEPT, KEPT_UNLABELED)]
    answered = {name: Answered(teachers().source(name), *looks) for name in (LARGE, AUGMENTED)}
    half = ALONE.but(batch_size=ALONE.settings.batch_size // 2)  # And as many without labels.

    def taught(
        teacher: str, lesson: Callable[..., Objective], base: Recipe = half, on: Literal["labels", "all"] = "all"
    ) -> list[Candidate]:
        return tried(Given(base.taught_by(teachers().source(teacher), lesson, on=on), answered[teacher]))

    soft, hard, few, own = "distilled, soft", "distilled, hard", "distilled, soft, the 500 alone", "self-trained"
    frozen = "distilled, soft, from frozen features"
    warm = functools.partial(SoftTargets, temperature=2.0)
    methods = {
        soft: taught(LARGE, warm),
        hard: taught(LARGE, HardTargets),
        few: taught(LARGE, warm, ALONE, "labels"),
        own: taught(AUGMENTED, HardTargets, half.but(model=begun_elsewhere)),
        frozen: tried(Then(Given(half.but(objective=warm, transfer_data="transfer"), by_head), noted)),
    }
    before = teachers()
    methods |= {name: as_made(before, name) for name in (AUGMENTED, LARGE, FROZEN, HOG, SVM)}
    asked = [(soft, other) for other in (AUGMENTED, own, hard, few, frozen, LARGE, FROZEN, HOG, SVM)]
    asked += [(hard, own), (few, AUGMENTED), (frozen, AUGMENTED), (frozen, FROZEN)]
    made = tuned(methods, other_modules, reference=AUGMENTED, contrasts=asked)
    return made.records("students")


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


def misplaced(splits: Splits, seed: int) -> Splits:
    """As many cells in doubt, and as much, of the same decisions: but drawn among those of which people were sure."""
    columns = splits.train.rows(slice(None))
    said, inputs, targets = (columns.pop(name) for name in ("probability", "inputs", "targets"))
    other, draw = targets.float(), torch.Generator().manual_seed(seed)
    for decided, doubt in ((0, 1 / 3), (1, 2 / 3)):
        certain = (said == decided).nonzero().flatten()
        count = int((targets == decided).sum()) - len(certain)
        other[certain[torch.randperm(len(certain), generator=draw)[:count]]] = doubt
    return splits._replace(train=TensorData(inputs, targets, columns=columns | {"probability": other}))


def once_each(run: Trained, splits: Splits, seed: int) -> Trained:
    """A cell that was learned from more than once has one label."""
    return run.but(labels=len(splits.train))


def doubt() -> dict[str, Comparison]:
    """1,500 labels, of which some 230 are in doubt: as decisions and as probabilities; of Lite0's features also as
    probabilities whose doubt is moved to other cells, and without those in doubt.
    """
    augmented = ALONE.but(augment=VIEWS)
    weighed = Classical(LOGISTIC.estimator, weights=lambda data: column(data, "weight").numpy())
    frozen = functools.partial(OnFeatures, features=body(FROZEN), pretraining=IMAGENET)
    strengths = (0.003, 0.03, 0.3)
    networks = {
        "decisions": tried(augmented),
        "probabilities": tried(augmented.but(objective=Doubts)),
    }
    features = {
        "decisions": grid(frozen(LOGISTIC), C=strengths),
        "probabilities": grid(Then(Given(frozen(weighed), twice), once_each), C=strengths),
        "doubt elsewhere": grid(Then(Given(Given(frozen(weighed), twice), misplaced), once_each), C=strengths),
        "without doubt": grid(Given(frozen(LOGISTIC), sure), C=strengths),
    }
    parts = functools.partial(other_modules, labeled=1500)
    asked = [("probabilities", "decisions"), ("probabilities", "doubt elsewhere"), ("without doubt", "decisions")]
    made = tuned(features, parts, contrasts=asked).records("Lite0's features")
    return made | tuned(networks, parts, contrasts=asked[:1]).records("students")


# One kind of silicon, or two


@dataclass(frozen=True)
class Trial:
    """The parts of a seed with one kind alone to choose and to test by."""

    kind: str

    def __call__(self, seed: int) -> Splits:
        made = other_modules(seed)
        return made._replace(val=of_kind(self.kind, made.val), test=of_kind(self.kind, made.test))


@dataclass(frozen=True)
class Only:
    """The labelled cells of one kind."""

    kind: str

    def __call__(self, splits: Splits, seed: int) -> Splits:
        return splits._replace(train=of_kind(self.kind, splits.train))


def kinds() -> dict[str, Comparison]:
    """Of 500 labels those of one kind, of the other, or all: logistic regression on Lite0's features."""
    frozen = OnFeatures(LOGISTIC, body(FROZEN), IMAGENET)
    arms: dict[str, Any] = {**{kind: Given(frozen, Only(kind)) for kind in SOLAR_KINDS}, "both": frozen}
    methods = {name: grid(method, C=(0.003, 0.03, 0.3)) for name, method in arms.items()}
    made: dict[str, Comparison] = {}
    for kind, other in (SOLAR_KINDS, SOLAR_KINDS[::-1]):
        asked = [("both", kind), (kind, other)]
        result = tuned(methods, Trial(kind), reference=kind, contrasts=asked, measures=MEASURES)
        made |= result.records(f"tested on {kind}")
    return made


EXPERIMENTS = {
    "solar-cells-turns": turns,
    "solar-cells-splits": splits,
    "solar-cells-kinds": kinds,
    "solar-cells-doubt": doubt,
    "solar-cells-teachers": large,
    "solar-cells-students": students,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
