"""Real data sets as tensors in memory, split for a study with few labels."""

from kdft_lib.datasets.alphabet import SPELLING_ALPHABET, spelling_alphabet
from kdft_lib.datasets.asterisk import asterisk_alphabet, asterisk_digits
from kdft_lib.datasets.bbc import BBC_TOPICS, bbc_news
from kdft_lib.datasets.commands import speech_commands
from kdft_lib.datasets.digits import DIGITS, flite_digits, spoken_digits
from kdft_lib.datasets.fashion import FASHION_BACKGROUND, FASHION_CLASSES, FASHION_NORMALIZATION, fashion_mnist
from kdft_lib.datasets.homer import CHARACTERS, homer
from kdft_lib.datasets.novels import novels
from kdft_lib.datasets.prose import own_prose
from kdft_lib.datasets.solar import SOLAR_CLASSES, SOLAR_KINDS, SOLAR_MODULES, solar_cells
from kdft_lib.datasets.voices import SAMPLE_RATE
from kdft_lib.datasets.vowels import japanese_vowels

__all__ = [
    "BBC_TOPICS",
    "CHARACTERS",
    "DIGITS",
    "FASHION_BACKGROUND",
    "FASHION_CLASSES",
    "FASHION_NORMALIZATION",
    "SAMPLE_RATE",
    "SOLAR_CLASSES",
    "SOLAR_KINDS",
    "SOLAR_MODULES",
    "SPELLING_ALPHABET",
    "asterisk_alphabet",
    "asterisk_digits",
    "bbc_news",
    "fashion_mnist",
    "flite_digits",
    "homer",
    "japanese_vowels",
    "novels",
    "own_prose",
    "solar_cells",
    "speech_commands",
    "spelling_alphabet",
    "spoken_digits",
]
