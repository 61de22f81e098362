"""Random views of a batch, drawn for each image apart and from torch's generator.

Each is a function of the batch, and the two steps that it consists of: ``draw(count, generator)`` makes all random
choices, a mapping of tensors with a row for each view, and ``apply(inputs, drawn)`` makes the views that they decide,
as often as one likes. :func:`kdft_lib.teachers.cache` keeps the choices of whatever has these two; where there are few,
``every()`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping

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
        return self.apply(images, self.draw(len(images)))

    def draw(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What decides a view, for each of so many images: ``shifts`` ``(count, 2)``, the row and column at which the
        view begins in the padded image (``padding`` leaves it in place), and ``mirrored`` ``(count,)``.
        """
        shifts = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < self.flip
        return {"shifts": shifts.T.to(torch.int16).contiguous(), "mirrored": mirrored}

    def every(self) -> dict[str, Tensor]:
        """All views there are, once each, as :meth:`draw` says them: 2 · (2 · padding + 1)², or half of that where
        ``flip`` is 0 or 1.

        Raises:
            ValueError: If ``flip`` is none of 0, 0.5 and 1, so that views are not equally likely.

        Example:
            >>> RandomShiftFlip(padding=1).every()["shifts"].shape
            torch.Size([18, 2])
        """
        mirrored = {0.0: [False], 0.5: [False, True], 1.0: [True]}.get(self.flip)
        if mirrored is None:
            raise ValueError(
                f"flip is {self.flip}, so views are not equally likely and cannot be listed once each; use 0, 0.5 or 1,"
                " or draw some of them: views=18"
            )
        shifts = torch.arange(2 * self.padding + 1)
        views = torch.cartesian_prod(shifts, shifts, torch.tensor(mirrored).long())
        return {"shifts": views[:, :2].to(torch.int16), "mirrored": views[:, 2].bool()}

    def apply(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """The views of images, ``(N, C, H, W)`` → the same shape, that were drawn for them."""
        down, right, mirrored = (column.to(images.device) for column in (*drawn["shifts"].long().T, drawn["mirrored"]))
        padded = F.pad(images, [self.padding] * 4, value=self.fill)
        windows = padded.unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)
        shifted = windows[torch.arange(len(images), device=images.device), :, down, right]
        return torch.where(mirrored.view(-1, 1, 1, 1), shifted.flip(3), shifted)


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
        return self.apply(spectra, self.draw(len(spectra)))

    def draw(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What decides a view, for each of so many spectra, ``(count,)`` each: its ``shift``; and of its mask in time
        and of that in pitch how wide it is, and where, from 0 to 1, it lies.
        """
        return {
            "shift": torch.randint(-self.shift, self.shift + 1, (count,), generator=generator),
            "frames": torch.randint(0, self.frames + 1, (count,), generator=generator),
            "frames_at": torch.rand(count, generator=generator),
            "bands": torch.randint(0, self.bands + 1, (count,), generator=generator),
            "bands_at": torch.rand(count, generator=generator),
        }

    def apply(self, spectra: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """The views of spectra, ``(N, C, bands, frames)`` → the same shape, that were drawn for them."""
        count, _, height, width = spectra.shape
        if self.frames > width or self.bands > height:
            raise ValueError(
                f"spectra has {height} bands and {width} frames; masks of up to {self.bands} bands and"
                f" {self.frames} frames do not fit"
            )
        columns = (torch.arange(width) - drawn["shift"].unsqueeze(-1)).clamp_(0, width - 1).view(count, 1, 1, width)
        shifted = spectra.gather(3, columns.to(spectra.device).expand_as(spectra))
        hidden = (
            _stretches(width, drawn["frames"], drawn["frames_at"])[:, None, None, :]
            | _stretches(height, drawn["bands"], drawn["bands_at"])[:, None, :, None]
        )
        return shifted.masked_fill_(hidden.to(spectra.device), self.fill)


def _stretches(size: int, width: Tensor, place: Tensor) -> Tensor:
    """``(count, size)``: true in one stretch of each row."""
    width, place = width.unsqueeze(-1), place.unsqueeze(-1)
    start = (place * (size - width + 1)).long()
    there = torch.arange(size)
    return (start <= there) & (there < start + width)
