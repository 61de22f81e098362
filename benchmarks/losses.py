"""The work of one loss, forward and backward: ours, plain PyTorch as a careful user writes it, and torchdistill."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from memory import peak
from torch import Tensor

from kdft_lib import losses
from kdft_lib.losses import divergences
from kdft_lib.objectives import GKD, SoftTargets

Loss = Callable[[Tensor, Tensor], Tensor]
SIZES = (((128, 10), 1.00, 1500), ((128, 100), 1.00, 1500), ((256, 1000), 0.60, 200), ((1024, 32000), 0.25, 7))


class Work(NamedTuple):
    """One row of the table: what is timed, on tensors of which shape, with which goal for ours over the best peer.
    Called by hand, with all checks, ours may take a quarter more than that."""

    name: str
    shape: tuple[int, int]
    goal: float
    runs: int
    ours: Loss
    """As ``fit`` calls it: what is given was checked at its door."""
    by_hand: Loss
    peers: dict[str, Loss]


def works() -> list[Work]:
    """All rows; torchdistill is a peer where it is installed."""
    rows = []
    for name, objective, by_hand, peers in (
        ("soft targets", SoftTargets(), losses.soft_target_loss, {"kl_div": _kl_div, "kl_div, log": _kl_div_log}),
        ("reverse KL", GKD(divergence="reverse_kl", on_policy=0.0), losses.reverse_kl_loss,
         {"kl_div, log": _reverse_kl, "plain": _reverse_kl_plain}),
        ("Jensen–Shannon", GKD(divergence="jensen_shannon", on_policy=0.0), losses.jensen_shannon_loss,
         {"kl_div, log": _jensen_shannon}),
    ):  # fmt: skip
        rows += [Work(name, *size, functools.partial(in_fit, objective), by_hand, peers) for size in SIZES]
    for shape, goal, runs in (((128, 100), 0.75, 500), ((256, 1000), 0.20, 150)):
        targets = torch.arange(shape[0]) % shape[1]
        rows.append(
            Work(
                "decoupled KD", shape, goal, runs,
                lambda s, t, targets=targets: divergences.rowwise(
                    divergences.DECOUPLED, s, t, 4.0, targets, 1.0, 8.0
                ).mean(),
                functools.partial(losses.dkd_loss, targets=targets),
                {"plain": functools.partial(decoupled_as_published, targets=targets)},
            )
        )  # fmt: skip
    rows += [
        Work("DIST", *size, losses.dist_loss, losses.dist_loss, {"plain": _dist})
        for size in (((128, 100), 0.65, 500), ((256, 1000), 0.50, 150))
    ]
    rows += [
        Work("RKD distance + angle", *size, _rkd, _rkd, {"plain": _relational})
        for size in (((64, 256), 0.20, 60), ((128, 512), 0.06, 15))
    ]
    return [work._replace(peers=work.peers | _torchdistill(work.name)) for work in rows]


def in_fit(objective: SoftTargets | GKD, student: Tensor, teacher: Tensor) -> Tensor:
    """What an objective's ``kd`` part makes of a batch that ``fit`` has counted."""
    batch = {"totals": {"samples": len(student)}}
    return objective.mean(objective.divergence(student, teacher, batch), batch)


def both_ways(divergence: divergences.Divergence, classes: int, *more: float) -> dict[str, Callable[[], None]]:
    """A divergence of 128 rows, by its formula and in blocks."""
    student, teacher = pair((128, classes))
    return {
        name: functools.partial(
            once,
            lambda s, t, large=large: divergences.rowwise(divergence, s, t, 4.0, *more, large=large).sum(),
            student,
            teacher,
        )
        for name, large in (("formula", student.numel()), ("blocks", 0))
    }


def once(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    """Forward and backward."""
    student.grad = None
    loss(student, teacher).backward()


def pair(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A student's and a teacher's tensor, the first to be differentiated."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(shape, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def beyond_the_gradient(loss: Loss, student: Tensor, teacher: Tensor) -> float:
    """Peak memory of a loss beyond the gradient, as a share of the logits."""
    return (peak(lambda: once(loss, student, teacher)) - student.nbytes) / student.nbytes


def _rkd(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.rkd_distance_loss(student, teacher) + losses.rkd_angle_loss(student, teacher)


def _kl_div(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    log_q, p = F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


def _kl_div_log(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    log_q, log_p = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def _reverse_kl_plain(student: Tensor, teacher: Tensor) -> Tensor:
    log_q = F.log_softmax(student, -1)
    return (log_q.exp() * (log_q - F.log_softmax(teacher, -1))).sum(-1).mean()


def _jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    return sum(F.kl_div(log_m, side, reduction="batchmean", log_target=True) for side in (log_p, log_q)) / 2


def decoupled_as_published(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 4.0) -> Tensor:
    """α = 1, β = 8; the target masked by a large negative number, as in the authors' code."""
    hit = F.one_hot(targets, student.shape[1]).bool()
    q, p = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    pairs = [torch.stack([(side * hit).sum(1), (side * ~hit).sum(1)], 1) for side in (q, p)]
    target_kl = F.kl_div(pairs[0].log(), pairs[1], reduction="batchmean")
    log_rest = F.log_softmax(student / temperature - 1000.0 * hit, 1)
    other_kl = F.kl_div(log_rest, F.softmax(teacher / temperature - 1000.0 * hit, 1), reduction="batchmean")
    return temperature**2 * (target_kl + 8 * other_kl)


def _dist(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.softmax(1), teacher.softmax(1)

    def correlation(dim: int) -> Tensor:
        return F.cosine_similarity(q - q.mean(dim, keepdim=True), p - p.mean(dim, keepdim=True), dim=dim).mean()

    return 2 - correlation(1) - correlation(0)


def _relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances by ``cdist``, angles from a tensor of batch × batch × features."""

    def relations(points: Tensor) -> tuple[Tensor, Tensor]:
        distances = torch.cdist(points, points)
        legs = F.normalize(points.unsqueeze(0) - points.unsqueeze(1), dim=2)
        return distances / distances[distances > 0].mean(), torch.bmm(legs, legs.transpose(1, 2))

    ours, theirs = relations(student), relations(teacher)
    return F.smooth_l1_loss(ours[0], theirs[0]) + F.smooth_l1_loss(ours[1], theirs[1])


@functools.cache
def _torchdistill(name: str) -> dict[str, Loss]:
    try:
        from torchdistill.losses import mid_level
    except ImportError:
        return {}
    path = "logits"

    def called(loss: torch.nn.Module) -> dict[str, Loss]:
        def compute(student: Tensor, teacher: Tensor) -> Tensor:
            return loss({path: {"output": student}}, {path: {"output": teacher}}, targets=None)

        return {"torchdistill": compute}

    match name:
        case "soft targets":
            return called(mid_level.KDLoss(path, "output", path, "output", 4.0, 0.0))
        case "DIST":
            return called(mid_level.DISTLoss(path, "output", path, "output"))
        case "RKD distance + angle":
            return called(mid_level.RKDLoss(path, path, 1.0, 1.0, "mean"))
    return {}
