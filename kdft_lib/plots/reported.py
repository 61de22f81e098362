"""The figures of a report on one model: what was taken for what, and predicted over true numbers."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from kdft_lib.plots.still import BLACK, BLUE, GREY

__all__ = ["confusion", "predicted"]


def confusion(decided: Tensor, targets: Tensor, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """What was taken for what: a row for each class that is there, a column for each that was said, and how often.

    Args:
        decided: The classes that were said, ``(N,)``.
        targets: The classes that are there, ``(N,)``.
        classes: The names of the classes.
        ax: Where to draw; by default a new figure.

    Returns:
        The axes.

    Example:
        >>> ax = confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), ["cat", "dog"])
        >>> [text.get_text() for text in ax.texts]
        ['1', '1', '1']
    """
    count = len(classes)
    ax = ax or plt.subplots(figsize=(2.6 + 0.45 * count,) * 2)[1]
    held = (targets.cpu() * count + decided.cpu()).bincount(minlength=count * count).view(count, count)
    shares = held / held.sum(1, keepdim=True).clamp(min=1)
    ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in held.nonzero().tolist():
        color = "white" if shares[row, column] > 0.6 else BLACK
        ax.text(column, row, f"{held[row, column]}", ha="center", va="center", color=color, fontsize=9)
    ax.set_xticks(range(count), list(classes), rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(count), list(classes))
    ax.grid(visible=False)
    ax.set(xlabel="said", ylabel="is")
    return ax


def predicted(numbers: Tensor, targets: Tensor, ax: Axes | None = None) -> Axes:
    """Predicted over true numbers; right is on the diagonal.

    Args:
        numbers: What was predicted, ``(N,)``.
        targets: What is true, ``(N,)``.
        ax: Where to draw; by default a new figure.

    Returns:
        The axes.

    Example:
        >>> predicted(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])).get_xlabel()
        'true'
    """
    ax = ax or plt.subplots(figsize=(4.4, 4.4))[1]
    ends = [
        float(torch.stack([numbers.min(), targets.min()]).min()),
        float(torch.stack([numbers.max(), targets.max()]).max()),
    ]
    ax.plot(ends, ends, "--", color=GREY, linewidth=1)
    ax.plot(targets.cpu().numpy(), numbers.cpu().numpy(), "o", color=BLUE, markersize=3, alpha=0.5)
    ax.set(xlabel="true", ylabel="predicted")
    return ax
