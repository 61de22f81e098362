"""Causal language models of Transformers: which one a module is, and what goes into its last layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.models.running import Inputs, logits
from kdft_lib.models.unwrapped import causal, is_shared


def before_head(model: nn.Module, inputs: Inputs) -> tuple[Tensor, Any]:
    """What goes into the last layer of a causal model of Transformers, and that layer: from both, a loss makes the
    logits a few places at a time, see :func:`kdft_lib.losses.linear_soft_target_loss`.

    The model runs as always, but its last layer sees the last place alone; so whether it does anything with the logits
    after that layer, such as scaling or capping them, is seen there.

    Args:
        model: The model, wrapped or not.
        inputs: What :func:`kdft_lib.models.logits` takes.

    Returns:
        What goes in, ``(N, T, H)``, differentiable as the call was, and the layer, with ``weight`` ``(C, H)`` and
        ``bias`` ``(C,)`` or ``None``.

    Raises:
        ValueError: If it is no such model, or its logits are something else than what that layer gives.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=None, eos_token_id=None, **sizes))
        >>> hidden, head = before_head(model, torch.tensor([[1, 2, 3]]))
        >>> hidden.shape, head.weight.shape
        (torch.Size([1, 3, 8]), torch.Size([9, 8]))
    """
    own: Any = causal(model)
    head: Any = None if own is None else own.get_output_embeddings()
    if not isinstance(getattr(head, "weight", None), Tensor):
        raise ValueError(
            f"in_blocks is True, and a {type(model).__name__} is no causal model of Transformers with a last layer to"
            " take apart; set in_blocks=False"
        )
    if is_shared(own):
        raise ValueError(
            "in_blocks is True, and the weights of the last layer, which it reads, are shared among processes; set"
            " in_blocks=False"
        )
    seen: list[Tensor] = []

    def last_alone(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(given[0])
        return (given[0][:, -1:],)

    handle = head.register_forward_pre_hook(last_alone)
    try:
        found = logits(model, inputs)
    finally:
        handle.remove()
    if not seen:
        raise ValueError("in_blocks is True, and the model is compiled; give the model itself, or set in_blocks=False")
    bias = getattr(head, "bias", None)
    with torch.no_grad():
        expected = F.linear(seen[-1][:, -1:], head.weight, bias).to(found.dtype)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            f"in_blocks is True, and a {type(own).__name__}'s logits are not what its last layer gives (they are"
            " scaled, capped or updated besides), which a loss from that layer would leave out; set in_blocks=False"
        )
    return seen[-1].to(head.weight.dtype), head
