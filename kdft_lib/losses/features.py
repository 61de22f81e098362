"""Losses between what two networks compute on the way: single features, and relations in a batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.losses.checks import Reduction, positive, reduced, wider


def hint_loss(student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Match features: the hint loss of FitNets (Romero et al., 2015, eq. 3), :math:`\tfrac 1 D \|f_s - f_t\|^2`.

    The paper halves the sum over the D elements of a sample; the mean over them is what the usual
    weight, 100, assumes.

    Args:
        student_features: The student's features, ``(N, ...)``, brought to the teacher's shape by a regressor.
        teacher_features: The teacher's features, of the same shape; they receive no gradient.
        reduction: The reduction over samples: ``"mean"``, ``"sum"``, or ``"none"``.

    Returns:
        A scalar, or ``(N,)`` where ``reduction="none"``. Computed and returned in float32, in float64 if
        either input is.

    Raises:
        ValueError: If the shapes differ, or the batch is empty.

    Example:
        >>> hint_loss(torch.zeros(2, 4), torch.ones(2, 4))
        tensor(1.)
    """
    student, teacher = _pair(student_features, teacher_features)
    return reduced((student - teacher).square().flatten(1).mean(1), reduction)


def cosine_loss(student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Match the direction of each sample's features: cosine distance, :math:`1 - \cos(f_s, f_t)`.

    Args:
        student_features: The student's features, ``(N, ...)``; a sample's elements form one vector.
        teacher_features: The teacher's features, of the same shape; they receive no gradient.
        reduction: The reduction over samples: ``"mean"``, ``"sum"``, or ``"none"``.

    Returns:
        A scalar from 0 to 2, or ``(N,)`` where ``reduction="none"``. A vector of zeros has no direction;
        its cosine counts as 0, or as 1 where both are zeros, and it gets no gradient.

    Raises:
        ValueError: If the shapes differ, or the batch is empty.

    Example:
        >>> cosine_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor(1.)
    """
    student, teacher = (features.flatten(1) for features in _pair(student_features, teacher_features))
    both_zero = ((student == 0) & (teacher == 0)).all(1)
    # Half the squared distance of the unit vectors: exact where they are close.
    distance = (_unit(student) - _unit(teacher)).square().sum(1) / 2
    one_zero = ((student == 0).all(1) | (teacher == 0).all(1)) & ~both_zero
    return reduced(distance + 0.5 * one_zero, reduction)


def attention_transfer_loss(
    student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Match where the network looks: attention transfer, AT (Zagoruyko and Komodakis, 2017, eq. 2 with p = 2).

    .. math:: \frac 1 P \left\| \frac{a_s}{\|a_s\|_2} - \frac{a_t}{\|a_t\|_2} \right\|_2^2,
        \quad a = \sum_c f_c^2 \text{ at each of the } P \text{ positions}

    The paper has the norm itself; its authors' code has the mean of squares, which the usual weight,
    1000, assumes, and so has this.

    Args:
        student_features: The student's features, maps ``(N, C, H, W)`` or tokens ``(N, L, D)``.
        teacher_features: The teacher's features, of the same number of dimensions; channels may differ. Of two
            maps of different size, the larger is averaged down to the smaller. They receive no gradient.
        reduction: The reduction over samples: ``"mean"``, ``"sum"``, or ``"none"``.

    Returns:
        A scalar, or ``(N,)`` where ``reduction="none"``.

    Raises:
        ValueError: If there are no positions, their numbers do not go together, or the batch is empty.

    Example:
        >>> maps = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
        >>> attention_transfer_loss(maps, maps.flip(-1))
        tensor(0.5000)
    """
    student, teacher = _pair(student_features, teacher_features, same=False)
    if student.dim() != teacher.dim() or student.dim() not in (3, 4) or len(student) != len(teacher):
        raise ValueError(
            f"student_features has shape {tuple(student.shape)} and teacher_features {tuple(teacher.shape)};"
            " attention needs positions: both must be maps (N, C, H, W) or tokens (N, L, D) of the same samples"
        )
    if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        height, width = (min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
        student, teacher = (F.adaptive_avg_pool2d(features, (height, width)) for features in (student, teacher))
    channels = 1 if student.dim() == 4 else 2
    ours, theirs = (features.square().mean(channels).flatten(1) for features in (student, teacher))
    if ours.shape != theirs.shape:
        raise ValueError(
            f"student_features has {ours.shape[1]} tokens and teacher_features {theirs.shape[1]}; they must be the same"
        )
    return reduced((_unit(ours) - _unit(theirs)).square().mean(1), reduction)


def similarity_preserving_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Match which samples of a batch excite a layer alike: similarity-preserving loss, SP (Tung and Mori, 2019,
    eq. 2–4).

    .. math:: \frac 1 {B^2} \big\| \tilde G_s - \tilde G_t \big\|_F^2

    G̃ is the Gram matrix of the batch, each row divided by its L2 norm.

    Args:
        student_features: The student's features, ``(B, ...)``.
        teacher_features: The teacher's features, ``(B, ...)``, of any other size; they receive no gradient.

    Returns:
        A scalar, one for the whole batch.

    Raises:
        ValueError: If the numbers of samples differ, or there are fewer than two.

    Example:
        >>> similarity_preserving_loss(torch.eye(2), torch.ones(2, 3))
        tensor(0.2929)
    """
    student, teacher = _batches(student_features, teacher_features)
    with torch.autocast(student.device.type, enabled=False):
        gap = _unit(student @ student.T) - _unit(teacher @ teacher.T)
    return gap.square().mean()


def contrastive_loss(student_features: Tensor, teacher_features: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Tell which of a batch's samples the teacher's features are of: InfoNCE (van den Oord et al., 2018, eq. 4)
    between the student's features and the teacher's.

    .. math:: -\frac 1 B \sum_i \log \frac{\exp(\cos(s_i, t_i) / \tau)}{\sum_j \exp(\cos(s_i, t_j) / \tau)}

    Contrastive representation distillation, CRD (Tian et al., 2020), asks the same of thousands of samples that a
    memory bank keeps, by a binary loss; here the batch alone is asked.

    Args:
        student_features: The student's features, ``(B, ...)``; a sample's elements form one vector.
        teacher_features: The teacher's features, ``(B, ...)``, of the same size; they receive no gradient.
        temperature: τ, positive; 0.07 is that of Tian et al.'s code.

    Returns:
        A scalar in nats, one for the whole batch, log B for a student that tells nothing. A vector of zeros has no
        direction; its cosines count as 0.

    Raises:
        ValueError: If the shapes do not go together, there are fewer than two samples, or ``temperature`` is not
            positive.

    Example:
        >>> contrastive_loss(torch.eye(2), 3 * torch.eye(2), temperature=1.0)
        tensor(0.3133)
    """
    student, teacher = _batches(student_features, teacher_features)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_features has {student.shape[1]} numbers a sample and teacher_features {teacher.shape[1]}; cosines"
            " need as many, as after a projection"
        )
    with torch.autocast(student.device.type, enabled=False):
        cosines = _unit(student) @ _unit(teacher).T
    own = torch.arange(len(student), device=student.device)
    return F.cross_entropy(cosines / positive("temperature", temperature), own)


def rkd_distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Match the distances between the samples of a batch: RKD-D, relational knowledge distillation (Park et al.,
    2019, eq. 6–8).

    .. math:: \frac 1 {B^2} \sum_{i,j} h\Big(\frac{\|s_i - s_j\|}{\mu_s} - \frac{\|t_i - t_j\|}{\mu_t}\Big)

    h is Huber's loss with threshold 1, μ the mean of the positive distances, each side's own.

    Args:
        student_features: The student's features, ``(B, ...)``; a sample's elements form one vector.
        teacher_features: The teacher's features, ``(B, ...)``, of any other size; they receive no gradient.

    Returns:
        A scalar, one for the whole batch. Rows that coincide have distance 0, and get no gradient from it.

    Raises:
        ValueError: If the numbers of samples differ, or there are fewer than two.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> rkd_distance_loss(points, 5 * points + 2), rkd_distance_loss(points, points**2)
        (tensor(0.), tensor(0.0247))
    """
    student, teacher = _batches(student_features, teacher_features)
    ours, theirs = (_relative_distances(_gram(features)) for features in (student, teacher))
    return F.smooth_l1_loss(ours, theirs).to(student.dtype)


def rkd_angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Match the angles between the samples of a batch: RKD-A, relational knowledge distillation (Park et al., 2019,
    eq. 9–11).

    .. math:: \frac 1 {B^3} \sum_{i,j,k} h\big(\cos \angle s_j s_i s_k - \cos \angle t_j t_i t_k\big)

    h is Huber's loss with threshold 1. The cosines come from the Gram matrix of the batch, so no tensor
    of B × B × D elements is made.

    Args:
        student_features: The student's features, ``(B, ...)``; a sample's elements form one vector.
        teacher_features: The teacher's features, ``(B, ...)``, of any other size; they receive no gradient.

    Returns:
        A scalar, one for the whole batch. Where two rows coincide, the angle at them has cosine 0 and no
        gradient.

    Raises:
        ValueError: If the numbers of samples differ, or there are fewer than two.

    Example:
        >>> triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> line = torch.tensor([[0.0], [1.0], [2.0]])
        >>> [round(rkd_angle_loss(triangle, other).item(), 4) for other in (3 * triangle.flip(1), line)]
        [0.0, 0.1296]
    """
    student, teacher = _batches(student_features, teacher_features)
    return _Angles.apply(_gram(student), _gram(teacher), student.dtype).to(student.dtype)


class _Angles(torch.autograd.Function):
    """Huber's loss of all cosines, and its gradient with respect to the student's Gram matrix, vertex by vertex. The
    cosines are differences of products, which need float64; they themselves are of size 1, and go on in ``dtype``."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, dtype: torch.dtype) -> Tensor:
        size = len(student)
        sides = [(gram, gram.diagonal(), _inverse(_squared_distances(gram))) for gram in (student, teacher)]
        inverse = sides[0][2].to(dtype)
        total, slope = student.new_zeros(()), torch.zeros_like(student)
        for vertices in torch.arange(size, device=student.device).split(max(1, (1 << 17) // size**2)):
            ours, theirs = (_cosines(*side, vertices, dtype) for side in sides)
            gap = torch.sub(ours, theirs, out=theirs)
            pull = gap.clamp(-1, 1)
            total += torch.dot(pull.flatten(), gap.sub_(pull, alpha=0.5).flatten())
            near = inverse[vertices]
            # Through the lengths of both legs, then through the products of the legs.
            legs = ours.mul_(pull).sum(2).mul_(near.square())
            pull.mul_(near.unsqueeze(2)).mul_(near.unsqueeze(1))
            sums = pull.sum(2).sub_(legs)
            slope += pull.sum(0)
            slope.diagonal().sub_(legs.sum(0))
            slope[vertices] -= 2 * sums
            slope[vertices, vertices] += sums.sum(1)
        ctx.save_for_backward(slope.div_(size**3))
        return total / size**3

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative; leave create_graph=True out")
        return upstream[0] * ctx.saved_tensors[0], None, None


def _cosines(gram: Tensor, squares: Tensor, inverse: Tensor, vertices: Tensor, dtype: torch.dtype) -> Tensor:
    """At each vertex i the cosines of the angles j i k: (x_j − x_i) · (x_k − x_i) = G_jk − G_ij − G_ik + G_ii."""
    row, near = gram[vertices], inverse[vertices]
    half = row - squares[vertices].unsqueeze(1) / 2
    products = gram - half.unsqueeze(2)
    products.sub_(half.unsqueeze(1)).mul_(near.unsqueeze(2))
    return products.to(dtype).mul_(near.unsqueeze(1).to(dtype))


def _gram(features: Tensor) -> Tensor:
    """Of the centred features: distances and angles do not change, and the numbers stay small."""
    centered = wider(features - features.mean(0))
    return centered @ centered.T


def _squared_distances(gram: Tensor) -> Tensor:
    """Those of a Gram matrix; 0 where they are within rounding."""
    squares = gram.diagonal()
    sums = squares.unsqueeze(0) + squares.unsqueeze(1)
    distances = sums - 2 * gram
    return distances.masked_fill(distances <= 8 * torch.finfo(gram.dtype).eps * sums, 0.0)


def _inverse(squared: Tensor) -> Tensor:
    return squared.masked_fill(squared == 0, torch.inf).rsqrt()


def _relative_distances(gram: Tensor) -> Tensor:
    squared = _squared_distances(gram)
    apart = squared > 0
    distances = squared.masked_fill(~apart, 1.0).sqrt().masked_fill(~apart, 0.0)
    return distances * apart.sum().clamp(min=1) / distances.sum().masked_fill(~apart.any(), 1.0)


def _unit(rows: Tensor) -> Tensor:
    """Each row divided by its L2 norm; a row of zeros stays so, without a gradient."""
    squares = rows.square().sum(1, keepdim=True)
    zero = squares == 0
    return (rows * squares.masked_fill(zero, 1.0).rsqrt()).masked_fill(zero, 0.0)


def _pair(student: Tensor, teacher: Tensor, *, same: bool = True) -> tuple[Tensor, Tensor]:
    """Checked features in one precision, float32 or wider, the teacher's without gradient."""
    shapes = f"student_features has shape {tuple(student.shape)} and teacher_features {tuple(teacher.shape)}"
    if same and student.shape != teacher.shape:
        raise ValueError(f"{shapes}; both must be alike, as after a regressor")
    if min(student.dim(), teacher.dim()) < 2 or 0 in (student.numel(), teacher.numel()):
        raise ValueError(f"{shapes}; both must be (N, ...) with at least one sample and one feature")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def _batches(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Features of one batch of two or more samples, a vector for each."""
    student, teacher = _pair(student, teacher, same=False)
    if len(student) != len(teacher):
        raise ValueError(
            f"student_features has {len(student)} samples and teacher_features {len(teacher)}; they must be the same"
        )
    if len(student) < 2:
        raise ValueError("student_features holds one sample; relations need two or more: raise batch_size")
    return student.flatten(1), teacher.flatten(1)
