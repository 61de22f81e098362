from __future__ import annotations

import functools
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdft_lib.data import UNLABELED
from kdft_lib.features import Outputs
from kdft_lib.losses import hard_target_loss, soft_target_loss
from kdft_lib.objectives import (
    DIST,
    DKD,
    GKD,
    L2SP,
    RKD,
    AttentionTransfer,
    Contrastive,
    HardTargets,
    Hint,
    LogitMatching,
    LwF,
    Objective,
    SimilarityPreserving,
    SoftTargets,
    Supervised,
)
from kdft_lib.teachers import Teacher
from kdft_lib.training.checks import check_weights


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
        (
            lambda teacher: SoftTargets(teacher, temperature=2.0, kd_weight=0.7, ce_weight=0.2),
            "soft_targets",
            lambda s, t: soft_target_loss(s, t, 2.0),
        ),
        (lambda teacher: HardTargets(teacher, kd_weight=0.7, ce_weight=0.2), "hard_targets", hard_target_loss),
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
    targets[3:] = UNLABELED
    losses = make(teacher, kd_weight=1.0, ce_weight=1.0)(student, batch | {"targets": targets})
    expected = F.cross_entropy(student(batch["inputs"][:3]), targets[:3])
    torch.testing.assert_close(losses[f"{make.name}/ce"], expected)
    every = make(teacher, kd_weight=1.0, ce_weight=0.0)(student, {"inputs": batch["inputs"]})
    torch.testing.assert_close(losses[f"{make.name}/kd"], every["loss"])
    none = make(teacher)(student, batch | {"targets": torch.full_like(targets, UNLABELED)})
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
    targets[0, 0] = UNLABELED
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


@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 4, 5), (3, 4, 2, 5)])
@pytest.mark.parametrize("in_the_middle", [False, True])
def test_cross_entropy_is_that_of_torch_wherever_the_classes_lie(shape, in_the_middle):
    logits = torch.randn(shape, dtype=torch.float64)
    if in_the_middle and len(shape) > 1:
        logits = logits.movedim(-1, 1).contiguous().movedim(1, -1)
    targets = torch.randint(5, shape[:-1])
    targets.view(-1)[: len(shape) - 1] = UNLABELED
    how = {"weight": torch.rand(5, dtype=torch.float64), "label_smoothing": 0.1}
    expected = F.cross_entropy(logits.movedim(-1, min(1, len(shape) - 1)), targets, reduction="sum", **how)
    found = Supervised().cross_entropy(logits, {"targets": targets}, **how)
    torch.testing.assert_close(found, expected / (targets != UNLABELED).sum().clamp(min=1))


@pytest.mark.parametrize("samples", [2, 4])
def test_nothing_is_left_in_where_a_position_is_masked_whatever_other_parts_count(samples):
    """Another part of the step may be longer, so that eight positions count, as many as this part has."""
    logits, targets = torch.randn(2, 4, 5), torch.randint(5, (2, 4))
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[0, 2:] = False
    logits[~mask] = math.nan
    totals = {"samples": samples, "labeled": 8, "counted": 8 if samples == 4 else 6, "given": samples}
    logits.requires_grad_()
    batch = {"inputs": logits, "targets": targets, "mask": mask, "totals": totals}
    Supervised()(nn.Identity(), batch)["loss"].backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[~mask].any()


def test_where_all_positions_count_the_logits_are_not_copied():
    logits = torch.randn(2, 4, 5)
    batch = {"mask": torch.ones(2, 4, dtype=torch.bool), "totals": {"samples": 2, "counted": 8}}
    assert Supervised()._seen(Outputs(logits, {}), batch).logits.data_ptr() == logits.data_ptr()


def test_means_use_the_totals_of_the_whole_step(student, teacher, batch):
    whole = SoftTargets(teacher)(student, batch)
    totals = {"samples": 8, "labeled": 8, "counted": 8}
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
        (lambda teacher: HardTargets(teacher, kd_weight=0, ce_weight=0), "kd_weight and ce_weight are 0; nothing"),
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


# Every method -------------------------------------------------------------------------------------


LOGIT_OBJECTIVES = {
    "soft_targets": lambda teacher, **more: SoftTargets(teacher, **more),
    "hard_targets": lambda teacher, **more: HardTargets(teacher, **more),
    "logit_matching": lambda teacher, **more: LogitMatching(teacher, **{"ce_weight": 0.5} | more),
    "dkd": lambda teacher, **more: DKD(teacher, warmup=0, **more),
    "dist": lambda teacher, **more: DIST(teacher, **more),
    "lwf": lambda teacher, **more: LwF(teacher, **more),
}
FEATURE_OBJECTIVES = {
    "hint": Hint,
    "attention_transfer": AttentionTransfer,
    "similarity_preserving": SimilarityPreserving,
    "rkd": RKD,
    "contrastive": Contrastive,
}


class Maps(nn.Module):
    """A small convolutional network, its layers by name."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.head = nn.Linear(2 * width, 3)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))


def images():
    return {"inputs": torch.randn(6, 1, 8, 8), "targets": torch.arange(6) % 3}


def test_each_logit_objective_is_its_loss(student, teacher, batch):
    from kdft_lib import losses

    targets = batch["targets"]
    expected = {
        "soft_targets": (lambda s, t: losses.soft_target_loss(s, t), 0.9, 0.1),
        "hard_targets": (losses.hard_target_loss, 0.9, 0.1),
        "logit_matching": (losses.logit_mse_loss, 1.0, 0.5),
        "dkd": (lambda s, t: losses.dkd_loss(s, t, targets), 1.0, 1.0),
        "dist": (losses.dist_loss, 2.0, 1.0),
        "lwf": (lambda s, t: losses.soft_target_loss(s, t, 2.0), 1.0, 1.0),
    }
    student_logits, teacher_logits = student(batch["inputs"]), teacher(batch["inputs"])
    for name, make in LOGIT_OBJECTIVES.items():
        found = make(teacher)(student, batch)
        loss, kd_weight, ce_weight = expected[name]
        kd, ce = loss(student_logits, teacher_logits), F.cross_entropy(student_logits, targets)
        torch.testing.assert_close(found[f"{name}/kd"], kd)
        torch.testing.assert_close(found[f"{name}/ce"], ce)
        torch.testing.assert_close(found["loss"], kd_weight * kd + ce_weight * ce)


@pytest.mark.parametrize(
    "make",
    [
        lambda teacher: SoftTargets(teacher),
        lambda teacher: DKD(teacher),
        lambda teacher: DIST(teacher),
        lambda teacher: GKD(teacher, divergence="reverse_kl"),
        lambda teacher: GKD(teacher, divergence="jensen_shannon"),
        lambda teacher: GKD(teacher, divergence="total_variation"),
    ],
)
def test_what_does_not_go_together_is_named_past_the_door_too(teacher, make):
    """A divergence called by hand, on what ``fit`` would not have let in."""
    divergence, logits = make(teacher).divergence, torch.zeros(4, 3)
    for student_logits, teacher_logits, message in (
        (logits, torch.zeros(4, 5), r"student_logits has shape \(4, 3\) and teacher_logits \(4, 5\)"),
        (logits.long(), logits, "student_logits has dtype torch.int64"),
        (logits, logits.long(), "teacher_logits has dtype torch.int64"),
        (logits[:0], logits[:0], "it needs at least one sample and one class"),
    ):
        with pytest.raises(ValueError, match=message):
            divergence(student_logits, teacher_logits, {})


@pytest.mark.parametrize("name", LOGIT_OBJECTIVES)
def test_arguments_reach_the_loss(student, teacher, batch, name):
    from kdft_lib import losses

    more = {
        "soft_targets": [({"temperature": 2.0}, lambda s, t: losses.soft_target_loss(s, t, 2.0))],
        "dkd": [
            (
                {"alpha": 2.0, "beta": 3.0, "temperature": 1.5},
                lambda s, t: losses.dkd_loss(s, t, batch["targets"], 2.0, 3.0, 1.5),
            )
        ],
        "dist": [
            (
                {"temperature": 3.0, "inter_weight": 0.5, "intra_weight": 2.0},
                lambda s, t: losses.dist_loss(s, t, 0.5, 2.0, 3.0),
            )
        ],
        "lwf": [({"temperature": 5.0}, lambda s, t: losses.soft_target_loss(s, t, 5.0))],
    }.get(name, [])
    logits = student(batch["inputs"]), teacher(batch["inputs"])
    for keywords, loss in more:
        found = LOGIT_OBJECTIVES[name](teacher, **keywords)(student, batch)
        torch.testing.assert_close(found[f"{name}/kd"], loss(*logits))
    for keywords in ({"kd_weight": 0.3, "ce_weight": 0.0}, {"kd_weight": 0.0, "ce_weight": 0.7}):
        found = LOGIT_OBJECTIVES[name](teacher, **keywords)(student, batch)
        kept = "kd" if keywords["kd_weight"] else "ce"
        assert set(found) == {"loss", f"{name}/{kept}"}
        torch.testing.assert_close(found["loss"], max(keywords.values()) * found[f"{name}/{kept}"])


@pytest.mark.parametrize("name", [name for name in LOGIT_OBJECTIVES if name != "dist"])
def test_masks_and_missing_labels_hold_for_every_method(name):
    student, teacher = nn.Linear(2, 5), nn.Linear(2, 5)
    inputs, targets = torch.randn(3, 4, 2), torch.randint(0, 5, (3, 4))
    mask = torch.rand(3, 4) > 0.4
    targets[0, :2] = UNLABELED
    make = LOGIT_OBJECTIVES[name]
    clean = make(teacher)(student, {"inputs": inputs[mask], "targets": targets[mask]})
    inputs[~mask] = math.nan
    targets[~mask] = 77
    found = make(teacher)(student, {"inputs": inputs, "targets": targets, "mask": mask})
    for key in found:
        torch.testing.assert_close(found[key], clean[key])
    found["loss"].backward()


def test_dist_takes_the_counted_positions_alone():
    student, teacher = nn.Linear(2, 5), nn.Linear(2, 5)
    inputs, mask = torch.randn(3, 4, 2), torch.rand(3, 4) > 0.4
    found = DIST(teacher, ce_weight=0)(student, {"inputs": inputs, "mask": mask})
    clean = DIST(teacher, ce_weight=0)(student, {"inputs": inputs[mask]})
    torch.testing.assert_close(found["loss"], clean["loss"])


@pytest.mark.parametrize("name", LOGIT_OBJECTIVES)
def test_dense_logits_are_those_of_their_positions(name):
    student, teacher = nn.Conv2d(2, 5, 1), nn.Conv2d(2, 5, 1)
    inputs, targets = torch.randn(3, 2, 4, 4), torch.randint(0, 5, (3, 4, 4))
    make = LOGIT_OBJECTIVES[name]
    found = make(teacher, class_dim=1)(student, {"inputs": inputs, "targets": targets})
    flat = [nn.Linear(2, 5).requires_grad_(False) for _ in range(2)]
    for layer, net in zip(flat, (student, teacher), strict=True):
        layer.weight.copy_(net.weight[:, :, 0, 0])
        layer.bias.copy_(net.bias)
    positions = {"inputs": inputs.movedim(1, -1).reshape(-1, 2), "targets": targets.flatten()}
    expected = make(flat[1])(flat[0], positions)
    for key in found:
        torch.testing.assert_close(found[key], expected[key])


def test_standardized_soft_targets(student, teacher, batch):
    from kdft_lib.losses import dkd_loss, standardize_logits

    logits = [standardize_logits(net(batch["inputs"])) for net in (student, teacher)]
    found = SoftTargets(teacher, temperature=2.0, standardize=True)(student, batch)
    torch.testing.assert_close(found["soft_targets/kd"], soft_target_loss(*logits, 2.0))
    found = DKD(teacher, standardize=True, warmup=0)(student, batch)
    torch.testing.assert_close(found["dkd/kd"], dkd_loss(*logits, batch["targets"]))


def test_decoupled_kd_warms_up(student, teacher, batch):
    objective = DKD(teacher, kd_weight=2.0)
    seen = []
    for epoch in (0, 4, 19, 40):
        objective.before_epoch(epoch, 240)
        seen.append(objective.weights["kd"])
    assert seen == [2 / 20, 2 * 5 / 20, 2.0, 2.0]
    losses = objective(student, batch)
    torch.testing.assert_close(losses["loss"], 2 * losses["dkd/kd"] + losses["dkd/ce"])
    assert DKD(teacher, warmup=0).weights["kd"] == 1.0
    scheduled = DKD(teacher, kd_weight=lambda epoch, epochs: epoch, warmup=0.4)
    scheduled.before_epoch(1, 10)
    assert scheduled.weights["kd"] == 0.5


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(5, [1.0] * 5), (12, [1.0] * 12), (24, [0.5] + [1.0] * 23), (240, [i / 20 for i in range(1, 20)] + [1.0] * 221)],
)
def test_the_warm_up_of_decoupled_kd_is_a_part_of_the_run(teacher, epochs, expected):
    objective, seen = DKD(teacher), []
    for epoch in range(epochs):
        objective.before_epoch(epoch, epochs)
        seen.append(objective.weights["kd"])
    assert seen == pytest.approx(expected)


def test_decoupled_kd_without_a_label_takes_the_teachers_decision(student, teacher, batch):
    from kdft_lib.losses import dkd_loss

    logits = [net(batch["inputs"]) for net in (student, teacher)]
    targets = batch["targets"].clone()
    targets[:3] = UNLABELED
    wanted = torch.where(targets == UNLABELED, logits[1].argmax(1), targets)
    found = DKD(teacher, warmup=0)(student, batch | {"targets": targets})
    torch.testing.assert_close(found["dkd/kd"], dkd_loss(*logits, wanted))
    alone = DKD(teacher, ce_weight=0, warmup=0)(student, {"inputs": batch["inputs"]})
    torch.testing.assert_close(alone["loss"], dkd_loss(*logits, logits[1].argmax(1)))


def test_learning_without_forgetting_compares_the_old_classes(batch):
    student, teacher = nn.Linear(4, 5), nn.Linear(4, 2)
    targets = torch.tensor([2, 3, 4, 2, 3, 4, 2, UNLABELED])
    inputs = batch["inputs"]
    labeled = batch | {"targets": targets}
    s, t = student(inputs), teacher(inputs)
    name = "lwf"
    found = LwF(teacher)(student, labeled)
    torch.testing.assert_close(found[f"{name}/kd"], soft_target_loss(s[:, :2], t, 2.0))
    torch.testing.assert_close(found[f"{name}/ce"], F.cross_entropy(s, targets))
    found = LwF(teacher, classes=[4, 1])(student, labeled)
    torch.testing.assert_close(found[f"{name}/kd"], soft_target_loss(s[:, [4, 1]], t, 2.0))
    found = LwF(teacher, joint=False)(student, labeled)
    shifted = torch.where(targets < 0, targets, targets - 2)
    torch.testing.assert_close(found[f"{name}/ce"], F.cross_entropy(s[:, 2:], shifted))
    whole = nn.Linear(4, 5)
    found = LwF(whole, classes=[0, 2])(student, labeled)
    torch.testing.assert_close(found[f"{name}/kd"], soft_target_loss(s[:, [0, 2]], whole(inputs)[:, [0, 2]], 2.0))


def test_classes_that_do_not_go_together_are_named(batch):
    student = nn.Linear(4, 3)
    for teacher, classes, message in (
        (nn.Linear(4, 4), None, "classes is None, the teacher has 4 classes and the student 3"),
        (nn.Linear(4, 2), [0], r"classes is \[0\], the teacher has 2 classes"),
        (nn.Linear(4, 2), [0, 3], r"classes is \[0, 3\], the teacher"),
    ):
        with pytest.raises(ValueError, match=message):
            LwF(teacher, classes=classes)(student, batch)
    for classes in ([], [1, 1], [-1]):
        with pytest.raises(ValueError, match="it must name one or more classes, each once, from 0"):
            LwF(nn.Linear(4, 2), classes=classes)
    with pytest.raises(ValueError, match=r"targets holds an old class \(\[0, 1\]\); with joint=False"):
        LwF(nn.Linear(4, 2), joint=False)(student, batch)
    for teacher, classes in ((nn.Linear(4, 1), None), (nn.Linear(4, 3), [0])):
        with pytest.raises(ValueError, match="one old class, 0, whose probability is always 1, so LwF would keep"):
            LwF(teacher, classes=classes)(student, batch)


@pytest.mark.parametrize("shape", [(), (1,)], ids=["flat", "one class"])
def test_one_output_is_no_distribution(shape, batch):
    """Over one class every distribution is the same, and the loss 0 whatever the student says."""

    def model():
        width = batch["inputs"].shape[1]
        return (
            nn.Sequential(nn.Linear(width, 1), nn.Unflatten(1, shape))
            if shape
            else nn.Sequential(nn.Linear(width, 1), nn.Flatten(0))
        )

    inputs = {"inputs": batch["inputs"]}
    for make in (SoftTargets, HardTargets, DKD, DIST, LwF, functools.partial(GKD, on_policy=0)):
        with pytest.raises(ValueError, match=r"one output for each sample; .* match the number with LogitMatching"):
            make(model(), ce_weight=0.0)(model(), inputs)
    assert LogitMatching(model())(model(), inputs)["loss"] > 0


# Multi-label --------------------------------------------------------------------------------------


def test_multi_label_targets_are_binary_decisions(student, teacher, batch):
    targets = torch.randint(0, 2, (8, 3)).float()
    many = batch | {"targets": targets}
    s, t = student(batch["inputs"]), teacher(batch["inputs"])
    expected = F.binary_cross_entropy_with_logits(s, targets)
    torch.testing.assert_close(Supervised(multi_label=True)(student, many)["supervised/ce"], expected)
    found = LogitMatching(teacher, ce_weight=0.5, multi_label=True)(student, many)
    torch.testing.assert_close(found["logit_matching/ce"], expected)
    torch.testing.assert_close(found["logit_matching/kd"], ((s - t) ** 2).sum(1).mean())
    targets[5:] = UNLABELED
    fewer = Supervised(multi_label=True)(student, many)["supervised/ce"]
    torch.testing.assert_close(fewer, F.binary_cross_entropy_with_logits(s[:5], targets[:5]))


def test_multi_label_targets_are_refused_where_the_method_is_not_defined(student, teacher, batch):
    many = batch | {"targets": torch.zeros(8, 3)}
    message = "multi-label targets have, but .* takes classes that exclude one another"
    for make in (SoftTargets, HardTargets, DKD, DIST, LwF):
        with pytest.raises(ValueError, match=message):
            make(teacher)(student, many)
    with pytest.raises(ValueError, match=message):
        Supervised()(student, many)
    with pytest.raises(ValueError, match="with multi_label=True it must be floating-point"):
        Supervised(multi_label=True)(student, batch)
    with pytest.raises(ValueError, match="targets holds 2; with multi_label=True it must be from 0 to 1"):
        Supervised(multi_label=True)(student, batch | {"targets": torch.full((8, 3), 2.0)})
    with pytest.raises(ValueError, match="label_smoothing spreads one label over all classes"):
        Supervised(label_smoothing=0.1, multi_label=True)


# Features -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURE_OBJECTIVES)
def test_each_feature_objective_is_its_loss(name):
    from kdft_lib import losses

    student, teacher, batch = Maps(2), Maps(5), images()
    objective = FEATURE_OBJECTIVES[name](teacher, "second", "second")
    objective.prepare(student, batch)
    student.calls = teacher.calls = 0
    found = objective(student, batch)
    assert (student.calls, teacher.calls) == (1, 1)
    s, t = (net.second(net.first(batch["inputs"]).relu()) for net in (student, teacher))
    expected = {
        "hint": lambda: {"feature": losses.hint_loss(objective.regressor(s), t)},
        "attention_transfer": lambda: {"attention": losses.attention_transfer_loss(s, t)},
        "similarity_preserving": lambda: {"similarity": losses.similarity_preserving_loss(s, t)},
        "rkd": lambda: {
            "distance": losses.rkd_distance_loss(s, t),
            "angle": losses.rkd_angle_loss(s, t),
        },
        "contrastive": lambda: {"contrast": losses.contrastive_loss(objective.regressor(s), t)},
    }[name]()
    weights = {"distance": 25.0, "angle": 50.0} if name == "rkd" else dict.fromkeys(expected, 1.0)
    assert set(found) == {"loss", *(f"{name}/{part}" for part in expected)}
    for part, value in expected.items():
        torch.testing.assert_close(found[f"{name}/{part}"], value)
    torch.testing.assert_close(found["loss"], sum(weights[part] * value for part, value in expected.items()))
    found["loss"].backward()
    assert student.first.weight.grad.abs().sum() > 0
    assert teacher.first.weight.grad is None


def test_relational_parts_with_weight_0_are_left_out():
    student, teacher, batch = Maps(2), Maps(5), images()
    objective = RKD(teacher, "second", "second", distance_weight=2.0, angle_weight=0.0)
    assert set(objective(student, batch)) == {"loss", "rkd/distance"}


@pytest.mark.parametrize(
    ("student_shape", "teacher_shape", "kind"),
    [((4, 3, 5, 5), (4, 7, 5, 5), nn.Conv2d), ((4, 3), (4, 7), nn.Linear), ((4, 6, 3), (4, 6, 7), nn.Linear)],
)
def test_the_regressor_suits_maps_vectors_and_tokens(student_shape, teacher_shape, kind):
    class Giving(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.layer = nn.Identity()
            self.shape = shape

        def forward(self, inputs):
            return self.layer(torch.randn(len(inputs), *self.shape[1:]))

    student, teacher = Giving(student_shape), Giving(teacher_shape)
    objective = Hint(teacher, "layer", "layer")
    batch = {"inputs": torch.zeros(4, 1)}
    objective.prepare(student, batch)
    assert isinstance(objective.regressor, kind)
    assert objective.regressor.weight.shape[:2] == (7, 3)
    assert torch.isfinite(objective(student, batch)["loss"])


def test_preparing_a_hint_changes_nothing(net, state_bytes, assert_same_bits):
    student, teacher = net().train(), net()
    student.body.eval()
    before, modes = state_bytes(student), [module.training for module in student.modules()]
    batch = {"inputs": torch.randn(1, 4)}
    random = torch.get_rng_state()
    objective = Hint(teacher, "body.0", "body.0")
    objective.prepare(student, batch)
    assert torch.equal(random, torch.get_rng_state())
    assert_same_bits(before, state_bytes(student))
    assert modes == [module.training for module in student.modules()]
    first = objective.regressor
    torch.manual_seed(1)
    objective.prepare(student, {"inputs": torch.randn(1, 4)})
    assert not torch.equal(first.weight, objective.regressor.weight)


def test_a_hint_counts_the_positions_that_the_mask_counts():
    student, teacher = (nn.Sequential(nn.Linear(2, size), nn.Linear(size, 5)) for size in (3, 4))
    inputs, mask = torch.randn(3, 4, 2), torch.rand(3, 4) > 0.4
    objective = Hint(teacher, "0", "0")
    objective.prepare(student, {"inputs": inputs})
    found = objective(student, {"inputs": inputs, "mask": mask})
    clean = objective(student, {"inputs": inputs[mask]})
    torch.testing.assert_close(found["hint/feature"], clean["hint/feature"])


def test_layers_that_do_not_go_together_are_named():
    student, teacher, batch = Maps(2), Maps(5), images()
    with pytest.raises(ValueError, match="teacher_layer is 'third', which Maps does not have"):
        Hint(teacher, "first", "third")
    with pytest.raises(ValueError, match=r"layer is 'frist', which Maps does not have; .* 'first'"):
        Hint(teacher, "frist", "first").prepare(student, batch)
    message = r"student_layer 'first' gives \(2, 2, 8, 8\) and teacher_layer 'second' \(2, 10, 4, 4\); but for the"
    with pytest.raises(ValueError, match=message):
        Hint(teacher, "first", "second").prepare(student, batch)
    with pytest.raises(ValueError, match="Hint has no regressor yet; fit makes it"):
        Hint(teacher, "first", "first")(student, batch)
    with pytest.raises(ValueError, match="attention needs positions"):
        AttentionTransfer(teacher, "head", "head")(student, batch)
    one = {key: column[:1] for key, column in batch.items()}
    for make in (SimilarityPreserving, RKD):
        with pytest.raises(ValueError, match="one sample; relations need two or more: raise batch_size"):
            make(teacher, "head", "head")(student, one)
    with pytest.raises(ValueError, match="Contrastive has no regressor yet; fit makes it"):
        Contrastive(teacher, "first", "first")(student, batch)
    with pytest.raises(ValueError, match="temperature is 0; it must be positive"):
        Contrastive(teacher, "first", "first", temperature=0)
    with pytest.raises(ValueError, match="DIST correlates over a batch and needs two or more"):
        DIST(teacher)(student, one)


def test_half_precision_features_are_compared_in_full(blobs):
    student, teacher = (nn.Sequential(nn.Linear(4, size), nn.Linear(size, 3)) for size in (3, 5))
    objective = Hint(teacher, "0", "0")
    batch = {"inputs": blobs.inputs[:8]}
    objective.prepare(student, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective(student, batch)
    assert found["loss"].dtype == torch.float32
    torch.testing.assert_close(found["loss"], objective(student, batch)["loss"], rtol=2e-2, atol=2e-2)


# Sums ---------------------------------------------------------------------------------------------


def test_a_sum_runs_each_model_once_and_names_its_parts():
    student, teacher, other, batch = Maps(2), Maps(5), Maps(3), images()
    parts = [
        Supervised(), SoftTargets(teacher, ce_weight=0.0), Hint(teacher, "first", "first"),
        Hint(teacher, "second", "second"), SoftTargets(other), L2SP(student),
    ]  # fmt: skip
    objective = parts[0] + 0.5 * parts[1] + 100 * (parts[2] + 2 * parts[3]) + parts[4] + parts[5] * 0.1
    objective.prepare(student, batch)
    student.calls = teacher.calls = other.calls = 0
    found = objective(student, batch)
    assert (student.calls, teacher.calls, other.calls) == (1, 1, 1)
    assert set(found) == {
        "loss", "supervised/ce", "soft_targets/kd", "hint/feature", "hint_2/feature", "soft_targets_2/kd",
        "soft_targets_2/ce", "l2sp/distance",
    }  # fmt: skip
    singly = [part(student, batch)["loss"] for part in parts]
    expected = sum(f * loss for f, loss in zip((1, 0.5, 100, 200, 1, 0.1), singly, strict=True))
    torch.testing.assert_close(found["loss"], expected)
    assert [id(known.model) for known in objective.teachers()] == [id(teacher), id(other)]


def test_a_sum_of_two_wrappers_of_one_teacher_asks_it_once(student, teacher, batch):
    objective = SoftTargets(Teacher(teacher)) + HardTargets(Teacher(teacher))
    objective(student, batch)
    assert teacher.calls == 1


def test_cached_logits_spare_the_call_unless_features_are_read():
    student, teacher, batch = Maps(2), Maps(5), images()
    cached = batch | {"teacher_logits": torch.randn(6, 3)}
    objective = SoftTargets(teacher)
    found = objective(student, cached)
    assert teacher.calls == 0
    both = (objective + AttentionTransfer(teacher, "first", "first"))(student, cached)
    assert teacher.calls == 1
    torch.testing.assert_close(both["soft_targets/kd"], found["soft_targets/kd"])


def test_factors_follow_schedules_and_multiply(student, teacher, batch):
    objective = (lambda epoch, epochs: epoch / epochs) * (2 * Supervised()) + SoftTargets(
        teacher, kd_weight=lambda epoch, epochs: 1.0 + epoch, ce_weight=0.0
    )
    for epoch in (0, 3):
        objective.before_epoch(epoch, 4)
        found = objective(student, batch)
        expected = 2 * epoch / 4 * found["supervised/ce"] + (1 + epoch) * found["soft_targets/kd"]
        torch.testing.assert_close(found["loss"], expected)


def test_adapters_and_starts_of_a_sum_are_in_its_state():
    student, teacher, batch = Maps(2), Maps(5), images()
    objective = Hint(teacher, "first", "first") + L2SP(student)
    objective.prepare(student, batch)
    assert set(objective.state_dict()) == {
        "objectives.0.regressor.weight", "objectives.0.regressor.bias", "objectives.1.start",
    }  # fmt: skip
    assert sum(parameter.numel() for parameter in objective.parameters()) == 2 * 5 + 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: -1 * Supervised(), ValueError, "factor is -1.0 at epoch 0; it must be 0 or more"),
        (lambda: Supervised() * math.inf, ValueError, "factor is inf at epoch 0"),
        (lambda: Supervised() + 1, TypeError, "unsupported operand"),
        (lambda: Supervised() * "two", TypeError, "can't multiply|unsupported operand"),
        (lambda: check_weights(0 * Supervised(), 0), ValueError, "ce_weight are 0 at epoch 0; nothing"),
    ],
)
def test_sums_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_weight_that_is_0_at_first_is_no_error_in_a_sum(student, teacher, batch):
    objective = Supervised() + SoftTargets(teacher, kd_weight=lambda epoch, epochs: float(epoch), ce_weight=0.0)
    objective.before_epoch(0, 3)
    assert set(objective(student, batch)) == {"loss", "supervised/ce"}
    alone = SoftTargets(teacher, kd_weight=lambda epoch, epochs: float(epoch), ce_weight=0.0)
    alone.before_epoch(0, 3)
    with pytest.raises(ValueError, match="kd_weight and ce_weight are 0 at epoch 0; nothing would be learned"):
        check_weights(alone, 0)


def test_a_term_with_an_epoch_of_its_own_may_begin_with_weights_of_0(student, teacher, batch):
    class Noted(SoftTargets):
        def before_epoch(self, epoch, epochs):
            super().before_epoch(epoch, epochs)
            self.noted = epoch

    term = Noted(teacher, kd_weight=lambda epoch, epochs: float(epoch), ce_weight=0.0)
    objective = Supervised() + term
    objective.before_epoch(0, 3)
    check_weights(objective, 0)
    assert term.noted == 0
    assert set(objective(student, batch)) == {"loss", "supervised/ce"}


@pytest.mark.parametrize("make", [RKD, SimilarityPreserving, Contrastive])
def test_samples_that_a_mask_leaves_out_say_nothing(make):
    student, teacher, generator = Maps(2), Maps(5), torch.Generator().manual_seed(0)
    objective = make(teacher, "first", "first")
    images_, mask = torch.randn(4, 1, 6, 6, generator=generator), torch.tensor([True, True, True, False])
    objective.prepare(student, {"inputs": images_})

    def loss(**batch):
        return objective(student, batch)["loss"].item()

    other = images_.clone()
    other[3] = 100.0
    wanted = loss(inputs=images_[:3])
    assert loss(inputs=images_, mask=mask) == pytest.approx(wanted, rel=1e-5)
    assert loss(inputs=other, mask=mask) == pytest.approx(wanted, rel=1e-5)


class Tagger(nn.Module):
    """Classes for each token."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, input_ids, attention_mask=None):
        return self.table(input_ids)


@pytest.mark.parametrize("make", [SoftTargets, HardTargets, DIST])
def test_padding_that_would_count_is_refused(make):
    tokens = torch.tensor([[1, 2, 0], [3, 4, 5]])
    there = torch.tensor([[1, 1, 0], [1, 1, 1]])
    objective, student = make(Tagger(), ce_weight=0.0), Tagger()
    with pytest.raises(ValueError, match=f"inputs are padded, and {make.__name__} would count that"):
        objective(student, {"inputs": {"input_ids": tokens, "attention_mask": there}})
    objective(student, {"inputs": {"input_ids": tokens, "attention_mask": there}, "mask": there.bool()})
    objective(student, {"inputs": {"input_ids": tokens, "attention_mask": torch.ones_like(there)}})


def test_a_hint_may_be_of_a_model_in_64_bits():
    student, teacher = Maps(2).double(), Maps(5).double()
    objective = Hint(teacher, "first", "first")
    batch = {"inputs": torch.randn(4, 1, 6, 6, dtype=torch.float64)}
    objective.prepare(student, batch)
    assert objective(student, batch)["loss"].dtype == torch.float64


def test_an_objective_without_parts_says_so(student, batch):
    class Empty(Objective):
        name = "empty"

    with pytest.raises(NotImplementedError, match="Empty has no parts"):
        Empty({"some": 1.0})(student, batch)


def test_texts_show_what_matters(teacher):
    text = repr(0.5 * SoftTargets(teacher, temperature=3.0) + Supervised())
    for shown in ("0.5", "temperature=3.0", "kd_weight=0.9", "Supervised", "Teacher(Counting"):
        assert shown in text
    assert "warmup=0.25" in repr(DKD(teacher, warmup=0.25))
    assert "'first', 'second'" in repr(Hint(Maps(2), "first", "second"))
    assert "2 parameters" in repr(L2SP(nn.Linear(2, 2)))


SETTINGS = {
    DIST: {"temperature": 2.0, "inter_weight": 3.0, "intra_weight": 4.0},
    DKD: {"alpha": 2.0, "beta": 3.0, "temperature": 5.0, "warmup": 0.25, "standardize": True},
    GKD: {"divergence": "reverse_kl", "on_policy": 0.25, "prompt": 3, "beta": 0.75, "temperature": 2.0},
    HardTargets: {"kd_weight": 0.25, "ce_weight": 0.75},
    LogitMatching: {"multi_label": True},
    LwF: {"classes": [1, 0], "temperature": 3.0, "joint": False},
    RKD: {"distance_weight": 2.0, "angle_weight": 3.0},
    SoftTargets: {"temperature": 2.0, "standardize": True, "class_dim": 1},
    Supervised: {"label_smoothing": 0.25},
    L2SP: {"head": "second", "head_weight": 0.25},
}


@pytest.mark.parametrize("make", SETTINGS)
def test_texts_show_every_setting(make):
    """What is not shown could differ between a run and the one that goes on with its checkpoint."""
    model = Maps(2)
    first = [] if make is Supervised else [model, "first", "first"] if make is RKD else [model]
    objective = make(*first, **SETTINGS[make])
    for name, value in SETTINGS[make].items():
        assert f"{name}={value!r}" in repr(objective), name
        if not name.endswith("_weight") and name != "divergence":
            assert getattr(objective, name) == value
    shown = [name for name in inspect.signature(make).parameters if name not in ("teacher", "model")]
    for name in shown:
        assert f"{name}=" in repr(objective) or name.endswith("_layer"), name


def test_arguments_are_keywords_after_the_teacher_and_the_layers():
    from kdft_lib import objectives

    first = {"teacher", "student_layer", "teacher_layer"}
    allowed = {L2SP: {"model"}, Objective: {"weights"}, objectives.Sum: {"objectives"}}
    public = [getattr(objectives, name) for name in objectives.__all__ if name != "Weight"]
    for make in public:
        parameters = inspect.signature(make).parameters.values()
        positional = {parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY}
        assert positional <= allowed.get(make, first), make
    for wrong in (lambda: SoftTargets(Maps(2), 2.0), lambda: Supervised(0.1), lambda: L2SP(Maps(2), "head")):
        with pytest.raises(TypeError, match="positional argument"):
            wrong()


def test_what_a_method_of_ones_own_uses_is_public():
    """Two halves of a step add up to the whole, with the three means that a subclass may take."""

    class Own(Objective):
        name = "own"

        def parts(self, student, teacher, batch):
            values = student.logits.square().sum(-1)
            return {
                "mean": self.mean(values, batch),
                "whole": self.whole_batch(torch.tensor(3.0), batch),
                "ce": self.cross_entropy(student.logits, batch, label_smoothing=0.1),
            }

    student = nn.Linear(4, 3)
    batch = {"inputs": torch.randn(6, 4), "targets": torch.tensor([0, 1, 2, UNLABELED, 0, 1])}
    objective = Own({"mean": 1.0, "whole": 1.0, "ce": 1.0})
    whole = objective(student, batch)
    logits = student(batch["inputs"])
    torch.testing.assert_close(whole["own/mean"], logits.square().sum(-1).mean())
    assert whole["own/whole"] == 3
    expected = F.cross_entropy(logits, batch["targets"], label_smoothing=0.1)
    torch.testing.assert_close(whole["own/ce"], expected)
    totals = {"samples": 6, "labeled": 5, "counted": 6}
    halves = [
        objective(student, {key: column[rows] for key, column in batch.items()} | {"totals": totals})
        for rows in (slice(0, 2), slice(2, 6))
    ]
    for key in whole:
        torch.testing.assert_close(halves[0][key] + halves[1][key], whole[key])


# Penalties ----------------------------------------------------------------------------------------


def test_l2sp_is_half_the_squared_distance(net, state_bytes):
    model = net()
    penalty, free = L2SP(model), L2SP(model, head="head")
    batch = {"inputs": torch.randn(8, 4)}
    assert penalty(model.eval(), batch)["loss"] == 0
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    gaps = {name: (p - start[name]).square().sum().item() / 2 for name, p in model.named_parameters()}
    loss = penalty(model, batch)["l2sp/distance"]
    assert loss.item() == pytest.approx(sum(gaps.values()), rel=1e-5)
    assert free(model, batch)["loss"].item() == pytest.approx(
        sum(gap for name, gap in gaps.items() if not name.startswith("head.")), rel=1e-5
    )
    loss.backward()
    torch.testing.assert_close(model.head.weight.grad, model.head.weight.detach() - start["head.weight"])


def test_l2sp_decays_the_head_alone_if_asked(net):
    model = net()
    penalty = 0.3 * L2SP(model, head="head", head_weight=0.5)
    batch = {"inputs": torch.randn(8, 4)}
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    found = penalty(model.eval(), batch)
    assert set(found) == {"loss", "l2sp/distance", "l2sp/head"}
    now = dict(model.named_parameters())
    distance = sum((now[n] - start[n]).square().sum() / 2 for n in now if not n.startswith("head."))
    decay = (model.head.weight.square().sum() + model.head.bias.square().sum()) / 2
    torch.testing.assert_close(found["l2sp/distance"], distance)
    torch.testing.assert_close(found["l2sp/head"], decay)
    torch.testing.assert_close(found["loss"], 0.3 * (distance + 0.5 * decay))
    found["loss"].backward()
    torch.testing.assert_close(model.head.weight.grad, 0.15 * model.head.weight.detach())
    assert set(L2SP(model, head="head")(model, batch)) == {"loss", "l2sp/distance"}


def test_l2sp_comes_to_rest_where_the_penalty_says(net):
    """Pulled by nothing else, the body goes back to its start, and the head to 0."""
    model = net()
    penalty = L2SP(model, head="head", head_weight=1.0)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        penalty(model, {"inputs": torch.randn(8, 4)})["loss"].backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        wanted = torch.zeros_like(parameter) if name.startswith("head.") else start[name]
        torch.testing.assert_close(parameter.detach(), wanted)


def test_l2sp_of_another_model_is_named(net):
    penalty = L2SP(net())
    with pytest.raises(ValueError, match=r"a parameter 'body.0.weight' of 32 numbers, which this Linear does not have"):
        penalty(nn.Linear(4, 3), {"inputs": torch.randn(8, 4)})
    with pytest.raises(ValueError, match="head is 'haed', which NormalizedNet does not have"):
        L2SP(net(), head="haed")
    with pytest.raises(ValueError, match="head is '0', which leaves no parameter of Sequential"):
        L2SP(nn.Sequential(nn.Linear(2, 2)), head="0")


def test_a_mask_of_another_shape_is_named(student, teacher, batch):
    with pytest.raises(ValueError, match=r"mask has shape \(8, 2\); it must be \(8,\), one entry"):
        SoftTargets(teacher)(student, batch | {"mask": torch.ones(8, 2, dtype=torch.bool)})


def test_one_sample_for_batch_normalization_is_named(net):
    with pytest.raises(ValueError, match="a batch of one sample reached batch normalisation in training"):
        Supervised()(net().train(), {"inputs": torch.randn(1, 4), "targets": torch.tensor([0])})


def test_each_share_of_a_step_adds_its_part():
    """Two halves of a step, each told the totals of the whole, add up to the whole."""
    student, teacher, batch = Maps(2), Maps(5), images()
    for make in (
        lambda: DKD(teacher, warmup=0), lambda: LogitMatching(teacher, ce_weight=1.0),
        lambda: Hint(teacher, "first", "first"), lambda: AttentionTransfer(teacher, "first", "first"),
        lambda: Supervised() + 0.3 * L2SP(student),
    ):  # fmt: skip
        objective = make()
        objective.prepare(student, batch)
        whole = objective(student, batch)
        totals = {"samples": 6, "labeled": 6, "counted": 6}
        halves = [
            objective(student, {key: column[rows] for key, column in batch.items()} | {"totals": totals})
            for rows in (slice(0, 2), slice(2, 6))
        ]
        for key in whole:
            torch.testing.assert_close(halves[0][key] + halves[1][key], whole[key])


def test_every_objective_is_in_these_tables():
    """But for that of language models, which ``test_sequences.py`` tests."""
    from kdft_lib import objectives

    tested = {*LOGIT_OBJECTIVES, *FEATURE_OBJECTIVES, "supervised", "l2sp", "gkd"}
    public = {getattr(objectives, name) for name in objectives.__all__ if name != "Weight"}
    assert {thing.name for thing in public if hasattr(thing, "name")} == tested


def test_a_value_of_the_whole_batch_is_shared_out(student, teacher, batch):
    """DIST, RKD and SP are one value for a batch; a part of a step counts as its share of the samples."""
    objective = DIST(teacher, ce_weight=0)
    alone = objective(student, batch)["dist/kd"]
    part = objective(student, batch | {"totals": {"samples": 32, "labeled": 0, "counted": 0}})["dist/kd"]
    torch.testing.assert_close(part, alone * 8 / 32)


def test_masked_tokens_take_no_attention():
    student, teacher = (nn.Sequential(nn.Linear(2, size)) for size in (3, 4))
    inputs, mask = torch.randn(3, 4, 2), torch.tensor([[True, True, True, False]] * 3)
    objective = AttentionTransfer(teacher, "0", "0")
    found = objective(student, {"inputs": inputs, "mask": mask})["loss"]
    other = inputs.clone()
    other[:, 3] = 100.0
    torch.testing.assert_close(objective(student, {"inputs": other, "mask": mask})["loss"], found)
    short = objective(student, {"inputs": inputs[:, :3]})["loss"]
    torch.testing.assert_close(found, short * 3 / 4)


def test_rows_are_gathered_and_gradients_come_back():
    """In a group of one process, which is all that a test can have; two are in test_distributed.py."""
    import torch.distributed as dist

    from kdft_lib.objectives.processes import _Gathered, everywhere

    rows = torch.randn(3, 2, requires_grad=True)
    assert everywhere(rows) is rows
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert everywhere(rows) is rows
        gathered = _Gathered.apply(rows)
        weights = torch.arange(6.0).view(3, 2)
        (gathered * weights).sum().backward()
        assert torch.equal(gathered, rows)
        assert torch.equal(rows.grad, weights)
    finally:
        dist.destroy_process_group()


def test_sums_keep_class_dim_and_restart_schedules(teacher):
    objective = SoftTargets(nn.Conv2d(1, 2, 1), class_dim=1) + Supervised(class_dim=1)
    assert objective.class_dim == 1
    assert Supervised(class_dim=1).class_dim == 1
    seen = []
    (
        Supervised() + SoftTargets(teacher, kd_weight=lambda epoch, epochs: seen.append((epoch, epochs)) or 1.0)
    ).before_epoch(2, 5)
    assert seen[-1] == (2, 5)


def maps():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 5, 1))


def test_a_sum_has_the_classes_where_the_terms_that_read_logits_have_them():
    hint = Hint(maps(), "0", "0")
    assert (100 * hint + Supervised(class_dim=1)).class_dim == 1
    assert (Supervised(class_dim=1) + hint).class_dim == 1
    with pytest.raises(ValueError, match=r"class_dim is \[-1, 1\] in the terms of a sum"):
        Supervised() + SoftTargets(maps(), class_dim=1)


def test_a_hook_before_each_epoch_is_called_in_a_sum_too():
    class Warming(Supervised):
        def before_epoch(self, epoch, epochs):
            super().before_epoch(epoch, epochs)
            seen.append((epoch, epochs))

    seen = []
    (0.5 * Warming()).before_epoch(1, 3)
    (Warming() + Supervised()).before_epoch(2, 3)
    assert seen == [(1, 3), (2, 3)]


def test_several_labels_and_a_mask():
    logits, targets = torch.randn(3, 4, 3), torch.rand(3, 4, 3).round()
    mask = torch.tensor([[True, False, True, True]]).expand(3, 4)
    found = Supervised(multi_label=True)(nn.Identity(), {"inputs": logits, "targets": targets, "mask": mask})
    torch.testing.assert_close(found["loss"], F.binary_cross_entropy_with_logits(logits[mask], targets[mask]))


@pytest.mark.parametrize("make", [SimilarityPreserving, RKD, Contrastive, AttentionTransfer])
def test_features_of_padding_count_for_nothing(make):
    def tokens():
        return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))

    student, objective, inputs = tokens(), make(tokens(), "0", "0"), torch.randn(5, 7, 4)
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 1, 6]).unsqueeze(1)
    other = torch.where(mask.unsqueeze(-1), inputs, torch.randn(5, 7, 4))
    objective.prepare(student, {"inputs": inputs})
    found = [objective(student, {"inputs": each, "mask": mask})["loss"] for each in (inputs, other)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("make", [Hint, Contrastive])
def test_what_a_run_makes_anew_is_no_part_of_what_an_objective_is_called(make):
    objective = SoftTargets(maps()) + 10 * make(maps(), "0", "0")
    before = str(objective)
    objective.prepare(maps(), {"inputs": torch.randn(4, 2, 3, 3)})
    assert str(objective) == before


def test_few_inputs_tell_how_many_classes_there_are(monkeypatch):
    """On a GPU, where the answers are kept as a few classes each."""
    from kdft_lib.objectives import logits

    class Counting(nn.Identity):
        def forward(self, inputs):
            asked.append(len(inputs))
            return inputs

    asked = []
    monkeypatch.setattr(logits, "readable", lambda _: False)
    answers = {"indices": torch.tensor([[0, 4]]).expand(64, 2), "values": torch.zeros(64, 2)}
    SoftTargets(None).prepare(Counting(), {"inputs": torch.randn(64, 5), "teacher_logits": answers})
    assert asked == [2]


def test_a_row_of_several_labels_has_all_or_none():
    targets = torch.tensor([[1.0, 0.0], [UNLABELED, 1.0]])
    with pytest.raises(ValueError, match="−100 for a part of a row"):
        Supervised(multi_label=True)(nn.Linear(4, 2), {"inputs": torch.ones(2, 4), "targets": targets})


def test_old_classes_that_do_not_count_may_be_labelled():
    objective = LwF(nn.Linear(4, 2), classes=[0, 1], joint=False)
    batch = {"inputs": torch.ones(2, 4), "targets": torch.tensor([0, 2]), "mask": torch.tensor([False, True])}
    assert objective(nn.Linear(4, 3), batch)["loss"].isfinite()
    with pytest.raises(ValueError, match="old class"):
        objective(nn.Linear(4, 3), batch | {"mask": torch.tensor([True, True])})
