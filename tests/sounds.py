"""Sounds for the tests."""

from __future__ import annotations

import wave

import numpy
import torch


def write_wav(path, samples, rate=16_000, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(numpy.asarray(samples, dtype={1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    return path


def tone(hertz, rate, seconds=1.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(int(rate * seconds)) / rate)
