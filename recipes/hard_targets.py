"""The long experiments of chapter 03, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from shared import LOGISTIC, SVM, labeled, pixels, shifted, student, thousand_labels
from torch import Tensor

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import (
    Candidate,
    Comparison,
    Given,
    Measure,
    Members,
    NamedBy,
    Recipe,
    Source,
    Trained,
    compare,
    grid,
    record_all,
)
from kdft_lib.features import Remembered
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache

TEACHER = fashion_teacher()
LABELS = Recipe(student, Supervised, FullFineTuning(lr=0.3), steps=800)
DECAYS = (0.01, 0.1)
tuned = functools.partial(grid, lr=0.3, weight_decay=DECAYS)


def inputs() -> dict[str, Comparison]:
    """What more inputs bring: the same 800 steps on more and more images, named by their labels, by the
    teacher's decisions and by its distributions. Two weight decays for each, chosen on validation.
    """
    soft = LABELS.taught_by(TEACHER, SoftTargets, kd_weight=1.0, ce_weight=0.0)
    hard = soft.but(objective=functools.partial(HardTargets, kd_weight=1.0, ce_weight=0.0))
    methods = {"labels": tuned(LABELS), "decisions": tuned(hard), "distributions": tuned(soft)}
    asked = [("decisions", "labels"), ("distributions", "decisions")]
    return {
        f"{count:,} inputs": compare(methods, functools.partial(labeled, count), contrasts=asked)
        for count in (1000, 4000, 16_000, 55_000)
    }


def pseudo() -> dict[str, Comparison]:
    """1,000 labels and 54,000 images without: who names them? Four settings for each method: two weight
    decays times two values of what it brings along (label smoothing, a shift, a threshold).
    """

    def by(namer: Source) -> list[Candidate]:
        return tuned(NamedBy(LABELS, namer), label_smoothing=(0.0, 0.1))

    own = {
        "labels": tuned(LABELS, label_smoothing=(0.0, 0.1)),
        "augmentation": tuned(shifted(LABELS), shift=(1, 2)),
        "logistic regression": grid(LOGISTIC, C=(1e-4, 1e-3, 1e-2, 1e-1)),
        "SVM": grid(SVM, C=(5, 25), gamma=("scale", 4e-3)),
    }
    alone = compare(own, thousand_labels)
    itself = alone.source("labels")
    named = {
        "named by itself": by(itself),
        "by itself where sure": grid(NamedBy(LABELS, itself), sure=(0.8, 0.95), lr=0.3, weight_decay=DECAYS),
        "by five of itself": by(Members(LABELS.but(**alone.setting("labels")), 5)),
        "by itself, augmented": by(alone.source("augmentation")),
        "by the SVM": by(alone.source("SVM")),
        "by a teacher with 55,000 labels": by(TEACHER),
    }
    asked = [("named by itself", "labels")]
    asked += [(name, "named by itself") for name in ("by itself where sure", "by five of itself", "by the SVM")]
    asked += [(name, "augmentation") for name in ("named by itself", "by itself, augmented")]
    asked += [("by the SVM", "SVM"), ("by a teacher with 55,000 labels", "by itself, augmented")]
    return {"who names": replace(alone | compare(named, thousand_labels), contrasts=asked)}


PARTNER = torch.tensor([6, 3, 4, 1, 2, 7, 0, 9, 5, 8])
"""The class that each is taken for: pullovers for coats, sandals for sneakers."""
SHARE = 0.2
"""Of the names of each class that a rule replaces."""
FEATURES = Remembered(TEACHER, "head", batch_size=512)
"""The last features of the teacher."""

Rule: TypeAlias = Callable[[TensorData, Tensor, int], tuple[Tensor, Tensor]]
"""From pictures with the teacher's answers, their names and a seed: whom a rule hits first, and what it calls them."""


def spoil(names: Tensor, score: Tensor, other: Tensor) -> Tensor:
    """In each class, the pictures of highest score get another name."""
    spoilt = names.clone()
    for label in range(10):
        members = (names == label).nonzero().flatten()
        members = members[score[members].argsort(descending=True)]
        hit = members[: round(SHARE * len(members))]
        spoilt[hit] = other[hit]
    return spoilt


def at_random(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures by lot, and one of the nine other names by lot."""
    lots = torch.Generator().manual_seed(seed)
    another = torch.randint(1, 10, names.shape, generator=lots)
    return torch.rand(len(names), generator=lots), (names + another) % 10


def partners_name(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures by lot, and the name of their class's partner."""
    return at_random(data, names, seed)[0], PARTNER[names]


def by_a_checksum(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A rule that no network sees: the remainder of a sum over all pixels."""
    return (pixels(data.inputs).flatten(1).sum(dim=1) * 7919 % 1009).float(), PARTNER[names]


def by_brightness(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The brightest pictures."""
    return data.inputs.mean(dim=(1, 2, 3)), PARTNER[names]


def by_the_upper_half(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Those that have most of their brightness in their upper half."""
    bright = pixels(data.inputs).float().sum(dim=(1, 3))
    return bright[:, :14].sum(dim=1) / bright.sum(dim=1), PARTNER[names]


def by_a_hidden_feature(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Those farthest along one random direction in the last features of the teacher."""
    features = FEATURES(data).inputs
    direction = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
    return features @ direction, PARTNER[names]


def where_it_hesitates(data: TensorData, names: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Those where a second class comes closest, by that class: mistakes as weaker teachers make them."""
    logits = data.teacher_logits
    assert isinstance(logits, Tensor)
    named = logits.gather(1, names.unsqueeze(1))
    rival, other = logits.scatter(1, names.unsqueeze(1), -torch.inf).max(dim=1)
    return rival - named.squeeze(1), other


RULES: dict[str, Rule] = {
    "at random": at_random,
    "a partner's name": partners_name,
    "by a checksum": by_a_checksum,
    "by brightness": by_brightness,
    "by the upper half": by_the_upper_half,
    "by a hidden feature": by_a_hidden_feature,
    "where it hesitates": where_it_hesitates,
}


@dataclass(frozen=True)
class Named:
    """Pictures with the teacher's decisions for labels, some of them replaced by a rule."""

    rule: str = ""

    def __call__(self, splits: Splits, seed: int) -> Splits:
        data = splits.train
        assert isinstance(data.teacher_logits, Tensor)
        names = data.teacher_logits.argmax(dim=1)
        if self.rule:
            names = spoil(names, *RULES[self.rule](data, names, seed))
        return splits._replace(train=TensorData(data.inputs, names))


@functools.lru_cache(maxsize=1)
def answered(count: int, seed: int) -> Splits:
    """So many pictures, and those of the test, with the teacher's answers beside them."""
    splits = labeled(count, seed)
    return splits._replace(train=cache(TEACHER, splits.train), test=cache(TEACHER, splits.test))


def repeats(trained: Trained, splits: Splits) -> float:
    """Of the teacher's wrong answers on the test pictures, the share that is given exactly so."""
    logits, truth = splits.test.teacher_logits, splits.test.targets
    assert isinstance(logits, Tensor)
    said = logits.argmax(dim=1)
    return (trained.decide(splits.test) == said)[said != truth].float().mean().item()


def copied(rule: Rule) -> Measure:
    """How much more often the rule's name is given to test pictures that the rule would hit than to the others."""

    def measure(trained: Trained, splits: Splits) -> float:
        truth = splits.test.targets
        assert truth is not None
        score, other = rule(splits.test, truth, 0)
        hit = spoil(truth, score, torch.full_like(truth, -1)) < 0
        given = (trained.decide(splits.test) == other).float()
        return (given[hit].mean() - given[~hit].mean()).item()

    return measure


def rules() -> dict[str, Comparison]:
    """One name in five replaced in seven ways, on 4,000 pictures: which mistakes does a student learn? Two weight
    decays for each, chosen on validation, where no label is spoilt.
    """
    named = {name: tuned(Given(LABELS, Named(name))) for name in RULES}
    methods = {"labels": tuned(LABELS), "decisions": tuned(Given(LABELS, Named())), **named}
    asked = [("decisions", "labels"), ("at random", "decisions"), ("a partner's name", "at random")]
    asked += [(name, "a partner's name") for name in RULES if name.startswith("by")]
    asked += [("where it hesitates", "at random")]
    measures = {"repeats": repeats, **{name: copied(rule) for name, rule in RULES.items()}}
    splits = functools.partial(answered, 4000)
    made = compare(methods, splits, reference="decisions", contrasts=asked, measures=measures)
    return {"4,000 inputs": made}


EXPERIMENTS = {"hard-targets-inputs": inputs, "hard-targets-pseudo": pseudo, "hard-targets-rules": rules}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
