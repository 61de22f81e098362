"""Which parameters move, and how fast."""

from kdft_lib.strategies.base import BitFit, FullFineTuning, HeadOnly, Strategy
from kdft_lib.strategies.blocks import GradualUnfreezing, LayerwiseLRDecay, blocks
from kdft_lib.strategies.lora import LoRA
from kdft_lib.strategies.phases import Phases

__all__ = [
    "BitFit",
    "FullFineTuning",
    "GradualUnfreezing",
    "HeadOnly",
    "LayerwiseLRDecay",
    "LoRA",
    "Phases",
    "Strategy",
    "blocks",
]
