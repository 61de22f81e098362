"""Losses against the papers' formulas, written out plainly in float64 (closed_forms.py)."""

from __future__ import annotations

import functools
import math

import closed_forms
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdft_lib import losses
from kdft_lib.losses import (
    attention_transfer_loss,
    contrastive_loss,
    cosine_loss,
    dist_loss,
    divergences,
    dkd_loss,
    hard_target_loss,
    hint_loss,
    jensen_shannon_loss,
    logit_mse_loss,
    reverse_kl_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
    soft_target_loss,
    standardize_logits,
    total_variation_loss,
    variation,
)
from kdft_lib.losses.divergences import LARGE, rowwise

SHAPES = [(5, 10), (1, 3), (7, 2), (2, 6, 11), (3, 1000), (4,), (700, 400)]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]
FINE, DOUBLE = {"rtol": 2e-5, "atol": 2e-5}, {"rtol": 1e-10, "atol": 1e-10}
TOLERANCES = {torch.float32: FINE, torch.float64: DOUBLE}


def targets_for(logits):
    """A class for each position, the same for the same shape."""
    positions = torch.arange(logits[..., 0].numel()).reshape(logits.shape[:-1])
    return (3 * positions + 1) % logits.shape[-1]


def decoupled_for(loss):
    return lambda student, teacher, temperature=4.0, **more: loss(
        student, teacher, targets_for(student), 0.7, 3.0, temperature, **more
    )


TEMPERED = {
    "soft": (soft_target_loss, closed_forms.soft),
    "reverse": (reverse_kl_loss, closed_forms.reverse),
    "jensen shannon": (
        lambda s, t, temperature=1.0, **more: jensen_shannon_loss(s, t, 0.3, temperature, **more),
        lambda s, t, temperature=1.0: closed_forms.jensen_shannon(s, t, 0.3, temperature),
    ),
    "variation": (total_variation_loss, closed_forms.variation),
    "decoupled": (decoupled_for(dkd_loss), decoupled_for(closed_forms.decoupled)),
}
LOGIT_LOSSES = TEMPERED | {
    "hard": (hard_target_loss, closed_forms.hard),
    "logit mse": (logit_mse_loss, closed_forms.logit_mse),
}
FEATURE_LOSSES = {
    "hint": (hint_loss, closed_forms.hint),
    "cosine": (cosine_loss, closed_forms.cosine),
    "attention": (attention_transfer_loss, closed_forms.attention),
}
BATCH_LOSSES = {
    "similarity": (similarity_preserving_loss, closed_forms.similarity),
    "distance": (rkd_distance_loss, closed_forms.distance),
    "angle": (rkd_angle_loss, closed_forms.angle),
}
CONTRAST = {"contrast": (contrastive_loss, closed_forms.contrastive)}
OF_FEATURES = FEATURE_LOSSES | BATCH_LOSSES | CONTRAST


def pair(shape, scale=3.0, dtype=torch.float32, seed=0, other=None):
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(other or shape, generator=generator, dtype=torch.float64)
    return student.to(dtype), teacher.to(dtype)


def value_and_gradient(loss, student, teacher, *args, **keywords):
    student = student.clone().requires_grad_()
    value = loss(student, teacher, *args, **keywords)
    value.sum().backward()
    return value.detach(), student.grad


def assert_exact(loss, closed_form, student, teacher, *args, tolerance=None, **keywords):
    tolerance = tolerance or TOLERANCES[student.dtype]
    expected, slope = value_and_gradient(closed_form, student.double(), teacher.double(), *args)
    reduce = {"none": lambda values: values, "sum": torch.sum, "mean": torch.mean}[keywords.get("reduction", "none")]
    expected, slope = value_and_gradient(
        lambda s, t: reduce(closed_form(s, t, *args)), student.double(), teacher.double()
    )
    found, gradient = value_and_gradient(loss, student, teacher, *args, **keywords)
    assert found.dtype == (torch.float64 if student.dtype == torch.float64 else torch.float32)
    assert gradient.dtype == student.dtype
    torch.testing.assert_close(found.double(), expected, **tolerance)
    torch.testing.assert_close(gradient.double(), slope, **tolerance)


# Logits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TEMPERED)
def test_divergences_are_exact(name, shape, temperature, dtype):
    for reduction in ("none", "sum", "mean"):
        if math.prod(shape) < 2000 or (reduction == "mean" and name != "decoupled"):
            assert_exact(*TEMPERED[name], *pair(shape, dtype=dtype), temperature, reduction=reduction)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["hard", "logit mse"])
def test_losses_without_temperature_are_exact(name, shape, dtype):
    for reduction in ("none", "sum", "mean"):
        assert_exact(*LOGIT_LOSSES[name], *pair(shape, dtype=dtype), reduction=reduction)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(5, 10), (2, 3), (64, 100), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0), (0.5, 2.0)], ids=str)
def test_dist_is_exact(shape, temperature, weights, dtype):
    student, teacher = pair(shape, dtype=dtype)
    assert_exact(dist_loss, closed_forms.dist, student, teacher, *weights, temperature)


def test_many_rows_in_blocks_are_those_of_a_few():
    """The blocks of a large batch meet each row once, the odd last block included."""
    student, teacher = pair((1003, 257))
    for name, (loss, _) in TEMPERED.items():
        whole, slope = value_and_gradient(loss, student, teacher, reduction="none")
        rows = torch.tensor([0, 1, 500, 1001, 1002])
        if name == "decoupled":
            targets = targets_for(student)[rows]
            loss = lambda s, t, targets=targets, **more: dkd_loss(s, t, targets, 0.7, 3.0, **more)  # noqa: E731
        few, few_slope = value_and_gradient(loss, student[rows], teacher[rows], reduction="none")
        torch.testing.assert_close(whole[rows], few)
        torch.testing.assert_close(slope[rows], few_slope)


def test_logits_need_not_be_contiguous():
    student, teacher = pair((4, 7, 5))
    for loss, _ in TEMPERED.values():
        expected = value_and_gradient(loss, student.transpose(1, 2).contiguous(), teacher.transpose(1, 2).contiguous())
        found = value_and_gradient(loss, student.transpose(1, 2), teacher.transpose(1, 2))
        torch.testing.assert_close(found, expected)


def test_a_second_backward_pass_gives_the_same_gradient():
    student, teacher = pair((40, 9))
    student.requires_grad_()
    for loss, _ in LOGIT_LOSSES.values():
        value = 2 * loss(student, teacher)
        first, again = (torch.autograd.grad(value, student, retain_graph=True)[0] for _ in range(2))
        torch.testing.assert_close(first, again)


PLAIN = {
    **{name: loss for name, (loss, _) in LOGIT_LOSSES.items()},
    "dist": dist_loss,
}
SIZES = {"formula": 1 << 40, "blocks": 0}


@pytest.mark.parametrize("name", PLAIN)
def test_losses_have_a_second_derivative(name):
    loss = PLAIN[name]
    student, teacher = pair((3, 5), dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda logits: loss(logits, teacher), student.requires_grad_())
    if name in TEMPERED:  # Blocks keep a gradient only; a second derivative goes through the formula.
        kind, more = divergence_of(name, student)
        hessians = [
            torch.autograd.functional.hessian(
                lambda logits, large=large: rowwise(kind, logits, teacher, 2.0, *more, large=large).sum(), student
            )
            for large in SIZES.values()
        ]
        torch.testing.assert_close(*hessians)


def test_no_second_derivative_is_an_error_not_a_zero():
    student, teacher = pair((4, 3))
    student.requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative; leave create_graph=True out"):
        torch.autograd.grad(rkd_angle_loss(student, teacher), student, create_graph=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("name", PLAIN)
def test_losses_can_be_transformed(name, temperature):
    """``torch.func.grad``, and ``vmap`` over several batches, or over samples where there is no batch to relate."""
    loss = functools.partial(
        PLAIN[name], **({"temperature": temperature} if name in TEMPERED or name == "dist" else {})
    )
    students, teachers = pair((3, 6, 5))
    expected = [value_and_gradient(loss, *logits) for logits in zip(students, teachers, strict=True)]
    torch.testing.assert_close(torch.func.grad(loss)(students[0], teachers[0]), expected[0][1])
    values, slopes = (torch.stack(column) for column in zip(*expected, strict=True))
    torch.testing.assert_close(torch.vmap(loss)(students, teachers), values)
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(students, teachers), slopes)
    hessian = torch.func.hessian(loss)(students[0].double(), teachers[0].double())
    reference = torch.autograd.functional.hessian(
        lambda student: loss(student, teachers[0].double()), students[0].double()
    )
    torch.testing.assert_close(hessian, reference)


@pytest.mark.parametrize("name", TEMPERED)
def test_many_logits_can_be_transformed_too(name):
    student, teacher = pair((70, 1000))
    assert student.numel() > LARGE
    loss, _ = TEMPERED[name]
    torch.testing.assert_close(
        torch.func.grad(loss)(student, teacher), value_and_gradient(loss, student, teacher)[1], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("name", PLAIN)
def test_losses_compile_to_one_graph(name):
    student, teacher = pair((6, 5))
    teacher[0, 1] = student[0, 1] = -math.inf
    compiled = torch.compile(PLAIN[name], fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(PLAIN[name], student, teacher)
    torch.testing.assert_close(value_and_gradient(compiled, student, teacher), expected)


def divergence_of(name, logits):
    """What a loss of ``TEMPERED`` calls, and what else it gives it."""
    targets = targets_for(logits)
    return {
        "soft": (divergences.FORWARD_KL, ()),
        "reverse": (divergences.REVERSE_KL, ()),
        "jensen shannon": (divergences.JENSEN_SHANNON, (0.3,)),
        "variation": (variation.TOTAL_VARIATION, ()),
        "decoupled": (divergences.DECOUPLED, (targets, 0.7, 3.0)),
    }[name]


@pytest.mark.parametrize("large", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", TEMPERED)
def test_formulas_and_blocks_are_exact(name, temperature, dtype, large):
    """The mean within 2e-5, a row within 1e-6 · T², of what one class costs at most."""
    for shape in ((60, 2), (60, 3), (60, 10), (20, 100), (2, 3, 7)):
        student, teacher = pair(shape, dtype=dtype)
        kind, more = divergence_of(name, student)
        loss = functools.partial(by_rows, kind, temperature, more, large)
        values, gradient = value_and_gradient(loss, student, teacher)
        expected, slope = value_and_gradient(TEMPERED[name][1], student.double(), teacher.double(), temperature)
        if dtype == torch.float64:
            torch.testing.assert_close(values, expected, **DOUBLE)
            torch.testing.assert_close(gradient, slope, **DOUBLE)
            continue
        weight = 3 if name == "decoupled" else 1
        torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=weight * 1e-6 * temperature**2)
        torch.testing.assert_close(values.double().mean(), expected.mean(), **FINE)
        torch.testing.assert_close(gradient.double(), slope, **FINE)


def by_rows(kind, temperature, more, large, student, teacher, **keywords):
    return rowwise(kind, student, teacher, temperature, *more, large=large, **keywords)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", ["saturated", "saturated alike", "masked", "masked and saturated", "constant"])
@pytest.mark.parametrize("name", TEMPERED)
def test_blocks_of_awkward_logits_are_those_of_the_formula(name, case, dtype):
    student, teacher = (logits.to(dtype).repeat(3, 1) for logits in AWKWARD[case])
    kind, more = divergence_of(name, torch.zeros(3, 3))
    more = [value[: len(student)] if isinstance(value, torch.Tensor) else value for value in more]
    student, teacher = student[:3], teacher[:3]
    for temperature in (1.0, 4.0):
        formula, blocks = (
            value_and_gradient(functools.partial(by_rows, kind, temperature, more, large), student, teacher)
            for large in SIZES.values()
        )
        assert blocks[0].isfinite().all()
        assert blocks[1].isfinite().all()
        torch.testing.assert_close(blocks[0], formula[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            blocks[1], formula[1], **({} if dtype.itemsize == 2 else {"rtol": 1e-5, "atol": 1e-5})
        )


@pytest.mark.parametrize("name", TEMPERED)
def test_blocks_take_what_formulas_take(name):
    """A mask beside anything, classes masked on one side, and not a number."""
    student, teacher = pair((4, 5))
    kind, more = divergence_of(name, student)
    loss = functools.partial(by_rows, kind, 2.0, more)
    mask = torch.tensor([True, False, True, False])
    student[1], teacher[3] = math.nan, math.inf
    formula, blocks = (
        value_and_gradient(functools.partial(loss, large, mask=mask), student, teacher) for large in SIZES.values()
    )
    torch.testing.assert_close(blocks, formula)
    assert (blocks[0][~mask] == 0).all()
    assert (blocks[1][~mask] == 0).all()
    student, teacher = pair((4, 5))
    student[0, 3] = teacher[2, 4] = -math.inf
    formula, blocks = (loss(large, student, teacher) for large in SIZES.values())
    torch.testing.assert_close(blocks, formula)
    student[1, 2] = math.nan
    assert loss(0, student, teacher)[1].isnan()


def test_values_worked_by_hand():
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    # KL(σ(−2) ‖ σ(2)) = 2 · (σ(2) − σ(−2)) = 2 · tanh(1), and the same the other way round.
    for loss in (soft_target_loss, reverse_kl_loss):
        assert loss(student, teacher, 1.0).item() == pytest.approx(2 * math.tanh(1), abs=1e-6)
    assert hard_target_loss(student, teacher).item() == pytest.approx(2 + math.log1p(math.exp(-2)), abs=1e-6)
    # Mirror images have the midpoint (½, ½): JS = log 2 − H(σ(2)).
    s = 1 / (1 + math.exp(-2))
    entropy = -s * math.log(s) - (1 - s) * math.log(1 - s)
    assert jensen_shannon_loss(student, teacher).item() == pytest.approx(math.log(2) - entropy, abs=1e-6)
    assert logit_mse_loss(student, teacher).item() == 8.0
    # Opposite over classes and over samples: each correlation is −1, each term 2, τ² on both.
    mirrored = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dist_loss(mirrored, mirrored.flip(1), 1.0, 2.0, 3.0).item() == pytest.approx(9 * (2 + 2 * 2), rel=2e-5)
    torch.testing.assert_close(
        standardize_logits(torch.tensor([[0.0, 0.0, 3.0]])), torch.tensor([[-1.0, -1.0, 2.0]]) / 2**0.5
    )


def test_total_variation_worked_by_hand():
    """It is 1 less the overlap; the slope is ½ q (s − Σ s q), s the sign of q − p."""
    student, teacher = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.6, 0.4]]).log()
    value, gradient = value_and_gradient(total_variation_loss, student, teacher)
    assert value.item() == pytest.approx(1 - (0.6 + 0.1))
    torch.testing.assert_close(gradient, torch.tensor([[0.9 * (1 - 0.8) / 2, 0.1 * (-1 - 0.8) / 2]]))
    apart = torch.tensor([[0.0, -math.inf]])
    assert total_variation_loss(apart, apart.flip(1)).item() == 1


def test_decoupled_values_worked_by_hand():
    # Student uniform over three classes, teacher (½, ¼, ¼), target the first:
    # TCKD = ½ log(½ / ⅓) + ½ log(½ / ⅔) = ½ log(9/8); the others are equal on both sides.
    student, teacher = torch.zeros(1, 3), torch.tensor([[math.log(2), 0.0, 0.0]])
    first = dkd_loss(student, teacher, torch.tensor([0]), 1.0, 8.0, 1.0)
    assert first.item() == pytest.approx(0.5 * math.log(9 / 8), abs=1e-6)
    # Target the second: b = (¼, ¾) against (⅓, ⅔), and the others (⅔, ⅓) against (½, ½).
    second = dkd_loss(student, teacher, torch.tensor([1]), 1.0, 8.0, 1.0)
    target_kl = math.log(3 / 4) / 4 + 3 * math.log(9 / 8) / 4
    others = 2 * math.log(4 / 3) / 3 + math.log(2 / 3) / 3
    assert second.item() == pytest.approx(target_kl + 8 * others, abs=1e-6)


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_gradcheck(name):
    loss, _ = LOGIT_LOSSES[name]
    student, teacher = pair((3, 5), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, teacher), student.requires_grad_())
    assert torch.autograd.gradcheck(lambda logits: dist_loss(logits, teacher), student)
    assert torch.autograd.gradcheck(standardize_logits, student)


AWKWARD = {
    "saturated": (torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])),
    "saturated alike": (torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[1e4, -1e4, 0.0]])),
    "masked": (torch.tensor([[1.0, -math.inf, 0.0]]), torch.tensor([[0.0, -math.inf, 2.0]])),
    "masked and saturated": (torch.tensor([[1e4, -math.inf, -1e4]]), torch.tensor([[-1e4, -math.inf, 1e4]])),
    "all but one masked": (torch.tensor([[3.0, -math.inf, -math.inf]]), torch.tensor([[1.0, -math.inf, -math.inf]])),
    "constant": (torch.full((2, 3), 7.0), torch.full((2, 3), -7.0)),
    "duplicate rows": (torch.tensor([[1.0, 2.0]] * 3), torch.tensor([[2.0, 1.0]] * 3)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("name", ["soft", "reverse", "hard", "logit mse"])
def test_awkward_logits_are_finite_and_exact(name, case, dtype):
    loss, closed_form = LOGIT_LOSSES[name]
    student, teacher = (logits.to(dtype) for logits in AWKWARD[case])
    kept = torch.isfinite(student[0])
    for more in ((1.0,), (4.0,)) if name in TEMPERED else ((),):
        value, gradient = value_and_gradient(loss, student, teacher, *more)
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        expected, slope = value_and_gradient(
            lambda s, t, more=more: closed_form(s, t, *more).mean(),
            student.double()[:, kept],
            teacher.double()[:, kept],
        )
        torch.testing.assert_close(value.double(), expected, **FINE)
        half = {"rtol": 1e-2, "atol": 1e-2} if dtype.itemsize == 2 else FINE
        torch.testing.assert_close(gradient.double()[:, kept], slope, **half)
        assert (gradient[:, ~kept] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize(
    "loss", [dkd_loss, jensen_shannon_loss, dist_loss, standardize_logits], ids=lambda loss: loss.__name__
)
def test_awkward_logits_leave_every_loss_finite(loss, case, dtype):
    student, teacher = (logits.to(dtype).repeat(2, 1) for logits in AWKWARD[case])
    for logits in (student, teacher):
        value, gradient = value_and_gradient(
            lambda s, t: (
                torch.where(s == -math.inf, 0.0, standardize_logits(s))
                if loss is standardize_logits
                else loss(s, t, *([torch.zeros(len(s), dtype=torch.int64)] if loss is dkd_loss else []))
            ),
            student,
            logits,
        )
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        if logits is student and loss is not standardize_logits:
            assert value.abs().item() < 1e-6


def test_decoupled_kd_with_masked_classes_is_that_without_them():
    student, teacher = pair((6, 5))
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    expected, slope = value_and_gradient(dkd_loss, student[:, :3], teacher[:, :3], targets)
    student[:, 3:] = teacher[:, 3:] = -math.inf
    value, gradient = value_and_gradient(dkd_loss, student, teacher, targets)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, :3], slope)
    assert (gradient[:, 3:] == 0).all()


def test_saturated_decoupled_kd_is_the_formula():
    """mdistiller's product of probabilities gives NaN here: the others' probability underflows."""
    student, teacher = torch.tensor([[300.0, 1.0, 0.0]]), torch.tensor([[280.0, 0.0, 2.0]])
    targets = torch.tensor([0])
    value = dkd_loss(student, teacher, targets, 1.0, 8.0, 1.0)
    others = soft_target_loss(student[:, 1:], teacher[:, 1:], 1.0)
    torch.testing.assert_close(value, 8 * others)


@pytest.mark.parametrize("temperature", [1.0, 8.0, 8.1, 20.0])
@pytest.mark.parametrize("gap", [50.0, 61.0, 100.0, 400.0])
def test_both_ways_of_computing_agree_where_they_meet(gap, temperature):
    """Differences past e^60 are computed in float64; just below and above, the same must come out."""
    teacher = torch.tensor([[gap * temperature, 0.0, 1.0], [0.0, 0.0, 1.0]])
    student = torch.tensor([[0.0, gap * temperature, 1.0], [1.0, 0.0, 0.0]])
    for name in ("soft", "decoupled") if gap <= 100 else ("soft",):
        loss, closed_form = TEMPERED[name]
        student.requires_grad_()
        value = loss(student, teacher, temperature, reduction="none")
        expected = closed_form(student.double(), teacher.double(), temperature)
        found, wanted = (torch.autograd.grad(v.sum(), student)[0] for v in (value, expected))
        torch.testing.assert_close(value.double(), expected, **FINE)
        torch.testing.assert_close(found, wanted, **FINE)


@pytest.mark.parametrize("gap", [59.0, 61.0, 90.0])
def test_a_target_far_apart_while_the_others_are_close(gap):
    """Here the others need no float64, and the target does."""
    teacher = torch.tensor([[gap / 2, 0.0, 1.0], [0.0, 0.5, 0.0]])
    student = torch.tensor([[-gap / 2, 0.2, 0.0], [1.0, 0.0, 0.0]])
    targets = torch.tensor([0, 0])
    for alpha, beta in ((1.0, 8.0), (0.5, 0.0)):
        arguments = (targets, alpha, beta, 1.0)
        assert_exact(dkd_loss, closed_forms.decoupled, student, teacher, *arguments, reduction="none")


def test_a_sure_teacher_and_a_doubtful_student():
    """1 − p + p eᶜ would be 0 here, and its logarithm −∞."""
    teacher, student = torch.tensor([[20.0, 0.0], [45.0, 0.0]]), torch.tensor([[-20.0, 0.0], [1.0, 0.0]])
    for dtype in TOLERANCES:
        arguments = (torch.tensor([0, 0]), 0.7, 3.0, 1.0)
        assert_exact(
            dkd_loss,
            closed_forms.decoupled,
            student.to(dtype),
            teacher.to(dtype),
            *arguments,
            reduction="none",
        )


@pytest.mark.parametrize("spread", [1e-5, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("side", ["student", "teacher", "one class", "small classes"])
def test_correlations_of_what_hardly_varies_are_exact(spread, side):
    """Sums of squares would lose the digits; the value must not depend on which way it is computed."""
    student, teacher = pair((12, 7), scale=1.0)
    match side:
        case "student":
            student = spread * student
        case "teacher":
            teacher = spread * teacher
        case "one class":
            teacher = teacher.softmax(1)
            teacher[:, 2] = 0.2 * (1 + spread * torch.linspace(-1, 1, 12))
            rest = [0, 1, 3, 4, 5, 6]
            teacher[:, rest] *= (1 - teacher[:, 2:3]) / teacher[:, rest].sum(1, keepdim=True)
            teacher = teacher.log()
        case "small classes":
            student[:, 3] -= 40
            teacher[:, 5] -= 40
    expected, slope = value_and_gradient(closed_forms.dist, student.double(), teacher.double())
    value, gradient = value_and_gradient(dist_loss, student, teacher)
    torch.testing.assert_close(value.double(), expected, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-3, atol=2e-4 * slope.abs().max().item())


def test_a_row_of_zeros_beside_others():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert cosine_loss(student, teacher, reduction="none").tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0])


def test_one_side_masked_is_infinitely_far_for_logits():
    masked, open_ = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    assert logit_mse_loss(masked, open_).item() == math.inf
    assert logit_mse_loss(open_, masked).item() == math.inf


def test_a_class_that_only_one_side_masks():
    masked, open_ = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    assert soft_target_loss(masked, open_).item() == math.inf
    assert reverse_kl_loss(open_, masked).item() == math.inf
    assert reverse_kl_loss(masked, open_, 1.0).item() == pytest.approx(math.log(2))
    for student, teacher in ((masked, open_), (open_, masked)):
        assert 0 < jensen_shannon_loss(student, teacher).item() < math.log(2)


def test_not_a_number_is_not_hidden():
    student, teacher = pair((4, 5))
    student[1, 2] = math.nan
    for name, (loss, _) in LOGIT_LOSSES.items():
        assert math.isnan(loss(student, teacher).item()), name


def test_mixed_precision_inputs_are_computed_in_the_wider():
    student, teacher = pair((4, 5))
    for loss, _ in LOGIT_LOSSES.values():
        assert loss(student.double(), teacher).dtype == torch.float64
        assert loss(student, teacher.double()).dtype == torch.float64
        assert loss(student.bfloat16(), teacher.half()).dtype == torch.float32


@pytest.mark.parametrize("name", [*LOGIT_LOSSES, *OF_FEATURES, "dist"])
def test_autocast_changes_nothing(name):
    loss = dist_loss if name == "dist" else (LOGIT_LOSSES | OF_FEATURES)[name][0]
    student, teacher = pair((4, 3, 5) if name == "attention" else (4, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(student, teacher)
    torch.testing.assert_close(inside, loss(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("name", [*LOGIT_LOSSES, *OF_FEATURES, "dist"])
def test_no_gradient_reaches_the_teacher(name):
    loss = dist_loss if name == "dist" else (LOGIT_LOSSES | OF_FEATURES)[name][0]
    student, teacher = (tensor.requires_grad_() for tensor in pair((4, 3, 5) if name == "attention" else (4, 5)))
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["soft", "reverse", "jensen shannon", "variation"])
def test_masked_positions_may_hold_anything(name):
    loss, _ = TEMPERED[name]
    student, teacher = pair((2, 3, 5))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = loss(student[mask], teacher[mask])
    for garbage in (math.nan, math.inf, -math.inf):
        student[~mask], teacher[~mask] = garbage, math.inf
        value, gradient = value_and_gradient(loss, student, teacher, mask=mask)
        torch.testing.assert_close(value, expected)
        assert (gradient[~mask] == 0).all()
        assert (gradient[mask] != 0).any(-1).all()
        values = loss(student, teacher, mask=mask, reduction="none")
        assert (values[~mask] == 0).all()
        torch.testing.assert_close(loss(student, teacher, mask=mask, reduction="sum"), values.sum())
        torch.testing.assert_close(values.sum() / 3, expected)


logit_pairs = st.tuples(st.integers(2, 5), st.integers(2, 8), st.integers(0, 2**20)).map(
    lambda drawn: pair(drawn[:2], seed=drawn[2], dtype=torch.float64)
)
temperatures = st.floats(0.1, 50)
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@settings(max_examples=60, deadline=None)
@given(logit_pairs, temperatures, st.floats(-100, 100), st.sampled_from([*TEMPERED, "dist"]))
def test_invariants_of_divergences(logits, temperature, shift, name):
    student, teacher = logits
    if name == "dist":
        loss, order = functools.partial(dist_loss, temperature=temperature), True
    elif name == "decoupled":
        loss = functools.partial(dkd_loss, targets=teacher.argmax(1), alpha=0.7, beta=3.0, temperature=temperature)
        order = False
    else:
        loss, order = functools.partial(TEMPERED[name][0], temperature=temperature), True
    value = loss(student, teacher)
    assert value >= 0
    torch.testing.assert_close(loss(student, student), torch.zeros_like(value), **CLOSE)
    torch.testing.assert_close(loss(student + shift, teacher - shift), value, **CLOSE)
    if order:
        classes, samples = torch.randperm(student.shape[1]), torch.randperm(student.shape[0])
        torch.testing.assert_close(loss(student[samples][:, classes], teacher[samples][:, classes]), value, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(logit_pairs, temperatures)
def test_decoupled_kd_is_kd_taken_apart(logits, temperature):
    """KD = TCKD + (1 − p_target) · NCKD, and with two classes NCKD is 0."""
    student, teacher = logits
    targets = torch.randint(0, student.shape[1], (len(student),))
    part = functools.partial(dkd_loss, temperature=temperature, reduction="none")
    target_part, other_part = part(student, teacher, targets, 1.0, 0.0), part(student, teacher, targets, 0.0, 1.0)
    rest = 1 - (teacher / temperature).softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    whole = soft_target_loss(student, teacher, temperature, reduction="none")
    torch.testing.assert_close(target_part + rest * other_part, whole, **CLOSE)
    if student.shape[1] == 2:
        assert (other_part < 1e-12).all()
    torch.testing.assert_close(part(student, teacher, targets, 2.0, 5.0), 2 * target_part + 5 * other_part, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(logit_pairs, st.floats(0.01, 0.99))
def test_jensen_shannon_lies_between_the_divergences(logits, beta):
    student, teacher = logits
    value = jensen_shannon_loss(student, teacher, beta)
    swapped = jensen_shannon_loss(teacher, student, 1 - beta)
    torch.testing.assert_close(value, swapped, **CLOSE)
    assert value <= -beta * math.log(beta) - (1 - beta) * math.log(1 - beta) + 1e-9
    # The limits are reached the later, the larger the ratio of two probabilities is.
    student, teacher, small = 0.3 * student, 0.3 * teacher, 1e-7
    near_forward, near_reverse = (jensen_shannon_loss(student, teacher, b) for b in (small, 1 - small))
    torch.testing.assert_close(near_forward / small, soft_target_loss(student, teacher, 1.0), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(near_reverse / small, reverse_kl_loss(student, teacher, 1.0), rtol=1e-2, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(logit_pairs, st.floats(0.1, 20), st.floats(-50, 50))
def test_standardized_logits_know_neither_scale_nor_shift(logits, scale, shift):
    student, _ = logits
    found = standardize_logits(student)
    torch.testing.assert_close(standardize_logits(scale * student + shift), found, **CLOSE)
    torch.testing.assert_close(found.mean(-1), torch.zeros(len(student), dtype=torch.float64), **CLOSE)
    torch.testing.assert_close(found.square().mean(-1), torch.ones(len(student), dtype=torch.float64), **CLOSE)
    masked = torch.cat([student, torch.full((len(student), 2), -math.inf)], 1)
    torch.testing.assert_close(standardize_logits(masked)[:, :-2], found)
    assert (standardize_logits(masked)[:, -2:] == -math.inf).all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_standardized_logits_are_exact(dtype):
    for shape in ((5, 10), (2, 3, 4)):
        student, _ = pair(shape, dtype=dtype)
        assert_exact(lambda s, _: standardize_logits(s), lambda s, _: closed_forms.standardize(s), student, student)


def test_constant_logits_standardize_to_zero_without_a_gradient():
    for level in (7.0, 1e4, 0.1, 0.0):
        logits = torch.full((2, 10), level)
        value, gradient = value_and_gradient(lambda s, _: standardize_logits(s) * torch.arange(10.0), logits, logits)
        assert (value == 0).all()
        assert (gradient == 0).all()


def test_limits_of_the_temperature():
    student, teacher = pair((6, 5), dtype=torch.float64)
    centered = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    matching = (centered**2).sum(-1).mean() / (2 * 5)
    for loss in (soft_target_loss, reverse_kl_loss):
        torch.testing.assert_close(loss(student, teacher, 1e4), matching, rtol=1e-3, atol=0)
    cold = soft_target_loss(student, teacher, 1e-3)
    highest = student.gather(-1, teacher.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(cold, 1e-3 * (student.max(-1).values - highest).mean(), rtol=1e-3, atol=1e-6)


def test_the_mean_is_over_samples_not_over_classes():
    student, teacher = pair((8, 100))
    with pytest.warns(UserWarning, match="divides the total loss by both the batch size and the support size"):
        wrong = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="mean")
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(100 * wrong.item(), rel=1e-5)


def test_the_gradient_keeps_its_order_when_the_temperature_changes():
    student, teacher = pair((64, 100), scale=1.0)
    norms = [value_and_gradient(soft_target_loss, student, teacher, t)[1].norm().item() for t in (1, 4, 20)]
    assert max(norms) < 3 * min(norms)


DIVERGENCES = ["soft", "reverse", "jensen shannon"]


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_of_nearly_equal_logits_keep_their_digits(name, temperature):
    """The value is of second order in the difference; terms of first order must not be what is rounded."""
    loss, closed_form = TEMPERED[name]
    teacher, difference = pair((50, 40))
    student = teacher + 0.03 * difference
    wide = student.double(), teacher.double()
    expected, slope = value_and_gradient(lambda *logits: closed_form(*logits, temperature).mean(), *wide)
    value, gradient = value_and_gradient(loss, student, teacher, temperature)
    torch.testing.assert_close(value.double(), expected, rtol=5e-4, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-5 * slope.abs().max().item())


@pytest.mark.parametrize("name", [*DIVERGENCES, "variation"])
def test_divergences_keep_little_beside_the_gradient(name):
    """Peak memory of forward and backward, as torch's allocator reports it."""
    from torch.profiler import ProfilerActivity, profile

    loss, _ = TEMPERED[name]
    for shape, temperature in (((1024, 8000), 4.0), ((256, 4000), 20.0)):
        student, teacher = pair(shape)
        student.requires_grad_()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            loss(student, teacher, temperature).backward()
        held = peak = 0
        for event in sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            if event.name() == "[memory]":
                held += event.nbytes()
                peak = max(peak, held)
        beyond = peak - student.nbytes
        print(f"\n{shape}: {beyond / student.nbytes:.3f} of the logits beyond the gradient")
        assert 0 < beyond <= 1.1 * 2**20


# Features ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_feature_losses_are_exact(name, dtype):
    for shape in ((5, 4, 6, 7), (2, 8, 3), (1, 3, 2, 2)) if name == "attention" else ((5, 4, 6, 7), (2, 8), (1, 9, 3)):
        for reduction in ("none", "sum", "mean"):
            assert_exact(*FEATURE_LOSSES[name], *pair(shape, dtype=dtype), reduction=reduction)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", BATCH_LOSSES)
def test_batch_losses_are_exact(name, dtype):
    for shape, other in (((5, 6), (5, 3)), ((2, 4), (2, 4)), ((9, 2, 3, 3), (9, 7)), ((33, 5), (33, 64))):
        assert_exact(*BATCH_LOSSES[name], *pair(shape, dtype=dtype, other=other))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrast_is_exact(temperature, dtype):
    for shape in ((2, 4), (5, 6), (9, 2, 3, 3), (33, 5)):
        assert_exact(*CONTRAST["contrast"], *pair(shape, dtype=dtype), temperature)


def test_contrast_of_a_student_that_tells_nothing_is_that_of_guessing():
    nothing, teacher = torch.ones(8, 5), pair((8, 5))[1]
    same = teacher[:1].expand_as(teacher)
    torch.testing.assert_close(contrastive_loss(nothing, same), torch.tensor(8.0).log())
    torch.testing.assert_close(contrastive_loss(torch.zeros(8, 5), teacher), torch.tensor(8.0).log())
    assert contrastive_loss(3 * teacher, teacher, 0.01) < contrastive_loss(teacher.roll(1, 0), teacher, 0.01)


def test_angles_in_blocks_are_exact():
    student, teacher = pair((130, 3), dtype=torch.float64, other=(130, 4))
    assert_exact(rkd_angle_loss, closed_forms.angle, student, teacher)


@pytest.mark.parametrize("name", BATCH_LOSSES)
def test_points_far_from_the_origin_and_close_together_are_exact(name):
    """Differences of large squares lose their digits in float32: the Gram matrix is centred, and float64."""
    if name == "similarity":
        pytest.skip("it compares products, not differences")
    student, teacher = pair((6, 5), scale=1e-2)
    student, teacher = student + 100, teacher - 50
    loss, closed_form = BATCH_LOSSES[name]
    value, gradient = value_and_gradient(loss, student, teacher)
    expected, slope = value_and_gradient(closed_form, student.double(), teacher.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-3 * slope.abs().max().item())


@pytest.mark.parametrize("name", OF_FEATURES)
def test_feature_losses_pass_gradcheck(name):
    loss, _ = OF_FEATURES[name]
    student, teacher = pair((4, 3, 2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("case", ["zeros", "constant", "duplicate rows", "large", "one row of zeros", "equal"])
def test_awkward_features_are_finite(name, case, dtype):
    loss, _ = OF_FEATURES[name]
    student, teacher = pair((4, 3, 5), dtype=dtype)
    match case:
        case "zeros":
            student.zero_()
        case "constant":
            student.fill_(3.0)
        case "duplicate rows":
            student[1] = student[0]
            teacher[2] = teacher[3]
        case "large":
            student *= 1e3
        case "one row of zeros":
            student[0] = 0
            teacher[1] = 0
        case "equal":
            teacher = student.clone()
    value, gradient = value_and_gradient(loss, student, teacher)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert value >= 0
    if case == "equal" and name not in CONTRAST:
        assert value < 1e-6


def test_degenerate_values_are_those_documented():
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert cosine_loss(zeros, ones).item() == 1.0
    assert cosine_loss(ones, zeros).item() == 1.0
    assert cosine_loss(zeros, zeros).item() == 0.0
    value, gradient = value_and_gradient(cosine_loss, zeros, ones)
    assert (gradient == 0).all()
    same = torch.ones(3, 2)
    apart = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    value, gradient = value_and_gradient(rkd_distance_loss, same, apart)
    distances = torch.tensor([1.0, 1.0, 2**0.5])
    expected = 2 * closed_forms.huber(distances / distances.mean()).sum() / 9
    torch.testing.assert_close(value, expected)
    assert (gradient == 0).all()
    # Student rows coincide: each cosine of its side is 0. The teacher's are 1 on each j = k and 0, ±√½ elsewhere.
    value, gradient = value_and_gradient(rkd_angle_loss, same, apart)
    expected = (6 * 0.5 + 4 * 0.25) / 27
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert (gradient == 0).all()
    # Correlations: 1 where neither side varies, 0 where one does not.
    flat, slanted = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dist_loss(flat, flat).item() == 0.0
    assert dist_loss(flat, slanted).item() == pytest.approx(2.0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 7), st.integers(1, 5), st.integers(0, 2**20), st.floats(0.1, 30), st.sampled_from([*BATCH_LOSSES])
)
def test_invariants_of_relations(samples, size, seed, scale, name):
    loss, _ = BATCH_LOSSES[name]
    student, teacher = pair((samples, size), seed=seed, dtype=torch.float64, other=(samples, 3))
    value = loss(student, teacher)
    assert value >= 0
    torch.testing.assert_close(loss(student, student), torch.zeros_like(value), **CLOSE)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    moved = scale * student @ rotation
    if name != "similarity":
        moved = moved + 5 * torch.randn(size, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(loss(moved, teacher), value, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss(student, moved), torch.zeros_like(value), rtol=0, atol=1e-8)
    order = torch.randperm(samples, generator=generator)
    torch.testing.assert_close(loss(student[order], teacher[order]), value, **CLOSE)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_feature_losses_are_zero_at_equality_and_know_no_order(name):
    loss, _ = FEATURE_LOSSES[name]
    student, teacher = pair((5, 4, 3))
    assert loss(student, student).item() < 1e-7
    order = torch.randperm(5)
    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))


def test_similarity_uses_the_l2_norm():
    """torchdistill passes p = 1: .0159 instead of .0413 on its input."""
    student, teacher = torch.eye(2), torch.ones(2, 1)
    # Rows (1, 0) against (1, 1) / √2: each row differs by 2 − √2 squared, over B² = 4 entries.
    assert similarity_preserving_loss(student, teacher).item() == pytest.approx((2 - 2**0.5) / 2, abs=1e-6)


def test_distances_are_divided_by_the_mean_of_the_positive_ones():
    """Three points on a line: mean of 1, 2, 3 is 2; against an equilateral triangle, all 1."""
    line = torch.tensor([[0.0], [1.0], [3.0]])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    expected = 2 * (0.5 * 0.5**2 + 0 + 0.5 * 0.5**2) / 9
    assert rkd_distance_loss(line, triangle).item() == pytest.approx(expected, abs=1e-6)


def test_angles_worked_by_hand():
    """A right angle with equal legs (cosines 0, √½, √½) against three points on a line (1, −1, 1)."""
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    line = torch.tensor([[0.0], [1.0], [2.0]])
    gaps = torch.tensor([0 - 1, 0.5**0.5 - (-1), 0.5**0.5 - 1])
    expected = 2 * closed_forms.huber(gaps).sum() / 27
    torch.testing.assert_close(rkd_angle_loss(corner, line), expected)


def test_attention_pools_the_larger_map_and_mixes_channels():
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    pooled = F.avg_pool2d(student, 2)
    torch.testing.assert_close(attention_transfer_loss(student, teacher), attention_transfer_loss(pooled, teacher))
    torch.testing.assert_close(attention_transfer_loss(teacher, student), attention_transfer_loss(teacher, pooled))


# Bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), {}, r"student_logits has shape \(2, 3\).*teacher_logits \(2, 4\)"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), {}, r"student_logits has shape \(0, 3\).*at least one sample"),
        ((torch.tensor(1.0), torch.tensor(1.0)), {}, "at least one sample and one class"),
        ((torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3)), {}, "student_logits has dtype torch.int64"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)), {}, "teacher_logits has dtype torch.int64"),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), {"reduction": "batchmean"}, "reduction is 'batchmean'; choose"),
    ],
)
@pytest.mark.parametrize("name", [*LOGIT_LOSSES, "dist"])
def test_bad_logits_are_named(name, arguments, keywords, message):
    loss = dist_loss if name == "dist" else LOGIT_LOSSES[name][0]
    if name == "decoupled":
        loss = lambda s, t, **more: dkd_loss(s, t, torch.zeros(s.shape[:-1], dtype=torch.int64), **more)  # noqa: E731
    if name == "dist" and keywords:
        pytest.skip("it is one value for the batch")
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **keywords)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", [*TEMPERED, "dist"])
def test_temperature_must_be_positive(name, temperature):
    loss = dist_loss if name == "dist" else TEMPERED[name][0]
    with pytest.raises(ValueError, match=f"temperature is {temperature}; it must be positive and finite"):
        loss(torch.zeros(2, 2), torch.zeros(2, 2), temperature=temperature)


@pytest.mark.parametrize(
    ("loss", "keywords", "message"),
    [
        (jensen_shannon_loss, {"beta": 0.0}, "beta is 0.0; it must lie between 0 and 1"),
        (jensen_shannon_loss, {"beta": 1.0}, "beta is 1.0; it must lie between 0 and 1"),
        (dist_loss, {"inter_weight": -1.0}, "inter_weight is -1.0; it must be 0 or more"),
        (dist_loss, {"intra_weight": math.inf}, "intra_weight is inf; it must be 0 or more and finite"),
    ],
)
def test_weights_out_of_range_are_named(loss, keywords, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(2, 2), torch.zeros(2, 2), **keywords)


@pytest.mark.parametrize(
    ("targets", "more", "message"),
    [
        (torch.tensor([0, 3]), {}, "targets holds 3; it must be from 0 to 2$"),
        (torch.tensor([0, -100]), {}, "targets holds -100; it must be from 0 to 2$"),
        (torch.tensor([0.0, 1.0]), {}, "targets has dtype torch.float32"),
        (torch.tensor([0]), {}, r"targets has .*shape \(1,\).*\(2,\)"),
        (torch.tensor([0, 1]), {"alpha": -1.0}, "alpha is -1.0; it must be 0 or more"),
        (torch.tensor([0, 1]), {"beta": math.nan}, "beta is nan; it must be 0 or more and finite"),
    ],
)
def test_bad_targets_of_decoupled_kd_are_named(targets, more, message):
    with pytest.raises(ValueError, match=message):
        dkd_loss(torch.zeros(2, 3), torch.zeros(2, 3), targets, **more)


def test_bad_masks_are_named():
    logits = torch.zeros(2, 3, 5)
    for loss in (soft_target_loss, reverse_kl_loss, jensen_shannon_loss):
        with pytest.raises(ValueError, match=r"mask has shape \(2,\).*\(2, 3\)"):
            loss(logits, logits, mask=torch.ones(2, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"dtype torch\.float32"):
            loss(logits, logits, mask=torch.ones(2, 3))
        with pytest.raises(ValueError, match="counts no position"):
            loss(logits, logits, mask=torch.zeros(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "message"),
    [
        (hint_loss, (2, 3), (2, 4), r"student_features has shape \(2, 3\).*\(2, 4\); both must be alike"),
        (cosine_loss, (2, 3), (3, 3), "both must be alike"),
        (hint_loss, (0, 3), (0, 3), "at least one sample and one feature"),
        (hint_loss, (3,), (3,), r"both must be \(N, ...\)"),
        (attention_transfer_loss, (2, 3), (2, 3), "attention needs positions"),
        (attention_transfer_loss, (2, 3, 4, 4), (2, 16, 3), "attention needs positions"),
        (attention_transfer_loss, (2, 3, 4, 4), (3, 3, 4, 4), "of the same samples"),
        (attention_transfer_loss, (2, 5, 3), (2, 6, 3), "student_features has 5 tokens and teacher_features 6"),
        (similarity_preserving_loss, (2, 3), (3, 3), "student_features has 2 samples and teacher_features 3"),
        (rkd_distance_loss, (1, 3), (1, 3), "one sample; relations need two or more: raise batch_size"),
        (rkd_angle_loss, (1, 3), (1, 3), "relations need two or more"),
        (similarity_preserving_loss, (1, 3), (1, 3), "relations need two or more"),
        (contrastive_loss, (1, 3), (1, 3), "relations need two or more"),
        (contrastive_loss, (2, 3), (2, 4), "3 numbers a sample and teacher_features 4; cosines need as many"),
    ],
)
def test_bad_features_are_named(loss, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(student), torch.zeros(teacher))


def test_one_sample_has_no_correlation():
    with pytest.raises(ValueError, match="DIST correlates over a batch and needs two or more: raise batch_size"):
        dist_loss(torch.zeros(1, 3), torch.zeros(1, 3))


def test_every_loss_is_tested_here():
    """Or, what takes hidden states, in test_linear_loss.py, and what makes bytes of tokens, in test_bytes.py."""
    tested = {loss for loss, _ in (LOGIT_LOSSES | OF_FEATURES).values()} | {
        dist_loss, standardize_logits, dkd_loss, jensen_shannon_loss, losses.linear_soft_target_loss,
        losses.next_bytes, losses.NextBytes,
    }  # fmt: skip
    assert {getattr(losses, name) for name in losses.__all__} <= tested


@pytest.mark.parametrize(
    "loss", [soft_target_loss, lambda ours, theirs, t: losses.dkd_loss(ours, theirs, torch.tensor([0]), t)]
)
def test_slopes_of_many_classes_fit_into_16_bits(loss):
    student, teacher = torch.zeros(1, 1 << 17, dtype=torch.float16), torch.zeros(1, 1 << 17, dtype=torch.float16)
    teacher[0, 7] = 60.0
    (found,) = torch.autograd.grad(loss(student.requires_grad_(), teacher, 1.0), student)
    wide = student.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(wide, teacher.double(), 1.0), wide)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=1e-2)
