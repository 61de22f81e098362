"""What the teacher of the recipe of a language model of one's own size writes, and students that read it."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from own_size_files import kept
from own_size_lessons import BATCH, KEPT, LABELS, TOP, taught
from own_size_parts import LENGTH, MEASURES, minus_bits_per_byte, rows, said, teacher, text
from torch import Tensor

from kdft_lib import experiments, models
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidates, Comparison, Given, Then, Trained
from kdft_lib.teachers import Teacher

TEXTS, PROMPT, TOGETHER = 896, 32, 64
"""The teacher writes 225 tokens behind each of so many beginnings of 32, so many texts at a time: 201,600 tokens."""
READ = TEXTS // BATCH
"""Steps in which what it wrote is read once, and a half of it twice."""


def goes_on(
    model: Any, prompts: Tensor, length: int, *, temperature: float = 1.0, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Texts behind their beginnings, and the log-probability of each token that was written, as a bare loop: like the
    one with a draft, and unlike ``generate``, it takes no time around a call.
    """
    from transformers import DynamicCache

    # What newer releases of Transformers call it.
    called = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    keys: dict[str, Any] = {called: DynamicCache()}
    new, written, surprise = prompts, [prompts], []
    with models.evaluation_mode(model):
        for _ in range(length):
            answer = model(input_ids=new, use_cache=True, **keys).logits[:, -1].float()
            chances = (answer / (temperature or 1.0)).log_softmax(-1)
            likeliest = chances.argmax(-1, keepdim=True)
            new = torch.multinomial(chances.exp(), 1, generator=generator) if temperature else likeliest
            written.append(new)
            surprise.append(chances.gather(-1, new))
    return torch.cat(written, 1), torch.cat(surprise, 1)


def continued(prompts: Tensor, length: int, seed: int) -> dict[str, Tensor]:
    """What the teacher draws behind beginnings."""
    texts, surprise = goes_on(teacher(), prompts, length, generator=torch.Generator().manual_seed(seed))
    return {"texts": texts, "surprise": surprise}


def begun() -> Tensor:
    """Which rows the teacher goes on with, from all over the text."""
    return torch.linspace(0, len(rows("train")) - 1, min(TEXTS, len(rows("train")))).long()


@functools.cache
def written() -> tuple[Tensor, Tensor]:
    """All texts and log-probabilities; each part stays in a file of its own as soon as it is written."""
    prompts = rows("train").inputs["input_ids"][begun(), :PROMPT]
    length, writer, parts = LENGTH + 1 - PROMPT, Teacher(teacher()).fingerprint(), []
    for number, some in enumerate(prompts.split(TOGETHER)):
        make = functools.partial(continued, some, length, seed=number)
        of = {"teacher": writer, "prompts": TensorData(some).fingerprint(), "length": length, "seed": number}
        parts.append(kept(f"written-{number:03d}", make, **of))
    return torch.cat([part["texts"] for part in parts]), torch.cat([part["surprise"] for part in parts])


def repeated(texts: Tensor, run: int = 3) -> Tensor:
    """Of each text, the share of its runs of three tokens that it had before."""
    runs = texts.unfold(1, run, 1)
    return torch.tensor([1 - len(row.unique(dim=0)) / len(row) for row in runs])


def half(which: str, seed: int = 0) -> Tensor:
    """Which of the texts are read: all, or the half that a filter leaves. Each seed draws some half of its own."""
    texts, surprise = written()
    lot = torch.rand(len(texts), generator=torch.Generator().manual_seed(seed))
    by = {
        "all": torch.zeros(len(texts)),
        "some half": lot,
        "those that repeat least": repeated(texts[:, PROMPT:]) + 0.001 * lot,  # Many are alike, and lie by author.
        "the teacher's likeliest": -surprise.mean(-1),
        "the teacher's least likely": surprise.mean(-1),
    }[which]
    return by.argsort(stable=True)[: len(texts) if which == "all" else len(texts) // 2].sort().values


def in_rows(texts: Tensor) -> TensorData:
    """Texts as rows of tokens, each with the token after it as its target."""
    places = torch.arange(LENGTH).expand(len(texts), -1).contiguous()
    inputs = {"input_ids": texts[:, :-1].contiguous(), "position_ids": places}
    return TensorData(inputs, texts[:, 1:].contiguous(), mask=torch.ones_like(places, dtype=torch.bool))


def behind_beginnings(data: TensorData) -> TensorData:
    """Of the beginnings that the teacher was given nothing counts."""
    assert data.targets is not None
    assert data.mask is not None
    counted = data.mask & (torch.arange(LENGTH) >= PROMPT - 1)
    targets = data.targets.masked_fill(~counted, -100)
    return TensorData(data.inputs, targets, teacher_logits=data.teacher_logits, mask=counted, teacher=data.teacher)


@dataclass(frozen=True)
class OnWritten(experiments.Wrapped):
    """A method that reads what the teacher wrote."""

    method: Any
    which: str

    def train(self, splits: Splits, seed: int) -> Trained:
        data = in_rows(written()[0][half(self.which, seed)])
        trained = self.method.train(splits._replace(train=behind_beginnings(data)), seed)
        return taught(trained, splits._replace(train=data), seed)


def few(splits: Splits, seed: int) -> Splits:
    """As much real text as the teacher wrote, behind the same beginnings."""
    return splits._replace(train=behind_beginnings(splits.train[begun()]))


def few_answered(splits: Splits) -> TensorData:
    """The same with what the teacher says of it."""
    return behind_beginnings(said(KEPT, "bucket")[begun()])


def reading() -> dict[str, Comparison]:
    """200,000 tokens that the teacher wrote, unfiltered and filtered, beside as many that authors wrote, alone and with
    its answers."""
    short, top = LABELS.but(steps=READ), f"real text, top {KEPT}"
    filters = ("all", "some half", "those that repeat least", "the teacher's likeliest", "the teacher's least likely")
    arms: dict[str, Candidates] = {"real text": Given(short, few)}
    arms[top] = Given(Then(TOP.but(steps=READ, train_data=few_answered), taught), few)
    arms |= {f"written, {which}": OnWritten(short, which) for which in filters}
    contrasts = [(f"written, {which}", "written, some half") for which in filters[2:]]
    contrasts += [("written, all", "real text"), (top, "real text")]
    found = experiments.compare(
        arms, text, reference="written, some half", contrasts=contrasts, score=minus_bits_per_byte, measures=MEASURES
    )
    real = repeated(few(text(), 0).train.inputs["input_ids"][:, PROMPT:]).mean().item()
    shares = {
        f"written, {which}": [
            repeated(written()[0][half(which, seed)][:, PROMPT:]).mean().item() for seed in found.seeds
        ]
        for which in filters
    }
    found.measured["repeated runs"] = dict.fromkeys(("real text", top), [real] * len(found.seeds)) | shares
    return {"200,000 tokens": found}


RECORDS = {"own-size-written": reading}
