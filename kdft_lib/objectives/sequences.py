"""Learn from a teacher of sequences, on given texts and on the student's own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from kdft_lib import losses, models
from kdft_lib.data import UNLABELED, Batch, batches
from kdft_lib.features import Outputs
from kdft_lib.losses import divergences
from kdft_lib.losses.checks import positive
from kdft_lib.losses.sparse import Answers
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.logits import LogitObjective
from kdft_lib.teachers import Teacher

_DIVERGENCES: dict[str, tuple[divergences.Divergence, Callable[..., Tensor]]] = {
    "forward_kl": (divergences.FORWARD_KL, losses.soft_target_loss),
    "reverse_kl": (divergences.REVERSE_KL, losses.reverse_kl_loss),
    "jensen_shannon": (divergences.JENSEN_SHANNON, losses.jensen_shannon_loss),
}


class GKD(LogitObjective):
    r"""Generalised knowledge distillation of a language model, GKD, also known as on-policy distillation (Agarwal
    et al., 2024, algorithm 1): parts ``gkd/kd`` and ``gkd/ce``.

    .. math:: (1 - \lambda) \; \mathrm{E}_{x \sim \text{data}} \big[ D(p_t \,\|\, p_s)(x) \big]
        + \lambda \; \mathrm{E}_{x \sim p_s} \big[ D(p_t \,\|\, p_s)(x) \big]

    D is the mean over the places of a text of a divergence between the two distributions of the next token. In
    each step the student continues the first λ of the batch's texts from their prompts, in evaluation mode, and
    learns what the teacher says of each place of what it wrote; where the data carries the teacher's logits, those
    of the other texts are used. No gradient passes through the drawing, unlike in MiniLLM (Gu et al., 2024). The
    paper draws for each batch whether it is the student's; here a part of each is.

    It is drawn from torch's generator, which ``fit`` seeds and keeps in its checkpoints.

    Args:
        teacher: The model to learn from, any language model with the student's tokens; it is never trained. With
            ``on_policy=0`` none is needed where the data brings answers; see :func:`kdft_lib.teachers.answers`.
        divergence: The name of D: ``"forward_kl"``, KL(teacher ‖ student), ``"reverse_kl"``,
            KL(student ‖ teacher), or ``"jensen_shannon"``, between them.
        on_policy: The part λ of each batch that the student writes, from 0 to 1; half of it is the paper's mixed
            setting.
        prompt: The number of tokens of a text that the student continues from.
        beta: The β of the Jensen–Shannon divergence; see :func:`kdft_lib.losses.jensen_shannon_loss`.
        temperature: The temperature of both distributions in D, positive; the student draws at 1.
        kd_weight: How much the divergence counts: a number or a schedule.
        ce_weight: How much the cross-entropy counts, with the targets of the texts that the student did not
            write; the mean is over the batch, where its own count 0.

    Raises:
        ValueError: If an argument is out of range; in use, if the student is to write and the inputs are no tokens,
            or in a sum, which would not let it write.

    Example:
        >>> from kdft_lib.models import CharacterGRU
        >>> objective = GKD(CharacterGRU(16), divergence="reverse_kl", on_policy=1.0)
        >>> sorted(objective(CharacterGRU(4), {"inputs": torch.zeros(2, 8, dtype=torch.int64)}))
        ['gkd/kd', 'loss']
    """

    name = "gkd"
    takes_sparse = True

    def __init__(
        self,
        teacher: nn.Module | Teacher | None = None,
        *,
        divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = "forward_kl",
        on_policy: float = 0.5,
        prompt: int = 1,
        beta: float = 0.5,
        temperature: float = 1.0,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 0.0,
    ):
        if divergence not in _DIVERGENCES:
            raise ValueError(f"divergence is {divergence!r}; choose {', '.join(_DIVERGENCES)}")
        if not 0 <= on_policy <= 1:
            raise ValueError(f"on_policy is {on_policy}; it must be from 0 to 1")
        if teacher is None and on_policy:
            raise ValueError(
                f"on_policy is {on_policy}, and there is no teacher to answer what the student writes; give one, or"
                " learn from the data's answers alone with on_policy=0"
            )
        if prompt < 1:
            raise ValueError(f"prompt is {prompt}; it must be 1 or more")
        if not 0 < beta < 1:
            raise ValueError(f"beta is {beta}; it must lie between 0 and 1, both excluded")
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight)
        self._kind = divergence
        self.on_policy, self.prompt, self.beta = on_policy, prompt, beta
        self.temperature = positive("temperature", temperature)

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss and its parts on one batch, part of it written by the student; see :class:`Objective`."""
        return super().forward(model, self._partly_written(model, batch))

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        if self.on_policy and "written" not in batch:
            raise ValueError(
                f"GKD lets the student write a part of the batch (on_policy={self.on_policy}), which a sum or a factor"
                " cannot; use its kd_weight and ce_weight, or on_policy=0"
            )
        return super().parts(student, teacher, batch)

    def divergence(self, student_logits: Tensor, teacher_logits: Answers, batch: Batch) -> Tensor:
        own = batch.get("own_logits")
        if own is None:
            return self._between(student_logits, teacher_logits)
        written, given = student_logits.split([len(own), len(student_logits) - len(own)])
        found = [self._between(written, own)]
        if len(given):
            after = operator.itemgetter(slice(len(own), None))
            found.append(self._between(given, batches.apply({"given": teacher_logits}, after)["given"]))
        return torch.cat(found)

    def _between(self, student_logits: Tensor, teacher_logits: Answers) -> Tensor:
        more = (self.beta,) if self._kind == "jensen_shannon" else ()
        divergence, loss = _DIVERGENCES[self._kind]
        if isinstance(teacher_logits, Tensor):
            return divergences.rowwise(divergence, student_logits, teacher_logits, self.temperature, *more)
        return loss(student_logits, teacher_logits, *more, self.temperature, reduction="none")

    def extra_repr(self) -> str:
        return f"divergence={self._kind!r}, {super().extra_repr()}"

    def _partly_written(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with its first texts continued by the student; their targets and cached logits do not count."""
        rows = round(self.on_policy * batches.size(batch))
        if not rows:
            return batch | {"written": 0}
        texts = batch["inputs"]
        if not isinstance(texts, Tensor) or texts.dim() != 2 or texts.dtype != torch.int64:
            found = f"{texts.dtype}, {tuple(texts.shape)}" if isinstance(texts, Tensor) else type(texts).__name__
            raise ValueError(f"inputs is {found}; to write, GKD needs texts of tokens, a tensor of int64, (N, T)")
        prompts = texts[:rows, : self.prompt]
        own = models.sample(model, prompts, texts.shape[1] - prompts.shape[1])
        changed = batch | {"inputs": torch.cat([own, texts[rows:]]), "written": rows}
        if batch.get("targets") is not None:
            changed["targets"] = batch["targets"].clone()
            changed["targets"][:rows] = UNLABELED
        if batch.get("teacher_logits") is not None:
            assert self.teacher is not None
            changed["own_logits"] = self.teacher(own)
        return changed
