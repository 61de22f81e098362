"""Data in memory and on disk: tensors and texts, their splits, the batches that the loop sees, and random views."""

from kdft_lib.data.augmentation import RandomShiftFlip, RandomShiftMask
from kdft_lib.data.batches import UNLABELED, Batch, as_batch
from kdft_lib.data.columns import MappedColumn
from kdft_lib.data.splits import Splits, TextSplits, draw_balanced
from kdft_lib.data.tensors import TensorData
from kdft_lib.data.texts import TextData

__all__ = [
    "UNLABELED",
    "Batch",
    "MappedColumn",
    "RandomShiftFlip",
    "RandomShiftMask",
    "Splits",
    "TensorData",
    "TextData",
    "TextSplits",
    "as_batch",
    "draw_balanced",
]
