"""What else a shop would try with 50 labelled stories, and the same of short texts; recorded for chapter 14."""

from __future__ import annotations

import copy
import dataclasses
import functools

import torch
import torch.nn.functional as F
from language import (
    AGAIN,
    BAG,
    BAG_RATES,
    HEAD,
    HEAD_AGAIN,
    MINILM,
    SHORT,
    STRENGTHS,
    SVM,
    TOPICS,
    Bag,
    Reads,
    encoder,
    everything,
    named,
    on_words,
    split_words,
    stories,
    svms,
    vocabulary,
    within,
)  # fmt: skip
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from tokenizers import Tokenizer
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.experiments import Candidate, Classical, Comparison, OnFeatures, Recipe, Then, Trained, grid
from kdft_lib.features import Outputs
from kdft_lib.objectives import HardTargets, Objective
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import Ledger, predict

SENTENCE = "This story is about {}."
NAMES = ("business", "entertainment", "politics", "sport", "technology")
PIECES, AXES, RARE = 30_522, 256, 1e-3
TITLE, FIRST, PIECES_64, WHOLE = "title", "first paragraph", "64 pieces", "whole"
BY_NAME, STATIC, PAIRS = "the topics' names, no labels", "MiniLM's word pieces, averaged", "MiniLM, pairs, then a head"
LOGISTIC = Classical(LogisticRegression(max_iter=1000))
KEPT: dict[tuple[str, int], Tensor] = {}


@functools.cache
def text(read: str, number: int) -> str:
    """A story, its title, or its first paragraph, a sentence mostly; but for the whole, up to 64 word pieces."""
    whole = list(stories())[number]
    title, *rest = [line for line in whole.splitlines() if line.strip()]
    part = {TITLE: title, FIRST: rest[0] if rest else title}.get(read, whole)
    if read == WHOLE:
        return part
    return part[: max(end for _, end in encoder()._tokenizer.encode(part).offsets[: SHORT - 1])]


def split(read: str, data: TensorData) -> list[list[str]]:
    return [split_words(text(read, number)) for number in data.inputs.tolist()]


def embedded_part(read: str, data: TensorData) -> TensorData:
    """What the frozen MiniLM makes of a part of each story; those that it has not read yet, it reads together."""
    numbers = data.inputs.tolist()
    new = [number for number in dict.fromkeys(numbers) if (read, number) not in KEPT]
    found = encoder().embed([text(read, number) for number in new])
    KEPT.update({(read, number): row for number, row in zip(new, found, strict=True)})
    return data.with_inputs(torch.stack([KEPT[read, number] for number in numbers]))


@functools.cache
def padded(read: str, number: int) -> Tensor:
    ids = encoder().tokens([text(read, number)])["input_ids"][0]
    return F.pad(ids, (0, SHORT - len(ids)))


class ShortBag(Bag):
    """The bag, on a part of each story."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.read = read

    def forward(self, numbers: Tensor) -> Tensor:
        ids = torch.stack([padded(self.read, number) for number in numbers.tolist()])
        return self.head(self.embeddings(vocabulary()[ids]))


class ByName:
    """No training: which topic's sentence is the story's embedding nearest to?"""

    def train(self, splits: Splits, seed: int) -> Trained:
        nearest = nn.Linear(encoder().width, TOPICS, bias=False)
        sentences = [SENTENCE.format(name) for name in NAMES]
        nearest.weight = nn.Parameter(encoder().embed(sentences), requires_grad=False)
        return Trained(nearest, Ledger())


@dataclasses.dataclass(frozen=True)
class NamedAlone:
    """A method that learns what another says of all stories, and sees no label."""

    method: Classical
    namer: OnFeatures

    def train(self, splits: Splits, seed: int) -> Trained:
        asked = everything(splits)
        names = TensorData(asked.inputs, self.namer.train(splits, seed).decide(asked))
        trained = self.method.train(splits._replace(train=names), seed)
        return trained.but(labels=0, unlabeled=len(asked), pretraining=MINILM)


@functools.cache
def uncut() -> Tokenizer:
    tokenizer = Tokenizer.from_str(encoder()._tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.cache
def ids_of(read: str, number: int) -> Tensor:
    return torch.tensor(uncut().encode(text(read, number), add_special_tokens=False).ids)


def pieces_alone(ids: Tensor) -> Tensor:
    """What MiniLM makes of word pieces, each by itself."""
    start, end = (encoder()._tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]"))
    texts = torch.stack([torch.full_like(ids, start), ids, torch.full_like(ids, end)], dim=1)
    body = copy.deepcopy(encoder().body).eval()
    with torch.no_grad():
        return torch.cat([body(input_ids=part).last_hidden_state.mean(dim=1) for part in texts.split(256)])


@functools.cache
def table() -> Tensor:
    """Model2Vec's idea: each word piece alone through the encoder, the main axes of what comes out, and a weight that
    is small where a piece is frequent (SIF). The frequencies are those of the 1,444 stories outside the test.
    """
    alone = pieces_alone(torch.arange(PIECES))
    alone -= alone.mean(dim=0)
    axes = torch.linalg.eigh(alone.T @ alone).eigenvectors[:, -AXES:]
    splits = within(None, 0)
    known = torch.cat([splits.train.inputs, splits.val.inputs]).tolist()
    counts = torch.cat([ids_of(WHOLE, number) for number in known]).bincount(minlength=PIECES)
    weights = (RARE / (RARE + counts / counts.sum()))[:PIECES]
    return weights.unsqueeze(1) * (alone @ axes)


@functools.cache
def averaged(read: str, number: int) -> Tensor:
    return F.normalize(table()[ids_of(read, number).clamp(max=PIECES - 1)].mean(dim=0), dim=0)


def static(read: str, data: TensorData) -> TensorData:
    """The mean of the table's rows of a text's word pieces, in any order, set to length 1."""
    return data.with_inputs(torch.stack([averaged(read, number) for number in data.inputs.tolist()]))


class Pairs(Objective):
    """SetFit's first step: two stories of one topic should have a cosine of 1, two of different topics 0. Pairs of both
    kinds count alike.
    """

    name = "pairs"

    def __init__(self) -> None:
        super().__init__({"cosine": 1.0})

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        vectors, topics = student.logits, batch["targets"]
        one, two = torch.triu_indices(len(topics), len(topics), 1)
        same = topics[one] == topics[two]
        cosines = (vectors[one] * vectors[two]).sum(dim=1)
        missed = (cosines - same.float()).square()
        kinds = [missed[kind].mean() for kind in (same, ~same) if kind.any()]
        return {"cosine": self.whole_batch(torch.stack(kinds).mean(), batch)}


class Embeds(Reads):
    """MiniLM on the first 64 pieces of a story, without a head."""

    def __init__(self) -> None:
        super().__init__()
        self.model.head = nn.Identity()


IN_PAIRS = Recipe(Embeds, Pairs, FullFineTuning(lr=1e-4), steps=20, batch_size=16, pretraining=MINILM)


def by(model: nn.Module, data: TensorData) -> TensorData:
    return data.with_inputs(predict(model, data))


def with_head(tuned: Trained, splits: Splits, seed: int) -> Trained:
    """SetFit's second step: a logistic regression on what the tuned encoder makes of the labelled stories."""
    head = OnFeatures(LOGISTIC.but(C=10.0), functools.partial(by, tuned.model))
    trained = head.train(splits, seed)
    return dataclasses.replace(trained, ledger=tuned.ledger + trained.ledger)


def heads(read: str) -> list[Candidate]:
    return grid(OnFeatures(LOGISTIC, functools.partial(embedded_part, read), MINILM), C=STRENGTHS)


def statics(read: str = WHOLE) -> list[Candidate]:
    return grid(OnFeatures(LOGISTIC, functools.partial(static, read), MINILM), C=STRENGTHS)


def few() -> dict[str, Comparison]:
    """50 labelled stories, whole for words and word pieces, the first 64 pieces for MiniLM: its head, pairs of stories,
    and no label at all.
    """
    by_name = OnFeatures(ByName(), functools.partial(embedded_part, PIECES_64), MINILM)
    svm = on_words(LinearSVC(), sublinear_tf=True)
    methods: dict[str, experiments.Candidates] = {
        SVM: svms(),
        AGAIN: named(svms()),
        HEAD: heads(PIECES_64),
        PAIRS: grid(Then(IN_PAIRS, with_head), lr=(1e-4, 3e-4)),
        BY_NAME: by_name,
        "SVM, taught by the names": NamedAlone(svm, by_name),
        STATIC: statics(),
        f"{STATIC}, pseudo-labels": named(statics()),
    }
    contrasts = [(PAIRS, HEAD), (BY_NAME, SVM), ("SVM, taught by the names", BY_NAME)]
    contrasts += [("SVM, taught by the names", AGAIN), (STATIC, HEAD), (STATIC, SVM)]
    splits = functools.partial(within, 50)
    return {"50 labels": experiments.compare(methods, splits, reference=SVM, contrasts=contrasts, equal_budgets=False)}


def short() -> dict[str, Comparison]:
    """50 labelled stories, of which the title, the first paragraph or the first 64 word pieces are all there is."""

    def methods(read: str) -> dict[str, experiments.Candidates]:
        shown = functools.partial(split, read)
        counting = [Candidate(each.method.but(shown=shown), each.setting) for each in svms()]  # type: ignore[attr-defined]
        teacher = experiments.compare({HEAD: heads(read)}, functools.partial(within, 50)).source(HEAD)
        bag = BAG.but(model=functools.partial(ShortBag, read), train_data=everything)
        return {
            SVM: counting,
            AGAIN: named(counting),
            HEAD: heads(read),
            HEAD_AGAIN: named(heads(read)),
            "bag, MiniLM's decisions": grid(bag.taught_by(teacher, HardTargets), lr=BAG_RATES),
            STATIC: statics(read),
            BY_NAME: OnFeatures(ByName(), functools.partial(embedded_part, read), MINILM),
        }

    contrasts = [(HEAD, SVM), (HEAD_AGAIN, AGAIN), ("bag, MiniLM's decisions", HEAD), (STATIC, HEAD), (BY_NAME, SVM)]
    return {
        read: experiments.compare(methods(read), functools.partial(within, 50), contrasts=contrasts)
        for read in (TITLE, FIRST, PIECES_64)
    }


EXPERIMENTS = {"language-few-labels": few, "language-short": short}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
