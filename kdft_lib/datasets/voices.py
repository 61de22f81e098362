"""Words that eSpeak NG says in 104 variants of its voice: said once, kept, and split by voice."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdft_lib.audio.espeak import RATE, Utterance, say
from kdft_lib.audio.sound import centered, resample
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import cache_folder, package_folder, written_whole

SAMPLE_RATE = 8_000
"""Samples a second, and so of a clip: that of a telephone."""

ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")

# Some variants of eSpeak NG are near copies of one another (robosoft3 and robosoft4 share all but a
# line), so whole families were drawn: whoever is in one of these groups has no relative in another. Of
# eight draws this is one in which the two held-out groups are about equally hard for an SVM.
TEST = (
    "Alex", "Diogo", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "UniRobot", "aunty", "belinda", "david", "ed",
    "kaukovalta", "linda", "m5", "michel", "miguel", "pedro", "rob", "robert", "steph", "steph2", "steph3", "zac",
)  # fmt: skip
HELD_OUT = (
    "Alicia", "Reed", "Storm", "anika", "anikaRobot", "announcer", "croak", "edward", "edward2", "grandpa", "m1",
    "m2", "m6", "m7", "travis", "victor",
)  # fmt: skip
POOL = (
    "Andrea", "Andy", "Annie", "AnxiousAndy", "Demonic", "Denis", "Gene", "Gene2", "Mario", "Michael", "Mike",
    "Mr serious", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "Tweaky", "adam", "antonio", "benjamin",
    "boris", "caleb", "f1", "f2", "f3", "f4", "f5", "fast", "grandma", "gustave", "ian", "iven", "iven2", "iven3",
    "iven4", "john", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "m3", "m4", "m8", "marcelo", "max",
    "mike2", "norbert", "pablo", "paul", "quincy", "robosoft", "robosoft2", "robosoft3", "robosoft4", "robosoft5",
    "robosoft6", "robosoft7", "robosoft8", "sandro", "shelby", "whisper", "whisperf",
)  # fmt: skip
VARIANTS = (*TEST, *HELD_OUT, *POOL)


def spoken(
    utterances: Callable[[], list[Utterance]],
    name: str,
    words: int,
    *,
    labeled: int | None,
    validation: str,
    seed: int,
    root: str | Path | None,
) -> Splits:
    """What all variants say, split by variant: 24 to test, 16 to choose by, 64 to learn from.

    Args:
        utterances: Gives all utterances, variant after variant in the order of :data:`VARIANTS`, as many of each; the
            words come round in their order.
        name: How the file that keeps the clips begins.
        words: How many words there are, the classes.
        labeled: How many clips of ``train`` come with labels, balanced by word; ``None`` takes all.
        validation: ``"apart"`` or ``"within"``.
        seed: The seed of the draw of labelled clips.
        root: The folder that keeps the clips; by default the user's cache.

    Raises:
        ValueError: If a count is out of range, or the file with the clips is damaged.
    """
    places = torch.arange(len(utterances()))
    targets, variants = places % words, places // (len(places) // len(VARIANTS))
    test, held_out, pool = (
        torch.isin(variants, torch.tensor([VARIANTS.index(variant) for variant in names])).nonzero().flatten()
        for names in (TEST, HELD_OUT, POOL)
    )
    rows = splitting.draw(
        targets, pool, labeled=labeled, validation=validation, choice="apart", held_out=held_out, test=test, seed=seed
    )
    clips = kept(utterances, name, Path(root) if root is not None else cache_folder())
    train, transfer, val, test = (clips[part].float().div_(32768) for part in rows)
    return Splits(
        train=TensorData(train, targets[rows.train]),
        transfer=TensorData(transfer),
        val=TensorData(val, targets[rows.val]),
        test=TensorData(test, targets[rows.test]),
    )


def with_voices(order: list[tuple[str, str]]) -> list[Utterance]:
    """Words and voices in the order in which they are said, the same every time: each with its own speed, from 120 to
    220 words a minute, and pitch, from 20 to 80.
    """
    generator = torch.Generator().manual_seed(0)
    speeds = torch.randint(120, 221, (len(order),), generator=generator).tolist()
    pitches = torch.randint(20, 81, (len(order),), generator=generator).tolist()
    return [Utterance(*said, speed, pitch) for said, speed, pitch in zip(order, speeds, pitches, strict=True)]


@functools.lru_cache(maxsize=2)
def kept(utterances: Callable[[], list[Utterance]], name: str, folder: Path) -> Tensor:
    """Clips, int16, ``(N, 8000)``, in the order of the utterances: as they were kept, or said anew."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    said = utterances()
    recipe = hashlib.sha256(repr(said).encode()).hexdigest()
    path = folder / f"{name}-{recipe[:8]}.safetensors"
    if not path.is_file():
        clips = _said_by_espeak(said)
        with written_whole(path) as temporary:
            save_file({"clips": clips}, str(temporary), metadata={"sha256": _digest(clips), "said by": _synthesiser()})
        return clips
    try:
        with safe_open(str(path), framework="pt") as file:
            clips, wanted = file.get_tensor("clips"), file.metadata()["sha256"]
    except (SafetensorError, KeyError, TypeError) as error:
        problem = f"cannot be read ({error})"
    else:
        if clips.shape == (len(said), SAMPLE_RATE) and clips.dtype == torch.int16 and _digest(clips) == wanted:
            return clips
        problem = "does not hold the clips that were written"
    raise ValueError(f"{path} {problem}; delete the file and call again to have the words said anew")


def _synthesiser() -> str:
    return f"espeakng-loader {version('espeakng-loader')}, {platform.system()}, {platform.machine()}"


def _digest(clips: Tensor) -> str:
    return hashlib.sha256(clips.numpy().data).hexdigest()


def _said_by_espeak(said: list[Utterance]) -> Tensor:
    folder = package_folder("espeakng_loader", "espeakng-loader, which carries the synthesiser eSpeak NG,", "speech")
    import espeakng_loader

    sounds = say(said, espeakng_loader.get_library_path(), str(folder / "espeak-ng-data"))
    samples = [torch.from_numpy(numpy.frombuffer(sound, dtype="<i2").astype(numpy.float32)) for sound in sounds]
    clips = torch.empty((len(said), SAMPLE_RATE), dtype=torch.int16)
    # Together, since each call of the resampler designs its filter anew.
    for start in range(0, len(said), 256):
        words = resample(pad_sequence(samples[start : start + 256], batch_first=True), RATE, SAMPLE_RATE)
        for row, word in enumerate(words, start):
            try:
                clips[row] = centered(word, SAMPLE_RATE).round().clamp(-32768, 32767)
            except ValueError as error:
                raise RuntimeError(f"eSpeak NG said nothing for {said[row]} ({error})") from None
    return clips
