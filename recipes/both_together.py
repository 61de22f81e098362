"""The long experiments of chapter 10, recorded: ``make results``.

``python recipes/both_together.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.nn.functional as F
from recording import LITE0_HEAD, Remembered, lite0, main, student, views
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION, fashion_mnist
from kdft_lib.experiments import Classical, Comparison, OnFeatures, PerSeed, Recipe, Trained, compare
from kdft_lib.models import ConvNet, imagenet_backbone
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import fit

SEEDS = range(5)
LABELS = 500
STEPS = 1000
RATES = (0.03, 0.1, 0.3)
IMAGENET = "ImageNet, 1.3 million labels"


@functools.lru_cache(maxsize=1)
def shop(seed: int) -> Splits:
    """500 labelled images, 100 of them to choose by; 54,500 without labels."""
    return fashion_mnist(LABELS, validation="within", seed=seed)


FINE_TUNED = Recipe(
    lite0, Supervised(), FullFineTuning(1e-3), steps=120, batch_size=32, pretraining=IMAGENET
)  # fmt: skip
FROM_SCRATCH = Recipe(
    functools.partial(ConvNet, 32), Supervised(), FullFineTuning(0.01), steps=STEPS, augment=views(2)
)  # fmt: skip
ALONE = Recipe(student, Supervised(), FullFineTuning(0.1, weight_decay=0.1), steps=STEPS)


def rated(recipe: Recipe, rates: tuple[float, ...], weight_decay: float = 0.01) -> list[Recipe]:
    """A recipe for each rate."""
    return [recipe.but(strategy=FullFineTuning(rate, weight_decay=weight_decay)) for rate in rates]


SVMS = [Classical(SVC(C=c)) for c in (1.0, 5.0, 20.0)]


@functools.cache
def teachers() -> Comparison:
    """What 500 labels make without a limit of size: three settings each."""
    features = Remembered(lite0(), LITE0_HEAD)
    head = FINE_TUNED.but(model=functools.partial(nn.Linear, 1280, 10))
    return compare(
        {
            "Lite0, fine-tuned": rated(FINE_TUNED, (1e-3, 3e-3, 1e-2)),
            "Lite0, head alone": [OnFeatures(recipe, features, IMAGENET) for recipe in rated(head, (1e-3, 1e-2, 1e-1))],
            "SVM on Lite0's features": [OnFeatures(method, features, IMAGENET) for method in SVMS],
            "94,186 parameters from scratch, augmented": rated(FROM_SCRATCH, (0.01, 0.03, 0.1)),
            "6,274 parameters, augmented": rated(ALONE.but(augment=views(1)), RATES, 0.1),
            "SVM on pixels": SVMS,
        },
        shop,
        seeds=SEEDS,
        equal_budgets=False,
        progress=True,
    )


class Decides(nn.Module):
    """A classical method as a teacher: its decisions as logits."""

    def __init__(self, estimator: Any, seed: int):
        super().__init__()
        self.estimator = estimator
        self.register_buffer("seed", torch.tensor(seed))

    def forward(self, images: Tensor) -> Tensor:
        decided = torch.from_numpy(self.estimator.predict(images.flatten(1).numpy()))
        return 10.0 * F.one_hot(decided, 10)


def teacher(name: str, seed: int) -> nn.Module:
    """Of the setting that was chosen."""
    model = teachers().trained[name][seed].model
    found: nn.Module = model if isinstance(model, nn.Module) else Decides(model, seed)
    found.card = {"labels": LABELS * 4 // 5}  # type: ignore[assignment]
    return found


@functools.lru_cache(maxsize=len(SEEDS))
def answered(name: str, seed: int) -> Splits:
    """A seed's images with a teacher's answers."""
    splits, who = shop(seed), teacher(name, seed)
    return splits._replace(train=cache(who, splits.train), transfer=cache(who, splits.transfer))


def taught(by: str, *, extra: bool, soft: bool) -> list[PerSeed]:
    """The student, taught on the 400 labelled images or on all 54,900."""

    def changes(splits: Splits, seed: int) -> dict[str, Any]:
        kind = SoftTargets if soft else HardTargets
        found: dict[str, Any] = {
            "objective": kind(teacher(by, seed)),
            "train_data": lambda _: answered(by, seed).train,
        }
        return found | ({"transfer_data": lambda _: answered(by, seed).transfer} if extra else {})

    pretraining = IMAGENET if by.startswith("Lite0") else "none"
    return [PerSeed(recipe.but(pretraining=pretraining), changes) for recipe in rated(ALONE, RATES, 0.1)]


class ThenFineTuned:
    """A student that was distilled for 800 steps, and learns from the labels for 200 more."""

    def __init__(self, rate: float, *, first: str):
        self.rate, self.first = rate, first

    def train(self, splits: Splits, seed: int) -> Trained:
        distilled, before = of_the_task(seed) if self.first == "the task" else of_imagenet(seed)
        model = copy.deepcopy(distilled)
        if self.first == "ImageNet":
            model.head = nn.Linear(model.head.in_features, 10)
        recipe = ALONE.but(
            model=lambda: model, strategy=FullFineTuning(self.rate), steps=200, pretraining=IMAGENET
        )  # fmt: skip
        trained = recipe.train(splits, seed)
        for cost in ("steps", "seconds"):
            trained.ledger[cost] += before[cost]
        trained.ledger |= {key: before[key] for key in ("unlabeled", "teacher_labels")}
        return trained


@functools.cache
def of_the_task(seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The student after 800 steps of distillation from the fine-tuned Lite0."""
    (recipe,) = (run for run in taught("Lite0, fine-tuned", extra=True, soft=True) if run.recipe.strategy.lr == 0.1)
    run = PerSeed(recipe.recipe.but(steps=800), recipe.changes).train(shop(seed), seed)
    return run.model, run.ledger


@functools.cache
def named_by_imagenet() -> tuple[nn.Module, TensorData]:
    """All 55,000 images without their labels, with Lite0's 1,000 logits."""
    net = imagenet_backbone(image_size=48, given=FASHION_NORMALIZATION)
    who = nn.Sequential(net.transform, net)
    return who, cache(who, fashion_mnist(labeled=None).train.without_labels())


@functools.cache
def of_imagenet(seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The student after 800 steps of matching what the pretrained Lite0 says of the images in ImageNet's words."""
    who, data = named_by_imagenet()
    used = {image.numpy().tobytes() for image in shop(seed).val.inputs}
    rows = [row for row, image in enumerate(data.inputs) if image.numpy().tobytes() not in used]
    torch.manual_seed(seed)
    model = ConvNet(8, num_classes=1000)
    history = fit(
        model, data[rows], objective=SoftTargets(who, kd_weight=1.0, ce_weight=0.0),
        strategy=FullFineTuning(0.1, weight_decay=0.1), steps=800, batch_size=256, seed=seed, progress=False,
    )  # fmt: skip
    return model, history.ledger | {"teacher_labels": 0}


ABLATION = {
    f"{by}, {'54,900' if extra else '400'} images, {'soft' if soft else 'hard'}": (who, extra, soft)
    for by, who in (
        ("scratch", "94,186 parameters from scratch, augmented"),
        ("ImageNet", "Lite0, fine-tuned"),
    )
    for extra in (False, True)
    for soft in (False, True)
}


def ablation() -> dict[str, Comparison]:
    """One student of 6,274 parameters, 1,000 steps, three learning rates for each arm, chosen on 100 of the 500
    labels: pretraining of the teacher times extra inputs times softness, and what a shop would try first.
    """
    students = compare(
        {
            "labels": rated(ALONE, RATES, 0.1),
            "augmentation": rated(ALONE.but(augment=views(1)), RATES, 0.1),
            "logistic regression on pixels": [
                Classical(LogisticRegression(C=c, max_iter=1000)) for c in (0.003, 0.01, 0.1)
            ],
            "SVM on pixels": SVMS,
            "pseudo-labels of itself": taught("6,274 parameters, augmented", extra=True, soft=False),
            "pseudo-labels of the SVM": taught("SVM on pixels", extra=True, soft=False),
            **{name: taught(who, extra=extra, soft=soft) for name, (who, extra, soft) in ABLATION.items()},
            "the task distilled, then fine-tuned": [
                ThenFineTuned(rate, first="the task") for rate in (3e-3, 1e-2, 3e-2)
            ],
            "ImageNet distilled, then fine-tuned": [
                ThenFineTuned(rate, first="ImageNet") for rate in (1e-2, 3e-2, 1e-1)
            ],
        },
        shop,
        seeds=SEEDS,
        reference="labels",
        progress=True,
    )
    return {"students": students, "teachers": teachers()}


def at_each_rate() -> dict[str, Comparison]:
    """The eight versions, and labels alone, at each learning rate: nothing is chosen."""
    arms: dict[str, list[Any]] = {"labels": rated(ALONE, RATES, 0.1)}
    arms |= {name: taught(who, extra=extra, soft=soft) for name, (who, extra, soft) in ABLATION.items()}
    return {
        f"learning rate {rate:g}": compare(
            {name: runs[setting] for name, runs in arms.items()}, shop, seeds=SEEDS, reference="labels", progress=True
        )
        for setting, rate in enumerate(RATES)
    }


if __name__ == "__main__":
    main({"both-together": ablation, "both-together-rates": at_each_rate})
