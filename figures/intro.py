"""Draw the intro's figures from the recorded results and from the shipped networks: ``make figures``."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from torch import nn

from kdft_lib import plots
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import recorded
from kdft_lib.metrics import parameters
from kdft_lib.models import DSCNN, ConvNet, fashion_teacher
from kdft_lib.training import predict

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "book/images"
sys.path.append(str(ROOT / "recipes"))

import language  # noqa: E402
from shared import lite0  # noqa: E402

SHIRT = 31
"""Chapter 04's picture, among those of validation."""
PARAMETERS_PER_DOT = 400
LARGE, SMALL, ALONE, SIMPLE = plots.GREY, plots.VERMILION, plots.BLUE, plots.BLACK


def kilobytes(model: nn.Module) -> str:
    """Of its parameters in float32."""
    return f"{4 * parameters(model) / 1000:,.0f} kB"


def fields() -> dict[str, tuple[tuple[str, ...], str, dict[str, tuple[str, str]]]]:
    """Of each field its records, which comparison of them, and of the methods in it the label and the colour."""
    net, bag, words = kilobytes(ConvNet(width=12)), kilobytes(language.Bag()), kilobytes(DSCNN(width=16))
    clothes = {
        "Lite0, augmented": (f"Lite0, {kilobytes(lite0())}", LARGE),
        "width 12, distilled": (f"distilled, {net}", SMALL),
        "width 12, labels": (f"on labels, {net}", ALONE),
        "SVM on pixels": ("SVM on pixels", SIMPLE),
        "width 12, its own names": (f"taught by itself, {net}", SIMPLE),
    }
    news = {
        "MiniLM, head": (f"MiniLM, {kilobytes(language.Reads())}", LARGE),
        "bag, MiniLM's decisions": (f"distilled, {bag}", SMALL),
        "bag, labels": (f"on labels, {bag}", ALONE),
        "SVM": ("SVM on words", SIMPLE),
        "SVM, pseudo-labels": ("SVM, taught by itself", SIMPLE),
    }
    digits = {
        "the wide network": (f"wide network, {kilobytes(DSCNN(width=48))}", LARGE),
        "distilled": (f"distilled, {words}", SMALL),
        "labels": (f"on labels, {words}", ALONE),
        "SVM": ("SVM on spectra", SIMPLE),
    }
    return {
        "Clothes": (("vision", "vision-itself"), "500 labels", clothes),
        "News": (("language",), "50 labels", news),
        "Spoken digits": (("speech",), "300 labels", digits),
    }


def intro() -> None:
    """What a small model gave up, and what it saved, in three fields, beside the simplest method."""
    plots.use_style()
    matplotlib.rcParams["svg.hashsalt"] = "kdft"
    shown = fields()
    heights = [len(methods) for *_, methods in shown.values()]
    _, axes = plt.subplots(3, figsize=(4.7, 6.4), sharex=True, layout="constrained", height_ratios=heights)
    for ax, (field, (names, of, methods)) in zip(axes, shown.items(), strict=True):
        test = {method: scores for name in names for method, scores in recorded(name)[of].test.items()}
        scores = {label: test[method] for method, (label, _) in methods.items()}
        plots.intervals(scores, ax, label="", colors=dict(methods.values()))
        ax.set_title(f"{field}, {of}", loc="left")
    for ax in axes[:-1]:
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="x", length=0)
    axes[-1].set_xlabel("test accuracy, %")
    axes[0].figure.savefig(IMAGES / "intro.svg", metadata={"Date": None, "Creator": None})


def cover() -> None:
    """The teacher and its student, a dot for each 400 parameters, and between them what the teacher says of a shirt."""
    teacher = fashion_teacher()
    shirt = fashion_mnist(labeled=10, seed=0).val[SHIRT : SHIRT + 1]
    shares = (predict(teacher, shirt)[0] / 4).softmax(dim=0)
    heights = (170 * shares / shares.max()).round().int().tolist()
    bar = '<rect x="{}" y="{}" width="17" height="{}" rx="2"/>'
    bars = [bar.format(400 + 25 * place, 240 - height, height) for place, height in enumerate(heights)]
    drawing = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 300" width="960" height="300">',
        *disc(parameters(teacher), x=210, color=plots.BLUE),
        f'<g fill="{plots.SKY}">',
        *bars,
        "</g>",
        f'<path d="M390 247H652" stroke="{plots.GREY}" stroke-width="2"/>',
        f'<path d="M682 150h56m-11-9 11 9-11 9" fill="none" stroke="{plots.GREY}" stroke-width="3"/>',
        *disc(parameters(ConvNet(width=8)), x=800, color=plots.VERMILION),
        "</svg>",
    ]
    (IMAGES / "cover.svg").write_text("\n".join(drawing) + "\n", encoding="utf-8")


def disc(count: int, *, x: int, color: str) -> list[str]:
    """Dots as a sunflower has its seeds: as many to each area."""
    golden = math.pi * (3 - math.sqrt(5))
    dots = round(count / PARAMETERS_PER_DOT)
    places = [(7.8 * math.sqrt(dot + 0.5), dot * golden) for dot in range(dots)]
    return [
        f'<g fill="{color}">',
        *(f'<circle cx="{x + r * math.cos(a):.1f}" cy="{150 + r * math.sin(a):.1f}" r="4.4"/>' for r, a in places),
        "</g>",
    ]


if __name__ == "__main__":
    intro()
    cover()
