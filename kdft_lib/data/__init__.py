"""Data in memory and on disk: tensors, texts, documents and conversations, one's own pictures, tables and texts, their
splits, the batches that the loop sees, and random views."""

from kdft_lib.data.augmentation import RandomShiftFlip, RandomShiftMask
from kdft_lib.data.batches import UNLABELED, Batch, as_batch
from kdft_lib.data.chats import chats
from kdft_lib.data.columns import MappedColumn
from kdft_lib.data.documents import packed, padded
from kdft_lib.data.own import Own, draw_parts, read_rows
from kdft_lib.data.pictures import PictureReader, folder
from kdft_lib.data.spelling import token_bytes, tokenizations
from kdft_lib.data.splits import Splits, TextSplits, draw_balanced
from kdft_lib.data.tables import Columns, table
from kdft_lib.data.tensors import TensorData
from kdft_lib.data.text_files import TextReader, text_file
from kdft_lib.data.texts import TextData

__all__ = [
    "UNLABELED",
    "Batch",
    "Columns",
    "MappedColumn",
    "Own",
    "PictureReader",
    "RandomShiftFlip",
    "RandomShiftMask",
    "Splits",
    "TensorData",
    "TextData",
    "TextReader",
    "TextSplits",
    "as_batch",
    "chats",
    "draw_balanced",
    "draw_parts",
    "folder",
    "packed",
    "padded",
    "read_rows",
    "table",
    "text_file",
    "token_bytes",
    "tokenizations",
]
