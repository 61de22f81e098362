"""Draw the intro's figure from the recorded results: ``make figures``."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from kdft_lib import plots
from kdft_lib.experiments import recorded

INTRO = Path(__file__).parents[1] / "book/images/intro.svg"


def intro() -> None:
    """Five seeds of each method at 1,000 labels."""
    plots.use_style()
    matplotlib.rcParams["svg.hashsalt"] = "kdft"
    comparison = recorded("soft-targets-thousand")["1,000 labels"]
    comparison.test = dict(sorted(comparison.test.items(), key=lambda item: sum(item[1]), reverse=True))
    colors = {"soft targets": plots.VERMILION, "labels": plots.BLUE, "SVM": plots.BLACK}
    ax = plots.intervals(comparison, colors=colors)
    ax.set_xlabel("test accuracy with 1,000 labels, %")
    ax.figure.savefig(INTRO, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    intro()
