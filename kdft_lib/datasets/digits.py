"""Ten English digits, said by synthesisers and by one person: 8,000 samples of sound each, one second."""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kdft_lib.audio.espeak import RATE, Utterance, say
from kdft_lib.audio.sound import centered, read_wav, resample
from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import cache_folder, package_folder, read_whole, written_whole

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SAMPLE_RATE = 8_000
"""Samples a second, and so of a clip: that of a telephone."""

_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")

# Some variants of eSpeak NG are near copies of one another (robosoft3 and robosoft4 share all but a
# line), so whole families were drawn: whoever is in one of these groups has no relative in another. Of
# eight draws this is one in which the two held-out groups are about equally hard for an SVM.
_TEST_VARIANTS = (
    "Alex", "Diogo", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "UniRobot", "aunty", "belinda", "david", "ed",
    "kaukovalta", "linda", "m5", "michel", "miguel", "pedro", "rob", "robert", "steph", "steph2", "steph3", "zac",
)  # fmt: skip
_HELD_OUT_VARIANTS = (
    "Alicia", "Reed", "Storm", "anika", "anikaRobot", "announcer", "croak", "edward", "edward2", "grandpa", "m1",
    "m2", "m6", "m7", "travis", "victor",
)  # fmt: skip
_POOL_VARIANTS = (
    "Andrea", "Andy", "Annie", "AnxiousAndy", "Demonic", "Denis", "Gene", "Gene2", "Mario", "Michael", "Mike",
    "Mr serious", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "Tweaky", "adam", "antonio", "benjamin",
    "boris", "caleb", "f1", "f2", "f3", "f4", "f5", "fast", "grandma", "gustave", "ian", "iven", "iven2", "iven3",
    "iven4", "john", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "m3", "m4", "m8", "marcelo", "max",
    "mike2", "norbert", "pablo", "paul", "quincy", "robosoft", "robosoft2", "robosoft3", "robosoft4", "robosoft5",
    "robosoft6", "robosoft7", "robosoft8", "sandro", "shelby", "whisper", "whisperf",
)  # fmt: skip
_VARIANTS = (*_TEST_VARIANTS, *_HELD_OUT_VARIANTS, *_POOL_VARIANTS)
_CLIPS_OF_A_VARIANT = len(_ACCENTS) * len(DIGITS)

_FLITE_VOICES = {"awb": 16_000, "kal": 8_000, "kal16": 16_000, "rms": 16_000, "slt": 16_000}
_FLITE_STRETCH = (0.85, 1.0, 1.2)

_ASTERISK = Path("/usr/share/asterisk/sounds/en_US_f_Allison/digits")
_ASTERISK_SHA256 = "d96284e2b926f17dd074447e877dd20634127a6cfd5853b93d6b100df429506a"


def spoken_digits(
    labeled: int | None = 300,
    *,
    validation: Literal["apart", "within"] = "apart",
    seed: int = 0,
    root: str | Path | None = None,
) -> Splits:
    """Ten digits in 104 voices of eSpeak NG and four accents, each clip at its own pitch and speed.

    Nothing is recorded or downloaded: the package ``espeakng-loader`` brings the synthesiser, a process
    of its own says the 4,160 words within half a minute, and a file of 67 MB keeps them. Voices, not clips, are
    set apart: 24 for ``test``, 16 for ``val``, 64 for the rest, and no voice has a near copy in another
    part. One machine says every sample the same each time; another version or kind of machine may round
    otherwise. Even so, variants of one synthesiser are not people: ask :func:`flite_digits`,
    :func:`asterisk_digits` or :func:`speech_commands` what a model has learned.

    Args:
        labeled: How many clips of ``train`` come with labels, balanced by digit, of all 2,560; ``None``
            takes all and leaves ``transfer`` empty.
        validation: ``"apart"``: the 640 clips of 16 voices that nothing else has; or ``"within"``: a
            fifth of the labelled clips, of voices that ``train`` has too.
        seed: The seed of the draw of labelled clips.
        root: The folder that keeps the clips; by default the user's cache.

    Returns:
        :class:`Splits`; inputs are waveforms, float32, ``(N, 8000)``, from -1 to 1, made for
        ``splits.with_inputs(log_mel)``; targets are int64, ``(N,)``, the digit.

    Raises:
        ImportError: If ``espeakng-loader`` or SciPy is not installed.
        RuntimeError: If the synthesiser fails.
        ValueError: If a count is out of range, or the file with the clips is damaged.
        OSError: If the clips cannot be kept.

    Example:
        >>> train, transfer, val, test = spoken_digits(labeled=300)
        >>> len(train), len(transfer), len(val), len(test)
        (300, 2260, 640, 960)
        >>> train.inputs.shape
        torch.Size([300, 8000])
    """
    places = torch.arange(len(_VARIANTS) * _CLIPS_OF_A_VARIANT)
    targets, variants = places % len(DIGITS), places // _CLIPS_OF_A_VARIANT
    test, held_out, pool = (
        torch.isin(variants, torch.tensor([_VARIANTS.index(name) for name in names])).nonzero().flatten()
        for names in (_TEST_VARIANTS, _HELD_OUT_VARIANTS, _POOL_VARIANTS)
    )
    rows = splitting.draw(
        targets, pool, labeled=labeled, validation=validation, choice="apart", held_out=held_out, test=test, seed=seed
    )
    clips = _kept(Path(root) if root is not None else cache_folder())
    train, transfer, val, test = (clips[part].float().div_(32768) for part in rows)
    return Splits(
        train=TensorData(train, targets[rows.train]),
        transfer=TensorData(transfer),
        val=TensorData(val, targets[rows.val]),
        test=TensorData(test, targets[rows.test]),
    )


def flite_digits() -> TensorData:
    """The ten digits in five voices of Flite at three speeds: 150 clips to test with.

    Five voices of four people (``kal`` and ``kal16`` are one), so these are some 50 different sounds
    rather than 150. The program comes with Debian's package ``flite``.

    Returns:
        Inputs as those of :func:`spoken_digits`, ``(150, 8000)``, and the digits.

    Raises:
        FileNotFoundError: If the program is not installed.
        RuntimeError: If it fails.

    Example:
        >>> flite_digits()  # doctest: +SKIP
        TensorData(inputs (150, 8000), targets (150,))
    """
    program = shutil.which("flite")
    if program is None:
        raise FileNotFoundError(
            "flite, a speech synthesiser, is not installed; apt install flite brings it on Debian and Ubuntu"
        )
    waveforms, targets = _said_by_flite(program)
    return TensorData(waveforms.clone(), targets.clone())


def asterisk_digits(root: str | Path | None = None) -> TensorData:
    """The ten digits as Allison Smith recorded them for telephone systems: ten clips of a person.

    Args:
        root: A folder with ``0.wav`` to ``9.wav``; by default where Debian's package
            ``asterisk-core-sounds-en-wav`` puts them (CC BY-SA 3.0).

    Returns:
        Inputs as those of :func:`spoken_digits`, ``(10, 8000)``, and the digits.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If they are others.

    Example:
        >>> asterisk_digits()  # doctest: +SKIP
        TensorData(inputs (10, 8000), targets (10,))
    """
    folder = Path(root) if root is not None else _ASTERISK
    paths = [folder / f"{digit}.wav" for digit in range(10)]
    try:
        found = hashlib.sha256(b"".join(read_whole(path, 100_000) for path in paths)).hexdigest()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} does not exist; apt install asterisk-core-sounds-en-wav brings the recorded digits"
            " on Debian and Ubuntu"
        ) from None
    if found != _ASTERISK_SHA256:
        raise ValueError(
            f"{folder} holds other recordings than expected: the SHA-256 of 0.wav to 9.wav is {found},"
            f" wanted {_ASTERISK_SHA256}; apt install --reinstall asterisk-core-sounds-en-wav brings them anew"
        )
    waveforms = [centered(read_wav(path, SAMPLE_RATE), SAMPLE_RATE) for path in paths]
    return TensorData(torch.stack(waveforms), torch.arange(10))


def utterances() -> list[Utterance]:
    """All 4,160 words in the order in which they are said, the same every time: each with its own speed,
    from 120 to 220 words a minute, and pitch, from 20 to 80.
    """
    generator = torch.Generator().manual_seed(0)
    order = [(word, f"{accent}+{variant}") for variant in _VARIANTS for accent in _ACCENTS for word in DIGITS]
    speeds = torch.randint(120, 221, (len(order),), generator=generator).tolist()
    pitches = torch.randint(20, 81, (len(order),), generator=generator).tolist()
    return [Utterance(*said, speed, pitch) for said, speed, pitch in zip(order, speeds, pitches, strict=True)]


@functools.lru_cache(maxsize=1)
def _kept(folder: Path) -> Tensor:
    """Clips, int16, ``(N, 8000)``, in the order of :func:`utterances`: as they were kept, or said anew."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    said = utterances()
    recipe = hashlib.sha256(repr(said).encode()).hexdigest()
    path = folder / f"spoken-digits-{recipe[:8]}.safetensors"
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


@functools.lru_cache(maxsize=1)
def _said_by_flite(program: str) -> tuple[Tensor, Tensor]:
    waveforms, targets = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "digit.wav")
        for voice, rate in _FLITE_VOICES.items():
            for stretch in _FLITE_STRETCH:
                for digit, word in enumerate(DIGITS):
                    command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", word]
                    try:
                        done = subprocess.run([*command, "-o", str(path)], capture_output=True, timeout=30)
                    except subprocess.TimeoutExpired:
                        raise RuntimeError(f"flite had not said {word!r} after 30 seconds") from None
                    if done.returncode or not path.is_file():
                        raise RuntimeError(
                            f"flite could not say {word!r} with the voice {voice}: {done.stderr.decode()}"
                        )
                    sound = resample(read_wav(path, rate), rate, SAMPLE_RATE)
                    path.unlink()
                    waveforms.append(centered(sound, SAMPLE_RATE))
                    targets.append(digit)
    return torch.stack(waveforms), torch.tensor(targets)
