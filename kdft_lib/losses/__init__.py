"""What a student can be asked to match: pure functions, student first, teacher second."""

from kdft_lib.losses.logits import hard_target_loss, soft_target_loss

__all__ = ["hard_target_loss", "soft_target_loss"]
