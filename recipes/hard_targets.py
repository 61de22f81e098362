"""The long experiments of chapter 03, recorded."""

from __future__ import annotations

import functools
from dataclasses import replace

from shared import LOGISTIC, SVM, labeled, shifted, student, thousand_labels

from kdft_lib.experiments import Candidate, Comparison, Members, NamedBy, Recipe, Source, compare, grid, record_all
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

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
    asked = [("named by itself", "labels"), ("by itself, augmented", "augmentation")]
    asked += [(name, "named by itself") for name in ("by itself where sure", "by five of itself", "by the SVM")]
    asked += [("by a teacher with 55,000 labels", "by itself, augmented")]
    return {"who names": replace(alone | compare(named, thousand_labels), contrasts=asked)}


EXPERIMENTS = {"hard-targets-inputs": inputs, "hard-targets-pseudo": pseudo}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
