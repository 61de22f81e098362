"""Real data as tensors in memory, their splits, and the batches that the loop sees."""

from kdft_lib.data.augmentation import RandomShiftFlip
from kdft_lib.data.batches import UNLABELLED, Batch, as_batch
from kdft_lib.data.fashion import FASHION_CLASSES, FASHION_NORMALISATION, Splits, fashion_mnist
from kdft_lib.data.tensors import TensorData

__all__ = [
    "FASHION_CLASSES",
    "FASHION_NORMALISATION",
    "UNLABELLED",
    "Batch",
    "RandomShiftFlip",
    "Splits",
    "TensorData",
    "as_batch",
    "fashion_mnist",
]
