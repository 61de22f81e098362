"""The long experiments of chapter 14, recorded."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData, TextSplits
from kdft_lib.datasets import bbc_news
from kdft_lib.experiments import Candidate, Classical, Comparison, Given, NamedBy, OnFeatures, Recipe, Trained, grid
from kdft_lib.models import SentenceEncoder, sentence_encoder
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, LoRA

TOPICS = 5
LONG, SHORT = 256, 64
MINILM = "MiniLM, over a billion pairs of texts"
STRENGTHS, BAG_RATES, CUT_RATES = (10.0, 100.0, 1.0), (0.03, 0.01, 0.1), (3e-4, 1e-3)
HEAD, SVM, AGAIN, HEAD_AGAIN = "MiniLM, head", "SVM", "SVM, pseudo-labels", "MiniLM, head, pseudo-labels"
split_words = TfidfVectorizer().build_analyzer()


@functools.cache
def stories() -> dict[str, int]:
    """The number of each story."""
    return {text: number for number, text in enumerate(text for part in bbc_news(None) for text in part.texts)}


def numbered(parts: TextSplits) -> Splits:
    """In the place of each story its number."""
    known = stories()
    return parts.with_inputs(lambda texts: torch.tensor([known.setdefault(text, len(known)) for text in texts]))


@functools.cache
def within(labels: int | None, seed: int) -> Splits:
    """So many labelled stories, a fifth of them to choose by; an input is the number of a story."""
    return numbered(bbc_news(labels, validation="within", seed=seed))


@functools.cache
def encoder(tokens: int = LONG) -> SentenceEncoder:
    return sentence_encoder(max_tokens=tokens)


@functools.cache
def embedding(tokens: int, number: int) -> Tensor:
    """What the frozen MiniLM makes of the first so many word pieces of a story."""
    return encoder(tokens).embed([list(stories())[number]])[0]


def embedded(tokens: int, data: TensorData) -> TensorData:
    return data.with_inputs(torch.stack([embedding(tokens, number) for number in data.inputs.tolist()]))


@functools.cache
def words(tokens: int | None, number: int) -> list[str]:
    """Of a story, or of what a transformer with so many tokens reads of it; two of them mark its ends."""
    text = list(stories())[number]
    if tokens is not None:
        text = text[: max(end for _, end in encoder()._tokenizer.encode(text).offsets[: tokens - 1])]
    return split_words(text)


def read(tokens: int | None, data: TensorData) -> list[list[str]]:
    return [words(tokens, number) for number in data.inputs.tolist()]


@functools.cache
def padded(number: int) -> Tensor:
    """The first 256 word pieces of a story, and 0 behind them."""
    ids = encoder().tokens([list(stories())[number]])["input_ids"][0]
    return F.pad(ids, (0, LONG - len(ids)))


def pieces(numbers: Tensor) -> Tensor:
    return torch.stack([padded(number) for number in numbers.tolist()])


@functools.cache
def vocabulary() -> Tensor:
    """Numbers for the students, from 1, of the pieces that two of the 1,444 stories outside the test have; else 0."""
    splits = within(None, 0)
    known = pieces(torch.cat([splits.train.inputs, splits.val.inputs]))
    often = torch.cat([story.unique() for story in known]).bincount(minlength=30_522) >= 2
    often[0] = False
    return often * often.cumsum(0)


class Bag(nn.Module):
    """The mean of 32 numbers for each word piece, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(1 + int(vocabulary().max()), 32, mode="mean", padding_idx=0)
        nn.init.normal_(self.embeddings.weight, std=0.1)
        self.head = nn.Linear(32, TOPICS)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.head(self.embeddings(vocabulary()[pieces(numbers)]))


class Reads(nn.Module):
    """MiniLM, or what was cut from it, on the first 64 pieces of the stories that it is asked about."""

    def __init__(self, cut: SentenceEncoder | None = None):
        super().__init__()
        self.model, self.is_cut = cut or copy.deepcopy(encoder()), cut is not None
        self.model.head = nn.Linear(self.model.width, TOPICS)

    def forward(self, numbers: Tensor) -> Tensor:
        ids = pieces(numbers)[:, :SHORT]
        return self.model(vocabulary()[ids] if self.is_cut else ids, (ids > 0).long())


def cut(layers: Sequence[int] = (0, 5), random: bool = False) -> nn.Module:
    """Some of MiniLM's layers, or as many random ones, on its embeddings of the students' vocabulary."""
    model = copy.deepcopy(encoder())
    body: Any = model.body
    config = copy.deepcopy(body.config)
    config.num_hidden_layers, config.vocab_size = len(layers), 1 + int(vocabulary().max())
    short = type(body)(config, add_pooling_layer=False)
    table, unknown = body.embeddings.word_embeddings.weight.data, encoder()._tokenizer.token_to_id("[UNK]")
    kept = torch.cat([table[unknown : unknown + 1], table[vocabulary() > 0]])
    short.embeddings.load_state_dict(body.embeddings.state_dict() | {"word_embeddings.weight": kept})
    for new, layer in zip(short.encoder.layer, () if random else layers, strict=not random):
        new.load_state_dict(body.encoder.layer[layer].state_dict())
    model.body = short
    return Reads(model)


BAG = Recipe(Bag, Supervised, FullFineTuning(lr=0.03), steps=200)
WHOLE = Recipe(Reads, Supervised, FullFineTuning(lr=1e-4), steps=60, batch_size=8, pretraining=MINILM)
CUT = Recipe(cut, Supervised, FullFineTuning(lr=3e-4), steps=80, batch_size=16, pretraining=MINILM)


def on_words(classifier: Any, tokens: int | None = None, *, sublinear_tf: bool = False) -> Classical:
    """A classifier on TF-IDF, which is as the library has it, but that stories are words already."""
    counting = TfidfVectorizer(analyzer=list, sublinear_tf=sublinear_tf)
    return Classical(make_pipeline(counting, classifier), shown=functools.partial(read, tokens))


def svms(tokens: int | None = None) -> list[Candidate]:
    """TF-IDF and a linear SVM: logarithms of the counts at two strengths, and the library's defaults."""
    return [
        Candidate(on_words(LinearSVC(C=c), tokens, sublinear_tf=log), {"C": c, "sublinear_tf": log})
        for log, c in ((True, 1.0), (True, 10.0), (False, 1.0))
    ]


def heads(tokens: int = LONG) -> list[Candidate]:
    """A linear head on the frozen MiniLM, at three strengths."""
    features, head = functools.partial(embedded, tokens), Classical(LogisticRegression(max_iter=1000))
    return grid(OnFeatures(head, features, MINILM), C=STRENGTHS)


def named(candidates: list[Candidate], by: experiments.Source | None = None) -> list[Candidate]:
    """Methods that learn from labels and from decisions about the stories without: another's, or their own."""
    return [Candidate(NamedBy(each.method, by or each.method), each.setting) for each in candidates]


def everything(splits: Splits) -> TensorData:
    """The stories with labels and without: a teacher is asked about all of them, and batches are drawn from all."""
    return splits.train.with_rows(splits.transfer)


@dataclasses.dataclass(frozen=True)
class FromProbabilities:
    """A method that learns from a teacher's probabilities about all stories, and sees no label: each story stands
    there once for each topic, with the topic's probability as its weight.
    """

    method: Classical
    teacher: experiments.Source

    def train(self, splits: Splits, seed: int) -> Trained:
        first, asked = experiments.found(self.teacher, splits, seed), everything(splits)
        weights = first.logits(asked).softmax(dim=1).flatten().numpy()
        rows = TensorData(asked.inputs.repeat_interleave(TOPICS), torch.arange(TOPICS).repeat(len(asked)))
        trained = self.method.but(weights=lambda _: weights).train(splits._replace(train=rows), seed)
        behind = {"teacher_labels": first.ledger.labels, "pretraining": first.ledger.pretraining}
        return trained.but(labels=0, unlabeled=len(asked), **behind)


@functools.cache
def teachers(labels: int) -> Comparison:
    return experiments.compare({HEAD: heads(), SVM: svms()}, functools.partial(within, labels))


def few(labels: int) -> Comparison:
    """So many labelled stories, and up to 1,419 others: classical methods, a frozen encoder, and a bag of embeddings
    with and without teachers, three settings each, chosen on a fifth of the labels.
    """
    minilm, classical = teachers(labels).source(HEAD), teachers(labels).source(SVM)
    bag = BAG.but(train_data=everything)
    own, taught = "SVM, MiniLM's decisions", "bag, MiniLM's probabilities"

    def with_those_to_choose_by(splits: Splits, seed: int) -> Splits:
        return splits._replace(train=splits.train.with_rows(splits.val))

    def logistic(C: float) -> FromProbabilities:
        return FromProbabilities(on_words(LogisticRegression(C=C, max_iter=1000), sublinear_tf=True), minilm)

    methods: dict[str, experiments.Candidates] = {
        "SVM, as it comes": Given(on_words(LinearSVC()), with_those_to_choose_by),
        SVM: svms(),
        AGAIN: named(svms()),
        own: named(svms(), minilm),
        "logistic, MiniLM's probabilities": grid(logistic, C=STRENGTHS),
        HEAD: heads(),
        HEAD_AGAIN: named(heads()),
        "bag, labels": grid(BAG, lr=BAG_RATES),
        taught: grid(bag.taught_by(minilm, SoftTargets, temperature=2.0), lr=BAG_RATES),
        "bag, MiniLM's decisions": grid(bag.taught_by(minilm, HardTargets), lr=BAG_RATES),
        "bag, the SVM's decisions": grid(bag.taught_by(classical, HardTargets), lr=BAG_RATES),
    }
    contrasts = [(AGAIN, SVM), (HEAD, SVM), (HEAD, AGAIN), (own, SVM), (own, HEAD), (own, AGAIN)]
    contrasts += [(taught, other) for other in ("bag, labels", "bag, MiniLM's decisions", HEAD)]
    return experiments.compare(methods, functools.partial(within, labels), reference=SVM, contrasts=contrasts)


def counts() -> dict[str, Comparison]:
    """From 25 labels to all; with all of them, none is left for a teacher to name."""
    alone = {SVM: svms(), HEAD: heads(), "bag, labels": grid(BAG, lr=BAG_RATES)}
    found = {f"{labels} labels": few(labels) for labels in (25, 50, 100)}
    return found | {"all labels": experiments.compare(alone, functools.partial(within, None))}


def tuned() -> dict[str, Comparison]:
    """50 labelled stories, of which transformers read the first 64 word pieces: MiniLM frozen, with LoRA, and
    whole; and two of its layers, taught by its head or by the labels alone.
    """

    def taught(recipe: Recipe, rates: Sequence[float]) -> list[Candidate]:
        soft = recipe.taught_by(teachers(50).source(HEAD), SoftTargets, temperature=2.0)
        return grid(soft.but(train_data=everything), lr=rates)

    methods = {
        "SVM, the same 64 pieces": svms(SHORT),
        "SVM, whole stories": svms(),
        "SVM, pseudo-labels, whole stories": named(svms()),
        HEAD: heads(SHORT),
        "MiniLM, head, 256 pieces": heads(),
        "MiniLM, everything": grid(WHOLE, lr=(1e-4, 3e-4)),
        "MiniLM, LoRA": grid(WHOLE.but(strategy=LoRA(lr=3e-4, head="model.head")), lr=(3e-4, 1e-3)),
        "two of its layers, labels": grid(CUT, lr=CUT_RATES),
        "two of its layers, taught": taught(CUT, CUT_RATES),
        "two random layers on its embeddings, taught": taught(CUT.but(random=True), CUT_RATES),
        "bag, taught": taught(BAG, BAG_RATES),
    }
    contrasts = [("MiniLM, everything", HEAD), ("MiniLM, LoRA", HEAD), ("MiniLM, LoRA", "MiniLM, everything")]
    contrasts += [("MiniLM, head, 256 pieces", HEAD)]
    others = (HEAD, "two of its layers, labels", "two random layers on its embeddings, taught")
    contrasts += [("two of its layers, taught", other) for other in (*others, "SVM, pseudo-labels, whole stories")]
    splits = functools.partial(within, 50)
    return {"50 labels": experiments.compare(methods, splits, reference=HEAD, contrasts=contrasts, equal_budgets=False)}


def lengths() -> dict[str, Comparison]:
    """50 labelled stories, of which only the beginning is read: a classical method and a frozen encoder."""
    return {
        f"{tokens} pieces": experiments.compare(
            {SVM: svms(tokens), AGAIN: named(svms(tokens)), HEAD: heads(tokens), HEAD_AGAIN: named(heads(tokens))},
            functools.partial(within, 50),
            contrasts=[(HEAD, SVM), (HEAD_AGAIN, AGAIN)],
        )
        for tokens in (16, 32, SHORT, 128, LONG)
    }


EXPERIMENTS = {"language": counts, "language-encoder": tuned, "language-lengths": lengths}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
