"""The long experiments of chapter 14, recorded: ``make results``.

``python recipes/speech.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from recording import main
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.audio import log_mel
from kdft_lib.data import RandomShiftMask, Splits, TensorData
from kdft_lib.data.splits import draw_balanced
from kdft_lib.datasets import asterisk_digits, flite_digits, japanese_vowels, spoken_digits
from kdft_lib.experiments import Classical, Comparison, PerSeed, Recipe, Trained, compare
from kdft_lib.models import DSCNN
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly, Strategy
from kdft_lib.training import fit, predict

SEEDS = range(5)
RATES = (0.003, 0.01, 0.03)
SVMS = [Classical(SVC(C=c)) for c in (1.0, 5.0, 20.0)]
LINEAR = [Classical(LogisticRegression(C=c, max_iter=2000)) for c in (0.01, 0.1, 1.0)]

mel = functools.partial(log_mel, bands=20, hop=160)


class Once:
    """A method that trains once for each seed, and remembers."""

    def __init__(self, method: Any):
        self.method = method
        self.made: dict[int, Trained] = {}

    def train(self, splits: Splits, seed: int) -> Trained:
        if seed not in self.made:
            self.made[seed] = self.method.train(splits, seed)
        return self.made[seed]


def rated(recipe: Recipe, changes: Callable[[Splits, int], dict[str, Any]] | None = None) -> list[Once]:
    """A recipe for each learning rate."""
    rates = [recipe.but(strategy=FullFineTuning(rate)) for rate in RATES]
    return [Once(PerSeed(each, changes) if changes else each) for each in rates]


@dataclass(eq=False)
class Study:
    """A small network and a wide one on the same labels, and the small one taught by what learned from labels."""

    splits: Callable[[int], Splits]
    small: Recipe
    wide: Recipe
    more: Mapping[str, list[Once]] = field(default_factory=dict)
    """What else learned from labels."""

    @functools.cached_property
    def learned(self) -> dict[str, list[Once]]:
        return {"labels": rated(self.small), "the wide network": rated(self.wide), **self.more}

    def choose(self, methods: Mapping[str, list[Once]]) -> dict[str, Once]:
        """Of each, the setting with the highest mean validation accuracy."""
        found = compare(methods, self.splits, seeds=SEEDS, progress=True).chosen
        return {name: methods[name][setting] for name, setting in found.items()}

    @functools.cached_property
    def teachers(self) -> dict[str, Once]:
        return self.choose(self.learned)

    def taught(self, by: str, kind: type[SoftTargets | HardTargets]) -> list[Once]:
        """The small network on labels, and on answers about those clips and all that have no label; teacher and
        student see the same view of a clip.
        """

        def changes(splits: Splits, seed: int) -> dict[str, Any]:
            teacher = self.teachers[by].train(splits, seed)
            teacher.model.card = {"labels": teacher.ledger["labels"]}
            transfer = {"transfer_data": lambda each: each.transfer} if len(splits.transfer) else {}
            return {"objective": kind(teacher.model)} | transfer

        return rated(self.small, changes)


def right(trained: Trained, data: TensorData) -> float:
    assert data.targets is not None
    return (trained.decide(data) == data.targets).double().mean().item()


# Ten digits


@functools.cache
def pool() -> TensorData:
    """All 2,560 clips of 64 voices, with labels."""
    train = spoken_digits(labeled=None).train
    return train.with_inputs(mel(train.inputs))


@functools.cache
def spoken(labels: int, seed: int) -> Splits:
    """So many labels: four fifths to learn from, a fifth, of sixteen other voices, to choose by."""
    splits = spoken_digits(labels * 4 // 5, seed=seed).with_inputs(mel)
    assert splits.val.targets is not None
    drawn, _ = draw_balanced(splits.val.targets, torch.arange(len(splits.val)), labels // 5, seed=seed)
    return splits._replace(val=splits.val[drawn])


def with_labels(unlabeled: TensorData) -> TensorData:
    """The same clips of the pool."""
    places = {row.numpy().tobytes(): place for place, row in enumerate(pool().inputs)}
    return pool()[torch.tensor([places[row.numpy().tobytes()] for row in unlabeled.inputs])]


class OnPool:
    """A method that learns from all 2,560 labels."""

    def __init__(self, method: Classical | Recipe):
        self.method = method

    def train(self, splits: Splits, seed: int) -> Trained:
        return self.method.train(splits._replace(train=pool()), seed)


def network(width: int) -> nn.Module:
    net: nn.Module = DSCNN(width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


VIEWS = RandomShiftMask(shift=5, frames=10, bands=4)
SMALL = Recipe(
    functools.partial(network, 16), Supervised(), FullFineTuning(0.01), steps=400, batch_size=32, augment=VIEWS
)  # fmt: skip
WIDE = SMALL.but(model=functools.partial(network, 48))
FULL_WIDE = "the wide network, 2,560 labels"
STUDY = Study(
    functools.partial(spoken, 300), SMALL, WIDE, {FULL_WIDE: rated(WIDE.but(train_data=lambda _: pool()))}
)  # fmt: skip
DISTILLED = STUDY.taught("the wide network", SoftTargets)
FEW = Study(functools.partial(spoken, 100), SMALL, WIDE)


@functools.cache
def elsewhere() -> dict[str, TensorData]:
    """Voices that nothing learned from: another synthesiser's, and a person's."""
    found = {"flite": flite_digits(), "a person": asterisk_digits()}
    return {name: data.with_inputs(mel(data.inputs)) for name, data in found.items()}


MEASURES = {
    "flite": lambda trained, _: right(trained, elsewhere()["flite"]),
    "a person": lambda trained, _: right(trained, elsewhere()["a person"]),
    "other clips of the training voices": lambda trained, splits: right(trained, with_labels(splits.transfer)),
}


def digits() -> dict[str, Comparison]:
    """300 labels in full, 100 in short: three settings each."""
    return {
        "300 labels": compare(
            {
                "SVM": SVMS,
                "logistic regression": LINEAR,
                "labels, no augmentation": rated(SMALL.but(augment=None)),
                "labels": STUDY.learned["labels"],
                "pseudo-labels of itself": STUDY.taught("labels", HardTargets),
                "decisions of the wide network": STUDY.taught("the wide network", HardTargets),
                "distilled": DISTILLED,
                "the wide network": STUDY.learned["the wide network"],
                "distilled from 2,560 labels": STUDY.taught(FULL_WIDE, SoftTargets),
                "SVM, 2,560 labels": [OnPool(svm) for svm in SVMS],
                "labels, 2,560": [OnPool(SMALL.but(strategy=FullFineTuning(rate))) for rate in RATES],
                FULL_WIDE: STUDY.learned[FULL_WIDE],
            },
            STUDY.splits,
            seeds=SEEDS,
            reference="labels",
            measures=MEASURES,
            progress=True,
        ),
        "100 labels": compare(
            {
                "SVM": SVMS,
                "labels": FEW.learned["labels"],
                "distilled": FEW.taught("the wide network", SoftTargets),
                "the wide network": FEW.learned["the wide network"],
            },
            FEW.splits,
            seeds=SEEDS,
            reference="labels",
            measures=MEASURES,
            progress=True,
        ),
    }


# A new voice

Decide: TypeAlias = Callable[[TensorData], Tensor]


class User(NamedTuple):
    """A voice that the network has not heard."""

    enrolled: TensorData
    """Ten clips, one of each digit."""
    rest: TensorData


@functools.cache
def users(part: str, seed: int) -> list[User]:
    """24 for ``"test"``, eight for ``"val"``, five of another synthesiser for ``"flite"``."""
    if part == "flite":
        clips, accents = elsewhere()["flite"], 3
    else:
        splits = spoken_digits(10)
        clips, accents = (splits.test, 4) if part == "test" else (splits.val, 4)
        clips = clips.with_inputs(mel(clips.inputs))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for place in torch.arange(len(clips)).view(-1, accents, 10):
        # Flite's clips differ by speed alone: the middle one is enrolled.
        which = torch.randint(accents, (10,), generator=generator) if part != "flite" else torch.ones(10).long()
        first = torch.zeros(accents, 10, dtype=torch.bool)
        first[which, torch.arange(10)] = True
        found.append(User(clips[place[first]], clips[place[~first]]))
    return found[::2] if part == "val" else found


def together(parts: list[TensorData]) -> TensorData:
    targets = [part.targets for part in parts if part.targets is not None]
    return TensorData(torch.cat([part.inputs for part in parts]), torch.cat(targets))


@functools.cache
def voices(seed: int) -> Splits:
    """The clips to learn from, of old voices, and what new users say after their ten clips."""
    val, test = (together([user.rest for user in users(part, seed)]) for part in ("val", "test"))
    return spoken(300, seed)._replace(val=val, test=test)


@functools.cache
def student() -> Once:
    """The distilled network."""
    return STUDY.choose({"distilled": DISTILLED})["distilled"]


class ForEachUser:
    """A method that makes a model for each user, from ten clips; it decides about the clips of all, in order."""

    def __init__(self, adapt: Callable[[TensorData, Splits, int], Decide], **ledger: Any):
        self.adapt, self.ledger = adapt, ledger

    def train(self, splits: Splits, seed: int) -> Trained:
        @functools.cache
        def models(part: str) -> list[Decide]:
            return [self.adapt(user.enrolled, splits, seed) for user in users(part, seed)]

        parts = {len(splits.val): "val", len(splits.test): "test"}

        def decide(data: TensorData) -> Tensor:
            deciding = models(parts[len(data)])
            each = torch.arange(len(data)).view(len(deciding), -1)
            return torch.cat([model(data[rows]) for model, rows in zip(deciding, each, strict=True)])

        started = time.perf_counter()
        seconds = len(models("val")) and (time.perf_counter() - started) / len(models("val"))
        ledger = {"labels": 10, "unlabeled": 0, "steps": 0, "teacher_labels": 0, "pretraining": "none"}
        return Trained(decide, ledger | {"seconds": seconds} | self.ledger, models)


STEPS_FOR_A_USER = 30
KNOWN = {"pretraining": "the distilled network", "teacher_labels": 240}


def fine_tuned(strategies: list[Strategy], *, replay: bool = False) -> list[ForEachUser]:
    """The distilled network, on a user's ten clips; with replay, three clips of old voices beside each."""

    def adapting(strategy: Strategy) -> Callable[[TensorData, Splits, int], Decide]:
        def adapt(enrolled: TensorData, splits: Splits, seed: int) -> Decide:
            model = copy.deepcopy(student().train(spoken(300, seed), seed).model)
            data = together([*[enrolled] * 8, splits.train]) if replay else enrolled
            fit(
                model, data, objective=Supervised(), strategy=strategy, steps=STEPS_FOR_A_USER,
                batch_size=40 if replay else 10, augment=VIEWS, seed=seed, progress=False,
            )  # fmt: skip
            return lambda rows: predict(model, rows).argmax(dim=-1)

        return adapt

    labels = 250 if replay else 10
    return [ForEachUser(adapting(strategy), labels=labels, steps=STEPS_FOR_A_USER, **KNOWN) for strategy in strategies]


def as_it_was(enrolled: TensorData, splits: Splits, seed: int) -> Decide:
    return student().train(spoken(300, seed), seed).decide


def svm(weight: float | None) -> Callable[[TensorData, Splits, int], Decide]:
    """On the labelled clips of old voices and, unless the weight is None, the user's, which weigh so much."""

    def adapt(enrolled: TensorData, splits: Splits, seed: int) -> Decide:
        data = together([splits.train, enrolled]) if weight else splits.train
        weights = torch.ones(len(data))
        weights[len(splits.train) :] = weight or 1.0
        assert data.targets is not None
        estimator = SVC(C=5.0).fit(data.inputs.flatten(1).numpy(), data.targets.numpy(), weights.numpy())
        return lambda rows: torch.from_numpy(estimator.predict(rows.inputs.flatten(1).numpy()))

    return adapt


def of_old_voices(part: str, trained: Trained, splits: Splits) -> float:
    """After each user's clips: accuracy on 320 clips of the training voices."""
    old = with_labels(splits.transfer[:320])
    assert old.targets is not None
    return torch.stack([(model(old) == old.targets).double().mean() for model in trained.model(part)]).mean().item()


def of_a_voice(part: str, place: int, trained: Trained, seed: int) -> float:
    rest = users(part, seed)[place].rest
    assert rest.targets is not None
    return (trained.model(part)[place](rest) == rest.targets).double().mean().item()


def new_voices() -> dict[str, Comparison]:
    """The distilled network meets a user who says each digit once: three settings each, chosen on eight other
    users.
    """
    comparison = compare(
        {
            "as it was": ForEachUser(as_it_was, labels=0, **KNOWN),
            "head alone": fine_tuned([HeadOnly("head", rate) for rate in (0.01, 0.03, 0.1)]),
            "everything": fine_tuned([FullFineTuning(rate) for rate in (0.001, 0.003, 0.01)]),
            "everything, with replay": fine_tuned([FullFineTuning(rate) for rate in (0.001, 0.003, 0.01)], replay=True),
            "SVM as it was": ForEachUser(svm(None), labels=240),
            "SVM, fitted again": [ForEachUser(svm(weight), labels=250) for weight in (1.0, 3.0, 10.0)],
        },
        voices,
        seeds=SEEDS,
        reference="as it was",
        measures={f"old voices, after {part}": functools.partial(of_old_voices, part) for part in ("test", "flite")},
        progress=True,
    )
    for part, count in (("test", 24), ("flite", 5)):
        for place in range(count):
            comparison.measured[f"{part} {place}"] = {
                name: [of_a_voice(part, place, run, seed) for run, seed in zip(runs, SEEDS, strict=True)]
                for name, runs in comparison.trained.items()
            }
    return {"new voices": comparison}


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
    small = Recipe(
        functools.partial(over_time, 16), Supervised(), FullFineTuning(0.01), steps=300, batch_size=32,
        augment=RandomShiftMask(shift=2, frames=4, bands=2),
    )  # fmt: skip
    found = {}
    for labels in (45, 90, None):
        study = Study(functools.partial(men, labels), small, small.but(model=functools.partial(over_time, 64)))
        methods: dict[str, Any] = {
            "SVM": SVMS,
            "logistic regression": LINEAR,
            "labels, no augmentation": rated(small.but(augment=None)),
            **study.learned,
            "distilled": study.taught("the wide network", SoftTargets),
        }
        if labels:
            methods["pseudo-labels of itself"] = study.taught("labels", HardTargets)
            methods["decisions of the wide network"] = study.taught("the wide network", HardTargets)
        found[f"{labels or 270} labels"] = compare(
            methods, study.splits, seeds=SEEDS, reference="labels", progress=True
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main({"speech": digits, "speech-voice": new_voices, "speech-vowels": vowels})
