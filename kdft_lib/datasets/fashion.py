"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 grey pictures of clothes, ten classes."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import numpy
import torch
from torch import Tensor

from kdft_lib.data.splits import Splits, draw_balanced
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import cache_folder

FASHION_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

FASHION_BACKGROUND = -0.8102
"""The value of a black pixel after normalisation."""

FASHION_NORMALIZATION = 0.2860, 0.3530
"""Mean and standard deviation of the pixels from 0 to 1, over the training images."""
_HELD_OUT = 5_000
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_DOWNLOAD_SECONDS = 20.0

_CONTENT = {
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
"""Bytes and SHA-256 of each file's content, unpacked: mirrors pack the same content differently."""


def fashion_mnist(
    labeled: int | None = 1000,
    *,
    validation: int | Literal["within"] = _HELD_OUT,
    seed: int = 0,
    root: str | Path | None = None,
) -> Splits:
    """Fashion-MNIST in memory, normalised, split so that the shipped teacher can be judged fairly.

    5,000 training images, the same for every seed and balanced by class, are held out: the shipped
    teacher never saw them. ``train`` is drawn from the other 55,000, and ``transfer`` is what
    remains of these, without labels.

    Args:
        labeled: How many images of ``train`` come with labels, balanced by class; ``None`` takes
            all 55,000, and leaves ``transfer`` empty.
        validation: How many of the held-out images make ``val``, all 5,000 or fewer: the shipped teacher
            was trained on all others; or ``"within"``: ``val`` is a fifth
            of the labelled images, and ``train`` the other four, for a study in which labels are
            scarce and choosing must pay for its own.
        seed: The seed of the draw of labelled images.
        root: The folder where the files are. By default they are looked for in ``$KDFT_DATA``, in the
            user's cache (``kdft``, under ``$XDG_CACHE_HOME`` or ``~/.cache``), and where Debian's package
            ``dataset-fashion-mnist`` puts them; where none has them, torchvision downloads them into the
            first of these.

    Returns:
        :class:`Splits`; inputs are float32, ``(N, 1, 28, 28)``, with mean 0 and deviation 1 over the
        training set; targets are int64, ``(N,)``, indices into :data:`FASHION_CLASSES`.

    Raises:
        ValueError: If a count is out of range, or a file is truncated or altered.
        FileNotFoundError: If the files are nowhere and cannot be downloaded.

    Example:
        >>> train, transfer, val, test = fashion_mnist(labeled=100)
        >>> len(train), len(transfer), len(val), len(test)
        (100, 54900, 5000, 10000)
        >>> train.targets.bincount()
        tensor([10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    choice, pool_size = range(10, _HELD_OUT + 1), 60_000 - _HELD_OUT
    splitting.check(labeled, validation, choice, classes=len(FASHION_CLASSES), pool=pool_size, held_out=True)
    train_images, train_targets, test_images, test_targets = _read(_folder(root))
    held_out, pool = draw_balanced(train_targets, torch.arange(60_000), _HELD_OUT, seed=0)
    rows = splitting.draw(
        train_targets, pool, labeled=labeled, validation=validation, choice=choice, held_out=held_out,
        test=torch.arange(10_000), seed=seed,
    )  # fmt: skip
    return Splits(
        train=TensorData(_normalize(train_images[rows.train]), train_targets[rows.train]),
        transfer=TensorData(_normalize(train_images[rows.transfer])),
        val=TensorData(_normalize(train_images[rows.val]), train_targets[rows.val]),
        test=TensorData(_normalize(test_images[rows.test]), test_targets[rows.test]),
    )


def _normalize(images: Tensor) -> Tensor:
    mean, deviation = FASHION_NORMALIZATION
    return images.unsqueeze(1).to(torch.float32).div_(255).sub_(mean).div_(deviation)


def _folder(root: str | Path | None) -> Path:
    """The first place that has all four files; downloaded where none has."""
    named = os.environ.get("KDFT_DATA")
    places = [Path(root)] if root is not None else [*([Path(named)] if named else []), cache_folder(), _DEBIAN]
    for place in places:
        for folder in (place, place / "FashionMNIST" / "raw"):
            if all(any(path.is_file() for path in _forms(folder, name)) for name in _CONTENT):
                return folder
    reason = _download(places[0])
    if reason is None:
        return places[0] / "FashionMNIST" / "raw"
    raise FileNotFoundError(
        f"Fashion-MNIST is not in {' or '.join(map(str, places))}, and it could not be downloaded ({reason});"
        " install Debian's package dataset-fashion-mnist, or put the four *-ubyte.gz files"
        " into a folder and set KDFT_DATA to it"
    )


def _forms(folder: Path, name: str) -> Iterator[Path]:
    yield from (folder / f"{name}.gz", folder / name)


def _download(place: Path) -> str | None:
    """Let torchvision fetch the files; why it could not, if so."""
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError:
        return "torchvision, which downloads it, is not installed"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
    try:
        FashionMNIST(str(place), download=True)
    except (URLError, RuntimeError, OSError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
    finally:
        socket.setdefaulttimeout(before)
    return None


@functools.lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and targets, test images and targets: uint8 ``(N, 28, 28)``, int64 ``(N,)``."""
    train_images, train_targets, test_images, test_targets = (_content(folder, name) for name in _CONTENT)
    return (
        train_images[16:].view(-1, 28, 28),
        train_targets[8:].long(),
        test_images[16:].view(-1, 28, 28),
        test_targets[8:].long(),
    )


def _content(folder: Path, name: str) -> Tensor:
    """A file's bytes, unpacked, if they are what they should be."""
    path = next(path for path in _forms(folder, name) if path.is_file())
    length, expected = _CONTENT[name]
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read(length + 1)
    except (EOFError, OSError, zlib.error) as error:
        problem = f"cannot be read ({error})"
    else:
        found = hashlib.sha256(content).hexdigest()
        if found == expected:
            return torch.from_numpy(numpy.frombuffer(content, dtype=numpy.uint8).copy())
        bytes_found = f"more than {length:,}" if len(content) > length else f"{len(content):,}"
        problem = f"holds {bytes_found} bytes with SHA-256 {found}"
    raise ValueError(
        f"{path} {problem}; expected {length:,} bytes with SHA-256 {expected}."
        " Delete the file and call again to download it, or copy it anew from where it came"
    )
