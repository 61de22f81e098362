from __future__ import annotations

import pytest
import torch
from torch import nn

from kdft_lib import metrics
from kdft_lib.data import UNLABELED


def test_accuracy_and_cross_entropy_leave_the_unlabeled_out():
    logits, targets = torch.randn(10, 3), torch.arange(10) % 3
    targets[4:] = UNLABELED
    assert metrics.accuracy(logits, targets) == metrics.accuracy(logits[:4], targets[:4])
    expected = nn.functional.cross_entropy(logits[:4].double(), targets[:4]).item()
    assert metrics.cross_entropy(logits, targets) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    logits = torch.stack([confidence.log(), (1 - confidence).log()], dim=1)
    targets = torch.tensor([0, 0, 0, 1, 0, 1])
    expected = 4 / 6 * abs(0.9 - 0.75) + 2 / 6 * abs(0.6 - 0.5)
    assert metrics.calibration_error(logits, targets) == pytest.approx(expected, abs=1e-6)


def test_agreement_asks_for_decisions_not_for_truth():
    student = torch.eye(3)
    assert metrics.agreement(student, student * 5) == 1.0
    assert metrics.agreement(student, student.roll(1, dims=1)) == 0.0
    with pytest.raises(ValueError, match=r"student_logits has shape \(3, 3\) and teacher_logits \(2, 3\)"):
        metrics.agreement(student, student[:2])


def test_tied_parameters_count_once():
    first = nn.Linear(3, 3)
    assert metrics.parameters(nn.Sequential(first, first)) == 12


def test_latency_is_in_milliseconds_and_changes_nothing(net):
    import time

    class Slow(nn.Identity):
        def forward(self, inputs):
            time.sleep(0.005)
            return super().forward(inputs)

    model = nn.Sequential(Slow(), nn.Dropout()).train()
    found = metrics.latency(model, torch.zeros(1, 3), repeats=5)
    assert 4 < found.median <= found.percentile95 < 100
    assert model.training
    with pytest.raises(ValueError, match="repeats is 1"):
        metrics.latency(model, torch.zeros(1, 3), repeats=1)


@pytest.mark.parametrize("score", [metrics.accuracy, metrics.cross_entropy, metrics.calibration_error])
def test_bad_input_is_named(score):
    with pytest.raises(ValueError, match=r"logits has shape \(2, 3\) and targets \(3,\)"):
        score(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="targets holds no label"):
        score(torch.zeros(2, 3), torch.full((2,), UNLABELED))
