"""The long experiment of chapter 10, recorded: what 500 labels, a hundred of them to choose by, and 54,500 pictures
without labels make of a student of 6,274 parameters.

Both large networks have 600 steps of 32 augmented pictures, so that they have seen as many; the one from scratch is
trained as long as a student, too. Students have 4,000 steps of 128 pictures: all with labels, or half of them without.
What they learn from is cached, for all 18 views of a picture with a label and for eight of each other one, of which a
student sees some five. Each seed chooses between two learning rates, of FixMatch among two and two thresholds; what
choosing on 5,000 would have changed is recorded beside it, with the teachers that 100 chose. FixMatch sees a picture
without a label twice in a step and asks no large network: the same steps are less work, so it is run four times as
long, too.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from shared import (
    IMAGENET,
    LOGISTIC,
    SVM,
    SVMS,
    Answered,
    all_labels,
    lite0,
    lite0_features,
    new_head,
    student,
    views,
    within,
)
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import UNLABELED, Batch, Splits, TensorData
from kdft_lib.datasets import FASHION_BACKGROUND, FASHION_NORMALIZATION
from kdft_lib.experiments import Comparison, Given, Once, OnFeatures, Recipe, Then, Trained, grid
from kdft_lib.models import ConvNet, imagenet_backbone
from kdft_lib.objectives import HardTargets, Objective, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache

RATES = (0.1, 0.3)
LARGE, WIDE, ITSELF = "Lite0, fine-tuned", "94,186 parameters from scratch", "6,274 parameters"
PATIENT = f"{WIDE}, patient"
SELF_TRAINED = "Lite0, self-trained"
RECIPE = "ImageNet, 54,900 images, soft"
VIEWS = views(1)
KEPT = 8
"""Views of a picture without a label that a teacher is asked about."""

FINE_TUNED = Recipe(
    lite0, Supervised, FullFineTuning(lr=1e-3), steps=600, batch_size=32, augment=VIEWS, pretraining=IMAGENET
)
ALONE = Recipe(student, Supervised, FullFineTuning(lr=0.1, weight_decay=0.1), steps=4000)
AUGMENTED = ALONE.but(augment=VIEWS)
tried = functools.partial(grid, lr=RATES, weight_decay=0.1)
shop = functools.partial(within, 500)
"""500 labelled images, 100 of them to choose by; 54,500 without labels."""


def as_chosen() -> Recipe:
    """Lite0, fine-tuned for 120 steps on pictures as they are: what the records of chapters 13 and 19 learned from."""
    return FINE_TUNED.but(lr=3e-3, steps=120, augment=None)


def strong(images: Tensor) -> Tensor:
    """Views turned by up to 30 degrees, sheared and moved by up to four pixels, of another contrast about the mean, a
    square of 14 pixels hidden: for grey pictures, in the place of the paper's random transformations and Cutout.
    """
    count, size = len(images), images.shape[-1]
    turn, shear, right, down = ((2 * torch.rand(4, count) - 1) * torch.tensor([[0.52], [0.3], [0.29], [0.29]])).unbind()
    rows = [turn.cos(), shear - turn.sin(), right, turn.sin(), turn.cos(), down]
    moved = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(images.shape), align_corners=False)
    seen = F.grid_sample(VIEWS(images) - FASHION_BACKGROUND, moved, align_corners=False) + FASHION_BACKGROUND
    seen = seen * (0.5 + torch.rand(count, 1, 1, 1))
    places, starts = torch.arange(size), torch.randint(1 - 7, size - 7, (2, count, 1))
    down_there, right_there = (places >= starts) & (places < starts + 14)
    return seen.masked_fill((down_there.unsqueeze(2) & right_there.unsqueeze(1)).unsqueeze(1), 0.0)


class FixMatch(Objective):
    """Learn the labels; and of a picture without one, seen strongly changed, the class that the student is sure of
    when it sees it weakly changed (Sohn et al., 2020). The student is called once, as in the authors' code.
    """

    name = "fixmatch"

    def __init__(self, sure: float = 0.95):
        super().__init__({"ce": 1.0, "names": 1.0})
        self.sure = sure

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images, unlabeled = batch["inputs"], batch["targets"] == UNLABELED
        logits = model(torch.cat([VIEWS(images), strong(images[unlabeled])]))
        weak, strongly = logits.split([len(images), int(unlabeled.sum())])
        probability, names = weak[unlabeled].detach().softmax(dim=-1).max(dim=-1)
        is_sure = (probability >= self.sure).float()
        learned = (F.cross_entropy(strongly, names, reduction="none") * is_sure).mean()
        labels = self.cross_entropy(weak, batch)
        parts = {"fixmatch/ce": labels, "fixmatch/names": learned, "fixmatch/sure": is_sure.mean()}
        return {"loss": self.weights["ce"] * labels + self.weights["names"] * learned} | parts


def seven_of_eight(splits: Splits) -> TensorData:
    """Seven pictures without a label for each one with: of a step's 128, some 16 have one, as in the paper."""
    few = torch.arange(len(splits.transfer) // 7) % len(splits.train)
    labeled: TensorData = splits.train[few]
    return labeled.with_rows(splits.transfer)


def counted(run: Trained, splits: Splits, seed: int) -> Trained:
    """A picture that stands in the data many times is one."""
    return run.but(labels=len(splits.train), unlabeled=len(splits.transfer))


FIXMATCH = Then(ALONE.but(objective=FixMatch, train_data=seven_of_eight), counted)


@functools.cache
def by_labels() -> dict[str, experiments.Candidates]:
    """What 500 labels make without a limit of size, and the student by itself: two or three settings each."""
    head = OnFeatures(
        FINE_TUNED.but(model=functools.partial(nn.Linear, 1280, 10), augment=None), lite0_features, IMAGENET
    )
    slow = FullFineTuning(lr=0.1, weight_decay=0.1)
    wide = Recipe(ConvNet, Supervised, slow, steps=600, batch_size=32, augment=VIEWS).but(width=32)
    return {
        LARGE: grid(FINE_TUNED, lr=(1e-3, 3e-3)),
        WIDE: grid(wide, lr=(0.03, 0.1)),
        PATIENT: grid(wide.but(steps=4000, batch_size=128), lr=(0.03, 0.1)),
        ITSELF: tried(AUGMENTED),
        "Lite0, head alone": grid(head, lr=(1e-3, 1e-2, 1e-1)),
        "SVM on Lite0's features": grid(OnFeatures(SVM, lite0_features, IMAGENET), C=(1.0, 5.0, 20.0)),
        "SVM on pixels": SVMS,
        "logistic regression on pixels": grid(LOGISTIC, C=(0.003, 0.01, 0.1)),
    }


@functools.cache
def teachers() -> Comparison:
    """Those that 100 labels chose, whose answers the students learn from."""
    asked = [(LARGE, WIDE), (LARGE, PATIENT)]
    return experiments.compare(by_labels(), shop, choose="each seed", contrasts=asked, equal_budgets=False)


def with_labels(count: int) -> Comparison:
    """What more labels would have brought: a fifth of them to choose by."""
    methods = {"augmentation": tried(AUGMENTED), "SVM on pixels": SVMS}
    return experiments.compare(methods, functools.partial(within, count), choose="each seed")


def as_made(name: str) -> Then:
    """What was trained already, for another table."""
    return Then(teachers().source(name), lambda run, *_: run)


@functools.cache
def answers_of(teacher: str) -> Answered:
    ask = functools.partial(cache, augment=VIEWS, batch_size=64)
    with_labels, without = functools.partial(ask, views="all"), functools.partial(ask, views=KEPT)
    return Answered(teachers().source(teacher), with_labels, without)


def pupil(teacher: str, objective: Any, images: str, **changes: Any) -> Given:
    """A student of cached answers. A step has 128 pictures: all with labels, or half of them without."""
    half = {"transfer_data": "transfer", "batch_size": 64} if images == "54,900" else {}
    return Given(ALONE.taught_by(teachers().source(teacher), objective).but(**half, **changes), answers_of(teacher))


def ablation() -> dict[str, experiments.Candidates]:
    """Pretraining of the teacher times extra pictures times softness."""
    return {
        f"{known}, {images} images, {word}": tried(pupil(teacher, objective, images))
        for known, teacher in (("scratch", WIDE), ("ImageNet", LARGE))
        for images in ("400", "54,900")
        for word, objective in (("hard", HardTargets), ("soft", SoftTargets))
    }


def another() -> ConvNet:
    """A student of other first weights than those of the one that named the pictures."""
    student()
    return student()


def further() -> dict[str, experiments.Candidates]:
    """What would refute a reading of the eight: softness at temperature 1, which differs from decisions in nothing
    else, and a teacher from scratch that was trained as long as a student.
    """
    soft = functools.partial(SoftTargets, temperature=1.0)
    rows: dict[str, experiments.Candidates] = {
        f"{known}, 54,900 images, soft, T = 1": tried(pupil(teacher, soft, "54,900"))
        for known, teacher in (("scratch", WIDE), ("ImageNet", LARGE))
    }
    return rows | {"scratch, patient, 54,900 images, soft": tried(pupil(PATIENT, SoftTargets, "54,900"))}


def self_trained(lr: float) -> Given:
    """Lite0, fine-tuned anew on the labels, and as many pictures that it named itself: in its 600 steps 9,600."""
    again = FINE_TUNED.taught_by(teachers().source(LARGE), HardTargets).but(augment=None)
    return Given(again.but(lr=lr, batch_size=16, transfer_data="transfer"), answers_of(LARGE))


def unlabeled(splits: Splits) -> TensorData:
    """All 54,900 images, none with its label."""
    return splits.train.without_labels().with_rows(splits.transfer)


def distilled_first() -> tuple[Recipe, Recipe]:
    """3,200 steps of the task's classes from the fine-tuned Lite0, or of ImageNet's before; then 800 on the labels."""
    net = imagenet_backbone(image_size=48, given=FASHION_NORMALIZATION)
    pretrained = Teacher(nn.Sequential(net.transform, net), labels=0, pretraining=IMAGENET)  # type: ignore[arg-type]
    task = pupil(LARGE, SoftTargets, "54,900", steps=3200)
    words = ALONE.taught_by(pretrained, SoftTargets, kd_weight=1.0, ce_weight=0.0)
    words = words.but(model=ConvNet, num_classes=1000, steps=3200)

    def told(splits: Splits, seed: int) -> Splits:
        """ImageNet's classes of each picture as it is."""
        return splits._replace(train=cache(pretrained, unlabeled(splits), batch_size=64))

    then = AUGMENTED.but(steps=800, weight_decay=0.01)
    return then.but(start=Once(task)), then.but(start=Once(Given(words, told)), change=new_head)


def students() -> dict[str, Comparison]:
    """The eight versions of the recipe, and what a shop would try first."""
    task, words = distilled_first()
    versions = ablation()
    methods: dict[str, experiments.Candidates] = {
        "augmentation": as_made(ITSELF),
        "stronger augmentation": tried(ALONE.but(augment=strong)),
        "SVM on pixels": as_made("SVM on pixels"),
        "FixMatch": grid(FIXMATCH, lr=RATES, sure=(0.8, 0.95)),
        "FixMatch, four times as long": grid(FIXMATCH, steps=16000, lr=0.1, sure=0.95),
        "pseudo-labels of itself": tried(pupil(ITSELF, HardTargets, "54,900", model=another)),
        "the task distilled, then fine-tuned": grid(task, lr=(3e-3, 1e-2, 3e-2)),
        "ImageNet distilled, then fine-tuned": grid(words, lr=(1e-2, 3e-2, 1e-1)),
        **versions,
        **further(),
        LARGE: as_made(LARGE),
        SELF_TRAINED: grid(self_trained, lr=(1e-3, 3e-3)),
    }
    rivals = ["augmentation", "stronger augmentation", "FixMatch", "FixMatch, four times as long"]
    rivals += ["pseudo-labels of itself", "scratch, 54,900 images, soft", "scratch, patient, 54,900 images, soft"]
    asked = [(RECIPE, other) for other in [*rivals, "ImageNet, 400 images, soft", LARGE]]
    for known in ("scratch", "ImageNet"):
        decided = f"{known}, 54,900 images, hard"
        asked += [(f"{known}, 54,900 images, soft", decided), (f"{known}, 54,900 images, soft, T = 1", decided)]
    asked += [(SELF_TRAINED, LARGE)]
    compared = functools.partial(experiments.compare, choose="each seed", equal_budgets=False)
    on_many = functools.partial(compared, choose_on=lambda seed: all_labels(seed).val)
    many = on_many(methods, shop, reference="augmentation")
    return {
        "students": compared(methods, shop, reference="augmentation", contrasts=asked),
        "chosen on 5,000": many,
        "teachers": teachers(),
        "teachers, chosen on 5,000": on_many(by_labels(), shop),
        **{f"{count:,} labels": with_labels(count) for count in (1250, 2500)},
    }


EXPERIMENTS = {"both-together-4000": students}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
