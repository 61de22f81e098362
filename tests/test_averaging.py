from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import evaluate, fit, interpolate, interpolation_curve
from kdft_lib.training.averaging import MovingAverage


def test_the_average_is_that_of_the_steps(blobs):
    """Against a plain recursion over the weights after each step."""
    torch.manual_seed(3)
    model = nn.Linear(4, 3)
    expected, weights = model.weight.detach().clone(), []
    original = torch.optim.SGD.step

    class Watched(torch.optim.SGD):
        def step(self, *args, **keywords):
            original(self, *args, **keywords)
            weights.append(model.weight.detach().clone())

    arguments = {
        "objective": Supervised(), "strategy": FullFineTuning(lr=0.1), "epochs": 10, "batch_size": 32,
        "val_data": blobs, "optimizer": Watched,
    }  # fmt: skip
    history = fit(model, blobs, ema_decay=0.8, **arguments)
    assert len(weights) == 30
    for number, weight in enumerate(weights, 1):
        decay = min(0.8, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(model.weight.detach(), expected)
    assert evaluate(model, blobs)["loss"] == pytest.approx(history.epochs[-1]["val_loss"])


def test_running_statistics_are_averaged_and_counters_copied(net, blobs):
    plain, averaged = net(), net()
    averaged.load_state_dict(plain.state_dict())
    for model, more in ((plain, {}), (averaged, {"ema_decay": 0.9})):
        fit(model, blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=4, batch_size=32, **more)
    assert averaged.body[1].num_batches_tracked == plain.body[1].num_batches_tracked == 12
    assert not torch.equal(averaged.body[1].running_mean, plain.body[1].running_mean)
    assert not torch.equal(averaged.head.weight, plain.head.weight)


def test_the_best_of_an_average_is_an_average(net, blobs):
    model = net()
    history = fit(
        model, blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.3), epochs=6, batch_size=32, val_data=blobs,
        keep_best=True, ema_decay=0.9,
    )  # fmt: skip
    best = max(row["val_accuracy"] for row in history.epochs)
    assert evaluate(model, blobs)["accuracy"] == best


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_decays_out_of_range_are_named(blobs, decay):
    with pytest.raises(ValueError, match=f"ema_decay is {decay}; it must lie between 0 and 1"):
        fit(
            nn.Linear(4, 3), blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=1, ema_decay=decay
        )  # fmt: skip


def test_between_two_models(net, state_bytes, assert_same_bits):
    start, tuned = net(), net()
    tuned.body[1].num_batches_tracked += 5
    before = state_bytes(start), state_bytes(tuned)
    between = interpolate(start, tuned, 0.3)
    for name, tensor in between.state_dict().items():
        a, b = start.state_dict()[name], tuned.state_dict()[name]
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.7 * a + 0.3 * b)
        else:
            assert torch.equal(tensor, b)
    assert_same_bits(before[0], state_bytes(start))
    assert_same_bits(before[1], state_bytes(tuned))
    for alpha, end in ((0.0, start), (1.0, tuned)):
        inputs = torch.randn(5, 4)
        torch.testing.assert_close(interpolate(start, tuned, alpha).eval()(inputs), end.eval()(inputs))


def test_models_that_cannot_be_mixed_are_named(net):
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"alpha is {alpha}; it must be from 0, the start, to 1"):
            interpolate(net(), net(), alpha)
    other = net()
    other.head = nn.Linear(8, 4)
    with pytest.raises(ValueError, match=r"start and tuned differ in 2 tensors, the first of them 'head.weight'"):
        interpolate(net(), other, 0.5)


def test_the_curve_scores_each_data_set(blobs):
    start = nn.Linear(4, 3)
    tuned = copy.deepcopy(start)
    fit(tuned, blobs[:60], objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=20, batch_size=32)
    curve = interpolation_curve(start, tuned, {"new": blobs[:60], "old": blobs[60:]})
    assert [row["alpha"] for row in curve] == pytest.approx([k / 10 for k in range(11)])
    assert curve[0]["old_accuracy"] == evaluate(start, blobs[60:])["accuracy"]
    assert curve[-1]["new_loss"] == pytest.approx(evaluate(tuned, blobs[:60])["loss"])
    assert curve[-1]["new_loss"] < curve[5]["new_loss"] < curve[0]["new_loss"]


def test_the_average_of_a_model_in_16_bits_moves_by_steps_that_16_bits_cannot_hold():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    average = MovingAverage(model, 0.999)
    average.updates = 10_000
    nn.init.constant_(model.weight, 2.0)
    for _ in range(2_000):
        average.update(model)
    assert average.tensors["weight"].item() == pytest.approx(2 - 0.999**2_000, abs=1e-3)
    with average.applied(model):
        assert model.weight.dtype == torch.bfloat16
        assert model.weight.item() == pytest.approx(1.865, abs=0.01)
