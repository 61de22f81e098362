"""A language model labels titles, and what its labels teach; recorded for chapter 14.

Of 50 labelled stories 40 are learned from and 10 choose settings. Who names the other 1,394 best, and what do students
learn from that?
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
import torch.nn.functional as F
from language import BAG, BAG_RATES, HEAD, MINILM, TOPICS, encoder, everything, named, svms, within
from language_labels_parts import MEASURES, PROMPTS, SmolLM2, most_sure, topics
from language_rivals import BY_NAME, FIRST, NAMES, SENTENCE, TITLE, ShortBag, embedded_part, heads
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidate, Comparison, OnFeatures, Recipe, Trained, grid
from kdft_lib.objectives import SoftTargets
from kdft_lib.teachers import answers
from kdft_lib.training import Ledger

EXAMPLES = (1, 3, 8)
"""Labelled titles of each topic in a prompt; 8 are all that there are to learn from."""
SPLITS = functools.partial(within, 50)
LESS = ("titles", "no content", "nothing")
"""What may be taken off."""
SENTENCES = (SENTENCE, "{}", "This headline is about {}.")
"""What MiniLM compares a title with, the chapter's sentence first."""
ZERO, FEW, RAW, SOFT = "zero-shot", "few-shot", "nothing taken off", "probabilities"
NOBODY, ITSELF, ALL = "50 labels", "itself", "all labels"
ALONE, HALF = "alone", "surest half"
BY_TITLE = "right, title by title"
"""Not seed by seed: the share of the seeds in which a title of the test is named rightly."""


# Who learns from it -------------------------------------------------------------------------------

ANSWERS = functools.partial(SoftTargets, None, temperature=1.0, kd_weight=1.0, ce_weight=0.0)


@dataclasses.dataclass(frozen=True)
class Told(experiments.Wrapped):
    """A method that learns from the labels, if it is given them, and from what another says of the other stories:
    decisions or probabilities, of all or of the share that it is surest of.
    """

    method: Any
    namer: experiments.Source
    soft: bool = False
    labels: bool = True
    surest: float = 1.0

    def train(self, splits: Splits, seed: int) -> Trained:
        namer = experiments.found(self.namer, splits, seed)
        rest = splits.transfer if self.labels else everything(splits)
        said = namer.logits(rest).softmax(dim=1)
        kept = most_sure(said, self.surest)
        numbers, said = rest.inputs[kept], said[kept]
        if not self.soft:
            said = F.one_hot(said.argmax(dim=1), TOPICS).float()
        if self.labels:
            assert splits.train.targets is not None
            numbers = torch.cat([splits.train.inputs, numbers])
            said = torch.cat([F.one_hot(splits.train.targets, TOPICS).float(), said])
        trained = learned(self.method, numbers, said, splits, seed)
        known = (trained.ledger + Ledger(pretraining=namer.ledger.pretraining)).pretraining
        labels = len(splits.train) if self.labels else 0
        return trained.but(
            labels=labels, unlabeled=len(kept), teacher_labels=namer.ledger.labels, pretraining=known
        )  # fmt: skip


def learned(method: Any, numbers: Tensor, said: Tensor, splits: Splits, seed: int) -> Trained:
    """Probabilities teach a network as soft targets. A classical method sees a story once for each topic that is not
    impossible, weighed by its probability.
    """
    if isinstance(method, Recipe):
        given = answers(TensorData(numbers), probabilities=said, source="whoever names the rest")
        return method.but(objective=ANSWERS).train(splits._replace(train=given), seed)
    story, topic = said.nonzero().unbind(1)
    weights = said[story, topic].numpy()
    given = TensorData(numbers[story], topic)
    return method.but(weights=lambda _: weights).train(splits._replace(train=given), seed)


def told(student: list[Candidate], by: experiments.Source, **how: Any) -> list[Candidate]:
    return [Candidate(Told(each.method, by, **how), each.setting) for each in student]


class Truth(nn.Module):
    """Somebody who knows."""

    def forward(self, numbers: Tensor) -> Tensor:
        return 100.0 * F.one_hot(topics()[numbers], TOPICS)


def truth(splits: Splits, seed: int) -> Trained:
    return Trained(Truth(), Ledger(labels=len(splits.transfer)))


@dataclasses.dataclass(frozen=True)
class Nearest:
    """No training: which topic's sentence is a title's embedding nearest to?"""

    sentence: str

    def but(self, **changes: Any) -> Nearest:
        return dataclasses.replace(self, **changes)

    def train(self, splits: Splits, seed: int) -> Trained:
        nearest = nn.Linear(encoder().width, TOPICS, bias=False)
        sentences = [self.sentence.format(name) for name in NAMES]
        nearest.weight = nn.Parameter(encoder().embed(sentences), requires_grad=False)
        return Trained(nearest, Ledger())


def right(run: Trained, test: TensorData) -> Tensor:
    """Of each title whether it was named rightly."""
    assert test.targets is not None
    return run.decide(test) == test.targets


def by_title(made: Comparison) -> Comparison:
    """With how often each title of the test is named rightly."""
    for method, runs in made.trained.items():
        tests = [SPLITS(seed).test for seed in made.seeds]
        hits = list(map(right, runs, tests))
        made.measured.setdefault(BY_TITLE, {})[method] = torch.stack(hits).double().mean(0).tolist()
    return made


# The comparisons ----------------------------------------------------------------------------------


def by_names(read: str) -> Any:
    return OnFeatures(Nearest(SENTENCE), functools.partial(embedded_part, read), MINILM)


def zero_shots() -> list[Candidate]:
    return grid(SmolLM2(PROMPTS["a sentence"]), prompt=PROMPTS, less=LESS)


@functools.cache
def zero_shot() -> SmolLM2:
    """The prompt, and what is taken off, that are best on the stories to choose by."""
    setting = experiments.compare({ZERO: zero_shots()}, SPLITS).setting(ZERO)
    return SmolLM2(PROMPTS[setting["prompt"]], setting["less"])


@functools.cache
def labellers() -> Comparison:
    """Who names titles. Few-shot keeps the prompt of zero-shot, and chooses how many examples it has."""
    bare = zero_shot().but(less="nothing")
    few = grid(bare, examples=EXAMPLES, less=LESS)
    examples = experiments.compare({FEW: few}, SPLITS).setting(FEW)["examples"]
    methods: dict[str, experiments.Candidates] = {
        HEAD: heads(TITLE),
        BY_NAME: grid(by_names(TITLE), sentence=SENTENCES),
        ZERO: zero_shots(),
        FEW: few,
        f"{ZERO}, {RAW}": bare,
        f"{FEW}, {RAW}": bare.but(examples=examples),
    }
    contrasts = [(ZERO, HEAD), (FEW, HEAD), (FEW, ZERO), (FEW, f"{FEW}, {RAW}")]
    return by_title(experiments.compare(methods, SPLITS, contrasts=contrasts, measures=MEASURES))


def wordings() -> Comparison:
    """Every prompt, with all that may be taken off, and every sentence of MiniLM's: none is chosen."""
    methods: dict[str, experiments.Candidates] = {
        f"{each.setting['prompt']}, less {each.setting['less']}": each.method for each in zero_shots()
    }
    methods |= {f"MiniLM, {sentence}": by_names(TITLE).but(sentence=sentence) for sentence in SENTENCES}
    return by_title(experiments.compare(methods, SPLITS))


def first_paragraphs() -> Comparison:
    """The same labellers, in the settings that were chosen on titles; the head chooses its own."""
    sentence = labellers().setting(BY_NAME)["sentence"]
    methods: dict[str, experiments.Candidates] = {
        HEAD: heads(FIRST),
        BY_NAME: by_names(FIRST).but(sentence=sentence),
        ZERO: zero_shot().but(read=FIRST),
    }
    return by_title(experiments.compare(methods, SPLITS, contrasts=[(ZERO, HEAD)]))


def students(student: list[Candidate], itself: list[Candidate], *, soft: bool = True) -> Comparison:
    """A student, by who names the other 1,394 stories."""
    who = {name: labellers().source(name) for name in (HEAD, BY_NAME, ZERO, FEW)}
    methods: dict[str, experiments.Candidates] = {
        NOBODY: student,
        ITSELF: itself,
        **{name: told(student, namer) for name, namer in who.items()},
        f"{ZERO}, {HALF}": told(student, who[ZERO], surest=0.5),
        f"{BY_NAME}, {ALONE}": told(student, who[BY_NAME], labels=False),
        f"{ZERO}, {ALONE}": told(student, who[ZERO], labels=False),
        ALL: told(student, truth),
    }
    contrasts = [(ZERO, other) for other in (NOBODY, ITSELF, HEAD, BY_NAME)]
    contrasts += [(FEW, HEAD), (f"{ZERO}, {HALF}", ZERO)]
    if soft:
        methods |= {f"{name}, {SOFT}": told(student, who[name], soft=True) for name in (HEAD, ZERO, FEW)}
        contrasts += [(f"{name}, {SOFT}", name) for name in (ZERO, FEW)]
    return experiments.compare(methods, SPLITS, contrasts=contrasts)


def experiment() -> dict[str, Comparison]:
    """SVMs count the words of whole stories; everybody else reads titles."""
    bag = grid(BAG.but(model=functools.partial(ShortBag, TITLE)), lr=BAG_RATES)
    return {
        "labellers": labellers(),
        "wordings": wordings(),
        "first paragraphs": first_paragraphs(),
        "a head": students(heads(TITLE), named(heads(TITLE))),
        "a bag": students(bag, named(bag)),
        "an SVM, whole stories": students(svms(), named(svms()), soft=False),
    }


EXPERIMENTS = {"language-labels": experiment}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
