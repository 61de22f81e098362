"""The long experiments of chapter 13, recorded."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from both_together import FINE_TUNED, VIEWS, as_chosen, shop
from full_fine_tuning import SHIFTS, accuracy_on
from shared import LOGISTIC, SVM, views
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidates, Comparison, Measure, Once, Recipe, Then, Trained, compare, grid, record_all
from kdft_lib.metrics import agreement, calibration_error
from kdft_lib.models import ConvNet
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

WIDTHS = (8, 12, 16, 24, 32)
RATES = (0.01, 0.03, 0.1, 0.3)
TEACHER = "Lite0, fine-tuned"
LITE0 = Once(as_chosen())
ALONE = Recipe(ConvNet, Supervised, FullFineTuning(lr=RATES[0]), steps=1000)
TAUGHT = ALONE.taught_by(LITE0, SoftTargets, on="all")
tried = functools.partial(grid, lr=RATES, weight_decay=0.1)


def logits(trained: Trained, data: TensorData) -> Tensor:
    """A network's, or those of probabilities; a method that only decides is sure of everything."""
    if isinstance(trained.model, nn.Module) or hasattr(trained.model, "predict_proba"):
        return trained.logits(data)
    return 1000.0 * F.one_hot(trained.decide(data), 10)


def error(cooled: bool, trained: Trained, splits: Splits) -> float:
    """The calibration error on test images; cooled, at the temperature that suits the 100 images best."""
    assert splits.val.targets is not None
    assert splits.test.targets is not None
    temperature = suits_best(logits(trained, splits.val), splits.val.targets) if cooled else 1.0
    return calibration_error(logits(trained, splits.test) / temperature, splits.test.targets)


def suits_best(z: Tensor, targets: Tensor) -> float:
    """The temperature of the lowest cross-entropy (Guo et al., 2017)."""
    temperatures = torch.logspace(-1, 1, 81)
    return temperatures[torch.stack([F.cross_entropy(z / t, targets) for t in temperatures]).argmin()].item()


@functools.lru_cache(maxsize=1)
def of_the_teacher(splits: Splits, seed: int) -> Tensor:
    """Its logits for the test images."""
    return LITE0.train(splits, seed).logits(splits.test)


def fidelity(trained: Trained, splits: Splits) -> float:
    """How often a method decides as the teacher of its seed does."""
    assert trained.seed is not None
    return agreement(logits(trained, splits.test), of_the_teacher(splits, trained.seed))


MEASURES: dict[str, Measure] = {
    **{f"accuracy, {name}": functools.partial(accuracy_on, name) for name in SHIFTS},
    "calibration error": functools.partial(error, False),
    "calibration error, cooled": functools.partial(error, True),
    "agreement with the teacher": fidelity,
}


def sizes() -> dict[str, Comparison]:
    """Five sizes of one network on 500 labels, alone on shifted and mirrored views and taught by the fine-tuned Lite0
    through all 54,900 images, at four learning rates each; the teacher and two methods on pixels beside them.
    """
    arms = {"labels": ALONE.but(augment=views(1)), "distilled": TAUGHT}
    methods: dict[str, Candidates] = {
        TEACHER: LITE0,
        **{f"width {width}, {arm}": tried(base.but(width=width)) for arm, base in arms.items() for width in WIDTHS},
        "logistic regression on pixels": grid(LOGISTIC, C=(0.001, 0.003, 0.01, 0.1)),
        "SVM on pixels": grid(SVM, C=(1.0, 5.0, 20.0, 80.0)),
    }
    contrasts = [
        (f"width {width}, distilled", other)
        for width in WIDTHS
        for other in (f"width {width}, labels", "SVM on pixels", TEACHER)
    ]
    contrasts += [("width 32, distilled", "width 8, distilled"), ("width 8, distilled", "width 32, labels")]
    against = functools.partial(compare, reference="SVM on pixels", contrasts=contrasts, measures=MEASURES)
    return {"500 labels": against(methods, shop, equal_budgets=False)}


AUGMENTED, SELF_TRAINED = "Lite0, augmented", "Lite0, self-trained"


def another(width: int) -> ConvNet:
    """A network of other first weights than those of the one that named the pictures."""
    ConvNet(width)
    return ConvNet(width)


@functools.cache
def on_labels() -> Comparison:
    """Lite0, fine-tuned for 600 steps on views, and the five sizes, also on views: each seed chooses for itself."""
    methods: dict[str, Candidates] = {
        AUGMENTED: grid(FINE_TUNED, lr=(1e-3, 3e-3)),
        **{f"width {width}, labels": tried(ALONE.but(augment=VIEWS, width=width)) for width in WIDTHS},
    }
    return compare(methods, shop, choose="each seed", equal_budgets=False)


def as_made(name: str) -> Then:
    """What was trained already, for another table."""
    return Then(on_labels().source(name), lambda run, *_: run)


def itself() -> dict[str, Comparison]:
    """What is left of the teacher's gain where a size names the 54,900 images itself; and whether a Lite0 that had
    views, or names of its own, is still beaten by its students. A step has 128 images in every row of these sizes: half
    of them without a label, where there are such.
    """
    large = on_labels().source(AUGMENTED)
    again = FINE_TUNED.taught_by(large, HardTargets).but(batch_size=16, transfer_data="transfer")
    by_itself = {
        width: ALONE.taught_by(on_labels().source(f"width {width}, labels"), HardTargets, on="all").but(
            model=another, batch_size=64
        )
        for width in WIDTHS
    }
    taught = ALONE.taught_by(large, SoftTargets, on="all").but(batch_size=64)
    methods: dict[str, Candidates] = {
        AUGMENTED: as_made(AUGMENTED),
        SELF_TRAINED: grid(again, lr=(1e-3, 3e-3)),
        **{f"width {width}, labels": as_made(f"width {width}, labels") for width in WIDTHS},
        **{f"width {width}, its own names": tried(by_itself[width].but(width=width)) for width in WIDTHS},
        **{f"width {width}, distilled": tried(taught.but(width=width)) for width in WIDTHS},
    }
    contrasts = [
        (f"width {width}, distilled", other)
        for width in WIDTHS
        for other in (f"width {width}, its own names", f"width {width}, labels", AUGMENTED, SELF_TRAINED)
    ]
    against = functools.partial(compare, reference=AUGMENTED, contrasts=contrasts, equal_budgets=False)
    return {"500 labels": against(methods, shop, choose="each seed"), "on labels": on_labels()}


EXPERIMENTS = {"vision": sizes, "vision-itself": itself}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
