"""A reader's own table: columns of numbers and of words, with gaps, as what a network takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdft_lib.data.batches import UNLABELED
from kdft_lib.data.own import Own, draw_parts, grouped, numbered, read_rows
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData

if TYPE_CHECKING:
    import pandas

_MOST_WORDS = 100
"""How many values a column of words may have; one with more is a name or a text."""


class Columns:
    """What a network takes of a table's rows, learned from some of them and kept in plain values.

    A number becomes (number − mean) / standard deviation, a gap the median, and where there were gaps, one input more
    says where. Of a column of words, each value is an input of its own, 1 or 0 (one-hot), and a gap a value as any
    other; a value that was not there before is 0 in all. It does what scikit-learn's ``StandardScaler``,
    ``SimpleImputer`` and ``OneHotEncoder`` would, and it is read back without running anything.

    Args:
        numbers: For each column of numbers its ``gap``, ``mean`` and ``std``, and whether it ``had_gaps``.
        words: For each column of words the values that it had.

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"age": [20.0, None, 40.0], "port": ["Rome", "Oslo", None]})
        >>> columns = Columns.of(rows)
        >>> columns(rows)[0]
        tensor([-1.2247,  0.0000,  0.0000,  0.0000,  1.0000])
        >>> columns.inputs
        ['age', 'age is missing', 'port is missing', 'port is Oslo', 'port is Rome']
    """

    kind = "columns"

    def __init__(self, numbers: Mapping[str, Mapping[str, Any]], words: Mapping[str, Sequence[str]]):
        self.numbers = {str(name): dict(known) for name, known in numbers.items()}
        self.words = {str(name): list(values) for name, values in words.items()}

    @classmethod
    def of(cls, rows: pandas.DataFrame, leave_out: Sequence[str] = ()) -> Columns:
        """What these rows have, those to learn from alone.

        Args:
            rows: Rows of a table. A column of numbers is one that pandas read so; any other is one of words.
            leave_out: Columns that are no input, such as the target.

        Raises:
            ValueError: If a column of words has more than 100 values, or no column is left.
        """
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        numbers, words = {}, {}
        for name in rows.columns:
            column = rows[name]
            if name in leave_out or column.isna().all():
                continue
            if is_numeric_dtype(column) and not is_bool_dtype(column):
                values = column.to_numpy(dtype=np.float64)
                known = np.where(np.isfinite(values), values, np.nan)
                gap = float(np.nanmedian(known))
                filled = np.where(np.isnan(known), gap, known)
                # Of equal numbers rounding may leave a deviation that is not 0.
                std = float(filled.std()) if np.ptp(filled) else 1.0
                numbers[name] = {
                    "gap": gap, "mean": float(filled.mean()), "std": std or 1.0,
                    "had_gaps": bool(np.isnan(known).any()),
                }  # fmt: skip
            else:
                words[name] = sorted({_word(value) for value in column})
                if len(words[name]) > _MOST_WORDS:
                    odd = [word for word in words[name] if word and not _is_number(word)]
                    if 2 * len(odd) < len(words[name]):
                        raise ValueError(
                            f"column {name!r} holds {odd[0]!r} among its numbers; mend it, or leave it empty"
                        )
                    raise ValueError(
                        f"column {name!r} has {len(words[name])} different values in {len(rows)} rows, as a name or a"
                        f" text has; {_MOST_WORDS} are taken at most: leave it out, as leave_out=[{name!r}] or"
                        f" --leave-out {name!r} does, or put values together"
                    )
        if not numbers and not words:
            raise ValueError("the table has no column beside its target; there is nothing to learn from")
        return cls(numbers, words)

    @property
    def inputs(self) -> list[str]:
        """What each input says."""
        numbers = [[name, f"{name} is missing"][: 1 + known["had_gaps"]] for name, known in self.numbers.items()]
        words = [[f"{name} is {value or 'missing'}" for value in values] for name, values in self.words.items()]
        return [each for column in [*numbers, *words] for each in column]

    def __call__(self, rows: Any) -> Tensor:
        """Rows as float32, ``(N, inputs)``.

        Args:
            rows: A ``DataFrame``, or a list of mappings, such as ``[{"age": 31, "port": "Oslo"}]``.

        Raises:
            ValueError: If a column is missing, or one of numbers holds a word.
        """
        names = [*self.numbers, *self.words]
        table = rows if hasattr(rows, "columns") else _by_column(rows, names)
        for name in names:
            if name not in table:
                raise ValueError(f"the rows have no column {name!r}; the network was made for {', '.join(names)}")
        made: list[Any] = []
        for name, known in self.numbers.items():
            values = _as_numbers(table[name], name)
            gaps = ~np.isfinite(values)
            made.append((np.where(gaps, known["gap"], values) - known["mean"]) / known["std"])
            if known["had_gaps"]:
                made.append(gaps)
        for name, values in self.words.items():
            column = np.array([_word(value) for value in table[name]], dtype=object)
            made += [column == value for value in values]
        return torch.from_numpy(np.stack(made, axis=1).astype(np.float32))

    def settings(self) -> dict[str, Any]:
        """What it is made of, in plain values."""
        return {"numbers": self.numbers, "words": self.words}


def table(
    path: str | Path,
    target: str,
    *,
    regression: bool = False,
    group_column: str | None = None,
    leave_out: Sequence[str] = (),
    labeled: int | None = None,
    seed: int = 0,
) -> Own:
    """A table of one's own in memory, split as :func:`draw_parts` says; its columns' means come from ``train`` alone.

    Args:
        path: A CSV or JSON-lines file. A row without the target is one to transfer by.
        target: The column to predict.
        regression: Whether it holds numbers to come near to, rather than classes.
        group_column: A column of what rows belong together, which is no input; by default each row is by itself.
        leave_out: Further columns that are no input, such as a number of the row.
        labeled: How many rows keep their labels to learn from; by default all that are not to choose or test by.
        seed: The seed of the draw of labelled rows.

    Returns:
        :class:`Own`, whose inputs are float32, ``(N, inputs)``, whose names are the numbers of rows, and whose
        reader is :class:`Columns`. Targets of a regression are ``(N, 1)``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a column is missing, there are fewer than two classes or a class has fewer than three
            rows, a target to come near to is a word, or a count is out of range.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "people.csv"
        >>> _ = path.write_text("age,port,came\\n" + "20,Rome,yes\\n,Oslo,no\\n" * 10)
        >>> own = table(path, "came")
        >>> own.classes, own.counts["train"], own.splits.test
        (('no', 'yes'), 12, TensorData(inputs (4, 4), targets (4,)))
    """
    no_input = [target, *([group_column] if group_column else []), *leave_out]
    rows = read_rows(path, no_input, gaps=True)
    classes: tuple[str, ...] = ()
    if regression:
        targets = torch.from_numpy(_as_numbers(rows[target], target)).float()
    else:
        targets, classes = numbered(_labels(rows[target]))
        counts = targets[targets != UNLABELED].bincount()
        if rows[target].dtype.kind in "if" and counts.min() < 3:
            raise ValueError(
                f"column {target!r} holds {len(classes)} different numbers, {classes[counts.argmin()]} in"
                f" {counts.min()} of the rows, and a class needs three: for numbers to come near to, ask for a"
                " regression; of classes, leave such rows out"
            )
    groups = grouped(rows, group_column)
    parts = draw_parts(targets, labeled=labeled, groups=groups, seed=seed, classes=classes)
    columns = Columns.of(rows.iloc[parts[0].numpy()], leave_out=no_input)
    whole = TensorData(columns(rows), targets.unsqueeze(1) if regression else targets)
    made = [whole[part] for part in parts]
    names = tuple([str(row) for row in part.tolist()] for part in parts)
    return Own(Splits(made[0], made[1].without_labels(), made[2], made[3]), classes, names, columns)


def _labels(column: Any) -> list[Any]:
    """Classes by name; a column of whole numbers with gaps, which pandas reads as floating-point, as whole numbers."""
    values = list(column)
    if column.dtype.kind == "f" and all(math.isnan(value) or value == int(value) for value in values):
        return [None if math.isnan(value) else int(value) for value in values]
    return values


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Of whole numbers with a gap pandas makes floating-point ones.
    return "" if value is None or value != value or str(type(value).__name__) == "NAType" else str(value)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _by_column(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in names if any(name in row for row in rows)}


def _as_numbers(column: Any, name: str) -> Any:
    """A column as float64, gaps as NaN."""
    values = np.empty(len(column))
    for row, value in enumerate(column):
        try:
            values[row] = math.nan if _word(value) == "" else float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"column {name!r} holds {value!r} in row {row + 1}, which is no number; mend it, or leave it empty"
            ) from None
    return values
