"""Sound: reading it, its spectra, the digits that synthesisers say, Speech Commands, the vowels of nine men."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import shutil
import sys
import tarfile
import time
import wave
from collections import Counter
from difflib import SequenceMatcher

import numpy
import pytest
import torch

from kdft_lib.data import (
    DIGITS,
    RandomShiftMask,
    asterisk_digits,
    centred,
    commands,
    digits,
    espeak,
    files,
    flite_digits,
    japanese_vowels,
    log_mel,
    mel_filters,
    read_wav,
    resample,
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


def contents(inputs):
    return Counter(hashlib.sha256(row.numpy().tobytes()).digest() for row in inputs)


# Reading


def test_samples_are_read_as_they_were_written(tmp_path):
    samples = read_wav(write_wav(tmp_path / "a.wav", [0, 1, -1, 32767, -32768]), 16_000)
    assert samples.dtype == torch.float32
    assert (samples * 32768).tolist() == [0, 1, -1, 32767, -32768]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 8_000}, r"has 8,000 samples a second, wanted 16,000; read it with sample_rate=8000 and call"),
        ({"width": 1}, r"has 1 channels of 8 bits; it must have one of 16 bits"),
        ({"width": 4}, r"has 1 channels of 32 bits"),
        ({"channels": 2}, r"has 2 channels of 16 bits"),
    ],
)
def test_other_kinds_of_wav_are_not_taken_for_ours(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"a\.wav {message}"):
        read_wav(write_wav(tmp_path / "a.wav", [1, 2, 3, 4], **change), 16_000)


def test_damaged_files_are_named(tmp_path):
    path = write_wav(tmp_path / "a.wav", range(1000))
    whole = path.read_bytes()
    for content, message in [
        (whole[:-100], "holds 950 samples of the 1,000 that it announces"),
        (whole[:20], "is no WAV file of plain samples"),
        (b"", r"is no WAV file of plain samples \(it ends too early\)"),
        (b"OggS" + whole[4:], "is no WAV file of plain samples"),
        (whole[:20] + b"\x03\x00" + whole[22:], "is no WAV file of plain samples"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.wav {message}"):
            read_wav(path, 16_000)
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "b.wav", 16_000)


def test_a_file_too_large_is_not_read(tmp_path):
    path = write_wav(tmp_path / "a.wav", range(1000))
    with pytest.raises(ValueError, match=r"a\.wav is larger than the 1,000 bytes that such a file may have"):
        read_wav(path, 16_000, limit=1_000)


def test_no_more_is_read_than_is_allowed():
    class Endless:
        def open(self, mode):
            return contextlib.nullcontext(self)

        def read(self, size):
            assert 0 <= size <= 101
            return b"x" * size

    with pytest.raises(ValueError, match="is larger than the 100 bytes"):
        files.read_whole(Endless(), 100)


def test_resampling_keeps_tones_and_makes_no_others():
    low, high = resample(tone(440, 22_050), 22_050, 8_000), resample(tone(7_000, 22_050), 22_050, 8_000)
    assert low.shape == (8_000,)
    torch.testing.assert_close(low[500:-500], tone(440, 8_000)[500:-500], atol=0.01, rtol=0)
    assert high[500:-500].abs().max() < 0.01  # a step by 2.75 samples would make it a tone of 1,000 Hz
    assert torch.equal(resample(low, 8_000, 8_000), low)
    assert resample(torch.zeros(0, 16_000), 16_000, 8_000).shape == (0, 8_000)
    with pytest.raises(ValueError, match="given is 0 and wanted 8000"):
        resample(low, 0, 8_000)


def test_resampling_without_scipy_is_one_clear_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(ImportError, match=r"^resample needs SciPy, .* pip install 'kdft-lib\[speech\]' brings it$"):
        resample(torch.zeros(10), 16_000, 8_000)


def test_words_are_centred_and_silence_is_an_error():
    word = torch.tensor([0.001, 0.0, 1.0, 0.0, -1.0, 0.001, 0.0])
    assert centred(word, 7).tolist() == [0, 0, 1, 0, -1, 0, 0]
    assert centred(word, 6).tolist() == [0, 1, 0, -1, 0, 0]
    assert centred(torch.arange(1.0, 8.0), 3).tolist() == [3, 4, 5]
    for silent in (torch.zeros(5), torch.zeros(0)):
        with pytest.raises(ValueError, match=r"waveform has \d samples, and all are silent"):
            centred(silent, 3)


# Spectra


@pytest.mark.parametrize(("rate", "bands", "window"), [(8_000, 40, 256), (16_000, 80, 400), (22_050, 64, 512)])
def test_mel_filters_are_those_of_transformers(rate, bands, window):
    audio = pytest.importorskip("transformers.audio_utils")
    wanted = audio.mel_filter_bank(
        1 + window // 2, bands, 20.0, rate / 2, rate, norm=None, mel_scale="htk"
    ).T  # fmt: skip
    torch.testing.assert_close(mel_filters(rate, bands, window), torch.tensor(wanted).float(), atol=1e-6, rtol=0)


def test_the_spectrum_is_that_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils")
    waveform = torch.randn(8_000) * torch.linspace(0, 1, 8_000)
    mel = audio.spectrogram(
        waveform.double().numpy(), audio.window_function(256, "hann"), 256, 80, 256, power=2.0,
        mel_filters=mel_filters(8_000, 40, 256).double().numpy().T, mel_floor=1e-10,
    )  # fmt: skip
    wanted = torch.tensor(numpy.log(numpy.maximum(mel, 1e-6 * mel.max()))).float()
    torch.testing.assert_close(log_mel(waveform[None], normalise=False)[0, 0], wanted, atol=1e-3, rtol=0)


def test_a_tone_is_in_its_band_and_time():
    waveform = torch.zeros(8_000)
    waveform[4_000:] = tone(1_000, 8_000, 0.5)
    spectrum = log_mel(waveform[None])[0, 0]
    centre = mel_filters(8_000, 40, 256)[:, 32].argmax()  # 1,000 Hz is the 32nd multiple of 31.25
    assert spectrum[:, 75].argmax() == centre
    assert spectrum[centre, :45].max() < spectrum[centre, 55:].min() - 3


def test_silence_and_loudness():
    silent = log_mel(torch.zeros(2, 8_000))
    assert silent.isfinite().all()
    assert silent.abs().max() < 1e-3
    waveforms = torch.randn(3, 8_000) * 0.1
    torch.testing.assert_close(log_mel(waveforms), log_mel(0.01 * waveforms), atol=1e-3, rtol=0)
    spectra = log_mel(waveforms)
    torch.testing.assert_close(spectra.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(spectra.std((1, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    half = torch.cat([torch.zeros(1, 4_000), waveforms[:1, :4_000]], 1)
    assert log_mel(half, normalise=False).aminmax().max - log_mel(half, normalise=False).min() < 13.9  # 60 dB


def test_clips_do_not_depend_on_one_another():
    waveforms = torch.randn(300, 1_000)
    torch.testing.assert_close(log_mel(waveforms)[257:259], log_mel(waveforms[257:259]))
    assert log_mel(torch.zeros(0, 8_000)).shape == (0, 1, 40, 101)


def test_impossible_spectra_are_named():
    with pytest.raises(ValueError, match=r"waveforms has shape \(8000,\); it must be \(N, samples\)"):
        log_mel(torch.zeros(8_000))
    with pytest.raises(ValueError, match="waveforms has 100 samples; a window of 256 needs 129 or more"):
        log_mel(torch.zeros(1, 100))
    with pytest.raises(ValueError, match=r"bands is 200, and .* hold no frequency of a window of 256"):
        log_mel(torch.zeros(1, 8_000), bands=200)


# Augmentation


def test_shifts_and_masks_are_what_they_say():
    spectra = torch.arange(1.0, 21.0).expand(2000, 1, 6, 20)
    shifted = RandomShiftMask(shift=3, frames=0, bands=0)(spectra)
    starts = [(torch.arange(1, 21) - shift).clamp(1, 20) for shift in range(-3, 4)]
    possible = {tuple(row.tolist()) for row in starts}
    assert {tuple(map(int, clip[0, 0])) for clip in shifted} == possible
    assert torch.equal(shifted[:, :, :1].expand_as(shifted), shifted)
    masked = RandomShiftMask(shift=0, frames=5, bands=2, fill=-1.0)(spectra)
    hidden = masked == -1
    assert torch.equal(masked[~hidden], spectra[~hidden])
    frames, bands = hidden.all(2).sum(-1).flatten(), hidden.all(3).sum(-1).flatten()
    assert frames.unique().tolist() == list(range(6))
    assert bands.unique().tolist() == [0, 1, 2]
    edges = hidden.all(2)[frames == 5].diff(dim=-1).sum(-1)
    assert edges.max() <= 2  # one stretch
    assert hidden.all(2)[..., 0].any()
    assert hidden.all(2)[..., -1].any()
    assert torch.equal(RandomShiftMask(0, 0, 0)(spectra), spectra)
    assert spectra[0, 0, 0].tolist() == list(range(1, 21))


def test_augmentation_follows_torchs_seed_and_refuses_what_does_not_fit():
    spectra = torch.randn(8, 1, 40, 101)
    views = []
    for _ in range(2):
        torch.manual_seed(3)
        views.append(RandomShiftMask()(spectra))
    assert torch.equal(*views)
    assert not torch.equal(views[0], spectra)
    with pytest.raises(ValueError, match="frames is -1; it must be 0 or more"):
        RandomShiftMask(frames=-1)
    with pytest.raises(ValueError, match="spectra has 40 bands and 10 frames; masks of up to 8 bands and 20 frames"):
        RandomShiftMask()(spectra[..., :10])


# eSpeak NG


@pytest.fixture(scope="module")
def library():
    folder = files.package_folder("espeakng_loader", "espeakng-loader", "speech")
    import espeakng_loader

    return espeakng_loader.get_library_path(), str(folder / "espeak-ng-data")


@pytest.fixture(scope="module")
def spoken():
    return spoken_digits(labelled=300)


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
    again, other = spoken_digits(labelled=300), spoken_digits(labelled=300, seed=1)
    assert again.train.fingerprint() == spoken.train.fingerprint()
    assert other.train.fingerprint() != spoken.train.fingerprint()
    assert other.test.fingerprint() == spoken.test.fingerprint()
    within = spoken_digits(labelled=100, validation="within")
    assert [len(part) for part in within] == [80, 2460, 20, 960]
    assert not contents(within.val.inputs) & contents(within.train.inputs)
    assert not contents(within.val.inputs) & contents(spoken.val.inputs)


def test_waveforms_become_spectra_part_by_part():
    splits = spoken_digits(labelled=None)
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
        ({"labelled": 9}, 'labelled is 9; with validation="apart" it must be from 10 to 2,560, or None'),
        ({"labelled": 49, "validation": "within"}, "from 50 to 2,560"),
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
        ({"labelled": 13}, "labelled is 13; it must be from 2 to 12"),
        ({"labelled": 9, "validation": "within"}, "from 10 to 12"),
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
        ({"labelled": 8}, "labelled is 8; with validation=54 it must be from 9 to 216, or None"),
        ({"labelled": 44, "validation": "within"}, "from 45 to 270"),
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
