"""Train the teacher that ships: ``make teacher``, some ten minutes on two cores.

It learns from the labels of the 55,000 training images that are not held out for validation, and
writes ``kdft_lib/assets/weights/fashion_teacher.safetensors`` with its card. Nothing was chosen on
the test set, which is scored once, at the end.
"""

from __future__ import annotations

from pathlib import Path

import torch

import kdft_lib
from kdft_lib import data, metrics, models
from kdft_lib.datasets import FASHION_BACKGROUND, fashion_mnist
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import evaluate, fit, predict

EPOCHS, LEARNING_RATE, SEED = 15, 1e-2, 0
WEIGHTS = Path(kdft_lib.__file__).parent / "assets/weights/fashion_teacher.safetensors"


def train() -> models.ResNet:
    """The teacher, from its recipe."""
    torch.manual_seed(SEED)
    model = models.ResNet(width=20)
    splits = fashion_mnist(labeled=None)
    history = fit(
        model,
        splits.train,
        objective=Supervised(),
        strategy=FullFineTuning(lr=LEARNING_RATE, weight_decay=0.05),
        epochs=EPOCHS,
        augment=data.RandomShiftFlip(padding=2, fill=FASHION_BACKGROUND),
        val_data=splits.val,
        seed=SEED,
    )
    test = predict(model, splits.test)
    assert splits.test.targets is not None
    card = {
        "data": "Fashion-MNIST, the 55,000 training images outside kdft_lib.datasets.fashion_mnist's validation set",
        "data_licence": "MIT, copyright 2017 Zalando SE",
        "recipe": "tools/fashion_teacher.py",
        "labels": history.ledger.labels,
        "steps": history.ledger.steps,
        "seconds": round(history.seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "parameters": metrics.parameters(model),
        "val_accuracy": evaluate(model, splits.val)["accuracy"],
        "test_accuracy": metrics.accuracy(test, splits.test.targets),
        "test_calibration_error": metrics.calibration_error(test, splits.test.targets),
        "licence": "BSD-3-Clause, as the package",
    }
    print(models.save(model, WEIGHTS, card), card, history.table().to_string(), sep="\n")
    return model


if __name__ == "__main__":
    train()
