"""How fast the drafts of the recipe of a language model of one's own size write with a teacher. Each text is written by
the teacher alone and with each draft, in an order that changes, where nothing else runs.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Mapping
from typing import Any

import torch
from own_size_counts import AsWriter, TokenNGram
from own_size_draft import ARMS, BEST, COUNTS, HOW, scored, tried
from own_size_parts import cut, rows, spread, teacher, whole
from own_size_written import goes_on
from torch import Tensor, nn

from kdft_lib import experiments, models
from kdft_lib.experiments import Comparison, Trained, grid

DRAFTED = (1, 2, 4)
"""Tokens a round, of which each arm has the fastest, by the validation's beginnings."""
EACH, BEGUN, CONTINUED = 4, 32, 48
"""Each seed has so many texts of its own, so intervals are over drafts and texts. They are begun with so many tokens
and continued by so many.
"""
TIMED = ("labels", "forward KL", BEST, f"{BEST}, cut from the teacher")
"""Of the drafts, beside an n-gram."""
WRITING = {
    "the tuned teacher draws": ("tuned", 1.0),
    "SmolLM2, greedily": ("as it came", 0.0),
}


@functools.cache
def writer(who: str) -> tuple[Any, Any]:
    """Who writes, and how the drafts read its tokens: the tuned teacher, which has theirs, or SmolLM2 as it came."""
    if who == "tuned":
        return teacher(), None
    return whole()[0], models.spellings(whole()[1], cut().tokenizer)


@functools.cache
def beginnings(part: str, who: str, seeds: int) -> list[list[Tensor]]:
    """For each seed some of its own, from all over a part, in the writer's tokens."""
    tokens = rows(part).inputs["input_ids"][:, :BEGUN]
    tokens = tokens[spread(len(tokens), EACH * seeds)]
    texts = [*tokens.split(1)]
    if who != "tuned":
        said = cut().tokenizer.batch_decode(tokens)
        texts = [whole()[1](one, add_special_tokens=False, return_tensors="pt")["input_ids"] for one in said]
    return [texts[seed::seeds] for seed in range(seeds)]


def writes(who: str, temperature: float, draft: nn.Module | None, prompt: Tensor, most: int, length: int) -> Any:
    """A text by a writer, alone or with a draft, and the seconds that it took, each in a bare loop."""
    model, spelled = writer(who)
    chance: dict[str, Any] = {"temperature": temperature, "generator": torch.Generator().manual_seed(0)}
    started = time.perf_counter()
    if draft is None:
        found: Any = goes_on(model, prompt, length, **chance)[0]
    else:
        found = models.speculative_sample(model, draft, prompt, length, draft_tokens=most, spelled=spelled, **chance)
    return found, time.perf_counter() - started


def quickest(who: str, temperature: float, drafts: list[nn.Module]) -> int:
    """How many tokens an arm's drafts should propose."""
    spent = {
        most: sum(
            writes(who, temperature, draft, some[0], most, CONTINUED // 2)[1]
            for draft, some in zip(drafts, beginnings("val", who, len(drafts)), strict=True)
        )
        for most in DRAFTED
    }
    return min(spent, key=spent.__getitem__)


def paces(who: str, temperature: float, drafts: Mapping[str, list[nn.Module]]) -> dict[str, dict[str, list[float]]]:
    """What is measured, by its name: of each arm a number for each seed."""
    seeds = len(next(iter(drafts.values())))
    most = {arm: quickest(who, temperature, own) for arm, own in drafts.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for seed, prompts in enumerate(beginnings("test", who, seeds)):
        turns: list[str | None] = [None, *drafts]
        seconds = dict.fromkeys(turns, 0.0)
        counts = {arm: {"checked": 0, "accepted": 0, "calls": 0, "same": 0} for arm in drafts}
        for number, prompt in enumerate(prompts):
            texts: dict[str | None, Any] = {}
            for arm in random.Random(len(prompts) * seed + number).sample(turns, len(turns)):
                draft = None if arm is None else drafts[arm][seed]
                texts[arm], took = writes(who, temperature, draft, prompt, most.get(arm or "", 0), CONTINUED)
                seconds[arm] += took
            for arm in drafts:
                for name in ("checked", "accepted", "calls"):
                    counts[arm][name] += getattr(texts[arm], name)
                counts[arm]["same"] += torch.equal(texts[arm].text, texts[None])
        tokens = CONTINUED * len(prompts)
        for arm, count in counts.items():
            values = {
                "tokens a second": tokens / seconds[arm],
                "tokens a second alone": tokens / seconds[None],
                "accepted": count["accepted"] / count["checked"],
                "tokens a call": tokens / count["calls"],
                "tokens drafted": float(most[arm]),
            } | ({} if temperature else {"the same text": count["same"] / len(prompts)})
            for name, value in values.items():
                found.setdefault(name, {}).setdefault(arm, []).append(value)
    return found


def model(trained: Trained) -> nn.Module:
    """What drafts."""
    return AsWriter(trained.model) if isinstance(trained.model, TokenNGram) else trained.model


def pace() -> dict[str, Comparison]:
    """Each arm's drafts of five seeds, and an n-gram."""
    methods = {name: ARMS[name] for name in TIMED}
    short = tried(methods)
    arms: dict[str, Any] = {arm: grid(method, **short.setting(arm)) for arm, method in methods.items()}
    found = experiments.compare(arms | {"n-gram": COUNTS}, scored, reference="forward KL", **HOW)
    drafts = {arm: [model(trained) for trained in runs] for arm, runs in found.trained.items()}
    for how, (who, temperature) in WRITING.items():
        for name, values in paces(who, temperature, drafts).items():
            found.measured[f"{name}, {how}"] = values
    return {"paces": found}


RECORDS = {"own-size-pace": pace}
