from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.training import fit

OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "SGD": functools.partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", ["labels", "teacher"])
def test_what_is_frozen_stays_bit_for_bit(net, blobs, state_bytes, assert_same_bits, optimizer, objective):
    model = net()
    before = state_bytes(model.body)
    head = state_bytes(model.head)
    fit(
        model, blobs, objective=Supervised() if objective == "labels" else SoftTargets(net()),
        strategy=HeadOnly("head", lr=0.1, weight_decay=0.5), optimizer=OPTIMIZERS[optimizer], epochs=5, val_data=blobs,
    )  # fmt: skip
    assert_same_bits(before, state_bytes(model.body))
    assert not torch.equal(head["weight"], model.head.weight)


def test_head_only_keeps_the_rest_in_evaluation_mode(net):
    model = net()
    strategy = HeadOnly("head", lr=0.1)
    model.train()
    strategy.before_epoch(model, 0)
    assert model.head.training
    assert not any(module.training for module in model.body.modules())


def test_a_head_may_lie_deep_and_hold_dropout():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(), nn.Linear(4, 3))))
    strategy = HeadOnly("1.1", lr=0.1)
    strategy.prepare(model)
    model.train()
    strategy.before_epoch(model, 0)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "1.1.1.weight",
        "1.1.1.bias",
    ]
    assert model[1][1][0].training
    assert not model[1][0].training


def test_full_fine_tuning_moves_everything_even_what_was_frozen(net, blobs, state_bytes):
    model = net()
    model.requires_grad_(False)
    before = state_bytes(model)
    fit(model, blobs, objective=Supervised(), strategy=FullFineTuning(0.01), epochs=1)
    after = state_bytes(model)
    assert all(not torch.equal(before[name], after[name]) for name in dict(model.named_parameters()))


def test_biases_and_normalisation_have_no_weight_decay(net):
    model = net()
    groups = FullFineTuning(0.1, weight_decay=0.2).param_groups(model)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.2 if name in ("body.0.weight", "head.weight") else 0.0), name
    assert all(group["lr"] == 0.1 for group in groups)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("haed", "head is 'haed', which NormalisedNet does not have; .*'head'"),
        ("", "head is '', which NormalisedNet does not have; .*'body', 'body.0'"),
        ("body.3", "head is 'body.3', a Dropout without parameters"),
    ],
)
def test_a_wrong_head_is_named_with_those_that_exist(net, head, message):
    with pytest.raises(ValueError, match=message):
        HeadOnly(head, lr=0.1).prepare(net())


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
def test_rates_must_be_positive(lr):
    for make in (FullFineTuning, lambda lr: HeadOnly("head", lr)):
        with pytest.raises(ValueError, match=f"lr is {lr}; it must be positive and finite"):
            make(lr)
    with pytest.raises(ValueError, match="weight_decay is -1"):
        FullFineTuning(0.1, weight_decay=-1)


def test_a_model_with_nothing_to_train_is_named(blobs):
    with pytest.raises(ValueError, match=r"FullFineTuning\(.*\), which leaves nothing of Identity to train"):
        fit(nn.Identity(), blobs, objective=Supervised(), strategy=FullFineTuning(0.1), epochs=1)
