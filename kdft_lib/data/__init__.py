"""Real data as tensors in memory, their splits, and the batches that the loop sees."""

from kdft_lib.data.augmentation import RandomShiftFlip
from kdft_lib.data.batches import UNLABELLED, Batch, as_batch
from kdft_lib.data.bbc import BBC_TOPICS, bbc_news
from kdft_lib.data.fashion import FASHION_CLASSES, FASHION_NORMALISATION, fashion_mnist
from kdft_lib.data.splits import Splits, TextSplits
from kdft_lib.data.tensors import TensorData
from kdft_lib.data.texts import TextData

__all__ = [
    "BBC_TOPICS",
    "FASHION_CLASSES",
    "FASHION_NORMALISATION",
    "UNLABELLED",
    "Batch",
    "RandomShiftFlip",
    "Splits",
    "TensorData",
    "TextData",
    "TextSplits",
    "as_batch",
    "bbc_news",
    "fashion_mnist",
]
