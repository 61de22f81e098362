"""Japanese Vowels (Kudo, Toyama and Shimbo, 1999): nine men say two vowels, 640 times in all."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import read_whole

_SHA256 = "e5f388bc1d2f0dffd4f4c0f5cd51f4af699c89f26391f761428ceeec6ec01e52"
_LARGEST = 300_000
_STEP = 1e-4
_LONGEST = 29
_TRAIN = 270


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
        seed: The seed of the draw of labelled utterances.

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
    (inputs, targets), (test_inputs, test_targets) = _read()
    rows = splitting.draw(
        targets, torch.arange(_TRAIN), labeled=labeled, validation=validation, choice=range(_TRAIN // 2 + 1),
        test=torch.arange(len(test_targets)), seed=seed,
    )  # fmt: skip
    return Splits(
        train=TensorData(inputs[rows.train], targets[rows.train]),
        transfer=TensorData(inputs[rows.transfer]),
        val=TensorData(inputs[rows.val], targets[rows.val]),
        test=TensorData(test_inputs[rows.test], test_targets[rows.test]),
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
