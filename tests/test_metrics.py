from __future__ import annotations

import itertools

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


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("positive", [0, 2])
def test_a_rare_class_is_scored_as_scikit_learn_does(scale, ties, positive):
    from sklearn.metrics import average_precision_score, f1_score

    logits, targets = torch.randn(300, 3, dtype=torch.float64), torch.randint(3, (300,))
    logits = (2 * logits).round() * scale if ties else logits * scale
    targets[:50] = UNLABELED
    kept, wanted = logits[50:], targets[50:] == positive
    others = [label for label in range(3) if label != positive]
    odds = kept[:, positive] - kept[:, others].logsumexp(1)
    found = metrics.average_precision(logits, targets, positive)
    assert found == pytest.approx(average_precision_score(wanted, odds), abs=1e-6)
    for threshold in (0.0, 0.3, 0.5):
        expected = f1_score(wanted, odds.sigmoid() >= threshold)
        assert metrics.f1(logits, targets, positive, threshold=threshold) == pytest.approx(expected)
    best = metrics.best_threshold(logits, targets, positive)
    highest = max(f1_score(wanted, odds.sigmoid() >= threshold) for threshold in odds.sigmoid().unique())
    assert metrics.f1(logits, targets, positive, threshold=best) == pytest.approx(highest)


def test_a_threshold_lies_between_two_samples_and_near_a_half():
    odds = torch.tensor([-3.0, -2.0, 2.0, 3.0])
    logits = torch.stack([torch.zeros(4), odds], 1)
    assert metrics.best_threshold(logits, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    assert metrics.best_threshold(logits, torch.tensor([1, 0, 1, 1])) == 0.0
    assert metrics.f1(logits, torch.zeros(4, dtype=torch.int64)) == 0.0


def test_average_precision_orders_what_a_network_is_sure_of():
    """Sigmoids of 50 and of 60 are the same number."""
    logits = torch.stack([torch.zeros(3), torch.tensor([60.0, 50.0, 40.0])], 1)
    assert metrics.average_precision(logits, torch.tensor([1, 0, 0])) == 1.0
    assert metrics.average_precision(logits, torch.tensor([0, 0, 1])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [metrics.average_precision, metrics.best_threshold])
def test_a_class_that_is_nowhere_is_named(score):
    with pytest.raises(ValueError, match=r"targets holds no sample of class 1; there is nothing to find"):
        score(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="positive is 2; with 2 classes it must be from 0 to 1"):
        score(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="threshold is 2; it is a probability"):
        metrics.f1(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), threshold=2)


RARE = [metrics.average_precision, metrics.f1, metrics.best_threshold]


@pytest.mark.parametrize("score", [metrics.accuracy, metrics.cross_entropy, metrics.calibration_error, *RARE])
def test_bad_input_is_named(score):
    with pytest.raises(ValueError, match=r"logits has shape \(2, 3\) and targets \(3,\)"):
        score(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="targets holds no label"):
        score(torch.zeros(2, 3), torch.full((2,), UNLABELED))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_what_is_found_is_what_torchmetrics_finds(k):
    from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg

    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(50, 20, generator=generator), torch.randint(20, (50,), generator=generator)
    wanted = nn.functional.one_hot(targets, 20).bool()
    hits = [retrieval_hit_rate(row, one, top_k=k).item() for row, one in zip(scores, wanted, strict=True)]
    gains = [retrieval_normalized_dcg(row, one, top_k=k).item() for row, one in zip(scores, wanted, strict=True)]
    assert metrics.recall(scores, targets, k) == pytest.approx(sum(hits) / 50)
    assert metrics.ndcg(scores, targets, k) == pytest.approx(sum(gains) / 50, abs=1e-6)


def test_documents_of_the_same_score_share_their_places():
    scores = torch.tensor([[0.5, 0.5, 0.9, 0.1], [0.0, 0.0, 0.0, 0.0]])
    assert metrics.places(scores, torch.tensor([1, 3])).tolist() == [2.5, 2.5]
    assert metrics.recall(scores, torch.tensor([1, 3]), k=2) == 0.5
    assert metrics.recall(scores, torch.tensor([1, 3]), k=3) == 0.875


@pytest.mark.parametrize("count", [5, 19, 100])
def test_a_model_that_tells_nothing_finds_what_chance_finds(count):
    told, order = torch.zeros(1, count), torch.arange(count).float().flip(0)
    each = [(order.roll(shift).unsqueeze(0), torch.tensor([0])) for shift in range(count)]
    for score in (metrics.recall, metrics.ndcg):
        chance = sum(score(*one) for one in each) / count
        assert score(told, torch.tensor([3])) == pytest.approx(chance)


def test_the_surest_answers_are_in_the_last_bin():
    sure, less = torch.tensor([20.0, 0.0]), torch.tensor([3.0, 0.0])
    logits, targets = torch.stack([sure] * 10 + [less] * 10), torch.tensor([0] * 9 + [1] + [0] * 10)
    confidence = logits.double().softmax(-1).amax(-1)
    wanted = (confidence.sum() - 19).abs().item() / 20
    assert metrics.calibration_error(logits, targets) == pytest.approx(wanted, abs=1e-6)


def test_no_percentile_is_beyond_what_was_measured(monkeypatch):
    ticks = itertools.accumulate([*[0.0, 0.001] * 9, 0.0, 0.002])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(ticks))
    found = metrics.latency(nn.Linear(2, 2), torch.zeros(1, 2), repeats=5)
    assert found.median == pytest.approx(1.0)
    assert 1.0 < found.percentile95 <= 2.0


@pytest.mark.parametrize("score", [metrics.places, metrics.recall, metrics.ndcg])
def test_what_cannot_be_found_is_named(score):
    with pytest.raises(ValueError, match=r"scores has shape \(2, 3\) and targets \(3,\) of dtype torch.int64"):
        score(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="targets holds 3; it must be from 0 to 2, the row of a document"):
        score(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="not a number"):
        score(torch.full((2, 3), torch.nan), torch.tensor([0, 1]))


def test_nobody_looks_at_no_document():
    with pytest.raises(ValueError, match="k is 0; it must be 1 or more"):
        metrics.recall(torch.zeros(2, 3), torch.tensor([0, 1]), k=0)


class OnApple(torch.Tensor):
    """A tensor as on Apple's devices, which have no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs)
        if func == torch.Tensor.device.__get__:
            return torch.device("mps")
        if func is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if isinstance(found, cls) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


APPLE = [
    "accuracy",
    "cross_entropy",
    "calibration_error",
    "agreement",
    "average_precision",
    "f1",
    "best_threshold",
    "recall",
    "ndcg",
]


@pytest.mark.parametrize("name", APPLE)
def test_no_metric_needs_float64_of_a_device(name):
    generator = torch.Generator().manual_seed(0)
    logits, others = torch.randn(2, 60, 3, generator=generator)
    given = others if name == "agreement" else torch.randint(3, (60,), generator=generator)
    score = getattr(metrics, name)
    with pytest.raises(TypeError, match="MPS"):
        logits.as_subclass(OnApple).double()
    assert score(logits.as_subclass(OnApple), given.as_subclass(OnApple)) == pytest.approx(score(logits, given))
