"""What a result consumed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """What a result consumed. Two ledgers add, as where a model is pretrained and then fine-tuned.

    What is spent (steps, seconds) adds up. Labels and inputs are what one had to have: both parts are taken
    to come from one pool, so of each the larger count stands. What was known before is listed once.

    Attributes:
        labels: Labelled samples that were trained on; of a stream, whose length nobody knows, those that were drawn.
        choosing: Labelled samples that settings or an epoch were chosen by.
        teacher_labels: Labelled samples behind the teacher; ``None`` where nobody knows.
        unlabeled: Samples without a label that were trained on.
        pretraining: What the model, or its teacher, had learned before, in words.
        steps: Optimiser steps.
        seconds: The time that training took.

    Example:
        >>> Ledger(labels=100, steps=50, seconds=2.0) + Ledger(labels=100, unlabeled=900, steps=10, seconds=1.0)
        Ledger(labels=100, choosing=0, teacher_labels=0, unlabeled=900, pretraining='none', steps=60, seconds=3.0)
    """

    labels: int = 0
    choosing: int = 0
    teacher_labels: int | None = 0
    unlabeled: int = 0
    pretraining: str = "none"
    steps: int = 0
    seconds: float = 0.0

    def __add__(self, other: Ledger) -> Ledger:
        if not isinstance(other, Ledger):
            return NotImplemented
        behind = (self.teacher_labels, other.teacher_labels)
        return Ledger(
            labels=max(self.labels, other.labels),
            choosing=max(self.choosing, other.choosing),
            teacher_labels=None if None in behind else max(behind),  # type: ignore[type-var]
            unlabeled=max(self.unlabeled, other.unlabeled),
            pretraining=known_before([self.pretraining, other.pretraining]),
            steps=self.steps + other.steps,
            seconds=self.seconds + other.seconds,
        )


def known_before(texts: list[str]) -> str:
    """What was learned before, each thing once; ``"none"`` for nothing."""
    return "; ".join(dict.fromkeys(text for text in texts if text != "none")) or "none"
