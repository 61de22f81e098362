"""The long experiments of chapter 02, recorded."""

from __future__ import annotations

import functools

import torch
from shared import LOGISTIC, SVM, student, thousand_labels, views
from torch import Tensor, nn

from kdft_lib.data import TensorData
from kdft_lib.experiments import Comparison, Recipe, Trained, compare, grid, per_seed, record_all
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import BitFit, FullFineTuning, HeadOnly

BASE = Recipe(student, Supervised, FullFineTuning(lr=0.3), steps=400)
SOFT = BASE.taught_by(fashion_teacher(), SoftTargets)
tuned = functools.partial(grid, lr=(0.1, 0.3, 1.0), weight_decay=(0.01, 0.1))


def turned(pictures: Tensor, seed: int) -> TensorData:
    """Each turned by 0 to 3 quarters, and as its target by how many."""
    quarters = torch.randint(4, (len(pictures),), generator=torch.Generator().manual_seed(seed))
    inputs = torch.empty_like(pictures)
    for count in range(4):
        inputs[quarters == count] = torch.rot90(pictures[quarters == count], count, dims=(2, 3))
    return TensorData(inputs, quarters)


@per_seed
def rotations(seed: int) -> Trained:
    """It learned, without labels, by how much an image was turned (Gidaris et al., 2018); no setting was tuned."""
    splits = thousand_labels(seed)
    pretext = Recipe(functools.partial(ConvNet, num_classes=4), Supervised, FullFineTuning(lr=0.1), steps=400)
    learned = pretext.train(splits._replace(train=turned(splits.transfer.inputs, seed)), seed)
    count = learned.ledger.labels
    return learned.but(labels=0, unlabeled=count, pretraining=f"rotations of {count:,} pictures")


def with_new_head(pretrained: nn.Module) -> nn.Module:
    """The pretrained body, and the head that the seed gives to every other method too."""
    model = student()
    model.body.load_state_dict(pretrained.get_submodule("body").state_dict())
    return model


def choices() -> dict[str, Comparison]:
    """One choice changed at a time, and some pairs; six settings for each, chosen on validation."""
    rotated = BASE.but(start=rotations, change=with_new_head)
    head, biases = HeadOnly(lr=0.3, head="head"), BitFit(lr=0.3, head="head")
    single = {
        "base": tuned(BASE),
        "start: rotations": tuned(rotated),
        "inputs: augmented": tuned(BASE.but(augment=views(1))),
        "objective: soft targets": tuned(SOFT),
        "strategy: head alone": tuned(BASE.but(strategy=head)),
        "strategy: head and biases": tuned(BASE.but(strategy=biases)),
        "logistic regression": grid(LOGISTIC, C=[10.0**k for k in range(-5, 1)]),
        "SVM": grid(SVM, C=(1, 5, 25), gamma=("scale", 4e-3)),
    }
    pairs = {
        "rotations + head alone": tuned(rotated.but(strategy=head)),
        "rotations + head and biases": tuned(rotated.but(strategy=biases)),
        "rotations + soft targets": tuned(SOFT.but(start=rotations, change=with_new_head)),
        "augmented + soft targets": tuned(SOFT.but(augment=views(1))),
        "54,000 more pictures + soft targets": tuned(SOFT.but(transfer_data="transfer")),
    }
    contrasts = [(name, "base") for name in single | pairs if name != "base"]
    together = compare(single | pairs, thousand_labels, contrasts=contrasts)
    return {"one at a time": together.part(single), "two at a time": together.part(["base", *pairs])}


RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class Held(ConvNet):
    """The student, with filters that keep the length that they began with: a step can turn them, and not lengthen."""

    def __init__(self, width: int = 8):
        super().__init__(width)
        self.lengths = [filters.norm().item() for filters in self.filters()]

    def filters(self) -> list[Tensor]:
        return [weight for weight in self.body.parameters() if weight.dim() == 4]

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            for filters, length in zip(self.filters(), self.lengths, strict=True):
                filters.mul_(length / filters.norm())
        return super().forward(images)


def bare() -> ConvNet:
    """The student without normalisation: each filter has a bias in its place."""
    model = student()
    for place, before, after in ((0, 1, 8), (2, 8, 16), (4, 16, 32)):
        model.body[place] = nn.Conv2d(before, after, 3, stride=2, padding=1)
    return model


def rates() -> dict[str, Comparison]:
    """The base at eight learning rates; three arms each take away a reason why large ones may do. None is chosen."""
    base = BASE.but(weight_decay=0.1)
    arms = {
        "the student": base,
        "no weight decay": base.but(weight_decay=0.0),
        "lengths held": base.but(model=Held),
        "no normalisation": base.but(model=bare),
    }
    methods = {f"{arm}, {rate:g}": recipe.but(lr=rate) for arm, recipe in arms.items() for rate in RATES}
    contrasts = [(f"{arm}, {rate:g}", f"the student, {rate:g}") for arm in list(arms)[1:] for rate in (0.1, 0.3, 1.0)]
    contrasts += [("the student, 0.3", f"the student, {rate:g}") for rate in (0.001, 0.01, 3.0)]
    return {"rates": compare(methods, thousand_labels, reference="the student, 0.3", contrasts=contrasts)}


EXPERIMENTS = {"concepts-choices": choices, "concepts-rates": rates}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
