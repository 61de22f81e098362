"""The long experiments of chapter 05, recorded: what a teacher shows besides its answers, to a student that sees each
picture as its teacher does.

Each method has four settings, two weight decays times two strengths of its own; every seed chooses on its own 250
labels. Decoupled KD warms up over a twelfth of a run, as its authors' 20 epochs of 240 do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from patience import AUGMENTED, DECAYS, LABELS, TEACHER, taught, the_same_view
from shared import Answered, shifted, shop, views
from torch import Tensor, nn

from kdft_lib.data import Splits
from kdft_lib.experiments import Candidate, Comparison, Given, Once, Recipe, compare, grid, per_seed, record_all
from kdft_lib.models import ResNet
from kdft_lib.objectives import DIST, DKD, RKD, AttentionTransfer, Hint, SimilarityPreserving, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher

LAYERS = ("block1", "block2", "block3")
SEEN = Answered(TEACHER, the_same_view)
Make: TypeAlias = Callable[..., Any]
Arms: TypeAlias = dict[str, tuple[Make, dict[str, tuple[float, ...]]]]
"""By name: what makes an objective, and the strengths to try."""


class LookedUp(nn.Module):
    """In the teacher's place, what it said of all views of a seed's images, its features too: it runs once for each
    view, and not at every step.
    """

    seed: Tensor

    def __init__(self, seed: int):
        super().__init__()
        self.register_buffer("seed", torch.tensor(seed))
        for layer in LAYERS:
            self.add_module(layer, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        places, logits, maps = said_of_all_views(int(self.seed))
        rows = torch.tensor([places[image.tobytes()] for image in images.flatten(1).numpy()])
        for layer, of_layer in maps.items():
            self.get_submodule(layer)(of_layer.index_select(0, rows))
        return logits.index_select(0, rows)


_said: dict[int, tuple[dict[bytes, int], Tensor, dict[str, Tensor]]] = {}


def said_of_all_views(seed: int) -> tuple[dict[bytes, int], Tensor, dict[str, Tensor]]:
    """The row of each view by its bytes, and of each row the logits and the maps: half a gigabyte, so that those of one
    seed are kept.
    """
    if seed not in _said:
        _said.clear()
        images, every = shop(seed).train.inputs, views(1).every()
        drawn = {name: torch.cat([column] * len(images)) for name, column in every.items()}
        seen = views(1).apply(images.repeat_interleave(len(every["mirrored"]), 0), drawn)
        logits: list[Tensor] = []
        maps: dict[str, Tensor] = {}
        for start in range(0, len(seen), 100):
            said = Teacher(TEACHER).outputs(seen[start : start + 100], LAYERS)
            logits.append(said.logits)
            for layer, part in said.features.items():
                kept = maps.setdefault(layer, part.new_empty(len(seen), *part.shape[1:]))
                kept[start : start + 100] = part
        places = {view.tobytes(): row for row, view in enumerate(seen.flatten(1).numpy())}
        _said[seed] = places, torch.cat(logits), maps
    return _said[seed]


@per_seed
def looked_up(seed: int) -> Teacher:
    return Teacher(LookedUp(seed), labels=Teacher(TEACHER).labels)


def attention(teacher: Teacher) -> Any:
    """Two pairs of maps of the same resolution, as in the paper."""
    return AttentionTransfer(teacher, "body.1", "block1") + AttentionTransfer(teacher, "body.3", "block2")


hint = partial(Hint, student_layer="body.3", teacher_layer="block2")
similarity = partial(SimilarityPreserving, student_layer="body.5", teacher_layer="block3")
standardized = partial(SoftTargets, temperature=2.0, ce_weight=0.1, standardize=True)
LOGITS: Arms = {
    "standardised logits": (standardized, {"kd_weight": (3.0, 9.0)}),
    "decoupled KD": (DKD, {"beta": (1.0, 8.0)}),
    "DIST": (DIST, {"temperature": (1.0, 4.0)}),
}
FEATURES: Arms = {
    "hint": (hint, {"weight": (100.0, 1000.0)}),
    "attention": (attention, {"weight": (100.0, 1000.0)}),
    "similarity": (similarity, {"weight": (300.0, 3000.0)}),
    "relations": (partial(RKD, student_layer="body.5", teacher_layer="block3"), {"weight": (1.0, 10.0)}),
}


def beside(make: Make, base: Make | None = None) -> Make:
    """Weighted features, added to labels or to another objective."""
    return lambda teacher, weight: (Supervised() if base is None else base(teacher)) + weight * make(teacher)


def by_logits(base: Recipe, name: str, **fixed: Any) -> list[Candidate]:
    """Students of the teacher's logits, which are cached for all views."""
    make, strengths = LOGITS[name]
    return grid(Given(base.taught_by(TEACHER, make), SEEN), **fixed, **strengths)


def by_features(base: Recipe, name: str, besides: Make | None = None, **fixed: Any) -> list[Candidate]:
    """Students of the teacher's features beside labels, or beside soft targets."""
    make, strengths = FEATURES[name]
    seeing = base.but(augment=views(1))
    return grid(seeing.taught_by(looked_up, beside(make, besides)), **fixed, **strengths)


def first_the_hint(base: Recipe) -> list[Candidate]:
    """The two stages of Romero et al. (2015): for a third of 1,600 steps the hint alone, which trains what leads up to
    it, and then soft targets, at one of two rates, since a high one may undo the first stage; in theirs the teacher's
    weight falls meanwhile, and here it stays.
    """
    early = base.but(steps=533, augment=views(1)).taught_by(looked_up, hint)
    late = base.but(steps=1067).taught_by(TEACHER, SoftTargets)
    starts = {decay: Once(Given(early.but(weight_decay=decay), as_drawn)) for decay in DECAYS}

    def make(weight_decay: float, lr: float) -> Given:
        return Given(late.but(start=starts[weight_decay], weight_decay=weight_decay, lr=lr), SEEN)

    return grid(make, weight_decay=DECAYS, lr=(0.1, 0.3))


@per_seed
def untrained(seed: int) -> nn.Module:
    """The teacher's layers with random weights, whose normalisation knows the pictures."""
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(100 + seed)
        net, images = ResNet(width=20), shop(seed).train.inputs
        for rows in torch.randint(len(images), (20, 128)):
            net(images[rows])
    return net


def random_hint(base: Recipe, weights: tuple[float, ...] = (100.0, 1000.0)) -> list[Candidate]:
    """Soft targets of the teacher, and a hint that knows nothing: what a hint does besides telling what was learned."""

    def objective(net: Teacher, weight: float) -> Any:
        return SoftTargets(TEACHER) + weight * hint(net)

    return grid(Given(base.taught_by(untrained, objective), SEEN), weight_decay=DECAYS, weight=weights)


def as_drawn(splits: Splits, seed: int) -> Splits:
    """The seed's own splits, without a teacher's answers."""
    return shop(seed)


def soft_targets(base: Recipe) -> list[Candidate]:
    """As in chapter 04: the same four students."""
    return taught(base, SoftTargets, TEACHER, the_same_view)


def all_methods() -> dict[str, Comparison]:
    """Each method beside the labels, and the hint beside soft targets and before them."""
    base = LABELS.but(steps=1600)
    tried = {
        AUGMENTED: grid(shifted(base), weight_decay=DECAYS, shift=(1, 2)),
        "soft targets": soft_targets(base),
        **{name: by_logits(base, name, weight_decay=DECAYS) for name in LOGITS},
        **{name: by_features(base, name, weight_decay=DECAYS) for name in FEATURES},
        "soft targets + hint": by_features(base, "hint", SoftTargets, weight_decay=DECAYS),
        "soft targets + untrained hint": random_hint(base),
        "first the hint, then soft targets": first_the_hint(base),
    }
    asked = [(name, "soft targets") for name in tried if name not in (AUGMENTED, "soft targets")]
    asked += [("soft targets", AUGMENTED), ("hint", AUGMENTED)]
    both = "soft targets + hint"
    asked += [("first the hint, then soft targets", both), (both, "soft targets + untrained hint")]
    # The second stage has two thirds of the steps, and the first the rest.
    made = compare(tried, shop, choose="each seed", contrasts=asked, equal_budgets=False)
    return {"1,600 steps": made}


def control() -> dict[str, Comparison]:
    """Beside :func:`all_methods`: a hint that knows nothing beside the labels, and hints of less weight beside soft
    targets.
    """
    base, small = LABELS.but(steps=1600), (1.0, 10.0)
    seeing = base.but(augment=views(1))
    known = grid(seeing.taught_by(looked_up, beside(hint, SoftTargets)), weight_decay=DECAYS, weight=small)
    tried = {
        "untrained hint": grid(seeing.taught_by(untrained, beside(hint)), weight_decay=DECAYS, weight=(100.0, 1000.0)),
        "soft targets + hint, small weights": known,
        "soft targets + untrained hint, small weights": random_hint(base, small),
    }
    return {"1,600 steps": compare(tried, shop, choose="each seed")}


def patient() -> dict[str, Comparison]:
    """Soft targets, a hint beside labels, and both, four times as long."""
    base = LABELS.but(steps=6400)
    tried = {
        "soft targets": soft_targets(base),
        "hint": by_features(base, "hint", weight_decay=DECAYS),
        "soft targets + hint": by_features(base, "hint", SoftTargets, weight_decay=DECAYS),
    }
    asked = [("hint", "soft targets"), ("soft targets + hint", "soft targets"), ("soft targets + hint", "hint")]
    return {"6,400 steps": compare(tried, shop, choose="each seed", contrasts=asked)}


def perceptron() -> nn.Sequential:
    """A student of another kind, without a convolution: 26,634 parameters."""
    body = [nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), nn.Sequential(*body), nn.Linear(32, 10))


def another_kind() -> dict[str, Comparison]:
    """A student without convolutions: four settings each, two learning rates times two of its own."""
    base = LABELS.but(model=perceptron, strategy=FullFineTuning(lr=0.01, weight_decay=0.1), steps=1600)
    rates = {"lr": (0.01, 0.1)}
    alike = partial(similarity, student_layer="1")
    tried = {
        AUGMENTED: grid(base.but(augment=views(1)), **rates, weight_decay=(0.1, 0.5)),
        "soft targets": grid(Given(base.taught_by(TEACHER, SoftTargets), SEEN), **rates, temperature=(2.0, 4.0)),
        "DIST": by_logits(base, "DIST", **rates),
        "similarity": grid(
            base.but(augment=views(1)).taught_by(looked_up, beside(alike)), **rates, weight=(300.0, 3000.0)
        ),
    }
    asked = [(name, AUGMENTED) for name in tried if name != AUGMENTED]
    return {"a perceptron": compare(tried, shop, choose="each seed", contrasts=asked)}


EXPERIMENTS = {
    "beyond-logits-1600": all_methods,
    "beyond-logits-control": control,
    "beyond-logits-6400": patient,
    "beyond-logits-perceptron-1600": another_kind,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
