"""What is a reader's own: rows with names and classes, split so that no group is on two sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdft_lib.data.batches import UNLABELED
from kdft_lib.data.splits import TextSplits, draw_balanced

if TYPE_CHECKING:
    import pandas

TABLES = (".csv", ".tsv", ".jsonl", ".json")
"""What the name of a table ends in."""

_DRAWS = 200
"""How many draws of whole groups are looked at."""


@dataclass(frozen=True)
class Own:
    """Data of one's own: its splits, what its classes are called, and how a new input is read.

    Attributes:
        splits: :class:`Splits`, or :class:`TextSplits` where they are texts still.
        classes: The names of the classes, in the order of the targets; empty where targets are numbers.
        names: For each of the four parts, what each row is called: a file's path, or the number of a row.
        reader: What makes a model's inputs of new raw ones: a :class:`PictureReader`, :class:`Columns`, or nothing.

    Example:
        >>> from kdft_lib.data import TextData
        >>> data = TextData(["one", "two"], torch.tensor([0, 1]))
        >>> own = Own(TextSplits(data, data.without_labels(), data, data), ("a", "b"), (["0", "1"],) * 4)
        >>> own.counts
        {'train': 2, 'transfer': 2, 'val': 2, 'test': 2}
    """

    splits: Any
    classes: tuple[str, ...]
    names: tuple[list[str], ...]
    reader: Any = None

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each part has."""
        return {name: len(part) for name, part in zip(TextSplits._fields, self.splits, strict=True)}


def draw_parts(
    targets: Tensor,
    *,
    labeled: int | None = None,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    unit: str = "rows",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split rows of one's own: a fifth to test by, a fifth to choose by, the others to learn from.

    Test and validation rows are the same for every seed, and have each class in its share. What comes from one
    place (photographs of one module, texts of one author, rows of one patient) belongs to one group, and a group is
    never on two sides: of 200 draws of whole groups, the one is taken whose shares come nearest. A row without a label
    is transfer data, unless its group is tested or chosen by; then it is left out.

    Args:
        targets: Class indices, int64 ``(N,)``, where −100 is no label; or numbers, floating-point, where NaN is none.
        labeled: How many of the rows to learn from keep their labels, balanced by class; by default all.
        groups: What each row belongs to, one for each; by default each row is by itself.
        seed: The seed of the draw of labelled rows.
        classes: The names of the classes, for messages.
        unit: What the rows are called in messages.

    Returns:
        The rows of ``train``, ``transfer``, ``val`` and ``test``.

    Raises:
        ValueError: If a class has fewer than three rows, or is in too few groups to be in each part; if ``labeled`` is
            out of range.

    Example:
        >>> parts = draw_parts(torch.arange(100) % 2, labeled=10)
        >>> [len(part) for part in parts]
        [10, 50, 20, 20]
        >>> rooms = [row // 10 for row in range(100)]
        >>> train, transfer, val, test = draw_parts(torch.arange(100) % 2, groups=rooms)
        >>> len({rooms[row] for row in test} & {rooms[row] for row in train})
        0
    """
    numbers = targets.is_floating_point()
    known = (~targets.isnan() if numbers else targets != UNLABELED).nonzero().flatten()
    kinds = torch.zeros(len(targets), dtype=torch.int64) if numbers else targets
    name = dict(enumerate(classes)) if not numbers else {}
    for kind, count in enumerate(kinds[known].bincount(minlength=1).tolist()):
        if count < 3:
            what = f"class {name.get(kind, str(kind))!r} has" if not numbers else "the target is given in"
            raise ValueError(
                f"{what} {count} of the {unit}; three or more are needed, to learn from, to choose by and to test by:"
                f" add {unit}{'' if numbers else ', or leave the class out'}"
            )
    if groups is None:
        side = _by_class(kinds, known)
    else:
        side = _by_group(kinds, known, np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)[1])
        for kind in kinds[known].unique().tolist():
            if len(side[known][kinds[known] == kind].unique()) < 3:
                what = f"class {name.get(kind, str(kind))!r}" if not numbers else "the target"
                raise ValueError(
                    f"{what} is in too few groups to be learned from, chosen by and tested by in groups of their own;"
                    " three or more are needed: take a finer group column"
                    + ("" if numbers else ", or leave the class out")
                )
    pool = known[side[known] == 0]
    least = 1 if numbers else len(kinds[known].unique())
    if labeled is not None and labeled not in range(least, len(pool) + 1):
        raise ValueError(
            f"labeled is {labeled}; with these {len(known):,} labelled {unit}, of which {len(known) - len(pool):,} are"
            f" kept to choose and to test by, it must be from {least:,} to {len(pool):,}, or left out for all"
        )
    count = len(pool) if labeled is None else labeled
    train, rest = draw_balanced(kinds, pool, count, seed)
    without = torch.ones(len(targets), dtype=torch.bool)
    without[known] = False
    transfer = torch.cat([rest, (without & (side == 0)).nonzero().flatten()])
    return train, transfer, known[side[known] == 1], known[side[known] == 2]


def _by_class(kinds: Tensor, known: Tensor) -> Tensor:
    """For each row 0 to learn from, 1 to choose by, 2 to test by: fifths of each class, one row at least."""
    side = torch.zeros(len(kinds), dtype=torch.int64)
    shuffled = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))]
    for kind in kinds[known].unique():
        members = shuffled[kinds[shuffled] == kind]
        fifth = max(1, round(len(members) / 5))
        side[members[:fifth]], side[members[fifth : 2 * fifth]] = 2, 1
    return side


def _by_group(kinds: Tensor, known: Tensor, group: Any) -> Tensor:
    """The same in whole groups: of many draws, the one whose shares of each class come nearest to fifths."""
    classes, count = int(kinds[known].max()) + 1, int(group.max()) + 1
    held = np.zeros((count, classes))
    np.add.at(held, (group[known.numpy()], kinds[known].numpy()), 1)
    total, sizes = held.sum(0).clip(1), held.sum(1)
    best, least = np.zeros(count, dtype=np.int64), np.inf
    draw = np.random.default_rng(0)
    for _ in range(_DRAWS):
        order = draw.permutation(count)
        share = sizes[order].cumsum() / sizes.sum()
        middle = share - sizes[order] / sizes.sum() / 2
        side = np.empty(count, dtype=np.int64)
        side[order] = np.where(middle < 0.2, 2, np.where(middle < 0.4, 1, 0))
        shares = [held[side == part].sum(0) / total for part in (2, 1)]
        missing = sum(int((held[side == part][:, held.sum(0) > 0].sum(0) == 0).sum()) for part in (0, 1, 2))
        off = sum(float(np.abs(given - 0.2).sum()) for given in shares) + 10 * missing
        if off < least:
            best, least = side, off
    best[sizes == 0] = 0  # Nothing of these is chosen or tested by.
    return torch.from_numpy(best[group])


def read_rows(path: str | Path, columns: Sequence[str] = (), *, gaps: bool = False) -> pandas.DataFrame:
    """The rows of a CSV or JSON-lines file.

    Args:
        path: A file whose name ends in ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` (a list of objects).
        columns: Those that it must have.
        gaps: Whether numbers are read as numbers, and an empty field, ``NA`` and the like as none; by default a field
            of a CSV file is the text that stands there.

    Raises:
        ImportError: If pandas is not installed.
        FileNotFoundError: If it does not exist.
        ValueError: If it cannot be read, is empty, or lacks a column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> _ = path.write_text("text,label\\na goal,sport\\n")
        >>> read_rows(path, ["text"]).to_dict("records")
        [{'text': 'a goal', 'label': 'sport'}]
    """
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "reading a table needs pandas, which is not installed; pip install 'kdft-lib[notebooks]' brings it"
        ) from None
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in TABLES:
        raise ValueError(f"{path} is no table that is read here; its name must end in .csv, .tsv, .jsonl or .json")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file; name a table of rows")
    as_text: dict[str, Any] = {} if gaps else {"dtype": str, "keep_default_na": False}
    as_given: dict[str, Any] = {} if gaps else {"dtype": object}
    try:
        if kind in (".csv", ".tsv"):
            separator = "," if kind == ".csv" else "\t"
            # Read in chunks, a column would be numbers in one and words in another.
            rows = pandas.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False, **as_text)
            if not isinstance(rows.index, pandas.RangeIndex):
                raise ValueError("rows have more fields than the header; put fields that hold the separator in quotes")
        else:
            text = path.read_text(encoding="utf-8-sig")
            rows = pandas.DataFrame(_objects(text) if kind == ".jsonl" else json.loads(text), **as_given)
    except (ValueError, pandas.errors.ParserError) as error:
        raise ValueError(f"{path} cannot be read as a {kind[1:]} file in UTF-8 ({error})") from None
    if not len(rows):
        raise ValueError(f"{path} has no rows below its header; there is nothing to learn from")
    for column in columns:
        if column not in rows.columns:
            raise ValueError(
                f"{path} has no column {column!r}; its columns are {', '.join(map(repr, map(str, rows.columns)))}"
            )
    return rows


def _objects(lines: str) -> list[dict[str, Any]]:
    """The objects of JSON lines; what is wrong names its line."""
    found = []
    for number, line in enumerate(lines.split("\n"), 1):  # Texts may hold what else ends a line, such as U+2028.
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}, character {error.colno}: {error.msg}") from None
            if not isinstance(found[-1], dict):
                raise ValueError(f'line {number} is no object, such as {{"text": "a goal"}}')
    return found


def grouped(rows: pandas.DataFrame, column: str | None) -> list[str] | None:
    """What each row belongs to, by name; nothing where no column says it.

    Example:
        >>> import pandas
        >>> grouped(pandas.DataFrame({"room": [7, 7, 8]}), "room")
        ['7', '7', '8']
    """
    if column is None:
        return None
    groups = ["" if group is None or group != group else str(group).strip() for group in rows[column]]
    if "" in groups:
        raise ValueError(
            f"row {groups.index('') + 1} has no group in column {column!r}; say what it belongs to, and where that is"
            " nothing, give it a name of its own"
        )
    return groups


def numbered(labels: Sequence[Any]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels by name as class indices, ``(N,)``, and the classes in alphabetical order; an empty label is none.

    Example:
        >>> numbered(["sport", "", "art"])
        (tensor([   1, -100,    0]), ('art', 'sport'))
    """
    texts = ["" if label is None or label != label else str(label).strip() for label in labels]
    classes = tuple(sorted({text for text in texts if text}))
    number = {name: place for place, name in enumerate(classes)} | {"": UNLABELED}
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise ValueError(f"of classes there is {found}; two or more are needed, to tell them apart")
    return torch.tensor([number[text] for text in texts]), classes
