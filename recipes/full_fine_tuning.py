"""The long experiments of chapter 08, recorded."""

from __future__ import annotations

import copy
import functools
from typing import Any

import language
import timm
import torch
from shared import (
    IMAGENET,
    LITE0_HEAD,
    LOGISTIC,
    SVM,
    SVMS,
    OnViews,
    chosen_before,
    lite0,
    lite0_features,
    views,
    within,
)
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.transforms.v2.functional import gaussian_blur

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION
from kdft_lib.experiments import Comparison, Measure, OnFeatures, Recipe, Trained, compare, grid, record_all
from kdft_lib.features import Remembered, precompute
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import BitFit, FullFineTuning, GradualUnfreezing, HeadOnly, LayerwiseLRDecay, Phases
from kdft_lib.training.schedules import cosine

RATES, HIGHER_RATES, HEAD_RATES = (1e-3, 3e-3, 1e-2), (3e-3, 1e-2, 3e-2), (1e-3, 1e-2, 1e-1)
FULL = Recipe(lite0, Supervised, FullFineTuning(lr=RATES[0]), steps=120, batch_size=32, pretraining=IMAGENET)
HEAD = OnFeatures(FULL.but(model=functools.partial(nn.Linear, 1280, 10)), lite0_features, IMAGENET)
FIVE_HUNDRED = functools.partial(within, 500)
ON_PIXELS = {"logistic regression on pixels": grid(LOGISTIC, C=(0.003, 0.01, 0.1)), "SVM on pixels": SVMS}


def untrained() -> nn.Module:
    """The same network without ImageNet."""
    net = lite0()
    blank: Any = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    net[1] = blank.to(memory_format=torch.channels_last)
    return net


def probed_first(*, lr: float) -> Phases:
    """The head alone for four epochs, then everything."""
    return Phases(HeadOnly(lr=1e-2, head=LITE0_HEAD), FullFineTuning(lr=lr), first_epochs=4)


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
    return gaussian_blur(images, kernel_size=[7, 7], sigma=[1.5, 1.5])


SHIFTS: dict[str, Any] = {"clean": nn.Identity(), "inverted": inverted, "noisy": noisy, "blurred": blurred}


def shifted(splits: Splits, name: str, count: int = 2000) -> TensorData:
    """The first so many test images, changed."""
    shown = splits.test[:2000]
    return shown.with_inputs(SHIFTS[name](shown.inputs))[:count]


def accuracy_on(name: str, trained: Trained, splits: Splits) -> float:
    return trained.accuracy(shifted(splits, name))


def before_and_now(name: str, trained: Trained, splits: Splits) -> tuple[Tensor, Tensor]:
    """What the body made of 500 test images as ImageNet left it, and what it makes of them now."""
    shown = shifted(splits, name, 500)
    return lite0_features(shown).inputs, precompute(trained.model, LITE0_HEAD, shown, batch_size=64)[1].inputs


def drift(name: str, trained: Trained, splits: Splits) -> float:
    """How far the features moved, as a share of their length: the median over images; 0 where no body is trained."""
    if trained.shown is not None or not isinstance(trained.model, nn.Module):
        return 0.0
    before, now = before_and_now(name, trained, splits)
    return ((now - before).norm(dim=1) / before.norm(dim=1)).median().item()


def similarity(name: str, trained: Trained, splits: Splits) -> float:
    """How alike the features before and after tell images apart, from 0 to 1: linear CKA (Kornblith et al., 2019)."""
    x, y = (rows.double() - rows.double().mean(dim=0) for rows in before_and_now(name, trained, splits))
    return ((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def in_views(**measures: Any) -> dict[str, Any]:
    """Measures of the images as they are, and of each change of them."""
    return {
        f"{name}, {shift}": functools.partial(measure, shift) for name, measure in measures.items() for shift in SHIFTS
    }


SEEN: dict[str, Measure] = {"training accuracy": lambda trained, splits: trained.accuracy(splits.train)}
MEASURES = in_views(accuracy=accuracy_on, drift=drift) | SEEN


def strategies() -> dict[str, Comparison]:
    """Seven ways to use Lite0, and two classical methods: three settings each, chosen on 100 of the 500 labels."""
    methods = {
        "head alone": grid(HEAD, lr=HEAD_RATES),
        "biases alone": grid(FULL.but(strategy=BitFit(lr=1e-2, head=LITE0_HEAD)), lr=(1e-2, 3e-2, 1e-1)),
        "everything": grid(FULL, lr=RATES),
        "probe, then everything": grid(FULL.but(strategy=probed_first), lr=RATES),
        "layer-wise decay": grid(FULL.but(strategy=LayerwiseLRDecay(lr=1e-3)), lr=HIGHER_RATES),
        "gradual unfreezing": grid(FULL.but(strategy=GradualUnfreezing(lr=1e-3)), lr=HIGHER_RATES),
        "from scratch": grid(FULL.but(model=untrained, pretraining="none"), lr=HIGHER_RATES),
        **ON_PIXELS,
    }
    contrasts = [(name, "everything") for name in methods if name != "everything"]
    made = compare(methods, FIVE_HUNDRED, reference="everything", contrasts=contrasts, measures=MEASURES)
    return {"500 labels": made}


def augmented() -> dict[str, Comparison]:
    """What a shop would add: pictures shifted by up to a pixel and mirrored, anew at each step where a body moves, and
    eight kept views of each for the head and the SVM. Without views everything has the rate that :func:`strategies`
    chose among the same three; layer-wise decay and from scratch stand there. Another head has eight times the steps,
    so that it meets each of its views as often as a head without views meets a picture.
    """
    seen, head = FULL.but(augment=views(1)), OnViews(HEAD)
    methods = {
        "everything, views": grid(seen, lr=RATES),
        "everything": grid(chosen_before(FULL), lr=3e-3),
        "layer-wise decay, views": grid(seen.but(strategy=LayerwiseLRDecay(lr=1e-3)), lr=HIGHER_RATES),
        "from scratch, views": grid(seen.but(model=untrained, pretraining="none"), lr=HIGHER_RATES),
        "head alone, views": grid(head, lr=HEAD_RATES),
        "head alone, views, eight times as long": grid(head.but(steps=8 * 120), lr=HEAD_RATES),
        "head alone": grid(HEAD, lr=HEAD_RATES),
        "SVM on pixels, views": grid(OnViews(SVM), C=(1.0, 5.0, 20.0)),
        "SVM on pixels": SVMS,
    }
    contrasts = [("everything, views", f"{name}, views") for name in ("head alone", "SVM on pixels")]
    contrasts += [(f"{name}, views", name) for name in ("everything", "head alone")]
    measures = in_views(accuracy=accuracy_on) | SEEN
    options: Any = {"reference": "everything, views", "contrasts": contrasts, "measures": measures}
    return {"500 labels": compare(methods, FIVE_HUNDRED, equal_budgets=False, **options)}


def counts() -> dict[str, Comparison]:
    """The head or everything, at 50 and at 5,000 labels; the latter with 300 steps."""

    def at(labels: int, steps: int) -> Comparison:
        methods = {
            "head alone": grid(HEAD.but(steps=steps), lr=HEAD_RATES),
            "everything": grid(FULL.but(steps=steps), lr=RATES),
        }
        contrasts = [("everything", name) for name in ("head alone", *ON_PIXELS)]
        splits = functools.partial(within, labels)
        return compare(methods | ON_PIXELS, splits, reference="everything", contrasts=contrasts, measures=SEEN)

    return {"50 labels": at(50, steps=120), "5,000 labels": at(5000, steps=300)}


def rates() -> dict[str, Comparison]:
    """Half a cosine at four learning rates, with and without a rise over a fifth of the steps. Nothing is chosen."""
    tried = (3e-4, 1e-3, 3e-3, 1e-2)
    methods = {
        f"{lr:g}, {name}": grid(FULL.but(schedule=functools.partial(cosine, warmup=warmup)), lr=lr)
        for lr in tried
        for name, warmup in (("no warm-up", 0.0), ("warm-up", 0.2))
    }
    contrasts = [(f"{lr:g}, warm-up", f"{lr:g}, no warm-up") for lr in tried]
    return {"rates": compare(methods, FIVE_HUNDRED, contrasts=contrasts, measures=SEEN)}


def probed(splits: Splits, seed: int) -> nn.Module:
    """A start whose head was trained before, on features computed once; this takes no step of the budget."""
    net = lite0()
    net.get_submodule(LITE0_HEAD).load_state_dict(HEAD.but(lr=1e-2).train(splits, seed).model.state_dict())
    return net


def new_statistics(splits: Splits, seed: int) -> nn.Module:
    """A start whose batch normalisation has met the training images; no weight has moved."""
    net = lite0().train()
    update_bn((batch["inputs"] for batch in splits.train.batches(64)), net)
    return net


def probing() -> dict[str, Comparison]:
    """A probe that costs nothing of the budget, then all 120 steps of everything, at each learning rate; everything
    without it; and the head alone on a body that kept its weights and has new statistics.
    """
    free, still = FULL.but(start=probed), FULL.but(start=new_statistics, strategy=HeadOnly(lr=1e-3, head=LITE0_HEAD))
    methods = {
        **{f"everything, {lr:g}": grid(FULL, lr=lr) for lr in RATES},
        **{f"free probe, then everything, {lr:g}": grid(free, lr=lr) for lr in RATES},
        "new statistics, head alone": grid(still, lr=HEAD_RATES),
    }
    contrasts = [(f"free probe, then everything, {lr:g}", f"everything, {lr:g}") for lr in RATES]
    measures = MEASURES | in_views(similarity=similarity)
    return {"500 labels": compare(methods, FIVE_HUNDRED, contrasts=contrasts, measures=measures)}


PIECES, LATER = 32, 129
"""Word pieces that MiniLM reads of a story, and the place of the first of them in another view of it."""


def read_from(place: int, labels: int, seed: int) -> Splits:
    """Stories, of each the pieces from a place on, behind the mark with which MiniLM begins a text."""

    def read(numbers: Tensor) -> Tensor:
        ids = language.pieces(numbers)
        return torch.cat([ids[:, :1], ids[:, place : place + PIECES - 1]], dim=1)

    return language.within(labels, seed).with_inputs(read)


class Reader(nn.Module):
    """MiniLM, whose layers are normalised one by one, and a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.model = copy.deepcopy(language.encoder())
        self.model.head = nn.Linear(self.model.width, language.TOPICS)

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids, (ids > 0).long())


@functools.cache
def _remembered_minilm() -> Remembered:
    return Remembered(Reader(), "model.head")


def minilm_features(data: TensorData) -> TensorData:
    return _remembered_minilm()(data)


def probed_reader(splits: Splits, seed: int) -> nn.Module:
    """A start whose head is the logistic regression on what MiniLM makes of the stories; it takes no step either."""
    net, head = Reader(), MINILM_HEAD.train(splits, seed).model
    net.model.head.load_state_dict({"weight": torch.tensor(head.coef_), "bias": torch.tensor(head.intercept_)})
    return net


READS = Recipe(Reader, Supervised, FullFineTuning(lr=1e-4), steps=60, batch_size=8, pretraining=language.MINILM)
MINILM_HEAD = OnFeatures(LOGISTIC.but(C=10.0), minilm_features, language.MINILM)


def later_accuracy(trained: Trained, splits: Splits) -> float:
    """On another part of the test stories, which nobody trained or chose by."""
    return trained.accuracy(read_from(LATER, 50, 0).test)


def probing_minilm() -> dict[str, Comparison]:
    """The same question to a network without batch normalisation: a free probe, then everything, at each rate."""
    rates, free = (3e-5, 1e-4, 3e-4), READS.but(start=probed_reader)
    methods = {
        **{f"everything, {lr:g}": grid(READS, lr=lr) for lr in rates},
        **{f"free probe, then everything, {lr:g}": grid(free, lr=lr) for lr in rates},
        "head alone": grid(MINILM_HEAD),
    }
    contrasts = [(f"free probe, then everything, {lr:g}", f"everything, {lr:g}") for lr in rates]
    splits = functools.partial(read_from, 1, 50)
    measures: dict[str, Measure] = {"accuracy, later": later_accuracy}
    return {"50 labels": compare(methods, splits, contrasts=contrasts, measures=measures, equal_budgets=False)}


EXPERIMENTS = {
    "full-fine-tuning": strategies,
    "full-fine-tuning-views": augmented,
    "full-fine-tuning-probe": probing,
    "full-fine-tuning-labels": counts,
    "full-fine-tuning-rates": rates,
    "full-fine-tuning-minilm": probing_minilm,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
