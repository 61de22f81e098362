"""Sound: reading it, resampling it, its spectra, and the synthesiser that says words."""

from __future__ import annotations

import sys
import time

import numpy
import pytest
import torch
from sounds import espeak_library, tone, write_wav

from kdft_lib.audio import centered, espeak, log_mel, mel_filters, read_wav, resample

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


def test_words_are_centered_and_silence_is_an_error():
    word = torch.tensor([0.001, 0.0, 1.0, 0.0, -1.0, 0.001, 0.0])
    assert centered(word, 7).tolist() == [0, 0, 1, 0, -1, 0, 0]
    assert centered(word, 6).tolist() == [0, 1, 0, -1, 0, 0]
    assert centered(torch.arange(1.0, 8.0), 3).tolist() == [3, 4, 5]
    for silent in (torch.zeros(5), torch.zeros(0)):
        with pytest.raises(ValueError, match=r"waveform has \d samples, and all are silent"):
            centered(silent, 3)


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
    torch.testing.assert_close(log_mel(waveform[None], normalize=False)[0, 0], wanted, atol=1e-3, rtol=0)


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
    assert log_mel(half, normalize=False).aminmax().max - log_mel(half, normalize=False).min() < 13.9  # 60 dB


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


# eSpeak NG


@pytest.fixture(scope="module")
def library():
    return espeak_library()


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
