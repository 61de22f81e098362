"""The long experiments of the page on where to start, recorded.

For each family of networks, five learning rates or more at one budget, and the rate that a range test suggests to each
seed; then one thing changed at a time. What takes seconds to train is tuned anew for each change, over all the rates;
what takes long keeps the sweep's best rate where it says so. Rates are chosen on more labels than anybody with so few
would have, so that the curves are smooth; the test is scored once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import language
import torch
from full_fine_tuning import FULL, HEAD, MINILM_HEAD, PIECES, READS, minilm_features
from sequences import FIRST, own_text
from shared import LOGISTIC, chosen_before, labeled, student
from torch import nn

from kdft_lib import experiments
from kdft_lib.data import Splits
from kdft_lib.datasets import bbc_news
from kdft_lib.experiments import Candidates, Comparison, Measure, OnFeatures, Recipe, Then, Trained, grid
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, LoRA
from kdft_lib.training import find_lr
from kdft_lib.training.schedules import cosine

SWEPT, TESTED = "swept", "range test"
SHORT, LONG, SUDDEN = "a third of the steps", "three times the steps", "no warm-up"
NO_WARM_UP = functools.partial(cosine, warmup=0.0)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
HEAD_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
LITE0_RATES = (3e-4, 1e-3, 3e-3, 0.01, 0.03)
MINILM_RATES, LORA_RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), (1e-4, 3e-4, 1e-3, 3e-3, 0.01)
WORD_RATES = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class RangeTested(experiments.Wrapped):
    """A recipe at the rate that a range test of 100 steps suggests to each seed; the ledger counts these steps."""

    method: Recipe

    def train(self, splits: Splits, seed: int) -> Trained:
        recipe: Any = self.method
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            model = recipe.model()
        choices = {"objective": recipe.objective(), "strategy": recipe.strategy}
        options = {"batch_size": recipe.settings.batch_size, "seed": seed, "progress": False}
        tested = find_lr(model, splits.train, **choices, steps=100, **options)
        trained = recipe.but(lr=tested.suggestion).train(splits, seed)
        return trained.but(steps=trained.ledger.steps + len(tested.rates))


def highest_rate(trained: Trained, splits: Splits) -> float:
    """Of a run, as its history has it; 0 for what has none."""
    return max(step["lr"] for step in trained.history.steps) if trained.history else 0.0


MEASURES: dict[str, Measure] = {"learning rate": highest_rate}


def as_it_is(run: Trained, splits: Splits, seed: int) -> Trained:
    return run


def family(
    name: str,
    method: Any,
    splits: Callable[[int], Splits],
    rates: Sequence[float],
    changes: Mapping[str, Mapping[str, Any]],
    *,
    at_its_rate: Collection[str] = (),
    more: Mapping[str, Candidates] | None = None,
) -> dict[str, Comparison]:
    """A method at each rate and at the one that the range test suggests; then one thing changed at a time, tuned over
    all rates or, if it is named, at the rate that the sweep chose.
    """
    inside = hasattr(method, "method")
    tested = method.but(method=RangeTested(method.method)) if inside else RangeTested(method)
    methods: dict[str, Candidates] = {SWEPT: grid(method, lr=rates), TESTED: tested, **(more or {})}
    contrasts = [(other, SWEPT) for other in methods if other != SWEPT]
    swept = experiments.compare(methods, splits, contrasts=contrasts, measures=MEASURES)
    best = swept.setting(SWEPT)["lr"]
    varied: dict[str, Candidates] = {
        what: grid(chosen_before(method.but(**change)), lr=best)
        if what in at_its_rate
        else grid(method.but(**change), lr=rates)
        for what, change in changes.items()
    }
    varied = {SWEPT: Then(swept.source(SWEPT), as_it_is), **varied}
    contrasts = [(what, SWEPT) for what in changes]
    changed = experiments.compare(varied, splits, contrasts=contrasts, measures=MEASURES, equal_budgets=False)
    return {name: swept, f"{name}, changed": changed}


def in_steps(steps: int, **changes: Any) -> dict[str, Mapping[str, Any]]:
    """What is changed of every method: the budget, and the beginning of the schedule."""
    budgets = {SHORT: {"steps": round(steps / 3)}, LONG: {"steps": 3 * steps}}
    return {**budgets, SUDDEN: {"schedule": NO_WARM_UP}, **changes}


# A small convolutional network from scratch

CNN = Recipe(student, Supervised, FullFineTuning(lr=0.3, weight_decay=0.1), steps=400)
SIZES = {"batches of 32": {"batch_size": 32, "steps": 1600}, "batches of 512": {"batch_size": 512, "steps": 100}}
"""A quarter of the pictures in four times the steps, and the other way round: as many pictures in all."""
AT_400 = {f"batches of {size}, 400 steps": {"batch_size": size} for size in (32, 512)}
"""A batch changes, and the steps do not; a third of the steps and three times as many have the same batch."""


def small() -> dict[str, Comparison]:
    """1,000 labels, 400 steps of 128."""
    return family("small CNN", CNN, functools.partial(labeled, 1000), RATES, in_steps(400, **SIZES, **AT_400))


def batches() -> dict[str, Comparison]:
    """The same with fewer labels and with more: rates, the range test, and sizes of a batch, which of 250 labels has
    all where it would have 512.
    """
    made: dict[str, Comparison] = {}
    for labels in (250, 6000):
        splits = functools.partial(labeled, labels)
        made |= family(f"{labels:,} labels", CNN, splits, RATES, SIZES)
    return made


# Pretrained networks


def clothes(seed: int) -> Splits:
    """500 labels; a fifth of the pictures to choose by, which are the same for every seed, and of those to test."""
    splits = labeled(500, seed)
    return splits._replace(val=splits.val[:1000], test=splits.test[:2000])


def numbered(seed: int) -> Splits:
    """50 stories with labels, and 200 further ones to choose by, the same for every seed; each is a number."""
    return language.numbered(bbc_news(50, seed=seed))


@functools.cache
def stories(seed: int) -> Splits:
    """The same, of each the first 32 word pieces."""
    return numbered(seed).with_inputs(lambda numbers: language.pieces(numbers)[:, :PIECES])


def heads() -> dict[str, Comparison]:
    """A linear head on features that are computed once, in 300 steps of 32; beside it the same, fitted to the end."""
    read = READS.but(model=functools.partial(nn.Linear, 384, language.TOPICS), steps=300, batch_size=32)
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "Lite0, head": (HEAD.but(steps=300), HEAD.but(method=LOGISTIC), clothes),
        "MiniLM, head": (OnFeatures(read, minilm_features, language.MINILM), MINILM_HEAD, stories),
    }
    made: dict[str, Comparison] = {}
    for name, (head, exact, splits) in kinds.items():
        more: dict[str, Candidates] = {"logistic regression": grid(exact, C=(0.01, 0.1, 1.0, 10.0, 100.0))}
        made |= family(name, head, splits, HEAD_RATES, in_steps(300), more=more)
    return made


def lite0() -> dict[str, Comparison]:
    """All of it, 120 steps of 32."""
    changes = in_steps(120)
    del changes[SUDDEN]  # Chapter 08 has a record of it.
    return family("Lite0, everything", FULL, clothes, LITE0_RATES, changes, at_its_rate=[LONG])


def minilm() -> dict[str, Comparison]:
    """All of it, 60 steps of 8."""
    return family("MiniLM, everything", READS, stories, MINILM_RATES, in_steps(60), at_its_rate=[LONG, SUDDEN])


def lora() -> dict[str, Comparison]:
    """A low-rank update of it, and the head, 60 steps of 8."""
    recipe = READS.but(strategy=LoRA(lr=1e-3, head="model.head"))
    changes = in_steps(60, **{"rank 32": {"r": 32, "alpha": 64.0}})
    del changes[SUDDEN]
    return family("MiniLM, LoRA", recipe, stories, LORA_RATES, changes, at_its_rate=[LONG, "rank 32"])


# Words and characters


def bag() -> dict[str, Comparison]:
    """The mean of 32 numbers for each word piece, 200 steps of all 50 stories."""
    changes = in_steps(200, **{"batches of 16": {"batch_size": 16}, "weight decay 0.1": {"weight_decay": 0.1}})
    return family("bag of words", language.BAG, numbered, WORD_RATES, changes)


def recurrent() -> dict[str, Comparison]:
    """25,121 parameters read 64,000 characters, 150 steps of 32 windows; scored by the next character."""
    larger, clipped = {"batch_size": 128, "steps": 38}, {"clip_norm": 1.0}
    changes = in_steps(150, **{"batches of 128": larger, "gradients clipped at 1": clipped})
    return family("recurrent network", FIRST, own_text, WORD_RATES, changes)


# Temperature and weight

TEMPERATURES, WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0), (0.1, 0.5, 1.0)


def softness() -> dict[str, Comparison]:
    """Temperatures at a weight of 0.9, weights at a temperature of 4, and labels alone: for the small network beside
    more labels and fewer than in chapter 04, and for a bag that hears MiniLM's head about all stories. Each has one
    rate and is read on validation, setting by setting: the best of eight has no rival that was tuned as well.
    """
    head = OnFeatures(LOGISTIC.but(C=10.0), functools.partial(language.embedded, language.SHORT), language.MINILM)
    heard = language.BAG.taught_by(head, SoftTargets).but(train_data=language.everything)
    shown = CNN.taught_by(fashion_teacher(), SoftTargets)
    kinds: dict[str, tuple[Recipe, Recipe, Any]] = {
        "small CNN, 250 labels": (CNN, shown, functools.partial(labeled, 250)),
        "small CNN, 6,000 labels": (CNN, shown, functools.partial(labeled, 6000)),
        "bag of words, 50 labels": (language.BAG, heard, numbered),
    }
    made: dict[str, Comparison] = {}
    for name, (alone, taught, splits) in kinds.items():

        def soft(kd_weight: float, temperature: float, taught: Recipe = taught) -> Recipe:
            return taught.but(kd_weight=kd_weight, ce_weight=round(1 - kd_weight, 1), temperature=temperature)

        tried = grid(soft, kd_weight=0.9, temperature=TEMPERATURES) + grid(soft, kd_weight=WEIGHTS, temperature=4.0)
        methods: dict[str, Candidates] = {"labels": alone, "soft targets": tried}
        made[name] = experiments.compare(methods, splits)
    return made


EXPERIMENTS = {
    "where-to-start-small": small,
    "where-to-start-batches": batches,
    "where-to-start-heads": heads,
    "where-to-start-lite0": lite0,
    "where-to-start-minilm": minilm,
    "where-to-start-lora": lora,
    "where-to-start-bag": bag,
    "where-to-start-recurrent": recurrent,
    "where-to-start-softness": softness,
}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
