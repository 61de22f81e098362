"""Train methods on the same seeds, choose on validation, score once on test."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments.grid import Candidate
from kdft_lib.experiments.kept import Kept, by_default
from kdft_lib.experiments.recipe import Recipe
from kdft_lib.experiments.result import Comparison
from kdft_lib.experiments.trained import Method, Trained
from kdft_lib.progress import progress_bar

Candidates: TypeAlias = Method | Candidate | Sequence[Method | Candidate]
"""A method, or the settings of one to choose from."""

Measure: TypeAlias = Callable[[Trained, Splits], float]
"""What else to take of a trained method."""

Score: TypeAlias = Callable[[Trained, TensorData], float]
"""How good a trained method is on labelled rows, the higher the better."""


def compare(
    methods: Mapping[str, Candidates],
    splits: Callable[[int], Splits],
    *,
    seeds: Iterable[int] = range(5),
    reference: str | None = None,
    contrasts: Iterable[tuple[str, str]] = (),
    choose: Literal["mean", "each seed"] = "mean",
    choose_on: Callable[[int], TensorData] | None = None,
    score: Score = Trained.accuracy,
    measures: Mapping[str, Measure] | None = None,
    equal_budgets: bool = True,
    keep: str | Path | Literal[False] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Train every method on every seed, choose its setting on validation, and score it once on test.

    One seed sets the split, the initialisation and the order, and all methods share it. The test scores of
    settings that were not chosen are never computed.

    Args:
        methods: The methods by name: each a :class:`Recipe`, a :class:`Classical`, anything with their ``train``, or
            several settings of one to choose from, as :func:`grid` makes them.
        splits: A function from a seed to splits, such as ``lambda seed: fashion_mnist(1000, seed=seed)``.
        seeds: The seeds, at least two; five or more to be believed.
        reference: The method that differences are against; by default the first.
        contrasts: The few differences that the comparison is made for, as pairs ``(method, other)``, named before
            it is run: Holm's correction is over these.
        choose: ``"mean"``: a method ends with the setting of highest mean validation score over the seeds;
            ``"each seed"``: each seed has the setting that is best on its own validation labels, as one shop
            would choose.
        choose_on: A function from a seed to the labelled rows that settings are chosen on; by default
            ``splits.val``. With the same ``keep``, finished runs are scored anew and not trained again.
        score: What settings are chosen by on validation, and methods compared by on test: a function of what was
            trained and of labelled rows, shown by its name. By default the accuracy, which says little where one class
            is rare.
        measures: What else to take of each chosen setting, by name, such as the calibration error on
            ``splits.test``: functions of what was trained and of the seed's splits. A value that is not a number
            is warned of.
        equal_budgets: Whether recipes must have the same steps and batch sizes.
        keep: A folder in which each finished run is kept as a file (pickled, so name a folder of your own), so
            that an interrupted comparison goes on where it was: call again with the same arguments. A program that
            has changed is noticed; in a notebook, a function that has changed is not. Delete the folder when the
            result is recorded. By default none, and within :func:`record_all` one that it deletes;
            ``False`` keeps nothing there either.
        progress: Whether to show a progress bar; by default where a person watches, and within :func:`record_all`.

    Returns:
        :class:`Comparison`.

    Raises:
        ValueError: If there are fewer than two seeds, no method, budgets that differ, a reference or a contrast of
            methods that are not compared, or ``keep`` holds runs of another comparison.

    Example:
        >>> from kdft_lib.experiments import Classical, grid
        >>> from sklearn.dummy import DummyClassifier
        >>> from sklearn.linear_model import LogisticRegression
        >>> from kdft_lib.data import TensorData
        >>> data = TensorData(torch.eye(2).repeat(6, 1), torch.tensor([0, 1]).repeat(6))
        >>> splits = Splits(data[:4], data[4:6].without_labels(), data[6:8], data[8:])
        >>> methods = {"majority": Classical(DummyClassifier()), "linear": grid(Classical(LogisticRegression()), C=1.0)}
        >>> made = compare(methods, lambda seed: splits, seeds=range(2), progress=False)
        >>> made.test, made.setting("linear")
        ({'majority': [0.5, 0.5], 'linear': [1.0, 1.0]}, {'C': 1.0})
    """
    candidates, seeds = _planned(methods, seeds)
    reference = reference if reference is not None else next(iter(candidates), "")
    pairs = [(method, other) for method, other in contrasts]
    _check_comparison(candidates, seeds, reference, pairs, equal_budgets)
    if choose not in ("mean", "each seed"):
        raise ValueError(f'choose is {choose!r}; it must be "mean" or "each seed"')
    folder, watched = by_default(candidates, splits)
    kept, progress = Kept(folder if keep is None else keep), watched if progress is None else progress
    runs: dict[str, list[list[Trained]]] = {name: [[] for _ in entries] for name, entries in candidates.items()}
    val: dict[str, list[list[float]]] = {name: [[] for _ in entries] for name, entries in candidates.items()}
    for seed, parts, name, index in _all_runs(candidates, seeds, splits, progress):
        run = kept.run(candidates[name][index], name, index, parts, seed)
        by = parts.val if choose_on is None else choose_on(seed)
        choosing = len(by) if len(candidates[name]) > 1 else run.ledger.choosing
        run = dataclasses.replace(run, ledger=dataclasses.replace(run.ledger, choosing=choosing), seed=seed)
        runs[name][index].append(run)
        val[name][index].append(float(score(run, by)))
    chosen = {name: _best(scores, len(seeds), choose) for name, scores in val.items()}
    trained = {
        name: [runs[name][index][place] for place, index in enumerate(indices)] for name, indices in chosen.items()
    }
    test, measured = _scored(trained, score, measures or {}, seeds, splits)
    return Comparison(
        test=test,
        val=val,
        settings={name: [dict(entry.setting) for entry in entries] for name, entries in candidates.items()},
        chosen=chosen,
        choose=choose,
        ledgers={name: [run.ledger for run in kept] for name, kept in trained.items()},
        seeds=seeds,
        reference=reference,
        contrasts=pairs,
        measured=measured,
        score=getattr(score, "__name__", "score").replace("_", " "),
        trained=trained,
    )


def _planned(methods: Mapping[str, Candidates], seeds: Iterable[int]) -> tuple[dict[str, list[Candidate]], list[int]]:
    """What is run, one after the other: the settings of each method, and the seeds."""
    listed = {name: entry if isinstance(entry, Sequence) else [entry] for name, entry in methods.items()}
    return {
        name: [entry if isinstance(entry, Candidate) else Candidate(entry) for entry in entries]
        for name, entries in listed.items()
    }, list(seeds)


def _best(val: list[list[float]], seeds: int, choose: str) -> list[int]:
    """For each seed, the setting of highest validation score: the first of equals."""
    if choose == "mean":
        return [max(range(len(val)), key=lambda index: _or_lowest(sum(val[index])))] * seeds
    return [max(range(len(val)), key=lambda index: _or_lowest(val[index][place])) for place in range(seeds)]


def _or_lowest(score: float) -> float:
    """What is not a number is no reason to choose a setting."""
    return -math.inf if math.isnan(score) else score


def _scored(
    trained: Mapping[str, list[Trained]],
    score: Score,
    measures: Mapping[str, Measure],
    seeds: list[int],
    splits: Callable[[int], Splits],
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Test scores and further measures of what was chosen; each seed's splits are made once more."""
    test: dict[str, list[float]] = {name: [] for name in trained}
    measured: dict[str, dict[str, list[float]]] = {measure: {name: [] for name in trained} for measure in measures}
    for index, seed in enumerate(seeds):
        parts = splits(seed)
        for name, runs in trained.items():
            test[name].append(scored := float(score(runs[index], parts.test)))
            if math.isnan(scored):
                warnings.warn(f"the score of {name}, seed {seed}, is not a number", stacklevel=3)
            for measure, function in measures.items():
                measured[measure][name].append(value := float(function(runs[index], parts)))
                if math.isnan(value):
                    warnings.warn(f"{measure} of {name}, seed {seed}, is not a number", stacklevel=3)
    return test, measured


def _all_runs(
    candidates: Mapping[str, list[Candidate]], seeds: list[int], splits: Callable[[int], Splits], progress: bool | None
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
    candidates: Mapping[str, list[Candidate]],
    seeds: list[int],
    reference: str,
    contrasts: list[tuple[str, str]],
    equal_budgets: bool,
) -> None:
    if not candidates or not all(candidates.values()):
        raise ValueError("methods is empty, or one of them has no setting; give each at least one")
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {seeds}; an interval needs two or more, all different")
    if reference not in candidates:
        raise ValueError(f"reference is {reference!r}; choose one of {', '.join(candidates)}")
    for name in (name for pair in contrasts for name in pair):
        if name not in candidates:
            raise ValueError(f"contrasts names {name!r}; choose among {', '.join(candidates)}")
    budgets = {
        (name, str(recipe.settings.steps or f"{recipe.settings.epochs} epochs of"), recipe.settings.batch_size): None
        for name, entries in candidates.items()
        for entry in entries
        if (recipe := _recipe(entry.method)) is not None
    }
    if equal_budgets and len({budget[1:] for budget in budgets}) > 1:
        listed = ", ".join(f"{name} {steps} steps of {size}" for name, steps, size in budgets)
        raise ValueError(f"the budgets differ ({listed}); make them equal, or say equal_budgets=False")


def _recipe(method: Any) -> Recipe | None:
    """The recipe that is trained in the end, through whatever is around it."""
    while not isinstance(method, Recipe) and hasattr(method, "method"):
        method = method.method
    return method if isinstance(method, Recipe) else None
