"""What the recipe of a language model of one's own size is made of: its texts, its teacher and what that says, what
stands beside the students, and what is measured.
"""

from __future__ import annotations

import copy
import functools
import gzip
import lzma
import shutil
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from own_size_files import FOLDER, alone, kept
from torch import Tensor, nn

from kdft_lib import metrics, models
from kdft_lib.answers import Rest
from kdft_lib.data import Splits, TensorData, TextData, packed, padded
from kdft_lib.datasets import novels, own_prose
from kdft_lib.experiments import Trained
from kdft_lib.objectives import Objective, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import Ledger, fit

SMOLLM2 = "SmolLM2-135M-Instruct, 2 trillion tokens"
WORDS, LENGTH = 8_192, 256
"""Tokens that are kept, and those of a row."""
ROWS = {"train": 4_096, "val": 64, "test": 96, "prose": 64}
"""1,048,576 tokens to learn from; 16,384 to choose by, 24,576 and 16,384 to be tested on, from all over the texts."""
TUNED, TUNED_RATE = 100, 1e-4
"""Steps in which the teacher gets used to its fewer tokens, on eight rows each: 204,800 tokens, once."""


class Teacher(NamedTuple):
    """A language model and its tokenizer."""

    model: Any
    tokenizer: Any


@functools.cache
def cut() -> Teacher:
    """SmolLM2 with the 8,192 of its 49,152 tokens that the novels need most, and nothing else changed."""
    model, tokenizer = models.language_model()
    smaller, kept = models.cut_tokenizer(tokenizer, novels().train.texts, WORDS)
    return Teacher(models.cut_table(model, kept).eval(), smaller)


@functools.cache
def teacher() -> Any:
    """The same, tuned: words that were one token are several now, which it has never read so."""
    model, begun = copy.deepcopy(cut().model), None if FOLDER is None else FOLDER / "teacher-begun"
    chosen = rows("train")[torch.linspace(0, len(rows("train")) - 1, min(8 * TUNED, len(rows("train")))).long()]

    def tuned() -> dict[str, Tensor]:
        fit(
            model, chosen, objective=Supervised(), strategy=FullFineTuning(lr=TUNED_RATE), steps=TUNED, batch_size=8,
            clip_norm=1.0, checkpoint_dir=begun, checkpoint_every=25,
        )  # fmt: skip
        return {name: weight.detach() for name, weight in model.named_parameters()}  # The last layer is the table.

    weights = kept("teacher", tuned, texts=chosen.fingerprint(), steps=TUNED, rate=TUNED_RATE)
    model.load_state_dict(weights, strict=False)
    if begun is not None:
        shutil.rmtree(begun, ignore_errors=True)
    return model.eval()


def everything(part: str) -> TensorData:
    """A part of the novels, or this book's prose, in rows of the students' tokens."""
    texts: TextData = own_prose() if part == "prose" else getattr(novels(), part)
    return packed(texts, cut().tokenizer, length=LENGTH)


def spread(count: int, most: int) -> Tensor:
    """So many of a count of rows, from all over them, or all if there are no more."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()


@functools.cache
def rows(part: str) -> TensorData:
    """Some of these rows; ``half`` is every second of those to learn from."""
    if part == "half":
        return rows("train")[::2]
    whole = everything(part)
    return whole[spread(len(whole), ROWS[part])]


@functools.cache
def text(seed: int = 0) -> Splits:
    """The same for each seed, which sets first weights and order."""
    return Splits(rows("train"), rows("train")[:0], rows("val"), rows("test"))


# What the teacher says --------------------------------------------------------------------------------


class Body(nn.Module):
    """What goes into the teacher's last layer: 576 numbers, from which all that it says is made."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return models.before_head(self.model, inputs)[0]


class Head(nn.Module):
    """Its last layer."""

    def __init__(self, model: Any):
        super().__init__()
        self.last = model.get_output_embeddings()

    def forward(self, states: Tensor) -> Tensor:
        return self.last(states.float())


def asked(model: nn.Module, data: TensorData, name: str, **how: Any) -> TensorData:
    """What a model says, kept in a folder of that name, which says of whom it is and about what."""
    with alone(name):
        to = None if FOLDER is None else FOLDER / name
        return cache(model, data, to=to, dtype=torch.float16, batch_size=8, **how)


@functools.cache
def heard(part: str) -> TensorData:
    """Some rows with what goes into the teacher's last layer, in 16 bits: it reads them once, and never again."""
    return asked(Body(teacher()), rows(part), f"states-{part}")


def states(part: str = "train") -> Any:
    """That of the text."""
    return heard(part).teacher_logits


@functools.cache
def said(k: int, rest: Rest, part: str = "train") -> TensorData:
    """The text with what the teacher says of each place: some of its tokens, and of the rest how much it is."""
    kept = asked(Head(teacher()), TensorData(states(part)), f"{part}-{rest}-{k}", top_k=k, rest=rest)
    assert kept.teacher is not None
    assert kept.teacher_logits is not None
    return rows(part).with_teacher_logits(kept.teacher_logits, kept.teacher)


def bytes_a_token(data: TensorData) -> float:
    """What the answers of a text take, and its states if it has them."""
    answers: Any = data.teacher_logits
    kept = [*answers.values(), *(column for name, column in data.rows(slice(0, 1)).items() if name == "states")]
    return sum(column.nbytes / len(column) for column in kept) / LENGTH


class HiddenStates(Objective):
    """A linear layer makes the teacher's last states of the student's: a hint whose teacher's side is in the data.

    The states come in a column ``states``; each is compared at mean 0 and variance 1.
    """

    name = "states"
    regressor: nn.Module | None

    def __init__(self, layer: str = "model.norm"):
        super().__init__({"feature": 1.0}, student_layers=[layer])
        self.register_module("regressor", None)

    def prepare(self, model: nn.Module, first_batch: Any) -> None:
        width = model.get_input_embeddings().embedding_dim  # type: ignore[operator]
        with torch.random.fork_rng([]):
            self.regressor = nn.Linear(width, first_batch["states"].shape[-1])

    def parts(self, student: Any, teacher: Any, batch: Any) -> dict[str, Tensor]:
        assert self.regressor is not None
        theirs = batch["states"].float()
        ours = self.regressor(student.features[self.student_layers[0]])
        return {"feature": self.mean((ours - F.layer_norm(theirs, theirs.shape[-1:])).square().mean(-1), batch)}


def with_states(data: TensorData) -> TensorData:
    """A text with what goes into the teacher's last layer beside its answers."""
    assert data.teacher is not None
    return TensorData(
        data.inputs, data.targets, teacher_logits=data.teacher_logits, mask=data.mask, columns={"states": states()},
        teacher=data.teacher,
    )  # fmt: skip


# What stands beside them ------------------------------------------------------------------------------


def spelled(data: TensorData, *, first: bool = False) -> list[str]:
    """The text of each row, without its first token, which nobody predicts, or with it."""
    tokenizer, tokens = cut().tokenizer, data.targets
    assert tokens is not None
    if first:
        tokens = torch.cat([data.inputs["input_ids"][:, :1], tokens], 1)
    return [
        tokenizer.decode([token for token in row if token >= 0], skip_special_tokens=True) for row in tokens.tolist()
    ]


@dataclass(frozen=True)
class Compressed:
    """A program that makes files smaller. Its bits are those that a text adds to what it has read before."""

    program: str
    before: bytes = b""

    def train(self, splits: Splits, seed: int) -> Trained:
        read = "".join(spelled(splits.train)).encode()
        return Trained(Compressed(self.program, read), Ledger(labels=len(splits.train)))

    def size(self, content: bytes) -> int:
        return len(gzip.compress(content, 9) if self.program == "gzip" else lzma.compress(content, preset=9))

    def bits(self, data: TensorData) -> float:
        content = "".join(spelled(data)).encode()
        return 8 * (self.size(self.before + content) - self.size(self.before)) / len(content)

    def read(self, data: TensorData) -> None:
        self.size("".join(spelled(data)).encode())

    @property
    def megabytes(self) -> float:
        return len(self.before) / 1e6


@functools.cache
def whole() -> Any:
    return models.language_model()


@dataclass(frozen=True)
class SmolLM2:
    """The teacher: as it came, with the students' tokens, or tuned to them. In its own tokens it reads row by row."""

    kind: Literal["as it came", "students' tokens", "tuned"]

    def train(self, splits: Splits, seed: int) -> Trained:
        tuned = {"labels": 8 * TUNED, "steps": TUNED} if self.kind == "tuned" else {}
        return Trained(self, Ledger(pretraining=SMOLLM2, **tuned))

    @property
    def model(self) -> Any:
        if self.kind == "tuned":
            return teacher()
        return cut().model if self.kind == "students' tokens" else whole()[0]

    def seen(self, data: TensorData) -> TensorData:
        """The rows; in its own tokens each with the token before it, as the others read it, and uncut."""
        if self.kind != "as it came":
            return data
        return padded(spelled(data, first=True), whole()[1], length=2 * LENGTH, start=None, end=None)

    def bits(self, data: TensorData) -> float:
        return metrics.bits_per_byte(self.model, self.seen(data))

    def read(self, data: TensorData) -> None:
        with torch.no_grad():
            models.logits(self.model, self.seen(data).inputs)

    @property
    def megabytes(self) -> float:
        return 4 * metrics.parameters(self.model) / 1e6


# What is measured -------------------------------------------------------------------------------------


def bits(trained: Trained, data: TensorData) -> float:
    """Bits per byte; of what is the same for each seed, measured once."""
    own = trained.model
    return metrics.bits_per_byte(own, data, batch_size=8) if isinstance(own, nn.Module) else bits_of(own, data)


@functools.cache
def bits_of(own: Any, data: TensorData) -> float:
    return own.bits(data)


def minus_bits_per_byte(trained: Trained, data: TensorData) -> float:
    """The higher the better, as comparisons have it."""
    return -bits(trained, data)


def on_prose(trained: Trained, splits: Splits) -> float:
    """Of sentences that were written after SmolLM2 was released."""
    return bits(trained, rows("prose"))


def megabytes(trained: Trained, splits: Splits) -> float:
    """Of a network in 32 bits; of an n-gram its counts, a number of eight bytes and one of four each."""
    own = trained.model
    if not isinstance(own, nn.Module):
        return own.megabytes
    kept = [*own.parameters(), *(part for name, part in own.named_buffers() if "rotary" not in name)]
    return sum(part.nbytes for part in kept) / 1e6


def tokens_a_second(trained: Trained, splits: Splits) -> float:
    """How fast it reads eight rows, in the students' tokens, whichever its own are; the middle of three times."""
    few, own, times = splits.test[:8], trained.model, []
    for _ in range(3):
        started = time.perf_counter()
        if isinstance(own, nn.Module):
            with models.evaluation_mode(own):
                models.logits(own, few.inputs)
        else:
            own.read(few)
        times.append(time.perf_counter() - started)
    return len(few) * LENGTH / statistics.median(times)


MEASURES = {"book's own prose": on_prose, "megabytes": megabytes, "tokens a second": tokens_a_second}
