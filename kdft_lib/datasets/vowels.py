"""Japanese Vowels (Kudo, Toyama and Shimbo, 1999): nine men say two vowels, 640 times in all."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdft_lib.data.splits import Splits, draw_balanced
from kdft_lib.data.tensors import TensorData
from kdft_lib.files import read_whole

_SHA256 = "e5f388bc1d2f0dffd4f4c0f5cd51f4af699c89f26391f761428ceeec6ec01e52"
_LARGEST = 300_000
_STEP = 1e-4
_LONGEST = 29
_TRAIN, _SPEAKERS = 270, 9


def japanese_vowels(labeled: int | None = None, *, validation: int | Literal["within"] = 54, seed: int = 0) -> Splits:
    """Who is speaking? Short sequences of nine men who say /ae/, with the split of the authors.

    A frame is 25.6 ms of sound, taken every 6.4 ms at 10 kHz, as 12 cepstrum coefficients of a linear
    prediction: the shape of the mouth, without units. The speakers of the test set are those of the
    training set, at other times. The file is in the package, under CC BY 4.0, rounded to four decimals.

    Args:
        labeled: How many utterances of ``train`` come with labels, balanced by speaker; ``None`` takes
            all and leaves ``transfer`` empty.
        validation: How many of the 270 training utterances are set apart as ``val``, the same for every
            seed: from 0, which leaves all 270 to ``train``, to 135; or ``"within"``: a fifth of the
            labelled ones.
        seed: Of the draw of labelled utterances.

    Returns:
        :class:`Splits`; inputs are float32, ``(N, 29, 12)``, from 7 to 29 frames followed by zeros; no
        frame that was said is all zero, so ``inputs.any(-1)`` says which count. Targets are int64,
        ``(N,)``, the speaker. ``test`` has 370 utterances, from 24 to 88 of a speaker.

    Raises:
        ValueError: If a count is out of range, or the file is damaged.

    Example:
        >>> train, transfer, val, test = japanese_vowels()
        >>> train, len(val), len(test)
        (TensorData(inputs (216, 29, 12), targets (216,)), 54, 370)
        >>> test.inputs.any(-1).sum(-1).aminmax()
        torch.return_types.aminmax(
        min=tensor(7),
        max=tensor(29))
    """
    apart = 0 if validation == "within" else validation
    if not isinstance(apart, int) or not 0 <= apart <= _TRAIN // 2:
        raise ValueError(f'validation is {validation!r}; it must be from 0 to {_TRAIN // 2}, or "within"')
    fewest, pool_size = (5 if validation == "within" else 1) * _SPEAKERS, _TRAIN - apart
    if labeled is not None and not fewest <= labeled <= pool_size:
        raise ValueError(
            f"labeled is {labeled}; with validation={validation!r} it must be from {fewest} to {pool_size},"
            " or None for all"
        )
    (inputs, targets), test = _read()
    val, pool = draw_balanced(targets, torch.arange(_TRAIN), apart, seed=0)
    chosen, rest = draw_balanced(targets, pool, labeled or pool_size, seed=seed)
    if validation == "within":
        val, chosen = draw_balanced(targets, chosen, len(chosen) // 5, seed=seed)
    return Splits(
        train=TensorData(inputs[chosen], targets[chosen]),
        transfer=TensorData(inputs[rest]),
        val=TensorData(inputs[val], targets[val]),
        test=TensorData(*(column.clone() for column in test)),
    )


@functools.lru_cache(maxsize=1)
def _read() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sequences ``(N, 29, 12)`` and speakers ``(N,)``, of training and of test."""
    from safetensors.torch import load

    with resources.as_file(resources.files("kdft_lib") / "assets/data/japanese_vowels.safetensors") as path:
        content = read_whole(path, _LARGEST)
        if hashlib.sha256(content).hexdigest() != _SHA256:
            raise ValueError(f"{path} is damaged: its SHA-256 is not {_SHA256}; install kdft-lib again")
    tensors = load(content)

    def part(name: str) -> tuple[Tensor, Tensor]:
        lengths = tensors[f"{name}.lengths"].tolist()
        said = [frames.double().mul(_STEP).float() for frames in tensors[f"{name}.frames"].split(lengths)]
        padded = pad_sequence([*said, torch.zeros(_LONGEST, 12)], batch_first=True)[:-1]
        return padded, tensors[f"{name}.speakers"].long()

    return part("train"), part("test")
