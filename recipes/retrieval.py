"""What one ships of an encoder is the embedding: titles look for their stories; recorded for chapter 14."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from language import LONG, MINILM, encoder, split_words, within
from retrieval_parts import (
    PIECES,
    Bag,
    Contrast,
    Cosine,
    CosineAtRandom,
    Cosines,
    Embeds,
    Layers,
    Margins,
    MiniLM,
    Static,
    Straight,
    TitlesAndStories,
    Words,
    archive,
    cosines,
    outside,
    parted,
)  # fmt: skip
from shared import without_labels
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidate, Comparison, Recipe, Trained, grid
from kdft_lib.metrics import ndcg, parameters, places, recall
from kdft_lib.objectives import RKD, Objective
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher
from kdft_lib.training import Ledger, predict

TURNS = 50
LAYERS, STATIC, BAG = "two of its layers", "its pieces, averaged", "a bag"
ALONE, AT_RANDOM = "no teacher", "cosine, a random layer between"
BY_TITLE = "recall@1, title by title"
"""Not seed by seed: the share of the seeds in which a title of the test finds its story first."""


@dataclass(frozen=True)
class Untrained:
    """A student as it is made."""

    model: Callable[[], nn.Module]
    pretraining: str = "none"

    def train(self, splits: Splits, seed: int) -> Trained:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return Trained(self.model(), Ledger(pretraining=self.pretraining))


@functools.lru_cache(maxsize=2)
def vectors(model: Embeds, data: TensorData) -> tuple[Tensor, Tensor]:
    """Of the data's titles, and of the archive's stories."""
    return predict(OnePart(model, 0), data), predict(OnePart(model, 1), archive(data))


class OnePart(nn.Module):
    """Titles alone, 0, or stories, 1."""

    def __init__(self, model: Embeds, which: int):
        super().__init__()
        self.model, self.which = model, which

    def forward(self, numbers: Tensor) -> Tensor:
        return self.model.part(numbers, self.which)


def likeness(model: Any, data: TensorData) -> Tensor:
    """Of each title of the data with each story of the archive, its own at its own place."""
    if isinstance(model, Embeds):
        return cosines(*vectors(model, data))
    return model.scores(data)


@functools.cache
def scores(model: Any, data: TensorData) -> dict[str, Any]:
    """How good a search is, and which titles have their own story first."""
    found, own = likeness(model, data), torch.arange(len(data))
    numbers = {"nDCG@10": ndcg(found, own), "recall@1": recall(found, own, 1), "recall@10": recall(found, own)}
    return numbers | {"first": places(found, own) == 1}


def ndcg_at_10(trained: Trained, data: TensorData) -> float:
    return scores(trained.model, data)["nDCG@10"]


def tested(name: str, trained: Trained, splits: Splits) -> float:
    return scores(trained.model, splits.test)[name]


def projected(trained: Trained, splits: Splits) -> float:
    """Recall@1 of what the layer that was trained along makes of the vectors, where there is one."""
    layer = getattr(trained.objective, "regressor", None)
    if layer is None:
        return tested("recall@1", trained, splits)
    with torch.no_grad():
        found = cosines(*map(layer, vectors(trained.model, splits.test)))
    return recall(found, torch.arange(len(found)), 1)


def in_its_index(trained: Trained, splits: Splits) -> float:
    """Recall@1 of titles that the student read among stories that MiniLM did, where a layer leads to its vectors."""
    layer = getattr(trained.objective, "regressor", None)
    if layer is None:
        return 0.0
    with torch.no_grad():
        titles = layer(vectors(trained.model, splits.test)[0])
    found = cosines(titles, vectors(TEACHER.model, splits.test)[1])
    return recall(found, torch.arange(len(found)), 1)


def milliseconds(trained: Trained, splits: Splits) -> float:
    """From a title to the ten best of the archive, whose index is made; the median of some turns."""
    stored, title = archive(splits.test), parted(int(splits.test.inputs[0]))[0]
    ask: Callable[[], Any]
    if isinstance(trained.model, Embeds):
        embed, index = trained.model.eval().embed, torch.randn(len(stored), size_of(trained.model))

        def ask() -> Any:
            return (embed(encoder(PIECES).tokens([title])["input_ids"]) @ index.T).topk(10)
    else:
        counter, weights = trained.model.index(trained.model.read(stored))

        def ask() -> Any:
            return np.argpartition((counter.transform([split_words(title)]) @ weights.T).toarray(), -10)

    times = []
    with torch.no_grad():
        for _ in range(5 + TURNS):
            started = time.perf_counter()
            ask()
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[5:])


def size_of(model: Embeds) -> int:
    """How many numbers a text becomes."""
    return model(outside()[:1]).shape[-1]


def megabytes(trained: Trained, splits: Splits) -> float:
    """Of what reads a title, in float32, without the words or pieces themselves."""
    if isinstance(trained.model, MiniLM):
        return 4 * parameters(encoder(PIECES)) / 1e6
    return 4 * parameters(trained.model) / 1e6 if isinstance(trained.model, nn.Module) else 0.0


def index_megabytes(trained: Trained, splits: Splits) -> float:
    """Of what is stored of the archive: vectors in float32, or weights and places of the words that stand there."""
    stored = archive(splits.test)
    if isinstance(trained.model, Embeds):
        return 4 * len(stored) * size_of(trained.model) / 1e6
    _, weights = trained.model.index(trained.model.read(stored))
    return (4 * weights.nnz + weights.indices.nbytes + weights.indptr.nbytes) / 1e6


MEASURES: dict[str, experiments.Measure] = {
    "recall@1": functools.partial(tested, "recall@1"),
    "recall@10": functools.partial(tested, "recall@10"),
    "recall@1, projected": projected,
    "recall@1, in MiniLM's index": in_its_index,
    "ms a title": milliseconds,
    "MB": megabytes,
    "MB of the index": index_megabytes,
}
TEACHER = Teacher(MiniLM(), labels=0, pretraining=MINILM)
TAUGHT: dict[str, Callable[..., Objective]] = {
    "MSE": Straight, "cosine": Cosine, "RKD": RKD, "in-batch contrast": Contrast, "margins": Margins,
}  # fmt: skip
"""What compares a student's vectors with the teacher's."""
PAIRS = Recipe(Bag, TitlesAndStories, FullFineTuning(lr=1e-2), steps=600, batch_size=32, train_data=without_labels)
STUDENTS = {
    LAYERS: grid(PAIRS.but(model=Layers, steps=40, pretraining=MINILM), lr=(1e-4, 3e-4)),
    STATIC: grid(PAIRS.but(model=Static, pretraining=MINILM), lr=(3e-3, 1e-2)),
    BAG: grid(PAIRS, lr=(1e-2, 3e-2)),
}
"""Without a teacher."""


def by(objective: Callable[..., Objective], alone: list[Candidate]) -> list[Candidate]:
    """The same recipes, taught."""
    layers = {"student_layer": "vectors", "teacher_layer": "vectors"}
    recipes: list[Any] = [each.method for each in alone]
    return [
        Candidate(recipe.taught_by(TEACHER, objective, **layers), each.setting)
        for recipe, each in zip(recipes, alone, strict=True)
    ]


def retrieval() -> dict[str, Comparison]:
    """600 titles look for their stories among all 2,044. Nothing was learned from these 600 stories; settings are
    chosen by the titles of a fifth of the others, among these 1,444.
    """
    bm25s = {"k1": (0.9, 1.2, 2.0), "b": (0.4, 0.75)}
    methods: dict[str, experiments.Candidates] = {
        "MiniLM": Untrained(MiniLM, MINILM),
        "MiniLM, 256 pieces": Untrained(functools.partial(MiniLM, LONG), MINILM),
        "BM25": grid(Words(), **bm25s),
        "BM25, whole stories": grid(Words(whole=True), **bm25s),
        "TF-IDF": Cosines(),
        "TF-IDF, whole stories": Cosines(whole=True),
    }
    for student, alone in STUDENTS.items():
        recipe: Any = alone[0].method
        methods[f"{student}, untrained"] = Untrained(recipe.model, recipe.pretraining)
        methods[f"{student}, {ALONE}"] = alone
        methods |= {f"{student}, {name}": by(objective, alone) for name, objective in TAUGHT.items()}
    methods[f"{LAYERS}, {AT_RANDOM}"] = by(CosineAtRandom, STUDENTS[LAYERS])
    contrasts = []  # None of two that are the same for all seeds: over the titles alone they differ.
    for student in STUDENTS:
        pairs = [("in-batch contrast", ALONE), ("cosine", "MSE"), ("in-batch contrast", "cosine")]
        contrasts += [(f"{student}, {one}", f"{student}, {other}") for one, other in pairs]
    contrasts += [(f"{LAYERS}, cosine", f"{LAYERS}, {AT_RANDOM}")]
    contrasts += [(f"{student}, cosine", "BM25") for student in STUDENTS]
    made = experiments.compare(
        methods, functools.partial(within, None), contrasts=contrasts, score=ndcg_at_10, measures=MEASURES,
        equal_budgets=False,
    )  # fmt: skip
    splits = [within(None, seed).test for seed in made.seeds]
    for method, runs in made.trained.items():
        first = [scores(run.model, test)["first"] for run, test in zip(runs, splits, strict=True)]
        made.measured.setdefault(BY_TITLE, {})[method] = torch.stack(first).double().mean(0).tolist()
    return {"titles": made}


EXPERIMENTS = {"retrieval": retrieval}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
