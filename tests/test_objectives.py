from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdft_lib.data import UNLABELLED
from kdft_lib.losses import hard_target_loss, soft_target_loss
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised


class Counting(nn.Linear):
    calls = 0

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs)


@pytest.fixture
def student():
    return Counting(4, 3)


@pytest.fixture
def teacher():
    return Counting(4, 3)


@pytest.fixture
def batch(blobs):
    return {"inputs": blobs.inputs[:8], "targets": blobs.targets[:8]}


def test_supervised_is_cross_entropy(student, batch):
    for smoothing in (0.0, 0.1):
        losses = Supervised(label_smoothing=smoothing)(student, batch)
        expected = F.cross_entropy(student(batch["inputs"]), batch["targets"], label_smoothing=smoothing)
        assert losses.keys() == {"loss", "supervised/ce"}
        torch.testing.assert_close(losses["loss"], expected)
        torch.testing.assert_close(losses["supervised/ce"], expected)


@pytest.mark.parametrize(
    ("make", "name", "loss"),
    [
        (lambda teacher: SoftTargets(teacher, 2.0, 0.7, 0.2), "soft_targets", lambda s, t: soft_target_loss(s, t, 2.0)),
        (lambda teacher: HardTargets(teacher, 0.7, 0.2), "hard_targets", hard_target_loss),
    ],
)
def test_parts_are_unweighted_and_the_loss_is_their_weighted_sum(student, teacher, batch, make, name, loss):
    losses = make(teacher)(student, batch)
    assert (student.calls, teacher.calls) == (1, 1)
    assert set(losses) == {"loss", f"{name}/kd", f"{name}/ce"}
    logits = student(batch["inputs"])
    torch.testing.assert_close(losses[f"{name}/kd"], loss(logits, teacher(batch["inputs"])))
    torch.testing.assert_close(losses[f"{name}/ce"], F.cross_entropy(logits, batch["targets"]))
    torch.testing.assert_close(losses["loss"], 0.7 * losses[f"{name}/kd"] + 0.2 * losses[f"{name}/ce"])


@pytest.mark.parametrize("make", [SoftTargets, HardTargets])
def test_labels_count_where_there_are_any_and_the_teacher_everywhere(student, teacher, batch, make):
    targets = batch["targets"].clone()
    targets[3:] = UNLABELLED
    losses = make(teacher, kd_weight=1.0, ce_weight=1.0)(student, batch | {"targets": targets})
    expected = F.cross_entropy(student(batch["inputs"][:3]), targets[:3])
    torch.testing.assert_close(losses[f"{make.name}/ce"], expected)
    every = make(teacher, kd_weight=1.0, ce_weight=0.0)(student, {"inputs": batch["inputs"]})
    torch.testing.assert_close(losses[f"{make.name}/kd"], every["loss"])
    none = make(teacher)(student, batch | {"targets": torch.full_like(targets, UNLABELLED)})
    assert none[f"{make.name}/ce"] == 0
    none["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())


def test_the_teacher_is_spared_where_its_logits_are_given(student, teacher, batch):
    logits = torch.randn(8, 3)
    losses = SoftTargets(teacher, ce_weight=0)(student, batch | {"teacher_logits": logits})
    assert teacher.calls == 0
    torch.testing.assert_close(losses["soft_targets/kd"], soft_target_loss(student(batch["inputs"]), logits))


def test_weights_follow_a_schedule(student, teacher, batch):
    objective = SoftTargets(teacher, kd_weight=lambda epoch, epochs: epoch / epochs, ce_weight=1.0)
    assert objective(student, batch).keys() == {"loss", "soft_targets/ce"}
    objective.before_epoch(2, 4)
    losses = objective(student, batch)
    torch.testing.assert_close(losses["loss"], 0.5 * losses["soft_targets/kd"] + losses["soft_targets/ce"])


@pytest.mark.parametrize("make", [SoftTargets, HardTargets])
def test_dense_logits_are_read_along_class_dim(make):
    student, teacher = nn.Conv2d(2, 5, 1), nn.Conv2d(2, 5, 1)
    inputs, targets = torch.randn(3, 2, 4, 4), torch.randint(0, 5, (3, 4, 4))
    targets[0, 0] = UNLABELLED
    losses = make(teacher, class_dim=1)(student, {"inputs": inputs, "targets": targets})
    torch.testing.assert_close(losses[f"{make.name}/ce"], F.cross_entropy(student(inputs), targets))
    flat = [net(inputs).movedim(1, -1) for net in (student, teacher)]
    loss = soft_target_loss if make is SoftTargets else hard_target_loss
    torch.testing.assert_close(losses[f"{make.name}/kd"], loss(*flat))


@pytest.mark.parametrize("make", [SoftTargets, HardTargets])
def test_masked_positions_count_for_nothing(make):
    student, teacher = nn.Linear(2, 5), nn.Linear(2, 5)
    inputs, targets = torch.randn(3, 4, 2), torch.randint(0, 5, (3, 4))
    mask = torch.rand(3, 4) > 0.4
    clean = make(teacher)(student, {"inputs": inputs[mask], "targets": targets[mask]})
    inputs[~mask] = math.nan
    losses = make(teacher)(student, {"inputs": inputs, "targets": targets, "mask": mask})
    for name in losses:
        torch.testing.assert_close(losses[name], clean[name])


def test_means_use_the_totals_of_the_whole_step(student, teacher, batch):
    whole = SoftTargets(teacher)(student, batch)
    totals = {"samples": 8, "labelled": 8, "counted": 8}
    parts = [
        SoftTargets(teacher)(student, {key: column[rows] for key, column in batch.items()} | {"totals": totals})
        for rows in (slice(0, 3), slice(3, 8))
    ]
    for name in whole:
        torch.testing.assert_close(sum(part[name] for part in parts), whole[name])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda teacher: SoftTargets(teacher, temperature=0), "temperature is 0; it must be positive"),
        (lambda teacher: SoftTargets(teacher, kd_weight=-1), "kd_weight is -1.0 at epoch 0; it must be 0 or more"),
        (lambda teacher: HardTargets(teacher, ce_weight=math.nan), "ce_weight is nan"),
        (lambda teacher: HardTargets(teacher, 0, 0), "kd_weight and ce_weight are 0; nothing"),
        (lambda teacher: Supervised(label_smoothing=1.0), "label_smoothing is 1.0; it must be from 0 to below 1"),
    ],
)
def test_arguments_out_of_range_are_named(teacher, make, message):
    with pytest.raises(ValueError, match=message):
        make(teacher)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 3]), "targets holds 3; it must be from 0 to 2"),
        (torch.tensor([0, -1]), "targets holds -1"),
        (torch.tensor([0.0, 1.0]), "targets has dtype torch.float32"),
        (torch.tensor([0, 1, 2]), r"targets has .*shape \(3,\).*\(2,\)"),
    ],
)
def test_bad_targets_are_named(student, targets, message):
    with pytest.raises(ValueError, match=message):
        Supervised()(student, {"inputs": torch.zeros(2, 4), "targets": targets})


def test_missing_labels_and_other_classes_are_named(student, batch):
    with pytest.raises(ValueError, match=r"Supervised counts labels, but the batch has no targets"):
        Supervised()(student, {"inputs": batch["inputs"]})
    with pytest.raises(ValueError, match=r"student_logits has shape \(8, 3\) and teacher_logits \(8, 4\)"):
        SoftTargets(nn.Linear(4, 4))(student, batch)
