"""Figures that move: curves that rise while something trains, and a slider."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from kdft_lib.plots.still import PALETTE

if TYPE_CHECKING:
    from IPython.core.display import HTML


class Rising:
    """Curves that are drawn anew, where a notebook shows them, whenever a point is added.

    Args:
        label: What is drawn over the steps.
        steps: How far the axis goes; by default as far as there are points.
        colors: For some curves, a colour; the others have one of :data:`PALETTE` each.

    Attributes:
        figure: The figure.

    Example:
        >>> rising = Rising("accuracy, %", steps=100)
        >>> for step, accuracy in ((50, 60.0), (100, 70.0)):
        ...     rising.add("labels", step, accuracy)
        >>> rising.figure.axes[0].lines[0].get_ydata().tolist()
        [60.0, 70.0]
    """

    def __init__(self, label: str, *, steps: int | None = None, colors: Mapping[str, str] | None = None):
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._handle: Any = None
        self.figure, self._ax = plt.subplots()
        plt.close(self.figure)
        self._label, self._steps, self._colors = label, steps, dict(colors or {})

    def add(self, name: str, step: int, value: float) -> None:
        """A further point of a curve.

        Args:
            name: Which curve; a new one begins with its first point.
            step: Where.
            value: How high.
        """
        self._points.setdefault(name, []).append((step, value))
        self._draw()
        self._show()

    def _draw(self) -> None:
        ax = self._ax
        ax.clear()
        furthest = max(step for points in self._points.values() for step, _ in points)
        free = itertools.cycle(color for color in PALETTE if color not in self._colors.values())
        for name, points in self._points.items():
            color = self._colors.get(name) or next(free)
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=color)
            ax.annotate(name, (steps[-1], values[-1]), (6, 0), textcoords="offset points", color=color, va="center")
        ax.set(xlabel="step", ylabel=self._label, xlim=(0, 1.3 * (self._steps or furthest)))

    def _show(self) -> None:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if get_ipython() is None:
            return
        if self._handle is None:
            self._handle = display(self.figure, display_id=True)
        else:
            self._handle.update(self.figure)


def softened(logits: Tensor, classes: Sequence[str], *, image: Tensor | None = None, temperature: float = 4.0) -> HTML:
    """A distribution as bars, with a slider for its temperature, from 1 to 32; without scripts, at the one given.

    Args:
        logits: ``(C,)``.
        classes: The names of the C classes.
        image: What the logits answer, ``(1, H, W)``, to stand above them in grey.
        temperature: Where the slider stands.

    Raises:
        ValueError: If there is not a name for each logit, or the image is not of one channel.

    Example:
        >>> "shirt" in softened(torch.tensor([2.0, 1.0]), ["shirt", "coat"]).data
        True
    """
    from IPython.core.display import HTML

    values = torch.as_tensor(logits).detach().cpu().double()
    if values.shape != (len(classes),):
        raise ValueError(
            f"logits has the shape {tuple(values.shape)}; it must be ({len(classes)},), one for each class"
        )
    shares = (values / temperature).softmax(dim=0).tolist()
    row = '<span>{}</span><span class="bar"><i style="width:{:.1f}%"></i></span><span class="share">{:.1f} %</span>'
    page = resources.files("kdft_lib") / "assets/softened.html"
    written = Template(page.read_text(encoding="utf-8")).substitute(
        picture="" if image is None else _inline(image),
        name=f"softened-{hashlib.sha256(repr(values.tolist()).encode()).hexdigest()[:8]}",
        logits=json.dumps([round(value, 4) for value in values.tolist()]),
        place=f"{torch.tensor(temperature).log2():.2f}",
        temperature=f"{temperature:.1f}",
        rows="\n".join(row.format(name, 100 * share, 100 * share) for name, share in zip(classes, shares, strict=True)),
    )
    return HTML(written)


def _inline(image: Tensor) -> str:
    """A grey picture as a part of a page."""
    if image.dim() != 3 or len(image) != 1:
        raise ValueError(f"image has the shape {tuple(image.shape)}; it must be (1, H, W), one grey picture")
    png = io.BytesIO()
    plt.imsave(png, image[0].detach().cpu().double().numpy(), cmap="gray", format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}" alt="The picture">'
