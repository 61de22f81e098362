"""Ten English digits, said by synthesisers: 8,000 samples of sound each, one second."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kdft_lib.audio.espeak import Utterance
from kdft_lib.audio.sound import centered, read_wav, resample
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import voices
from kdft_lib.datasets.voices import SAMPLE_RATE

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_FLITE_VOICES = {"awb": 16_000, "kal": 8_000, "kal16": 16_000, "rms": 16_000, "slt": 16_000}
_FLITE_STRETCH = (0.85, 1.0, 1.2)


def spoken_digits(
    labeled: int | None = 300,
    *,
    validation: Literal["apart", "within"] = "apart",
    seed: int = 0,
    root: str | Path | None = None,
) -> Splits:
    """Ten digits in 104 voices of eSpeak NG and four accents, each clip at its own pitch and speed.

    Nothing is recorded or downloaded: the package ``espeakng-loader`` brings the synthesiser, a process
    of its own says the 4,160 words within half a minute, and a file of 67 MB keeps them. Voices, not clips, are
    set apart: 24 for ``test``, 16 for ``val``, 64 for the rest, and no voice has a near copy in another
    part. One machine says every sample the same each time; another version or kind of machine may round
    otherwise. Even so, variants of one synthesiser are not people: ask :func:`flite_digits`,
    :func:`asterisk_digits` or :func:`speech_commands` what a model has learned.

    Args:
        labeled: How many clips of ``train`` come with labels, balanced by digit, of all 2,560; ``None``
            takes all and leaves ``transfer`` empty.
        validation: ``"apart"``: the 640 clips of 16 voices that nothing else has; or ``"within"``: a
            fifth of the labelled clips, of voices that ``train`` has too.
        seed: The seed of the draw of labelled clips.
        root: The folder that keeps the clips; by default the user's cache.

    Returns:
        :class:`Splits`; inputs are waveforms, float32, ``(N, 8000)``, from -1 to 1, made for
        ``splits.with_inputs(log_mel)``; targets are int64, ``(N,)``, the digit.

    Raises:
        ImportError: If ``espeakng-loader`` or SciPy is not installed.
        RuntimeError: If the synthesiser fails.
        ValueError: If a count is out of range, or the file with the clips is damaged.
        OSError: If the clips cannot be kept.

    Example:
        >>> train, transfer, val, test = spoken_digits(labeled=300)
        >>> len(train), len(transfer), len(val), len(test)
        (300, 2260, 640, 960)
        >>> train.inputs.shape
        torch.Size([300, 8000])
    """
    return voices.spoken(
        utterances, "spoken-digits", len(DIGITS), labeled=labeled, validation=validation, seed=seed, root=root
    )


def flite_digits() -> TensorData:
    """The ten digits in five voices of Flite at three speeds: 150 clips to test with.

    Five voices of four people (``kal`` and ``kal16`` are one), so these are some 50 different sounds
    rather than 150. The program comes with Debian's package ``flite``.

    Returns:
        Inputs as those of :func:`spoken_digits`, ``(150, 8000)``, and the digits.

    Raises:
        FileNotFoundError: If the program is not installed.
        RuntimeError: If it fails.

    Example:
        >>> flite_digits()  # doctest: +SKIP
        TensorData(inputs (150, 8000), targets (150,))
    """
    program = shutil.which("flite")
    if program is None:
        raise FileNotFoundError(
            "flite, a speech synthesiser, is not installed; apt install flite brings it on Debian and Ubuntu"
        )
    waveforms, targets = _said_by_flite(program)
    return TensorData(waveforms.clone(), targets.clone())


def utterances() -> list[Utterance]:
    """All 4,160 words in the order in which they are said: each variant says all ten in each accent."""
    return voices.with_voices(
        [(word, f"{accent}+{variant}") for variant in voices.VARIANTS for accent in voices.ACCENTS for word in DIGITS]
    )


@functools.lru_cache(maxsize=1)
def _said_by_flite(program: str) -> tuple[Tensor, Tensor]:
    waveforms, targets = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "digit.wav")
        for voice, rate in _FLITE_VOICES.items():
            for stretch in _FLITE_STRETCH:
                for digit, word in enumerate(DIGITS):
                    command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", word]
                    try:
                        done = subprocess.run([*command, "-o", str(path)], capture_output=True, timeout=30)
                    except subprocess.TimeoutExpired:
                        raise RuntimeError(f"flite had not said {word!r} after 30 seconds") from None
                    if done.returncode or not path.is_file():
                        raise RuntimeError(
                            f"flite could not say {word!r} with the voice {voice}: {done.stderr.decode()}"
                        )
                    sound = resample(read_wav(path, rate), rate, SAMPLE_RATE)
                    path.unlink()
                    waveforms.append(centered(sound, SAMPLE_RATE))
                    targets.append(digit)
    return torch.stack(waveforms), torch.tensor(targets)
