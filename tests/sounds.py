"""Sounds for the tests."""

from __future__ import annotations

import wave

import numpy
import torch

from kdft_lib import files


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


def espeak_library():
    """The paths of the shared library of eSpeak NG and of its data."""
    folder = files.package_folder("espeakng_loader", "espeakng-loader", "speech")
    import espeakng_loader

    return espeakng_loader.get_library_path(), str(folder / "espeak-ng-data")
