"""What stands beside a network, and what is made of methods: on features, named by another, between two."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdft_lib.data import UNLABELED, Splits, TensorData
from kdft_lib.experiments.trained import Method, Source, Trained, as_module, found
from kdft_lib.teachers import Ensemble
from kdft_lib.training import Ledger, interpolate


class Wrapped:
    """A method around another: what it does not know itself, :meth:`but` changes in that one.

    Example:
        >>> from sklearn.svm import SVC
        >>> @dataclass(frozen=True)
        ... class Twice(Wrapped):
        ...     method: Method
        ...
        ...     def train(self, splits, seed):
        ...         return self.method.train(splits._replace(train=splits.train.with_rows(splits.train)), seed)
        >>> Twice(Classical(SVC())).but(C=5.0).method.estimator
        SVC(C=5.0)
    """

    method: Any

    def but(self, **changes: Any) -> Any:
        """The same with some settings changed, its own or those of the method inside."""
        own = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        mine = {name: value for name, value in changes.items() if name in own}
        others = {name: value for name, value in changes.items() if name not in own}
        if others:
            mine["method"] = mine.get("method", self.method).but(**others)
        return dataclasses.replace(self, **mine)  # type: ignore[type-var]


@dataclass(frozen=True)
class Classical:
    """A scikit-learn classifier: what a practitioner would try first.

    Attributes:
        estimator: Unfitted; each seed fits a clone, with ``random_state`` set where it has one.
        shown: What it is shown of the data, a function of it; by default the inputs, flattened to rows.
        weights: How much each row counts in the fit, a function of the training data; by default all alike.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> Classical(LogisticRegression()).but(C=10.0).train(splits, seed=0).decide(data)[:2]
        tensor([0, 1])
    """

    estimator: Any
    shown: Callable[[TensorData], Any] | None = None
    weights: Callable[[TensorData], Any] | None = None

    def but(self, **changes: Any) -> Classical:
        """The same with other parameters of the estimator, as its ``set_params`` names them."""
        from sklearn.base import clone

        own = {name: changes.pop(name) for name in ("estimator", "shown", "weights") if name in changes}
        changed = dataclasses.replace(self, **own)
        return dataclasses.replace(changed, estimator=clone(changed.estimator).set_params(**changes))

    def train(self, splits: Splits, seed: int) -> Trained:
        """Fit a clone to the labelled rows."""
        from sklearn.base import clone

        estimator = clone(self.estimator)
        seeded = [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]
        estimator.set_params(**dict.fromkeys(seeded, seed))
        train, targets = splits.train, splits.train.targets
        if targets is None:
            raise ValueError("train has no targets; a classical method needs labels")
        labeled = targets != UNLABELED
        if not bool(labeled.all()):
            train, targets = train[labeled], targets[labeled]
        trained = Trained(estimator, Ledger(), shown=self.shown, seed=seed)
        rows = trained._shown(train)
        # A pipeline hands on what is named after its last step.
        named = f"{estimator.steps[-1][0]}__sample_weight" if hasattr(estimator, "steps") else "sample_weight"
        weighted = {} if self.weights is None else {named: self.weights(train)}
        started = time.perf_counter()
        estimator.fit(rows, targets.numpy(), **weighted)
        trained.ledger = Ledger(labels=len(train), seconds=time.perf_counter() - started)
        return trained


@dataclass(frozen=True)
class Given(Wrapped):
    """A method that is given other data: more labels, some that were kept, another part.

    Attributes:
        method: What is trained.
        change: A function from the seed's splits and the seed to the splits that the method sees.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> fewer = Given(Classical(LogisticRegression()), lambda splits, seed: splits._replace(train=data[:4]))
        >>> fewer.train(splits, seed=0).ledger.labels
        4
    """

    method: Method
    change: Callable[[Splits, int], Splits]

    def train(self, splits: Splits, seed: int) -> Trained:
        """Train the method on what it is given."""
        return self.method.train(self.change(splits, seed), seed)


@dataclass(frozen=True)
class OnFeatures(Wrapped):
    """A method that is shown, in place of the inputs, what a frozen body makes of them.

    Attributes:
        method: Learns from features and decides by them.
        features: A function from data to the same rows with features as inputs, such as
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
        """Compute the features of the labelled rows, and of what else the method looks at, and train it on them."""
        given = splits._replace(train=self.features(splits.train))
        if len(splits.transfer) and any(map(_reads_unlabeled, _inside(self.method))):
            given = given._replace(transfer=self.features(splits.transfer))
        if len(splits.val) and any(map(_validates, _inside(self.method))):
            given = given._replace(val=self.features(splits.val))
        trained = self.method.train(given, seed)
        alike = dataclasses.replace(trained, ledger=Ledger())  # Without its seconds, which are never the same.
        return dataclasses.replace(
            trained,
            ledger=trained.ledger + Ledger(pretraining=self.pretraining),
            shown=functools.partial(_shown_features, self.features, alike),
            decides=trained.decides and functools.partial(_decided_by_features, self.features, alike),
        )


def _shown_features(features: Callable[[TensorData], TensorData], trained: Trained, data: TensorData) -> Any:
    return trained._shown(features(data))


def _decided_by_features(features: Callable[[TensorData], TensorData], trained: Trained, data: TensorData) -> Tensor:
    return trained.decide(features(data))


def _inside(method: Any) -> Iterator[Any]:
    """A method, and those that it is around."""
    while method is not None:
        yield method
        method = getattr(method, "method", None)


def _reads_unlabeled(method: Any) -> bool:
    """Whether it looks at the inputs without labels."""
    named_or_taught = getattr(method, "namer", None) is not None or getattr(method, "transfer_data", None) is not None
    return named_or_taught or getattr(method, "train_data", "train") != "train"


def _validates(method: Any) -> bool:
    return getattr(getattr(method, "settings", None), "validates", False)


@dataclass(frozen=True)
class Members(Wrapped):
    """Several of one method, which differ in their seeds, as an ensemble.

    Attributes:
        method: What is trained, so many times.
        count: The number of members; their seeds are ``first + count * seed`` and those after.
        first: Where these seeds begin, so that none is the comparison's own.

    Example:
        >>> from kdft_lib.objectives import Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> from kdft_lib.experiments import Recipe
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> one = Recipe(lambda: torch.nn.Linear(2, 2), Supervised, FullFineTuning(lr=0.1), steps=2)
        >>> len(Members(one, 3).train(splits, seed=0).model.members)
        3
    """

    method: Method
    count: int
    first: int = 1000

    def train(self, splits: Splits, seed: int) -> Trained:
        """Train all of them."""
        start = self.first + self.count * seed
        members = [self.method.train(splits, start + member) for member in range(self.count)]
        ledger = sum((member.ledger for member in members[1:]), members[0].ledger)
        return Trained(Ensemble([as_module(member) for member in members]), ledger, seed=seed)


@dataclass(frozen=True)
class Interpolated(Wrapped):
    """A fine-tuned model, brought back by a part of the way to its start: WiSE-FT (Wortsman et al., 2022).

    Attributes:
        method: A :class:`Recipe` with a ``start``.
        alpha: The place between them, from 0, the start, to 1, the fine-tuned model.

    Example:
        >>> from kdft_lib.objectives import Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> from kdft_lib.experiments import Recipe
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> start = torch.nn.Linear(2, 2)
        >>> tuned = Recipe(lambda: start, Supervised, FullFineTuning(lr=0.1), start=start, steps=2)
        >>> bool((Interpolated(tuned, 0.0).train(splits, seed=0).model.weight == start.weight).all())
        True
    """

    method: Any
    alpha: float = 1.0

    def train(self, splits: Splits, seed: int) -> Trained:
        """Fine-tune, and go back."""
        tuned = self.method.train(splits, seed)
        start = found(self.method.start, splits, seed).model
        return dataclasses.replace(tuned, model=interpolate(start, tuned.model, self.alpha))


@dataclass(frozen=True)
class Then(Wrapped):
    """A method, and something else that is made of what it trained: a smaller model, another way to decide.

    Attributes:
        method: What is trained, or another source of something trained.
        change: A function from what was trained, the seed's splits and the seed to what it becomes.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5))
        >>> splits = Splits(data, data.without_labels(), data, data)
        >>> def contrary(trained, splits, seed):
        ...     return trained.but(decides=lambda data: 1 - trained.decide(data))
        >>> Then(Classical(LogisticRegression()), contrary).train(splits, seed=0).decide(data)[:2]
        tensor([1, 0])
    """

    method: Source
    change: Callable[[Trained, Splits, int], Trained]

    def train(self, splits: Splits, seed: int) -> Trained:
        """Train the method, and change what came out."""
        return self.change(found(self.method, splits, seed), splits, seed)
