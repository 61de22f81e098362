"""The long experiments of chapter 15, recorded: ``make results``.

``python recipes/sequences.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import functools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recording import main
from torch import Tensor, nn

from kdft_lib import losses
from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import homer
from kdft_lib.experiments import Comparison, Recipe, Trained, compare
from kdft_lib.models import CharacterGRU, NGram, sample
from kdft_lib.objectives import GKD, Objective, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import evaluate, fit, predict

SEEDS = range(5)
LABELED = 1000
TEACHER_STEPS = 800
START_STEPS, START_RATE = 150, 0.03
STEPS, BATCH = 300, 32
RATES = (0.01, 0.03, 0.1)
WRITTEN = 16
DIVERGENCES = {"forward KL": "forward_kl", "reverse KL": "reverse_kl", "Jensen–Shannon": "jensen_shannon"}
LENGTH, TEXTS, RUN = 200, 128, 8
COOLER = (0.8, 0.6)
PLACES = ((0, 25), (25, 50), (50, 100), (100, 200))
KEPT = (1, 2, 4, 8, 16)
ALONE = (1, 4, 16)


@functools.lru_cache(maxsize=len(SEEDS))
def own_text(seed: int) -> Splits:
    """64,000 characters in a row, of the 36 books that the teacher read."""
    return homer(LABELED, seed=seed)


@functools.cache
def whole_text() -> Splits:
    return homer()


@functools.cache
def teacher(seed: int) -> CharacterGRU:
    """268,161 parameters, trained on all 36 books."""
    torch.manual_seed(seed)
    model = CharacterGRU(256, 64)
    data = whole_text().train
    fit(
        model, data, objective=Supervised(), strategy=FullFineTuning(0.01), steps=TEACHER_STEPS, batch_size=16,
        seed=seed, progress=False,
    )  # fmt: skip
    model.card = {"labels": len(data)}  # type: ignore[assignment]
    return model.eval()


@functools.cache
def start(seed: int) -> CharacterGRU:
    """25,121 parameters, begun on the 1,000 windows, as GKD and MiniLLM begin from a fine-tuned student."""
    torch.manual_seed(seed)
    model = CharacterGRU(64, 32)
    fit(
        model, own_text(seed).train, objective=Supervised(), strategy=FullFineTuning(START_RATE), steps=START_STEPS,
        batch_size=BATCH, seed=seed, progress=False,
    )  # fmt: skip
    return model


@functools.lru_cache(maxsize=1)
def real(seed: int) -> TensorData:
    """The 1,000 windows with the teacher's logits."""
    return cache(teacher(seed), own_text(seed).train)


@functools.lru_cache(maxsize=1)
def written(seed: int) -> TensorData:
    """16,000 windows drawn from the teacher, from the first characters of the 1,000, with its logits."""
    generator = torch.Generator().manual_seed(seed)
    prompts = own_text(seed).train.inputs[:, :1]
    texts = torch.cat([sample(teacher(seed), prompts, 64, generator=generator) for _ in range(WRITTEN)])
    data = TensorData(texts[:, :-1].contiguous(), texts[:, 1:].contiguous())
    return cache(teacher(seed), data, dtype=torch.float16)


def prompts(seed: int) -> TensorData:
    """The 1,000 windows, of which the student keeps the first character."""
    return own_text(seed).train.without_labels()


@dataclass(frozen=True)
class Continued:
    """The student from the common start, for 300 steps more."""

    objective: Callable[[int], Objective]
    data: Callable[[int], TensorData]
    rate: float
    ledger: dict[str, Any]

    def train(self, splits: Splits, seed: int) -> Trained:
        model, data = copy.deepcopy(start(seed)), self.data(seed)
        recipe = Recipe(
            lambda: model, self.objective(seed), FullFineTuning(self.rate), STEPS, lambda _: data, batch_size=BATCH
        )  # fmt: skip
        trained = recipe.train(splits, seed)
        trained.ledger |= self.ledger | {"steps": START_STEPS + STEPS, "seed": seed}
        return trained


@dataclass(frozen=True)
class Counted:
    """An n-gram model of a text."""

    order: int
    data: Callable[[int], TensorData]
    ledger: dict[str, Any]

    def train(self, splits: Splits, seed: int) -> Trained:
        data, started = self.data(seed), time.perf_counter()
        model = NGram(self.order).count(data)
        nothing = {"labels": 0, "unlabeled": 0, "teacher_labels": 0, "pretraining": "none", "steps": 0}
        ledger = nothing | self.ledger | {"seconds": time.perf_counter() - started, "seed": seed}
        return Trained(lambda data: predict(model, data).argmax(dim=-1), ledger, model)


@dataclass(frozen=True)
class Itself:
    """The teacher."""

    def train(self, splits: Splits, seed: int) -> Trained:
        model = teacher(seed)
        ledger = {"labels": len(whole_text().train), "unlabeled": 0, "teacher_labels": 0, "pretraining": "none"}
        ledger |= {"steps": TEACHER_STEPS, "seconds": 0.0, "seed": seed}
        return Trained(lambda data: predict(model, data).argmax(dim=-1), ledger, model)


ALL = 16_405
TEXT = {"labels": LABELED, "unlabeled": 0, "teacher_labels": 0}
ASKED = TEXT | {"teacher_labels": ALL}
READ = ASKED | {"unlabeled": WRITTEN * LABELED}
WROTE = ASKED | {"unlabeled": STEPS * BATCH}


def at_rates(
    objective: Callable[[int], Objective], data: Callable[[int], TensorData], ledger: dict[str, Any]
) -> list[Continued]:
    return [Continued(objective, data, rate, ledger) for rate in RATES]


def distilled(divergence: str, on_policy: float) -> Callable[[int], Objective]:
    """From the teacher of a seed."""
    return lambda seed: GKD(teacher(seed), divergence, on_policy)  # type: ignore[arg-type]


def students() -> dict[str, list[Any]]:
    """What to do with 64,000 characters and a teacher that read sixteen times as many."""
    own = functools.partial(lambda seed: own_text(seed).train)
    arms: dict[str, list[Any]] = {
        "text": at_rates(lambda seed: Supervised(), own, TEXT),
        "n-gram on the text": [Counted(order, own, TEXT) for order in (4, 5, 6)],
        "n-gram on the teacher's text": [Counted(order, written, READ | {"labels": 0}) for order in (4, 5, 6)],
        "sequence-level KD": at_rates(lambda seed: Supervised(), written, READ),
    }
    for name, divergence in DIVERGENCES.items():
        arms[f"{name}, real text"] = at_rates(distilled(divergence, 0.0), real, ASKED)
        arms[f"{name}, teacher's text"] = at_rates(distilled(divergence, 0.0), written, READ)
        arms[f"{name}, own text"] = at_rates(distilled(divergence, 1.0), prompts, WROTE)
    return arms


# What is measured ----------------------------------------------------------------------------------


@functools.cache
def contexts(where: str, seed: int) -> Tensor:
    """128 texts of 201 characters, real ones or the teacher's."""
    rows = homer(window=LENGTH + 1).test.inputs
    rows = rows[torch.linspace(0, len(rows) - 1, TEXTS).long()]
    if where == "real text":
        return rows
    return sample(teacher(seed), rows[:, :1], LENGTH, generator=torch.Generator().manual_seed(100 + seed))


@functools.cache
def teachers_logits(where: str, seed: int) -> Tensor:
    return Teacher(teacher(seed))(contexts(where, seed)[:, :-1])


def bits(logits: Tensor, texts: Tensor) -> float:
    """Of the text, for each character."""
    return -logits.log_softmax(-1).gather(-1, texts[:, 1:, None]).mean().item() / math.log(2)


def distinct(texts: Tensor) -> float:
    """Of all runs of eight characters, the share that differ."""
    runs = texts.unfold(1, RUN, 1).reshape(-1, RUN)
    return len(runs.unique(dim=0)) / len(runs)


class Cooler(nn.Module):
    """A language model whose distributions are sharpened before it writes."""

    def __init__(self, model: Any, temperature: float):
        super().__init__()
        self.model, self.temperature = model, temperature

    def advance(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits, state = self.model.advance(tokens, state)
        return logits / self.temperature, state

    def forward(self, tokens: Tensor) -> Tensor:
        return self.advance(tokens)[0]


@functools.lru_cache(maxsize=1)
def measured(trained: Any) -> dict[str, float]:
    """Everything at once, since the texts have to be drawn."""
    seed, model = trained.seed, trained.model
    prompts = contexts("real text", seed)[:, :1]
    own = sample(model, prompts, LENGTH, generator=torch.Generator().manual_seed(seed))
    found = {"bits per character": evaluate(model, own_text(seed).test)["loss"] / math.log(2)}
    for where in ("real text", "teacher's text", "own text"):
        texts = own if where == "own text" else contexts(where, seed)
        theirs = Teacher(teacher(seed))(own[:, :-1]) if where == "own text" else teachers_logits(where, seed)
        ours = Teacher(model)(texts[:, :-1])
        forward = losses.soft_target_loss(ours, theirs, 1.0, reduction="none") / math.log(2)
        reverse = losses.reverse_kl_loss(ours, theirs, reduction="none") / math.log(2)
        found |= {f"forward KL, {where}": forward.mean().item(), f"reverse KL, {where}": reverse.mean().item()}
        for first, last in PLACES:
            found[f"forward KL, {where}, {first} to {last}"] = forward[:, first:last].mean().item()
        if where == "own text":
            found |= {"teacher's bits": bits(theirs, own), "its own bits": bits(ours, own)}
            found["distinct runs"] = distinct(own)
    for temperature in COOLER:
        cooler = Cooler(model, temperature)
        own = sample(cooler, prompts, LENGTH, generator=torch.Generator().manual_seed(seed))
        found[f"teacher's bits at {temperature}"] = bits(Teacher(teacher(seed))(own[:, :-1]), own)
        found[f"its own bits at {temperature}"] = bits(Teacher(cooler)(own[:, :-1]), own)
    return found


class Known:
    """A trained model that can be looked up."""

    def __init__(self, trained: Trained):
        self.model, self.seed = trained.model, trained.ledger["seed"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self.model is other.model and self.seed == other.seed

    def __hash__(self) -> int:
        return hash((id(self.model), self.seed))


def measure(name: str, trained: Trained, splits: Splits) -> float:
    return measured(Known(trained))[name]


CONTEXTS = ("real text", "teacher's text", "own text")
MEASURES = {
    name: functools.partial(measure, name)
    for name in (
        "bits per character",
        "teacher's bits",
        "its own bits",
        "distinct runs",
        *(f"{whose} bits at {temperature}" for temperature in COOLER for whose in ("teacher's", "its own")),
        *(f"{kind} KL, {where}" for where in CONTEXTS for kind in ("forward", "reverse")),
        *(f"forward KL, {where}, {first} to {last}" for where in CONTEXTS for first, last in PLACES),
    )
}


def little_text() -> dict[str, Comparison]:
    """A student with 64,000 characters: three divergences on three kinds of text, and what it would do alone."""
    arms = students()
    return {"1,000 windows": compare(arms, own_text, seeds=SEEDS, reference="text", measures=MEASURES, progress=True)}


def much_text() -> dict[str, Comparison]:
    """With all 36 books: the same student on the text, n-grams, and the teacher."""
    everything = TEXT | {"labels": ALL}
    arms: dict[str, list[Any]] = {
        "text": at_rates(lambda seed: Supervised(), lambda seed: whole_text().train, everything),
        "n-gram on the text": [Counted(order, lambda seed: whole_text().train, everything) for order in (5, 6, 7)],
        "teacher": [Itself()],
    }
    return {"36 books": compare(arms, own_text, seeds=SEEDS, measures=MEASURES, progress=True)}


# What is kept of the teacher's logits ---------------------------------------------------------------


def highest(k: int, seed: int) -> TensorData:
    """The k highest logits, and one number for the others."""
    return cache(teacher(seed), own_text(seed).train, top_k=k)


def alone(k: int, seed: int) -> TensorData:
    """The k highest logits, as if the others were impossible."""
    data = real(seed)
    logits = data.teacher_logits
    assert isinstance(logits, Tensor)
    assert data.teacher is not None
    lowest = logits.topk(k).values[..., -1:]
    return data.with_teacher_logits(logits.masked_fill(logits < lowest, -torch.inf), data.teacher)


@functools.cache
def on_disk(top_k: int | None) -> float:
    """Bytes of a file for each character of the text, in float16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "logits.safetensors")
        data = own_text(0).train
        cache(teacher(0), data, dtype=torch.float16, top_k=top_k, path=path)
        return path.stat().st_size / data.inputs.numel()


def top_k() -> dict[str, Comparison]:
    """Forward KL on the real text, at one rate, with fewer and fewer of the teacher's 65 logits."""
    loss = distilled("forward_kl", 0.0)
    arms = {"all 65": Continued(loss, real, RATES[1], ASKED)}
    for k in KEPT:
        arms[f"top {k}"] = Continued(loss, functools.partial(highest, k), RATES[1], ASKED)
    for k in ALONE:
        arms[f"top {k} alone"] = Continued(loss, functools.partial(alone, k), RATES[1], ASKED)
    found = compare(arms, own_text, seeds=SEEDS, reference="all 65", measures=MEASURES, progress=True)
    sizes = {name: on_disk(None if name == "all 65" else int(name.split()[1])) for name in arms}
    found.measured["bytes on disk"] = {name: [size] * len(SEEDS) for name, size in sizes.items()}
    return {"kept": found}


if __name__ == "__main__":
    main({"sequences": little_text, "sequences-much": much_text, "sequences-kept": top_k})
