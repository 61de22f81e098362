"""A reader's own photographs: a folder for each class, or a table that names them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from kdft_lib.data.own import Own, draw_parts, grouped, numbered, read_rows
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.progress import progress_bar

_LITTER = ("thumbs.db", "desktop.ini")
"""What file managers leave in folders of pictures, beside names that begin with a dot."""

_PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
"""How folders are called that hold classes, and are none."""


class PictureReader:
    """Reads photographs as a network takes them: colours from 0 to 255, brought to one size.

    A picture is turned upright as its camera says, grey is repeated for the three colours, 16 bits are cut to 8, white
    shines through what is transparent, and its height and width become ``size``, whatever their ratio was, so that
    nothing of it is lost.

    Args:
        size: The height and width, in pixels.

    Raises:
        ValueError: If ``size`` is less than 8.

    Example:
        >>> PictureReader(size=32)([np.zeros((50, 40, 3), dtype=np.uint8)]).shape
        torch.Size([1, 3, 32, 32])
    """

    kind = "pictures"

    def __init__(self, size: int = 64):
        if size < 8:
            raise ValueError(f"size is {size}; it must be 8 pixels or more")
        self.size = size

    def __call__(self, pictures: Sequence[Any], *, progress: bool | None = False) -> Tensor:
        """Paths, pictures of PIL or arrays ``(H, W)`` or ``(H, W, 3)`` of bytes, as uint8 ``(N, 3, size, size)``.

        Raises:
            ValueError: If one is no picture; the message says which.
        """
        if isinstance(pictures, str | os.PathLike):
            raise ValueError(f"pictures is one path, {pictures}; give a list of them")
        read = torch.empty((len(pictures), 3, self.size, self.size), dtype=torch.uint8)
        with progress_bar(len(pictures), "picture", progress) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            for row, pixels in enumerate(pool.map(self._read, pictures)):
                read[row] = pixels
                bar.update()
        return read

    def settings(self) -> dict[str, Any]:
        """What it is made of, in plain values."""
        return {"size": self.size}

    def _read(self, given: Any) -> Tensor:
        from PIL import Image, ImageOps

        if isinstance(given, str | os.PathLike):
            try:
                with Image.open(given) as opened:
                    opened.draft("RGB", (2 * self.size, 2 * self.size))
                    picture: Any = ImageOps.exif_transpose(opened)
                    picture.load()
            except FileNotFoundError:
                raise ValueError(f"{given} does not exist; a picture was looked for there") from None
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                said = str(error).split(" <")[0].removesuffix(f" '{given}'")
                raise ValueError(
                    f"{given} is no picture that can be read ({said}); mend it, or take it out of the folder"
                ) from None
        elif isinstance(given, Image.Image):
            picture = ImageOps.exif_transpose(given)
        else:
            try:
                picture = Image.fromarray(cast("Any", given))
            except (AttributeError, TypeError):
                kind = f"{type(given).__name__} of {getattr(given, 'dtype', 'no dtype')}"
                raise ValueError(
                    f"a picture is a {kind}, {tuple(getattr(given, 'shape', ()))}; give a path, a PIL image, or a NumPy"
                    " array of uint8, (H, W) or (H, W, 3)"
                ) from None
        if picture.mode == "F":
            what = given if isinstance(given, str | os.PathLike) else "a picture"
            raise ValueError(f"{what} holds floating-point numbers, and which is white is not known; give 8 or 16 bits")
        if picture.mode.startswith("I"):
            picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        if picture.size != (self.size, self.size):
            picture = picture.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def folder(
    root: str | Path,
    *,
    csv: str | Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    unlabeled: str | Path | None = None,
    labeled: int | None = None,
    size: int = 64,
    seed: int = 0,
    progress: bool | None = None,
) -> Own:
    """Photographs of one's own in memory, split for a study with few labels; see :func:`draw_parts`.

    All files of a class's folder are pictures, in folders inside of it too; names that begin with a dot are left out.

    Args:
        root: A folder with one folder for each class; with ``csv``, the folder that its paths begin in.
        csv: A table that names pictures and their classes, in CSV or JSON lines. A picture without a label is one
            to transfer by.
        path_column: The column of paths.
        label_column: The column of classes.
        group_column: A column of what pictures belong together, such as a module, a patient or a place; by default
            each picture is by itself.
        unlabeled: A folder of more pictures without labels; those of ``root`` that are named already are left out.
        labeled: How many pictures keep their labels to learn from; by default all that are not to choose or test by.
        size: The height and width that pictures are brought to, in pixels. One takes 3 · size² bytes.
        seed: The seed of the draw of labelled pictures.
        progress: Whether to show a bar; by default where a person watches.

    Returns:
        :class:`Own`, whose inputs are uint8, ``(N, 3, size, size)``, as
        :class:`kdft_lib.models.PictureClassifier` takes them, and whose names are paths.

    Raises:
        FileNotFoundError: If a folder or the table does not exist.
        ValueError: If there are fewer than two classes, a class has fewer than three pictures, a file is no
            picture, a column is missing or a count out of range; the message says which.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for row in range(10):
        ...     (root / "ab"[row % 2]).mkdir(exist_ok=True)
        ...     Image.new("L", (9, 9), 20 * row).save(root / "ab"[row % 2] / f"{row}.png")
        >>> own = folder(root, size=8)
        >>> own.classes, own.counts, own.splits.test
        (('a', 'b'), {'train': 6, 'transfer': 0, 'val': 2, 'test': 2}, TensorData(inputs (2, 3, 8, 8), targets (2,)))
    """
    reader, root = PictureReader(size), Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist, or is no folder; name one with a folder for each class")
    groups = None
    if csv is None:
        columns = {"path_column": path_column, "label_column": label_column, "group_column": group_column}
        for name, column in columns.items():
            if column is not None:
                raise ValueError(f"{name} is {column!r}, and no csv is given that has it; give csv, the table, too")
        apart = None if unlabeled is None else Path(unlabeled).resolve()
        places = sorted(
            place for place in root.iterdir()
            if place.is_dir() and not place.name.startswith(".") and place.resolve() != apart
        )  # fmt: skip
        paths = [(path, place.name) for place in places for path in _files(place)]
        loose = list(_files(root, deep=False))
        if not places:
            raise ValueError(
                f"{root} has no folders, and {len(loose)} files; make one folder for each class, or give csv, a table"
                " that names the pictures' classes"
            )
        if {place.name.lower() for place in places} <= _PARTS:
            raise ValueError(
                f"{root} has the folders {', '.join(place.name for place in places)}, which are parts and no classes;"
                " parts are drawn here, so name a folder with one for each class"
            )
        empty = [place.name for place in places if not any(True for _ in _files(place))]
        if empty:
            raise ValueError(f"{root / empty[0]} is a class's folder without a picture; add some, or remove it")
        files, labels = [path for path, _ in paths], [label for _, label in paths]
    else:
        if path_column is None or label_column is None:
            raise ValueError(
                f"path_column is {path_column!r} and label_column is {label_column!r}; with csv, name both"
            )
        rows = read_rows(csv, [path_column, label_column, *([group_column] if group_column else [])])
        files, labels = [root / str(path) for path in rows[path_column]], list(rows[label_column])
        groups = grouped(rows, group_column)
        seen: dict[Path, int] = {}
        for number, path in enumerate(files):
            if not path.is_file():
                raise ValueError(f"row {number + 1} of {csv} names {path}, which does not exist; mend the table")
            if (first := seen.setdefault(path, number)) < number:
                raise ValueError(
                    f"row {number + 1} of {csv} names {path}, as row {first + 1} does; leave one out, since each"
                    " picture is in one part"
                )
    targets, classes = numbered(labels)
    parts = draw_parts(targets, labeled=labeled, groups=groups, seed=seed, classes=classes, unit="pictures")
    more: list[Path] = []
    if unlabeled is not None:
        if not Path(unlabeled).is_dir():
            raise FileNotFoundError(f"{unlabeled} does not exist, or is no folder; name one of pictures without labels")
        named = {path.resolve() for path in files}
        more = [path for path in _files(Path(unlabeled)) if path.resolve() not in named]
    pictures = reader([*files, *more], progress=progress)
    whole = TensorData(pictures[: len(files)], targets)
    transfer = TensorData(torch.cat([pictures[: len(files)][parts[1]], pictures[len(files) :]]))
    splits = Splits(whole[parts[0]], transfer, whole[parts[2]], whole[parts[3]])
    names = [[str(files[row]) for row in part.tolist()] for part in parts]
    names[1] += map(str, more)
    return Own(splits, classes, tuple(names), reader)


def _files(place: Path, deep: bool = True) -> Iterator[Path]:
    """The files in a folder, in order; those that nobody sees left out."""
    for path in sorted(place.rglob("*") if deep else place.iterdir()):
        hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
        if path.is_file() and not hidden and path.name.lower() not in _LITTER:
            yield path
