"""Random views of a batch, drawn for each image apart and from torch's generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomShiftFlip:
    """Shift each image by a few pixels and mirror half of them, the usual augmentation of small
    pictures (He et al., 2016, section 4.2, with a padding of 4 for 32×32).

    Args:
        padding: The largest shift, in pixels, in each direction. The border shows ``fill``.
        flip: The probability of mirroring left to right, from 0 to 1.
        fill: The value of the border; by default 0, which after normalisation is a mid grey. Pass
            the value of the images' background.

    Raises:
        ValueError: If ``padding`` is negative or ``flip`` is no probability.

    Example:
        >>> RandomShiftFlip(padding=2)(torch.zeros(8, 1, 28, 28)).shape
        torch.Size([8, 1, 28, 28])
    """

    def __init__(self, padding: int = 2, flip: float = 0.5, fill: float = 0.0):
        if padding < 0:
            raise ValueError(f"padding is {padding}; it must be 0 or more")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip is {flip}; it is a probability, from 0 to 1")
        self.padding, self.flip, self.fill = padding, flip, fill

    def __repr__(self) -> str:
        return f"RandomShiftFlip(padding={self.padding}, flip={self.flip}, fill={self.fill})"

    def __call__(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` → the same shape."""
        count, _, height, width = images.shape
        shifts = torch.randint(0, 2 * self.padding + 1, (2, count, 1))
        mirrored = torch.rand(count, 1) < self.flip
        rows = torch.arange(height) + shifts[0]
        columns = torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width)) + shifts[1]
        padded = F.pad(images, [self.padding] * 4, value=self.fill).movedim(1, -1)
        where = (torch.arange(count).view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1))
        return padded[tuple(index.to(images.device) for index in where)].movedim(-1, 1).contiguous()


class RandomShiftMask:
    """Shift each spectrum in time and hide a stretch of time and a stretch of pitch, each drawn for
    each clip apart: the masks of SpecAugment (Park et al., 2019) without its warp.

    A mask of frames is from 0 to ``frames`` wide, one of bands from 0 to ``bands``, all widths equally
    likely, and lies anywhere. Where a shift leaves room, the first or the last column is repeated.

    Args:
        shift: The largest shift, in frames, in each direction.
        frames: The widest mask in time, in frames.
        bands: The widest mask in pitch, in bands.
        fill: The value of what is hidden; by default 0, the mean of a normalised spectrum.

    Raises:
        ValueError: If a size is negative, or, when called, a mask may be wider than the spectra.

    Example:
        >>> RandomShiftMask(shift=10, frames=20, bands=8)(torch.randn(8, 1, 40, 101)).shape
        torch.Size([8, 1, 40, 101])
    """

    def __init__(self, shift: int = 10, frames: int = 20, bands: int = 8, fill: float = 0.0):
        for name, size in (("shift", shift), ("frames", frames), ("bands", bands)):
            if size < 0:
                raise ValueError(f"{name} is {size}; it must be 0 or more")
        self.shift, self.frames, self.bands, self.fill = shift, frames, bands, fill

    def __repr__(self) -> str:
        return f"RandomShiftMask(shift={self.shift}, frames={self.frames}, bands={self.bands}, fill={self.fill})"

    def __call__(self, spectra: Tensor) -> Tensor:
        """``(N, C, bands, frames)`` → the same shape."""
        count, _, height, width = spectra.shape
        if self.frames > width or self.bands > height:
            raise ValueError(
                f"spectra has {height} bands and {width} frames; masks of up to {self.bands} bands and"
                f" {self.frames} frames do not fit"
            )
        shifts = torch.randint(-self.shift, self.shift + 1, (count, 1))
        columns = (torch.arange(width) - shifts).clamp_(0, width - 1).view(count, 1, 1, width)
        shifted = spectra.gather(3, columns.to(spectra.device).expand_as(spectra))
        hidden = (
            _stretches(count, width, self.frames)[:, None, None, :]
            | _stretches(count, height, self.bands)[:, None, :, None]
        )
        return shifted.masked_fill_(hidden.to(spectra.device), self.fill)


def _stretches(count: int, size: int, widest: int) -> Tensor:
    """``(count, size)``: true in one stretch of each row."""
    width = torch.randint(0, widest + 1, (count, 1))
    start = (torch.rand(count, 1) * (size - width + 1)).long()
    place = torch.arange(size)
    return (start <= place) & (place < start + width)
