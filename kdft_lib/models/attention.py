"""Documents that lie behind one another in a row, held apart in a model that attends to what came before."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.models.unwrapped import causal


def apart(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keywords beside the inputs, so that documents in a row do not see one another, where there are several.

    A causal model of Transformers finds them by ``position_ids`` itself, but not while it fills a cache, as it does
    unless told otherwise, and in some kinds of attention only; so the mask is made here.

    Args:
        model: Any model; asked is only of one of Transformers that writes, wrapped or not.
        inputs: Its keywords. ``position_ids``, ``(N, T)``, begin again at each document.

    Returns:
        ``attention_mask``, ``(N, 1, T, T)``, 0 where a place may look and the least number elsewhere, and
        ``use_cache=False``; nothing where each row is one document, or a mask is given.

    Raises:
        ValueError: If the model cannot hold them apart.
    """
    positions = inputs.get("position_ids")
    if positions is None or positions.dim() != 2 or "attention_mask" in inputs:
        return {}
    own = causal(model)
    if own is None:
        return {}
    begins = positions[:, 1:] != positions[:, :-1] + 1
    if not begins.any():
        return {}
    _check(own, own.config.get_text_config(decoder=True), positions.shape[1])
    documents = F.pad(begins.cumsum(1), (1, 0))
    seen = (documents.unsqueeze(2) == documents.unsqueeze(1)).tril().unsqueeze(1)
    dtype = next(parameter.dtype for parameter in own.parameters() if parameter.is_floating_point())
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
    return {"attention_mask": mask, "use_cache": False}


def _check(model: nn.Module, config: Any, length: int) -> None:
    instead = "give each document a row of its own, with kdft_lib.data.padded"
    version = importlib.metadata.version("transformers")
    if int(version.split(".")[0]) < 5:
        raise ValueError(
            f"several documents are in a row, which Transformers {version} does not hold apart in every model;"
            f" take version 5 or newer, or {instead}"
        )
    kinds = {*(getattr(config, "layer_types", None) or ())} - {"full_attention", "sliding_attention"}
    stateful = getattr(model, "_is_stateful", False)
    if kinds or stateful:
        does = "carries a state from one to the next" if stateful else f"has {', '.join(sorted(kinds))}"
        raise ValueError(
            f"several documents are in a row, and a {type(model).__name__} {does}, which no mask made here holds apart;"
            f" {instead}"
        )
    kind = getattr(config, "_attn_implementation", None)
    if kind not in (None, "eager", "sdpa"):
        raise ValueError(
            f"several documents are in a row, and the model attends by {kind}, which takes no mask;"
            f' model.set_attn_implementation("sdpa"), or {instead}'
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and window < length:
        raise ValueError(
            f"several documents are in a row of {length} tokens, and the model looks {window} back at most, which no"
            f" mask made here does; take rows of {window} tokens or fewer, or {instead}"
        )
