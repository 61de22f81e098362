"""Conversations for causal language models: prompt and answer in the words of a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kdft_lib.data.batches import UNLABELED
from kdft_lib.data.documents import _filled, _special
from kdft_lib.data.tensors import TensorData


def chats(
    conversations: Iterable[Any],
    tokenizer: Any,
    *,
    length: int = 512,
    column: str = "messages",
    end: str | int | None = "eos",
    **template: Any,
) -> TensorData:
    """Conversations in rows of their own, filled up behind, of which the last answer alone is learned.

    What comes before the answer is the prompt, with the words with which the template lets an assistant begin. It is
    put into tokens without the answer, as it is when the model is asked. One that ends without an answer is a prompt
    for texts that a student writes itself; see :class:`kdft_lib.objectives.GKD`.

    Args:
        conversations: Lists of messages, ``{"role": …, "content": …}``, or dicts with one, as a Hugging Face data set
            has them. An answer is a last message whose role is ``"assistant"``.
        tokenizer: A tokenizer of Transformers with a chat template.
        length: The most tokens of a row. What of an answer is longer is left out.
        column: The name of the messages in dicts.
        end: The token that ends an answer: a number or a token; ``"eos"`` is the tokenizer's own. What the template
            writes behind it is left out. ``None`` keeps all.
        **template: Further arguments of the tokenizer's ``apply_chat_template``, such as ``enable_thinking=False``.

    Returns:
        A :class:`TensorData` of N rows with the inputs ``input_ids`` and ``attention_mask``, 1 at tokens, the targets
        (where a token of the answer comes next, that token; −100 elsewhere) and the mask of places that have one; each
        ``(N, T)``.

    Raises:
        TypeError: If a conversation is no list of messages, or the tokenizer has no chat template.
        ValueError: If there is none, a prompt leaves no room for an answer, or the template writes another prompt where
            there is an answer.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"</s>": 0, "Q": 1, "A": 2, "why": 3, "so": 4}, unk_token="Q"))
        >>> words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
        >>> tokenizer.chat_template = (
        ...     "{% for m in messages %}{{ 'Q ' if m.role == 'user' else 'A ' }}{{ m.content + ' </s> ' }}{% endfor %}"
        ...     "{% if add_generation_prompt %}{{ 'A ' }}{% endif %}"
        ... )
        >>> asked = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]
        >>> data = chats([asked], tokenizer)
        >>> data.inputs["input_ids"], data.targets
        (tensor([[1, 3, 0, 2, 4]]), tensor([[-100, -100, -100,    4,    0]]))
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TypeError(
            f"tokenizer is a {type(tokenizer).__name__} without a chat template; give the tokenizer of a chat model, or"
            " set its chat_template"
        )
    ending = _special(tokenizer, "end", end)
    rows = []
    for number, conversation in enumerate(conversations):
        prompt, answer = _parts(number, _messages(number, conversation, column), tokenizer, template)
        if ending in answer:
            answer = answer[: answer.index(ending) + 1]
        if len(prompt) > length or not prompt:
            raise ValueError(
                f"conversation {number} has a prompt of {len(prompt):,} tokens, and a row {length:,}; raise length, or"
                " leave it out"
            )
        tokens = [*prompt, *answer][: length + 1]
        targets = [UNLABELED] * (len(prompt) - 1) + tokens[len(prompt) :] if answer else [UNLABELED] * len(prompt)
        rows.append((tokens[: len(targets)], targets, [1] * len(targets)))
    if not rows:
        raise ValueError("conversations holds none; give one list of messages or more")
    longest = max(len(read) for read, _, _ in rows)
    inputs, learned, there = (
        torch.stack([_filled(np.array(part, np.int64), (longest,), filler) for part in parts])
        for parts, filler in zip(zip(*rows, strict=True), (0, UNLABELED, 0), strict=True)
    )
    return TensorData({"input_ids": inputs, "attention_mask": there}, learned, mask=learned != UNLABELED)


def _messages(number: int, conversation: Any, column: str) -> Sequence[Mapping[str, Any]]:
    if isinstance(conversation, Mapping):
        if column not in conversation:
            raise ValueError(
                f"column is {column!r}, which conversation {number} does not have; choose {', '.join(conversation)}"
            )
        conversation = conversation[column]
    if isinstance(conversation, str) or not isinstance(conversation, Sequence) or not len(conversation):
        raise TypeError(
            f"conversation {number} is {conversation!r:.60}; it must be a list of messages,"
            ' [{"role": "user", "content": "…"}, …]'
        )
    if not all(isinstance(message, Mapping) for message in conversation):
        raise TypeError(
            f"conversation {number} is {conversation!r:.60}; each of its messages must be a dict,"
            ' {"role": "user", "content": "…"}'
        )
    return conversation


def _parts(
    number: int, messages: Sequence[Mapping[str, Any]], tokenizer: Any, template: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    """The tokens of the prompt, and those of the answer, if there is one."""

    def written(some: Sequence[Mapping[str, Any]], ask: bool) -> str:
        text: str = tokenizer.apply_chat_template([*some], tokenize=False, add_generation_prompt=ask, **template)
        return text

    def tokens(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    if messages[-1].get("role") != "assistant":
        return tokens(written(messages, ask=True)), []
    prompt, whole = written(messages[:-1], ask=True), written(messages, ask=False)
    if not whole.startswith(prompt):
        raise ValueError(
            f"conversation {number} has a prompt that ends with {prompt[-40:]!r}, with which the template begins no"
            " longer once the answer is there; give the template other arguments, such as enable_thinking=False, or"
            " take another"
        )
    asked, both = tokens(prompt), tokens(whole)
    # Some tokenizers put a space before each text, which stands before no answer.
    return asked, both[len(asked) :] if both[: len(asked)] == asked else tokens(whole[len(prompt) :])
