"""How a language model writes faster without writing anything else: a smaller one drafts, and it checks."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.models.running import evaluation_mode
from kdft_lib.models.unwrapped import causal


class Speculated(NamedTuple):
    """A text that one model drafted and another checked, and what it took.

    Example:
        >>> found = Speculated(torch.tensor([[5, 6, 7]]), drafted=3, checked=2, accepted=1, calls=1)
        >>> found.accepted / found.checked
        0.5
    """

    text: Tensor
    """``(1, P + written)``, int64: the prompt, and what was written behind it."""
    drafted: int
    """How many tokens the draft proposed."""
    checked: int
    """How many of these came up for a decision: none behind one that was refused."""
    accepted: int
    """How many of these are in the text."""
    calls: int
    """How often the teacher was asked: once a round, which writes what it accepts and, unless that is an end, one token
    more."""


def speculative_sample(
    teacher: nn.Module,
    draft: nn.Module,
    prompt: Tensor,
    length: int,
    *,
    draft_tokens: int = 4,
    spelled: Sequence[Sequence[int]] | None = None,
    end: int | Sequence[int] | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Speculated:
    r"""A text drawn from a teacher, faster than by :func:`sample`: speculative sampling, or speculative decoding
    (Leviathan, Kalman and Matias, 2023, algorithm 1; Chen et al., 2023, algorithm 2).

    In each round a draft, a smaller model, draws a few tokens, and the teacher reads all of them in one call, where
    alone it needs one for each. A token x that the draft drew with probability q(x) is accepted with probability

    .. math:: \min(1, p(x) / q(x))

    where p is the teacher's distribution. In the place of the first that is refused another is drawn, from what p has
    more of than q, max(p − q, 0) over its sum; if none is, one more is drawn from p. So the text is distributed as if
    the teacher had written it alone, whatever the draft is. What depends on the draft is the time: of the tokens that
    come up for a decision,

    .. math:: 1 - \tfrac 1 2 \textstyle\sum_x |p(x) - q(x)|

    are expected to be accepted, the two distributions' overlap; see :func:`kdft_lib.losses.total_variation_loss`.

    Both models keep keys and values of what they have read, and drop those of refused tokens.

    Args:
        teacher: The model whose text it is, a causal model of Transformers that keeps keys and values.
        draft: A smaller one, on the same device.
        prompt: The beginning of the text, in the teacher's tokens, ``(1, P)``, int64; P is 1 or more.
        length: The number of tokens to write, at most.
        draft_tokens: How many tokens are drafted in a round, at most, 1 or more. The fewer are accepted, the fewer are
            worth their time, so measure; the default, 4, is where to begin.
        spelled: For each of the teacher's tokens, the draft's tokens that it reads in its place, as :func:`spellings`
            has them where a vocabulary was cut; what is spelled by one, the draft can draw, and of any other q is 0.
            By default, the tokens are the same, and those that only one has are neither read nor drawn by the draft.
        end: The token, or the tokens, after which a text is over; by default there is none.
        temperature: What both models' logits are divided by, positive; or 0, which takes the teacher's most probable
            token (greedy decoding). In 16 bits, the teacher may find another of two that are almost equally probable,
            since its numbers depend on how many it reads at once.
        generator: The source of chance, on the models' device; by default torch's own.

    Returns:
        The text and its counts, a :class:`Speculated`.

    Raises:
        ValueError: If the prompt is no whole numbers or more than one, a number is out of range, a model keeps no keys
            and values, or ``spelled`` does not fit the models or leaves the draft nothing to read or to draw.

    Example:
        >>> from kdft_lib.models import sample
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
        >>> ends = {"bos_token_id": None, "eos_token_id": None}
        >>> teacher = LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, **sizes, **ends))
        >>> draft = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **sizes, **ends))
        >>> prompt = torch.tensor([[1, 2]])
        >>> found = speculative_sample(teacher, draft, prompt, 20, temperature=0)
        >>> torch.equal(found.text, sample(teacher, prompt, 20, temperature=0)), found.calls <= 20
        (True, True)
    """
    if prompt.dim() != 2 or len(prompt) != 1 or prompt.shape[1] == 0 or prompt.dtype != torch.int64:
        raise ValueError(
            f"prompt has dtype {prompt.dtype} and shape {tuple(prompt.shape)}; it must be int64, (1, P), with P of 1 or"
            " more: one text at a time"
        )
    if length < 0:
        raise ValueError(f"length is {length}; it must be 0 or more")
    if draft_tokens < 1:
        raise ValueError(f"draft_tokens is {draft_tokens}; it must be 1 or more, or use sample, which needs no draft")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive, or 0 for the most probable token")
    ours, theirs = _Reader("draft", draft, prompt.device), _Reader("teacher", teacher, prompt.device)
    spelled = _checked(spelled, ours.words, theirs.words)
    drawn = {parts[0]: token for token, parts in enumerate(spelled) if len(parts) == 1}
    own, known = (torch.tensor([*column], device=prompt.device) for column in (drawn, drawn.values()))
    asked: list[int] = prompt[0].tolist()
    if not drawn or not any(spelled[token] for token in asked):
        raise ValueError("spelled leaves the draft nothing to draw, or nothing to read of the prompt; spell more of it")
    ends = () if end is None else (end,) if isinstance(end, int) else tuple(end)
    written: list[int] = []
    drafted = checked = accepted = calls = 0

    def ended(tokens: list[int]) -> bool:
        return bool(tokens) and tokens[-1] in ends

    def take(weights: Tensor) -> int:
        return int(torch.multinomial(weights, 1, generator=generator))

    with evaluation_mode(teacher), evaluation_mode(draft):
        while len(written) < length and not ended(written):
            guesses: list[int] = []
            chances: list[tuple[int, Tensor]] = []
            while len(guesses) < min(draft_tokens, length - len(written) - 1) and not ended(guesses):
                seen = [part for token in (*asked, *written, *guesses) for part in spelled[token]]
                q = _chances(ours(seen)[-1, own], temperature)
                chances.append((take(q), q))
                guesses.append(int(known[chances[-1][0]]))
            answers = _chances(theirs([*asked, *written, *guesses], len(guesses) + 1), temperature)
            calls, drafted = calls + 1, drafted + len(guesses)
            for guess, (place, q), p in zip(guesses, chances, answers[:-1], strict=True):
                checked += 1
                if not _accepts(p[guess], q[place], generator):
                    written.append(take(_residual(p, q, known)))
                    break
                written.append(guess)
                accepted += 1
            else:
                if not ended(guesses):
                    written.append(take(answers[-1]))
    text = torch.tensor([[*asked, *written]], device=prompt.device)
    return Speculated(text, drafted, checked, accepted, calls)


class _Reader:
    """A causal model that reads of a text what is new to it, and drops what the text no longer has."""

    def __init__(self, name: str, model: nn.Module, device: torch.device):
        own = causal(model)
        if own is None or own.config.is_encoder_decoder or getattr(own, "_is_stateful", False):
            raise ValueError(
                f"{name} is a {type(model).__name__}, which is no causal model of Transformers with keys and values of"
                " each token, of which those of refused ones could be dropped; use sample"
            )
        from transformers import DynamicCache

        self.model, self.device, self.cache, self.read = own, device, DynamicCache(), list[int]()
        # What newer releases of Transformers call it.
        takes = inspect.signature(own.forward).parameters
        self.name = "cache" if "cache" in takes else "past_key_values"
        self.words: int = own.get_input_embeddings().num_embeddings

    def __call__(self, text: list[int], last: int = 1) -> Tensor:
        """The logits behind the text's last tokens, ``(last, C)``."""
        kept = 0
        while kept < min(len(self.read), len(text) - last) and self.read[kept] == text[kept]:
            kept += 1
        if kept < len(self.read):
            self.cache.crop(kept - len(self.read))
        new = torch.tensor([text[kept:]], device=self.device)
        answer: Any = self.model(input_ids=new, use_cache=True, **{self.name: self.cache})
        self.read = text
        return answer.logits[0, -last:].float()


def _checked(spelled: Sequence[Sequence[int]] | None, ours: int, theirs: int) -> Sequence[Sequence[int]]:
    """A spelling for each of the teacher's tokens."""
    if spelled is None:
        return [[token] if token < ours else [] for token in range(theirs)]
    most = max((part for parts in spelled for part in parts), default=0)
    if len(spelled) > theirs or most >= ours:
        raise ValueError(
            f"spelled has {len(spelled)} tokens, and names the draft's token {most}; the teacher has {theirs} tokens,"
            f" which are spelled in the draft's {ours}"
        )
    return [*spelled, *[()] * (theirs - len(spelled))]


def _chances(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities, ``(..., C)``; at temperature 0 the most probable token's is 1."""
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    return (logits / temperature).softmax(-1)


def _accepts(p: Tensor, q: Tensor, generator: torch.Generator | None) -> bool:
    """True with probability min(1, p / q)."""
    return bool(torch.rand((), generator=generator, device=p.device) * q < p)


def _residual(p: Tensor, q: Tensor, known: Tensor) -> Tensor:
    """What the teacher's distribution has more of than the draft's over the tokens that it knows."""
    left = p.index_add(0, known, q, alpha=-1).clamp(min=0)
    return left if left.any() else p  # Equal but for rounding.
