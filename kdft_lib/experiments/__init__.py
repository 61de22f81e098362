"""Fair comparisons: the same budget, several seeds, an interval, and a ledger of what it cost."""

from kdft_lib.experiments.comparison import Comparison, compare
from kdft_lib.experiments.methods import Classical, Method, OnFeatures, PerSeed, Recipe, Trained
from kdft_lib.experiments.records import Recorded, record, recorded
from kdft_lib.experiments.statistics import Interval, groups, holm, mean_interval, paired_interval

__all__ = [
    "Classical",
    "Comparison",
    "Interval",
    "Method",
    "OnFeatures",
    "PerSeed",
    "Recipe",
    "Recorded",
    "Trained",
    "compare",
    "groups",
    "holm",
    "mean_interval",
    "paired_interval",
    "record",
    "recorded",
]
