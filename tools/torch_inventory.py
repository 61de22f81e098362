"""Write ``book/torch.inv``, by which the API pages link to PyTorch's names without asking the network.

A small inventory in Sphinx's format: the names that our docstrings mention, and where PyTorch documents them.
"""

from __future__ import annotations

import zlib
from pathlib import Path

PATH = Path(__file__).parents[1] / "book/torch.inv"
NAMES = {
    "torch.Tensor": "tensors.html",
    "torch.device": "tensor_attributes.html",
    "torch.dtype": "tensor_attributes.html",
    "torch.Generator": "generated/torch.Generator.html",
    "torch.nn.Module": "generated/torch.nn.Module.html",
    "torch.nn.CrossEntropyLoss": "generated/torch.nn.CrossEntropyLoss.html",
    "torch.nn.BCEWithLogitsLoss": "generated/torch.nn.BCEWithLogitsLoss.html",
    "torch.optim.AdamW": "generated/torch.optim.AdamW.html",
    "torch.optim.Optimizer": "optim.html",
    "torch.optim.lr_scheduler.OneCycleLR": "generated/torch.optim.lr_scheduler.OneCycleLR.html",
    "torch.utils.data.DataLoader": "data.html",
    "torch.utils.data.Dataset": "data.html",
}


def inventory() -> bytes:
    """The file's content."""
    header = "# Sphinx inventory version 2\n# Project: PyTorch\n# Version: stable\n"
    lines = "".join(f"{name} py:class 1 {page}#$ -\n" for name, page in NAMES.items())
    header += "# The remainder of this file is compressed using zlib.\n"
    return header.encode() + zlib.compress(lines.encode(), 9)


if __name__ == "__main__":
    PATH.write_bytes(inventory())
