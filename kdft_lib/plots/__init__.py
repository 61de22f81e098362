"""The book's figures, in one style: quiet, direct labels, intervals wherever there are means."""

from kdft_lib.plots.moving import Rising, softened
from kdft_lib.plots.reported import confusion, predicted
from kdft_lib.plots.still import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    VERMILION,
    curve,
    diagram,
    history,
    images,
    intervals,
    probabilities,
    range_test,
    reliability,
    use_style,
)

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "Rising",
    "confusion",
    "curve",
    "diagram",
    "history",
    "images",
    "intervals",
    "predicted",
    "probabilities",
    "range_test",
    "reliability",
    "softened",
    "use_style",
]
