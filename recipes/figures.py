"""Draw the intro's figure from the recorded results: ``make figures``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import language
import matplotlib
import matplotlib.pyplot as plt
from recording import lite0
from torch import nn

from kdft_lib import plots
from kdft_lib.experiments import recorded
from kdft_lib.metrics import parameters
from kdft_lib.models import DSCNN, ConvNet

INTRO = Path(__file__).parents[1] / "book/images/intro.svg"
LARGE, SMALL, ALONE, SIMPLE = plots.GREY, plots.VERMILION, plots.BLUE, plots.BLACK


def kilobytes(model: nn.Module) -> str:
    """Of its parameters in float32."""
    return f"{4 * parameters(model) / 1000:,.0f} kB"


def fields() -> dict[str, tuple[str, Mapping[str, tuple[str, str]]]]:
    """Of each field the record, and of each of its methods the label and the colour."""
    net, bag, words = kilobytes(ConvNet(width=12)), kilobytes(language.Bag()), kilobytes(DSCNN(width=16))
    return {
        "Clothes, 500 labels": (
            "vision",
            {
                "Lite0, fine-tuned": (f"Lite0, {kilobytes(lite0())}", LARGE),
                "width 12, distilled": (f"distilled from it, {net}", SMALL),
                "width 12, labels": (f"the same on labels, {net}", ALONE),
                "SVM on pixels": ("SVM on pixels", SIMPLE),
            },
        ),
        "News, 50 labels": (
            "language",
            {
                "MiniLM, head": (f"MiniLM, {kilobytes(language.whole())}", LARGE),
                "bag, MiniLM's decisions": (f"distilled from it, {bag}", SMALL),
                "bag, labels": (f"the same on labels, {bag}", ALONE),
                "SVM": ("SVM on words", SIMPLE),
                "SVM, pseudo-labels": ("SVM, taught by itself", SIMPLE),
            },
        ),
        "Spoken digits, 300 labels": (
            "speech",
            {
                "the wide network": (f"wide network, {kilobytes(DSCNN(width=48))}", LARGE),
                "distilled": (f"distilled from it, {words}", SMALL),
                "labels": (f"the same on labels, {words}", ALONE),
                "SVM": ("SVM on spectra", SIMPLE),
            },
        ),
    }


def intro() -> None:
    """What a small model gave up, and what it saved, in three fields, beside the simplest method."""
    plots.use_style()
    matplotlib.rcParams["svg.hashsalt"] = "kdft"
    shown = fields()
    heights = [len(methods) for _, methods in shown.values()]
    _, axes = plt.subplots(3, figsize=(6.4, 6.4), sharex=True, layout="constrained", height_ratios=heights)
    for ax, (title, (name, methods)) in zip(axes, shown.items(), strict=True):
        comparison = recorded(name)[title.split(", ")[1]]
        scores = {label: comparison.test[method] for method, (label, _) in methods.items()}
        plots.intervals(dataclasses.replace(comparison, test=scores), ax, colors=dict(methods.values()))
        ax.set_title(title, loc="left")
        ax.set_xlabel("")
    for ax in axes[:-1]:
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="x", length=0)
    axes[-1].set_xlabel("test accuracy, %")
    axes[0].figure.savefig(INTRO, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    intro()
