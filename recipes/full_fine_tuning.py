"""The long experiments of chapter 08, recorded: ``make results``.

``python recipes/full_fine_tuning.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from recording import LITE0_HEAD, Remembered, lite0, main
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION, fashion_mnist
from kdft_lib.experiments import Classical, Comparison, OnFeatures, PerSeed, Recipe, Trained, compare
from kdft_lib.features import precompute
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import (
    BitFit,
    FullFineTuning,
    GradualUnfreezing,
    HeadOnly,
    LayerwiseLRDecay,
    Phases,
    Strategy,
)
from kdft_lib.training.schedules import cosine

SEEDS = range(5)
STEPS = 120
BATCH = 32
RATES = (1e-3, 3e-3, 1e-2)
HIGHER_RATES = (3e-3, 1e-2, 3e-2)
PROBE = HeadOnly(LITE0_HEAD, lr=1e-2)
EPOCHS_OF_PROBE = 4
SHOWN = 2000


def within(labels: int) -> Callable[[int], Splits]:
    """So many labelled images, a fifth of them to choose by."""
    return functools.partial(_within, labels)


def _within(labels: int, seed: int) -> Splits:
    return fashion_mnist(labels, validation="within", seed=seed)


FULL = Recipe(
    lite0, Supervised(), FullFineTuning(RATES[0]), STEPS, batch_size=BATCH, pretraining="ImageNet, 1.3 million labels"
)


def untrained() -> nn.Module:
    """The same network without ImageNet."""
    import timm

    pretrained = lite0()
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=10)
    return nn.Sequential(pretrained[0], net.to(memory_format=torch.channels_last))


def tried(
    strategies: Callable[[float], Strategy], rates: tuple[float, ...] = RATES, base: Recipe = FULL
) -> list[Recipe]:
    """A recipe for each rate."""
    return [base.but(strategy=strategies(rate)) for rate in rates]


def probed_first(rate: float) -> Phases:
    """The head alone for four epochs, then everything."""
    return Phases(PROBE, FullFineTuning(rate), first_epochs=EPOCHS_OF_PROBE)


features = Remembered(lite0(), LITE0_HEAD)


def on_features(base: Recipe = FULL) -> list[OnFeatures]:
    """The head alone, on features computed once."""
    return [
        OnFeatures(
            base.but(model=lambda: nn.Linear(1280, 10), strategy=FullFineTuning(rate)), features, base.pretraining
        )
        for rate in (1e-3, 1e-2, 1e-1)
    ]


CLASSICAL = {
    "logistic regression on pixels": [Classical(LogisticRegression(C=c, max_iter=1000)) for c in (0.003, 0.01, 0.1)],
    "SVM on pixels": [Classical(SVC(C=c)) for c in (1.0, 5.0, 20.0)],
}

STRATEGIES = {
    "head alone": on_features(),
    "biases alone": tried(functools.partial(BitFit, head=LITE0_HEAD), (1e-2, 3e-2, 1e-1)),
    "everything": tried(FullFineTuning),
    "probe, then everything": tried(probed_first),
    "layer-wise decay": tried(LayerwiseLRDecay, HIGHER_RATES),
    "gradual unfreezing": tried(GradualUnfreezing, HIGHER_RATES),
    "from scratch": tried(FullFineTuning, HIGHER_RATES, FULL.but(model=untrained, pretraining="none")),
}


def inverted(images: Tensor) -> Tensor:
    """Black on white."""
    mean, deviation = FASHION_NORMALIZATION
    return (1 - 2 * mean) / deviation - images


def noisy(images: Tensor) -> Tensor:
    """With normal noise of a quarter of the range, the same for each call."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    mean, deviation = FASHION_NORMALIZATION
    return ((images * deviation + mean + 0.25 * noise).clamp(0, 1) - mean) / deviation


def blurred(images: Tensor) -> Tensor:
    """Through a Gaussian of a pixel and a half."""
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(images, kernel_size=[7, 7], sigma=[1.5, 1.5])


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda images: images,
    "inverted": inverted,
    "noisy": noisy,
    "blurred": blurred,
}


def shifted(splits: Splits, name: str) -> TensorData:
    """The first 2,000 test images, changed."""
    shown = splits.test[:SHOWN]
    return shown.with_inputs(SHIFTS[name](shown.inputs))


def accuracy_on(name: str, trained: Trained, splits: Splits) -> float:
    data = shifted(splits, name)
    return (trained.decide(data) == data.targets).double().mean().item()


@functools.cache
def features_before(name: str) -> Tensor:
    """Of the pretrained network, on 500 test images."""
    return precompute(lite0(), LITE0_HEAD, shifted(fashion_mnist(100), name)[:500], batch_size=64)[1].inputs


def drift(name: str, trained: Trained, splits: Splits) -> float:
    """How far the features moved, as a share of their length: the median over images."""
    if not isinstance(trained.model, nn.Sequential):
        return 0.0
    before = features_before(name)
    now = precompute(trained.model, LITE0_HEAD, shifted(splits, name)[: len(before)], batch_size=64)[1].inputs
    return ((now - before).norm(dim=1) / before.norm(dim=1)).median().item()


def training_accuracy(trained: Trained, splits: Splits) -> float:
    return (trained.decide(splits.train) == splits.train.targets).double().mean().item()


MEASURES = {
    **{f"accuracy, {name}": functools.partial(accuracy_on, name) for name in SHIFTS},
    **{f"drift, {name}": functools.partial(drift, name) for name in SHIFTS},
    "training accuracy": training_accuracy,
}


def strategies() -> dict[str, Comparison]:
    """Seven ways to use Lite0 at 500 labels, and two classical methods: three settings each, chosen on 100 of
    the 500.
    """
    return {
        "500 labels": compare(
            STRATEGIES | CLASSICAL,
            within(500),
            seeds=SEEDS,
            reference="everything",
            measures=MEASURES,
            progress=True,
        )
    }


def counts() -> dict[str, Comparison]:
    """The head or everything, at 50 and at 5,000 labels; the latter with 300 steps."""
    found = {}
    for labels, steps in ((50, STEPS), (5000, 300)):
        base = FULL.but(steps=steps)
        found[f"{labels:,} labels"] = compare(
            {
                "head alone": on_features(base),
                "everything": tried(FullFineTuning, base=base),
                **CLASSICAL,
            },
            within(labels),
            seeds=SEEDS,
            reference="everything",
            measures={"training accuracy": training_accuracy},
            progress=True,
        )
    return found


def rates() -> dict[str, Comparison]:
    """Learning rates with and without warm-up: half a cosine in both, after a rise over a fifth of the steps in
    one. Nothing is chosen.
    """
    schedules = {"no warm-up": functools.partial(cosine, warmup=0.0), "warm-up": functools.partial(cosine, warmup=0.2)}
    return {
        "rates": compare(
            {
                f"{rate:g}, {name}": FULL.but(strategy=FullFineTuning(rate), schedule=schedule)
                for rate in (3e-4, 1e-3, 3e-3, 1e-2)
                for name, schedule in schedules.items()
            },
            within(500),
            seeds=SEEDS,
            measures={"training accuracy": training_accuracy},
            progress=True,
        )
    }


def probed(splits: Splits, seed: int) -> dict[str, Callable[[], nn.Module]]:
    """A start whose head was trained before, on features computed once; this takes no step of the budget."""
    head = on_features()[1].train(splits, seed).model

    def model() -> nn.Module:
        net = lite0()
        net.get_submodule(LITE0_HEAD).load_state_dict(head.state_dict())
        return net

    return {"model": model}


def similarity(name: str, trained: Trained, splits: Splits) -> float:
    """How alike the features before and after tell images apart: linear CKA (Kornblith et al., 2019), from 0 to
    1, which neither a rotation nor a change of scale affects.
    """
    before = features_before(name)
    now = precompute(trained.model, LITE0_HEAD, shifted(splits, name)[: len(before)], batch_size=64)[1].inputs
    x, y = (features.double() - features.double().mean(dim=0) for features in (before, now))
    return ((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def new_statistics(splits: Splits, seed: int) -> dict[str, Callable[[], nn.Module]]:
    """A start whose batch normalisation has met the training images; no weight has moved."""

    def model() -> nn.Module:
        net = lite0().train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            for batch in splits.train.batches(64):
                net(batch["inputs"])
        return net

    return {"model": model}


def probing() -> dict[str, Comparison]:
    """A probe that costs nothing of the budget, then all 120 steps of everything, at each learning rate; everything
    without it; and the head alone on a body that kept its weights and has new statistics.
    """
    return {
        "500 labels": compare(
            {
                **{f"everything, {rate:g}": FULL.but(strategy=FullFineTuning(rate)) for rate in RATES},
                **{
                    f"free probe, then everything, {rate:g}": PerSeed(FULL.but(strategy=FullFineTuning(rate)), probed)
                    for rate in RATES
                },
                "new statistics, head alone": [
                    PerSeed(FULL.but(strategy=HeadOnly(LITE0_HEAD, rate)), new_statistics)
                    for rate in (1e-3, 1e-2, 1e-1)
                ],
            },
            within(500),
            seeds=SEEDS,
            measures=MEASURES | {f"similarity, {name}": functools.partial(similarity, name) for name in SHIFTS},
            progress=True,
        )
    }


if __name__ == "__main__":
    main({
        "full-fine-tuning": strategies,
        "full-fine-tuning-probe": probing,
        "full-fine-tuning-labels": counts,
        "full-fine-tuning-rates": rates,
    })  # fmt: skip
