"""What a student can be asked to match: pure functions, student first, teacher second."""

from kdft_lib.losses.bytewise import NextBytes, next_bytes
from kdft_lib.losses.dist import dist_loss
from kdft_lib.losses.features import (
    attention_transfer_loss,
    contrastive_loss,
    cosine_loss,
    hint_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)
from kdft_lib.losses.linear import linear_soft_target_loss
from kdft_lib.losses.logits import (
    dkd_loss,
    hard_target_loss,
    jensen_shannon_loss,
    logit_mse_loss,
    reverse_kl_loss,
    soft_target_loss,
    standardize_logits,
    total_variation_loss,
)

__all__ = [
    "NextBytes",
    "attention_transfer_loss",
    "contrastive_loss",
    "cosine_loss",
    "dist_loss",
    "dkd_loss",
    "hard_target_loss",
    "hint_loss",
    "jensen_shannon_loss",
    "linear_soft_target_loss",
    "logit_mse_loss",
    "next_bytes",
    "reverse_kl_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_preserving_loss",
    "soft_target_loss",
    "standardize_logits",
    "total_variation_loss",
]
