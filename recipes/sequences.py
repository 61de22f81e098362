"""The long experiments of chapter 16, recorded."""

from __future__ import annotations

import functools
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shared import without_labels
from torch import Tensor, nn

from kdft_lib import experiments, losses
from kdft_lib.answers import Rest
from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import homer
from kdft_lib.experiments import Candidate, Candidates, Comparison, Given, Once, Recipe, Then, Trained, grid
from kdft_lib.models import CharacterGRU, NGram, sample
from kdft_lib.objectives import GKD, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import Ledger, evaluate

DIVERGENCES = {"forward KL": "forward_kl", "reverse KL": "reverse_kl", "Jensen–Shannon": "jensen_shannon"}
RATES = (0.01, 0.03, 0.1)
WRITTEN = 16
LENGTH, TEXTS, RUN = 200, 128, 8
COOLER = (0.8, 0.6)
PLACES = ((0, 25), (25, 50), (50, 100), (100, 200))
WHERE = ("real text", "teacher's text", "own text")


@functools.cache
def own_text(seed: int) -> Splits:
    """64,000 characters in a row, of the 36 books that the teacher read."""
    return homer(1000, seed=seed)


books = functools.cache(homer)


def on_books(splits: Splits, seed: int) -> Splits:
    """All 36 of them."""
    return splits._replace(train=books().train)


def teacher(seed: int) -> Any:
    return TEACHER.train(own_text(seed), seed).model


STUDENT, READER = functools.partial(CharacterGRU, 64, 32), functools.partial(CharacterGRU, 256, 64)
"""25,121 and 268,161 parameters."""
FIRST = Recipe(STUDENT, Supervised, FullFineTuning(lr=0.03), steps=150, batch_size=32)
BEGUN = Once(Given(FIRST, lambda splits, seed: own_text(seed)))
"""The student, begun on the 1,000 windows, as GKD and MiniLLM begin from a fine-tuned student."""
TEXT = FIRST.but(start=BEGUN, steps=300)
TEACHER = Once(Given(Recipe(READER, Supervised, FullFineTuning(lr=0.01), steps=800, batch_size=16), on_books))
KD = TEXT.taught_by(TEACHER, GKD, on_policy=0.0)


@functools.lru_cache(maxsize=1)
def written(text: TensorData, seed: int) -> TensorData:
    """16 windows for each of a text, drawn from the teacher from the first character, with its logits."""
    generator = torch.Generator().manual_seed(seed)
    prompts = text.inputs[:, :1]
    texts = torch.cat([sample(teacher(seed), prompts, 64, generator=generator) for _ in range(WRITTEN)])
    data = TensorData(texts[:, :-1].contiguous(), texts[:, 1:].contiguous())
    return cache(teacher(seed), data, dtype=torch.float16)


@dataclass(frozen=True)
class Counted:
    """An n-gram model of a text."""

    order: int

    def train(self, splits: Splits, seed: int) -> Trained:
        started = time.perf_counter()
        model = NGram(self.order).count(splits.train)
        return Trained(model, Ledger(labels=len(splits.train), seconds=time.perf_counter() - started))


@dataclass(frozen=True)
class OnTeachersText(experiments.Wrapped):
    """A method that reads what the teacher wrote, which is no label."""

    method: Any

    def train(self, splits: Splits, seed: int) -> Trained:
        text = written(splits.train, seed)
        before = BEGUN.train(splits, seed).ledger.labels if getattr(self.method, "start", None) else 0
        behind = TEACHER.train(splits, seed).ledger.labels
        trained = self.method.train(splits._replace(train=text), seed)
        return trained.but(labels=before, unlabeled=len(text), teacher_labels=behind)


def texts_read(trained: Trained, splits: Splits, seed: int) -> Trained:
    """The ledger counts what a student wrote, and read, from the first characters of the text."""
    assert trained.history is not None
    return trained.but(unlabeled=trained.history.ledger.steps * TEXT.settings.batch_size)


def students() -> dict[str, list[Candidate]]:
    """What to do with 64,000 characters and a teacher that read sixteen times as many."""
    arms = {
        "text": grid(TEXT, lr=RATES),
        "n-gram on the text": grid(Counted, order=(4, 5, 6)),
        "n-gram on the teacher's text": grid(lambda order: OnTeachersText(Counted(order)), order=(4, 5, 6)),
        "sequence-level KD": grid(OnTeachersText(TEXT), lr=RATES),
    }
    for name, divergence in DIVERGENCES.items():
        taught = KD.but(divergence=divergence)
        arms[f"{name}, real text"] = grid(taught, lr=RATES)
        arms[f"{name}, teacher's text"] = grid(OnTeachersText(taught), lr=RATES)
        asking = taught.but(on_policy=1.0, train_data=without_labels)
        arms[f"{name}, own text"] = grid(Then(asking, texts_read), lr=RATES)
    return arms


@functools.cache
def contexts(where: str, seed: int) -> Tensor:
    """128 texts of 201 characters, real ones or the teacher's."""
    rows = homer(window=LENGTH + 1).test.inputs
    rows = rows[torch.linspace(0, len(rows) - 1, min(TEXTS, len(rows))).long()]
    if where == "real text":
        return rows
    return sample(teacher(seed), rows[:, :1], LENGTH, generator=torch.Generator().manual_seed(100 + seed))


@functools.cache
def teachers_logits(where: str, seed: int) -> Tensor:
    return Teacher(teacher(seed))(contexts(where, seed)[:, :-1])


def bits(logits: Tensor, texts: Tensor) -> float:
    """Of the text, for each character."""
    return -logits.log_softmax(-1).gather(-1, texts[:, 1:, None]).mean().item() / math.log(2)


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
def measured(model: nn.Module, seed: int, test: TensorData) -> dict[str, float]:
    """Everything at once, since the texts have to be drawn."""
    prompts, asked = contexts("real text", seed)[:, :1], Teacher(teacher(seed))
    found = {"bits per character": evaluate(model, test)["loss"] / math.log(2)}
    for temperature, at in ((1.0, ""), *((cooler, f" at {cooler}") for cooler in COOLER)):
        writer = Cooler(model, temperature)
        texts = sample(writer, prompts, LENGTH, generator=torch.Generator().manual_seed(seed))
        theirs, ours = asked(texts[:, :-1]), Teacher(writer)(texts[:, :-1])
        found |= {f"teacher's bits{at}": bits(theirs, texts), f"its own bits{at}": bits(ours, texts)}
        if temperature == 1:
            found |= divergences("own text", ours, theirs)
            runs = texts.unfold(1, RUN, 1).reshape(-1, RUN)
            found["distinct runs"] = len(runs.unique(dim=0)) / len(runs)
    for where in ("real text", "teacher's text"):
        found |= divergences(where, Teacher(model)(contexts(where, seed)[:, :-1]), teachers_logits(where, seed))
    return found


def divergences(where: str, ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """From the teacher to the student and back, and the first in four spans, in bits."""
    forward = losses.soft_target_loss(ours, theirs, 1.0, reduction="none") / math.log(2)
    reverse = losses.reverse_kl_loss(ours, theirs, reduction="none") / math.log(2)
    spans = {f"forward KL, {where}, {a} to {b}": forward[:, a:b].mean().item() for a, b in PLACES}
    return {f"forward KL, {where}": forward.mean().item(), f"reverse KL, {where}": reverse.mean().item()} | spans


def measure(name: str, trained: Trained, splits: Splits) -> float:
    assert trained.seed is not None
    return measured(trained.model, trained.seed, splits.test)[name]


MEASURES = {
    name: functools.partial(measure, name)
    for name in (
        "bits per character", "teacher's bits", "its own bits", "distinct runs",
        *(f"{whose} bits at {temperature}" for temperature in COOLER for whose in ("teacher's", "its own")),
        *(f"{kind} KL, {where}" for where in WHERE for kind in ("forward", "reverse")),
        *(f"forward KL, {where}, {first} to {last}" for where in WHERE for first, last in PLACES),
    )
}  # fmt: skip


def little_text() -> dict[str, Comparison]:
    """A student with 64,000 characters: three divergences on three kinds of text, and what it would do alone."""
    return {"1,000 windows": experiments.compare(students(), own_text, reference="text", measures=MEASURES)}


def much_text() -> dict[str, Comparison]:
    """With all 36 books: the same student on the text, n-grams, and the teacher."""
    arms: dict[str, Candidates] = {
        "text": grid(Given(TEXT, on_books), lr=RATES),
        "n-gram on the text": grid(lambda order: Given(Counted(order), on_books), order=(5, 6, 7)),
        "teacher": TEACHER,
    }
    return {"36 books": experiments.compare(arms, own_text, measures=MEASURES, equal_budgets=False)}


def few(k: int, rest: Rest, splits: Splits, seed: int) -> Splits:
    """k of the logits, and what is said of the others."""
    return splits._replace(train=cache(teacher(seed), splits.train, top_k=k, rest=rest))


def alone(k: int, splits: Splits, seed: int) -> Splits:
    """The k highest logits, as if the others were impossible."""
    data = cache(teacher(seed), splits.train)
    logits: Any = data.teacher_logits
    assert data.teacher is not None
    kept = logits.masked_fill(logits < logits.topk(k).values[..., -1:], -torch.inf)
    return splits._replace(train=data.with_teacher_logits(kept, data.teacher))


@functools.cache
def on_disk(k: int | None, rest: Rest) -> float:
    """Bytes of files for each character of the text, in float16."""
    with tempfile.TemporaryDirectory() as folder:
        data = own_text(0).train
        cache(teacher(0), data, dtype=torch.float16, top_k=k, rest=rest, to=folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / data.inputs.numel()


def top_k() -> dict[str, Comparison]:
    """Forward KL on the real text, at one rate, with fewer and fewer of the teacher's 65 logits."""
    arms: dict[str, tuple[int | None, Rest, Any]] = {"all 65": (None, "even", KD)}
    kept: dict[str, tuple[Rest, tuple[int, ...]]] = {
        "top {}": ("even", (1, 2, 4, 8, 16)),
        "top {}, bucket": ("bucket", (1, 4, 16)),
        "{} drawn": ("sampled", (1, 4, 16)),
    }
    for name, (rest, counts) in kept.items():
        arms |= {name.format(k): (k, rest, Given(KD, functools.partial(few, k, rest))) for k in counts}
    arms |= {f"top {k} alone": (k, "even", Given(KD, functools.partial(alone, k))) for k in (1, 4, 16)}
    methods = {name: grid(method, lr=0.03) for name, (_, _, method) in arms.items()}
    measures = {name: MEASURES[name] for name in ("bits per character", "its own bits")}
    found = experiments.compare(methods, own_text, reference="all 65", measures=measures)
    found.measured["bytes on disk"] = {
        name: [on_disk(k, rest)] * len(found.seeds) for name, (k, rest, _) in arms.items()
    }
    return {"kept": found}


EXPERIMENTS = {"sequences": little_text, "sequences-much": much_text, "sequences-kept": top_k}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
