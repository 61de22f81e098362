"""How a text is drawn from a language model: from each prompt on, up to an end or a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.models.running import evaluation_mode, logits
from kdft_lib.models.unwrapped import causal, is_shared


def sample(
    model: nn.Module,
    prompts: Tensor,
    length: int,
    *,
    lengths: Tensor | None = None,
    end: int | Sequence[int] | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Texts drawn from a language model, one token after the other, each from its distribution: ancestral sampling, or
    generation.

    A causal model of Transformers writes by its own ``generate``, with a cache of keys and values and without what its
    ``generation_config`` would do to the distribution (top k, top p, penalties). Of a model that has ``advance``, as
    :class:`CharacterGRU`, each token is read once; of any other, the whole text is read for each.

    Args:
        model: A language model, which takes ``(N, T)``, int64, and gives logits ``(N, T, C)``.
        prompts: The beginnings of the texts, ``(N, P)``, int64; P is 1 or more.
        length: The number of tokens to draw for each, at most.
        lengths: How many tokens each prompt has, ``(N,)``, where anything is behind some; by default P.
        end: The token, or the tokens, after which a text is over; by default there is none.
        temperature: What logits are divided by, positive; or 0, which takes the most probable token (greedy decoding).
        generator: The source of chance, on the model's device; by default torch's own.

    Returns:
        ``(N, P + length)``, int64, of each row its prompt, what was drawn behind it, and 0 where nothing is.

    Raises:
        ValueError: If the prompts are empty or no whole numbers, ``lengths`` are not theirs, or ``length`` or
            ``temperature`` is negative.

    Example:
        >>> from kdft_lib.data import TensorData
        >>> from kdft_lib.models import NGram
        >>> told = TensorData(torch.tensor([[0, 1]]), torch.tensor([[1, 0]]))
        >>> model = NGram(order=2, discount=0.0, num_classes=2).count(told)
        >>> sample(model, torch.tensor([[0]]), length=5)
        tensor([[0, 1, 0, 1, 0, 1]])
        >>> sample(model, torch.tensor([[1, 0], [1, 0]]), length=3, lengths=torch.tensor([1, 2]), end=1)
        tensor([[1, 0, 1, 0, 0],
                [1, 0, 1, 0, 0]])
    """
    if prompts.dim() != 2 or 0 in prompts.shape or prompts.dtype != torch.int64:
        raise ValueError(
            f"prompts has dtype {prompts.dtype} and shape {tuple(prompts.shape)}; it must be int64, (N, P), with N and"
            " P of 1 or more"
        )
    if length < 0:
        raise ValueError(f"length is {length}; it must be 0 or more")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive, or 0 for the most probable token")
    count, most = prompts.shape
    starts = torch.full((count,), most, device=prompts.device) if lengths is None else lengths
    if starts.shape != (count,) or int(starts.min()) < 1 or int(starts.max()) > most:
        raise ValueError(
            f"lengths has shape {tuple(starts.shape)} and values from {int(starts.min())} to {int(starts.max())}; it"
            f" must have one for each of {count} prompts, from 1 to {most}"
        )
    ends = () if end is None else (end,) if isinstance(end, int) else tuple(end)
    texts, _ = continued(
        model, prompts, starts, starts + length, ends=ends, temperature=temperature, generator=generator
    )
    return F.pad(texts, (0, most + length - texts.shape[1]))


def continued(
    model: nn.Module,
    prompts: Tensor,
    starts: Tensor,
    limits: Tensor,
    *,
    ends: Sequence[int] = (),
    named: bool = False,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Each prompt with what the model writes behind it, and how long that is.

    Args:
        model: The model; its modes are afterwards as before.
        prompts: ``(N, P)``; of each row the first ``starts`` tokens count.
        starts: How many tokens each prompt has, ``(N,)``, 1 or more.
        limits: How many tokens each text has at most, ``(N,)``, as many as its prompt or more.
        ends: The tokens after which a text is over, where it wrote them itself.
        named: Whether the model takes its tokens as the keyword ``input_ids``.
        temperature: As in :func:`sample`.
        generator: As in :func:`sample`.

    Returns:
        The texts, ``(N, the longest)``, 0 behind their ends; and their lengths, ``(N,)``, the end included.
    """
    width = int(limits.max())
    prompts = prompts[:, : int(starts.max())]
    own = causal(model)
    with evaluation_mode(model), _drawn_from(generator if own is not None else None):
        if own is not None:
            texts = _generated(own, prompts, starts, int((limits - starts).max()), width, ends, temperature)
        else:
            texts = _drawn(model, prompts, starts, width, ends, named, temperature, generator)
    places = torch.arange(width, device=prompts.device)
    over = _among(texts, ends) & (places >= starts.unsqueeze(1)) & (places < limits.unsqueeze(1))
    sizes = torch.where(over.any(1), over.int().argmax(1) + 1, limits)
    return texts.masked_fill(places >= sizes.unsqueeze(1), 0), sizes


def _generated(
    own: Any, prompts: Tensor, starts: Tensor, most: int, width: int, ends: Sequence[int], temperature: float
) -> Tensor:
    """By the model's own ``generate``, for which prompts are filled up in front."""
    from transformers import GenerationConfig

    longest = prompts.shape[1]
    if most == 0:
        return F.pad(prompts, (0, width - longest))
    before = (longest - starts).unsqueeze(1)
    places = torch.arange(longest, device=prompts.device) - before
    there = places >= 0
    chance = {"do_sample": True, "temperature": float(temperature), "top_k": 0, "top_p": 1.0} if temperature else {}
    settings = GenerationConfig(
        max_new_tokens=most, eos_token_id=list(ends) or None, pad_token_id=0, use_cache=True, **chance
    )
    # What it leaves open, ``generate`` takes from the model's settings, which are made for readers.
    kept, own.generation_config = own.generation_config, GenerationConfig()
    try:
        found = own.generate(
            input_ids=prompts.gather(1, places.clamp(min=0)).masked_fill(~there, 0), attention_mask=there.long(),
            generation_config=settings, synced_gpus=is_shared(own),
        )  # fmt: skip
    finally:
        own.generation_config = kept
        if hasattr(own, "get_base_model"):  # peft gives what it has to the model inside.
            own.get_base_model().generation_config = kept
    back = torch.arange(width, device=prompts.device) + before
    return F.pad(found, (0, longest + width - found.shape[1])).gather(1, back)


def _drawn(
    model: nn.Module,
    prompts: Tensor,
    starts: Tensor,
    width: int,
    ends: Sequence[int],
    named: bool,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Token by token; a longer prompt goes on with its own."""
    advance, state = getattr(model, "advance", None), None
    texts = F.pad(prompts, (0, width - prompts.shape[1])).clone()
    given = torch.arange(width, device=prompts.device) < starts.unsqueeze(1)
    over = torch.zeros_like(given[:, :1])
    first = int(starts.min())
    new = texts[:, :first]
    for place in range(first, width):
        if advance is not None:
            answer, state = advance(new, state)
        else:
            seen = texts[:, :place]
            answer = logits(model, {"input_ids": seen} if named else seen)
        here = slice(place, place + 1)
        new = torch.where(given[:, here], texts[:, here], _next(answer[:, -1].float(), temperature, generator))
        texts[:, here] = new
        over |= _among(new, ends) & ~given[:, here]
        if ends and bool(over.all()) and not is_shared(model):
            break
    return texts


def _next(answer: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return answer.argmax(-1, keepdim=True)
    return torch.multinomial((answer / temperature).softmax(-1), 1, generator=generator)


def _among(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    return torch.isin(tokens, torch.tensor([*ends], dtype=tokens.dtype, device=tokens.device))


@contextmanager
def _drawn_from(generator: torch.Generator | None) -> Iterator[None]:
    """Inside, torch's own generator is this one, which goes on from where that ended."""
    if generator is None:
        yield
        return
    device = generator.device
    chance: Any = torch.cuda if device.type == "cuda" else torch
    where = (device,) if device.type == "cuda" else ()
    with torch.random.fork_rng([*where]):
        chance.set_rng_state(generator.get_state(), *where)
        yield
        generator.set_state(chance.get_rng_state(*where))
