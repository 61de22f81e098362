"""The fused linear loss beside the dense one, which makes all logits."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from kdft_lib.losses import (
    divergences,
    jensen_shannon_loss,
    linear,
    linear_soft_target_loss,
    reverse_kl_loss,
    soft_target_loss,
    total_variation_loss,
)
from kdft_lib.teachers import compress

KINDS = ("forward_kl", "reverse_kl", "jensen_shannon", "total_variation")
BETA = 0.3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Three rows of 50 classes, so that there are several, and the last is not full."""
    monkeypatch.setattr(linear, "_ROOM", 170)


def dense(kind, student, teacher, temperature, **more):
    if kind == "jensen_shannon":
        return jensen_shannon_loss(student, teacher, BETA, temperature, **more)
    plain = {"forward_kl": soft_target_loss, "reverse_kl": reverse_kl_loss, "total_variation": total_variation_loss}
    return plain[kind](student, teacher, temperature, **more)


def given(dtype=torch.float64, classes=50, others=50, shape=(4, 5), bias=True):
    """A student's and a teacher's last layers, of different widths, and what goes in."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape, needed=False):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(needed)

    student = {"hidden": drawn(*shape, 8, needed=True), "weight": drawn(classes, 8, needed=True)}
    teacher = {"hidden": drawn(*shape, 12), "weight": drawn(others, 12)}
    if bias:
        student["bias"], teacher["bias"] = drawn(classes, needed=True), drawn(others)
    return student, teacher


def logits(layer):
    return F.linear(layer["hidden"], layer["weight"], layer.get("bias"))


def fused(student, teacher, temperature=1.0, **more):
    return linear_soft_target_loss(
        student["hidden"], student["weight"], teacher["hidden"], teacher["weight"], temperature, beta=BETA,
        student_bias=student.get("bias"), teacher_bias=teacher.get("bias"), **more,
    )  # fmt: skip


def assert_same(found, wanted, student, **tolerance):
    """In value, and in the gradient of everything that learns."""
    torch.testing.assert_close(found, wanted, **tolerance)
    upstream = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wanted.dtype)
    learned = list(student.values())
    ours, theirs = (torch.autograd.grad(loss, learned, upstream.to(loss.dtype)) for loss in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_dense_loss(kind, reduction):
    for temperature, masked, bias in itertools.product((1.0, 4.0), (False, True), (False, True)):
        student, teacher = given(bias=bias)
        mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.6 if masked else None
        found = fused(student, teacher, temperature, divergence=kind, mask=mask, reduction=reduction)
        wanted = dense(kind, logits(student), logits(teacher), temperature, mask=mask, reduction=reduction)
        assert_same(found, wanted, student, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_comes_beside(reduction):
    student, teacher = given()
    targets = torch.arange(20).view(4, 5)
    targets[0] = -100
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2:] = False
    kd, ce = fused(student, teacher, 2.0, targets=targets, mask=mask, reduction=reduction)
    counted = targets.masked_fill(~mask, -100)
    wanted = F.cross_entropy(logits(student).flatten(0, 1), counted.flatten(), reduction=reduction)
    wanted_kd = dense("forward_kl", logits(student), logits(teacher), 2.0, mask=mask, reduction=reduction)
    if reduction == "none":
        wanted = wanted.view(4, 5)
    torch.testing.assert_close((kd, ce), (wanted_kd, wanted))
    assert_same(0.9 * kd + 0.1 * ce, 0.9 * wanted_kd + 0.1 * wanted, student, rtol=1e-10, atol=1e-12)
    no_labels = fused(student, teacher, targets=torch.full((4, 5), -100))
    assert no_labels[1] == 0


@pytest.mark.parametrize("classes", [(50, 41), (41, 50)])
@pytest.mark.parametrize("kind", KINDS)
def test_of_unequal_vocabularies_the_shared_classes_are_compared(kind, classes):
    student, teacher = given(classes=classes[0], others=classes[1])
    wanted = dense(kind, logits(student)[..., :41], logits(teacher)[..., :41], 1.0)
    assert_same(fused(student, teacher, divergence=kind), wanted, student, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rest", ["even", "bucket", "sampled"])
def test_a_few_kept_classes_are_enough(rest):
    student, teacher = given()
    answers = compress(logits(teacher), top_k=6, rest=rest)
    mask = torch.tensor([True, True, False, True]).unsqueeze(1).expand(4, 5)
    wanted = soft_target_loss(logits(student), answers, 1.0, mask=mask)
    found = linear_soft_target_loss(
        student["hidden"], student["weight"], answers, student_bias=student["bias"], mask=mask
    )
    assert_same(found, wanted, student, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_rows_that_have_to_be_copied_get_their_gradient(reduction):
    """A slice of longer texts, as a model's shifted hidden states are, is copied to be laid out in rows."""
    student, teacher = given()
    longer = torch.cat([student["hidden"]] * 2, 1).detach().requires_grad_()

    def sliced():
        return student | {"hidden": (2 * longer)[:, 1:6]}

    assert sliced()["hidden"].flatten(0, 1).is_contiguous()
    assert not sliced()["hidden"].is_contiguous()
    wanted = dense("forward_kl", logits(sliced()), logits(teacher), 1.0, reduction=reduction)
    learned = student | {"hidden": longer}
    assert_same(fused(sliced(), teacher, reduction=reduction), wanted, learned, rtol=1e-10, atol=1e-12)


def test_a_teachers_logits_may_be_given():
    student, teacher = given()
    found = linear_soft_target_loss(student["hidden"], student["weight"], logits(teacher), student_bias=student["bias"])
    assert_same(found, soft_target_loss(logits(student), logits(teacher), 1.0), student, rtol=1e-10, atol=1e-12)


def test_a_tied_weight_gets_both_gradients():
    table = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    teacher = {"hidden": torch.randn(6, 12).double(), "weight": torch.randn(50, 12).double()}
    words = torch.arange(6)
    losses = (
        fused({"hidden": table[words].tanh(), "weight": table}, teacher),
        soft_target_loss(table[words].tanh() @ table.T, logits(teacher), 1.0),
    )
    torch.testing.assert_close(*(torch.autograd.grad(loss, table)[0] for loss in losses))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_added_up_in_float32(kind):
    student, teacher = given(torch.bfloat16, shape=(64,), bias=False)
    found = fused(student, teacher, divergence=kind)
    assert found.dtype == torch.float32
    assert_same(found, dense(kind, logits(student), logits(teacher), 1.0), student, rtol=2e-2, atol=2e-3)


def test_masked_positions_may_hold_anything():
    student, teacher = given()
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2] = False
    wanted = torch.autograd.grad(fused(student, teacher, mask=mask), list(student.values()))
    for layer in (student, teacher):
        layer["hidden"] = layer["hidden"].detach().clone()
        layer["hidden"][2] = torch.nan
    student["hidden"].requires_grad_()
    found = torch.autograd.grad(fused(student, teacher, mask=mask), list(student.values()))
    torch.testing.assert_close(found, wanted)
    assert (found[0][2] == 0).all()


def test_no_gradient_reaches_the_teacher_and_none_is_made_where_none_is_wanted(monkeypatch):
    student, teacher = given()
    for column in teacher.values():
        column.requires_grad_()
    fused(student, teacher).backward()
    assert all(column.grad is None for column in teacher.values())
    monkeypatch.setattr(linear, "_Gradients", lambda *_: pytest.fail("gradients were made"))
    with torch.no_grad():
        assert fused(student, teacher) > 0
    frozen = {name: column.detach() for name, column in student.items()}
    assert fused(frozen, teacher) > 0


def test_a_second_backward_pass_makes_the_gradients_anew():
    student, teacher = given()
    loss = fused(student, teacher)
    first, second = (torch.autograd.grad(loss, list(student.values()), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second)


def test_memory_does_not_grow_with_the_rows(printed):
    """64 MiB of logits on each side, in a process of its own."""
    program = """
import resource, torch
torch.set_num_threads(1)
from kdft_lib.losses import linear_soft_target_loss
hidden, weight = torch.randn(1024, 16, requires_grad=True), torch.randn(16384, 16, requires_grad=True)
other = torch.randn(1024, 16), torch.randn(16384, 16)
linear_soft_target_loss(hidden[:256], weight, other[0][:256], other[1]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_soft_target_loss(hidden, weight, *other).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    assert float(printed(program)) < 16


def test_hidden_states_of_autocast_meet_weights_in_32_bits():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    half = hidden.bfloat16()
    found = linear_soft_target_loss(half, weight, half, weight + 1)
    assert found == pytest.approx(linear_soft_target_loss(half.float(), weight, half.float(), weight + 1).item())


def test_targets_that_the_mask_leaves_out_may_be_anything():
    hidden, weight, mask = torch.randn(5, 4), torch.randn(9, 4), torch.tensor([True] * 4 + [False])
    targets = torch.tensor([0, 1, 2, 3, 999])
    found = linear_soft_target_loss(hidden, weight, hidden, weight + 1, mask=mask, targets=targets)
    wanted = linear_soft_target_loss(hidden[:4], weight, hidden[:4], weight + 1, targets=targets[:4])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "others"), [(4096, 4096), (4096, 4100), (4100, 4096)])
def test_slopes_lie_where_the_logits_lay(kind, classes, others, monkeypatch):
    """Two blocks, each of enough logits for a kernel; both sides mask two classes."""
    monkeypatch.setattr(linear, "_ROOM", 20 * 4100)
    student, teacher = given(torch.float32, classes, others, shape=(8, 5))
    assert divergences.LARGE < 20 * 4096
    with torch.no_grad():
        teacher["bias"][:2] = student["bias"][:2] = -torch.inf
    found = fused(student, teacher, 2.0, divergence=kind)
    shared = slice(min(classes, others))
    wanted = dense(kind, logits(student)[..., shared].double(), logits(teacher)[..., shared].double(), 2.0)
    assert_same(found, wanted.float(), student, rtol=1e-4, atol=1e-6)
