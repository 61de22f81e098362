"""Which parameters move, and how fast."""

from kdft_lib.strategies.base import BiasOnly, FullFineTuning, HeadOnly, Strategy
from kdft_lib.strategies.blocks import GradualUnfreezing, LayerwiseDecay, blocks
from kdft_lib.strategies.low_rank import LowRank
from kdft_lib.strategies.phases import Phases

__all__ = [
    "BiasOnly",
    "FullFineTuning",
    "GradualUnfreezing",
    "HeadOnly",
    "LayerwiseDecay",
    "LowRank",
    "Phases",
    "Strategy",
    "blocks",
]
