"""Losses between the logits of a student and those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.losses import divergences, sparse, variation
from kdft_lib.losses.checks import (
    Reduction,
    check_mask,
    check_targets,
    check_weights,
    logit_pair,
    positive,
    reduced,
    wide_pair,
)


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: sparse.Answers,
    temperature: float = 4.0,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The distillation loss: match the teacher's softened distribution (Hinton, Vinyals and Dean, 2015, section 2).
    Also known as the KD loss, or forward KL divergence.

    .. math:: T^2 \cdot \mathrm{KL}\big(\sigma(z_t / T) \,\|\, \sigma(z_s / T)\big)

    The factor :math:`T^2` keeps the gradient's order of magnitude when the temperature changes, so
    that its weight against the cross-entropy keeps its meaning. A class that both sides mask with
    ``-inf`` takes no part; one that only the student masks costs an infinite loss.

    Of more than 65,536 logits, value and gradient are computed together, block by block, and only the gradient is
    kept: on a CPU, memory grows by a MiB beyond it. A second derivative, and :mod:`torch.func`, keep more.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``, or a few of them, as
            :func:`kdft_lib.teachers.compress` keeps them; they receive no gradient.
        temperature: The temperature of both distributions, positive. 1 keeps them; larger values soften them.
            The default, 4, is the usual setting on CIFAR-100 (Tian et al., 2020).
        mask: The positions that count, ``(...)``, boolean. The others may hold anything, and the mean is over
            those that count. By default all do.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats times :math:`T^2`, or ``(...)`` where ``reduction="none"`` (0 where masked).
        Computed and returned in float32, in float64 if either input is.

    Raises:
        ValueError: If the shapes differ, nothing is left to average, ``temperature`` is not
            positive and finite, or ``reduction`` is unknown.

    Example:
        >>> soft_target_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), temperature=1.0)
        tensor(1.5232)
    """
    return _divergence(divergences.FORWARD_KL, student_logits, teacher_logits, temperature, mask, reduction)


def reverse_kl_loss(
    student_logits: Tensor,
    teacher_logits: sparse.Answers,
    temperature: float = 1.0,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The divergence the other way round, reverse KL, as for language models (Gu et al., 2024, MiniLLM, eq. 1).

    .. math:: T^2 \cdot \mathrm{KL}\big(\sigma(z_s / T) \,\|\, \sigma(z_t / T)\big)

    It costs the student little to leave out what the teacher finds possible, and much to say what the
    teacher finds impossible: a small student keeps to some of the modes. A class that both sides mask
    with ``-inf`` takes no part; one that only the teacher masks costs an infinite loss.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``, or a few of them and the others as one
            (``compress(logits, top_k, rest="bucket")``); they receive no gradient.
        temperature: The temperature of both distributions, positive; 1 by default, as in the paper.
        mask: The positions that count, ``(...)``, boolean; the others may hold anything. By default all do.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats times :math:`T^2`, or ``(...)`` where ``reduction="none"`` (0 where masked).

    Raises:
        ValueError: As :func:`soft_target_loss`.

    Example:
        >>> reverse_kl_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.8287)
    """
    return _divergence(divergences.REVERSE_KL, student_logits, teacher_logits, temperature, mask, reduction)


def jensen_shannon_loss(
    student_logits: Tensor,
    teacher_logits: sparse.Answers,
    beta: float = 0.5,
    temperature: float = 1.0,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The generalised Jensen–Shannon divergence, JSD(β), between forward and reverse (Agarwal et al., 2024, GKD,
    eq. 1).

    .. math:: T^2 \big(\beta\,\mathrm{KL}(p \,\|\, m) + (1 - \beta)\,\mathrm{KL}(q \,\|\, m)\big),
        \quad m = \beta p + (1 - \beta) q

    with p the teacher's and q the student's distribution at the temperature. It is bounded, and
    finite where one side masks a class that the other does not.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``, or a few of them and the others as one
            (``compress(logits, top_k, rest="bucket")``); they receive no gradient.
        beta: The teacher's share of the mixture m, between 0 and 1, both excluded; near 0 the divergence goes
            like the forward one, near 1 like the reverse one.
        temperature: The temperature of both distributions, positive; 1 by default, as in the paper.
        mask: The positions that count, ``(...)``, boolean; the others may hold anything. By default all do.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats times :math:`T^2`, or ``(...)`` where ``reduction="none"`` (0 where masked).

    Raises:
        ValueError: As :func:`soft_target_loss`, and if ``beta`` is out of range.

    Example:
        >>> jensen_shannon_loss(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]]))
        tensor(0.6931)
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; it must lie between 0 and 1, both excluded")
    return _divergence(divergences.JENSEN_SHANNON, student_logits, teacher_logits, temperature, mask, reduction, beta)


def total_variation_loss(
    student_logits: Tensor,
    teacher_logits: sparse.Answers,
    temperature: float = 1.0,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Total variation, half the sum of absolute differences, from 0 to 1: at temperature 1, the share of a draft's
    tokens that speculative sampling is expected to refuse (Leviathan, Kalman and Matias, 2023, corollary 3.6).

    .. math:: T^2 \cdot \tfrac 1 2 \textstyle\sum_c \big|\sigma(z_t / T)_c - \sigma(z_s / T)_c\big|

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``, or a few of them and the others as one
            (``compress(logits, top_k, rest="bucket")``), which is never more; they receive no gradient.
        temperature: The temperature of both distributions, positive.
        mask: The positions that count, ``(...)``, boolean; the others may hold anything. By default all do.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar, or ``(...)`` where ``reduction="none"`` (0 where masked).

    Raises:
        ValueError: As :func:`soft_target_loss`.

    Example:
        >>> total_variation_loss(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.6, 0.4]]).log())
        tensor(0.3000)
    """
    return _divergence(variation.TOTAL_VARIATION, student_logits, teacher_logits, temperature, mask, reduction)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distil the target class and the others apart: decoupled knowledge distillation, DKD, the sum of TCKD and NCKD
    (Zhao et al., 2022, eq. 7).

    .. math:: T^2 \big(\alpha\,\mathrm{KL}(b_t \,\|\, b_s) + \beta\,\mathrm{KL}(\hat p_t \,\|\, \hat p_s)\big)

    b is the pair (target class, all others), p̂ the distribution over the others alone. Plain
    distillation is the case :math:`\alpha = 1`, β the teacher's probability of the others: where the
    teacher is sure, it hardly teaches them.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``; they receive no gradient.
        targets: The target classes, ``(...)``, int64, from 0 to C − 1.
        alpha: How much the target class counts (TCKD), 0 or more. The defaults are the authors' on CIFAR-100.
        beta: How much the other classes count (NCKD), 0 or more. The authors set it by pair of networks: 8 by
            default, 6 for VGG13 and VGG8, 2 for ResNet56 and ResNet20.
        temperature: The temperature of both distributions, positive.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats times :math:`T^2`, or ``(...)`` where ``reduction="none"``.

    Raises:
        ValueError: As :func:`soft_target_loss`, and if ``targets`` holds something else than classes,
            or a weight is negative.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[4.0, 2.0, 0.0]])
        >>> round(dkd_loss(student, teacher, torch.tensor([0])).item(), 3)
        16.778
    """
    student, teacher = logit_pair(student_logits, teacher_logits)
    check_weights(alpha=alpha, beta=beta)
    check_targets(targets, student)
    temperature = positive("temperature", temperature)
    return reduced(
        divergences.rowwise(divergences.DECOUPLED, student, teacher, temperature, targets, alpha, beta), reduction
    )


def hard_target_loss(
    student_logits: Tensor, teacher_logits: sparse.Answers, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy with the teacher's decision, its pseudo-label, :math:`-\log \sigma(z_s)_{\arg\max z_t}`.

    This is hard-label distillation. The decision alone is kept; how sure the teacher was, and what else it
    considered, is lost.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``, or the highest of them, as
            :func:`kdft_lib.teachers.compress` keeps them; they receive no gradient. Where several classes share the
            highest logit, the first of them is the decision, and any of those that :func:`compress` kept.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats, or ``(...)`` where ``reduction="none"``. Computed and returned in float32,
        in float64 if either input is.

    Raises:
        ValueError: If the shapes differ, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> hard_target_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.1, 0.3]]))
        tensor(2.1269)
    """
    if isinstance(teacher_logits, Mapping):
        return reduced(sparse.decision(student_logits, teacher_logits), reduction)
    student, teacher = wide_pair(student_logits, teacher_logits)
    log_student = F.log_softmax(student, dim=-1)
    decision = teacher.argmax(dim=-1, keepdim=True)
    return reduced(-log_student.gather(-1, decision).squeeze(-1), reduction)


def logit_mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Match the logits themselves, :math:`\|z_s - z_t\|^2` (Ba and Caruana, 2014, eq. 1; there halved).

    Also known as logit regression. A sum over classes, like every loss here: ``F.mse_loss`` would divide by their
    number. A class that both sides mask with ``-inf`` takes no part.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``; they receive no gradient.
        reduction: The reduction over samples: ``"mean"`` (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar, or ``(...)`` where ``reduction="none"``. Computed and returned in float32, in float64
        if either input is.

    Raises:
        ValueError: If the shapes differ, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> logit_mse_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(5.)
    """
    student, teacher = wide_pair(student_logits, teacher_logits)
    masked = (student == -torch.inf) & (teacher == -torch.inf)
    gap = student.masked_fill(masked, 0.0) - teacher.masked_fill(masked, 0.0)
    return reduced(gap.square().sum(-1), reduction)


def standardize_logits(logits: Tensor) -> Tensor:
    r"""Zero mean and unit standard deviation over the classes: logit standardisation, Z-score (Sun et al., 2024,
    algorithm 1).

    .. math:: (z - \bar z) \,/\, \sqrt{\tfrac 1 C \textstyle\sum_j (z_j - \bar z)^2}

    The paper's formula divides by C; its authors' code, with ``torch.std``, by C − 1. A row that is
    constant becomes 0 and passes no gradient, instead of one that is without bound. A class masked
    with ``-inf`` stays so and does not count.

    Args:
        logits: The logits, ``(..., C)``.

    Returns:
        ``(..., C)``, in float32, or in float64 if that came in.

    Raises:
        ValueError: If there is no class, or the logits are not floating-point numbers.

    Example:
        >>> standardize_logits(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    logits, _ = wide_pair(logits, logits)
    masked = logits == -torch.inf
    count = (~masked).sum(-1, keepdim=True).clamp(min=1)
    visible = logits.masked_fill(masked, 0.0)
    centered = (visible - visible.sum(-1, keepdim=True) / count).masked_fill(masked, 0.0)
    variance = centered.square().sum(-1, keepdim=True) / count
    rounding = (torch.finfo(logits.dtype).eps * visible.detach().abs().amax(-1, keepdim=True)).square()
    constant = variance <= rounding
    scaled = centered * variance.masked_fill(constant, 1.0).rsqrt()
    return scaled.masked_fill(constant, 0.0).masked_fill(masked, -torch.inf)


def _divergence(
    divergence: divergences.Divergence,
    student_logits: Tensor,
    teacher_logits: sparse.Answers,
    temperature: float,
    mask: Tensor | None,
    reduction: Reduction,
    *more: float,
) -> Tensor:
    temperature = positive("temperature", temperature)
    if mask is not None:
        check_mask(mask, student_logits)
    if isinstance(teacher_logits, Mapping):
        values = sparse.divergence(divergence, student_logits, teacher_logits, temperature, mask, *more)
    else:
        values = divergences.rowwise(divergence, student_logits, teacher_logits, temperature, *more, mask=mask)
    if mask is not None and reduction == "mean":
        return values.sum() / mask.sum()
    return reduced(values, reduction)
