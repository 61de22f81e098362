"""How a data set is split: counts are checked, labelled samples drawn, and each part gets its rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdft_lib.data.splits import draw_balanced


class Rows(NamedTuple):
    """The rows of each part: indices into what the data set holds.

    All data sets are split by :func:`draw` or :func:`draw_stretch`, and both end here: what shortens
    these four shortens every data set.
    """

    train: Tensor
    transfer: Tensor
    val: Tensor
    test: Tensor


def draw(
    targets: Tensor,
    pool: Tensor,
    *,
    labeled: int | None,
    validation: int | str,
    choice: range | str,
    test: Tensor,
    held_out: Tensor | None = None,
    seed: int = 0,
) -> Rows:
    """Draw the labelled samples, balanced by class, and those for validation.

    Args:
        targets: The class indices of the whole data set, ``(N,)``.
        pool: The rows that may be labelled, ``(P,)``.
        labeled: How many of these are; ``None`` takes all.
        validation: One of ``choice``; or ``"within"``: a fifth of the labelled rows.
        choice: Counts, of which one is drawn, the same for every seed; or the name of all of ``held_out``.
        test: The rows for testing, which stay as they are.
        held_out: The rows that validation is drawn from; by default ``pool``, which loses what is drawn.
        seed: The seed of the draw of labelled samples.

    Raises:
        ValueError: If ``labeled`` or ``validation`` is out of range; a class has one labelled sample or
            more in each part that has any.

    Example:
        >>> rows = draw(torch.arange(60) % 2, torch.arange(50), labeled=10, validation=20, choice=range(31),
        ...             test=torch.arange(50, 60))
        >>> [len(part) for part in rows]
        [10, 20, 20, 10]
    """
    labels, apart = check(
        labeled, validation, choice, classes=len(targets[pool].unique()), pool=len(pool), held_out=held_out is not None
    )
    if held_out is None:
        val, pool = draw_balanced(targets, pool, apart, seed=0)
    else:
        val = draw_balanced(targets, held_out, apart, seed=0)[0] if isinstance(choice, range) else held_out
    train, transfer = draw_balanced(targets, pool, labels, seed=seed)
    if validation == "within":
        val, train = draw_balanced(targets, train, labels // 5, seed=seed)
    return Rows(train, transfer, val, test)


def check(
    labeled: int | None, validation: int | str, choice: range | str, *, classes: int, pool: int, held_out: bool
) -> tuple[int, int]:
    """Whether :func:`draw` can do what is asked: for those who read much, or download it, before they draw.

    Args:
        labeled: What :func:`draw` will be given.
        validation: What :func:`draw` will be given.
        choice: What :func:`draw` will be given.
        classes: How many classes there are.
        pool: How many rows may be labelled, those for validation included unless they are held out.
        held_out: Whether validation has rows of its own.

    Returns:
        How many rows are labelled, and how many are drawn for validation and not of the labelled.

    Raises:
        ValueError: If ``labeled`` or ``validation`` is out of range.

    Example:
        >>> check(None, 20, range(31), classes=2, pool=50, held_out=False)
        (30, 20)
    """
    within = validation == "within"
    if not within and (validation not in choice if isinstance(choice, range) else validation != choice):
        wanted = f"from {choice[0]:,} to {choice[-1]:,}," if isinstance(choice, range) else f'"{choice}"'
        raise ValueError(f'validation is {validation!r}; it must be {wanted} or "within"')
    apart = int(validation) if isinstance(choice, range) and not within else 0
    most = pool if held_out else pool - apart
    return _labeled(labeled, (5 if within else 1) * classes, most, f"validation={validation!r}"), apart


def draw_stretch(
    pool: Tensor, *, labeled: int | None, val: Tensor, test: Tensor, given: str = "this data", seed: int = 0
) -> Rows:
    """Draw a stretch of rows that follow one another, as a text does.

    Args:
        pool: The rows that may be in ``train``, ``(P,)``; the first follows the last.
        labeled: How many of these are; ``None`` takes all, from the first.
        val: The rows for validation, which stay as they are.
        test: The rows for testing, which stay as they are.
        given: What an error names as the reason for the largest count.
        seed: The seed of the place where the stretch begins.

    Raises:
        ValueError: If ``labeled`` is out of range.

    Example:
        >>> rows = draw_stretch(torch.arange(5), labeled=3, val=torch.arange(2), test=torch.arange(2), seed=1)
        >>> rows.train, rows.transfer
        (tensor([0, 1, 2]), tensor([3, 4]))
    """
    count = _labeled(labeled, 1, len(pool), given)
    start = 0
    if labeled is not None:
        start = int(torch.randint(len(pool), (), generator=torch.Generator().manual_seed(seed)))
    order = pool.roll(-start)
    return Rows(order[:count], order[count:], val, test)


def _labeled(labeled: int | None, fewest: int, most: int, given: str) -> int:
    if labeled is None:
        return most
    if labeled not in range(fewest, most + 1):
        raise ValueError(
            f"labeled is {labeled!r}; with {given} it must be from {fewest:,} to {most:,}, or None for all"
        )
    return int(labeled)
