"""Few of many classes, and answers from elsewhere: ``kdft_lib.answers`` and ``kdft_lib.losses.sparse``."""

from __future__ import annotations

import copy
from functools import partial

import closed_forms
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdft_lib.data import TensorData
from kdft_lib.losses import (
    hard_target_loss,
    jensen_shannon_loss,
    reverse_kl_loss,
    soft_target_loss,
    sparse,
    total_variation_loss,
)
from kdft_lib.models import CharacterGRU
from kdft_lib.objectives import DIST, DKD, GKD, HardTargets, Hint, LogitMatching, LwF, SoftTargets, Supervised, logits
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import answers, cache, compress, expand
from kdft_lib.training import evaluate, fit

DIVERGENCES = {
    "forward": (partial(soft_target_loss, temperature=1.0), partial(closed_forms.soft, temperature=1.0)),
    "reverse": (reverse_kl_loss, closed_forms.reverse),
    "between": (jensen_shannon_loss, closed_forms.jensen_shannon),
    "variation": (total_variation_loss, closed_forms.variation),
}
KINDS = ("even", "bucket", "sampled")


def pair(*shape, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(2)]


def with_gradient(loss, student, *arguments, **options):
    leaf = student.detach().requires_grad_()
    value = loss(leaf, *arguments, **options)
    return value, torch.autograd.grad(value.sum(), leaf)[0]


def assert_equal(found, wanted, **tolerance):
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, check_dtype=False, **tolerance)


def pooled(logits, indices):
    """Logits of the kept classes and of all others as one, written plainly."""
    p = logits.softmax(-1)
    kept = p.gather(-1, indices.long())
    others = p.scatter(-1, indices.long(), 0.0).sum(-1, keepdim=True)
    return torch.cat([kept, others], -1).log()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_with_all_classes_kept_an_even_share_is_the_whole(temperature):
    student, teacher = pair(2, 3, 7)
    found = with_gradient(soft_target_loss, student, compress(teacher, 7), temperature, reduction="none")
    assert_equal(found, with_gradient(closed_forms.soft, student, teacher, temperature))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_with_all_classes_kept_a_bucket_is_the_whole(divergence):
    student, teacher = pair(2, 3, 7)
    loss, plain = DIVERGENCES[divergence]
    found = with_gradient(loss, student, compress(teacher, 7, rest="bucket"), reduction="none")
    assert_equal(found, with_gradient(plain, student, teacher))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
@pytest.mark.parametrize("top_k", [1, 4, 10])
def test_an_even_share_is_a_distribution_like_any_other(top_k, temperature):
    student, teacher = pair(3, 4, 11)
    compact = compress(teacher, top_k)
    wanted = with_gradient(closed_forms.soft, student, expand(compact), temperature)
    assert_equal(with_gradient(soft_target_loss, student, compact, temperature, reduction="none"), wanted)
    narrow = compress(teacher.float(), top_k)
    found = with_gradient(soft_target_loss, student.float(), narrow, temperature, reduction="none")
    assert found[0].dtype == found[1].dtype == torch.float32
    assert_equal(found, (value.float() for value in wanted), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("top_k", [1, 4, 10])
def test_a_bucket_is_one_class_more(top_k, divergence):
    student, teacher = pair(3, 4, 11)
    loss, plain = DIVERGENCES[divergence]
    compact = compress(teacher, top_k, rest="bucket")
    indices = compact["indices"]
    wanted = with_gradient(lambda logits: plain(pooled(logits, indices), pooled(teacher, indices)), student)
    assert_equal(with_gradient(loss, student, compact, reduction="none"), wanted)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000), classes=st.integers(2, 12), share=st.floats(0, 1), scale=st.floats(0.1, 8),
    divergence=st.sampled_from(sorted(DIVERGENCES)),
)  # fmt: skip
def test_a_bucket_never_says_more_than_the_whole(seed, classes, share, scale, divergence):
    student, teacher = pair(5, classes, scale=scale, seed=seed)
    loss, _ = DIVERGENCES[divergence]
    bound = loss(student, compress(teacher, 1 + int(share * (classes - 1)), rest="bucket"), reduction="none")
    whole = loss(student, teacher, reduction="none")
    assert (bound <= whole * (1 + 1e-9) + 1e-9).all()
    assert (bound >= -1e-9).all()


@pytest.mark.parametrize("rest", ["even", "bucket"])
@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_a_few_classes_never_make_a_divergence_below_zero(rest, top_k):
    """The kept classes' terms alone do, where the student, being surer, gives them more than the teacher."""
    teacher, _ = pair(50, 20, scale=1.0)
    student = 1.5 * teacher
    kept = compress(teacher, top_k, rest=rest)
    log_p, log_q = kept["values"], student.log_softmax(-1).gather(-1, kept["indices"].long())
    assert (((log_p - log_q) * log_p.exp()).sum(-1) < 0).all() == (top_k < 20)
    found, gradient = with_gradient(soft_target_loss, student, kept, 1.0, reduction="none")
    assert (found >= -1e-9).all()
    assert (gradient.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("draws", [1, 4])
def test_what_is_drawn_is_right_on_average(draws):
    """Value and gradient, within four standard errors of the mean of 20,000 draws; an even share is far outside."""
    count = 20_000
    student, teacher = pair(1, 9, scale=2.0)
    value, gradient = with_gradient(closed_forms.soft, student, teacher, 1.0)
    many = student.expand(count, -1)
    generator = torch.Generator().manual_seed(0)
    drawn = compress(teacher.expand(count, -1), draws, rest="sampled", generator=generator)
    values, gradients = with_gradient(soft_target_loss, many, drawn, 1.0, reduction="none")
    for found, wanted in ((values, value), (gradients, gradient)):
        error = found.std(0) / count**0.5
        assert ((found.mean(0) - wanted[0]).abs() < 4 * error + 1e-12).all()
    even = with_gradient(soft_target_loss, student, compress(teacher, draws), 1.0)[1]
    assert ((even - gradient).abs() / (gradients.std(0) / count**0.5)).max() > 20


def test_a_repeat_counts_twice_and_is_one_class():
    student, teacher = pair(1, 5)
    compact = compress(teacher, 3, rest="sampled") | {"indices": torch.tensor([[1, 1, 4]], dtype=torch.int32)}
    p, q = teacher.log_softmax(-1)[0], student.log_softmax(-1)[0]
    compact["values"] = p[[1, 1, 4]].unsqueeze(0)
    wanted = (2 * (p[1] - q[1]) + p[4] - q[4]) / 3
    torch.testing.assert_close(soft_target_loss(student, compact, 1.0), wanted)
    shown = expand(compact).exp()[0]
    torch.testing.assert_close(shown, torch.tensor([0, 2 / 3, 0, 0, 1 / 3], dtype=torch.float64))


def test_draws_follow_the_generator_and_the_teacher():
    teacher = torch.tensor([[0.0, 1.0, -torch.inf]]).expand(1000, 3)
    state = torch.get_rng_state()
    first, again = (compress(teacher, 4, rest="sampled", generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first["indices"], again["indices"])
    assert set(first) == {"values", "indices", "classes"}
    assert first["indices"].max() == 1, "an impossible class is never drawn"
    assert (first["indices"].diff(dim=-1) >= 0).all()
    torch.testing.assert_close(first["values"], teacher.log_softmax(-1).gather(-1, first["indices"].long()))
    assert compress(teacher, 9, rest="sampled")["values"].shape == (1000, 9), "more draws than classes"


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_count_may_hold_anything(kind):
    student, teacher = pair(3, 4, 6)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    compact = compress(teacher, 3, rest=kind, generator=torch.Generator().manual_seed(2))
    wanted = with_gradient(soft_target_loss, student, compact, 1.0, reduction="none")
    compact = {
        name: column.masked_fill(~mask.unsqueeze(-1), torch.nan) if column.is_floating_point() else column
        for name, column in compact.items()
    }
    spoiled = student.masked_fill(~mask.unsqueeze(-1), torch.nan)
    value, gradient = with_gradient(soft_target_loss, spoiled, compact, 1.0, mask=mask, reduction="none")
    torch.testing.assert_close(value, wanted[0].masked_fill(~mask, 0.0))
    torch.testing.assert_close(gradient, wanted[1].masked_fill(~mask.unsqueeze(-1), 0.0))
    torch.testing.assert_close(soft_target_loss(spoiled, compact, 1.0, mask=mask), wanted[0][mask].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_saturated_and_impossible_classes(kind):
    """Finite where the whole is, with the whole's value where the kept classes hold all of the teacher."""
    teacher = torch.tensor([[1e4, 0.0, -1e4, -torch.inf], [0.0, 1e4, 0.0, -torch.inf]])
    student = torch.tensor([[-1e4, 1e4, 0.0, -torch.inf], [1e4, -1e4, -1e4, -torch.inf]])
    value, gradient = with_gradient(soft_target_loss, student, compress(teacher, 2, rest=kind), 1.0, reduction="none")
    torch.testing.assert_close(value, torch.tensor([2e4, 2e4]))
    torch.testing.assert_close(gradient, student.softmax(-1) - teacher.softmax(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_float32(kind, dtype):
    student, teacher = pair(64, 50, dtype=torch.float32)
    compact = compress(teacher, 5, rest=kind, generator=torch.Generator().manual_seed(2))
    wanted = with_gradient(soft_target_loss, student.to(dtype).double(), compact, 1.0)
    value, gradient = with_gradient(soft_target_loss, student.to(dtype), compact, 1.0)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_equal((value, gradient.double()), wanted, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(value.double(), wanted[0], rtol=1e-5, atol=1e-5)


def test_no_gradient_reaches_the_answers_and_reductions_agree():
    student, teacher = pair(4, 6)
    compact = compress(teacher, 2)
    for column in ("values", "even"):
        compact[column].requires_grad_()
    leaf = student.requires_grad_()
    rows = soft_target_loss(leaf, compact, reduction="none")
    rows.sum().backward()
    assert compact["values"].grad is compact["even"].grad is None
    torch.testing.assert_close(soft_target_loss(leaf, compact), rows.mean())
    torch.testing.assert_close(soft_target_loss(leaf, compact, reduction="sum"), rows.sum())


def largest_and_peak(call):
    """Of all that a call makes: its largest tensors' bytes, and the most bytes held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return sorted(event.nbytes() for event in events)[::-1], peak


@pytest.mark.parametrize("kind", KINDS)
def test_no_vocabulary_is_rebuilt(kind):
    """At 1,024 places over 32,000 classes, the one tensor as large as the logits is their gradient."""
    one = compress(pair(1, 32_000, dtype=torch.float32)[1], 64, rest=kind)
    compact = {name: column.repeat(1024, *[1] * (column.dim() - 1)) for name, column in one.items()}
    student = torch.randn(1024, 32_000)
    leaf = student.requires_grad_()
    made, peak = largest_and_peak(lambda: soft_target_loss(leaf, compact, 1.0).backward())
    assert made[0] == leaf.nbytes, "the gradient"
    assert made[1] < leaf.nbytes / 50
    assert peak < 1.05 * leaf.nbytes
    whole, _ = largest_and_peak(lambda: soft_target_loss(leaf.detach(), expand(compact), 1.0))
    assert whole[0] == leaf.nbytes, "the measure sees a vocabulary where there is one"


@pytest.mark.parametrize("kind", ["even", "bucket"])
def test_the_decision_is_the_highest_that_was_kept(kind):
    student, teacher = pair(3, 4, 9)
    compact = compress(teacher, 3, rest=kind)
    wanted = with_gradient(hard_target_loss, student, teacher, reduction="none")
    assert_equal(with_gradient(hard_target_loss, student, compact, reduction="none"), wanted)


# Objectives


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [SoftTargets, GKD])
def test_objectives_learn_from_what_was_kept(make, kind):
    inputs = torch.randint(65, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[:, 5:] = False
    torch.manual_seed(0)
    student, teacher = CharacterGRU(8), CharacterGRU(12)
    data = cache(teacher, TensorData(inputs, mask=mask), top_k=4, rest=kind)
    objective = make(
        teacher, temperature=1.0, kd_weight=1.0, ce_weight=0.0, **{"on_policy": 0.0} if make is GKD else {}
    )
    teacher.register_forward_hook(lambda *_: pytest.fail("the answers are there"))
    found = objective(student, next(data.batches(6)))["loss"]
    wanted = soft_target_loss(student(inputs), data.teacher_logits, 1.0, mask=mask)
    torch.testing.assert_close(found, wanted)


def test_what_the_student_writes_gets_whole_answers_and_the_rest_what_was_kept():
    inputs = torch.randint(65, (6, 8), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    student, teacher = CharacterGRU(8), CharacterGRU(12)
    data = cache(teacher, TensorData(inputs), top_k=2, rest="bucket")
    objective = GKD(teacher, on_policy=1 / 3, divergence="reverse_kl")
    torch.manual_seed(3)
    found = objective(student, next(data.batches(6)))["loss"]
    torch.manual_seed(3)
    batch = objective.before_step(student, next(data.batches(6)))
    own, given = batch["inputs"][:2], batch["inputs"][2:]
    values = torch.cat([
        reverse_kl_loss(student(own), teacher(own), reduction="none"),
        reverse_kl_loss(student(given), data[2:].teacher_logits, reduction="none"),
    ])  # fmt: skip
    torch.testing.assert_close(found, values.mean())
    torch.manual_seed(3)
    all_own = GKD(teacher, on_policy=1.0)
    own = all_own(student, next(data.batches(6)))["loss"]
    torch.manual_seed(3)
    torch.testing.assert_close(own, all_own(student, {"inputs": inputs})["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_and_more_rows_keep_their_answers(kind, blobs):
    teacher = nn.Linear(4, 3)
    data = cache(teacher, blobs, top_k=2, rest=kind)
    torch.manual_seed(1)
    start, ends = nn.Linear(4, 3), []
    for parts in (1, 3):
        student = copy.deepcopy(start)
        fit(
            student, data[:60], transfer_data=data[60:].without_labels(), strategy=FullFineTuning(lr=0.1),
            objective=SoftTargets(teacher, temperature=1.0), steps=5, batch_size=12, accumulate=parts,
        )  # fmt: skip
        ends.append(student.weight.detach())
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize(
    "objective",
    [DKD, DIST, LogitMatching, LwF, partial(SoftTargets, standardize=True)],
    ids=["DKD", "DIST", "LogitMatching", "LwF", "standardised"],
)
def test_what_compares_all_classes_says_so(objective, blobs):
    teacher = nn.Linear(4, 3)
    batch = next(cache(teacher, blobs, top_k=2).batches(8))
    with pytest.raises(ValueError, match="compares all classes, and the data keeps 2 of each answer; keep all"):
        objective(teacher)(nn.Linear(4, 3), batch)


def test_features_do_not_ask_for_answers(blobs):
    teacher, student = (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)) for _ in range(2))
    batch = next(cache(teacher, blobs, top_k=2).batches(8))
    both = SoftTargets(teacher) + Hint(teacher, "0", "0")
    both.prepare(student, batch)
    assert set(both(student, batch)) == {"loss", "soft_targets/kd", "soft_targets/ce", "hint/feature"}


def test_the_cache_draws_the_same_again_and_leaves_torchs_generator(blobs):
    teacher = nn.Linear(4, 3)
    state = torch.get_rng_state()
    first, again = (cache(teacher, blobs, top_k=3, rest="sampled").teacher_logits for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for name, column in first.items():
        assert torch.equal(column, again[name])
    halves = first["indices"][:60], first["indices"][60:]
    assert not torch.equal(*halves)
    assert "bucket" in cache(teacher, blobs, top_k=2, rest="bucket").teacher_logits


# From elsewhere


def test_probabilities_logits_and_decisions_teach_alike_where_they_say_the_same(blobs):
    student = nn.Linear(4, 3)
    scores = torch.randn(120, 3)
    said = {
        "logits": answers(blobs, logits=scores, source="an API"),
        "probabilities": answers(blobs, probabilities=scores.double().softmax(-1).numpy(), source="an API"),
    }
    objective = SoftTargets(temperature=2.0)
    losses = {name: objective(student, next(data.batches(120)))["soft_targets/kd"] for name, data in said.items()}
    torch.testing.assert_close(losses["logits"], soft_target_loss(student(blobs.inputs), scores, 2.0))
    torch.testing.assert_close(losses["probabilities"], losses["logits"])
    assert said["logits"].teacher == "an API"
    assert torch.equal(said["logits"].targets, blobs.targets)

    decided = next(answers(blobs, decisions=scores.argmax(-1), source="a person").batches(120))
    assert decided["teacher_logits"]["indices"].shape == (120, 1)
    wanted = hard_target_loss(student(blobs.inputs), scores)
    for learner in (HardTargets(), SoftTargets(temperature=1.0)):
        torch.testing.assert_close(learner(student, decided)[f"{learner.name}/kd"], wanted)
    hot = nn.functional.one_hot(scores.argmax(-1), 3).float()
    sure = next(answers(blobs, probabilities=hot, source="a person").batches(120))
    found, wanted = (objective(student, batch)["soft_targets/kd"] for batch in (decided, sure))
    torch.testing.assert_close(found, wanted)


def test_answers_of_texts_and_of_a_model_are_answers_too():
    inputs = torch.randint(65, (3, 8), generator=torch.Generator().manual_seed(0))
    student, teacher = CharacterGRU(4), CharacterGRU(8)
    cached = cache(teacher, TensorData(inputs))
    found = GKD(on_policy=0.0)(student, next(cached.batches(3)))["loss"]
    torch.testing.assert_close(found, GKD(teacher, on_policy=0.0)(student, {"inputs": inputs})["loss"])
    said = answers(TensorData(inputs), decisions=inputs.roll(-1, 1), source="the text itself")
    labels = TensorData(inputs, inputs.roll(-1, 1))
    torch.testing.assert_close(
        HardTargets(ce_weight=0.0, kd_weight=1.0)(student, next(said.batches(3)))["loss"],
        Supervised()(student, next(labels.batches(3)))["loss"],
    )


def test_a_forest_teaches_a_network():
    """No gradient, no module: trees fitted on 400 labels answer 2,000 samples that have none."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3_400, 2, generator=generator)
    targets = (inputs[:, 0] * inputs[:, 1] > 0).long() + (inputs.norm(dim=1) > 1.5).long()
    forest = HistGradientBoostingClassifier(random_state=0).fit(inputs[:400].numpy(), targets[:400].numpy())
    said = forest.predict_proba(inputs[400:2_400].numpy())
    test = TensorData(inputs[2_400:], targets[2_400:])
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
    before = evaluate(student, test)["accuracy"]
    history = fit(
        student, answers(TensorData(inputs[400:2_400]), probabilities=said, source="boosted trees"),
        objective=SoftTargets(temperature=1.0, kd_weight=1.0, ce_weight=0.0), strategy=FullFineTuning(lr=0.02),
        steps=1_000, batch_size=64,
    )  # fmt: skip
    after = evaluate(student, test)["accuracy"]
    of_the_forest = forest.score(test.inputs.numpy(), test.targets.numpy())
    print(f"\nbefore {before:.3f}, taught {after:.3f}, the forest {of_the_forest:.3f}")
    assert before < 0.6
    assert after > of_the_forest - 0.05
    assert history.ledger.labels == 0
    assert history.ledger.unlabeled == 2_000
    assert history.ledger.teacher_labels is None, "nobody told"


@pytest.mark.parametrize("make", [SoftTargets, lambda: Supervised() + HardTargets(ce_weight=0.0)])
def test_answers_to_other_inputs_are_refused(make, blobs):
    data = answers(blobs, logits=torch.zeros(120, 3), source="an API")
    with pytest.raises(ValueError, match="augment changes the inputs, and the data carries teacher logits of the unch"):
        fit(
            nn.Linear(4, 3), data, objective=make(), strategy=FullFineTuning(lr=0.1), steps=1, batch_size=8,
            augment=lambda inputs: inputs + 1.0,
        )  # fmt: skip


def test_a_model_is_not_taken_for_a_source(blobs):
    data = answers(blobs, logits=torch.zeros(120, 3), source="an API")
    with pytest.raises(ValueError, match="the data's cached logits are of another teacher"):
        fit(
            nn.Linear(4, 3), data, objective=SoftTargets(nn.Linear(4, 3)), strategy=FullFineTuning(lr=0.1), steps=1,
            batch_size=8,
        )  # fmt: skip


def test_integer_types_and_devices_of_decisions(blobs):
    for dtype in (torch.uint8, torch.int32, torch.int64):
        said = answers(blobs, decisions=blobs.targets.to(dtype), source="a person").teacher_logits
        assert said["indices"].flatten().tolist() == blobs.targets.tolist()


@pytest.mark.parametrize("said", [{"top_k": 2}, {"decisions": 3}])
def test_where_steps_look_at_no_value_the_first_batch_is_looked_at(said, blobs, monkeypatch):
    """As on a GPU: of other classes there is one error, before a step."""
    for module in (logits, sparse):
        monkeypatch.setattr(module, "readable", lambda tensor: False)
    if "top_k" in said:
        data, objective = cache(nn.Linear(4, 4), blobs, **said), SoftTargets(teacher=None, temperature=1.0)
    else:
        data, objective = answers(blobs, decisions=torch.full((120,), 3), source="a person"), HardTargets()
    model = nn.Linear(4, 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"student_logits has 3 classes|names class 3; the student has 3"):
        fit(model, data, objective=objective, strategy=FullFineTuning(lr=0.1), steps=2, batch_size=8)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
