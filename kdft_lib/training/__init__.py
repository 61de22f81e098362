"""The one loop, and what it leaves behind."""

from kdft_lib.training.averaging import interpolate, interpolation_curve
from kdft_lib.training.callbacks import EarlyStopping, RunState
from kdft_lib.training.history import History
from kdft_lib.training.inference import evaluate, predict
from kdft_lib.training.ledger import Ledger
from kdft_lib.training.loop import fit
from kdft_lib.training.rates import RangeTest, find_lr
from kdft_lib.training.schedules import SCHEDULES, constant, cosine, one_cycle
from kdft_lib.training.settings import Settings

__all__ = [
    "SCHEDULES",
    "EarlyStopping",
    "History",
    "Ledger",
    "RangeTest",
    "RunState",
    "Settings",
    "constant",
    "cosine",
    "evaluate",
    "find_lr",
    "fit",
    "interpolate",
    "interpolation_curve",
    "one_cycle",
    "predict",
]
