"""What a model learns from: an objective runs the student on a batch and returns what to minimise."""

from kdft_lib.objectives.base import Objective, Sum, Weight
from kdft_lib.objectives.features import (
    AttentionTransfer,
    FeatureObjective,
    Hint,
    Relational,
    SimilarityPreserving,
)
from kdft_lib.objectives.forgetting import LearningWithoutForgetting, TowardStart
from kdft_lib.objectives.logits import (
    DIST,
    DecoupledKD,
    HardTargets,
    LogitMatching,
    LogitObjective,
    SoftTargets,
    Supervised,
)
from kdft_lib.objectives.sequences import GKD

__all__ = [
    "DIST",
    "GKD",
    "AttentionTransfer",
    "DecoupledKD",
    "FeatureObjective",
    "HardTargets",
    "Hint",
    "LearningWithoutForgetting",
    "LogitMatching",
    "LogitObjective",
    "Objective",
    "Relational",
    "SimilarityPreserving",
    "SoftTargets",
    "Sum",
    "Supervised",
    "TowardStart",
    "Weight",
]
