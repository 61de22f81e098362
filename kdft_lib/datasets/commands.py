"""Speech Commands (Warden, 2018): 105,829 recordings of 35 words, up to a second each."""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.audio.sound import read_wav, resample
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.datasets.digits import DIGITS
from kdft_lib.datasets.voices import SAMPLE_RATE
from kdft_lib.files import read_whole

_URL = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
_SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
_RECORDED = 16_000
_LARGEST_LIST, _LARGEST_CLIP = 2_000_000, 100_000
_NAME = re.compile(r"([0-9a-f]{8})_nohash_\d+\.wav")


def speech_commands(
    root: str | Path,
    labeled: int | None = None,
    *,
    words: Sequence[str] = DIGITS,
    validation: Literal["listed", "within"] = "listed",
    seed: int = 0,
    download: bool = False,
) -> Splits:
    """Words of Speech Commands, version 0.02, at 8,000 samples a second.

    The lists that come with the data say what is for validation and what for testing; no speaker is on
    both sides. The recordings are under CC BY 4.0.

    Args:
        root: The folder of the unpacked archive: one folder a word, ``validation_list.txt`` and
            ``testing_list.txt``.
        labeled: How many clips of ``train`` come with labels, balanced by word; ``None`` takes all and
            leaves ``transfer`` empty.
        words: Which words; by default the ten digits, as in :func:`spoken_digits`. All ten take some 1.3 GB
            as waveforms.
        validation: ``"listed"``: the clips that the list for validation names; or ``"within"``: a fifth of
            the labelled clips, of speakers that ``train`` has too.
        seed: The seed of the draw of labelled clips.
        download: Whether to download the archive (2.4 GB, its SHA-256 is checked) where ``root`` does
            not exist.

    Returns:
        :class:`Splits`; inputs are waveforms, float32, ``(N, 8000)``, from -1 to 1; shorter recordings
        are padded at both ends. Targets are int64, ``(N,)``, indices into ``words``.

    Raises:
        FileNotFoundError: If the folder, a list, a word or a listed file is missing.
        ValueError: If a count is out of range, a file is damaged or of another kind, or a speaker is in
            two parts.
        OSError: If it cannot be downloaded or unpacked.

    Example:
        >>> speech_commands("/nowhere", words=("yes", "no"))
        Traceback (most recent call last):
        FileNotFoundError: /nowhere does not exist; download https://storage.googleapis.com/...
    """
    if isinstance(words, str) or len(set(words)) != len(words) or len(words) < 2:
        raise ValueError(f"words is {words!r}; it must be two or more different words")
    folder = Path(root)
    if not folder.is_dir():
        if not download:
            raise FileNotFoundError(
                f"{folder} does not exist; download {_URL} (2.4 GB), unpack it and name its folder,"
                " or let speech_commands(root, download=True) do both"
            )
        _download(folder)
    lists = {part: _listed(folder, f"{part}_list.txt") for part in ("validation", "testing")}
    parts: dict[str, list[tuple[Path, int]]] = {"training": [], "validation": [], "testing": []}
    for target, word in enumerate(words):
        if not (folder / word).is_dir():
            known = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("_"))
            raise FileNotFoundError(f"{folder} has no recordings of {word!r}; it has {', '.join(known)}")
        names = sorted(path.name for path in (folder / word).iterdir() if _NAME.fullmatch(path.name))
        for name in names:
            part = next((part for part, listed in lists.items() if f"{word}/{name}" in listed), "training")
            parts[part].append((folder / word / name, target))
        for listed in (name for names_of_part in lists.values() for name in names_of_part):
            if listed.startswith(f"{word}/") and not (folder / listed).is_file():
                raise FileNotFoundError(f"{folder / listed} is listed and does not exist; unpack the archive anew")
    _check_speakers(parts)
    files = [clip for clips in parts.values() for clip in clips]
    targets = torch.tensor([target for _, target in files])
    pool, held_out, test = torch.arange(len(files)).split([len(clips) for clips in parts.values()])
    rows = splitting.draw(
        targets, pool, labeled=labeled, validation=validation, choice="listed", held_out=held_out, test=test, seed=seed
    )
    waveforms = [_clips([files[row] for row in part.tolist()]) for part in rows]
    return Splits(
        train=TensorData(waveforms[0], targets[rows.train]),
        transfer=TensorData(waveforms[1]),
        val=TensorData(waveforms[2], targets[rows.val]),
        test=TensorData(waveforms[3], targets[rows.test]),
    )


def _listed(folder: Path, name: str) -> set[str]:
    try:
        return set(read_whole(folder / name, _LARGEST_LIST).decode("utf-8").split())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder / name} does not exist; root must be the folder of the unpacked archive of version 0.02"
        ) from None


def _check_speakers(parts: dict[str, list[tuple[Path, int]]]) -> None:
    part_of: dict[str, str] = {}
    for part, clips in parts.items():
        if not clips:
            raise ValueError(f"there is no clip of these words for {part}; unpack the archive anew")
        for path, _ in clips:
            speaker = path.name[:8]
            if part_of.setdefault(speaker, part) != part:
                raise ValueError(
                    f"the speaker {speaker} is in {part_of[speaker]} and in {part} ({path}); unpack the archive anew"
                )


def _clips(files: Sequence[tuple[Path, int]]) -> Tensor:
    """``(N, 8000)``, resampled together: each call of the resampler designs its filter anew."""
    clips = torch.empty((len(files), SAMPLE_RATE))
    for start in range(0, len(files), 256):
        recorded = []
        for path, _ in files[start : start + 256]:
            samples = read_wav(path, _RECORDED, limit=_LARGEST_CLIP)
            missing = _RECORDED - len(samples)
            recorded.append(F.pad(samples, (missing // 2, missing - missing // 2)))
        clips[start : start + 256] = resample(torch.stack(recorded), _RECORDED, SAMPLE_RATE)
    return clips


def _download(folder: Path) -> None:
    """Fetch the archive and unpack it beside its place; only what is whole is put there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        archive, unpacked = Path(beside, "archive.tar.gz"), Path(beside, "unpacked")
        try:
            torch.hub.download_url_to_file(_URL, str(archive), hash_prefix=_SHA256)
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        except (URLError, RuntimeError, tarfile.TarError, OSError) as error:
            raise OSError(f"Speech Commands could not be downloaded from {_URL} ({error}); nothing was kept") from None
        os.replace(unpacked, folder)
