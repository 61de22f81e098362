"""The range test: which learning rate to begin with."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from kdft_lib.data import TensorData
from kdft_lib.models import ConvNet
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly, Phases
from kdft_lib.training import find_lr, fit

STRATEGY = FullFineTuning(lr=0.01)


def problem(scale=1.0):
    """A linear problem in sixteen dimensions, with one label in five at random."""
    inputs = scale * torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    targets = (inputs @ weights).argmax(1)
    targets[::5] = torch.randint(3, (52,), generator=torch.Generator().manual_seed(2))
    return TensorData(inputs, targets)


def network():
    """Deep enough to be wrecked by a rate that is too high."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def last_loss(lr, data, steps=150):
    model = network()
    return fit(model, data, objective=Supervised(), strategy=FullFineTuning(lr=lr), steps=steps).epochs[-1]["loss"]


def test_the_rate_that_it_suggests_trains_better_than_much_lower_and_much_higher_ones():
    data = problem()
    lr = find_lr(network(), data, objective=Supervised(), strategy=STRATEGY).suggestion
    assert last_loss(lr, data) < min(last_loss(lr / 100, data), last_loss(100 * lr, data)) / 1.5


def test_it_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).eval()
    model[0].weight.requires_grad_(False)
    strategy = HeadOnly(lr=0.01, head="3")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, flags = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]
    find_lr(model, problem(), objective=Supervised(), strategy=strategy, steps=30)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not any(module.training for module in model.modules())
    assert strategy.lr == 0.01


def test_rates_rise_by_the_same_factor_and_it_ends_where_the_loss_is_four_times_the_lowest():
    sgd = functools.partial(torch.optim.SGD)
    data = problem(scale=10.0)
    found = find_lr(nn.Linear(16, 3), data, objective=Supervised(), strategy=STRATEGY, optimizer=sgd, highest=1e4)
    rates = torch.tensor(found.rates, dtype=torch.float64)
    assert 1e-5 < rates[0] < 1.2e-5
    factors = rates[1:] / rates[:-1]
    torch.testing.assert_close(factors, factors[:1].expand_as(factors))
    assert len(found.rates) < 200
    assert found.losses[-1] > 4 * min(found.losses)


def test_a_test_that_ends_after_fewer_steps_than_it_smooths_over_suggests_one_of_its_rates():
    sgd = functools.partial(torch.optim.SGD)
    options = {"optimizer": sgd, "lowest": 1.0, "highest": 1e4, "steps": 400}
    found = find_lr(nn.Linear(16, 3), problem(scale=100.0), objective=Supervised(), strategy=STRATEGY, **options)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 40
    assert found.suggestion in [max(rate / 10, 1.0) for rate in found.rates]


def test_the_first_rate_is_the_least_that_it_suggests():
    data = problem(scale=1e4)
    sgd = functools.partial(torch.optim.SGD)
    found = find_lr(nn.Linear(16, 3), data, objective=Supervised(), strategy=STRATEGY, optimizer=sgd, lowest=1.0)
    assert found.suggestion == 1.0


def test_the_same_seed_gives_the_same_curve_and_the_strategy_s_own_rate_plays_no_part():
    torch.manual_seed(0)
    model, data = ConvNet(4), TensorData(torch.randn(64, 1, 28, 28), torch.arange(64) % 10)
    first, again = (
        find_lr(model, data, objective=Supervised(), strategy=FullFineTuning(lr=lr), steps=20, batch_size=16, seed=3)
        for lr in (1e-3, 0.5)
    )
    assert first.losses == pytest.approx(again.losses, rel=1e-4)
    assert first.rates == pytest.approx(again.rates)


def test_its_curve_is_drawn():
    found = find_lr(nn.Linear(16, 3), problem(), objective=Supervised(), strategy=STRATEGY, steps=40)
    ax = found.plot()
    assert [len(line.get_xdata()) for line in ax.lines[:2]] == [len(found.rates)] * 2
    assert ax.texts[0].get_text() == f"begin with {found.suggestion:.2g}"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": 2}, TypeError, "find_lr sets epochs itself; leave it out"),
        ({"schedule": "cosine"}, TypeError, "find_lr sets schedule itself"),
        ({"lr": 0.1}, TypeError, "fit has no option 'lr'; learning rate and weight decay belong to the strategy"),
        ({"lowest": 0.0}, ValueError, "lowest is 0.0 and highest 10.0; wanted 0 < lowest < highest"),
        ({"lowest": 1.0, "highest": 0.1}, ValueError, "lowest is 1.0 and highest 0.1"),
        ({"steps": 5}, ValueError, "steps is 5; it must be a whole number, 20 or more"),
    ],
)
def test_what_it_refuses(options, error, words):
    with pytest.raises(error, match=words):
        find_lr(nn.Linear(16, 3), problem(), objective=Supervised(), strategy=STRATEGY, **options)


def test_a_loss_that_is_never_finite_is_an_error_that_says_so():
    model = nn.Sequential(nn.Linear(16, 3), nn.Threshold(1e9, torch.inf))
    with pytest.raises(
        ValueError, match="the loss was not finite after 0 of 200 steps; give a lower lowest than 1e-05"
    ):
        find_lr(model, problem(), objective=Supervised(), strategy=STRATEGY)


def test_strategies_one_after_another_have_no_rate_to_try(blobs):
    both = Phases(HeadOnly(lr=0.1, head="2"), STRATEGY, first_epochs=1)
    with pytest.raises(ValueError, match="whose parts have rates of their own; give one of them"):
        find_lr(network(), blobs, objective=Supervised(), strategy=both)
