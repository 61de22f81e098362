"""What sound needs before a network sees it: reading, resampling, placing, and log-mel spectra."""

from kdft_lib.audio.sound import centered, read_wav, resample
from kdft_lib.audio.spectra import log_mel, mel_filters, whisper_log_mel

__all__ = ["centered", "log_mel", "mel_filters", "read_wav", "resample", "whisper_log_mel"]
