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
