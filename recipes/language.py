"""The long experiments of chapter 13, recorded: ``make results``.

``python recipes/language.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from recording import main
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from kdft_lib.data import UNLABELED, Splits, TensorData
from kdft_lib.datasets import bbc_news
from kdft_lib.experiments import Classical, Comparison, Method, OnFeatures, PerSeed, Recipe, Trained, compare
from kdft_lib.experiments.comparison import Candidates
from kdft_lib.models import SentenceEncoder, sentence_encoder
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, LoRA, Strategy
from kdft_lib.teachers import cache

SEEDS = range(5)
COUNTS = (25, 50, 100)
TOPICS = 5
LONG, SHORT = 256, 64
LAYERS = (0, 5)
STEPS = 200
BAG_RATES = (0.03, 0.01, 0.1)
STRENGTHS = (10.0, 100.0, 1.0)
TEMPERATURE = 2.0
MINILM = "MiniLM, over a billion pairs of texts"
HEAD, SVM, AGAIN = "MiniLM, head", "SVM", "SVM, pseudo-labels"


@functools.cache
def stories() -> tuple[str, ...]:
    return tuple(text for part in bbc_news(None) for text in part.texts)


@functools.cache
def within(labels: int | None, seed: int) -> Splits:
    """So many labelled stories, a fifth of them to choose by; an input is a story's place in ``stories()``."""
    place = {text: row for row, text in enumerate(stories())}
    parts = bbc_news(labels, validation="within", seed=seed)
    return parts.with_inputs(lambda texts: torch.tensor([place[text] for text in texts]))


@functools.cache
def encoder() -> SentenceEncoder:
    return sentence_encoder(max_tokens=LONG)


@functools.cache
def pieces() -> dict[str, Tensor]:
    """The first 256 word pieces of each story."""
    return encoder().tokens(stories())


@functools.cache
def embeddings(tokens: int) -> Tensor:
    """What the frozen MiniLM makes of the first so many."""
    return sentence_encoder(max_tokens=tokens).embed(stories())


@functools.cache
def vocabulary() -> Tensor:
    """The word pieces that two of the 1,444 stories outside the test have: the students' vocabulary."""
    splits = within(None, 0)
    known = pieces()["input_ids"][torch.cat([splits.train.inputs, splits.val.inputs])]
    having = torch.cat([story.unique() for story in known]).bincount()
    having[0] = 0
    return (having >= 2).nonzero().flatten()


@functools.cache
def renumbered() -> Tensor:
    """The stories in the students' vocabulary, from 1; 0 is padding, or a piece that is not in it."""
    numbers = torch.zeros(30_522, dtype=torch.int64)
    numbers[vocabulary()] = 1 + torch.arange(len(vocabulary()))
    return numbers[pieces()["input_ids"]]


class Bag(nn.Module):
    """The mean of 32 numbers for each word piece, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(1 + len(vocabulary()), 32, mode="mean", padding_idx=0)
        nn.init.normal_(self.embeddings.weight, std=0.1)
        self.head = nn.Linear(32, TOPICS)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.embeddings(renumbered()[rows]))


class Reads(nn.Module):
    """A transformer that looks up the stories it is asked about, and reads their first 64 pieces."""

    def __init__(self, model: SentenceEncoder, own_vocabulary: bool = False):
        super().__init__()
        self.model, self.own_vocabulary = model, own_vocabulary
        model.head = nn.Linear(model.width, TOPICS)

    def forward(self, rows: Tensor) -> Tensor:
        ids = renumbered() if self.own_vocabulary else pieces()["input_ids"]
        return self.model(ids[rows, :SHORT], pieces()["attention_mask"][rows, :SHORT])


class Answers(nn.Module):
    """A classical method as a teacher: its scores, or its decisions, as logits."""

    def __init__(self, trained: Trained, seed: int, *, scores: bool):
        super().__init__()
        self.trained, self.scores = trained, scores
        self.card = {"labels": trained.ledger["labels"]}
        self.register_buffer("seed", torch.tensor(seed))

    def forward(self, rows: Tensor) -> Tensor:
        if self.scores:
            return torch.from_numpy(self.trained.model.decision_function(embeddings(LONG)[rows].numpy())).float()
        return 10.0 * F.one_hot(self.trained.decide(TensorData(rows)), TOPICS)


@functools.cache
def words(tokens: int | None) -> list[list[str]]:
    """Of each story, or of what a transformer with so many tokens reads of it; two of them mark its ends."""
    split = TfidfVectorizer().build_analyzer()
    texts = list(stories())
    if tokens is not None:
        encoded = encoder()._tokenizer.encode_batch(texts)
        ends = [max(end for _, end in one.offsets[: tokens - 1]) for one in encoded]
        texts = [text[:end] for text, end in zip(texts, ends, strict=True)]
    return [split(text) for text in texts]


def as_they_are(story: list[str]) -> list[str]:
    return story


def tf_idf(**settings: Any) -> TfidfVectorizer:
    """As it comes, but that the stories are words already."""
    return TfidfVectorizer(analyzer=as_they_are, **settings)


@dataclass(frozen=True)
class OnTexts:
    """A scikit-learn pipeline on the stories as they are.

    Attributes:
        estimator: Unfitted.
        all_labels: Also those to choose by.
        tokens: How many word pieces of a story are read; by default all.
        weights: Of the labelled stories; by default alike.
    """

    estimator: Any
    all_labels: bool = False
    tokens: int | None = None
    weights: Any = None

    def read(self, rows: Tensor) -> list[list[str]]:
        read = words(self.tokens)
        return [read[row] for row in rows.tolist()]

    def train(self, splits: Splits, seed: int) -> Trained:
        data = [splits.train, splits.val] if self.all_labels else [splits.train]
        rows = torch.cat([part.inputs for part in data])
        targets = torch.cat([part.targets for part in data if part.targets is not None])
        estimator, texts = clone(self.estimator), self.read(rows)
        started = time.perf_counter()
        weighted = {} if self.weights is None else {f"{estimator.steps[-1][0]}__sample_weight": self.weights}
        estimator.fit(texts, targets.numpy(), **weighted)
        ledger = {
            "labels": len(rows), "unlabeled": 0, "steps": 0, "seconds": time.perf_counter() - started,
            "teacher_labels": 0, "pretraining": "none",
        }  # fmt: skip

        def decide(asked: TensorData) -> Tensor:
            return torch.from_numpy(estimator.predict(self.read(asked.inputs)))

        return Trained(decide, ledger, estimator)


@dataclass(frozen=True)
class FromDecisions:
    """A method that learns from the labels and from what was decided of the stories without labels:
    by itself, trained on the labels alone, or by a teacher.
    """

    method: Method
    teacher: Callable[[int], Trained] | None = None

    def train(self, splits: Splits, seed: int) -> Trained:
        first = self.teacher(seed) if self.teacher else self.method.train(splits, seed)
        assert splits.train.targets is not None
        rows = torch.cat([splits.train.inputs, splits.transfer.inputs])
        decided = torch.cat([splits.train.targets, first.decide(splits.transfer)])
        trained = self.method.train(splits._replace(train=TensorData(rows, decided)), seed)
        changed = {"labels": len(splits.train), "unlabeled": len(splits.transfer)}
        if self.teacher:
            changed |= {"teacher_labels": first.ledger["labels"], "pretraining": first.ledger["pretraining"]}
        else:
            changed["seconds"] = trained.ledger["seconds"] + first.ledger["seconds"]
        return dataclasses.replace(trained, ledger=trained.ledger | changed)


def classical(tokens: int | None = None) -> list[OnTexts]:
    """TF-IDF and a linear SVM: logarithms of the counts at two strengths, and the library's defaults."""
    settings = ((True, 1.0), (True, 10.0), (False, 1.0))
    return [
        OnTexts(make_pipeline(tf_idf(sublinear_tf=logarithm), LinearSVC(C=c)), tokens=tokens)
        for logarithm, c in settings
    ]


def given(tokens: int, data: TensorData) -> TensorData:
    return data.with_inputs(embeddings(tokens)[data.inputs])


def heads(tokens: int = LONG) -> list[OnFeatures]:
    """A linear head on the frozen MiniLM, at three strengths."""
    features = functools.partial(given, tokens)
    return [OnFeatures(Classical(LogisticRegression(C=c, max_iter=1000)), features, MINILM) for c in STRENGTHS]


@functools.cache
def teachers(labels: int) -> Comparison:
    methods: dict[str, Candidates] = {HEAD: heads(), SVM: classical()}
    return compare(methods, functools.partial(within, labels), seeds=SEEDS, progress=True)


def chosen(name: str, labels: int, seed: int) -> Trained:
    """Of the setting that was chosen."""
    return teachers(labels).trained[name][seed]


@functools.cache
def teacher(name: str, labels: int, seed: int) -> Answers:
    """It answers with its scores if it is the encoder's head, and with decisions if it is an SVM."""
    return Answers(chosen(name, labels, seed), seed, scores=name == HEAD)


@functools.cache
def answered(name: str, labels: int, seed: int) -> TensorData:
    """A seed's stories, with labels and without, and a teacher's answers about all."""
    train, transfer, *_ = within(labels, seed)
    assert train.targets is not None
    targets = torch.cat([train.targets, torch.full((len(transfer),), UNLABELED)])
    return cache(teacher(name, labels, seed), TensorData(torch.cat([train.inputs, transfer.inputs]), targets))


def taught(recipes: Sequence[Recipe], by: str, labels: int, *, soft: bool) -> list[PerSeed]:
    """By a teacher's answers about all stories, and by the labels."""

    def changes(splits: Splits, seed: int) -> dict[str, Any]:
        who, data = teacher(by, labels, seed), answered(by, labels, seed)
        objective = SoftTargets(who, TEMPERATURE) if soft else HardTargets(who)
        return {"objective": objective, "train_data": lambda _: data}

    return [PerSeed(recipe.but(pretraining=MINILM) if by == HEAD else recipe, changes) for recipe in recipes]


BAGS = [Recipe(Bag, Supervised(), FullFineTuning(rate), steps=STEPS) for rate in BAG_RATES]


@dataclass(frozen=True)
class FromProbabilities:
    """TF-IDF and a logistic regression that learn from MiniLM's probabilities about all stories: each stands
    there once for each topic, with the topic's probability as its weight.
    """

    strength: float
    labels: int

    def train(self, splits: Splits, seed: int) -> Trained:
        rows = torch.cat([splits.train.inputs, splits.transfer.inputs])
        weights = teacher(HEAD, self.labels, seed)(rows).softmax(1).flatten().numpy()
        model = LogisticRegression(C=self.strength, max_iter=1000)
        method = OnTexts(make_pipeline(tf_idf(sublinear_tf=True), model), weights=weights)
        repeated = TensorData(rows.repeat_interleave(TOPICS), torch.arange(TOPICS).repeat(len(rows)))
        trained = method.train(splits._replace(train=repeated), seed)
        trained.ledger |= {"labels": 0, "unlabeled": len(rows), "teacher_labels": len(splits.train)}
        trained.ledger["pretraining"] = MINILM
        return trained


def few() -> dict[str, Comparison]:
    """25, 50 and 100 labelled stories and up to 1,419 others: classical methods, a frozen encoder, and a bag of
    embeddings with and without teachers, three settings each, chosen on a fifth of the labels.
    """
    found = {}
    for labels in COUNTS:
        by_encoder = functools.partial(chosen, HEAD, labels)
        found[f"{labels} labels"] = compare(
            {
                "SVM, as it comes": OnTexts(make_pipeline(tf_idf(), LinearSVC()), all_labels=True),
                SVM: classical(),
                AGAIN: [FromDecisions(method) for method in classical()],
                "SVM, MiniLM's decisions": [FromDecisions(method, by_encoder) for method in classical()],
                "logistic, MiniLM's probabilities": [FromProbabilities(c, labels) for c in STRENGTHS],
                HEAD: heads(),
                "MiniLM, head, pseudo-labels": [FromDecisions(method) for method in heads()],
                "bag, labels": BAGS,
                "bag, MiniLM's probabilities": taught(BAGS, HEAD, labels, soft=True),
                "bag, MiniLM's decisions": taught(BAGS, HEAD, labels, soft=False),
                "bag, the SVM's decisions": taught(BAGS, SVM, labels, soft=False),
            },
            functools.partial(within, labels),
            seeds=SEEDS,
            reference=SVM,
            progress=True,
        )
    found["all labels"] = compare(
        {SVM: classical(), HEAD: heads(), "bag, labels": BAGS},
        functools.partial(within, None),
        seeds=SEEDS,
        progress=True,
    )
    return found


def whole() -> nn.Module:
    """MiniLM, to be fine-tuned."""
    return Reads(copy.deepcopy(encoder()))


def small(layers: Sequence[int], *, random: bool = False) -> nn.Module:
    """Some of MiniLM's layers, or as many random ones, on its embeddings of the students' vocabulary."""
    model = copy.deepcopy(encoder())
    body: Any = model.body
    config = copy.deepcopy(body.config)
    config.num_hidden_layers, config.vocab_size = len(layers), 1 + len(vocabulary())
    cut = type(body)(config, add_pooling_layer=False)
    words = body.embeddings.word_embeddings.weight.data
    unknown = encoder()._tokenizer.token_to_id("[UNK]")
    kept = torch.cat([words[unknown : unknown + 1], words[vocabulary()]])
    cut.embeddings.load_state_dict(body.embeddings.state_dict() | {"word_embeddings.weight": kept})
    if not random:
        for new, old in zip(cut.encoder.layer, [body.encoder.layer[layer] for layer in layers], strict=True):
            new.load_state_dict(old.state_dict())
    model.body = cut
    return Reads(model, own_vocabulary=True)


def rated(recipe: Recipe, kind: type[Strategy], rates: Sequence[float], **settings: Any) -> list[Recipe]:
    return [recipe.but(strategy=kind(rate, **settings)) for rate in rates]


FULL_RATES, LORA_RATES, SMALL_RATES = (1e-4, 3e-4), (3e-4, 1e-3), (3e-4, 1e-3)
FINE_TUNED = Recipe(whole, Supervised(), FullFineTuning(1e-4), steps=60, batch_size=8, pretraining=MINILM)
OWN_LAYERS, RANDOM_LAYERS = (
    Recipe(functools.partial(small, LAYERS, random=random), Supervised(), FullFineTuning(1e-3), steps=80,
           batch_size=16, pretraining=MINILM)
    for random in (False, True)
)  # fmt: skip


def tuned() -> dict[str, Comparison]:
    """50 labelled stories, of which transformers read the first 64 word pieces: MiniLM frozen, with LoRA, and
    whole; and two of its layers, taught by its head or by the labels alone.
    """
    methods: dict[str, Candidates] = {
        "SVM, the same 64 pieces": classical(SHORT),
        "SVM, whole stories": classical(),
        "SVM, pseudo-labels, whole stories": [FromDecisions(method) for method in classical()],
        "MiniLM, head": heads(SHORT),
        "MiniLM, head, 256 pieces": heads(),
        "MiniLM, everything": rated(FINE_TUNED, FullFineTuning, FULL_RATES),
        "MiniLM, LoRA": rated(FINE_TUNED, LoRA, LORA_RATES, head="model.head"),
        "two of its layers, labels": rated(OWN_LAYERS, FullFineTuning, SMALL_RATES),
        "two of its layers, taught": taught(rated(OWN_LAYERS, FullFineTuning, SMALL_RATES), HEAD, 50, soft=True),
        "two random layers on its embeddings, taught": taught(
            rated(RANDOM_LAYERS, FullFineTuning, SMALL_RATES), HEAD, 50, soft=True
        ),
        "bag, taught": taught(BAGS, HEAD, 50, soft=True),
    }
    splits = functools.partial(within, 50)
    return {
        "50 labels": compare(methods, splits, seeds=SEEDS, reference="MiniLM, head", equal_budgets=False, progress=True)
    }


def lengths() -> dict[str, Comparison]:
    """50 labelled stories, of which only the beginning is read: a classical method and a frozen encoder."""
    return {
        f"{tokens} pieces": compare(
            {
                SVM: classical(tokens),
                AGAIN: [FromDecisions(method) for method in classical(tokens)],
                HEAD: heads(tokens),
                "MiniLM, head, pseudo-labels": [FromDecisions(method) for method in heads(tokens)],
            },
            functools.partial(within, 50),
            seeds=SEEDS,
            progress=True,
        )
        for tokens in (16, 32, SHORT, 128, LONG)
    }


if __name__ == "__main__":
    main({"language": few, "language-encoder": tuned, "language-lengths": lengths})
