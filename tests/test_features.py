from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from kdft_lib.data import TensorData
from kdft_lib.features import Remembered, find, outputs, precompute
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import HeadOnly
from kdft_lib.training import fit


class Residual(nn.Module):
    """Changes what its layer gave, twice and in place, as torchvision's residual blocks do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs):
        values = self.layer(inputs)
        values += inputs
        return self.relu(values)


def test_what_a_layer_gave_is_kept_as_it_was():
    """A hook that keeps the tensor itself would see it after the addition and the ReLU."""
    model, inputs = Residual(), torch.randn(8, 3)
    given = outputs(model, inputs, ["layer", "relu"])
    torch.testing.assert_close(given.features["layer"], model.layer(inputs))
    torch.testing.assert_close(given.features["relu"], given.logits)
    assert (given.features["layer"] < 0).any()
    assert given.model is model


def test_gradients_flow_through_features():
    model, inputs = Residual(), torch.randn(8, 3)
    outputs(model, inputs, ["layer"]).features["layer"].sum().backward()
    torch.testing.assert_close(model.layer.bias.grad, torch.full((3,), 8.0))


def test_no_hook_stays_behind_even_after_an_error():
    model = Residual()
    with pytest.raises(RuntimeError):
        outputs(model, torch.randn(8, 4), ["layer"])
    outputs(model, torch.randn(8, 3), ["layer"])
    assert not model.layer._forward_hooks


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.pair, self.named, self.word = (nn.Identity() for _ in range(5))
        self.pair.forward = lambda x: (None, x + 1, x + 2)
        self.named.forward = lambda x: {"first": x + 3, "second": x}
        self.word.forward = lambda x: "no tensor"

    def forward(self, inputs):
        self.pair(inputs), self.named(inputs), self.word(inputs), self.used(inputs)
        return self.used(2 * inputs)


def test_the_first_tensor_of_several_and_the_last_call_count():
    inputs = torch.zeros(2, 3)
    given = outputs(Branching(), inputs + 1, ["used", "pair", "named"])
    assert given.features["used"].eq(2).all()
    assert given.features["pair"].eq(2).all()
    assert given.features["named"].eq(4).all()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unused", "layer is 'unused', a Identity that Branching did not call; name one that runs"),
        ("word", "layer is 'word', a Identity that gives a str without a tensor"),
        ("usedd", "layer is 'usedd', which Branching does not have; .* such as 'used', 'unused'"),
        ("", "layer is '', which Branching does not have; .* such as 'used', 'unused', 'pair'"),
    ],
)
def test_layers_that_give_nothing_are_named(layer, message):
    with pytest.raises(ValueError, match=message):
        outputs(Branching(), torch.zeros(2, 3), [layer])


def test_a_model_without_modules_says_so():
    with pytest.raises(ValueError, match=r"head is 'head', which Linear does not have; .*\(it has none\)"):
        find(nn.Linear(2, 2), "head", "head")


def test_training_on_features_is_training_the_head(net, blobs, state_bytes, assert_same_bits):
    model = net()
    torch.manual_seed(5)
    whole = net()
    whole.load_state_dict(model.state_dict())
    before, modes = state_bytes(model), [module.training for module in model.modules()]
    head, features = precompute(model, "head", blobs, batch_size=50)
    assert_same_bits(before, state_bytes(model))
    assert modes == [module.training for module in model.modules()]
    assert head is model.head
    assert torch.equal(features.targets, blobs.targets)
    arguments = {"objective": Supervised(), "epochs": 4, "batch_size": 32, "seed": 3}
    fit(whole, blobs, strategy=HeadOnly(head="head", lr=0.1), **arguments)
    from kdft_lib.strategies import FullFineTuning

    fit(head, features, strategy=FullFineTuning(lr=0.1), **arguments)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name])


def test_what_is_remembered_is_computed_once(net, blobs):
    model, calls = net(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    features = Remembered(model, "head", batch_size=10)
    first, both = features(blobs[:10]), features(blobs[:15])
    assert len(calls) == 2  # The second for the five that are new.
    torch.testing.assert_close(both.inputs, precompute(model, "head", blobs[:15])[1].inputs)
    assert torch.equal(first.inputs, both.inputs[:10])
    assert torch.equal(both.targets, blobs.targets[:15])
    assert not pickle.loads(pickle.dumps(Remembered(nn.Linear(2, 2), "")))._known


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("haed", "head is 'haed', which NormalizedNet does not have"),
        ("body", "head is 'body', but the model's logits are not what it gives: something comes after it"),
        ("body.0", "something comes after it"),
    ],
)
def test_heads_that_are_none_are_named(net, blobs, head, message):
    with pytest.raises(ValueError, match=message):
        precompute(net(), head, blobs)


def test_heads_that_take_more_or_run_more_are_named(blobs):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, inputs):
            return self.head(self.head(inputs))

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Bilinear(4, 4, 3)

        def forward(self, inputs):
            return self.head(inputs, inputs)

    with pytest.raises(ValueError, match="head is 'head', which the model called 2 times"):
        precompute(Twice(), "head", blobs)
    with pytest.raises(ValueError, match="head is 'head', which takes 2 arguments"):
        precompute(Two(), "head", blobs)
    with pytest.raises(ValueError, match="data is empty"):
        precompute(nn.Sequential(nn.Linear(4, 3)), "0", TensorData(torch.zeros(0, 4)))
