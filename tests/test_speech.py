"""The digits that synthesisers say, Speech Commands, and the vowels of nine men."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import shutil
import tarfile
import time
from collections import Counter
from difflib import SequenceMatcher

import pytest
import torch
from sounds import tone, write_wav

from kdft_lib.audio import espeak, log_mel
from kdft_lib.data import RandomShiftMask, files
from kdft_lib.datasets import (
    DIGITS,
    asterisk_digits,
    commands,
    digits,
    flite_digits,
    japanese_vowels,
    speech_commands,
    spoken_digits,
    vowels,
)
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

FLITE = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
ASTERISK = pytest.mark.skipif(not digits._ASTERISK.is_dir(), reason="asterisk-core-sounds-en-wav is not installed")


def contents(inputs):
    return Counter(hashlib.sha256(row.numpy().tobytes()).digest() for row in inputs)


# eSpeak NG


@pytest.fixture(scope="module")
def library():
    folder = files.package_folder("espeakng_loader", "espeakng-loader", "speech")
    import espeakng_loader

    return espeakng_loader.get_library_path(), str(folder / "espeak-ng-data")


@pytest.fixture(scope="module")
def spoken():
    return spoken_digits(labeled=300)


def test_what_is_said_is_the_same_every_time(library):
    """Within a process it is not: that is why each call has its own."""
    breathy = espeak.Utterance("three", "en-us+whisper", 160, 50)
    said = [breathy, breathy, espeak.Utterance("four", "en-gb-scotland+f2", 160, 50)]
    first = espeak.say(said, *library)
    time.sleep(1.1)  # left alone, its noise is seeded by the clock's second
    assert espeak.say(said, *library) == first
    assert first[0] != first[1]
    assert all(0.2 < len(sound) / 2 / espeak.RATE < 1.2 for sound in first)


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("xx-nowhere+f2", r"the voice xx-nowhere\+f2 gave the error"),
        ("en-us+nobody", "the variant nobody does not exist"),
    ],
)
def test_an_unknown_voice_is_not_said_by_another(library, voice, message):
    with pytest.raises(RuntimeError, match=rf"eSpeak NG failed: {message}"):
        espeak.say([espeak.Utterance("one", "en-us+f2", 160, 50), espeak.Utterance("one", voice, 160, 50)], *library)


def test_a_library_that_is_none_is_named(library, tmp_path):
    path = tmp_path / "library.so"
    path.write_bytes(b"none")
    with pytest.raises(RuntimeError, match="eSpeak NG failed: OSError"):
        espeak.say([espeak.Utterance("one", "en-us", 160, 50)], str(path), library[1])


def test_silence_from_the_synthesiser_is_an_error(monkeypatch):
    monkeypatch.setattr(digits, "say", lambda said, *_: [b"\0" * 1000 for _ in said])
    with pytest.raises(RuntimeError, match=r"eSpeak NG said nothing for Utterance\(text='zero', .*all are silent"):
        digits._said_by_espeak(digits.utterances()[:3])


def test_without_the_synthesiser_there_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    digits._kept.cache_clear()
    with pytest.raises(ImportError, match=r"^espeakng-loader, .* is not installed; pip install 'kdft-lib\[speech\]'"):
        spoken_digits(root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_voice_has_a_near_copy_in_another_part(library):
    """Variants are files of some lines; those that share most of them stay together."""
    folder = f"{library[1]}/voices/!v"
    groups = (digits._TEST_VARIANTS, digits._HELD_OUT_VARIANTS, digits._POOL_VARIANTS)
    assert [len(group) for group in groups] == [24, 16, 64]
    assert len({name for group in groups for name in group}) == 104
    lines = {}
    for name in digits._VARIANTS:
        with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
            texts = (line.split("//")[0].strip() for line in file)
            lines[name] = [text for text in texts if text and not text.startswith(("name", "language"))]
    for place, group in enumerate(groups):
        for other in groups[place + 1 :]:
            for a in group:
                for b in other:
                    assert SequenceMatcher(None, lines[a], lines[b]).ratio() <= 0.6, (a, b)


def test_each_clip_is_in_one_part(spoken):
    counts = sum((contents(part.inputs) for part in spoken), Counter())
    assert sum(counts.values()) == len(counts) == 4160
    assert [len(part) for part in spoken] == [300, 2260, 640, 960]
    assert spoken.train.targets.bincount().tolist() == [30] * 10
    assert spoken.test.targets.bincount().tolist() == [96] * 10
    assert spoken.transfer.targets is None
    peaks = spoken.test.inputs.abs().amax(1)
    assert peaks.min() > 0.02
    assert peaks.max() <= 1


def test_seeds_draw_clips_and_nothing_else(spoken):
    again, other = spoken_digits(labeled=300), spoken_digits(labeled=300, seed=1)
    assert again.train.fingerprint() == spoken.train.fingerprint()
    assert other.train.fingerprint() != spoken.train.fingerprint()
    assert other.test.fingerprint() == spoken.test.fingerprint()
    within = spoken_digits(labeled=100, validation="within")
    assert [len(part) for part in within] == [80, 2460, 20, 960]
    assert not contents(within.val.inputs) & contents(within.train.inputs)
    assert not contents(within.val.inputs) & contents(spoken.val.inputs)


def test_waveforms_become_spectra_part_by_part():
    splits = spoken_digits(labeled=None)
    few = splits._replace(train=splits.train[:50], val=splits.val[:20], test=splits.test[:10])
    spectra = few.with_inputs(log_mel)
    assert [tuple(part.inputs.shape) for part in spectra] == [(count, 1, 40, 101) for count in (50, 0, 20, 10)]
    assert spectra.transfer.targets is None
    assert torch.equal(spectra.train.targets, few.train.targets)
    torch.testing.assert_close(spectra.val.inputs[5:6], log_mel(few.val.inputs[5:6]))


def test_a_student_learns_from_spectra_of_both_parts(spoken):
    few = spoken._replace(transfer=spoken.transfer[:100], test=spoken.test[:50]).with_inputs(log_mel)
    history = fit(
        ConvNet(width=2), few.train, transfer_data=few.transfer, val_data=few.val,
        objective=SoftTargets(ConvNet(width=3)), strategy=FullFineTuning(lr=0.01), augment=RandomShiftMask(),
        steps=3, batch_size=16, seed=0,
    )  # fmt: skip
    assert all(math.isfinite(step["loss"]) for step in history.steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 9}, 'labeled is 9; with validation="apart" it must be from 10 to 2,560, or None'),
        ({"labeled": 49, "validation": "within"}, "from 50 to 2,560"),
        ({"validation": 16}, 'validation is 16; choose "apart" or "within"'),
    ],
)
def test_counts_of_clips_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        spoken_digits(**arguments)


def test_kept_clips_are_checked(monkeypatch, tmp_path):
    few = digits.utterances()[:20]
    monkeypatch.setattr(digits, "utterances", lambda: few)
    digits._kept.cache_clear()
    first = digits._kept(tmp_path)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(digits, "say", lambda *_: pytest.fail("they are kept already"))
    digits._kept.cache_clear()
    assert torch.equal(digits._kept(tmp_path), first)
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1] + bytes([whole[-1] ^ 1]), "does not hold the clips that were written"),
        (whole[:-1], "cannot be read"),
        (b"", "cannot be read"),
    ]:
        path.write_bytes(content)
        digits._kept.cache_clear()
        with pytest.raises(ValueError, match=rf"\.safetensors {message}.*; delete the file and call again"):
            digits._kept(tmp_path)
    digits._kept.cache_clear()


def test_a_full_disk_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "utterances", lambda: [espeak.Utterance("one", "en-us+f2", 160, 50)])
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    digits._kept.cache_clear()
    with pytest.raises(OSError, match="nothing can be written there"):
        digits._kept(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    digits._kept.cache_clear()


# Test sets


@FLITE
def test_flite_says_what_it_said():
    first = flite_digits()
    digits._said_by_flite.cache_clear()
    assert flite_digits().fingerprint() == first.fingerprint()
    assert first.inputs.shape == (150, 8_000)
    assert first.targets.bincount().tolist() == [15] * 10
    assert len(contents(first.inputs)) == 150


def test_without_flite_there_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(digits.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"^flite, .* is not installed; apt install flite brings it"):
        flite_digits()


def test_flites_failure_is_told(monkeypatch):
    failing = shutil.which("false")
    monkeypatch.setattr(digits.shutil, "which", lambda name: failing)
    digits._said_by_flite.cache_clear()
    with pytest.raises(RuntimeError, match="flite could not say 'zero' with the voice awb"):
        flite_digits()


@ASTERISK
def test_the_recorded_digits_are_ten():
    data = asterisk_digits()
    assert data.inputs.shape == (10, 8_000)
    assert data.targets.tolist() == list(range(10))
    assert data.inputs.abs().amax(1).min() > 0.05


def test_other_recordings_are_noticed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"0\.wav does not exist; apt install asterisk-core-sounds-en-wav"):
        asterisk_digits(tmp_path)
    for digit in range(10):
        write_wav(tmp_path / f"{digit}.wav", [digit] * 100, rate=8_000)
    with pytest.raises(ValueError, match="holds other recordings than expected"):
        asterisk_digits(tmp_path)


# Speech Commands


@pytest.fixture
def recorded(tmp_path):
    """A small archive: two words, three speakers, each in one part."""
    folder = tmp_path / "commands"
    parts = {"0a7c2a8d": None, "1b4c9b89": "validation", "2f0ce4d9": "testing", "9ff2d2f4": None}
    lists = {"validation": [], "testing": []}
    for word, hertz in (("yes", 500), ("no", 1_000)):
        for speaker, part in parts.items():
            for take in range(3):
                name = f"{word}/{speaker}_nohash_{take}.wav"
                seconds = 1.0 if take else 0.5
                write_wav(folder / name, 10_000 * tone(hertz + 10 * take, 16_000, seconds))
                if part:
                    lists[part].append(name)
    (folder / "_background_noise_").mkdir()
    for part, names in lists.items():
        (folder / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    return folder


def test_the_lists_say_what_is_tested(recorded):
    splits = speech_commands(recorded, words=("yes", "no"))
    assert [len(part) for part in splits] == [12, 0, 6, 6]
    assert splits.train.inputs.shape == (12, 8_000)
    assert splits.test.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(splits.train.targets.tolist()) == [0] * 6 + [1] * 6
    short = splits.test.inputs[0]
    assert short[:1_900].abs().max() < 1e-3
    assert short[6_100:].abs().max() < 1e-3
    torch.testing.assert_close(short[2_100:5_900], (tone(500, 8_000) * 10_000 / 32768)[100:3_900], atol=0.01, rtol=0)
    few = speech_commands(recorded, 10, words=("yes", "no"), validation="within")
    assert [len(part) for part in few] == [8, 2, 2, 6]
    assert few.transfer.targets is None
    assert len(DIGITS) == 10


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: (f / "testing_list.txt").unlink(),
            FileNotFoundError,
            r"testing_list\.txt does not exist; root must be",
        ),
        (lambda f: (f / "no/2f0ce4d9_nohash_1.wav").unlink(), FileNotFoundError, "is listed and does not exist"),
        (lambda f: shutil.rmtree(f / "no"), FileNotFoundError, "has no recordings of 'no'; it has yes"),
        (
            lambda f: write_wav(f / "no/1b4c9b89_nohash_7.wav", [0] * 100),
            ValueError,
            r"the speaker 1b4c9b89 is in training and in validation",
        ),
        (
            lambda f: write_wav(f / "no/9ff2d2f4_nohash_1.wav", [0] * 100, rate=8_000),
            ValueError,
            "8,000 samples a second",
        ),
        (
            lambda f: write_wav(f / "no/9ff2d2f4_nohash_1.wav", [0] * 60_000),
            ValueError,
            "larger than the 100,000 bytes",
        ),
        (
            lambda f: (f / "validation_list.txt").write_text("x" * 3_000_000),
            ValueError,
            "larger than the 2,000,000 bytes",
        ),
        (lambda f: (f / "validation_list.txt").write_text(""), ValueError, "no clip of these words for validation"),
    ],
)
def test_a_damaged_archive_is_named(recorded, spoil, error, message):
    spoil(recorded)
    with pytest.raises(error, match=message):
        speech_commands(recorded, words=("yes", "no"))


def test_words_and_counts_are_checked(recorded, tmp_path):
    for arguments, message in [
        ({"words": "yes"}, "words is 'yes'; it must be two or more"),
        ({"words": ("yes", "yes")}, "two or more different words"),
        ({"validation": "apart"}, 'choose "listed" or "within"'),
        ({"labeled": 13}, "labeled is 13; it must be from 2 to 12"),
        ({"labeled": 9, "validation": "within"}, "from 10 to 12"),
    ]:
        with pytest.raises(ValueError, match=message):
            speech_commands(recorded, **({"words": ("yes", "no")} | arguments))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; download https://storage.*download=True"):
        speech_commands(tmp_path / "nowhere")


def packed(folder, path):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return path


def test_a_download_is_checked_unpacked_and_used(recorded, tmp_path, monkeypatch):
    archive = packed(recorded, tmp_path / "archive.tar.gz")
    place = tmp_path / "fresh" / "speech"
    monkeypatch.setattr(commands, "_URL", archive.as_uri())
    with pytest.raises(OSError, match=r"could not be downloaded from file.*invalid hash value.*; nothing was kept"):
        speech_commands(place, words=("yes", "no"), download=True)
    assert not list(place.parent.iterdir())
    monkeypatch.setattr(commands, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(speech_commands(place, words=("yes", "no"), download=True).test) == 6
    assert [path.name for path in place.parent.iterdir()] == ["speech"]


def test_an_archive_that_would_write_elsewhere_is_refused(recorded, tmp_path, monkeypatch):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(recorded / "testing_list.txt", arcname="testing_list.txt")
        tar.add(recorded / "testing_list.txt", arcname="../../outside.txt")
    monkeypatch.setattr(commands, "_URL", archive.as_uri())
    monkeypatch.setattr(commands, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(OSError, match="nothing was kept"):
        speech_commands(tmp_path / "fresh" / "speech", download=True)
    assert not list((tmp_path / "fresh").iterdir())
    assert not (tmp_path / "outside.txt").exists()


# Japanese Vowels


def test_the_vowels_are_those_of_the_authors():
    splits = japanese_vowels(validation=0)
    assert [len(part) for part in splits] == [270, 0, 0, 370]
    assert splits.train.targets.bincount().tolist() == [30] * 9
    assert splits.test.targets.bincount().tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = torch.cat([part.inputs.any(-1).sum(-1) for part in (splits.train, splits.test)])
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, 9_961)
    for part in (splits.train, splits.test):
        counted = part.inputs.any(-1)
        assert torch.equal(counted, torch.arange(29) < counted.sum(-1, keepdim=True))
    first = vowels._read()[0][0][0]
    torch.testing.assert_close(first[:3, 0], torch.tensor([1.8609, 1.8917, 1.9392]), atol=1e-6, rtol=0)
    assert len(contents(splits.train.inputs) + contents(splits.test.inputs)) == 640


def test_vowels_are_drawn_by_seed():
    first, again, other = (japanese_vowels(45, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [45, 171, 54, 370]
    assert first.train.targets.bincount().tolist() == [5] * 9
    assert first.val.targets.bincount().tolist() == [6] * 9
    assert first.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()
    assert first.val.fingerprint() == other.val.fingerprint()
    within = japanese_vowels(90, validation="within")
    assert [len(part) for part in within] == [72, 180, 18, 370]
    whole = sum((contents(part.inputs) for part in within), Counter())
    assert max(whole.values()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 8}, "labeled is 8; with validation=54 it must be from 9 to 216, or None"),
        ({"labeled": 44, "validation": "within"}, "from 45 to 270"),
        ({"validation": 136}, 'validation is 136; it must be from 0 to 135, or "within"'),
    ],
)
def test_counts_of_vowels_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        japanese_vowels(**arguments)


def test_a_damaged_file_of_vowels_is_named(monkeypatch):
    vowels._read.cache_clear()
    monkeypatch.setattr(vowels, "_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"japanese_vowels\.safetensors is damaged.*install kdft-lib again"):
        japanese_vowels()
    vowels._read.cache_clear()
