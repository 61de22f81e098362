"""Train methods on the same seeds, choose on validation, score once on test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments.methods import UNKNOWN, Method, PerSeed, Recipe, Trained
from kdft_lib.experiments.statistics import Interval, groups, mean_deviation, paired_interval
from kdft_lib.training.progress import progress_bar

if TYPE_CHECKING:
    import pandas

Candidates: TypeAlias = Method | Sequence[Method]


@dataclass(repr=False)
class Comparison:
    """Test accuracies of several methods on the same seeds. A notebook shows both tables.

    Attributes:
        test: For each method, the accuracy (0 to 1) of each seed, of the chosen setting.
        val: For each method and setting tried, the validation accuracy of each seed.
        chosen: For each method, which of its settings had the highest mean validation accuracy.
        ledgers: For each method, what its chosen setting consumed, for each seed.
        seeds: In the order of the accuracies.
        reference: The method that the differences are against.
        measured: For each further measure and method, its value for each seed, of the chosen setting.
        trained: For each method, what its chosen setting left behind; not recorded.

    Example:
        >>> from kdft_lib.experiments import recorded
        >>> made = recorded("soft-targets-thousand")["1,000 labels"]
        >>> list(made.table().index)[0], made.difference("soft targets").mean > 0
        ('labels', True)
    """

    test: dict[str, list[float]]
    val: dict[str, list[list[float]]]
    chosen: dict[str, int]
    ledgers: dict[str, list[dict[str, Any]]]
    seeds: list[int]
    reference: str
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
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
            mean, deviation = mean_deviation([100 * score for score in scores])
            row = {"method": method, "test accuracy, %": f"{mean:.1f} ± {deviation:.1f}"}
            if method == self.reference:
                row["difference [95 % interval]"] = "reference"
            else:
                gap = self.difference(method)
                row["difference [95 % interval]"] = (
                    f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
                )
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
                "unlabeled": f"{first['unlabeled']:,}",
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

    def __repr__(self) -> str:
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
    measures: Mapping[str, Callable[[Trained, Splits], float]] | None = None,
    equal_budgets: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Train every method on every seed, choose its setting on validation, and score it once on test.

    One seed sets the split, the initialisation and the order, and all methods share it. A method
    given as a list of settings ends with the one of highest mean validation accuracy; the test
    scores of the others are never computed.

    Args:
        methods: Each a :class:`Recipe`, a :class:`PerSeed`, a :class:`Classical`, anything with their ``train``, or a
            list of them to choose from.
        splits: From a seed to splits, such as ``lambda seed: fashion_mnist(1000, seed=seed)``.
        seeds: At least two; five or more to be believed.
        reference: The method that differences are against; by default the first.
        measures: What else to take of each chosen setting, by name, such as the calibration error on
            ``splits.test``: functions of what was trained and of the seed's splits.
        equal_budgets: Whether recipes must have the same steps and batch sizes.
        progress: A progress bar; by default where a person watches.

    Returns:
        :class:`Comparison`.

    Raises:
        ValueError: If there are fewer than two seeds, no method, budgets that differ, or a
            reference that is none of the methods.

    Example:
        >>> from kdft_lib.experiments import Classical
        >>> from sklearn.dummy import DummyClassifier
        >>> from sklearn.linear_model import LogisticRegression
        >>> data = TensorData(torch.eye(2).repeat(6, 1), torch.tensor([0, 1]).repeat(6))
        >>> splits = Splits(data[:4], data[4:6].without_labels(), data[6:8], data[8:])
        >>> methods = {"majority": Classical(DummyClassifier()), "linear": Classical(LogisticRegression())}
        >>> compare(methods, lambda seed: splits, seeds=range(2), progress=False).test
        {'majority': [0.5, 0.5], 'linear': [1.0, 1.0]}
    """
    candidates = {name: list(entry) if isinstance(entry, Sequence) else [entry] for name, entry in methods.items()}
    seeds = list(seeds)
    reference = reference if reference is not None else next(iter(candidates), "")
    _check_comparison(candidates, seeds, reference, equal_budgets)
    runs: dict[str, list[list[Trained]]] = {name: [[] for _ in entries] for name, entries in candidates.items()}
    val: dict[str, list[list[float]]] = {name: [[] for _ in entries] for name, entries in candidates.items()}
    for seed, parts, name, index in _all_runs(candidates, seeds, splits, progress):
        run = candidates[name][index].train(parts, seed)
        run.ledger["choosing"] = len(parts.val) if len(candidates[name]) > 1 else 0
        runs[name][index].append(run)
        val[name][index].append(_accuracy(run, parts.val))
    chosen = {name: max(range(len(scores)), key=lambda index: sum(scores[index])) for name, scores in val.items()}
    trained = {name: entries[chosen[name]] for name, entries in runs.items()}
    test, measured = _scored(trained, measures or {}, seeds, splits)
    return Comparison(
        test=test,
        val=val,
        chosen=chosen,
        ledgers={name: [run.ledger for run in kept] for name, kept in trained.items()},
        seeds=seeds,
        reference=reference,
        measured=measured,
        trained=trained,
    )


def _scored(
    trained: Mapping[str, list[Trained]],
    measures: Mapping[str, Callable[[Trained, Splits], float]],
    seeds: list[int],
    splits: Callable[[int], Splits],
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Test accuracies and further measures of what was chosen; each seed's splits are made once more."""
    test: dict[str, list[float]] = {name: [] for name in trained}
    measured: dict[str, dict[str, list[float]]] = {measure: {name: [] for name in trained} for measure in measures}
    for index, seed in enumerate(seeds):
        parts = splits(seed)
        for name, runs in trained.items():
            test[name].append(_accuracy(runs[index], parts.test))
            for measure, function in measures.items():
                measured[measure][name].append(float(function(runs[index], parts)))
    return test, measured


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


def _check_comparison(
    candidates: Mapping[str, list[Any]], seeds: list[int], reference: str, equal_budgets: bool
) -> None:
    if not candidates or not all(candidates.values()):
        raise ValueError("methods is empty, or one of them has no setting; give each at least one")
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {seeds}; an interval needs two or more, all different")
    if reference not in candidates:
        raise ValueError(f"reference is {reference!r}; choose one of {', '.join(candidates)}")
    budgets = {
        (name, recipe.steps, recipe.batch_size): None
        for name, entries in candidates.items()
        for entry in entries
        if isinstance(recipe := entry.recipe if isinstance(entry, PerSeed) else entry, Recipe)
    }
    if equal_budgets and len({budget[1:] for budget in budgets}) > 1:
        listed = ", ".join(f"{name} {steps} steps of {size}" for name, steps, size in budgets)
        raise ValueError(f"the budgets differ ({listed}); make them equal, or say equal_budgets=False")


def _accuracy(trained: Trained, data: TensorData) -> float:
    if data.targets is None:
        raise ValueError("val and test need targets to be scored")
    return (trained.decide(data).cpu() == data.targets.cpu()).double().mean().item()
