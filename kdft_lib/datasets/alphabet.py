"""The 26 words that spell letters over radio and telephone, said by a synthesiser: one second each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kdft_lib.audio.espeak import Utterance
from kdft_lib.data.splits import Splits
from kdft_lib.datasets import voices

SPELLING_ALPHABET = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo", "lima", "mike",
    "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "x-ray",
    "yankee", "zulu",
)  # fmt: skip


def spelling_alphabet(
    labeled: int | None = 260,
    *,
    validation: Literal["apart", "within"] = "apart",
    seed: int = 0,
    root: str | Path | None = None,
) -> Splits:
    """The spelling alphabet, alpha to zulu, in 104 voices of eSpeak NG, each clip at its own pitch and speed.

    Each voice says each word once, in one of four accents in turn. Otherwise they are made, kept and split as those of
    :func:`spoken_digits`: 2,704 words within half a minute, a file of 43 MB, 24 voices for ``test``, 16 for ``val``,
    64 for the rest. Four people say the same words in :func:`asterisk_alphabet`.

    Args:
        labeled: How many clips of ``train`` come with labels, balanced by word, of all 1,664; ``None``
            takes all and leaves ``transfer`` empty.
        validation: ``"apart"``: the 416 clips of 16 voices that nothing else has; or ``"within"``: a
            fifth of the labelled clips, of voices that ``train`` has too.
        seed: The seed of the draw of labelled clips.
        root: The folder that keeps the clips; by default the user's cache.

    Returns:
        :class:`Splits`; inputs are waveforms, float32, ``(N, 8000)``, from -1 to 1; targets are int64, ``(N,)``,
        indices into ``SPELLING_ALPHABET``.

    Raises:
        ImportError: If ``espeakng-loader`` or SciPy is not installed.
        RuntimeError: If the synthesiser fails.
        ValueError: If a count is out of range, or the file with the clips is damaged.
        OSError: If the clips cannot be kept.

    Example:
        >>> train, transfer, val, test = spelling_alphabet(labeled=260)
        >>> len(train), len(transfer), len(val), len(test)
        (260, 1404, 416, 624)
    """
    return voices.spoken(
        utterances, "spelling-alphabet", len(SPELLING_ALPHABET),
        labeled=labeled, validation=validation, seed=seed, root=root,
    )  # fmt: skip


def utterances() -> list[Utterance]:
    """All 2,704 words in the order in which they are said: each variant says all 26, its accents taking turns."""
    accents = voices.ACCENTS
    return voices.with_voices(
        [
            (word, f"{accents[(number + place) % len(accents)]}+{variant}")
            for number, variant in enumerate(voices.VARIANTS)
            for place, word in enumerate(SPELLING_ALPHABET)
        ]
    )
