"""Recorded sound as tensors: reading WAV files, changing the sampling rate, placing a word in its second."""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.files import read_whole

_LARGEST = 10_000_000


def read_wav(path: str | Path, sample_rate: int, *, limit: int = _LARGEST) -> Tensor:
    """The samples of a WAV file of one channel and 16 bits.

    Args:
        path: The file's path.
        sample_rate: The rate that it must have, in samples a second: nothing is resampled in silence.
        limit: How many bytes the file may have.

    Returns:
        Float32, ``(samples,)``, from -1 to 1.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is too large, cut off, no WAV file, or has another rate, width or number of
            channels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tone.wav"
        >>> with wave.open(str(path), "wb") as file:
        ...     file.setparams((1, 2, 8000, 0, "NONE", ""))
        ...     file.writeframes(numpy.array([0, 16384, -32768], dtype="<i2").tobytes())
        >>> read_wav(path, 8000)
        tensor([ 0.0000,  0.5000, -1.0000])
    """
    path = Path(path)
    try:
        with wave.open(io.BytesIO(read_whole(path, limit))) as file:
            channels, width, rate, frames = file.getparams()[:4]
            content = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise ValueError(f"{path} is no WAV file of plain samples ({reason})") from None
    if (channels, width) != (1, 2):
        raise ValueError(f"{path} has {channels} channels of {8 * width} bits; it must have one of 16 bits")
    if rate != sample_rate:
        raise ValueError(
            f"{path} has {rate:,} samples a second, wanted {sample_rate:,}; read it with sample_rate={rate}"
            f" and call resample(samples, {rate}, {sample_rate})"
        )
    if len(content) != 2 * frames:
        raise ValueError(
            f"{path} holds {len(content) // 2:,} samples of the {frames:,} that it announces; copy it anew"
        )
    return torch.from_numpy(numpy.frombuffer(content, dtype="<i2").astype(numpy.float32)).div_(32768)


def resample(waveforms: Tensor, given: int, wanted: int) -> Tensor:
    """The same sound at another sampling rate.

    Frequencies that the lower of both rates cannot hold are filtered out first
    (:func:`scipy.signal.resample_poly`), or they would come back as others.

    Args:
        waveforms: Clips, ``(..., samples)``.
        given: How many samples a second they have.
        wanted: How many samples a second come out.

    Returns:
        Float32, ``(..., ⌈samples · wanted / given⌉)``.

    Raises:
        ValueError: If a rate is not positive.
        ImportError: If SciPy is not installed.

    Example:
        >>> resample(torch.zeros(2, 16_000), 16_000, 8_000).shape
        torch.Size([2, 8000])
    """
    if given < 1 or wanted < 1:
        raise ValueError(f"given is {given} and wanted {wanted}; a sampling rate is 1 or more")
    if given == wanted:
        return waveforms.float()
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise ImportError(
            "resample needs SciPy, which is not installed; pip install 'kdft-lib[speech]' brings it"
        ) from None
    common = math.gcd(given, wanted)
    changed = resample_poly(waveforms.double().cpu().numpy(), wanted // common, given // common, axis=-1)
    return torch.from_numpy(changed).to(waveforms.device, torch.float32)


def centered(waveform: Tensor, samples: int) -> Tensor:
    """A word in the middle of a clip of fixed length, without the silence around it.

    What is quieter than a hundredth of the peak (−40 dB) at either end is taken off. A word that is
    longer than the clip loses as much at its start as at its end.

    Args:
        waveform: The word and what is around it, ``(T,)``.
        samples: How many samples the clip has.

    Returns:
        ``(samples,)``; what is around the word is zero.

    Raises:
        ValueError: If there is nothing but silence.

    Example:
        >>> centered(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.001]), 3)
        tensor([0., 1., 0.])
    """
    loud = (waveform.abs() > waveform.abs().max() / 100).nonzero() if len(waveform) else waveform
    if not len(loud):
        raise ValueError(f"waveform has {len(waveform):,} samples, and all are silent")
    word = waveform[int(loud[0]) : int(loud[-1]) + 1]
    missing = samples - len(word)
    return F.pad(word, (missing // 2, missing - missing // 2))
