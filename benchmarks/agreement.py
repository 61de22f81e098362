"""The same tensors through ours, torchdistill and the authors' formulas: what differs, and by how much.

``PYTHONPATH=.venv/bench .venv/bin/python benchmarks/agreement.py``, after ``make bench`` has installed torchdistill.
"""

from __future__ import annotations

from collections.abc import Callable

import losses as peers
import torch
from torch import Tensor
from torchdistill.losses import mid_level

from kdft_lib import losses


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(64, 100, generator=generator) for _ in range(2))
    features, wide = (torch.randn(16, size, generator=generator) for size in (32, 48))
    maps, deep = (torch.randn(8, size, 6, 6, generator=generator) for size in (4, 7))
    targets = torch.arange(64) % 100
    labels = torch.zeros(64, dtype=torch.int64)
    show("soft targets, T = 4", losses.soft_target_loss(student, teacher), "torchdistill without targets",
         asked(mid_level.KDLoss("m", "output", "m", "output", 4.0, 0.0), student, teacher))  # fmt: skip
    show("the same", losses.soft_target_loss(student, teacher), "torchdistill with targets, alpha = 1e-9",
         asked(mid_level.KDLoss("m", "output", "m", "output", 4.0, 1e-9), student, teacher, labels))  # fmt: skip
    show("decoupled KD", losses.dkd_loss(student, teacher, targets), "mdistiller's formula",
         peers.decoupled_as_published(student, teacher, targets))  # fmt: skip
    sure = student.scatter(1, targets.unsqueeze(1), 600.0)
    show("decoupled KD, one logit at 600", losses.dkd_loss(sure, teacher, targets), "mdistiller's formula",
         peers.decoupled_as_published(sure, teacher, targets))  # fmt: skip
    show("DIST", losses.dist_loss(student, teacher), "torchdistill",
         asked(mid_level.DISTLoss("m", "output", "m", "output"), student, teacher))  # fmt: skip
    show("similarity preserving", losses.similarity_preserving_loss(features, wide), "torchdistill",
         asked(mid_level.SPKDLoss("m", "m", "batchmean"), features, wide))  # fmt: skip
    show("RKD distance", losses.rkd_distance_loss(features, wide), "torchdistill",
         asked(mid_level.RKDLoss("m", "m", 1.0, 0.0, "mean"), features, wide))  # fmt: skip
    show("RKD angle", losses.rkd_angle_loss(features, wide), "torchdistill",
         asked(mid_level.RKDLoss("m", "m", 0.0, 1.0, "mean"), features, wide))  # fmt: skip
    pair = {"teacher": {"path": "m", "io": "output"}, "student": {"path": "m", "io": "output"}}
    for mode in ("code", "paper"):
        show("attention transfer", losses.attention_transfer_loss(maps, deep), f"torchdistill, as the {mode}",
             asked(mid_level.ATLoss({"pair": pair}, mode), maps, deep))  # fmt: skip
    show("logit standardisation, first entry", losses.standardize_logits(student)[0, 0], "with torch.std",
         ((student - student.mean(1, keepdim=True)) / student.std(1, keepdim=True))[0, 0])  # fmt: skip
    same = torch.ones(4, 3)
    same[0] = 0
    for name, loss in (
        ("ours", losses.rkd_distance_loss),
        ("torchdistill", lambda s, t: asked(mid_level.RKDLoss("m", "m", 1.0, 0.0, "mean"), s, t)),
    ):
        print(f"RKD with three equal rows, largest gradient, {name}: {largest_gradient(loss, same):.3g}")


def asked(loss: torch.nn.Module, student: Tensor, teacher: Tensor, targets: Tensor | None = None) -> Tensor:
    return loss({"m": {"output": student}}, {"m": {"output": teacher}}, targets=targets)


def largest_gradient(loss: Callable[[Tensor, Tensor], Tensor], student: Tensor) -> float:
    student = student.clone().requires_grad_()
    loss(student, torch.arange(12.0).view(4, 3)).backward()
    assert student.grad is not None
    return student.grad.abs().max().item()


def show(what: str, ours: Tensor, peer: str, theirs: Tensor) -> None:
    ratio = ours.item() / theirs.item()
    print(f"{what}: ours {ours.item():.6g}, {peer} {theirs.item():.6g}, ratio {ratio:.6g}")


if __name__ == "__main__":
    main()
