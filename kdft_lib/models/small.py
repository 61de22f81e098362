"""The networks of the book's experiments: a residual teacher, plain students, and one that spots words."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Module):
    """A student: three 3×3 convolutions of stride 2 with batch normalisation, then the mean over
    positions and a linear head.

    Args:
        width: The number of channels of the first convolution; the next two have twice and four times as many.
            For 28×28 images in grey and ten classes: 4 is 1,702 parameters, 8 is 6,274, 16 is 24,058.
        num_classes: The number of classes, and so of logits.
        channels: The number of channels of the input.

    Shape:
        ``(N, channels, H, W)`` → ``(N, num_classes)``, for H and W of 8 or more.

    Example:
        >>> sum(p.numel() for p in ConvNet(width=8).parameters())
        6274
    """

    def __init__(self, width: int = 8, num_classes: int = 10, channels: int = 1):
        super().__init__()
        _check_sizes(width=width, num_classes=num_classes, channels=channels)
        self.arguments = {"width": width, "num_classes": num_classes, "channels": channels}
        self.body = nn.Sequential(
            _convolution(channels, width, stride=2),
            nn.ReLU(),
            _convolution(width, 2 * width, stride=2),
            nn.ReLU(),
            _convolution(2 * width, 4 * width, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class ResNet(nn.Module):
    """A teacher: three residual blocks (He et al., 2016), each of which halves the picture; the last
    two double the channels.

    Args:
        width: The number of channels of the first block. 20 makes 121,470 parameters.
        num_classes: The number of classes, and so of logits.
        channels: The number of channels of the input.

    Shape:
        ``(N, channels, H, W)`` → ``(N, num_classes)``, for H and W of 8 or more.

    Example:
        >>> sum(p.numel() for p in ResNet(width=20).parameters())
        121470
    """

    def __init__(self, width: int = 20, num_classes: int = 10, channels: int = 1):
        super().__init__()
        _check_sizes(width=width, num_classes=num_classes, channels=channels)
        self.arguments = {"width": width, "num_classes": num_classes, "channels": channels}
        self.stem = _convolution(channels, width)
        self.block1 = ResidualBlock(width, width)
        self.block2 = ResidualBlock(width, 2 * width)
        self.block3 = ResidualBlock(2 * width, 4 * width)
        self.head = nn.Linear(4 * width, num_classes)
        # Channels last in memory: on a CPU, training takes less than half the time.
        cast("Any", self).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.stem(images))
        maps = self.block3(self.block2(self.block1(maps)))
        return self.head(maps.mean(dim=(2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions, the first of stride 2, beside a shortcut, a 1×1 convolution of stride 2."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.first = _convolution(before, after, stride=2)
        self.second = _convolution(after, after)
        self.shortcut = _convolution(before, after, size=1, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(maps))) + self.shortcut(maps))


class DSCNN(nn.Module):
    """A network that spots words: a 5×5 convolution of stride 2, three depthwise-separable blocks of which
    the first has stride 2, then the mean over positions and a linear head.

    A small one of the family that Zhang et al. (2017) call DS-CNN. A depthwise-separable convolution looks
    at each channel by itself, 3×3, and mixes the channels at each position afterwards: for c channels
    9c + c² weights in place of 9c².

    Args:
        width: The number of channels of the first convolution; the blocks have twice as many. With ten classes, 16 is
            4,394 parameters, 48 is 28,522.
        num_classes: The number of classes, and so of logits.
        channels: The number of channels of the input.

    Shape:
        ``(N, channels, bands, frames)`` → ``(N, num_classes)``, for spectra of any size.

    Example:
        >>> sum(p.numel() for p in DSCNN(width=16).parameters())
        4394
    """

    def __init__(self, width: int = 16, num_classes: int = 10, channels: int = 1):
        super().__init__()
        _check_sizes(width=width, num_classes=num_classes, channels=channels)
        self.arguments = {"width": width, "num_classes": num_classes, "channels": channels}
        self.body = nn.Sequential(
            _convolution(channels, width, size=5, stride=2),
            nn.ReLU(),
            _separable(width, 2 * width, stride=2),
            _separable(2 * width, 2 * width),
            _separable(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, spectra: Tensor) -> Tensor:
        return self.head(self.body(spectra))


def _convolution(before: int, after: int, *, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def _separable(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    depthwise = _convolution(before, before, stride=stride, groups=before)
    return nn.Sequential(depthwise, nn.ReLU(), _convolution(before, after, size=1), nn.ReLU())


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be 1 or more")
