"""What the recipe of the solar cells is made of: parts, measures, features, networks, and how settings are chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from shared import IMAGENET, LITE0_HEAD, LOGISTIC
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib import metrics
from kdft_lib.data import RandomShiftFlip, Splits, TensorData
from kdft_lib.datasets import SOLAR_KINDS, SOLAR_MODULES, solar_cells
from kdft_lib.experiments import (
    Candidate,
    Classical,
    Comparison,
    Measure,
    OnFeatures,
    Recipe,
    Score,
    Source,
    Then,
    Trained,
    compare,
    found,
    grid,
)
from kdft_lib.features import Remembered
from kdft_lib.models import ConvNet, imagenet_backbone
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning, Strategy
from kdft_lib.strategies.base import keep_frozen_still

SIZE, SEEN = 224, 64
"""Pixels of the pictures, and of what a student makes of them."""
TUNED_ON, SEEDS = (100, 101), range(8)
"""Settings are chosen on draws of the first two tests; the modules to choose by are all tested in another turn, six in
the second and five in the third.
"""
KEPT, KEPT_UNLABELED = 4, 2
"""Views of a cell that a teacher is asked about: each is seen some fifteen times, with a label or without."""
LARGE_RATES, RATES = (1e-3, 3e-3), (0.01, 0.03, 0.1)
LARGE, AUGMENTED = "Lite0, fine-tuned", "labels + augmentation"
VIEWED = "logistic regression on features of views"
FROZEN, SVM, HOG = "logistic regression on Lite0's features", "SVM on pixels", "SVM on gradients"
BLIND = "the module's name alone"


# What is learned from, and what is measured


@functools.lru_cache(maxsize=2)
def other_modules(seed: int, labeled: int = 500, split: Any = "module") -> Splits:
    """So many labelled cells, and with every seed the next of four tests, in which each module is once."""
    return solar_cells(labeled, size=SIZE, split=split, fold=seed % 4, seed=seed)


def column(data: TensorData, name: str) -> Tensor:
    values: Tensor = data.rows(slice(None))[name]
    return values


class Said:
    """What a model said of some cells, asked once: several measures look at it, and several tables."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, dict[bytes, Tensor]] = WeakKeyDictionary()

    def __call__(self, trained: Trained, data: TensorData) -> tuple[Tensor, Tensor]:
        """Logits and targets."""
        assert data.targets is not None
        known, cells = self._known.setdefault(trained.model, {}), column(data, "cell").numpy().tobytes()
        if cells not in known:
            # Of 512 pictures at once Lite0 would keep gigabytes.
            known[cells] = torch.cat([trained.logits(data[rows]) for rows in torch.arange(len(data)).split(64)])
        return known[cells], data.targets


said = Said()


def average_precision(trained: Trained, data: TensorData) -> float:
    return metrics.average_precision(*said(trained, data))


def f1(chosen: bool, trained: Trained, splits: Splits) -> float:
    """At a half, or at the threshold that suits the modules to choose by."""
    threshold = metrics.best_threshold(*said(trained, splits.val)) if chosen else 0.5
    return metrics.f1(*said(trained, splits.test), threshold=threshold)


def distance_from_people(trained: Trained, splits: Splits) -> float:
    """The cross-entropy with the probabilities that people gave."""
    given = column(splits.test, "probability").double()
    shares = said(trained, splits.test)[0].double().softmax(-1)
    return -torch.xlogy(torch.stack([1 - given, given], 1), shares).sum(1).mean().item()


def of_kind(kind: str, data: TensorData) -> TensorData:
    chosen: TensorData = data[column(data, "kind") == SOLAR_KINDS.index(kind)]
    return chosen


def precision_of_kind(kind: str, trained: Trained, splits: Splits) -> float:
    chosen = column(splits.test, "kind") == SOLAR_KINDS.index(kind)
    logits, targets = said(trained, splits.test)
    return metrics.average_precision(logits[chosen], targets[chosen])


MEASURES: dict[str, Measure] = {
    "F1": functools.partial(f1, True),
    "F1 at a half": functools.partial(f1, False),
    "accuracy": lambda trained, splits: metrics.accuracy(*said(trained, splits.test)),
    "log loss": lambda trained, splits: metrics.cross_entropy(*said(trained, splits.test)),
    "log loss of people's probabilities": distance_from_people,
}
OF_EACH_KIND = {f"average precision, {kind}": functools.partial(precision_of_kind, kind) for kind in SOLAR_KINDS}


class Tuned(NamedTuple):
    """Some settings of each method on two seeds, scored on the modules to choose by, and the best on eight others, two
    for each test.
    """

    tried: Comparison
    made: Comparison

    def source(self, name: str) -> Source:
        """What was trained, for a seed of either."""
        return lambda splits, seed: found((self.tried if seed in TUNED_ON else self.made).source(name), splits, seed)

    def records(self, name: str) -> dict[str, Comparison]:
        return {name: self.made, f"{name}, tried": self.tried}


def counted(run: Trained, splits: Splits, seed: int) -> Trained:
    """Its setting was chosen by these labels."""
    return run.but(choosing=len(splits.val))


def tuned(
    methods: Mapping[str, list[Candidate]],
    splits: Callable[[int], Splits],
    *,
    seeds: Any = SEEDS,
    score: Score = average_precision,
    **options: Any,
) -> Tuned:
    @functools.lru_cache(maxsize=1)
    def without_test(seed: int) -> Splits:
        made = splits(seed)
        return made._replace(test=made.val)

    by: dict[str, Any] = {"score": score, "equal_budgets": False}
    tried = compare(methods, without_test, seeds=TUNED_ON, **by)
    best = {name: entries[tried.chosen[name][0]] for name, entries in methods.items()}
    final = {name: Candidate(Then(entry.method, counted), entry.setting) for name, entry in best.items()}
    options = {"measures": MEASURES | OF_EACH_KIND} | by | options
    return Tuned(tried, compare(final, splits, seeds=seeds, **options))


# Pictures, and what a network is shown of them


class Shrunk(nn.Module):
    """Bytes as numbers around 0, of fewer pixels."""

    def __init__(self, size: int = SEEN):
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        smaller = F.interpolate(images.float(), (self.size, self.size), mode="bilinear", antialias=True)
        return (smaller - 145) / 50


class Turned(RandomShiftFlip):
    """Shifted, mirrored, and upside down: a cell has no top."""

    def draw(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        over = torch.rand(count, generator=generator) < 0.5
        return super().draw(count, generator) | {"over": over}

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        seen = super().apply(images, drawn)
        return torch.where(drawn["over"].view(-1, 1, 1, 1).to(images.device), seen.flip(2), seen)


VIEWS = Turned(padding=8)


class Gradients(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs, 2005): nine directions in cells of 14 pixels of 112,
    blocks of two by two cells brought to one length.
    """

    def forward(self, images: Tensor) -> Tensor:
        smaller = F.adaptive_avg_pool2d(images.float(), 112)
        across = F.pad(smaller[..., 2:] - smaller[..., :-2], (1, 1))
        down = F.pad(smaller[..., 2:, :] - smaller[..., :-2, :], (0, 0, 1, 1))
        strength = (across.square() + down.square()).sqrt()
        place = torch.atan2(down, across).remainder(torch.pi) / torch.pi * 9
        lower, share = place.floor().long() % 9, place % 1
        spread = F.one_hot(lower, 9) * (1 - share)[..., None] + F.one_hot((lower + 1) % 9, 9) * share[..., None]
        told = F.avg_pool2d((spread * strength[..., None]).squeeze(1).permute(0, 3, 1, 2), 14)
        blocks = F.unfold(told, 2)
        return F.normalize(blocks, dim=1).flatten(1)


class Body(Remembered):
    """What makes features. One that was kept in a file is read as the one that is here, which remembers."""

    name: str

    def __reduce__(self) -> tuple[Callable[[str], Body], tuple[str]]:
        return body, (self.name,)


@functools.cache
def body(name: str) -> Body:
    """What makes features, each picture's once."""
    if name == FROZEN:
        made = Body(lite0(), LITE0_HEAD, batch_size=8)
    else:
        first = Gradients() if name == HOG else nn.Sequential(Shrunk(40), nn.Flatten())
        made = Body(nn.Sequential(first, nn.Identity()), "1")
    made.name = name
    return made


def modules(data: TensorData) -> Any:
    """Which module each cell is of, and nothing of its picture: 44 columns, of which one is 1."""
    return F.one_hot(column(data, "module"), len(SOLAR_MODULES)).numpy()


def svm(C: float) -> Classical:
    return Classical(CalibratedClassifierCV(SVC(C=C), ensemble=False))


def classical() -> dict[str, list[Candidate]]:
    """What one would try first, three settings of each."""
    frozen = OnFeatures(LOGISTIC, body(FROZEN), IMAGENET)
    return {
        FROZEN: grid(frozen, C=(0.003, 0.03, 0.3)),
        HOG: grid(lambda C: OnFeatures(svm(C), body(HOG)), C=(1.0, 5.0, 20.0)),
        SVM: grid(lambda C: OnFeatures(svm(C), body(SVM)), C=(1.0, 5.0, 20.0)),
    }


def lite0(image_size: int = SIZE) -> nn.Sequential:
    """EfficientNet-Lite0 with ImageNet's weights and a new head, which takes bytes."""
    net = imagenet_backbone(num_classes=2, image_size=image_size, given=(0.0, 1 / 255))
    transform: Any = net.transform
    return nn.Sequential(transform, net)


def student(width: int = 24) -> nn.Sequential:
    """52,586 parameters, 210 kB. Channels last in memory, it is trained in two thirds of the time."""
    net: Any = ConvNet(width, num_classes=2)
    return nn.Sequential(Shrunk(), net.to(memory_format=torch.channels_last))


def begun_elsewhere(width: int = 24) -> nn.Sequential:
    """A student whose first weights are not those of the one that names for it."""
    torch.rand(1)
    return student(width)


class LastStages(Strategy):
    """The last three of Lite0's seven stages move, and what comes behind them; the others stay as they are."""

    def prepare(self, model: nn.Module) -> None:
        still = ("1.conv_stem.", "1.bn1.", *(f"1.blocks.{stage}." for stage in range(4)))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(still))

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        keep_frozen_still(model)


FINE_TUNED = Recipe(
    lite0, Supervised, LastStages(lr=1e-3), steps=240, batch_size=32, augment=VIEWS, pretraining=IMAGENET
)
ALONE = Recipe(student, Supervised, FullFineTuning(lr=0.01, weight_decay=0.1), steps=1000, batch_size=64)
tried = functools.partial(grid, lr=RATES)
