from __future__ import annotations

import copy
import functools
import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdft_lib.data import UNLABELED, TensorData
from kdft_lib.objectives import Objective, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.training import constant, cosine, evaluate, fit, one_cycle, predict

FULL = FullFineTuning(lr=1e-2)
SGD = functools.partial(torch.optim.SGD, momentum=0.9)


def linear():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def trained(make, data, **keywords):
    torch.manual_seed(5)
    model = make()
    history = fit(
        model, data, **{"objective": Supervised(), "strategy": FULL, "epochs": 4, "batch_size": 32} | keywords
    )
    return model, history


def distance(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max((x.double() - y.double()).abs().max().item() for x, y in pairs)


def test_it_learns(blobs):
    model, history = trained(linear, blobs, epochs=30)
    assert evaluate(model, blobs)["accuracy"] > 0.9
    assert history.steps[-1]["loss"] < history.steps[0]["loss"] / 2


def test_the_same_seed_ends_with_the_same_weights(net, blobs, state_bytes, assert_same_bits):
    first, _ = trained(net, blobs, seed=1)
    torch.rand(7)
    again, _ = trained(net, blobs, seed=1)
    other, _ = trained(net, blobs, seed=2)
    assert_same_bits(state_bytes(first), state_bytes(again))
    assert distance(first, other) > 1e-4


def test_it_is_the_loop_that_one_would_write(blobs):
    model, _ = trained(
        linear, blobs, optimizer=SGD, schedule="constant", strategy=FullFineTuning(lr=0.1, weight_decay=0)
    )
    bare = linear()
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9)
    for number in range(4):
        order = torch.randperm(120, generator=torch.Generator().manual_seed(number))
        for rows in order[:96].split(32):
            loss = nn.functional.cross_entropy(bare(blobs.inputs[rows]), blobs.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert distance(model, bare) < 1e-6


def test_what_was_lent_comes_back_but_for_the_weights(net, blobs):
    model = net().train()
    model.body.eval()
    model.body[0].bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    attributes = set(vars(model))
    random = torch.get_rng_state()
    for precision in ("float32", "bfloat16"):
        fit(model, blobs, objective=Supervised(), strategy=HeadOnly(head="head", lr=0.1), epochs=1, precision=precision)
        assert [module.training for module in model.modules()] == modes
        assert [parameter.requires_grad for parameter in model.parameters()] == required
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), random)
        assert set(vars(model)) == attributes


def test_budgets_are_steps_or_epochs(blobs):
    for keywords, steps, epochs in (
        ({"epochs": 2}, 6, 2),
        ({"steps": 7, "epochs": None}, 7, 3),
        ({"batch_size": 500}, 4, 4),
    ):
        _, history = trained(linear, blobs, **keywords)
        assert [step["step"] for step in history.steps] == list(range(1, steps + 1))
        assert [row["epoch"] for row in history.epochs] == list(range(epochs))
        assert history.ledger.steps == steps


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"steps": 3}, "epochs is 4 and steps is 3; give exactly one"),
        ({"epochs": None}, "epochs is None and steps is None; give exactly one"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number of 1 or more"),
        ({"epochs": None, "steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": 64}, "a batch of 32 samples cannot be cut into 64 parts"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be positive"),
        ({"schedule": "linear"}, "schedule is 'linear'; choose constant, cosine, one_cycle"),
        ({"precision": "half"}, "precision is 'half'; choose float32, bfloat16, float16"),
        ({"keep_best": True}, "keep_best needs val_data"),
    ],
)
def test_arguments_that_do_not_fit_are_named(blobs, keywords, message):
    with pytest.raises(ValueError, match=message):
        trained(linear, blobs, **keywords)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, float16 is allowed")
def test_float16_needs_a_gpu(blobs):
    with pytest.raises(ValueError, match='precision is "float16", which needs a GPU'):
        trained(linear, blobs, precision="float16")


def test_empty_data_is_named(blobs):
    for data in (blobs[:0], DataLoader(TensorDataset(torch.zeros(0, 4)), batch_size=32)):
        with pytest.raises(ValueError, match="train_data is empty"):
            trained(linear, data)
    with pytest.raises(ValueError, match="transfer_data is empty"):
        trained(linear, blobs, transfer_data=blobs[:0].without_labels())
    with pytest.raises(ValueError, match="train_data is a generator of unknown length, so that epochs"):
        trained(linear, (batch for batch in blobs.batches(3)))


@pytest.mark.parametrize("make", [lambda: Supervised(), lambda: SoftTargets(linear())])
def test_accumulated_parts_make_the_whole_step(blobs, make):
    targets = blobs.targets.clone()
    targets[::3] = UNLABELED
    data = TensorData(blobs.inputs, targets)
    keywords = {"optimizer": SGD, "transfer_data": blobs.without_labels(), "clip_norm": 0.5}
    whole, history = trained(linear, data, objective=make(), **keywords)
    parts, again = trained(linear, data, objective=make(), accumulate=5, **keywords)
    assert distance(whole, parts) < 1e-6
    for step, other in zip(history.steps, again.steps, strict=True):
        assert step == pytest.approx(other, rel=1e-5, abs=1e-7)


def test_clipping_limits_the_step(blobs):
    start = linear()
    keywords = {"optimizer": torch.optim.SGD, "schedule": "constant", "epochs": None, "steps": 1}
    strategy = FullFineTuning(lr=1.0, weight_decay=0)
    model, _ = trained(linear, blobs, strategy=strategy, clip_norm=1e-3, **keywords)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(model.parameters(), start.parameters(), strict=True)) ** 0.5
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)


def test_both_sources_are_drawn_from_at_each_step(blobs):
    seen = []

    class Watching(SoftTargets):
        def forward(self, model, batch):
            seen.append(batch["targets"])
            return super().forward(model, batch)

    _, history = trained(linear, blobs[:40], objective=Watching(linear()), transfer_data=blobs[40:].without_labels())
    assert all((targets != UNLABELED).tolist() == [True] * 32 + [False] * 32 for targets in seen)
    assert history.ledger.labels == 40
    assert history.ledger.unlabeled == 80
    assert {"loss", "soft_targets/kd", "soft_targets/ce"} < history.steps[0].keys()


def test_a_transfer_set_alone_needs_no_labels(blobs):
    _, history = trained(linear, blobs.without_labels(), objective=SoftTargets(linear(), ce_weight=0))
    assert history.ledger.labels == 0
    with pytest.raises(ValueError, match="the batch has no targets"):
        trained(linear, blobs.without_labels(), objective=SoftTargets(linear()))


def test_student_and_teacher_see_the_same_view(blobs):
    views = {"student": [], "teacher": []}

    def watched(name):
        model = linear()
        model.register_forward_pre_hook(lambda _, inputs: views[name].append(inputs[0].clone()))
        return model

    fit(
        watched("student"), blobs, objective=SoftTargets(watched("teacher")), strategy=FULL, epochs=2,
        augment=lambda inputs: inputs + torch.randn_like(inputs),
    )  # fmt: skip
    assert len(views["student"]) == len(views["teacher"]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*views.values(), strict=True))
    assert not torch.equal(views["student"][0].sort(0).values, views["student"][1].sort(0).values)


def test_a_loss_that_is_not_finite_stops_with_step_and_part(blobs, state_bytes, assert_same_bits):
    class Breaking(Objective):
        name = "breaking"

        def parts(self, student, teacher, batch):
            breaks = self.steps == 2
            self.steps += 1
            value = student.logits.mean()
            return {"fine": value, "bad": value * (math.nan if breaks else 1)}

    objective = Breaking({"fine": 1.0, "bad": 1.0})
    objective.steps = 0
    model = linear()
    with pytest.raises(FloatingPointError, match="at step 3 the loss is not finite: breaking/bad is nan"):
        fit(model, blobs, objective=objective, strategy=FULL, steps=5)
    objective.steps = -10
    before = linear()
    fit(before, blobs, objective=objective, strategy=FULL, steps=5, schedule="constant")
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_best_epoch_is_kept(blobs):
    torch.manual_seed(0)
    val = TensorData(blobs.inputs, blobs.targets[torch.randperm(120)])
    scores = []
    model, history = trained(linear, blobs, val_data=val, keep_best=True, epochs=12, strategy=FullFineTuning(lr=0.3))
    scores = [row["val_accuracy"] for row in history.epochs]
    assert history.best_epoch == scores.index(max(scores))
    assert scores[-1] < max(scores)
    assert evaluate(model, val)["accuracy"] == max(scores)
    assert list(history.table().columns)[-2:] == ["val_accuracy", "val_loss"]


def test_the_student_is_in_training_mode_in_every_epoch(net, blobs):
    """KD_Lib's stays in evaluation mode from its second epoch on, once it was validated."""
    modes = []
    model = net()
    model.body[3].register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    fit(model, blobs, objective=SoftTargets(net()), strategy=FULL, epochs=3, batch_size=40, val_data=blobs)
    assert modes == 3 * [*3 * [(True, True)], *2 * [(False, False)]]


def test_dense_outputs_train_and_validate():
    images = torch.randn(24, 2, 5, 5)
    data = TensorData(images, images.argmax(1))
    model = nn.Conv2d(2, 2, 1)
    history = fit(
        model, data, objective=Supervised(class_dim=1), strategy=FullFineTuning(lr=0.1), epochs=80, val_data=data
    )
    assert history.epochs[-1]["val_accuracy"] > 0.95


def test_rates_follow_the_schedule(blobs):
    for name, course in (
        ("constant", constant),
        ("cosine", cosine),
        ("one_cycle", one_cycle),
        (lambda p: p, lambda p: p),
    ):
        _, history = trained(linear, blobs, schedule=name)
        assert [step["lr"] for step in history.steps] == pytest.approx(
            [1e-2 * course((i + 0.5) / 12) for i in range(12)]
        )


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=1001, cycle_momentum=False)
    for step in range(1000):
        assert theirs.get_last_lr()[0] == pytest.approx(one_cycle(step / 1000), abs=5e-3)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kind", ["memory", "loader"])
def test_evaluate_and_predict_change_nothing(net, blobs, state_bytes, assert_same_bits, kind):
    data = blobs if kind == "memory" else DataLoader(TensorDataset(blobs.inputs, blobs.targets), batch_size=50)
    model = net().train()
    model.body.eval()
    before, random = state_bytes(model), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    logits, scores = predict(model, data), evaluate(model, data)
    assert_same_bits(before, state_bytes(model))
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert not logits.requires_grad
    torch.testing.assert_close(logits, copy.deepcopy(model).eval()(blobs.inputs))
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == blobs.targets).double().mean().item())
    assert scores["loss"] == pytest.approx(nn.functional.cross_entropy(logits, blobs.targets).item(), rel=1e-5)


def test_evaluate_needs_labels(net, blobs):
    with pytest.raises(ValueError, match="data has no targets"):
        evaluate(net(), blobs.without_labels())
    with pytest.raises(ValueError, match="data is empty"):
        predict(net(), blobs[:0])


def test_a_loader_trains_in_the_order_of_its_seed(net, blobs, state_bytes, assert_same_bits):
    dataset = TensorDataset(blobs.inputs, blobs.targets)
    ends = []
    for _ in range(2):
        torch.rand(3)
        loader = DataLoader(dataset, batch_size=32, shuffle=True, drop_last=True)
        model, history = trained(net, loader)
        ends.append(state_bytes(model))
    assert_same_bits(*ends)
    assert len(history.steps) == 12
    assert history.ledger.labels == 120
    assert evaluate(model, loader)["accuracy"] > 0.3


def test_a_hugging_face_model_sees_keywords_and_no_labels():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.EmbeddingBag(20, 3)

        def forward(self, input_ids, attention_mask, labels=None):
            assert labels is None
            return type("Output", (), {"logits": self.embed(input_ids, per_sample_weights=None)})()

    rows = [
        {"input_ids": torch.tensor([k % 20, 3]), "attention_mask": torch.ones(2), "labels": torch.tensor(k % 3)}
        for k in range(24)
    ]
    model = Classifier()
    history = fit(model, DataLoader(rows, batch_size=8), objective=SoftTargets(Classifier()), strategy=FULL, epochs=2)
    assert len(history.steps) == 6


@pytest.mark.parametrize("times", [1, 2])
def test_bfloat16_trains_and_is_used_each_time(net, blobs, times):
    kinds = []
    model = net()
    model.body[0].register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    for _ in range(times):
        kinds.clear()
        fit(model, blobs, objective=Supervised(), strategy=FULL, epochs=1, precision="bfloat16")
        assert set(kinds) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    kinds.clear()
    fit(model, blobs, objective=Supervised(), strategy=FULL, epochs=1)
    assert set(kinds) == {torch.float32}


def test_no_progress_bar_where_nobody_watches(blobs, capsys):
    trained(linear, blobs)
    assert capsys.readouterr() == ("", "")
    trained(linear, blobs, progress=True)
    assert "step" in capsys.readouterr().err


def test_a_notebook_is_watched_unless_it_is_said_that_nobody_does(monkeypatch):
    from kdft_lib import progress

    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    for value, wanted in (("1", False), ("0", True)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        assert progress.watched() is wanted
    monkeypatch.delenv("TQDM_DISABLE")
    assert progress.watched()


def test_tensorboard_has_every_step(blobs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history = trained(linear, blobs, objective=SoftTargets(linear()), val_data=blobs, log_dir=tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("loss", "soft_targets/kd", "soft_targets/ce", "lr"):
        logged = events.Scalars(f"train/{name}")
        assert [event.step for event in logged] == list(range(1, 13))
        assert [event.value for event in logged] == pytest.approx([step[name] for step in history.steps], rel=1e-6)
    assert [event.step for event in events.Scalars("val/accuracy")] == [3, 6, 9, 12]


def test_history_says_what_happened(blobs):
    _, history = trained(linear, blobs, val_data=blobs)
    assert repr(history).startswith("History(12 steps, 4 epochs,")
    assert history.seconds > 0
    assert history.plot().get_xlabel() == "step"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_model_teacher_and_data_move_by_themselves(net, blobs, precision):
    model, teacher = net(), net()
    history = fit(model, blobs, objective=SoftTargets(teacher), strategy=FULL, epochs=20, precision=precision)
    assert next(model.parameters()).is_cuda
    assert next(teacher.parameters()).is_cuda
    assert history.steps[-1]["loss"] < history.steps[0]["loss"]
    assert evaluate(model, blobs)["accuracy"] > 0.5


def test_validation_reads_twice_as_many_as_training_and_in_its_precision(blobs):
    class Watching(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            if not self.training:
                seen.append((len(inputs), outputs.dtype))
            return outputs

    seen = []
    how = {"objective": Supervised(), "strategy": FULL, "steps": 2, "batch_size": 20, "precision": "bfloat16"}
    fit(Watching(4, 3), blobs, val_data=blobs, **how)
    assert seen == 3 * [(40, torch.bfloat16)]


@pytest.mark.parametrize("steps", [1e1, 10])
def test_whole_numbers_may_come_as_other_numbers(blobs, steps):
    assert (
        fit(linear(), blobs, objective=Supervised(), strategy=FULL, steps=steps, batch_size=40).steps[-1]["step"] == 10
    )
    with pytest.raises(ValueError, match=r"seed is 0\.5; it must be a whole number"):
        fit(linear(), blobs, objective=Supervised(), strategy=FULL, steps=2, seed=0.5)
    for name in ("seed", "batch_size", "accumulate", "num_workers"):
        with pytest.raises(TypeError, match=f"{name} is None; it must be a"):
            fit(linear(), blobs, objective=Supervised(), strategy=FULL, steps=2, **{name: None})


def test_gradients_that_were_there_do_not_move_the_first_step(blobs):
    plain, stale = linear(), linear()
    (1000 * stale(blobs.inputs).square().sum()).backward()
    for model in (plain, stale):
        fit(model, blobs, objective=Supervised(), strategy=FULL, optimizer=SGD, steps=1)
    assert distance(plain, stale) == 0


def test_scores_are_computed_in_full_precision(blobs):
    seen = []

    def metric(logits, targets):
        seen.append((logits @ logits.T).dtype)
        return 0.0

    fit(nn.Linear(4, 3), blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=1, val_data=blobs,
        precision="bfloat16", metrics={"m": metric})  # fmt: skip
    assert set(seen) == {torch.float32}


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return itertools.repeat({"inputs": torch.zeros(3, 2, 2), "targets": torch.zeros(2, 2, dtype=torch.long)})


class Unlabeled(Endless):
    def __iter__(self):
        return itertools.repeat(torch.zeros(3, 2, 2))


def test_samples_of_streams_are_counted_and_not_their_positions():
    how = {"strategy": FULL, "batch_size": 4, "steps": 3}
    history = fit(nn.Conv2d(3, 2, 1), Endless(), objective=Supervised(), **how)
    assert history.ledger.labels == 12
    objective = SoftTargets(nn.Conv2d(3, 2, 1), class_dim=1)
    history = fit(
        nn.Conv2d(3, 2, 1), Endless(), transfer_data=DataLoader(Unlabeled(), batch_size=2), objective=objective, **how
    )
    assert (history.ledger.labels, history.ledger.unlabeled) == (12, 6)


@pytest.mark.parametrize(("options", "size"), [
    ({"batch_size": 40, "accumulate": 4}, 20), ({"batch_size": 40}, 80),
])  # fmt: skip
def test_validation_has_twice_as_many_in_memory_as_training(blobs, options, size):
    sizes = []

    class Seen(nn.Linear):
        def forward(self, inputs):
            if not self.training:
                sizes.append(len(inputs))
            return super().forward(inputs)

    fit(Seen(4, 3), blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=1, val_data=blobs, **options)
    assert sizes[0] == size
    sizes.clear()
    loader = DataLoader(TensorDataset(blobs.inputs, blobs.targets), batch_size=10)
    fit(Seen(4, 3), loader, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=1, val_data=blobs)
    assert sizes[0] == 20


def test_validation_data_that_can_be_read_once_is_for_one_epoch(blobs):
    def train(epochs):
        fit(nn.Linear(4, 3), blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=epochs,
            val_data=(batch for batch in [blobs.rows(slice(0, 20))]))  # fmt: skip

    train(1)
    with pytest.raises(ValueError, match="val_data is a generator, which can be read once"):
        train(2)
