"""Fair comparisons: settings with names, the same budget, several seeds, an interval, a ledger of what it cost,
and a report of one run."""

from kdft_lib.experiments.comparison import Candidates, Measure, Score, compare
from kdft_lib.experiments.grid import Candidate, grid
from kdft_lib.experiments.methods import Classical, Given, Interpolated, Members, OnFeatures, Then, Wrapped
from kdft_lib.experiments.naming import NamedBy
from kdft_lib.experiments.recipe import Recipe
from kdft_lib.experiments.records import Recorded, hardware, record, recorded
from kdft_lib.experiments.report import Arm, as_text, is_first, output_folder, report
from kdft_lib.experiments.result import Comparison
from kdft_lib.experiments.running import record_all
from kdft_lib.experiments.statistics import Interval, groups, holm, mean_interval, paired_interval
from kdft_lib.experiments.trained import Answering, Method, Once, Source, Trained, found, per_seed

__all__ = [
    "Answering",
    "Arm",
    "Candidate",
    "Candidates",
    "Classical",
    "Comparison",
    "Given",
    "Interpolated",
    "Interval",
    "Measure",
    "Members",
    "Method",
    "NamedBy",
    "OnFeatures",
    "Once",
    "Recipe",
    "Recorded",
    "Score",
    "Source",
    "Then",
    "Trained",
    "Wrapped",
    "as_text",
    "compare",
    "found",
    "grid",
    "groups",
    "hardware",
    "holm",
    "is_first",
    "mean_interval",
    "output_folder",
    "paired_interval",
    "per_seed",
    "record",
    "record_all",
    "recorded",
    "report",
]
