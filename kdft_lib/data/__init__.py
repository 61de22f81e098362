"""Real data as tensors in memory, their splits, and the batches that the loop sees."""

from kdft_lib.data.augmentation import RandomShiftFlip, RandomShiftMask
from kdft_lib.data.batches import UNLABELLED, Batch, as_batch
from kdft_lib.data.bbc import BBC_TOPICS, bbc_news
from kdft_lib.data.commands import speech_commands
from kdft_lib.data.digits import DIGITS, SAMPLE_RATE, asterisk_digits, flite_digits, spoken_digits
from kdft_lib.data.fashion import FASHION_CLASSES, FASHION_NORMALISATION, fashion_mnist
from kdft_lib.data.homer import CHARACTERS, homer
from kdft_lib.data.sound import centred, read_wav, resample
from kdft_lib.data.spectra import log_mel, mel_filters
from kdft_lib.data.splits import Splits, TextSplits
from kdft_lib.data.tensors import TensorData
from kdft_lib.data.texts import TextData
from kdft_lib.data.vowels import japanese_vowels

__all__ = [
    "BBC_TOPICS",
    "CHARACTERS",
    "DIGITS",
    "FASHION_CLASSES",
    "FASHION_NORMALISATION",
    "SAMPLE_RATE",
    "UNLABELLED",
    "Batch",
    "RandomShiftFlip",
    "RandomShiftMask",
    "Splits",
    "TensorData",
    "TextData",
    "TextSplits",
    "as_batch",
    "asterisk_digits",
    "bbc_news",
    "centred",
    "fashion_mnist",
    "flite_digits",
    "homer",
    "japanese_vowels",
    "log_mel",
    "mel_filters",
    "read_wav",
    "resample",
    "speech_commands",
    "spoken_digits",
]
