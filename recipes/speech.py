"""The long experiments of chapter 15, recorded."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from shared import SVMS
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.audio import log_mel
from kdft_lib.data import RandomShiftMask, Splits, TensorData
from kdft_lib.data.splits import draw_balanced
from kdft_lib.datasets import asterisk_digits, flite_digits, japanese_vowels, spoken_digits
from kdft_lib.experiments import Candidate, Classical, Comparison, Given, Method, Once, Recipe, Trained, compare, grid
from kdft_lib.models import DSCNN
from kdft_lib.objectives import HardTargets, Objective, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.training import Ledger

LINEAR = grid(Classical(LogisticRegression(max_iter=2000)), C=(0.01, 0.1, 1.0))
WIDE = "the wide network"
FULL_WIDE = f"{WIDE}, 2,560 labels"


def rated(method: Method) -> list[Candidate]:
    """At three learning rates; each is trained once, for all comparisons."""
    return grid(Once(method), lr=(0.003, 0.01, 0.03))


@dataclass(eq=False)
class Study:
    """A small network and a wide one on the same labels, what else learns from labels, and the small one taught."""

    splits: Callable[[int], Splits]
    small: Recipe
    width: int
    """Of the wide network."""
    more: Mapping[str, list[Candidate]] = field(default_factory=dict)

    @functools.cached_property
    def learned(self) -> dict[str, list[Candidate]]:
        return {"labels": rated(self.small), WIDE: rated(self.small.but(width=self.width)), **self.more}

    @functools.cached_property
    def teachers(self) -> Comparison:
        return compare(self.learned, self.splits)

    def taught(self, by: str, objective: Callable[..., Objective]) -> list[Candidate]:
        """On labels, and on answers about those clips and all that have none; teacher and student see the same view."""
        return rated(self.small.taught_by(self.teachers.source(by), objective, on="all"))

    @functools.cached_property
    def distilled(self) -> list[Candidate]:
        return self.taught(WIDE, SoftTargets)

    @functools.cached_property
    def student(self) -> experiments.Source:
        """The distilled network, at the rate that is best on validation."""
        return compare({"distilled": self.distilled}, self.splits).source("distilled")


# Ten digits

mel = functools.partial(log_mel, bands=20, hop=160)


@functools.cache
def pool(seed: int = 0) -> TensorData:
    """All 2,560 clips of 64 voices, with labels, in a seed's order."""
    train = spoken_digits(labeled=None, seed=seed).train
    return train.with_inputs(mel(train.inputs))


def on_pool(splits: Splits, seed: int) -> Splits:
    return splits._replace(train=pool())


def places(clips: TensorData) -> dict[bytes, int]:
    """Of each clip, which may be there several times, the last place."""
    return {clip.numpy().tobytes(): place for place, clip in enumerate(clips.inputs)}


def unnamed(splits: Splits, trained: Trained) -> TensorData:
    """The clips of the training voices that came without labels, with them, in the seed's order."""
    known, named = pool(trained.seed or 0), places(splits.train)
    return known[[place for clip, place in places(known).items() if clip not in named]]


@functools.cache
def spoken(labels: int, seed: int) -> Splits:
    """So many labels: four fifths to learn from, a fifth, of sixteen other voices, to choose by."""
    splits = spoken_digits(labels * 4 // 5, seed=seed).with_inputs(mel)
    assert splits.val.targets is not None
    drawn, _ = draw_balanced(splits.val.targets, torch.arange(len(splits.val)), labels // 5, seed=seed)
    return splits._replace(val=splits.val[drawn])


def network(width: int) -> Any:
    net: Any = DSCNN(width)
    return net.to(memory_format=torch.channels_last)


VIEWS = RandomShiftMask(shift=5, frames=10, bands=4)
SMALL = Recipe(network, Supervised, FullFineTuning(lr=0.01), steps=400, batch_size=32, augment=VIEWS).but(width=16)
FULL = {FULL_WIDE: rated(Given(SMALL.but(width=48), on_pool))}
STUDY, FEW = Study(functools.partial(spoken, 300), SMALL, 48, FULL), Study(functools.partial(spoken, 100), SMALL, 48)


@functools.cache
def elsewhere(who: str) -> TensorData:
    """Voices that nothing learned from: another synthesiser's, and a person's."""
    data = {"flite": flite_digits, "a person": asterisk_digits}[who]()
    return data.with_inputs(mel(data.inputs))


def share(model: Trained, clips: TensorData) -> float:
    """What is right of clips; not a number, if there is none."""
    return model.accuracy(clips) if len(clips) else math.nan


def on_voices(who: str, trained: Trained, splits: Splits) -> float:
    return trained.accuracy(elsewhere(who))


MEASURES: dict[str, experiments.Measure] = {who: functools.partial(on_voices, who) for who in ("flite", "a person")}
MEASURES["other clips of the training voices"] = lambda trained, splits: share(trained, unnamed(splits, trained))


def digits() -> dict[str, Comparison]:
    """300 labels in full, 100 in short: three settings each."""
    whole = {
        "SVM": SVMS,
        "logistic regression": LINEAR,
        "labels, no augmentation": rated(SMALL.but(augment=None)),
        "labels": STUDY.learned["labels"],
        "pseudo-labels of itself": STUDY.taught("labels", HardTargets),
        "decisions of the wide network": STUDY.taught(WIDE, HardTargets),
        "distilled": STUDY.distilled,
        WIDE: STUDY.learned[WIDE],
        "distilled from 2,560 labels": STUDY.taught(FULL_WIDE, SoftTargets),
        "SVM, 2,560 labels": [Candidate(Given(each.method, on_pool), each.setting) for each in SVMS],
        "labels, 2,560": rated(Given(SMALL, on_pool)),
        FULL_WIDE: STUDY.learned[FULL_WIDE],
    }
    few = {"SVM": SVMS, "labels": FEW.learned["labels"], "distilled": FEW.distilled, WIDE: FEW.learned[WIDE]}
    contrasts = [("distilled", other) for other in whole if other != "distilled"]
    against = functools.partial(compare, reference="labels", measures=MEASURES)
    return {
        "300 labels": against(whole, STUDY.splits, contrasts=contrasts),
        "100 labels": against(few, FEW.splits, contrasts=[("distilled", "labels")]),
    }


# A new voice


class User(NamedTuple):
    """A voice that the network has not heard: ten clips, one of each digit, and the rest."""

    part: str
    enrolled: TensorData
    rest: TensorData


@functools.cache
def users(seed: int) -> list[User]:
    """Eight voices to choose by, those to test, and Flite's, of whose three speeds the middle one is enrolled."""
    digits, found = spoken_digits(10).with_inputs(mel), []
    for part, clips, accents in (("val", digits.val, 4), ("test", digits.test, 4), ("flite", elsewhere("flite"), 3)):
        generator = torch.Generator().manual_seed(seed)
        for voice, place in enumerate(torch.arange(len(clips) // (10 * accents) * 10 * accents).view(-1, accents, 10)):
            drawn = torch.randint(accents, (10,), generator=generator)
            first = torch.zeros(accents, 10, dtype=torch.bool)
            first[1 if part == "flite" else drawn, torch.arange(10)] = True
            if part != "val" or voice % 2 == 0:
                found.append(User(part, clips[place[first]], clips[place[~first]]))
    return found


def of(part: str, seed: int) -> dict[int, User]:
    return {number: user for number, user in enumerate(users(seed)) if user.part == part}


def said(part: str, seed: int) -> TensorData:
    """What users say after their ten clips; with each clip goes the number of who says it."""
    numbered = [
        TensorData({"clip": rest.inputs, "user": torch.full((len(rest),), number)}, rest.targets)
        for number, (_, _, rest) in of(part, seed).items()
    ]
    return functools.reduce(TensorData.with_rows, numbered)


@functools.cache
def voices(seed: int) -> Splits:
    """The clips to learn from, of old voices, and what new users say after their ten clips."""
    return spoken(300, seed)._replace(val=said("val", seed), test=said("test", seed))


def by_users(models: list[Trained], data: TensorData) -> Tensor:
    """What is decided of each clip by the model of who says it."""
    decided = torch.empty(len(data), dtype=torch.int64)
    for number in data.inputs["user"].unique().tolist():
        rows = data.inputs["user"] == number
        decided[rows] = models[number].decide(TensorData(data.inputs["clip"][rows]))
    return decided


@dataclass(frozen=True)
class ForEachUser(experiments.Wrapped):
    """A method that makes a model for each user, from some of the user's ten clips and those of old voices; its
    ledger is that of one user, and counts a clip that is there several times once.
    """

    method: Any
    clips: Callable[[TensorData, TensorData], TensorData]

    def train(self, splits: Splits, seed: int) -> Trained:
        shown = [self.clips(user.enrolled, splits.train) for user in users(seed)]
        models = [experiments.found(self.method, splits._replace(train=clips), seed) for clips in shown]
        ledger, seconds = models[0].ledger, sum(model.ledger.seconds for model in models) / len(models)
        ledger = dataclasses.replace(ledger, labels=min(ledger.labels, len(places(shown[0]))), seconds=seconds)
        return Trained(models, ledger, decides=functools.partial(by_users, models))


def distilled(splits: Splits, seed: int) -> Trained:
    """The distilled network, as something that was known before."""
    trained = experiments.found(STUDY.student, splits, seed)
    known = Ledger(teacher_labels=trained.ledger.teacher_labels, pretraining="the distilled network")
    return dataclasses.replace(trained, ledger=known)


def hers_weigh(weight: float, data: TensorData) -> Any:
    """So much; they are the last ten."""
    return torch.cat([torch.ones(len(data) - 10), torch.full((10,), weight)]).numpy()


def on_old_voices(part: str, trained: Trained, splits: Splits) -> float:
    """After each user's clips: accuracy on 320 clips of the training voices."""
    old, numbers = unnamed(splits, trained)[:320], of(part, trained.seed or 0)
    return sum(share(trained.model[number], old) for number in numbers) / len(numbers)


def on_a_voice(number: int, trained: Trained, splits: Splits) -> float:
    return trained.model[number].accuracy(users(trained.seed or 0)[number].rest)


def new_voices() -> dict[str, Comparison]:
    """The distilled network meets a user who says each digit once: three settings each, chosen on eight other
    users. With replay, three clips of old voices stand beside each of hers.
    """
    tuned = SMALL.but(start=distilled, steps=30, batch_size=10)
    head = tuned.but(strategy=HeadOnly(lr=0.01, head="head"))

    def alone(method: Any) -> ForEachUser:
        return ForEachUser(method, lambda hers, old: hers)

    def fitted_again(weight: float) -> ForEachUser:
        svm = Classical(SVC(C=5.0), weights=functools.partial(hers_weigh, weight))
        return ForEachUser(svm, lambda hers, old: old.with_rows(hers))

    replay = ForEachUser(tuned.but(batch_size=40), lambda hers, old: hers[torch.arange(80) % 10].with_rows(old))
    methods: dict[str, experiments.Candidates] = {
        "as it was": alone(distilled),
        "head alone": grid(alone(head), lr=(0.01, 0.03, 0.1)),
        "everything": grid(alone(tuned), lr=(0.001, 0.003, 0.01)),
        "everything, with replay": grid(replay, lr=(0.001, 0.003, 0.01)),
        "SVM as it was": ForEachUser(Once(Classical(SVC(C=5.0))), lambda hers, old: old),
        "SVM, fitted again": grid(fitted_again, weight=(1.0, 3.0, 10.0)),
    }
    measures: dict[str, experiments.Measure] = {}
    for part in ("test", "flite"):
        measures[f"old voices, after {part}"] = functools.partial(on_old_voices, part)
        for place, number in enumerate(of(part, seed=0)):
            measures[f"{part} {place}"] = functools.partial(on_a_voice, number)
    contrasts = [(name, "as it was") for name in methods if name not in ("as it was", "SVM as it was")]
    return {"new voices": compare(methods, voices, contrasts=contrasts, measures=measures, equal_budgets=False)}


# Nine men


@functools.cache
def men(labels: int | None, seed: int) -> Splits:
    """Coefficients as rows, frames as columns, each coefficient scaled by the training utterances, labelled or not."""
    splits = japanese_vowels(labels, validation="within" if labels else 54, seed=seed)
    utterances = torch.cat([splits.train.inputs, splits.transfer.inputs])
    frames = utterances[utterances.any(-1)]
    mean, deviation = frames.mean(0), frames.std(0)

    def scaled(inputs: Tensor) -> Tensor:
        said = inputs.any(-1, keepdim=True)
        return ((inputs - mean) / deviation * said).transpose(1, 2).unsqueeze(1).contiguous()

    return splits.with_inputs(scaled)


def over_time(width: int) -> nn.Sequential:
    """Three convolutions over the frames; 16 is 3,689 parameters, 64 is 42,377."""

    def convolution(before: int, after: int, size: int, stride: int) -> nn.Sequential:
        conv = nn.Conv1d(before, after, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm1d(after), nn.ReLU())

    return nn.Sequential(
        nn.Flatten(1, 2), convolution(12, width, 5, 1), convolution(width, width, 3, 2),
        convolution(width, 2 * width, 3, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * width, 9),
    )  # fmt: skip


def vowels() -> dict[str, Comparison]:
    """Who speaks? 45 or 90 labels and the other utterances without, and all 270: three settings each."""
    views = RandomShiftMask(shift=2, frames=4, bands=2)
    small = Recipe(over_time, Supervised, FullFineTuning(lr=0.01), steps=300, batch_size=32, augment=views)
    found = {}
    for labels in (45, 90, None):
        study = Study(functools.partial(men, labels), small.but(width=16), 64)
        methods = {
            "SVM": SVMS,
            "logistic regression": LINEAR,
            "labels, no augmentation": rated(study.small.but(augment=None)),
            **study.learned,
            "distilled": study.distilled,
        }
        if labels is not None:
            methods["pseudo-labels of itself"] = study.taught("labels", HardTargets)
            methods["decisions of the wide network"] = study.taught(WIDE, HardTargets)
        contrasts = [("distilled", "labels"), ("labels", "SVM"), ("labels", "logistic regression")]
        found[f"{labels or 270} labels"] = compare(methods, study.splits, reference="labels", contrasts=contrasts)
    return found


EXPERIMENTS = {"speech": digits, "speech-voice": new_voices, "speech-vowels": vowels}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
