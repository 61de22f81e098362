"""Numbers to predict, and classes that do not count alike."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdft_lib.data import UNLABELED, TensorData
from kdft_lib.data.values import PerRow
from kdft_lib.objectives import LogitMatching, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import evaluate, fit

FULL = FullFineTuning(lr=1e-2)
HUBER = functools.partial(F.huber_loss, delta=0.5)


@pytest.fixture
def numbers():
    """Two numbers to predict from four, with noise."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(90, 4, generator=generator)
    return TensorData(inputs, inputs[:, :2] * 3 + inputs[:, 2:] + torch.randn(90, 2, generator=generator) / 10)


def step_of(objective, model, parts):
    """The gradient of a step whose batch comes in parts, as the loop makes it."""
    counts = [PerRow(part).of_all() | objective.weighed(part) for part in parts]
    totals = {name: sum(count[name] for count in counts) for name in counts[0] if name not in ("lowest", "highest")}
    model.zero_grad()
    losses = [objective(model, part | {"totals": totals}) for part in parts]
    sum(loss["loss"] for loss in losses).backward()
    return {name: sum(loss[name] for loss in losses) for name in losses[0]}, model.weight.grad.clone()


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, HUBER])
def test_supervised_takes_any_loss_of_numbers(numbers, loss):
    model, batch = nn.Linear(4, 2), next(numbers.batches(16))
    found = Supervised(loss=loss)(model, batch)
    assert found.keys() == {"loss", "supervised/loss"}
    torch.testing.assert_close(found["loss"], loss(model(batch["inputs"]), batch["targets"]))


def test_one_output_and_one_target_are_a_pair_and_never_broadcast(numbers):
    """mse_loss on (N, 1) and (N,) compares all N × N pairs, warns, and learns the mean."""
    model, inputs, targets = nn.Linear(4, 1), numbers.inputs, numbers.targets[:, 0]
    expected = F.mse_loss(model(inputs).squeeze(1), targets)
    with pytest.warns(UserWarning, match="broadcasting"):
        wrong = F.mse_loss(model(inputs), targets)
    assert abs(wrong - expected) > 0.1
    flat = nn.Sequential(model, nn.Flatten(0))
    for student, goals in ((model, targets), (model, targets.unsqueeze(1)), (flat, targets)):
        batch = {"inputs": inputs, "targets": goals}
        torch.testing.assert_close(Supervised(loss=F.mse_loss)(student, batch)["loss"], expected)
        assert evaluate(student, TensorData(inputs, goals), loss=F.mse_loss)["loss"] == pytest.approx(expected.item())
    wide = nn.Linear(4, 2)
    for student, goals in ((flat, targets.unsqueeze(1)), (wide, targets), (wide, targets.unsqueeze(1))):
        with pytest.raises(ValueError, match=r"outputs have shape .* and targets .* give targets the outputs' shape"):
            Supervised(loss=F.mse_loss)(student, {"inputs": inputs, "targets": goals})
        with pytest.raises(ValueError, match="give targets the outputs' shape"):
            evaluate(student, TensorData(inputs, goals), loss=F.mse_loss)


def test_whole_numbers_and_doubles_are_targets_too(numbers):
    model = nn.Linear(4, 2)
    for targets in (numbers.targets.round().long(), numbers.targets.double()):
        found = Supervised(loss=F.mse_loss)(model, {"inputs": numbers.inputs, "targets": targets})["loss"]
        found.backward()
        torch.testing.assert_close(found, F.mse_loss(model(numbers.inputs), targets.float()))


def test_minus_a_hundred_is_a_number(numbers):
    """Degrees below zero: no label only where labels are classes."""
    model = nn.Linear(4, 1)
    data = TensorData(numbers.inputs, torch.full((90,), float(UNLABELED)))
    expected = F.mse_loss(model(numbers.inputs)[:, 0], data.targets)
    found, _ = step_of(Supervised(loss=F.mse_loss), model, [*data.batches(40)])
    torch.testing.assert_close(found["loss"], expected)
    assert evaluate(model, data, loss=F.mse_loss)["loss"] == pytest.approx(expected.item())


def test_a_mask_says_where_numbers_count_and_what_it_hides_may_be_nan(numbers):
    inputs, mask = torch.randn(6, 5, 4), torch.rand(6, 5) < 0.6
    targets = torch.randn(6, 5, 2).masked_fill(~mask.unsqueeze(-1), math.nan)
    model, batch = nn.Linear(4, 2), {"inputs": inputs, "targets": targets, "mask": mask}
    expected = F.mse_loss(model(inputs)[mask], targets[mask])
    objective = Supervised(loss=F.mse_loss)
    torch.testing.assert_close(objective(model, batch)["loss"], expected)
    (slope,) = torch.autograd.grad(expected, model.weight)
    halves = [{name: column[rows] for name, column in batch.items()} for rows in (slice(0, 2), slice(2, 6))]
    found, gradient = step_of(objective, model, halves)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(gradient, slope)
    scores = evaluate(model, TensorData(inputs, targets, mask=mask), loss=F.mse_loss, batch_size=4)
    assert scores == {"loss": pytest.approx(expected.item())}


def test_a_loss_may_give_one_value_for_each_sample():
    def angle(outputs, targets, reduction):
        return 1 - torch.cosine_similarity(outputs, targets, dim=-1)

    inputs, targets = torch.randn(6, 4), torch.randn(6, 3)
    model = nn.Linear(4, 3)
    expected = angle(model(inputs), targets, "none").mean()
    torch.testing.assert_close(Supervised(loss=angle)(model, {"inputs": inputs, "targets": targets})["loss"], expected)
    assert evaluate(model, TensorData(inputs, targets), loss=angle)["loss"] == pytest.approx(expected.item())


def test_regression_trains_is_validated_by_its_own_loss_and_is_distilled(numbers):
    torch.manual_seed(0)
    teacher, student = nn.Linear(4, 2), nn.Linear(4, 2)
    history = fit(teacher, numbers, objective=Supervised(loss=HUBER), strategy=FullFineTuning(lr=0.1), epochs=60)
    assert history.steps[-1]["loss"] < 0.05
    history = fit(
        student,
        numbers[:20],
        transfer_data=numbers[20:].without_labels(),
        val_data=numbers,
        objective=0.1 * Supervised(loss=HUBER) + LogitMatching(teacher),
        strategy=FullFineTuning(lr=0.1),
        steps=150,
    )
    assert [*history.epochs[-1]][2:] == ["loss", "supervised/loss", "logit_matching/kd", "val_loss"]
    assert history.epochs[-1]["val_loss"] == evaluate(student, numbers, loss=HUBER)["loss"] < 0.05
    torch.testing.assert_close(student.weight, teacher.weight, rtol=0, atol=0.05)


def test_transfer_data_teaches_no_numbers(numbers):
    """Rows without targets count for the teacher alone; as −100 they would pull the student down."""
    torch.manual_seed(0)
    model, other = nn.Linear(4, 2), nn.Linear(4, 2)
    other.load_state_dict(model.state_dict())
    run = {"objective": Supervised(loss=F.mse_loss), "strategy": FULL, "steps": 5, "batch_size": 10}
    alone = fit(model, numbers[:10], **run)
    joined = fit(other, numbers[:10], transfer_data=numbers[20:].without_labels(), **run)
    assert [step["loss"] for step in alone.steps] == pytest.approx([step["loss"] for step in joined.steps], rel=1e-5)
    torch.testing.assert_close(model.weight, other.weight)


@pytest.mark.parametrize("flat", [False, True])
def test_matching_of_single_outputs_is_their_squared_distance(numbers, flat):
    student, teacher = ([nn.Linear(4, 1), nn.Flatten(0)][: 1 + flat] for _ in range(2))
    student, teacher = nn.Sequential(*student), nn.Sequential(*teacher)
    batch = {"inputs": numbers.inputs, "targets": numbers.targets[:, 0]}
    found = LogitMatching(teacher)(student, batch)["logit_matching/kd"]
    torch.testing.assert_close(found, F.mse_loss(student(numbers.inputs), teacher(numbers.inputs)))
    with pytest.raises(ValueError, match=r"use int64 for those, Supervised\(loss=.*\) for numbers"):
        LogitMatching(teacher, ce_weight=1.0)(student, batch)


def test_losses_that_are_none_are_refused():
    for wrong in (nn.MSELoss(), nn.MSELoss, "mse", lambda outputs, targets: outputs):
        with pytest.raises(TypeError, match=r"loss is .*; it must be a function f\(outputs, targets, reduction"):
            Supervised(loss=wrong)
        with pytest.raises(TypeError, match="it must be a function f"):
            evaluate(nn.Linear(4, 1), TensorData(torch.zeros(2, 4), torch.zeros(2)), loss=wrong)
    for more in ({"label_smoothing": 0.1}, {"multi_label": True}, {"weight": [1.0, 2.0]}):
        with pytest.raises(ValueError, match="loss takes the place of the cross-entropy"):
            Supervised(loss=F.mse_loss, **more)
    batch = {"inputs": torch.zeros(2, 4), "targets": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"loss returned shape \(\) for outputs of shape \(2,\)"):
        Supervised(loss=lambda outputs, targets, reduction: (outputs - targets).mean())(nn.Linear(4, 1), batch)


def test_half_precision_is_widened_for_losses():
    model, inputs = nn.Linear(4, 3).bfloat16(), torch.randn(5, 4).bfloat16()
    for objective, targets in ((Supervised(), torch.arange(5) % 3), (Supervised(loss=F.mse_loss), torch.randn(5, 3))):
        assert objective(model, {"inputs": inputs, "targets": targets})["loss"].dtype == torch.float32


# Classes that do not count alike ------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [[0.01, 0.02, 0.005], torch.tensor([3.0, 0.0, 1.0])])
def test_weights_are_torchs_over_parts_that_have_other_classes(blobs, weight, smoothing):
    """The mean divides by the sum of weights over the step, not over a part, and not by less than it is."""
    torch.manual_seed(0)
    targets = blobs.targets[:30].sort().values
    targets[4:7] = UNLABELED
    batch, model = {"inputs": blobs.inputs[:30], "targets": targets}, nn.Linear(4, 3)
    expected = F.cross_entropy(
        model(batch["inputs"]), targets, weight=torch.as_tensor(weight), label_smoothing=smoothing
    )
    (slope,) = torch.autograd.grad(expected, model.weight)
    objective = Supervised(weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(objective(model, batch)["supervised/ce"], expected)
    parts = [{name: column[rows] for name, column in batch.items()} for rows in (slice(0, 11), slice(11, 30))]
    found, gradient = step_of(objective, model, parts)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(gradient, slope)


def test_two_terms_with_other_weights_divide_by_their_own(blobs):
    model, parts = nn.Linear(4, 3), [*blobs[:20].batches(7)]
    first, second = [1.0, 5.0, 0.5], [0.1, 0.1, 2.0]
    both = Supervised(weight=first) + 0.5 * Supervised(weight=second) + SoftTargets(nn.Linear(4, 3))
    found, _ = step_of(both, model, parts)
    for name, weight in (("supervised/ce", first), ("supervised_2/ce", second), ("soft_targets/ce", [1.0, 1.0, 1.0])):
        expected = F.cross_entropy(model(blobs.inputs[:20]), blobs.targets[:20], weight=torch.tensor(weight))
        torch.testing.assert_close(found[name], expected)


def test_weights_train_alike_in_one_part_and_in_three(blobs):
    ends = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        run = {"strategy": FULL, "steps": 6, "batch_size": 24, "accumulate": accumulate}
        history = fit(model, blobs, objective=Supervised(weight=[1.0, 20.0, 0.1]), **run)
        ends.append((model.weight, torch.tensor([step["loss"] for step in history.steps])))
    torch.testing.assert_close(*ends)


def test_a_batch_without_a_weighed_label_counts_nothing(blobs):
    batch = {"inputs": blobs.inputs[:3], "targets": torch.tensor([1, UNLABELED, 1])}
    assert Supervised(weight=[1.0, 0.0, 1.0])(nn.Linear(4, 3), batch)["loss"] == 0


def test_wrong_weights_are_named(blobs):
    for wrong in ([1.0, -1.0], [math.nan, 1.0], [0.0, 0.0], [[1.0, 1.0]], [math.inf, 1.0]):
        with pytest.raises(ValueError, match="it must hold a number for each class"):
            Supervised(weight=wrong)
    with pytest.raises(ValueError, match="weight weighs classes that exclude one another"):
        Supervised(weight=[1.0, 2.0], multi_label=True)
    batch = next(blobs.batches(6))
    with pytest.raises(ValueError, match="weight has 2 entries and the logits 3 classes"):
        Supervised(weight=[1.0, 2.0])(nn.Linear(4, 3), batch)
    run = {"objective": Supervised(weight=[1.0, 2.0, 1.0]), "strategy": FULL, "steps": 1}
    with pytest.raises(ValueError, match="targets holds 7; it must be from 0 to 2, or -100"):
        fit(nn.Linear(4, 3), TensorData(blobs.inputs, torch.full((120,), 7)), **run)
    with pytest.raises(ValueError, match="multi-label targets have, but Supervised takes classes"):
        fit(nn.Linear(4, 3), TensorData(blobs.inputs, torch.zeros(120, 3)), **run)
    assert "weight=(1.0, 2.0, 1.0)" in repr(run["objective"])
