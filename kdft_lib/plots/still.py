"""The book's figures, in one style: quiet, direct labels, intervals wherever there are means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy
import torch
from cycler import cycler
from matplotlib.axes import Axes
from torch import Tensor

if TYPE_CHECKING:
    from IPython.core.display import SVG

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
GREY = "#6b6b6b"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Okabe and Ito's colours, which differ for every kind of colour vision; yellow is left out, since
it cannot be read on white."""


def use_style() -> None:
    """Make matplotlib draw as the book does: call it once, in a notebook's first cell.

    Example:
        >>> use_style()
        >>> matplotlib.rcParams["axes.spines.top"]
        False
    """
    matplotlib.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
            "figure.dpi": 120,
            "savefig.dpi": 120,
            "savefig.bbox": "tight",
            "figure.facecolor": "white",
            "axes.prop_cycle": cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.8,
            "axes.edgecolor": GREY,
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "svg.fonttype": "none",
        }
    )


def diagram(name: str) -> SVG:
    """One of the book's drawings, as a notebook shows it.

    Args:
        name: The name of a file in ``assets/diagrams``, without its ending.

    Raises:
        FileNotFoundError: If there is none of that name; the message lists those that exist.

    Example:
        >>> "<svg" in diagram("soft-targets").data
        True
    """
    from IPython.core.display import SVG

    folder = resources.files("kdft_lib") / "assets/diagrams"
    file = folder / f"{name}.svg"
    if not file.is_file():
        known = sorted(entry.name.removesuffix(".svg") for entry in folder.iterdir())
        raise FileNotFoundError(f"no diagram {name!r}; there are {', '.join(known)}")
    return SVG(file.read_text(encoding="utf-8"))


def intervals(
    scores: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    *,
    percent: bool = True,
    label: str = "test accuracy, %",
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Scores of several methods: each seed a dot, each mean a bar with its 95 % interval.

    Args:
        scores: For each method, one for each seed, two or more; drawn from top to bottom in this order.
        ax: Where to draw; by default a new figure.
        percent: Whether scores are shares, from 0 to 1, shown in percent; otherwise in their own unit.
        label: What the scores are.
        colors: For some methods, a colour; the others are grey.

    Returns:
        The axes.

    Example:
        >>> ax = intervals({"labels": [0.70, 0.72, 0.71], "soft targets": [0.80, 0.83, 0.81]})
        >>> [text.get_text() for text in ax.texts]
        ['71.0', '81.3']
    """
    factor, digits = (100, 1) if percent else (1, 2)
    ax = ax or plt.subplots(figsize=(6.4, 0.45 * len(scores) + 1.0))[1]
    for row, (method, found) in enumerate(scores.items()):
        color, seeds = (colors or {}).get(method, GREY), factor * numpy.asarray(found)
        mean, low, high = _interval(seeds)
        ax.plot([low, high], [row, row], color=color, linewidth=6, alpha=0.3, solid_capstyle="butt")
        ax.plot(seeds, [row] * len(seeds), "o", color=color, markersize=3.5, alpha=0.8)
        ax.plot(mean, row, "|", color=color, markersize=16, markeredgewidth=2.5)
        ax.annotate(f"{mean:.{digits}f}", (max(high, seeds.max()), row), (6, 0), textcoords="offset points",
                    va="center", color=color)  # fmt: skip
    ax.set_yticks(range(len(scores)), list(scores))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.12)
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.set_xlabel(label)
    return ax


def curve(
    x: Sequence[float], scores: Any, ax: Axes, *, label: str, color: str, at: int = -1, offset: tuple[int, int] = (6, 0)
) -> None:
    """A line of means with its 95 % interval as a band, labelled where it is.

    Args:
        x: The X places of the line's points.
        scores: What each seed scored at each place, ``(seeds, X)``.
        ax: Where to draw.
        label: What stands beside the point ``at``.
        color: The colour of line, band and label.
        at: The index into ``x`` of the point with the label.
        offset: How far the label is moved from its point, in points, to the right and up.

    Example:
        >>> ax = plt.subplots()[1]
        >>> curve([100, 1000], [[0.7, 0.8], [0.72, 0.81]], ax, label="labels", color=PALETTE[0])
    """
    mean, low, high = _interval(numpy.asarray(scores))
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(x, mean, color=color, marker="o", markersize=4)
    ax.annotate(label, (x[at], mean[at]), offset, textcoords="offset points", color=color, va="center")


def _interval(scores: Any) -> tuple[Any, Any, Any]:
    """As :func:`kdft_lib.experiments.mean_interval`, which is not imported: figures take numbers alone."""
    from scipy import stats

    mean, count = scores.mean(axis=0), len(scores)
    half = stats.t.ppf(0.975, count - 1) * scores.std(axis=0, ddof=1) / count**0.5
    return mean, mean - half, mean + half


def images(pictures: Tensor, captions: Sequence[str], *, columns: int = 5) -> matplotlib.figure.Figure:
    """Small grey pictures with a caption under each.

    Args:
        pictures: A tensor ``(N, 1, H, W)``.
        captions: What stands under each of the N.
        columns: How many pictures a row has.

    Returns:
        The figure.

    Example:
        >>> len(images(torch.zeros(2, 1, 8, 8), ["shirt", "coat"]).axes) >= 2
        True
    """
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.4, 1.6 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        ax.imshow(picture[0].cpu().numpy(), cmap="gray_r")
        ax.set_title(caption, fontsize=9, y=-0.22)
    return figure


def probabilities(
    rows: Mapping[str, Tensor], classes: Sequence[str], ax: Axes | None = None, *, log: bool = False
) -> Axes:
    """Distributions over the same classes side by side.

    Args:
        rows: For each label, probabilities ``(C,)``.
        classes: The names of the C classes.
        ax: Where to draw; by default a new figure.
        log: Whether the axis is logarithmic, to show what is small.

    Returns:
        The axes.

    Example:
        >>> ax = probabilities({"T = 1": torch.tensor([0.9, 0.1])}, ["shirt", "coat"])
    """
    ax = ax or plt.subplots()[1]
    width = 0.8 / len(rows)
    for index, (label, values) in enumerate(rows.items()):
        place = numpy.arange(len(classes)) + (index - (len(rows) - 1) / 2) * width
        color = PALETTE[index % len(PALETTE)]
        ax.bar(place, torch.as_tensor(values).detach().cpu().numpy(), width, label=label, color=color)
    ax.set_xticks(range(len(classes)), list(classes), rotation=35, ha="right", rotation_mode="anchor")
    ax.grid(axis="x", visible=False)
    ax.set_ylabel("probability")
    if log:
        ax.set_yscale("log")
    ax.legend()
    return ax


def reliability(
    answers: Mapping[str, tuple[Tensor, Tensor]],
    ax: Axes | None = None,
    *,
    bins: int = 10,
    colors: Mapping[str, str] | None = None,
    least: int = 30,
) -> Axes:
    """Share right over confidence, in bins of equal width (Guo et al., 2017); calibrated is on the diagonal.

    A bin with few inputs is left out: its share would be noise.

    Args:
        answers: For each label, logits ``(N, C)`` and targets ``(N,)``.
        ax: Where to draw; by default a new figure.
        bins: How many bins divide confidences from 0 to 1.
        colors: For some labels, a colour; the others are grey.
        least: How many inputs a bin must have to be drawn.

    Returns:
        The axes.

    Example:
        >>> logits = torch.tensor([[0.0, 4.0]] * 40)
        >>> ax = reliability({"half right": (logits, torch.arange(40) % 2)})
        >>> [round(float(y), 2) for y in ax.lines[1].get_ydata()]
        [0.5]
    """
    ax = ax or plt.subplots(figsize=(6.4, 3.6))[1]
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    lowest = 1.0
    for label, (logits, targets) in answers.items():
        confidence, decided = torch.as_tensor(logits).detach().softmax(dim=-1).max(dim=-1)
        right = (decided == targets).double()
        place = (confidence * bins).long().clamp(max=bins - 1)
        members = [place == index for index in range(bins)]
        members = [member for member in members if member.sum() >= least]
        means = [confidence[member].mean().item() for member in members]
        shares = [right[member].mean().item() for member in members]
        color = (colors or {}).get(label, GREY)
        ax.plot(means, shares, "o-", color=color, label=label)
        lowest = min([lowest, *means, *shares])
    ax.set(xlim=(lowest - 0.05, 1.02), ylim=(lowest - 0.05, 1.02), xlabel="confidence", ylabel="share right")
    ax.legend()
    return ax


def history(steps: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """The loss and its parts over the steps of a run.

    Args:
        steps: For each step, its number and what was noted of it: ``History.steps``.
        ax: Where to draw; by default a new figure.

    Returns:
        The axes.

    Example:
        >>> history([{"step": 1, "epoch": 0, "lr": 0.1, "loss": 0.5}]).get_xlabel()
        'step'
    """
    ax = ax or plt.subplots()[1]
    numbers = [step["step"] for step in steps]
    for name in steps[0]:
        if name not in ("step", "epoch", "lr"):
            ax.plot(numbers, [step[name] for step in steps], label=name, linewidth=1.2)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.legend()
    return ax


def range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float,
    ax: Axes | None = None,
) -> Axes:
    """The loss over the learning rates that a range test tried, :class:`kdft_lib.training.RangeTest`.

    Args:
        rates: The rates that were tried, rising.
        losses: The loss at each.
        smoothed: The mean loss around each.
        suggestion: The rate to begin with.
        ax: Where to draw; by default a new figure.

    Returns:
        The axes, whose rates are drawn on a logarithmic scale.

    Example:
        >>> ax = range_test([0.01, 0.1, 1.0], [1.0, 0.5, 2.0], [1.0, 0.5, 2.0], 0.01)
        >>> ax.get_xscale(), [text.get_text() for text in ax.texts]
        ('log', ['begin with 0.01'])
    """
    ax = ax or plt.subplots(figsize=(6.4, 3.4))[1]
    ax.plot(rates, losses, color=GREY, linewidth=0.8, alpha=0.6)
    ax.plot(rates, smoothed, color=BLUE)
    ax.axvline(suggestion, color=VERMILION, linestyle="--", linewidth=1.2)
    ax.annotate(f"begin with {suggestion:.2g}", (suggestion, 1), (4, -4), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=VERMILION, va="top")  # fmt: skip
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(None, 1.2 * max(smoothed[: len(smoothed) // 2])))
    return ax
