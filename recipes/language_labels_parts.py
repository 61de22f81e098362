"""What the recipe of a language model's labels is made of: what SmolLM2 is asked and says, and what is measured.

It is asked about each title once behind each prompt. What it said stays in the files of ``FOLDER``, so that a recording
that was interrupted goes on.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import itertools
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from language import TOPICS, within
from language_rivals import NAMES, TITLE, text
from own_size_parts import SMOLLM2, whole
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Trained
from kdft_lib.files import written_whole
from kdft_lib.metrics import calibration_error
from kdft_lib.training import Ledger

FOLDER: Path | None = Path("_build/language-labels")
"""None keeps answers in memory."""
TOGETHER, SAVED = 16, 256
"""Titles in a call of the model, and between two writings of a file."""
SOME = 100
"""Titles without labels whose mean says what a prompt favours."""
NO_CONTENT = ("N/A", "[MASK]", "")
"""So do these in a title's place (Zhao et al., 2021)."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


class Prompt(NamedTuple):
    """What comes first, then a title in its place, then, behind an example's answer, what ends it."""

    first: str
    form: str
    end: str = "\n\n"


PROMPTS = {
    "a sentence": Prompt("", "{}\nThis story is about"),
    "a list": Prompt(
        "Sort headlines into business, entertainment, politics, sport and technology.\n\n", "Headline: {}\nTopic:"
    ),
    "a chat": Prompt(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
        "<|im_start|>user\nIs this headline about business, entertainment, politics, sport or technology?\n{}"
        "<|im_end|>\n<|im_start|>assistant\nThis headline is about",
        "<|im_end|>\n",
    ),
}


# What SmolLM2 says --------------------------------------------------------------------------------


@functools.cache
def names() -> Tensor:
    """The token of each topic's name behind a word. Each is one, so its likelihood is that of one token."""
    tokens = [whole()[1](f" {name}")["input_ids"] for name in NAMES]
    assert all(len(token) == 1 for token in tokens), tokens
    return torch.tensor(tokens).flatten()


def tokens(prompt: str, title: str) -> list[int]:
    return whole()[1](prompt.replace("{}", title))["input_ids"]


def likelihoods(prompt: str, titles: list[str]) -> Tensor:
    """How likely the name of each topic comes next: log-probabilities among all tokens, ``(N, 5)``.

    What all begin with is read once. Titles stand behind it in one row, each blind for the others.
    """
    model, rows, found = whole()[0], [tokens(prompt, title) for title in titles], []
    columns = zip(*(row[:-1] for row in rows), strict=False)
    shared = [column[0] for column in itertools.takewhile(lambda column: len({*column}) == 1, columns)]
    with torch.no_grad():
        begun = model(input_ids=torch.tensor([shared])).past_key_values if shared else None
        for start in range(0, len(rows), TOGETHER):
            some = [torch.tensor(row[len(shared) :]) for row in rows[start : start + TOGETHER]]
            length = torch.tensor([len(row) for row in some])
            title = torch.arange(len(some)).repeat_interleave(length)
            place = torch.cat([torch.arange(count) for count in length.tolist()])
            own = (title[:, None] == title) & (place[:, None] >= place)
            seen = torch.cat([torch.ones(len(title), len(shared), dtype=torch.bool), own], dim=1)
            logits = model(
                input_ids=torch.cat(some)[None],
                position_ids=len(shared) + place[None],
                attention_mask=torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None],
                past_key_values=copy.deepcopy(begun),
                logits_to_keep=length.cumsum(0) - 1,
            ).logits[0]
            found.append(logits.log_softmax(-1)[:, names()])
    return torch.cat(found)


class Asked:
    """What SmolLM2 said behind a prompt, by the numbers of stories, and the seconds of a core that this took."""

    def __init__(self, prompt: str, read: str):
        self.prompt, self.read, self.seconds = prompt, read, 0.0
        self.said: dict[int, Tensor] = {}
        digest = hashlib.sha256(f"{read} {prompt}".encode()).hexdigest()[:20]
        self.path = None if FOLDER is None else FOLDER / f"{digest}.safetensors"
        if self.path is not None and self.path.exists():
            kept = load_file(self.path)
            self.said = dict(zip(kept["numbers"].tolist(), kept["said"], strict=True))
            self.seconds = kept["seconds"].item()

    def about(self, numbers: list[int]) -> Tensor:
        new = [number for number in dict.fromkeys(numbers) if number not in self.said]
        for start in range(0, len(new), SAVED):
            some, began = new[start : start + SAVED], time.process_time()
            said = likelihoods(self.prompt, [text(self.read, number) for number in some])
            self.said.update(zip(some, said, strict=True))
            self.seconds += time.process_time() - began
            if self.path is not None:
                kept = {"numbers": torch.tensor([*self.said]), "said": torch.stack([*self.said.values()])}
                with written_whole(self.path) as temporary:
                    save_file(kept | {"seconds": torch.tensor(self.seconds)}, temporary)
        return torch.stack([self.said[number] for number in numbers])


asked = functools.cache(Asked)


class Names(nn.Module):
    """Of the numbers of stories, how likely each topic's name is, less how likely it is anyway."""

    anyway: Tensor

    def __init__(self, prompt: str, read: str, anyway: Tensor):
        super().__init__()
        self.prompt, self.read = prompt, read
        self.register_buffer("anyway", anyway)

    def forward(self, numbers: Tensor) -> Tensor:
        return asked(self.prompt, self.read).about(numbers.tolist()).log_softmax(-1) - self.anyway


@dataclasses.dataclass(frozen=True)
class SmolLM2:
    """A prompt, with so many labelled titles of each topic in it, and what is taken off: nothing, what is said of texts
    without content (Zhao et al., 2021), or what is said on average of titles without labels (Zhou et al., 2024).
    """

    prompt: Prompt
    less: Literal["nothing", "no content", "titles"] = "nothing"
    examples: int = 0
    read: str = TITLE

    def but(self, **changes: Any) -> SmolLM2:
        return dataclasses.replace(self, **changes)

    def train(self, splits: Splits, seed: int) -> Trained:
        shown = drawn(splits.train, self.examples, seed)
        prompt, anyway = written(self.prompt, self.read, shown), torch.zeros(TOPICS)
        if self.less == "no content":
            anyway = likelihoods(prompt, [*NO_CONTENT]).softmax(-1).mean(0).log()
        elif self.less == "titles":
            titles = splits.transfer.inputs[:SOME].tolist()
            anyway = asked(prompt, self.read).about(titles).softmax(-1).mean(0).log()
        ledger = Ledger(labels=len(shown), pretraining=SMOLLM2)
        return Trained(Names(prompt, self.read, anyway), ledger, seed=seed)


def drawn(labeled: TensorData, each: int, seed: int) -> TensorData:
    """So many titles of each topic, in an order that the seed draws; of a larger number these are a part."""
    assert labeled.targets is not None
    order = torch.randperm(len(labeled), generator=torch.Generator().manual_seed(seed))
    chosen = F.one_hot(labeled.targets[order], TOPICS)
    return labeled[order[(chosen.cumsum(0) * chosen).sum(1) <= each]]


def written(prompt: Prompt, read: str, shown: TensorData) -> str:
    """The prompt with its examples, each with its topic's name."""
    assert shown.targets is not None
    both = zip(shown.inputs.tolist(), shown.targets.tolist(), strict=True)
    said = [f"{prompt.form.replace('{}', text(read, number))} {NAMES[topic]}{prompt.end}" for number, topic in both]
    return "".join([prompt.first, *said, prompt.form])


# What is measured ---------------------------------------------------------------------------------


@functools.cache
def topics() -> Tensor:
    """The topic of each story outside the test, by its number."""
    train, _, val, _ = within(None, 0)
    both = train.with_rows(val)
    assert both.targets is not None
    return torch.full((int(both.inputs.max()) + 1,), -1).index_copy(0, both.inputs, both.targets)


def most_sure(said: Tensor, share: float) -> Tensor:
    """The places of so large a share of the probabilities, those whose highest is highest, in order."""
    return said.amax(dim=1).argsort(descending=True, stable=True)[: round(share * len(said))].sort().values


def rest_named(trained: Trained, splits: Splits) -> tuple[Tensor, Tensor]:
    """What is said of the stories without labels, and their topics."""
    return trained.logits(splits.transfer), topics()[splits.transfer.inputs]


def of_the_surest(share: float, what: str, trained: Trained, splits: Splits) -> float:
    """Of the share of the stories without labels that it is surest of: how many are named rightly, or the least of the
    probabilities, which is the threshold that keeps them.
    """
    logits, true = rest_named(trained, splits)
    said = logits.softmax(dim=1)
    kept = most_sure(said, share)
    if what == "right":
        return (said.argmax(dim=1) == true)[kept].double().mean().item()
    return said[kept].amax(dim=1).min().item()


def off(trained: Trained, splits: Splits) -> float:
    return calibration_error(*rest_named(trained, splits))


def most_named(trained: Trained, splits: Splits) -> float:
    """How large a share of the stories without labels the topic gets that is named most often."""
    return rest_named(trained, splits)[0].argmax(dim=1).bincount().max().item() / len(splits.transfer)


def tokens_a_title(trained: Trained, splits: Splits) -> float:
    """As an interface counts them, which is sent the whole prompt for each title; 0 where SmolLM2 is not asked."""
    own = trained.model
    if not isinstance(own, Names):
        return 0.0
    some = splits.transfer.inputs[:SOME].tolist()
    return sum(len(tokens(own.prompt, text(own.read, number))) for number in some) / len(some)


def seconds(trained: Trained, splits: Splits) -> float:
    """Of one core, for a thousand titles; here what all prompts begin with is read once."""
    own = trained.model
    if not isinstance(own, Names):
        return 0.0
    all_asked = asked(own.prompt, own.read)
    return 1000 * all_asked.seconds / len(all_asked.said)


MEASURES: dict[str, experiments.Measure] = {
    f"{what} of the surest {share:.0%}": functools.partial(of_the_surest, share, what)
    for share in SHARES
    for what in ("right", "least")
}
MEASURES |= {"calibration error": off, "most named": most_named}
MEASURES |= {"tokens a title": tokens_a_title, "seconds for a thousand titles": seconds}
