"""eSpeak NG says words, in a process of its own.

The synthesiser carries something over from each word to the next (where in its period a voice stands,
a noise generator seeded by the clock), so the same word comes out differently twice in one process.
In a fresh process, with the generator seeded and the words in the same order, every sample is the same.
This file is also the program of that process: it imports nothing but Python's own modules.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

RATE = 22_050
"""Samples a second of what it says."""

_SYNCHRONOUS, _UTF8 = 2, 1
_SPEED, _PITCH = 1, 3
_SECONDS = 600.0


class Utterance(NamedTuple):
    """What is said, by whom and how."""

    text: str
    voice: str
    """A language and, after a plus sign, a variant."""
    speed: int
    """Words a minute, from 80 to 450."""
    pitch: int
    """From 0 to 100."""


def say(utterances: Sequence[Utterance], library: str, data: str) -> list[bytes]:
    """The samples of each utterance, little-endian, of 16 bits.

    Args:
        utterances: What is said, in an order that matters: another one gives slightly other samples.
        library: The path of the shared library.
        data: The path of its folder ``espeak-ng-data``.

    Raises:
        RuntimeError: If it cannot say one of them, or ended otherwise.

    Example:
        >>> import espeakng_loader as loader
        >>> paths = loader.get_library_path(), loader.get_data_path()
        >>> (sound,) = say([Utterance("seven", "en-us+f2", 160, 50)], *paths)
        >>> 0.3 < len(sound) / 2 / RATE < 0.7
        True
    """
    asked = json.dumps({"library": library, "data": data, "utterances": utterances}).encode()
    command = [sys.executable, "-I", __file__]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"eSpeak NG had not said {len(utterances):,} words after {_SECONDS:.0f} seconds") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"eSpeak NG failed: {lines[-1] if lines else f'its process ended with {done.returncode}'}")
    sounds, place = [], 0
    while place < len(done.stdout):
        (length,) = struct.unpack_from("<I", done.stdout, place)
        sounds.append(done.stdout[place + 4 : place + 4 + length])
        place += 4 + length
    if len(sounds) != len(utterances):
        raise RuntimeError(f"eSpeak NG said {len(sounds):,} of {len(utterances):,} words")
    return sounds


def _synthesised(library: str, data: str, utterances: Iterable[Sequence[Any]]) -> Iterable[bytes]:
    espeak = ctypes.CDLL(library)
    heard = bytearray()

    def hear(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            heard.extend(ctypes.string_at(samples, 2 * count))
        return 0

    def check(what: str, status: int) -> None:
        if status:
            raise SystemExit(f"{what} gave the error {status}")

    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0)
    if rate != RATE:
        raise SystemExit(f"it starts with {rate} samples a second, wanted {RATE}")
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(hear)
    espeak.espeak_SetSynthCallback(callback)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))
    for text, voice, speed, pitch in utterances:
        heard.clear()
        # Unchecked, an unknown language is spoken by the voice before, and an unknown variant by none.
        variant = voice.partition("+")[2]
        if variant and not os.path.isfile(os.path.join(data, "voices", "!v", variant)):
            raise SystemExit(f"the variant {variant} does not exist")
        check(f"the voice {voice}", espeak.espeak_SetVoiceByName(voice.encode()))
        check("the speed", espeak.espeak_SetParameter(_SPEED, speed, 0))
        check("the pitch", espeak.espeak_SetParameter(_PITCH, pitch, 0))
        content = text.encode() + b"\0"
        check("the synthesis", espeak.espeak_Synth(content, len(content), 0, 1, 0, _UTF8, None, None))
        check("the synthesis", espeak.espeak_Synchronize())
        yield bytes(heard)


def _main(read: Callable[[], bytes], write: Callable[[bytes], Any]) -> None:
    for sound in _synthesised(**json.loads(read())):
        write(struct.pack("<I", len(sound)) + sound)


if __name__ == "__main__":
    _main(sys.stdin.buffer.read, sys.stdout.buffer.write)
