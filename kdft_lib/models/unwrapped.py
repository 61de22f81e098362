"""What a model is under what wraps it: one of Transformers, one of which each process holds a share."""

from __future__ import annotations

from typing import Any

from torch import nn


def causal(model: nn.Module) -> Any | None:
    """The model of Transformers that writes texts, which a module is, or wraps as ``DistributedDataParallel`` does;
    ``None`` of any other."""
    own: Any = model
    while isinstance(getattr(own, "module", None), nn.Module) and not hasattr(own, "can_generate"):
        own = own.module
    if getattr(own, "config", None) is None or not hasattr(own, "can_generate") or not own.can_generate():
        return None
    return own


def is_shared(model: nn.Module) -> bool:
    """Whether each process holds a share of the model's weights (FSDP2), so that all make the same calls."""
    return any(base.__name__ == "FSDPModule" for part in model.modules() for base in type(part).__mro__)
