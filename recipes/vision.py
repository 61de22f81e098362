"""The long experiment of chapter 12, recorded: ``python recipes/vision.py``."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from both_together import FINE_TUNED, IMAGENET, LABELS, rated, shop
from full_fine_tuning import SHIFTS, accuracy_on
from recording import main, views
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Classical, Comparison, PerSeed, Recipe, Trained, compare, recorded
from kdft_lib.metrics import agreement, calibration_error
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import predict

SEEDS = range(5)
STEPS = 1000
WIDTHS = (8, 12, 16, 24, 32)
RATES = (0.01, 0.03, 0.1, 0.3)
TEACHER = "Lite0, fine-tuned"


@functools.cache
def fine_tuned(seed: int) -> Trained:
    """Lite0 on the seed's labels, at the learning rate that chapter 10 chose."""
    rate = (1e-3, 3e-3, 1e-2)[recorded("both-together")["teachers"].chosen[TEACHER]]
    return FINE_TUNED.but(strategy=FullFineTuning(rate)).train(shop(seed), seed)


def teacher(seed: int) -> nn.Module:
    model: nn.Module = fine_tuned(seed).model
    model.card = {"labels": LABELS * 4 // 5}  # type: ignore[assignment]
    return model


class Teacher:
    """It decides for itself."""

    def train(self, splits: Splits, seed: int) -> Trained:
        return fine_tuned(seed)


@functools.cache
def answered(seed: int) -> Splits:
    """A seed's images with the teacher's answers."""
    splits = shop(seed)
    return splits._replace(train=cache(teacher(seed), splits.train), transfer=cache(teacher(seed), splits.transfer))


def on_labels(width: int) -> list[Recipe]:
    """On the 400 labelled images, shifted and mirrored."""
    base = Recipe(
        functools.partial(ConvNet, width), Supervised(), FullFineTuning(RATES[0]), steps=STEPS, augment=views(1)
    )  # fmt: skip
    return rated(base, RATES, 0.1)


def distilled(width: int) -> list[PerSeed]:
    """From the fine-tuned Lite0, through all 54,900 images."""

    def changes(splits: Splits, seed: int) -> dict[str, Any]:
        return {
            "objective": SoftTargets(teacher(seed)),
            "train_data": lambda _: answered(seed).train,
            "transfer_data": lambda _: answered(seed).transfer,
            "augment": None,
            "pretraining": IMAGENET,
        }

    return [PerSeed(recipe, changes) for recipe in on_labels(width)]


def logits(trained: Trained, data: TensorData) -> Tensor:
    """A network's; a method that only decides is sure of everything."""
    if isinstance(trained.model, nn.Module):
        return predict(trained.model, data)
    return 1000.0 * F.one_hot(trained.decide(data), 10)


def error(cooled: bool, trained: Trained, splits: Splits) -> float:
    """The calibration error on test images; cooled, at the temperature that suits the 100 images best."""
    assert splits.val.targets is not None
    assert splits.test.targets is not None
    temperature = suits_best(logits(trained, splits.val), splits.val.targets) if cooled else 1.0
    return calibration_error(logits(trained, splits.test) / temperature, splits.test.targets)


def suits_best(z: Tensor, targets: Tensor) -> float:
    """The temperature of the lowest cross-entropy (Guo et al., 2017)."""
    tried = torch.logspace(-1, 1, 81)
    return tried[torch.stack([F.cross_entropy(z / t, targets) for t in tried]).argmin()].item()


MEASURES = {
    **{f"accuracy, {name}": functools.partial(accuracy_on, name) for name in SHIFTS},
    "calibration error": functools.partial(error, False),
    "calibration error, cooled": functools.partial(error, True),
}


def sizes() -> dict[str, Comparison]:
    """Five sizes of one network on 500 labels, alone and distilled from the fine-tuned Lite0, at four learning
    rates each; the teacher and two methods on pixels beside them.
    """
    comparison = compare(
        {
            TEACHER: Teacher(),
            **{f"width {width}, labels": on_labels(width) for width in WIDTHS},
            **{f"width {width}, distilled": distilled(width) for width in WIDTHS},
            "logistic regression on pixels": [
                Classical(LogisticRegression(C=c, max_iter=1000)) for c in (0.001, 0.003, 0.01, 0.1)
            ],
            "SVM on pixels": [Classical(SVC(C=c)) for c in (1.0, 5.0, 20.0, 80.0)],
        },
        shop,
        seeds=SEEDS,
        reference="SVM on pixels",
        measures=MEASURES,
        equal_budgets=False,
        progress=True,
    )
    test = shop(0).test
    said = [logits(run, test) for run in comparison.trained[TEACHER]]
    comparison.measured["agreement with the teacher"] = {
        name: [agreement(logits(run, test), of_teacher) for run, of_teacher in zip(runs, said, strict=True)]
        for name, runs in comparison.trained.items()
    }
    return {"500 labels": comparison}


if __name__ == "__main__":
    main({"vision": sizes})
