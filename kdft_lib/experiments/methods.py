"""What can be compared: a recipe for a network, or a classical method beside it."""

from __future__ import annotations

import dataclasses
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdft_lib.data import Splits, TensorData
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import History, fit, predict

UNKNOWN = "unknown"


@dataclass
class Trained:
    """What a method leaves behind for one seed.

    Attributes:
        decide: From data to decided classes, int64 ``(N,)``.
        ledger: What was consumed.
        model: The network, or whatever decides.
        history: Of the run, for networks.
        objective: What a network learned from.

    Example:
        >>> decide = lambda data: torch.zeros(len(data), dtype=torch.int64)
        >>> Trained(decide, {"labels": 0}, model=None).decide(TensorData(torch.zeros(3, 2)))
        tensor([0, 0, 0])
    """

    decide: Callable[[TensorData], Tensor]
    ledger: dict[str, Any]
    model: Any
    history: History | None = None
    objective: Objective | None = None


class Method(Protocol):
    """Anything that can be trained on splits with a seed.

    Example:
        >>> isinstance(Classical, type) and hasattr(Classical, "train") and hasattr(Recipe, "train")
        True
    """

    def train(self, splits: Splits, seed: int) -> Trained:
        """Learn from everything but ``splits.test``."""


@dataclass(frozen=True)
class Recipe:
    """The four choices and a budget: one call of :func:`kdft_lib.training.fit`.

    Attributes:
        model: Makes the student; torch's generator is seeded before.
        objective: What it learns from.
        strategy: What may move.
        steps: Optimiser steps.
        train_data: Which part of the splits to learn from, a function of them.
        transfer_data: Which part to use without labels, if any.
        batch_size: See :func:`~kdft_lib.training.fit`, as the following.
        augment: A function of the inputs.
        optimizer: Makes one from parameter groups.
        schedule: Of the learning rate.
        pretraining: What the student, or its teacher, knew before, in words for the ledger.

    Example:
        >>> from kdft_lib.models import ConvNet
        >>> from kdft_lib.objectives import Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> labels = Recipe(ConvNet, Supervised(), FullFineTuning(1e-2), steps=400)
        >>> labels.but(objective=Supervised(label_smoothing=0.1)).steps
        400
    """

    model: Callable[[], nn.Module]
    objective: Objective
    strategy: Strategy
    steps: int
    train_data: Callable[[Splits], TensorData] = operator.attrgetter("train")
    transfer_data: Callable[[Splits], TensorData] | None = None
    batch_size: int = 128
    augment: Callable[[Any], Any] | None = None
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] = torch.optim.AdamW
    schedule: Any = "one_cycle"
    pretraining: str = "none"

    def but(self, **changes: Any) -> Recipe:
        """The same with one choice changed, or several."""
        return dataclasses.replace(self, **changes)

    def train(self, splits: Splits, seed: int) -> Trained:
        """Make the student and train it; one seed sets the initialisation and the order."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            model = self.model()
        transfer = self.transfer_data(splits) if self.transfer_data is not None else None
        history = fit(
            model, self.train_data(splits), objective=self.objective, strategy=self.strategy, steps=self.steps,
            transfer_data=transfer, batch_size=self.batch_size, augment=self.augment, optimizer=self.optimizer,
            schedule=self.schedule, seed=seed, progress=False,
        )  # fmt: skip
        ledger = history.ledger | {"teacher_labels": self._teacher_labels(), "pretraining": self.pretraining}
        return Trained(lambda data: predict(model, data).argmax(dim=-1), ledger, model, history, self.objective)

    def _teacher_labels(self) -> int | str:
        counts = [getattr(teacher.model, "card", {}).get("labels", UNKNOWN) for teacher in self.objective.teachers()]
        return UNKNOWN if UNKNOWN in counts else max(counts, default=0)


@dataclass(frozen=True)
class PerSeed:
    """A recipe of which something is made anew for each seed: a teacher that was trained on the same
    labels, a penalty toward where this seed starts.

    Attributes:
        recipe: What stays.
        changes: From the seed's splits and the seed to what :meth:`Recipe.but` changes.

    Example:
        >>> from kdft_lib.models import ConvNet
        >>> from kdft_lib.objectives import SoftTargets, Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> alone = Recipe(ConvNet, Supervised(), FullFineTuning(1e-2), steps=1)
        >>> data = TensorData(torch.randn(10, 1, 28, 28), torch.arange(10))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> again = PerSeed(alone, lambda splits, seed: {"objective": SoftTargets(alone.train(splits, seed).model)})
        >>> sorted(again.train(splits, seed=0).history.steps[0])[-1]
        'step'
    """

    recipe: Recipe
    changes: Callable[[Splits, int], Mapping[str, Any]]

    def train(self, splits: Splits, seed: int) -> Trained:
        """Make the changes and train the recipe."""
        return self.recipe.but(**self.changes(splits, seed)).train(splits, seed)


@dataclass(frozen=True)
class Classical:
    """A scikit-learn classifier on the inputs as they are, flattened to rows: what a practitioner
    would try first.

    Attributes:
        estimator: Unfitted; each seed fits a clone, with ``random_state`` set where it has one.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> Classical(LogisticRegression()).train(splits, seed=0).decide(data)[:2]
        tensor([0, 1])
    """

    estimator: Any

    def train(self, splits: Splits, seed: int) -> Trained:
        """Fit a clone to the labelled images."""
        from sklearn.base import clone

        estimator = clone(self.estimator)
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=seed)
        targets = splits.train.targets
        if targets is None:
            raise ValueError("train has no targets; a classical method needs labels")
        started = time.perf_counter()
        estimator.fit(splits.train.inputs.flatten(1).numpy(), targets.numpy())
        ledger = {
            "labels": len(splits.train),
            "unlabeled": 0,
            "steps": 0,
            "seconds": time.perf_counter() - started,
            "teacher_labels": 0,
            "pretraining": "none",
        }

        def decide(data: TensorData) -> Tensor:
            return torch.from_numpy(estimator.predict(data.inputs.flatten(1).numpy()))

        return Trained(decide, ledger, estimator)


@dataclass(frozen=True)
class OnFeatures:
    """A method that is shown, in place of the inputs, what a frozen body makes of them.

    Attributes:
        method: Learns from features and decides by them.
        features: From data to the same rows with features as inputs, such as
            ``lambda data: kdft_lib.features.precompute(body, "head", data)[1]``. The labelled rows go through it
            before the training, other rows when something is decided of them.
        pretraining: What the body knew before, in words for the ledger.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> doubled = OnFeatures(Classical(LogisticRegression()), lambda data: data.with_inputs(2 * data.inputs))
        >>> doubled.train(splits, seed=0).decide(data)[:2]
        tensor([0, 1])
    """

    method: Method
    features: Callable[[TensorData], TensorData]
    pretraining: str = "none"

    def train(self, splits: Splits, seed: int) -> Trained:
        """Compute the features of the labelled rows, and train the method on them."""
        trained = self.method.train(splits._replace(train=self.features(splits.train)), seed)
        decide = trained.decide
        return dataclasses.replace(
            trained,
            decide=lambda data: decide(self.features(data)),
            ledger=trained.ledger | {"pretraining": self.pretraining},
        )
