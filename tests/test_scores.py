"""What ``evaluate`` adds up is what all outputs at once would come to, and nothing of the data stays."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.regression import R2Score

from kdft_lib import metrics
from kdft_lib.data import UNLABELED, TensorData
from kdft_lib.training import evaluate, predict


def at_once(logits, targets):
    """As it was before: everything in memory, in float64."""
    return {"accuracy": metrics.accuracy(logits, targets), "loss": F.cross_entropy(logits.double(), targets).item()}


@pytest.fixture
def partly(blobs):
    """Labels that are missing unevenly, in one batch all of them."""
    targets = blobs.targets.clone()
    targets[30:60] = UNLABELED
    targets[torch.rand(120, generator=torch.Generator().manual_seed(0)) < 0.3] = UNLABELED
    return TensorData(blobs.inputs, targets)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 512])
def test_sums_are_the_means_of_all_at_once(partly, batch_size):
    model = nn.Linear(4, 3).double()  # In float32 some processors round a batch's rows by their number.
    partly = TensorData(partly.inputs.double(), partly.targets)
    scores = evaluate(model, partly, batch_size=batch_size)
    expected = at_once(predict(model, partly), partly.targets)
    assert scores["accuracy"] == expected["accuracy"]
    assert scores["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert [*scores] == ["accuracy", "loss"]


def test_more_classes_than_a_block_holds():
    logits, targets = torch.randn(3, 300_000) * 10, torch.tensor([5, 299_999, 0])
    found = evaluate(nn.Identity(), TensorData(logits, targets))
    assert found["loss"] == pytest.approx(F.cross_entropy(logits.double(), targets).item(), rel=1e-12)
    saturated = torch.tensor([[1e4, -1e4], [0.0, -torch.inf]])
    assert evaluate(nn.Identity(), TensorData(saturated, torch.tensor([1, 0])))["loss"] == 1e4


def test_dense_outputs_of_any_layout(blobs):
    images, targets = torch.randn(10, 3, 4, 5), torch.randint(0, 3, (10, 4, 5))
    targets[:3] = UNLABELED
    found = evaluate(nn.Identity(), TensorData(images, targets), class_dim=1, batch_size=4)
    expected = F.cross_entropy(images.double(), targets).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-12)
    assert found["accuracy"] == (images.argmax(1) == targets)[3:].double().mean().item()


def test_what_a_mask_leaves_out_is_not_scored():
    logits, targets, mask = torch.randn(6, 5, 3), torch.randint(0, 3, (6, 5)), torch.rand(6, 5) < 0.5
    logits[~mask] = torch.nan
    found = evaluate(nn.Identity(), TensorData(logits, targets, mask=mask), batch_size=4)
    assert found == {name: pytest.approx(score) for name, score in at_once(logits[mask], targets[mask]).items()}
    with pytest.raises(ValueError, match=r"mask has shape \(6, 1\); it must be \(6, 5\)"):
        evaluate(nn.Identity(), TensorData(logits, targets, mask=mask[:, :1]))


def test_several_labels_at_once_are_scored_over_all_classes():
    logits, targets = torch.randn(50, 4), torch.randint(0, 2, (50, 4)).float()
    targets[10:25] = UNLABELED
    found = evaluate(nn.Identity(), TensorData(logits, targets), batch_size=8)
    kept = [*range(10), *range(25, 50)]
    assert found["accuracy"] == ((logits > 0) == (targets > 0.5))[kept].double().mean().item()
    expected = F.binary_cross_entropy_with_logits(logits[kept].double(), targets[kept].double()).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-12)


def test_nothing_of_the_data_stays():
    """Of inputs and, but in what predict returns, of outputs, one batch lives at a time."""
    alive, most, waiting = [], [], []

    class Watched(nn.Module):
        def forward(self, inputs):
            outputs = inputs.flatten(1)[:, :3].clone()
            alive.extend(weakref.ref(tensor) for tensor in (inputs, outputs))
            most.append(sum(ref() is not None for ref in alive))
            return outputs

    def loader():
        for _ in range(6):
            waiting.append(sum(ref() is not None for ref in alive))
            yield torch.randn(4, 8), torch.zeros(4, dtype=torch.int64)

    gc.disable()
    try:
        evaluate(Watched(), loader(), metrics={"f1": MulticlassF1Score(3)})
        assert max(most) == 2
        assert max(waiting) == 0, "a batch is held while the next is made"
        alive.clear(), most.clear()
        predict(Watched(), loader())
        assert most == [2 + k for k in range(6)], "inputs stay"
    finally:
        gc.enable()


def test_nothing_is_read_before_the_end(partly, monkeypatch):
    """On a GPU each number that is read in a batch would wait for all that was queued."""
    model, read = nn.Linear(4, 3), []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, own=own: (read.append(1), own(self))[1])
    counts = []
    for batch_size in (10, 60):
        read.clear()
        evaluate(model, partly, batch_size=batch_size)
        counts.append(len(read))
    assert counts[0] == counts[1]


# Metrics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [7, 512])
def test_metrics_of_torchmetrics_and_functions_see_what_is_labelled(partly, batch_size):
    model, f1 = nn.Linear(4, 3), MulticlassF1Score(3, average="macro")
    f1.update(torch.eye(3), torch.tensor([1, 1, 1]))
    before = copy.deepcopy(f1.metric_state)
    named = {"f1": f1, "ece": metrics.calibration_error, "count": lambda outputs, targets: len(targets)}
    found = evaluate(model, partly, metrics=named, batch_size=batch_size)
    kept = partly.targets != UNLABELED
    logits, targets = predict(model, partly)[kept], partly.targets[kept]
    assert [*found] == ["accuracy", "loss", "f1", "ece", "count"]
    assert found["f1"] == pytest.approx(MulticlassF1Score(3, average="macro")(logits, targets).item())
    assert found["ece"] == pytest.approx(metrics.calibration_error(logits, targets))
    assert found["count"] == kept.sum()
    assert all(isinstance(score, float) for score in found.values())
    assert before.keys() == f1.metric_state.keys()
    assert all(torch.equal(before[name], f1.metric_state[name]) for name in before), "the caller's metric changed"


def test_metrics_of_numbers(partly):
    targets = partly.inputs[:, 0] * 2
    model = nn.Linear(4, 1)
    found = evaluate(
        model, TensorData(partly.inputs, targets), loss=F.mse_loss, metrics={"r2": R2Score()}, batch_size=9
    )
    assert [*found] == ["loss", "r2"]
    assert found["r2"] == pytest.approx(R2Score()(predict(model, partly).squeeze(1), targets).item(), abs=1e-5)


def test_metrics_that_give_no_number_are_named(blobs):
    model = nn.Linear(4, 3)
    each = MulticlassAccuracy(3, average=None)
    for wrong, message in (
        ({"each": each}, r"metrics\['each'\] gave 3 values; .* average=\"macro\""),
        ({"all": MetricCollection([each])}, "gave scores named MulticlassAccuracy; .* each metric of a collection by"),
        ({"rows": lambda outputs, targets: targets}, "gave 120 values"),
        ({"loss": MulticlassF1Score(3)}, "metrics names one 'loss', which is scored anyway"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            evaluate(model, blobs, metrics=wrong)
    for wrong, message in (
        ({"f1": MulticlassF1Score}, "made with its arguments"),
        ({"f1": "f1"}, "metrics.*is 'f1'; give a metric"),
        ([each], 'give them by name, as metrics={"f1": …}'),
    ):
        with pytest.raises(TypeError, match=message):
            evaluate(model, blobs, metrics=wrong)


# Mistakes -----------------------------------------------------------------------------------------


def test_targets_that_cannot_be_scored_are_named(blobs):
    model = nn.Linear(4, 3)
    for targets, message in (
        (torch.arange(120), "targets holds 119; it must be from 0 to 2, or -100 for no label"),
        (torch.full((120,), -1), "targets holds -1; it must be from 0 to 2"),
        (torch.full((120,), UNLABELED), "targets holds no label"),
        (torch.zeros(120, 2).long(), r"logits has shape \(120, 3\) and targets \(120, 2\)"),
        (torch.zeros(120), "numbers need a loss, such as loss=torch.nn.functional.mse_loss"),
        (torch.zeros(120, 2), r"multi-label targets have the logits' shape, \(120, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(model, TensorData(blobs.inputs, targets))
    with pytest.raises(ValueError, match="data is empty"):
        evaluate(model, blobs[:0])


def test_rows_are_not_paired_by_their_number_alone():
    turned = TensorData(torch.randn(3, 4, 5), torch.randint(5, (3, 4)).T.contiguous().view(3, 4))
    assert evaluate(nn.Identity(), turned)["accuracy"] >= 0

    class Turned(nn.Module):
        def forward(self, inputs):
            return inputs.transpose(0, 1)

    with pytest.raises(ValueError, match=r"logits has shape \(4, 3, 5\) and targets \(3, 4\)"):
        evaluate(Turned(), TensorData(torch.randn(3, 4, 5), torch.randint(5, (3, 4))))


def test_numbers_are_no_labels():
    data = TensorData(torch.ones(4, 1), torch.full((4, 1), 20.0))
    with pytest.raises(ValueError, match="numbers need a loss"):
        evaluate(nn.Linear(1, 1), data)
