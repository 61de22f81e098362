"""Cut a language model's vocabulary down to the tokens that a field uses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def cut_tokenizer(tokenizer: Any, texts: Iterable[str], size: int) -> tuple[Any, Tensor]:
    """A smaller tokenizer, of the tokens that some texts need most: vocabulary trimming.

    A token of byte-pair encoding is made by joining two others. Counted is how often each is made while the texts are
    put into tokens, as a whole or on the way to a longer one. So the parts of a token count at least as much as itself,
    and whatever is kept can be made of what is kept: a word whose token is kept has the same as before, and any other
    is spelled by shorter ones. Special tokens and those of which all others are made, such as bytes, stay.

    Args:
        tokenizer: A fast tokenizer of Transformers, or one of the library ``tokenizers``, with byte-pair encoding.
        texts: The texts of the field, those to train on.
        size: How many tokens to keep.

    Returns:
        A tokenizer of the same kind, and which of the tokens it has, by their numbers in the old one, ascending,
        ``(size,)``: the new number of each is its place there. :func:`cut_table` takes them.

    Raises:
        TypeError: If it is no fast tokenizer, or one of another kind.
        ValueError: If ``size`` is smaller than what has to stay, or larger than the vocabulary.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3, "abab": 4}
        >>> tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "a"), ("ab", "ab")]))
        >>> smaller, kept = cut_tokenizer(tokenizer, ["abab", "abab", "ba"], size=3)
        >>> smaller.encode("abab").tokens, kept
        (['ab', 'ab'], tensor([0, 1, 2]))
    """
    own = getattr(tokenizer, "backend_tokenizer", tokenizer)
    content = json.loads(own.to_str()) if hasattr(own, "to_str") else {"model": {}}
    if content["model"].get("type") != "BPE":
        raise TypeError(
            f"tokenizer is a {type(tokenizer).__name__} of {content['model'].get('type', 'an unknown kind')}; only a"
            " fast tokenizer with byte-pair encoding (BPE) can be cut"
        )
    vocabulary: dict[str, int] = content["model"]["vocab"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in content["model"]["merges"])
    merges = [(first, second) for first, second in pairs]
    made = {first + second: place for place, (first, second) in reversed([*enumerate(merges)])}
    numbers = own.get_vocab(with_added_tokens=True)
    added = {added["content"] for added in content["added_tokens"]}
    needed = torch.tensor([number for token, number in numbers.items() if token not in made or token in added])
    if not len(needed) <= size <= len(numbers):
        raise ValueError(
            f"size is {size}; it must be from {len(needed)}, which are special or what all others are made of, to"
            f" {len(numbers)}"
        )
    used = _used(own, texts, max(numbers.values()) + 1)
    for token in sorted(made, key=made.__getitem__, reverse=True):  # Each before those that it is made of.
        for part in merges[made[token]]:
            used[vocabulary[part]] += used[vocabulary[token]]
    used[needed] = torch.iinfo(torch.int64).max
    ranked = sorted(numbers.items(), key=lambda item: (-int(used[item[1]]), made.get(item[0], -1)))
    kept = torch.tensor([number for _, number in ranked[:size]]).sort().values
    new = {number: place for place, number in enumerate(kept.tolist())}
    content["model"]["vocab"] = {token: new[number] for token, number in vocabulary.items() if number in new}
    content["model"]["merges"] = [
        [first, second]
        for first, second in merges
        if {first, second, first + second} <= content["model"]["vocab"].keys()
    ]
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    if content["padding"] is not None:
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    for part in _parts(content["post_processor"]):
        for special in (part.get("special_tokens") or {}).values():
            special["ids"] = [new[number] for number in special["ids"]]
        for end in {"sep", "cls"} & part.keys():
            part[end] = [part[end][0], new[part[end][1]]]
    return _like(tokenizer, type(own).from_str(json.dumps(content))), kept


def cut_table(model: Any, kept: Tensor) -> Any:
    """A copy of a causal language model that knows some of its tokens alone.

    Its table of tokens and its last layer keep their rows; everything else stays. So for texts in these tokens its
    logits are what they were, without those of the others, among which it no longer divides any probability.

    Args:
        model: A causal language model of Transformers.
        kept: Which tokens it keeps, ascending, ``(size,)``, as :func:`cut_tokenizer` says.

    Returns:
        The copy, whose token of number i is number ``kept[i]`` of the model.

    Raises:
        ValueError: If ``kept`` is out of order or out of range.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=3, eos_token_id=8, **sizes))
        >>> smaller = cut_table(model, torch.tensor([0, 3, 8]))
        >>> smaller(torch.tensor([[1, 2]])).logits.shape, smaller.config.eos_token_id
        (torch.Size([1, 2, 3]), 2)
    """
    words = model.get_input_embeddings().num_embeddings
    if kept.dim() != 1 or len(kept) == 0 or (kept.diff() <= 0).any() or kept[0] < 0 or kept[-1] >= words:
        raise ValueError(
            f"kept has shape {tuple(kept.shape)}; it must be (size,), numbers of the model's {words} tokens, ascending"
        )
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and "per_layer" in name:
            raise ValueError(
                f"model is a {type(model).__name__}, which has a second table of tokens, {name}, that is not cut here"
            )
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is table.weight
    # The copy shares the large tables with the model until it has its own.
    shared = {id(part): part for part in (table.weight, None if head is None else head.weight) if part is not None}
    own = copy.deepcopy(model, shared)
    with torch.no_grad():
        new = own.get_input_embeddings()  # It may do more than look up, such as scale what it finds.
        new.weight = _rows(table.weight, kept)
        new.num_embeddings, new.padding_idx = len(kept), None
        if head is not None:
            last = nn.Linear(head.in_features, len(kept), bias=head.bias is not None, device=head.weight.device)
            last.weight = new.weight if tied else _rows(head.weight, kept)
            if head.bias is not None:
                last.bias = _rows(head.bias, kept)
            own.set_output_embeddings(last)
    own.vocab_size = own.config.vocab_size = len(kept)
    for settings in (own.config, getattr(own, "generation_config", None)):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(settings, name, None) is not None:
                setattr(settings, name, _renumbered(getattr(settings, name), kept.tolist()))
    return own


def _rows(whole: Tensor, kept: Tensor) -> nn.Parameter:
    return nn.Parameter(whole[kept].clone(), requires_grad=whole.requires_grad)


def spellings(tokenizer: Any, smaller: Any) -> list[list[int]]:
    """How each token is spelled in a tokenizer that :func:`cut_tokenizer` made: what a model with the cut vocabulary
    reads where one with the whole has that token, as in :func:`speculative_sample`.

    Args:
        tokenizer: The whole tokenizer.
        smaller: The one that was cut from it.

    Returns:
        Of each of the whole's tokens, by its number, the numbers of its parts in the smaller one. A token that was kept
        has one, a number of no token none.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3, "abab": 4}
        >>> tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "a"), ("ab", "ab")]))
        >>> smaller, kept = cut_tokenizer(tokenizer, ["abab", "abab", "ba"], size=3)
        >>> spellings(tokenizer, smaller)
        [[0], [1], [2], [1, 0], [2, 2]]
    """
    whole, own = (getattr(each, "backend_tokenizer", each) for each in (tokenizer, smaller))
    numbers, kept = (each.get_vocab(with_added_tokens=True) for each in (whole, own))
    spelled: list[list[int]] = [[] for _ in range(max(numbers.values()) + 1)]
    for token, number in numbers.items():
        spelled[number] = [kept[token]] if token in kept else [part.id for part in own.model.tokenize(token)]
    return spelled


def _used(own: Any, texts: Iterable[str], count: int) -> Tensor:
    """How often each token is one of the texts'."""
    used = torch.zeros(count, dtype=torch.int64)
    own = type(own).from_str(own.to_str())
    own.no_truncation()
    own.no_padding()
    if isinstance(texts, str):
        raise TypeError("texts is one text; give a list of texts, [text]")
    for text in texts:
        numbers = torch.tensor(own.encode(text, add_special_tokens=False).ids, dtype=torch.int64)
        used += numbers.bincount(minlength=count)
    return used


def _parts(processor: Any) -> list[dict[str, Any]]:
    """Of what puts special tokens around a text, itself and what it is made of."""
    return [] if processor is None else [processor, *processor.get("processors", [])]


def _like(tokenizer: Any, own: Any) -> Any:
    """A tokenizer of Transformers around another of the library ``tokenizers``, if the one it is like is such."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        return own
    from transformers import PreTrainedTokenizerFast

    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_max_length=tokenizer.model_max_length,
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **named,
    )


def _renumbered(numbers: Any, kept: list[int]) -> Any:
    """A token's new number, or those of several; of one that is not kept none."""
    if isinstance(numbers, int):
        return kept.index(numbers) if numbers in kept else None
    return [kept.index(number) for number in numbers if number in kept]
