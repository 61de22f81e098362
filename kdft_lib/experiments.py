"""Fair comparisons: the same budget, several seeds, an interval, and a ledger of what it cost."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import itertools
import json
import operator
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdft_lib.data import Splits, TensorData
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import History, fit, predict
from kdft_lib.training.progress import progress_bar

if TYPE_CHECKING:
    import pandas

UNKNOWN = "unknown"


@dataclass
class Trained:
    """What a method leaves behind for one seed.

    Attributes:
        decide: From data to decided classes, int64 ``(N,)``.
        ledger: What was consumed.
        model: The network, or whatever decides.
        history: Of the run, for networks.
    """

    decide: Callable[[TensorData], Tensor]
    ledger: dict[str, Any]
    model: Any
    history: History | None = None


class Method(Protocol):
    """Anything that can be trained on splits with a seed."""

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
        return Trained(lambda data: predict(model, data).argmax(dim=-1), ledger, model, history)

    def _teacher_labels(self) -> int | str:
        teacher = self.objective.teacher
        return 0 if teacher is None else getattr(teacher.model, "card", {}).get("labels", UNKNOWN)


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
            "unlabelled": 0,
            "steps": 0,
            "seconds": time.perf_counter() - started,
            "teacher_labels": 0,
            "pretraining": "none",
        }

        def decide(data: TensorData) -> Tensor:
            return torch.from_numpy(estimator.predict(data.inputs.flatten(1).numpy()))

        return Trained(decide, ledger, estimator)


Candidates: TypeAlias = Method | Sequence[Method]


class Interval(NamedTuple):
    """A mean difference over seeds, with its two-sided 95 % interval and p-value (paired t-test)."""

    mean: float
    low: float
    high: float
    p: float


@dataclass
class Comparison:
    """Test accuracies of several methods on the same seeds. A notebook shows both tables.

    Attributes:
        test: For each method, the accuracy (0 to 1) of each seed, of the chosen setting.
        val: For each method and setting tried, the validation accuracy of each seed.
        chosen: For each method, which of its settings had the highest mean validation accuracy.
        ledgers: For each method, what its chosen setting consumed, for each seed.
        seeds: In the order of the accuracies.
        reference: The method that the differences are against.
        trained: For each method, what its chosen setting left behind; not recorded.
    """

    test: dict[str, list[float]]
    val: dict[str, list[list[float]]]
    chosen: dict[str, int]
    ledgers: dict[str, list[dict[str, Any]]]
    seeds: list[int]
    reference: str
    trained: dict[str, list[Trained]] = field(default_factory=dict, repr=False, compare=False)

    def difference(self, method: str, reference: str | None = None) -> Interval:
        """How much better a method is than the reference, in accuracy, seed by seed.

        Raises:
            KeyError: If one of them was not compared.
        """
        return paired_interval(self.test[method], self.test[reference or self.reference])

    def table(self) -> pandas.DataFrame:
        """Mean and standard deviation of the test accuracy in percent, the difference from the
        reference with its paired 95 % interval, and the groups that Holm's correction leaves: two
        methods that share a letter cannot be told apart at 5 %.
        """
        import pandas

        letters = groups(self.test)
        rows = []
        for method, scores in self.test.items():
            mean, deviation = _mean_deviation([100 * score for score in scores])
            row = {"method": method, "test accuracy, %": f"{mean:.1f} ± {deviation:.1f}"}
            if method == self.reference:
                row["difference [95 % interval]"] = "reference"
            else:
                gap = self.difference(method)
                row["difference [95 % interval]"] = f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
            if len(self.test) > 2:
                row["group"] = letters[method]
            rows.append(row)
        return pandas.DataFrame(rows).set_index("method")

    def ledger(self) -> pandas.DataFrame:
        """What each method consumed: labels to train, to choose and of its teacher; unlabelled
        inputs; pretraining; optimiser steps; mean seconds; settings tried.
        """
        import pandas

        rows = []
        for method, entries in self.ledgers.items():
            first = entries[0]
            rows.append({
                "method": method,
                "labels": f"{first['labels']:,}",
                "to choose": f"{first['choosing']:,}",
                "teacher's labels": first["teacher_labels"] if first["teacher_labels"] == UNKNOWN
                else f"{first['teacher_labels']:,}",
                "unlabelled": f"{first['unlabelled']:,}",
                "pretraining": first["pretraining"],
                "steps": f"{first['steps']:,}",
                "seconds": f"{sum(entry['seconds'] for entry in entries) / len(entries):.1f}",
                "settings tried": len(self.val[method]),
            })  # fmt: skip
        return pandas.DataFrame(rows).set_index("method")

    def _repr_html_(self) -> str:
        seeds = len(self.seeds)
        return (
            f"{self.table().to_html(border=0)}"
            f"<p>{seeds} seeds; intervals are paired over seeds. Ledger, for one seed:</p>"
            f"{self.ledger().to_html(border=0)}"
        )

    def __str__(self) -> str:
        return f"{self.table().to_string()}\n\n{self.ledger().to_string()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: value for name, value in vars(self).items() if name != "trained"}


def compare(
    methods: Mapping[str, Candidates],
    splits: Callable[[int], Splits],
    *,
    seeds: Iterable[int] = range(5),
    reference: str | None = None,
    equal_budgets: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Train every method on every seed, choose its setting on validation, and score it once on test.

    One seed sets the split, the initialisation and the order, and all methods share it. A method
    given as a list of settings ends with the one of highest mean validation accuracy; the test
    scores of the others are never computed.

    Args:
        methods: Each a :class:`Recipe`, a :class:`Classical`, anything with their ``train``, or a
            list of them to choose from.
        splits: From a seed to splits, such as ``lambda seed: fashion_mnist(1000, seed=seed)``.
        seeds: At least two; five or more to be believed.
        reference: The method that differences are against; by default the first.
        equal_budgets: Whether recipes must have the same steps and batch sizes.
        progress: A progress bar; by default where a person watches.

    Returns:
        :class:`Comparison`.

    Raises:
        ValueError: If there are fewer than two seeds, no method, budgets that differ, or a
            reference that is none of the methods.
    """
    candidates = {name: list(entry) if isinstance(entry, Sequence) else [entry] for name, entry in methods.items()}
    seeds = list(seeds)
    reference = reference if reference is not None else next(iter(candidates), "")
    _check_comparison(candidates, seeds, reference, equal_budgets)
    results: dict[str, list[list[_Result]]] = {name: [[] for _ in entries] for name, entries in candidates.items()}
    for seed, parts, name, index in _all_runs(candidates, seeds, splits, progress):
        trained = candidates[name][index].train(parts, seed)
        trained.ledger["choosing"] = len(parts.val) if len(candidates[name]) > 1 else 0
        results[name][index].append(_Result(trained, _accuracy(trained, parts.val), trained.decide(parts.test)))
    val = {name: [[run.val for run in runs] for runs in entries] for name, entries in results.items()}
    chosen = {name: max(range(len(runs)), key=lambda index: sum(runs[index])) for name, runs in val.items()}
    final = {name: entries[chosen[name]] for name, entries in results.items()}
    truth = [splits(seed).test.targets for seed in seeds]
    test = {
        name: [_share(run.decisions, targets) for run, targets in zip(runs, truth, strict=True)]
        for name, runs in final.items()
    }
    return Comparison(
        test=test,
        val=val,
        chosen=chosen,
        ledgers={name: [run.trained.ledger for run in runs] for name, runs in final.items()},
        seeds=seeds,
        reference=reference,
        trained={name: [run.trained for run in runs] for name, runs in final.items()},
    )


class _Result(NamedTuple):
    trained: Trained
    val: float
    decisions: Tensor


def _all_runs(
    candidates: Mapping[str, list[Any]], seeds: list[int], splits: Callable[[int], Splits], progress: bool | None
) -> Iterator[tuple[int, Splits, str, int]]:
    count = len(seeds) * sum(len(entries) for entries in candidates.values())
    with progress_bar(count, "run", progress) as bar:
        for seed in seeds:
            parts = splits(seed)
            for name, entries in candidates.items():
                for index in range(len(entries)):
                    yield seed, parts, name, index
                    bar.update()


def paired_interval(scores: Sequence[float], reference: Sequence[float]) -> Interval:
    """The mean difference of paired scores, with its 95 % interval and p-value by Student's t.

    Args:
        scores: One for each seed.
        reference: The other method's, on the same seeds.

    Raises:
        ValueError: If the lengths differ or there are fewer than two.

    Example:
        >>> gap = paired_interval([0.80, 0.82, 0.81], [0.70, 0.73, 0.71])
        >>> round(gap.mean, 3), gap.low > 0
        (0.097, True)
    """
    from scipy import stats

    if len(scores) != len(reference) or len(scores) < 2:
        raise ValueError(
            f"scores has {len(scores)} entries and reference {len(reference)}; give the same seeds, two or more"
        )
    gaps = [a - b for a, b in zip(scores, reference, strict=True)]
    mean, deviation = _mean_deviation(gaps)
    if deviation == 0:
        return Interval(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    result = stats.ttest_rel(scores, reference)
    interval = result.confidence_interval(0.95)
    return Interval(mean, float(interval.low), float(interval.high), float(result.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: the smallest times their number, the next times one less, and
    so on, never falling and never above 1.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def groups(scores: Mapping[str, Sequence[float]], level: float = 0.05) -> dict[str, str]:
    """Letters for methods, best first: two share one if Holm's correction over all pairs of paired
    t-tests cannot tell them apart.

    Args:
        scores: For each method, one score for each seed.
        level: The family-wise error rate.

    Example:
        >>> groups({"a": [0.9, 0.91, 0.92], "b": [0.5, 0.51, 0.53], "c": [0.9, 0.92, 0.91]})
        {'a': 'A', 'b': 'B', 'c': 'A'}
    """
    names = sorted(scores, key=lambda name: -sum(scores[name]))
    pairs = list(itertools.combinations(names, 2))
    adjusted = holm([paired_interval(scores[a], scores[b]).p for a, b in pairs])
    alike = {frozenset(pair) for pair, p in zip(pairs, adjusted, strict=True) if p >= level}
    cliques: list[set[str]] = []
    for size in range(len(names), 0, -1):
        for members in itertools.combinations(names, size):
            together = all(frozenset(pair) in alike for pair in itertools.combinations(members, 2))
            if together and not any(set(members) <= clique for clique in cliques):
                cliques.append(set(members))
    cliques.sort(key=lambda clique: min(names.index(name) for name in clique))
    letters = {name: "".join(chr(65 + index) for index, clique in enumerate(cliques) if name in clique) for name in names}
    return {name: letters[name] for name in scores}


class Recorded(dict[str, Comparison]):
    """Comparisons by name, read from a file, and ``about``: command, date, versions and hardware."""

    def __init__(self, comparisons: Mapping[str, Comparison], about: dict[str, Any]):
        super().__init__(comparisons)
        self.about = about


def record(name: str, comparisons: Mapping[str, Comparison], *, command: str, seconds: float) -> Path:
    """Write comparisons that take too long for a notebook to ``assets/results/NAME.json``.

    Args:
        name: Of the result.
        comparisons: By name.
        command: What runs it again.
        seconds: How long it took.

    Returns:
        The path written.
    """
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "minutes": round(seconds / 60, 1),
        "hardware": _hardware(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in ("torch", "accelerate", "numpy")},
    }
    content = {"about": about, "comparisons": {key: value.to_dict() for key, value in comparisons.items()}}
    path = Path(str(resources.files("kdft_lib") / "assets/results")) / f"{name}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def recorded(name: str) -> Recorded:
    """Comparisons that :func:`record` wrote and the package ships.

    Args:
        name: Of the result.

    Raises:
        FileNotFoundError: If there is none of that name; the message lists those that exist.
    """
    folder = resources.files("kdft_lib") / "assets/results"
    file = folder / f"{name}.json"
    if not file.is_file():
        known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
        raise FileNotFoundError(f"no result {name!r} is recorded; there are {', '.join(known) or 'none'}")
    content = json.loads(file.read_text(encoding="utf-8"))
    return Recorded({key: Comparison(**value) for key, value in content["comparisons"].items()}, content["about"])


def _check_comparison(
    candidates: Mapping[str, list[Any]], seeds: list[int], reference: str, equal_budgets: bool
) -> None:
    if not candidates or not all(candidates.values()):
        raise ValueError("methods is empty, or one of them has no setting; give each at least one")
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {seeds}; an interval needs two or more, all different")
    if reference not in candidates:
        raise ValueError(f"reference is {reference!r}; choose one of {', '.join(candidates)}")
    recipes = {name: entry for name, entries in candidates.items() for entry in entries if isinstance(entry, Recipe)}
    budgets = {name: (entry.steps, entry.batch_size) for name, entry in recipes.items()}
    if equal_budgets and len(set(budgets.values())) > 1:
        listed = ", ".join(f"{name} {steps} steps of {size}" for name, (steps, size) in budgets.items())
        raise ValueError(f"the budgets differ ({listed}); make them equal, or say equal_budgets=False")


def _accuracy(trained: Trained, data: TensorData) -> float:
    return _share(trained.decide(data), data.targets)


def _share(decisions: Tensor, targets: Tensor | None) -> float:
    if targets is None:
        raise ValueError("val and test need targets to be scored")
    return (decisions.cpu() == targets.cpu()).double().mean().item()


def _mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return numbers.mean().item(), numbers.std().item()


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].split(":", 1)[1].strip() if named else processor
    return f"{processor}, {torch.get_num_threads()} threads"
