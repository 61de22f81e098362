"""A teacher that has heard people: Whisper's features and its words for a network of 20 kB, recorded for chapter 15."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from shared import SVMS, FixedAnswers
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.audio import log_mel, resample
from kdft_lib.data import RandomShiftMask, Splits, TensorData
from kdft_lib.data.splits import draw_balanced
from kdft_lib.datasets import SAMPLE_RATE, SPELLING_ALPHABET, asterisk_alphabet, spelling_alphabet
from kdft_lib.experiments import Candidate, Classical, Comparison, Given, Method, Once, OnFeatures, Recipe, Trained
from kdft_lib.models import DSCNN, Whisper, whisper
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import answers, named_answers
from kdft_lib.training import Ledger

WIDE, HEAD, WORDS = "the wide network", "Whisper with a head", "Whisper's words"
WEB = "Whisper, speech from the web"
LABELS = 260
LANGUAGES = ("English", "French", "Italian", "Russian")
"""What the four people speak otherwise."""

mel = functools.partial(log_mel, bands=20, hop=160)


# What Whisper hears

ears: Callable[[], Whisper] = functools.cache(whisper)
heard: dict[bytes, tuple[Tensor, int]] = {}
"""Of each clip, by its spectrum, Whisper's features, and the word that is nearest to what it wrote."""


def nearest(written: str) -> int:
    """The place of the word that has most letters in common, in their order."""
    alike = [SequenceMatcher(None, written.lower(), word).ratio() for word in SPELLING_ALPHABET]
    return alike.index(max(alike))


def keys(clips: TensorData) -> list[bytes]:
    return [clip.numpy().tobytes() for clip in clips.inputs]


def listened(sounds: TensorData) -> TensorData:
    """Clips as spectra, each of which Whisper has heard once."""
    clips = sounds.with_inputs(mel(sounds.inputs))
    new = [row for row, key in enumerate(keys(clips)) if key not in heard]
    if new:
        said = ears().hear(resample(sounds.inputs[new], SAMPLE_RATE, 16_000), seconds=3)
        found = zip(said.features, map(nearest, said.words), strict=True)
        heard.update(zip(keys(clips[new]), found, strict=True))
    return clips


def features(clips: TensorData) -> TensorData:
    return clips.with_inputs(torch.stack([heard[key][0] for key in keys(clips)]))


def words(clips: TensorData) -> Tensor:
    return torch.tensor([heard[key][1] for key in keys(clips)])


# Who speaks


@functools.cache
def people() -> dict[str, TensorData]:
    """Four people, who say each word once."""
    return {language: listened(clips) for language, clips in asterisk_alphabet().items()}


def together(parts: list[TensorData]) -> TensorData:
    return functools.reduce(TensorData.with_rows, parts)


@functools.cache
def new_voices() -> TensorData:
    """Those of the synthesiser that nothing learns from."""
    return listened(spelling_alphabet(None).test)


@functools.cache
def pool() -> TensorData:
    """All 1,664 clips of 64 voices, with labels."""
    return listened(spelling_alphabet(None).train)


@functools.cache
def spoken(seed: int) -> Splits:
    """Synthetic voices to learn from, 260 clips with labels and 1,404 without, and 52 of sixteen others to choose by;
    people to test.
    """
    train, transfer, val, _ = spelling_alphabet(LABELS, seed=seed)
    assert val.targets is not None
    drawn, _ = draw_balanced(val.targets, torch.arange(len(val)), 52, seed=seed)
    return Splits(listened(train), listened(transfer), listened(val[drawn]), together([*people().values()]))


def on_pool(splits: Splits, seed: int) -> Splits:
    return splits._replace(train=pool())


# Who learns


def network(width: int) -> nn.Module:
    net: Any = DSCNN(width, num_classes=len(SPELLING_ALPHABET))
    return net.to(memory_format=torch.channels_last)


VIEWS = RandomShiftMask(shift=5, frames=10, bands=4)
SMALL = Recipe(network, Supervised, FullFineTuning(lr=0.03), steps=800, batch_size=32, augment=VIEWS).but(width=16)


def rated(method: Method) -> list[Candidate]:
    """At three learning rates; each is trained once, for all comparisons."""
    return experiments.grid(Once(method), lr=(0.01, 0.03, 0.1))


class Writes:
    """Whisper by its words, which needs no label."""

    def train(self, splits: Splits, seed: int) -> Trained:
        return Trained(None, Ledger(pretraining=WEB), decides=words, seed=seed)


LINEAR = Classical(LogisticRegression(max_iter=2000))
TEACHERS: dict[str, list[Candidate]] = {
    WIDE: rated(SMALL.but(width=48)),
    HEAD: experiments.grid(OnFeatures(LINEAR, features, pretraining=WEB), C=(1.0, 10.0, 100.0)),
}


@functools.cache
def teacher(name: str) -> experiments.Source:
    """In the setting that is best on validation."""
    return experiments.compare({name: TEACHERS[name]}, spoken).source(name)


def by_wide() -> Recipe:
    """On labels, and on the wide network's answers about all clips; teacher and student see the same view."""
    return SMALL.taught_by(teacher(WIDE), SoftTargets, on="all")


def told(
    answered: Callable[[Splits, int], Splits], objective: Callable[..., Any], teacher_labels: int = 0
) -> experiments.Then:
    """On labels, and on Whisper's answers about all clips: it heard them as they are, the student sees views."""
    student = SMALL.but(objective=functools.partial(objective, None), transfer_data="transfer", augment=None)
    return experiments.Then(Given(student, answered), functools.partial(noted, {"teacher_labels": teacher_labels}))


def noted(counts: dict[str, int], trained: Trained, splits: Splits, seed: int) -> Trained:
    """With what Whisper's answers cost in the ledger."""
    return trained.but(pretraining=WEB, **counts)


def by_head(splits: Splits, seed: int) -> Splits:
    """With what Whisper with a head says of each clip."""
    head = experiments.found(teacher(HEAD), splits, seed)
    return seen(splits, [answers(part, logits=head.logits(part), source=HEAD) for part in splits[:2]])


def by_words(splits: Splits, seed: int) -> Splits:
    """With what Whisper writes of each clip."""
    names = [[SPELLING_ALPHABET[word] for word in words(part).tolist()] for part in splits[:2]]
    both = zip(splits[:2], names, strict=True)
    return seen(splits, [named_answers(part, said, SPELLING_ALPHABET, source=WORDS) for part, said in both])


def seen(splits: Splits, answered: list[TensorData]) -> Splits:
    """Views of clips, with the answers to the clips as they are."""
    train, transfer = (FixedAnswers(part, VIEWS) for part in answered)
    return splits._replace(train=train, transfer=transfer)


def words_alone(splits: Splits, seed: int) -> Splits:
    """Whisper's words in the place of labels."""
    train, transfer = (TensorData(part.inputs, words(part)) for part in splits[:2])
    return splits._replace(train=train.with_rows(transfer))


by_words_alone = experiments.Then(
    Given(SMALL.but(batch_size=64), words_alone),
    functools.partial(noted, {"labels": 0, "unlabeled": 1664, "teacher_labels": 0}),
)


def on_person(language: str, trained: Trained, splits: Splits) -> float:
    return trained.accuracy(people()[language])


MEASURES: dict[str, experiments.Measure] = {name: functools.partial(on_person, name) for name in LANGUAGES}
MEASURES["new synthetic voices"] = lambda trained, splits: trained.accuracy(new_voices())
MEASURES["the clips to learn from"] = lambda trained, splits: trained.accuracy(pool())


def synthetic_voices() -> Comparison:
    """260 labels of synthetic voices, tested on people: three settings each."""
    methods: dict[str, experiments.Candidates] = {
        "SVM": SVMS,
        "labels, no augmentation": rated(SMALL.but(augment=None)),
        "labels": rated(SMALL),
        "taught by the wide network": rated(by_wide()),
        "taught by Whisper with a head": rated(told(by_head, SoftTargets, LABELS)),
        "taught by Whisper's words": rated(told(by_words, HardTargets)),
        "Whisper's words alone": rated(by_words_alone),
        "labels, 1,664": rated(Given(SMALL, on_pool)),
        WIDE: TEACHERS[WIDE],
        HEAD: TEACHERS[HEAD],
        WORDS: Writes(),
    }
    contrasts = [(f"taught by {HEAD}", other) for other in list(methods)[:7] if other != f"taught by {HEAD}"]
    return experiments.compare(
        methods, spoken, reference="labels", contrasts=contrasts, measures=MEASURES, equal_budgets=False
    )


# Three people without labels, and a fourth


@dataclass(frozen=True)
class AskedAboutTheFourth(experiments.Wrapped):
    """A method that makes a model for each person, from the clips of synthetic voices and of the three others; its
    ledger is that of one person, and counts a clip that is there several times once.
    """

    method: Any
    heard_too: Callable[[Splits, TensorData], Splits]

    def train(self, splits: Splits, seed: int) -> Trained:
        models = []
        for language in LANGUAGES:
            others = together([clips for name, clips in people().items() if name != language])
            given = self.heard_too(splits, others)
            models.append(self.method.train(given, seed).but(unlabeled=len({*keys(given.transfer)})))
        return Trained(models, models[0].ledger, decides=functools.partial(by_person, models), seed=seed)


def by_person(models: list[Trained], clips: TensorData) -> Tensor:
    """What is decided of each clip by the model that has not heard who says it; of synthetic voices, by the first."""
    place = {key: number for number, language in enumerate(LANGUAGES) for key in keys(people()[language])}
    asked = torch.tensor([place.get(key, 0) for key in keys(clips)])
    return torch.stack([model.decide(clips) for model in models])[asked, torch.arange(len(clips))]


def without_labels(splits: Splits, others: TensorData) -> Splits:
    """Six times, so that every fourth clip without a label is a person's."""
    return splits._replace(transfer=together([splits.transfer, *[TensorData(others.inputs)] * 6]))


def with_labels(splits: Splits, others: TensorData) -> Splits:
    return splits._replace(train=splits.train.with_rows(others))


def three_people() -> Comparison:
    """In one setting, the middle one; with people, it is trained four times, without the one who is asked about."""
    head, written = told(by_head, SoftTargets, LABELS), told(by_words, HardTargets)
    methods: dict[str, Method] = {
        "synthetic voices, Whisper with a head": head,
        "synthetic voices, Whisper's words": written,
        "people, Whisper with a head": AskedAboutTheFourth(head, without_labels),
        "people, Whisper's words": AskedAboutTheFourth(written, without_labels),
        "people, the wide network": AskedAboutTheFourth(by_wide(), without_labels),
        "people, labels": AskedAboutTheFourth(head, with_labels),
    }
    contrasts = [
        ("people, Whisper with a head", "synthetic voices, Whisper with a head"),
        ("people, Whisper's words", "synthetic voices, Whisper's words"),
        ("people, Whisper with a head", "people, the wide network"),
        ("people, Whisper with a head", "people, labels"),
    ]
    measures = {name: MEASURES[name] for name in LANGUAGES}
    return experiments.compare(methods, spoken, contrasts=contrasts, measures=measures)


def experiment() -> dict[str, Comparison]:
    return {"synthetic voices": synthetic_voices(), "three people": three_people()}


EXPERIMENTS = {"speech-whisper": experiment}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
