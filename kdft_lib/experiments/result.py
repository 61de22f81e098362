"""What a comparison found, and how it is shown."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdft_lib.data import Splits
from kdft_lib.experiments.grid import described, varied
from kdft_lib.experiments.statistics import Interval, groups, holm, mean_deviation, paired_interval
from kdft_lib.experiments.trained import Source, Trained
from kdft_lib.training import Ledger

if TYPE_CHECKING:
    import pandas

_PAIRS_WITH_LETTERS = 30
_CHOICE = {
    "mean": "Settings were chosen by the mean validation {} over the seeds",
    "each seed": "Each seed's settings were chosen on its own validation labels",
}


@dataclass(repr=False)
class _Chosen:
    """A source: what was trained for a seed."""

    method: str
    trained: dict[int, Trained]
    setting: str

    def __repr__(self) -> str:
        return f"{self.method} ({self.setting})"

    def __call__(self, splits: Splits, seed: int) -> Trained:
        return self.trained[seed]


@dataclass(repr=False)
class Comparison:
    """Test scores of several methods on the same seeds. A notebook shows its tables.

    Attributes:
        test: For each method, the accuracy (0 to 1), or another ``score``, of each seed, of the chosen setting.
        val: For each method and setting tried, the validation score of each seed.
        settings: For each method, the settings that were tried, by name.
        chosen: For each method and seed, the place of the chosen setting among these.
        choose: How it was chosen: by the ``"mean"`` over seeds, or for ``"each seed"`` by its own labels.
        ledgers: For each method, what its chosen setting consumed, for each seed.
        seeds: The seeds, in the order of the accuracies.
        reference: The method that the differences are against.
        contrasts: The few differences that the comparison was made for, as pairs of methods.
        measured: For each further measure and method, its value for each seed, of the chosen setting.
        score: What it was chosen and compared by.
        trained: For each method, what its chosen setting left behind; not recorded.

    Example:
        >>> from kdft_lib.experiments import recorded
        >>> made = recorded("soft-targets-thousand")["1,000 labels"]
        >>> made.setting("soft targets")["temperature"], made.difference("soft targets").mean > 0
        (4.0, True)
    """

    test: dict[str, list[float]]
    val: dict[str, list[list[float]]]
    settings: dict[str, list[dict[str, Any]]]
    chosen: dict[str, list[int]]
    choose: str
    ledgers: dict[str, list[Ledger]]
    seeds: list[int]
    reference: str
    contrasts: list[tuple[str, str]] = field(default_factory=list)
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    score: str = "accuracy"
    trained: dict[str, list[Trained]] = field(default_factory=dict, repr=False, compare=False)

    def setting(self, method: str, seed: int | None = None) -> dict[str, Any]:
        """The setting that was chosen of a method.

        Args:
            method: The method's name.
            seed: The seed whose setting it is, where each has its own.

        Raises:
            KeyError: If the method was not compared.
            ValueError: If the seeds have different settings and none of them is named, or there is no such seed.
        """
        self._check(method)
        if seed is not None and seed not in self.seeds:
            raise ValueError(f"seed is {seed}; choose one of {', '.join(map(str, self.seeds))}")
        places = self.chosen[method] if seed is None else [self.chosen[method][self.seeds.index(seed)]]
        found = [self.settings[method][place] for place in places]
        if any(setting != found[0] for setting in found):
            raise ValueError(
                f"the seeds have different settings of {method!r}; name one: setting({method!r}, seed={self.seeds[0]})"
            )
        return found[0]

    def validation(self, method: str, **setting: Any) -> list[float]:
        """The validation score of each seed.

        Args:
            method: The method's name.
            setting: Values that single out one of the settings tried; by default those chosen.

        Raises:
            KeyError: If the method was not compared.
            ValueError: If no setting has these values, or several have.
        """
        self._check(method)
        if not setting:
            return [self.val[method][index][place] for place, index in enumerate(self.chosen[method])]
        fitting = [
            place
            for place, tried in enumerate(self.settings[method])
            if all(name in tried and tried[name] == value for name, value in setting.items())
        ]
        if len(fitting) != 1:
            raise ValueError(
                f"{len(fitting)} settings of {method!r} have {described(setting)}; those tried are"
                f" {'; '.join(described(tried) for tried in self.settings[method])}"
            )
        return self.val[method][fitting[0]]

    def difference(self, method: str, reference: str | None = None) -> Interval:
        """How much better a method is than the reference, in accuracy or what ``score`` says, seed by seed.

        Raises:
            KeyError: If one of them was not compared.
        """
        self._check(method, reference or self.reference)
        return paired_interval(self.test[method], self.test[reference or self.reference])

    def source(self, method: str) -> Source:
        """What was trained of a method's chosen setting, for others to learn from or to start from.

        Raises:
            KeyError: If the method was not compared.
            ValueError: If the comparison was read from a record, which holds no models.
        """
        self._check(method)
        if method not in self.trained:
            raise ValueError(f"a record holds no models, so {method!r} has none; run the comparison, or train it again")
        return _Chosen(method, dict(zip(self.seeds, self.trained[method], strict=True)), self.choice(method))

    def part(self, methods: Iterable[str], *, reference: str | None = None) -> Comparison:
        """Some of the methods; the reference is the first of them, if the comparison's own is not among them."""
        kept = list(methods)
        self._check(*kept)
        cut: dict[str, Any] = {
            name: {method: getattr(self, name)[method] for method in kept if method in getattr(self, name)}
            for name in ("test", "val", "settings", "chosen", "ledgers", "trained")
        }
        own = self.reference if self.reference in kept else kept[0]
        return dataclasses.replace(
            self,
            **cut,
            reference=reference or own,
            contrasts=[pair for pair in self.contrasts if set(pair) <= set(kept)],
            measured={
                name: {method: of[method] for method in kept if method in of} for name, of in self.measured.items()
            },
        )

    def __or__(self, other: Comparison) -> Comparison:
        """The methods of both, which were run on the same seeds; the reference is the first one's.

        Raises:
            ValueError: If the seeds differ, or the way of choosing, or both have a method of one name.
        """
        twice = [method for method in other.test if method in self.test]
        if twice:
            raise ValueError(f"both comparisons have {', '.join(map(repr, twice))}; take parts of them first")
        if (self.seeds, self.choose, self.score) != (other.seeds, other.choose, other.score):
            raise ValueError("the two comparisons have other seeds, or chose otherwise; they cannot be joined")
        joined: dict[str, Any] = {
            name: getattr(self, name) | getattr(other, name)
            for name in ("test", "val", "settings", "chosen", "ledgers", "trained")
        }
        measures = dict.fromkeys([*self.measured, *other.measured])
        return dataclasses.replace(
            self,
            **joined,
            contrasts=[*self.contrasts, *other.contrasts],
            measured={name: self.measured.get(name, {}) | other.measured.get(name, {}) for name in measures},
        )

    def table(self) -> pandas.DataFrame:
        """Mean and standard deviation of the test score in percent, the difference from the reference with its
        paired 95 % interval, and the setting that was chosen. Below 30 pairs of methods also the groups that Holm's
        correction over all pairs leaves: two methods that share a letter cannot be told apart at 5 %.
        """
        import pandas

        pairs = len(self.test) * (len(self.test) - 1) // 2
        letters = groups(self.test) if 1 < pairs < _PAIRS_WITH_LETTERS else {}
        rows = []
        for method, scores in self.test.items():
            mean, deviation = mean_deviation([100 * score for score in scores])
            row = {"method": method, f"test {self.score}, %": f"{mean:.1f} ± {deviation:.1f}"}
            row["difference [95 % interval]"] = (
                "reference" if method == self.reference else str(self.difference(method))
            )
            if letters:
                row["group"] = letters[method]
            row["chosen"] = self.choice(method)
            rows.append(row)
        table = pandas.DataFrame(rows).set_index("method")
        return table if any(table["chosen"]) else table.drop(columns="chosen")

    def choice(self, method: str) -> str:
        """What was chosen of a method, in words: of what varied among its settings."""
        self._check(method)
        tried = self.settings[method]
        names = varied(tried)
        return " / ".join(dict.fromkeys(described(tried[place], names) for place in self.chosen[method]))

    def planned(self, contrasts: Iterable[tuple[str, str]] | None = None) -> pandas.DataFrame:
        """The differences that the comparison was made for, in percentage points, each with its paired 95 %
        interval, and whether it stands after Holm's correction over these at 5 %.

        Args:
            contrasts: Pairs ``(method, other)``; by default the comparison's own.

        Raises:
            KeyError: If one of them was not compared.
        """
        import pandas

        pairs = self.contrasts if contrasts is None else list(contrasts)
        gaps = [self.difference(method, other) for method, other in pairs]
        adjusted = holm([gap.p for gap in gaps])
        rows = [
            {"contrast": f"{method} − {other}", "difference [95 % interval]": str(gap), "p, Holm": round(p, 4),
             "stands": "yes" if p < 0.05 else "open"}
            for (method, other), gap, p in zip(pairs, gaps, adjusted, strict=True)
        ]  # fmt: skip
        return pandas.DataFrame(
            rows, columns=["contrast", "difference [95 % interval]", "p, Holm", "stands"]
        ).set_index("contrast")

    def ledger(self) -> pandas.DataFrame:
        """What each method consumed: labels to train, to choose and of its teacher; unlabelled
        inputs; pretraining; optimiser steps; median seconds; settings tried.
        """
        import pandas

        rows = []
        for method, entries in self.ledgers.items():
            first = entries[0]
            rows.append({
                "method": method,
                "labels": f"{first.labels:,}",
                "to choose": f"{first.choosing:,}",
                "teacher's labels": "unknown" if first.teacher_labels is None else f"{first.teacher_labels:,}",
                "unlabelled": f"{first.unlabeled:,}",
                "pretraining": first.pretraining,
                "steps": f"{first.steps:,}",
                "seconds": f"{statistics.median(entry.seconds for entry in entries):.1f}",
                "settings tried": len(self.val[method]),
            })  # fmt: skip
        return pandas.DataFrame(rows).set_index("method")

    def _repr_html_(self) -> str:
        import pandas

        with pandas.option_context("display.max_colwidth", None):
            table, ledger = (shown.to_html(border=0) for shown in (self.table(), self.ledger()))
            contrasts = f"<p>What it was made for:</p>{self.planned().to_html(border=0)}" if self.contrasts else ""
        choice = (
            f" {_CHOICE[self.choose].format(self.score)}."
            if any(len(tried) > 1 for tried in self.settings.values())
            else ""
        )
        return (
            f"{table}<p>{len(self.seeds)} seeds; intervals are paired over seeds.{choice}</p>"
            f"{contrasts}<p>Ledger, for one seed:</p>{ledger}"
        )

    def __repr__(self) -> str:
        tables = [self.table(), *([self.planned()] if self.contrasts else []), self.ledger()]
        return "\n\n".join(table.to_string() for table in tables)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "trained"}
        ledgers = {name: [dataclasses.asdict(entry) for entry in entries] for name, entries in self.ledgers.items()}
        return plain | {"ledgers": ledgers, "contrasts": [list(pair) for pair in self.contrasts]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Comparison:
        """From what :meth:`to_dict` gave."""
        ledgers = {name: [Ledger(**entry) for entry in entries] for name, entries in content["ledgers"].items()}
        contrasts = [(method, other) for method, other in content["contrasts"]]
        return cls(**{**content, "ledgers": ledgers, "contrasts": contrasts})

    def _check(self, *methods: str) -> None:
        for method in methods:
            if method not in self.test:
                raise KeyError(f"{method!r} was not compared; there are {', '.join(self.test)}")
