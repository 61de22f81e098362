"""Read a GGUF file, the format of llama.cpp: settings, a tokenizer and quantised tensors in one.

Transformers reads such a file too, with the package ``gguf``. Here it is read in a tenth of the time and half of the
memory, for the two kinds of file that the package knows: a Llama, with a byte-level tokenizer.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""How the format numbers its types of numbers, in the letters of :mod:`struct`; 8 is a string, 9 a list."""

_BLOCKS = {0: (1, 4), 1: (1, 2), 3: (32, 20), 8: (32, 34)}
"""Of float32, float16, Q4_1 and Q8_0: how many numbers a block holds, and how many bytes it takes."""

_LLAMA = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""What llama.cpp and Transformers call the parts of a Llama."""


class GGUF:
    """A GGUF file, memory-mapped: ``settings`` by name, and tensors that are made when they are asked for.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no GGUF file of version 2 or 3.
    """

    def __init__(self, path: Path):
        self._bytes = np.memmap(path, np.uint8, "r")
        self._view, self._at, self._path = self._bytes.data, 0, path
        magic, version, tensors, settings = self._numbers("4sIQQ") if len(self._bytes) >= 24 else (b"", 0, 0, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path} is no GGUF file of version 2 or 3; it begins with {magic!r} and {version}")
        self.settings = {self._string(): self._value(*self._numbers("I")) for _ in range(settings)}
        self._stored: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(tensors):
            name = self._string()
            sizes = self._numbers(f"{self._numbers('I')[0]}Q")
            kind, offset = self._numbers("IQ")
            self._stored[name] = (sizes[::-1], kind, offset)
        alignment = self.settings.get("general.alignment", 32)
        self._first = -(-self._at // alignment) * alignment

    @property
    def names(self) -> list[str]:
        """What the tensors are called."""
        return [*self._stored]

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32, of its blocks: a number q of four bits, of a block with scale d and least number m, is
        ``d q + m`` (Q4_1); of eight, ``d q`` (Q8_0).

        Raises:
            ValueError: If it is stored in another way.
        """
        shape, kind, offset = self._stored[name]
        if kind not in _BLOCKS:
            raise ValueError(
                f"{self._path}'s tensor {name} is of GGUF's type {kind}; float32, float16, Q4_1 and Q8_0 can be read"
            )
        numbers, size = _BLOCKS[kind]
        count = math.prod(shape) // numbers
        start = self._first + offset
        blocks = self._bytes[start : start + count * size].reshape(count, size)
        found = np.empty((count, numbers), np.float32)
        if numbers == 1:
            found[:] = blocks.view(np.float32 if kind == 0 else np.float16)
        elif kind == 8:
            np.multiply(blocks[:, 2:].view(np.int8), _half(blocks, 0), out=found)
        else:
            # Byte i of a block holds number i in its lower half, and number i + 16 in its upper.
            np.bitwise_and(blocks[:, 4:], 15, out=found[:, :16], casting="unsafe", dtype=np.uint8)
            np.right_shift(blocks[:, 4:], 4, out=found[:, 16:], casting="unsafe", dtype=np.uint8)
            found *= _half(blocks, 0)
            found += _half(blocks, 2)
        return torch.from_numpy(found.reshape(shape))

    def _numbers(self, letters: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{letters}", self._view, self._at)
        self._at += struct.calcsize(f"<{letters}")
        return found

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        start, self._at = self._at, self._at + length
        return str(self._view[start : self._at], "utf-8")

    def _value(self, kind: int) -> Any:
        if kind == 8:
            return self._string()
        if kind != 9:
            return self._numbers(_NUMBERS[kind])[0]
        of, length = self._numbers("IQ")
        return [self._value(of) for _ in range(length)] if of in (8, 9) else [*self._numbers(f"{length}{_NUMBERS[of]}")]


def llama(file: GGUF) -> Any:
    """A Llama of Transformers, with the file's weights, in float32 and evaluation mode.

    Raises:
        ValueError: If the file holds another architecture.
    """
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    known = file.settings
    if known["general.architecture"] != "llama":
        raise ValueError(f"the file holds a {known['general.architecture']}; this reads a llama")
    queries, keys = known["llama.attention.head_count"], known["llama.attention.head_count_kv"]
    settings: dict[str, Any] = {
        "vocab_size": len(known["tokenizer.ggml.tokens"]),
        "hidden_size": known["llama.embedding_length"],
        "intermediate_size": known["llama.feed_forward_length"],
        "num_hidden_layers": known["llama.block_count"],
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "max_position_embeddings": known["llama.context_length"],
        "rms_norm_eps": known["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": known["llama.rope.freq_base"],
        "tie_word_embeddings": "output.weight" not in file.names,
        "bos_token_id": known["tokenizer.ggml.bos_token_id"],
        "eos_token_id": known["tokenizer.ggml.eos_token_id"],
        "pad_token_id": known.get("tokenizer.ggml.padding_token_id"),
    }
    config = LlamaConfig(**settings)
    # No memory is taken twice, and no random number drawn: the weights are those of the file from the start.
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.model.rotary_emb = LlamaRotaryEmbedding(config=config)
    weights = {}
    for name in file.names:
        weight = file.tensor(name)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = _halves(weight, queries if "attn_q" in name else keys)
        weights[_of_transformers(name)] = weight
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model.eval()


def tokenizer(file: GGUF) -> Any:
    """The file's byte-level tokenizer, as one of Transformers.

    Raises:
        ValueError: If the file holds another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    known = {name.rpartition("tokenizer.")[2].removeprefix("ggml."): value for name, value in file.settings.items()}
    if (known["model"], known["pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"the file's tokenizer is {known['model']}, {known['pre']}; this reads gpt2, smollm")
    tokens = known["tokens"]
    merges = [tuple(merge.split(" ")) for merge in known["merges"]]
    made = Tokenizer(BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, known["token_type"], strict=True) if kind == 3]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    kinds = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {f"{ours}_token": tokens[known[f"{theirs}_token_id"]] for ours, theirs in kinds.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=file.settings["llama.context_length"],
        chat_template=known["chat_template"],
        clean_up_tokenization_spaces=False,
        **named,
    )


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """Of each block the number of 16 bits that begins at this byte, ``(blocks, 1)``."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _halves(weight: Tensor, heads: int) -> Tensor:
    """The rows of each head as Transformers has them: llama.cpp puts the two that a rotation mixes beside each other,
    Transformers half a head apart."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _of_transformers(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_LLAMA[parts[2]]}.{parts[3]}"
    return f"{_LLAMA[parts[0]]}.{parts[1]}"
