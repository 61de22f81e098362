"""ELPV (Buerhop-Lutz and others, 2018): 2,624 photographs of solar cells by the light that they give off themselves."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import Literal

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import cache_folder, package_folder, read_whole, written_whole

SOLAR_CLASSES = ("functional", "defective")

SOLAR_KINDS = ("mono", "poly")
"""What the silicon of a cell is: one crystal, or many."""

SOLAR_MODULES = (
    60,
    *(60,) * 5,
    *(60,) * 3,
    *(60,) * 6,
    *(60,) * 5, 54, *(60,) * 6,
    *(60,) * 2, 50, *(60,) * 6,
    72,
    *(60,) * 3,
    48,
    *(60,) * 3,
)  # fmt: skip
"""How many cells each of the 44 modules has, in the order of the cells; a line for each run of one kind. Inferred, as
``tools/solar_modules.py`` says and measures."""

# Modules for testing, four times, each with some to choose by. Of 90,000 exchanges of modules of one kind, those were
# kept that brought the shares of the two kinds and of their defects nearer to those of the whole, in all parts.
_TESTED = (
    (6, 11, 14, 16, 18, 20, 22, 32, 33, 41, 43),
    (2, 5, 7, 10, 12, 19, 24, 26, 28, 34, 40),
    (0, 4, 23, 25, 27, 29, 31, 35, 36, 37, 38),
    (1, 3, 8, 9, 13, 15, 17, 21, 30, 39, 42),
)
_CHOSEN_BY = ((2, 7, 10, 26, 28, 40), (23, 27, 36, 37, 38), (3, 15, 17, 30, 39), (6, 11, 20, 22, 32, 33))

_SIDE, _SMALLEST = 300, 8
_FEWEST = 20
"""Cells to choose by, at least."""
_LABELS_SHA256 = "0abe6fe7700aea571717d7d7dfec005a47c6207b4cde26a4556b6807a115483d"
_PICTURES_SHA256 = "e3feb6ea581addbb2e8da5055eb79b1952e692609a2b55ab9ac21124a5d433d3"
_LARGEST = 200_000
_PACKAGE = "elpv-dataset==1.0.0.post1"
_ANEW = f"pip install --force-reinstall --no-deps {_PACKAGE} brings it anew"


def solar_cells(
    labeled: int | None = 500,
    *,
    size: int = 96,
    split: Literal["module", "random"] = "module",
    fold: int = 0,
    validation: int | Literal["all", "within"] = "all",
    seed: int = 0,
    root: str | Path | None = None,
) -> Splits:
    """Which solar cell is defective? Electroluminescence photographs in grey, cut out of 44 modules.

    A cell counts as defective where its probability of a defect is a half or more, which 31 % are. People gave these
    probabilities: 0, 1/3, 2/3 or 1, the middle two where they were in doubt.

    Cells lie in the order of their modules, and which module a cell is of, no file says. It is inferred: where the kind
    changes, where brightness, edges and texture change for good, and where sixty cells are complete; see
    :data:`SOLAR_MODULES`. Cells of one module look alike, so modules, not cells, are set apart: 11 for ``test``, the
    same for every seed, 5 or 6 for ``val``. ``train`` is drawn from the other 27 or 28, as cells come and not balanced
    by class, and ``transfer`` is the rest, without labels.

    The pictures are under CC BY-NC-SA 4.0, not for commercial use. Print numbers, not pictures.

    Args:
        labeled: How many cells of ``train`` come with labels; ``None`` takes all and leaves ``transfer`` empty.
        size: The height and width of the pictures, up to 300, as they are on disk. Smaller ones are made once, and a
            file in the user's cache keeps them.
        split: ``"module"``; or ``"random"``, the mistake: parts as large, whatever the modules. A model that knows a
            cell's module then knows something of the cell, which it will not know of a module that is yet to be built.
        fold: Which modules are for testing, 0 to 3: each module is in one of four tests.
        validation: ``"all"`` cells that are set apart to choose by, some 300 to 354, the same for every seed; so many
            of them; or ``"within"``: a fifth of the labelled cells, of modules that ``train`` has too.
        seed: The seed of the draw of labelled cells.
        root: The folder with ``labels.csv`` and ``images``. By default that of the Python package ``elpv-dataset``.

    Returns:
        :class:`Splits`; inputs are uint8, ``(N, 1, size, size)``, from 0 to 255; targets are int64, ``(N,)``, indices
        into :data:`SOLAR_CLASSES`. Further columns: ``probability``, float32, NaN in ``transfer``; ``kind``, an index
        into :data:`SOLAR_KINDS`; ``module``, 0 to 43; ``cell``, its place among all, from 0.

    Raises:
        ImportError: If ``root`` is not given and the package is not installed, or Pillow, which reads the files.
        FileNotFoundError: If a file is missing.
        ValueError: If a count, the size, the fold or the split is out of range, or the files are not those expected.
        OSError: If the smaller pictures cannot be kept.

    Example:
        >>> train, transfer, val, test = solar_cells(labeled=500)  # doctest: +SKIP
        >>> train.inputs.shape, len(transfer), len(val), len(test)  # doctest: +SKIP
        (torch.Size([500, 1, 96, 96]), 1122, 348, 654)
    """
    if size not in range(_SMALLEST, _SIDE + 1):
        raise ValueError(f"size is {size!r}; it must be from {_SMALLEST} to {_SIDE} pixels")
    if fold not in range(len(_TESTED)):
        raise ValueError(f"fold is {fold!r}; it must be from 0 to {len(_TESTED) - 1}")
    modules = torch.arange(len(SOLAR_MODULES)).repeat_interleave(torch.tensor(SOLAR_MODULES))
    test, held_out = (torch.isin(modules, torch.tensor(named[fold])) for named in (_TESTED, _CHOSEN_BY))
    if split == "random":
        order = torch.randperm(len(modules), generator=torch.Generator().manual_seed(fold))
        test, held_out = test[order], held_out[order]
    elif split != "module":
        raise ValueError(f'split is {split!r}; it must be "module", or "random" to see what that does')
    apart = int(held_out.sum())
    rows = splitting.draw(
        torch.zeros(len(modules), dtype=torch.int64),  # All alike, so that cells are drawn as they come.
        (~test & ~held_out).nonzero().flatten(),
        labeled=labeled,
        validation=apart if validation == "all" else validation,
        choice=range(_FEWEST, apart + 1),
        held_out=held_out.nonzero().flatten(),
        test=test.nonzero().flatten(),
        seed=seed,
    )
    folder = _folder(root)
    probability, kinds = _labels(folder)
    images = _kept(folder, cache_folder(), size)

    def part(chosen: Tensor, labels: bool = True) -> TensorData:
        said = probability[chosen]
        return TensorData(
            images[chosen],
            (said >= 0.5).long() if labels else None,
            columns={
                "probability": said if labels else torch.full_like(said, torch.nan),
                "kind": kinds[chosen],
                "module": modules[chosen],
                "cell": chosen,
            },
        )

    return Splits(part(rows.train), part(rows.transfer, labels=False), part(rows.val), part(rows.test))


def _folder(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    return package_folder("elpv_dataset", "elpv-dataset, which carries the solar cells,", "solar") / "data"


@functools.lru_cache(maxsize=1)
def _labels(folder: Path) -> tuple[Tensor, Tensor]:
    """Of each cell its probability, float32, and its kind, int64, if the table is what it should be."""
    content = _content(folder / "labels.csv")
    if hashlib.sha256(content).hexdigest() != _LABELS_SHA256:
        raise ValueError(f"{folder / 'labels.csv'} is another table than expected; {_ANEW}")
    lines = [line.split() for line in content.decode().splitlines()]
    return torch.tensor([float(line[1]) for line in lines]), torch.tensor(
        [SOLAR_KINDS.index(line[2]) for line in lines]
    )


@functools.lru_cache(maxsize=2)
def _kept(folder: Path, cache: Path, size: int) -> Tensor:
    """Pictures, uint8, ``(N, 1, size, size)``: as they were kept, or read and made smaller anew."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = cache / f"solar-cells-{size}-{_PICTURES_SHA256[:8]}.safetensors"
    if not path.is_file():
        images = _read(folder, size)
        with written_whole(path) as temporary:
            save_file({"images": images}, str(temporary), metadata={"sha256": _digest(images)})
        return images
    try:
        with safe_open(str(path), framework="pt") as file:
            images, wanted = file.get_tensor("images"), file.metadata()["sha256"]
    except (SafetensorError, KeyError, TypeError) as error:
        problem = f"cannot be read ({error})"
    else:
        if images.shape == (sum(SOLAR_MODULES), 1, size, size) and _digest(images) == wanted:
            return images
        problem = "does not hold the pictures that were written"
    raise ValueError(f"{path} {problem}; delete the file and call again to have the pictures read anew")


def _digest(images: Tensor) -> str:
    return hashlib.sha256(images.numpy().data).hexdigest()


def _read(folder: Path, size: int) -> Tensor:
    """Every picture, brought to a size, if all are what they should be."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            "Pillow, which reads the pictures, is not installed; pip install 'kdft-lib[solar]' brings it"
        ) from None
    digest, images = hashlib.sha256(), torch.empty((sum(SOLAR_MODULES), 1, size, size), dtype=torch.uint8)
    for cell in range(len(images)):
        content = _content(folder / "images" / f"cell{cell + 1:04d}.png")
        digest.update(f"{len(content)}\n".encode() + content)
        try:
            picture = torch.from_numpy(numpy.array(Image.open(io.BytesIO(content))))
        except (OSError, SyntaxError) as error:  # The latter is Pillow's word for a damaged PNG.
            raise ValueError(f"cell{cell + 1:04d}.png of {folder} cannot be read ({error}); {_ANEW}") from None
        smaller = F.interpolate(
            picture.float().view(1, 1, *picture.shape), (size, size), mode="bilinear", antialias=True
        )
        images[cell] = smaller[0].round().clamp(0, 255)
    if digest.hexdigest() != _PICTURES_SHA256:
        raise ValueError(
            f"{folder} holds other pictures than expected: their SHA-256 is {digest.hexdigest()}, wanted"
            f" {_PICTURES_SHA256}; {_ANEW}"
        )
    return images


def _content(path: Path) -> bytes:
    try:
        return read_whole(path, _LARGEST)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist; pip install --no-deps {_PACKAGE} brings all 2,624 solar cells"
        ) from None
