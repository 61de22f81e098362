"""Whether a difference between methods is more than chance over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy
import torch


class Interval(NamedTuple):
    """A mean difference over seeds, with its two-sided 95 % interval and p-value (paired t-test).

    As a text it is in percentage points, with one digit; with a format, in its own unit.

    Example:
        >>> gap = Interval(mean=0.024, low=0.017, high=0.031, p=0.001)
        >>> print(gap, f"{gap:.3f}", sep="; ")
        +2.4 [1.7, 3.1]; +0.024 [0.017, 0.031]
    """

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return _said(100 * self.mean, 100 * self.low, 100 * self.high, ".1f")

    def __format__(self, spec: str) -> str:
        return _said(self.mean, self.low, self.high, spec) if spec else str(self)


def _said(mean: float, low: float, high: float, spec: str) -> str:
    """As in the book, with real minus signs."""
    return f"{mean:+{spec}} [{low:{spec}}, {high:{spec}}]".replace("-", "−")


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
    mean, deviation = mean_deviation(gaps)
    if deviation == 0:
        return Interval(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    result = stats.ttest_rel(scores, reference)
    interval = result.confidence_interval(0.95)
    return Interval(mean, float(interval.low), float(interval.high), float(result.pvalue))


def mean_interval(scores: Any) -> tuple[Any, Any, Any]:
    """Mean and 95 % interval (Student's t) over seeds.

    Args:
        scores: ``(seeds, ...)``, an array or lists, of two seeds or more.

    Returns:
        Mean, lower and upper end, each ``(...)``.

    Raises:
        ValueError: If there are fewer than two seeds.

    Example:
        >>> mean, low, high = mean_interval([1.0, 2.0, 3.0])
        >>> float(mean), round(float(high - low), 2)
        (2.0, 4.97)
    """
    from scipy import stats

    rows = numpy.asarray(scores)
    if rows.ndim == 0 or len(rows) < 2:
        raise ValueError(f"scores has shape {rows.shape}; an interval needs two seeds or more, in the first dimension")
    mean, count = rows.mean(axis=0), len(rows)
    half = stats.t.ppf(0.975, count - 1) * rows.std(axis=0, ddof=1) / count**0.5
    return mean, mean - half, mean + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: the smallest times their number, the next times one less, and
    so on, never falling and never above 1. What is not a number counts as 1.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    p_values = [1.0 if math.isnan(p) else p for p in p_values]
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
    import networkx

    names = sorted(scores, key=lambda name: -sum(scores[name]))
    pairs = list(itertools.combinations(names, 2))
    adjusted = holm([paired_interval(scores[a], scores[b]).p for a, b in pairs])
    alike = networkx.Graph()
    alike.add_nodes_from(names)
    alike.add_edges_from(pair for pair, p in zip(pairs, adjusted, strict=True) if p >= level)
    places = [sorted(map(names.index, clique)) for clique in networkx.find_cliques(alike)]
    cliques = sorted(places, key=lambda clique: (clique[0], -len(clique), clique))
    letters = {
        name: "".join(chr(65 + letter) for letter, clique in enumerate(cliques) if place in clique)
        for place, name in enumerate(names)
    }
    return {name: letters[name] for name in scores}


def mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    numbers = torch.tensor(values, dtype=torch.float64)
    return numbers.mean().item(), numbers.std().item()
