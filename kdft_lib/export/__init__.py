"""What ships: a file that is checked against PyTorch, its card, and how it is asked again, without PyTorch's model."""

from kdft_lib.export.reading import NOT_SURE, Answer, Exported, load
from kdft_lib.export.writing import to_onnx, write

__all__ = ["NOT_SURE", "Answer", "Exported", "load", "to_onnx", "write"]
