"""The long experiments of chapter 10, recorded."""

from __future__ import annotations

import functools

from shared import IMAGENET, LOGISTIC, SVM, SVMS, lite0, lite0_features, new_head, student, views, within
from torch import nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION
from kdft_lib.experiments import Comparison, Once, OnFeatures, Recipe, compare, grid, record_all, recorded
from kdft_lib.models import ConvNet, imagenet_backbone
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher

RATES = (0.03, 0.1, 0.3)
WIDE = "94,186 parameters from scratch, augmented"
RECIPE = "ImageNet, 54,900 images, soft"

FINE_TUNED = Recipe(lite0, Supervised, FullFineTuning(lr=1e-3), steps=120, batch_size=32, pretraining=IMAGENET)
ALONE = Recipe(student, Supervised, FullFineTuning(lr=0.1, weight_decay=0.1), steps=1000)
AUGMENTED = ALONE.but(augment=views(1))
tried = functools.partial(grid, lr=RATES, weight_decay=0.1)
shop = functools.partial(within, 500)
"""500 labelled images, 100 of them to choose by; 54,500 without labels."""


@functools.cache
def teachers() -> Comparison:
    """What 500 labels make without a limit of size: three settings each."""
    head = OnFeatures(FINE_TUNED.but(model=functools.partial(nn.Linear, 1280, 10)), lite0_features, IMAGENET)
    wide = AUGMENTED.but(model=ConvNet, width=32, augment=views(2), weight_decay=0.01)
    methods = {
        "Lite0, fine-tuned": grid(FINE_TUNED, lr=(1e-3, 3e-3, 1e-2)),
        "Lite0, head alone": grid(head, lr=(1e-3, 1e-2, 1e-1)),
        "SVM on Lite0's features": grid(OnFeatures(SVM, lite0_features, IMAGENET), C=(1.0, 5.0, 20.0)),
        WIDE: grid(wide, lr=(0.01, 0.03, 0.1)),
        "6,274 parameters, augmented": tried(AUGMENTED),
        "SVM on pixels": SVMS,
    }
    return compare(methods, shop, equal_budgets=False)


def as_chosen() -> Recipe:
    """Lite0, fine-tuned at the rate that the record chose."""
    return FINE_TUNED.but(**recorded("both-together")["teachers"].setting("Lite0, fine-tuned"))


@functools.cache
def taught(teacher: str) -> Recipe:
    """The student of a teacher, whose answers are computed once for whatever is made of this."""
    return ALONE.taught_by(teachers().source(teacher), SoftTargets)


def ablation() -> dict[str, Recipe]:
    """Pretraining of the teacher times extra inputs times softness."""
    return {
        f"{known}, {images} images, {word}": taught(teacher).but(objective=objective, transfer_data=more)
        for known, teacher in (("scratch", WIDE), ("ImageNet", "Lite0, fine-tuned"))
        for images, more in (("400", None), ("54,900", "transfer"))
        for word, objective in (("hard", HardTargets), ("soft", SoftTargets))
    }


def unlabeled(splits: Splits) -> TensorData:
    """All 54,900 images, none with its label."""
    return splits.train.without_labels().with_rows(splits.transfer)


def distilled_first() -> tuple[Recipe, Recipe]:
    """800 steps of the task's classes from the fine-tuned Lite0, or of ImageNet's before; then 200 on the labels."""
    net = imagenet_backbone(image_size=48, given=FASHION_NORMALIZATION)
    pretrained = Teacher(nn.Sequential(net.transform, net), labels=0, pretraining=IMAGENET)  # type: ignore[arg-type]
    task = taught("Lite0, fine-tuned").but(transfer_data="transfer", steps=800)
    words = ALONE.taught_by(pretrained, SoftTargets, kd_weight=1.0, ce_weight=0.0)
    words = words.but(model=ConvNet, num_classes=1000, train_data=unlabeled, steps=800, batch_size=256)
    then = ALONE.but(steps=200, weight_decay=0.01)
    return then.but(start=Once(task)), then.but(start=Once(words), change=new_head)


def students() -> dict[str, Comparison]:
    """The eight versions of the recipe, and what a shop would try first: 1,000 steps (or 800 and 200), three rates."""
    task, words = distilled_first()
    named = {"objective": HardTargets, "transfer_data": "transfer"}
    others = {
        "labels": tried(ALONE),
        "augmentation": tried(AUGMENTED),
        "logistic regression on pixels": grid(LOGISTIC, C=(0.003, 0.01, 0.1)),
        "SVM on pixels": SVMS,
        "pseudo-labels of itself": tried(taught("6,274 parameters, augmented").but(**named)),
        "pseudo-labels of the SVM": tried(taught("SVM on pixels").but(**named)),
    }
    versions = {name: tried(recipe) for name, recipe in ablation().items()}
    last = {
        "the task distilled, then fine-tuned": grid(task, lr=(3e-3, 1e-2, 3e-2)),
        "ImageNet distilled, then fine-tuned": grid(words, lr=(1e-2, 3e-2, 1e-1)),
    }
    contrasts = [(RECIPE, other) for other in others | last]
    made = compare(others | versions | last, shop, contrasts=contrasts, equal_budgets=False)
    return {"students": made, "teachers": teachers()}


def at_each_rate() -> dict[str, Comparison]:
    """The eight versions, and labels alone, at each learning rate: nothing is chosen."""
    arms = {"labels": ALONE, **ablation()}
    at = {rate: {name: grid(arm, lr=rate, weight_decay=0.1) for name, arm in arms.items()} for rate in RATES}
    return {f"learning rate {rate:g}": compare(methods, shop) for rate, methods in at.items()}


EXPERIMENTS = {"both-together": students, "both-together-rates": at_each_rate}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
