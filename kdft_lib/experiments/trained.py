"""What a method leaves behind, and whom others can learn from."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.data import UNLABELED, Splits, TensorData
from kdft_lib.objectives import Objective
from kdft_lib.teachers import Teacher
from kdft_lib.training import History, Ledger, predict

_SURE, _IMPOSSIBLE = 10.0, -50.0
_number = itertools.count()


@dataclass
class Trained:
    """What a method leaves behind for one seed.

    Attributes:
        model: A network, or a fitted classifier of scikit-learn.
        ledger: What was consumed.
        history: The history of the run, for networks.
        objective: What a network learned from.
        shown: What the model is shown of the data: a function of it. By default the data for a network, and its
            inputs as rows of numbers for a classifier.
        decides: From data to decided classes, for what decides otherwise than by the model's highest logit.
        seed: The seed that it was trained with.

    Example:
        >>> sure = Trained(nn.Identity(), Ledger())
        >>> sure.decide(TensorData(torch.eye(3)))
        tensor([0, 1, 2])
    """

    model: Any
    ledger: Ledger
    history: History | None = None
    objective: Objective | None = None
    shown: Callable[[TensorData], Any] | None = None
    decides: Callable[[TensorData], Tensor] | None = None
    seed: int | None = None

    def but(self, **changes: Any) -> Trained:
        """The same with some attributes changed, its own or those of its ledger.

        Example:
            >>> Trained(nn.Identity(), Ledger(labels=5)).but(unlabeled=3).ledger.unlabeled
            3
        """
        own = {field.name for field in dataclasses.fields(self)}
        counted = {name: value for name, value in changes.items() if name not in own}
        mine = {name: value for name, value in changes.items() if name in own}
        mine["ledger"] = dataclasses.replace(mine.get("ledger", self.ledger), **counted)
        return dataclasses.replace(self, **mine)

    def decide(self, data: TensorData) -> Tensor:
        """Decided classes, int64 ``(N,)``."""
        if self.decides is not None:
            return self.decides(data)
        if isinstance(self.model, nn.Module):
            return self.logits(data).argmax(dim=-1)
        return torch.from_numpy(self.model.predict(self._shown(data)))

    def logits(self, data: TensorData) -> Tensor:
        """A network's logits, a classifier's log-probabilities where it has them, or else its decisions, as one
        class at 10 and the others at 0.
        """
        if isinstance(self.model, nn.Module):
            return predict(self.model, self._shown(data))
        known = torch.as_tensor(self.model.classes_)
        if hasattr(self.model, "predict_proba"):
            # Some classifiers of scikit-learn have probabilities and not their logarithms.
            if hasattr(self.model, "predict_log_proba"):
                said = torch.from_numpy(self.model.predict_log_proba(self._shown(data))).float()
            else:
                said = (
                    torch.from_numpy(self.model.predict_proba(self._shown(data))).log().clamp_min(_IMPOSSIBLE).float()
                )
            # Classes that it has not met are as good as impossible.
            return said.new_full((len(said), int(known.max()) + 1), _IMPOSSIBLE).index_copy(1, known, said)
        return _SURE * F.one_hot(self.decide(data), int(known.max()) + 1).float()

    def accuracy(self, data: TensorData) -> float:
        """The share of the labelled rows that are decided rightly.

        Raises:
            ValueError: If the data has no targets.
        """
        if data.targets is None:
            raise ValueError("data has no targets, so nothing can be scored")
        labeled = data.targets.cpu() != UNLABELED
        return (self.decide(data).cpu() == data.targets.cpu())[labeled].double().mean().item()

    def _shown(self, data: TensorData) -> Any:
        if self.shown is not None:
            return self.shown(data)
        return data if isinstance(self.model, nn.Module) else data.inputs.flatten(1).numpy()


@runtime_checkable
class Method(Protocol):
    """Anything that can be trained on splits with a seed.

    Example:
        >>> class Nothing:
        ...     def train(self, splits, seed):
        ...         return Trained(nn.Identity(), Ledger())
        >>> isinstance(Nothing(), Method)
        True
    """

    def train(self, splits: Splits, seed: int) -> Trained:
        """Learn from everything but ``splits.test``."""


Source: TypeAlias = nn.Module | Teacher | Method | Callable[[Splits, int], Any]
"""Where a model comes from: itself, for every seed the same; a method, trained on the seed's splits; or a function of
splits and seed to a model or to something :class:`Trained`, for which torch's generator is seeded before."""


class Answering(nn.Module):
    """Something that was trained, as a module of its own: its logits for a batch of inputs.

    Args:
        trained: What is asked, such as a forest, or an SVM on features.

    Example:
        >>> Answering(Trained(nn.Linear(3, 2), Ledger()))(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, trained: Trained):
        super().__init__()
        self.trained = trained
        # Without weights, nothing else would tell one from another, in this process or the next.
        self.register_buffer("told", torch.tensor(_told(trained)))

    def forward(self, inputs: Tensor | None = None, **named: Tensor) -> Tensor:
        given = named if inputs is None else {"": inputs}
        there = {name: tensor.cpu() for name, tensor in given.items()}
        return self.trained.logits(TensorData(there.get("", there))).to(next(iter(given.values())).device)


def _told(trained: Trained) -> int:
    """A number that is the same for what was trained alike."""
    parts = [_content(part) for part in (trained.model, trained.shown, trained.decides)]
    return int(hashlib.sha256(b" ".join(parts)).hexdigest()[:15], 16)


def _content(part: Any) -> bytes:
    if isinstance(part, nn.Module):
        return Teacher(part).fingerprint().encode()
    try:
        return pickle.dumps(part)
    except (pickle.PicklingError, AttributeError, TypeError):
        return f"{part!r} {next(_number)}".encode()  # Its own, for want of anything that tells it.


def found(source: Source, splits: Splits, seed: int) -> Trained:
    """What a source is for a seed.

    Args:
        source: A model, a method, or a function of splits and seed.
        splits: The seed's splits.
        seed: The seed, which torch's generator starts from.

    Example:
        >>> found(per_seed(lambda seed: nn.Linear(1, seed)), None, 3).model.out_features
        3
    """
    made = _made(source, splits, seed)
    if isinstance(made, Trained):
        return made
    return Trained(made.model, Ledger(labels=made.labels or 0, pretraining=made.pretraining), seed=seed)


def _made(source: Source, splits: Splits, seed: int) -> Trained | Teacher:
    if isinstance(source, nn.Module | Teacher):
        return Teacher(source)
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        made = source.train(splits, seed) if isinstance(source, Method) else source(splits, seed)
    return made if isinstance(made, Trained) else _made(made, splits, seed)


def as_teacher(source: Source, splits: Splits, seed: int) -> Teacher:
    """A source's model for a seed, as a teacher that knows what it cost."""
    trained = _made(source, splits, seed)
    if isinstance(trained, Teacher):
        return trained
    ledger = trained.ledger
    behind = None if ledger.teacher_labels is None else max(ledger.labels, ledger.teacher_labels)
    return Teacher(as_module(trained), labels=behind, pretraining=ledger.pretraining)


def as_module(trained: Trained) -> nn.Module:
    """A network that sees the inputs as they are, or what asks another model for its logits."""
    plain = isinstance(trained.model, nn.Module) and trained.shown is None
    return trained.model if plain else Answering(trained)


def shown(thing: Any) -> str:
    """What tells one thing from another: of a model or a teacher its fingerprint, of an objective its teachers'."""
    if isinstance(thing, Objective):
        asked = [Teacher(thing), *thing.teachers()]
        return " ".join([repr(thing), *(teacher.fingerprint() for teacher in asked)])
    if isinstance(thing, functools.partial):
        given = [*thing.args, *(part for item in thing.keywords.items() for part in item)]
        return f"{thing.func!r}({', '.join(map(shown, given))})"
    return Teacher(thing).fingerprint() if isinstance(thing, nn.Module | Teacher) else repr(thing)


def a_copy(model: nn.Module, change: Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
    """A model to go on from, changed if wanted."""
    own = copy.deepcopy(model)
    return own if change is None else change(own)


class Once:
    """A method that is trained once for each seed, and remembers: for comparisons and students that share it.

    Args:
        method: What is trained.

    Example:
        >>> class Counted:
        ...     def train(self, splits, seed):
        ...         print("trained")
        ...         return Trained(nn.Identity(), Ledger())
        >>> once = Once(Counted())
        >>> once.train(None, seed=0) is once.train(None, seed=0)
        trained
        True
    """

    def __init__(self, method: Method):
        self.method = method
        self._kept: dict[int, Trained] = {}

    def __repr__(self) -> str:
        return f"Once({self.method!r})"

    def but(self, **changes: Any) -> Once:
        """The same of the method with some settings changed."""
        return Once(self.method.but(**changes))  # type: ignore[attr-defined]

    def train(self, splits: Splits, seed: int) -> Trained:
        """Train it, or remember."""
        if seed not in self._kept:
            self._kept[seed] = self.method.train(splits, seed)
        return self._kept[seed]


def per_seed(make: Callable[[int], Any]) -> Callable[[Splits, int], Any]:
    """A source made from the seed alone, kept for later.

    Args:
        make: What makes, of the seed, a model or something :class:`Trained`.

    Example:
        >>> source = per_seed(lambda seed: nn.Linear(1, 1))
        >>> source(None, 3) is source(None, 3)
        True
    """
    return _PerSeed(make)


class _PerSeed:
    """A source that needs no splits, and remembers."""

    def __init__(self, make: Callable[[int], Any]):
        self.make = make
        self._kept = functools.cache(make)

    def __repr__(self) -> str:
        return f"per_seed({self.make!r})"

    def __call__(self, splits: Splits, seed: int) -> Any:
        return self._kept(seed)
