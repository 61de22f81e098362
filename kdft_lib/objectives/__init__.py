"""What a model learns from: an objective runs the student on a batch and returns what to minimise."""

from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.dist import DIST
from kdft_lib.objectives.features import (
    RKD,
    AttentionTransfer,
    Contrastive,
    FeatureObjective,
    Hint,
    SimilarityPreserving,
)
from kdft_lib.objectives.forgetting import L2SP, LwF
from kdft_lib.objectives.logits import (
    DKD,
    HardTargets,
    LogitMatching,
    LogitObjective,
    SoftTargets,
)
from kdft_lib.objectives.sequences import GKD
from kdft_lib.objectives.sum import Sum
from kdft_lib.objectives.supervised import Supervised

__all__ = [
    "DIST",
    "DKD",
    "GKD",
    "L2SP",
    "RKD",
    "AttentionTransfer",
    "Contrastive",
    "FeatureObjective",
    "HardTargets",
    "Hint",
    "LogitMatching",
    "LogitObjective",
    "LwF",
    "Objective",
    "SimilarityPreserving",
    "SoftTargets",
    "Sum",
    "Supervised",
    "Weight",
]
