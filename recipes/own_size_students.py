"""Students of the recipe of a language model of one's own size: from random weights, and cut from the teacher."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from own_size_parts import LENGTH, SMOLLM2, cut, rows, teacher
from torch import Tensor, nn

from kdft_lib import metrics, models
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Trained
from kdft_lib.training import Ledger

CALIBRATION = 16
"""Rows by which it is decided what of the teacher a student starts from."""


def llama(width: int, layers: int, heads: int, keys: int, hidden: int) -> Any:
    """A Llama with the teacher's kind of heads, and a table that is its last layer too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model, tokenizer = cut()
    given = {name: getattr(model.config, name) for name in ("rms_norm_eps", "rope_parameters", "head_dim")}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, intermediate_size=hidden, tie_word_embeddings=True, use_cache=False,
        max_position_embeddings=2 * LENGTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None, **given,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class Seen(NamedTuple):
    """What some rows of text show of the teacher."""

    directions: Tensor
    """Orthonormal, ``(576, 576)``, by how much of the stream between the layers lies along them, the most first."""
    neurons: list[Tensor]
    """Of each layer, the mean square of what each neuron gives, ``(1536,)``."""
    heads: list[Tensor]
    """Of each layer, the mean square of what each head adds, ``(9,)``."""


@functools.cache
def seen() -> Seen:
    """Principal directions and activations, as SliceGPT and Minitron take them from a few texts."""
    model, config = teacher(), teacher().config
    neurons: list[Any] = [0.0] * config.num_hidden_layers
    heads: list[Any] = [0.0] * config.num_hidden_layers
    stream = torch.zeros(config.hidden_size, config.hidden_size)

    def watch(place: int, layer: Any) -> list[Any]:
        def of_neurons(_: Any, given: Any) -> None:
            neurons[place] += given[0].square().mean((0, 1))

        def of_heads(_: Any, given: Any) -> None:
            parts = given[0].unflatten(-1, (config.num_attention_heads, -1))
            weights = layer.self_attn.o_proj.weight.unflatten(-1, (config.num_attention_heads, -1))
            added = torch.einsum("nthd,whd->nthw", parts, weights)
            heads[place] += added.square().mean((0, 1, 3))

        def of_stream(_: Any, given: Any) -> None:
            at = F.normalize(given[0].flatten(0, -2), dim=-1)  # Else the last layers, whose numbers are large, decide.
            stream.add_(at.T @ at)

        return [
            layer.mlp.down_proj.register_forward_pre_hook(of_neurons),
            layer.self_attn.o_proj.register_forward_pre_hook(of_heads),
            layer.input_layernorm.register_forward_pre_hook(of_stream),
        ]

    handles = [handle for place, layer in enumerate(model.model.layers) for handle in watch(place, layer)]
    data = rows("train")[torch.linspace(0, len(rows("train")) - 1, CALIBRATION).long()]
    try:
        with torch.no_grad():
            for batch in data.batches(4):
                models.logits(model, batch["inputs"])
    finally:
        for handle in handles:
            handle.remove()
    return Seen(torch.linalg.eigh(stream).eigenvectors.flip(-1), neurons, heads)


def cut_from_teacher(width: int, layers: int, heads: int, keys: int, hidden: int) -> Any:
    """A student that starts from the teacher: layers at even distances; of each the group of heads and the neurons that
    do the most; and of the stream between them its first principal directions.

    The gain of a normalisation goes into the weights behind it, since it would not stay diagonal.
    """
    model, config = teacher(), teacher().config
    new, directions = llama(width, layers, heads, keys, hidden), seen().directions[:, :width]
    scale = math.sqrt(config.hidden_size / width)  # The normalisation divides by the mean square of fewer numbers.
    group, size = config.num_attention_heads // config.num_key_value_heads, config.head_dim
    places = torch.linspace(0, config.num_hidden_layers - 1, layers).round().long().tolist()
    with torch.no_grad():
        for place, theirs, own in zip(places, [model.model.layers[at] for at in places], new.model.layers, strict=True):
            useful = seen().heads[place].view(-1, group).sum(-1)
            groups = useful.topk(keys).indices.sort().values
            pairs = torch.arange(len(useful) * size).view(-1, size)[groups].flatten()
            queries = (
                torch.arange(len(useful) * group * size).view(-1, group, size)[groups][:, : heads // keys].flatten()
            )
            busiest = seen().neurons[place].topk(hidden).indices.sort().values
            before, between = (
                norm.weight.unsqueeze(0) for norm in (theirs.input_layernorm, theirs.post_attention_layernorm)
            )
            ours, attention = own.self_attn, theirs.self_attn
            ours.q_proj.weight.copy_(attention.q_proj.weight[queries] * before @ directions)
            ours.k_proj.weight.copy_(attention.k_proj.weight[pairs] * before @ directions)
            ours.v_proj.weight.copy_(attention.v_proj.weight[pairs] * before @ directions)
            ours.o_proj.weight.copy_(directions.T @ attention.o_proj.weight[:, queries])
            own.mlp.gate_proj.weight.copy_(theirs.mlp.gate_proj.weight[busiest] * between @ directions)
            own.mlp.up_proj.weight.copy_(theirs.mlp.up_proj.weight[busiest] * between @ directions)
            own.mlp.down_proj.weight.copy_(directions.T @ theirs.mlp.down_proj.weight[:, busiest])
            for norm in (own.input_layernorm, own.post_attention_layernorm):
                norm.weight.fill_(scale)
        table = model.get_input_embeddings().weight
        own_table, wanted = table @ directions, table * model.model.norm.weight @ directions
        new.get_input_embeddings().weight.copy_(own_table)
        # The last layer is the table too, so of the last gain what a factor for each direction can say is kept.
        new.model.norm.weight.copy_(scale * (own_table * wanted).sum(0) / own_table.square().sum(0))
    return new


def fewer_layers(layers: int) -> Any:
    """The teacher with some of its layers, at even distances, and nothing else changed."""
    model = copy.deepcopy(teacher())
    places = torch.linspace(0, len(model.model.layers) - 1, layers).round().long().tolist()
    model.model.layers = nn.ModuleList([model.model.layers[place] for place in places])
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = number
    model.config.num_hidden_layers = layers
    model.config.use_cache = False
    return model


@dataclass(frozen=True)
class AsMade:
    """A network that was made of the teacher, before any step."""

    make: Callable[[], Any]

    def train(self, splits: Splits, seed: int) -> Trained:
        return Trained(self, Ledger(pretraining=SMOLLM2))

    def bits(self, data: TensorData) -> float:
        return metrics.bits_per_byte(_made(self.make), data, batch_size=8)

    def read(self, data: TensorData) -> None:
        with torch.no_grad():
            models.logits(_made(self.make), data.inputs)

    @property
    def megabytes(self) -> float:
        return 4 * metrics.parameters(_made(self.make)) / 1e6


@functools.lru_cache(maxsize=1)
def _made(make: Callable[[], Any]) -> Any:
    return make().eval()
