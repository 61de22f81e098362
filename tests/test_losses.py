"""Losses against closed forms computed apart, in float64, by numpy and scipy."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from kdft_lib.losses import hard_target_loss, soft_target_loss

SHAPES = [(5, 10), (1, 3), (7, 2), (2, 6, 11), (3, 1000), (4,)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


def pair(shape, scale=3.0, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.to(dtype), teacher.to(dtype)


def soft_closed_form(student, teacher, temperature):
    student, teacher = (numpy.asarray(logits.double()) / temperature for logits in (student, teacher))
    log_ratio = log_softmax(teacher, -1) - log_softmax(student, -1)
    return temperature**2 * (softmax(teacher, -1) * log_ratio).sum(-1)


def hard_closed_form(student, teacher):
    student, teacher = (numpy.asarray(logits.double()) for logits in (student, teacher))
    decision = teacher.argmax(-1)[..., None]
    return -numpy.take_along_axis(log_softmax(student, -1), decision, -1)[..., 0]


def value_and_gradient(loss, student, teacher, *args, **keywords):
    student = student.clone().requires_grad_()
    value = loss(student, teacher, *args, **keywords)
    value.sum().backward()
    return value.detach(), student.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_soft_targets_are_exact(shape, temperature, dtype):
    student, teacher = pair(shape, dtype=dtype)
    expected = torch.from_numpy(numpy.asarray(soft_closed_form(student, teacher, temperature)))
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    for reduction, value in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        found, gradient = value_and_gradient(soft_target_loss, student, teacher, temperature, reduction=reduction)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), value, **tolerance)
        gap = softmax(student.double() / temperature, -1) - softmax(teacher.double() / temperature, -1)
        scale = temperature / (expected.numel() if reduction == "mean" else 1)
        torch.testing.assert_close(gradient.double(), torch.from_numpy(gap) * scale, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_hard_targets_are_exact(shape, dtype):
    student, teacher = pair(shape, dtype=dtype)
    expected = torch.from_numpy(numpy.asarray(hard_closed_form(student, teacher)))
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    for reduction, value in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        found, gradient = value_and_gradient(hard_target_loss, student, teacher, reduction=reduction)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), value, **tolerance)
        gap = student.double().softmax(-1) - F.one_hot(teacher.argmax(-1), shape[-1])
        scale = 1 / (expected.numel() if reduction == "mean" else 1)
        torch.testing.assert_close(gradient.double(), gap * scale, **tolerance)


def test_values_worked_by_hand():
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    # KL(σ(−2) ‖ σ(2)) = 2 · (σ(2) − σ(−2)) = 2 · tanh(1)
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(2 * math.tanh(1), abs=1e-6)
    assert hard_target_loss(student, teacher).item() == pytest.approx(2 + math.log1p(math.exp(-2)), abs=1e-6)


@pytest.mark.parametrize("loss", [soft_target_loss, hard_target_loss])
def test_gradcheck(loss):
    student, teacher = pair((3, 5), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, teacher), student.requires_grad_())


AWKWARD = {
    "saturated": (torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])),
    "saturated alike": (torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[1e4, -1e4, 0.0]])),
    "masked": (torch.tensor([[1.0, -math.inf, 0.0]]), torch.tensor([[0.0, -math.inf, 2.0]])),
    "masked and saturated": (torch.tensor([[1e4, -math.inf, -1e4]]), torch.tensor([[-1e4, -math.inf, 1e4]])),
    "all but one masked": (torch.tensor([[3.0, -math.inf, -math.inf]]), torch.tensor([[1.0, -math.inf, -math.inf]])),
    "constant": (torch.full((2, 3), 7.0), torch.full((2, 3), -7.0)),
    "duplicate rows": (torch.tensor([[1.0, 2.0]] * 3), torch.tensor([[2.0, 1.0]] * 3)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_logits_are_finite_and_exact(case, dtype):
    student, teacher = (logits.to(dtype) for logits in AWKWARD[case])
    kept = torch.isfinite(student[0])
    tolerance = {"rtol": 2e-5, "atol": 2e-5}
    for temperature in (1.0, 4.0):
        value, gradient = value_and_gradient(soft_target_loss, student, teacher, temperature)
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        expected = soft_closed_form(student[:, kept], teacher[:, kept], temperature).mean()
        torch.testing.assert_close(value.double(), torch.tensor(expected), **tolerance)
        gap = (student.double() / temperature).softmax(-1) - (teacher.double() / temperature).softmax(-1)
        half = {"rtol": 1e-2, "atol": 1e-2} if dtype.itemsize == 2 else tolerance
        torch.testing.assert_close(gradient.double(), gap * temperature / len(student), **half)
    value, gradient = value_and_gradient(hard_target_loss, student, teacher)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(value.double(), torch.tensor(hard_closed_form(student, teacher).mean()), **tolerance)


def test_a_class_that_only_the_student_masks_costs_infinitely():
    assert soft_target_loss(torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)).item() == math.inf


def test_mixed_precision_inputs_are_computed_in_the_wider():
    student, teacher = pair((4, 5))
    assert soft_target_loss(student.double(), teacher).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = soft_target_loss(student, teacher)
    torch.testing.assert_close(inside, soft_target_loss(student, teacher))


@pytest.mark.parametrize("loss", [soft_target_loss, hard_target_loss])
def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = (logits.requires_grad_() for logits in pair((4, 5)))
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_masked_positions_may_hold_anything():
    student, teacher = pair((2, 3, 5))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = soft_target_loss(student[mask], teacher[mask])
    student[~mask], teacher[~mask] = math.nan, math.inf
    value, gradient = value_and_gradient(soft_target_loss, student, teacher, mask=mask)
    torch.testing.assert_close(value, expected)
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).all()
    assert (soft_target_loss(student, teacher, mask=mask, reduction="none")[~mask] == 0).all()


logits_pairs = st.tuples(st.integers(1, 5), st.integers(2, 8), st.integers(0, 2**20)).map(
    lambda drawn: pair(drawn[:2], seed=drawn[2], dtype=torch.float64)
)
temperatures = st.floats(0.1, 50)


@settings(max_examples=60, deadline=None)
@given(logits_pairs, temperatures, st.floats(-100, 100))
def test_soft_targets_invariants(logits, temperature, shift):
    student, teacher = logits
    loss = soft_target_loss(student, teacher, temperature)
    close = {"rtol": 1e-8, "atol": 1e-8}
    assert loss >= 0
    torch.testing.assert_close(soft_target_loss(student, student, temperature), torch.zeros_like(loss), **close)
    torch.testing.assert_close(soft_target_loss(student + shift, teacher - shift, temperature), loss, **close)
    classes, samples = torch.randperm(student.shape[1]), torch.randperm(student.shape[0])
    torch.testing.assert_close(
        soft_target_loss(student[samples][:, classes], teacher[samples][:, classes], temperature), loss, **close
    )


def test_limits_of_the_temperature():
    student, teacher = pair((6, 5), dtype=torch.float64)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    matching = (centred**2).sum(-1).mean() / (2 * 5)
    torch.testing.assert_close(soft_target_loss(student, teacher, 1e4), matching, rtol=1e-3, atol=0)
    cold = soft_target_loss(student, teacher, 1e-3)
    highest = student.gather(-1, teacher.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(cold, 1e-3 * (student.max(-1).values - highest).mean(), rtol=1e-3, atol=1e-6)


def test_the_mean_is_over_samples_not_over_classes():
    student, teacher = pair((8, 100))
    with pytest.warns(UserWarning, match="divides the total loss by both the batch size and the support size"):
        wrong = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="mean")
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(100 * wrong.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), {}, r"student_logits has shape \(2, 3\).*teacher_logits \(2, 4\)"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), {}, r"student_logits has shape \(0, 3\).*at least one sample"),
        ((torch.tensor(1.0), torch.tensor(1.0)), {}, "at least one sample and one class"),
        ((torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3)), {}, "student_logits has dtype torch.int64"),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), {"reduction": "batchmean"}, "reduction is 'batchmean'"),
    ],
)
@pytest.mark.parametrize("loss", [soft_target_loss, hard_target_loss])
def test_bad_input_is_named(loss, arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **keywords)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}; it must be positive and finite"):
        soft_target_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


def test_bad_masks_are_named():
    logits = torch.zeros(2, 3, 5)
    with pytest.raises(ValueError, match=r"mask has shape \(2,\).*\(2, 3\)"):
        soft_target_loss(logits, logits, mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"dtype torch\.float32"):
        soft_target_loss(logits, logits, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match="counts no position"):
        soft_target_loss(logits, logits, mask=torch.zeros(2, 3, dtype=torch.bool))
