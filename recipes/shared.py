"""What the recipes of the chapters share. ``make results`` runs all of them, ``python recipes/NAME.py`` the experiments
of one chapter, and names after it those alone; each is recorded when it is done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import nn

from kdft_lib.data import Batch, RandomShiftFlip, Splits, TensorData
from kdft_lib.datasets import FASHION_BACKGROUND, FASHION_NORMALIZATION, fashion_mnist
from kdft_lib.experiments import Classical, Given, Method, Once, Recipe, Source, Then, Trained, found, grid
from kdft_lib.experiments.methods import Wrapped
from kdft_lib.features import Remembered
from kdft_lib.models import ConvNet, imagenet_backbone

LITE0_HEAD = "1.classifier"
LOGISTIC, SVM = Classical(LogisticRegression(max_iter=1000)), Classical(SVC())
SVMS = grid(SVM, C=(1.0, 5.0, 20.0))
IMAGENET = "ImageNet, 1.3 million labels"
KEPT_VIEWS = 8
"""Of a picture with a label, where what is made of it is computed once."""
Look: TypeAlias = Callable[[nn.Module, TensorData], TensorData]
"""What a teacher answers to data, kept with it."""


def student() -> ConvNet:
    """6,274 parameters."""
    return ConvNet(width=8)


def views(shift: int) -> RandomShiftFlip:
    """Shifted by up to so many pixels, half of them mirrored."""
    return RandomShiftFlip(shift, fill=FASHION_BACKGROUND)


def shifted(base: Recipe) -> Callable[..., Recipe]:
    """A recipe on views, by the size of their shifts."""
    return lambda shift, **settings: base.but(augment=views(shift), **settings)


A_PIXEL = views(1)


@dataclass(frozen=True)
class OnViews(Wrapped):
    """A method that learns from kept views of each labelled picture as from so many pictures. A seed's views are the
    same for all methods, and a label counts once.
    """

    method: Method
    seen: RandomShiftFlip = A_PIXEL
    kept: int = KEPT_VIEWS

    def train(self, splits: Splits, seed: int) -> Trained:
        many = splits.train[torch.arange(len(splits.train)).repeat(self.kept)]
        drawn = self.seen.draw(len(many), torch.Generator().manual_seed(seed))
        seen = many.with_inputs(self.seen.apply(many.inputs, drawn))
        return self.method.train(splits._replace(train=seen), seed).but(labels=len(splits.train))


def chosen_before(method: Method) -> Then:
    """A method whose one setting was chosen elsewhere by the labels to choose by, which count."""
    return Then(method, lambda run, splits, _: run.but(choosing=len(splits.val)))


_all_labels = functools.cache(functools.partial(fashion_mnist, labeled=None))


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed."""
    return labeled(1000, seed)


def all_labels(seed: int) -> Splits:
    """All 55,000 labelled images; the seed sets initialisation and order alone."""
    return _all_labels()


def labeled(count: int, seed: int) -> Splits:
    """So many labelled images; a larger draw of a seed holds the smaller."""
    return all_labels(seed) if count == 55_000 else fashion_mnist(count, seed=seed)


def on_all_labels(recipe: Recipe) -> Once:
    """What a recipe makes of all 55,000 labels, once for each seed."""
    return Once(Given(recipe, lambda splits, seed: all_labels(seed)))


def without_labels(splits: Splits) -> TensorData:
    """What there is to learn from, without its labels."""
    return splits.train.without_labels()


@functools.lru_cache(maxsize=2)
def within(labels: int, seed: int) -> Splits:
    """So many labelled images, a fifth of them to choose by."""
    return fashion_mnist(labels, validation="within", seed=seed)


def shop(seed: int) -> Splits:
    """1,000 labelled images to train on, and 250 further ones to choose by."""
    return within(1250, seed)


def new_head(model: Any) -> nn.Module:
    """For ten classes."""
    model.head = nn.Linear(model.head.in_features, 10)
    return model


def lite0(image_size: int = 48) -> nn.Sequential:
    """EfficientNet-Lite0 with ImageNet's weights and a new head, taking the pictures of Fashion-MNIST."""
    net = imagenet_backbone(num_classes=10, image_size=image_size, given=FASHION_NORMALIZATION)
    transform: Any = net.transform
    return nn.Sequential(transform, net)


class FixedAnswers(TensorData):
    """The student sees views of each sample, and the teacher has answered the sample as it is."""

    def __init__(self, answered: TensorData, augment: Callable[[torch.Tensor], torch.Tensor]):
        logits, teacher = answered.teacher_logits, answered.teacher
        super().__init__(answered.inputs, answered.targets, teacher_logits=logits, teacher=teacher)
        self.augment = augment

    def rows(self, indices: torch.Tensor | slice) -> Batch:
        return super().rows(indices) | {"inputs": self.augment(self.inputs[indices])}


class Answered:
    """A seed's splits with a teacher's answers, made once for all that learn from them.

    Args:
        teacher: Who is asked.
        look: What makes, of the teacher and the data with labels, what is learned from.
        unlabeled: The same of the data without; by default that stays as it is.
    """

    def __init__(self, teacher: Source, look: Look, unlabeled: Look | None = None):
        self.teacher, self.look, self.unlabeled = teacher, look, unlabeled
        self._last: tuple[Splits, Splits] | None = None

    def __repr__(self) -> str:
        return f"Answered({self.teacher!r}, {self.look!r}, {self.unlabeled!r})"

    def __call__(self, splits: Splits, seed: int) -> Splits:
        if self._last is None or self._last[0] is not splits:
            model = found(self.teacher, splits, seed).model
            rest = splits.transfer if self.unlabeled is None else self.unlabeled(model, splits.transfer)
            self._last = splits, splits._replace(train=self.look(model, splits.train), transfer=rest)
        return self._last[1]


def pixels(images: torch.Tensor) -> torch.Tensor:
    """From 0 to 255, as they were before normalisation."""
    mean, deviation = FASHION_NORMALIZATION
    return ((images * deviation + mean) * 255).round().to(torch.uint8)


@functools.cache
def _remembered_lite0(image_size: int) -> Remembered:
    return Remembered(lite0(image_size), LITE0_HEAD, batch_size=64 if image_size < 128 else 8)


def lite0_features(data: TensorData, image_size: int = 48) -> TensorData:
    """What Lite0's body, frozen as ImageNet left it, makes of images; each is computed once."""
    return _remembered_lite0(image_size)(data)
