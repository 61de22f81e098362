"""What is heard when, at which pitch: log-mel spectra of waveforms."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LOWEST = 20.0
_QUIETEST = 1e-10
_RANGE = 1e-6
_WHISPER_SAMPLES = 480_000


def log_mel(
    waveforms: Tensor,
    sample_rate: int = 8_000,
    *,
    bands: int = 40,
    window: int = 256,
    hop: int = 80,
    normalize: bool = True,
) -> Tensor:
    r"""Log-mel spectra: a picture of each clip, pitch upwards and time to the right.

    .. math:: L_{bt} = \log \sum_f M_{bf} \, |X_{ft}|^2

    :math:`X` is the short-time Fourier transform with Hann's window, a column every ``hop`` samples.
    Row :math:`b` of :math:`M` is a triangle over frequencies; the triangles' centres lie evenly on the
    mel scale, :math:`2595 \log_{10}(1 + f / 700)` for a frequency of :math:`f` Hz, narrow where the
    ear tells pitches apart, wide above. The same filters as
    :func:`transformers.audio_utils.mel_filter_bank` with ``mel_scale="htk"`` and ``norm=None``.

    What is more than 60 dB below the loudest point of a clip counts as 60 dB below it. So exact
    silence, which only a synthesiser makes, does not stand out.

    Args:
        waveforms: N clips, ``(N, samples)``.
        sample_rate: How many samples a second they have.
        bands: How many triangles, from 20 Hz to half the sampling rate.
        window: How many samples make a column.
        hop: How many samples lie from one column to the next.
        normalize: Whether each clip is brought to mean 0 and standard deviation 1; silence becomes 0.

    Returns:
        Float32, ``(N, 1, bands, 1 + ⌊samples / hop⌋)``.

    Raises:
        ValueError: If the shape is another, the clips are shorter than half a window, or there are so
            many bands that one has no frequency of its own.

    Example:
        >>> log_mel(torch.randn(2, 8_000)).shape
        torch.Size([2, 1, 40, 101])
    """
    if waveforms.dim() != 2:
        raise ValueError(f"waveforms has shape {tuple(waveforms.shape)}; it must be (N, samples)")
    if waveforms.shape[1] <= window // 2:
        raise ValueError(
            f"waveforms has {waveforms.shape[1]} samples; a window of {window} needs {window // 2 + 1} or more"
        )
    filters = mel_filters(sample_rate, bands, window).to(waveforms.device)
    hann = torch.hann_window(window, device=waveforms.device)
    spectra = waveforms.new_empty((len(waveforms), 1, bands, 1 + waveforms.shape[1] // hop), dtype=torch.float32)
    if not len(waveforms):
        return spectra
    # In parts, since the transform takes twenty times the room of what is kept of it.
    for part, out in zip(waveforms.split(256), spectra.split(256), strict=True):
        power = torch.stft(part.float(), window, hop, window=hann, return_complex=True).abs().square()
        mel = (filters @ power).clamp_min(_QUIETEST)
        out[:, 0] = mel.maximum(mel.amax((1, 2), keepdim=True) * _RANGE).log()
    if normalize:
        spectra -= spectra.mean((2, 3), keepdim=True)
        spectra /= spectra.square().mean((2, 3), keepdim=True).sqrt().clamp_min(0.1)
    return spectra


def mel_filters(sample_rate: int, bands: int, window: int) -> Tensor:
    """Triangles over the frequencies of a Fourier transform, even on the mel scale.

    Args:
        sample_rate: How many samples a second there are.
        bands: How many triangles there are.
        window: How many samples are transformed at once.

    Returns:
        Float32, ``(bands, 1 + window // 2)``.

    Raises:
        ValueError: If a triangle is so narrow that it holds no frequency.

    Example:
        >>> mel_filters(8_000, bands=4, window=16)
        tensor([[0.0000, 0.6810, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.3190, 0.7478, 0.0276, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.2522, 0.9724, 0.5241, 0.0293, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000, 0.4759, 0.9707, 0.6801, 0.3400, 0.0000]])
    """
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (_LOWEST, sample_rate / 2))
    mels = torch.linspace(lowest, highest, bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, 1 + window // 2, dtype=torch.float64)
    left, centre, right = (corners[start : start + bands, None] for start in range(3))
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    filters = rising.minimum(falling).clamp_min(0)
    if not filters.any(1).all():
        raise ValueError(
            f"bands is {bands}, and {int((~filters.any(1)).sum())} of them hold no frequency of a window of {window}"
            f" samples at {sample_rate:,} a second; take fewer bands or a longer window"
        )
    return filters.float()


def whisper_log_mel(waveforms: Tensor) -> Tensor:
    r"""Log-mel spectra as Whisper (Radford et al., 2023) reads them: 30 seconds, 80 bands, 100 frames a second.

    .. math:: \frac{1}{4} \Big(4 + \max\big(L, \max L - 8\big)\Big), \quad
        L_{bt} = \log_{10} \sum_f M_{bf} \, |X_{ft}|^2

    A column is made of 400 samples, with Hann's window, every 160. The triangles in the rows of :math:`M` have area 1,
    and their centres lie evenly up to 1,000 Hz and logarithmically above (Slaney's mel scale). The same numbers as
    :class:`transformers.WhisperFeatureExtractor`.

    Args:
        waveforms: N clips at 16,000 samples a second, ``(N, samples)``, from -1 to 1; what they lack of 30 seconds is
            silence.

    Returns:
        Float32, ``(N, 80, 3000)``.

    Raises:
        ValueError: If the shape is another, or the clips are longer than 30 seconds.

    Example:
        >>> whisper_log_mel(torch.randn(2, 16_000)).shape
        torch.Size([2, 80, 3000])
    """
    if waveforms.dim() != 2 or waveforms.shape[1] > _WHISPER_SAMPLES:
        raise ValueError(
            f"waveforms has shape {tuple(waveforms.shape)}; it must be (N, samples), at most {_WHISPER_SAMPLES:,} of"
            " them, 30 seconds of 16,000"
        )
    padded = F.pad(waveforms.float(), (0, _WHISPER_SAMPLES - waveforms.shape[1]))
    hann = torch.hann_window(400, device=waveforms.device)
    power = torch.stft(padded, 400, 160, window=hann, return_complex=True)[..., :-1].abs().square()
    mel = (_slaney_filters().to(waveforms.device) @ power).clamp_min(_QUIETEST).log10()
    return (mel.maximum(mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


@functools.cache
def _slaney_filters() -> Tensor:
    """80 triangles over 201 frequencies, ``(80, 201)``: 15 mels make 1,000 Hz, and above, 27 more a factor of 6.4."""
    mels = torch.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), 82, dtype=torch.float64)
    corners = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    frequencies = torch.linspace(0, 8_000, 201, dtype=torch.float64)
    left, centre, right = (corners[start : start + 80, None] for start in range(3))
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return (rising.minimum(falling).clamp_min(0) * 2 / (right - left)).float()
