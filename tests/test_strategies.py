from __future__ import annotations

import functools
import inspect

import pytest
import torch
import transformers
from torch import nn

from kdft_lib import strategies
from kdft_lib.data import TensorData
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import (
    BitFit,
    FullFineTuning,
    GradualUnfreezing,
    HeadOnly,
    LayerwiseLRDecay,
    LoRA,
    Phases,
    blocks,
)
from kdft_lib.training import evaluate, fit, predict

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
        strategy=HeadOnly(head="head", lr=0.1, weight_decay=0.5), optimizer=OPTIMIZERS[optimizer], epochs=5,
        val_data=blobs,
    )  # fmt: skip
    assert_same_bits(before, state_bytes(model.body))
    assert not torch.equal(head["weight"], model.head.weight)


def test_head_only_keeps_the_rest_in_evaluation_mode(net):
    model = net()
    strategy = HeadOnly(head="head", lr=0.1)
    model.train()
    strategy.before_epoch(model, 0)
    assert model.head.training
    assert not any(module.training for module in model.body.modules())


def test_a_head_may_lie_deep_and_hold_dropout():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(), nn.Linear(4, 3))))
    strategy = HeadOnly(head="1.1", lr=0.1)
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
    fit(model, blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.01), epochs=1)
    after = state_bytes(model)
    assert all(not torch.equal(before[name], after[name]) for name in dict(model.named_parameters()))


def test_biases_and_normalization_have_no_weight_decay(net):
    model = net()
    groups = FullFineTuning(lr=0.1, weight_decay=0.2).param_groups(model)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.2 if name in ("body.0.weight", "head.weight") else 0.0), name
    assert all(group["lr"] == 0.1 for group in groups)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("haed", "head is 'haed', which NormalizedNet does not have; .*'head'"),
        ("", "head is '', which NormalizedNet does not have; .*'body', 'head'"),
        ("body.3", "head is 'body.3', a Dropout without parameters"),
    ],
)
def test_a_wrong_head_is_named_with_those_that_exist(net, head, message):
    with pytest.raises(ValueError, match=message):
        HeadOnly(head=head, lr=0.1).prepare(net())


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
def test_rates_must_be_positive(lr):
    for make in (FullFineTuning, lambda lr: HeadOnly(head="head", lr=lr)):
        with pytest.raises(ValueError, match=f"lr is {lr}; it must be positive and finite"):
            make(lr=lr)
    with pytest.raises(ValueError, match="weight_decay is -1"):
        FullFineTuning(lr=0.1, weight_decay=-1)


def test_a_model_with_nothing_to_train_is_named(blobs):
    with pytest.raises(ValueError, match=r"FullFineTuning\(.*\), which leaves nothing of Identity to train"):
        fit(nn.Identity(), blobs, objective=Supervised(), strategy=FullFineTuning(lr=0.1), epochs=1)


# Layers in order -----------------------------------------------------------------------------------


def deep():
    """Four blocks, each with what can leak."""
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.ReLU()) for _ in range(3)),
        nn.Linear(4, 3),
    )


class Stacked(nn.Module):
    """A token, a stem with its normalisation, a list of layers inside a wrapper, a last normalisation, a head."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.stem = nn.Linear(4, 4)
        self.stem_norm = nn.LayerNorm(4)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.norm = nn.LayerNorm(4)
        self.dropout = nn.Dropout()
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        values = self.stem_norm(self.stem(inputs + self.token))
        for layer in self.encoder.layers:
            values = layer(values).relu()
        return self.head(self.dropout(self.norm(values)))


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_blocks_are_found_in_order():
    assert blocks(deep()) == ["0", "1", "2", "3"]
    assert blocks(Stacked()) == ["stem", "encoder.layers.0", "encoder.layers.1", "head"]
    with pytest.raises(ValueError, match="LayerNorm has no weight matrix or kernel"):
        blocks(nn.LayerNorm(3))


def test_blocks_of_models_that_nobody_here_wrote():
    import timm
    import torchvision
    from transformers import BertConfig, BertForSequenceClassification

    stages = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert blocks(torchvision.models.resnet18()) == ["conv1", *stages, "fc"]
    assert blocks(torchvision.models.mobilenet_v3_small()) == [
        *(f"features.{place}" for place in range(13)), "classifier.0", "classifier.3",
    ]  # fmt: skip
    vit = timm.create_model("vit_tiny_patch16_224", depth=3)
    assert blocks(vit) == ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "head"]
    config = BertConfig(
        vocab_size=5000, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    assert blocks(BertForSequenceClassification(config)) == [
        "bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "classifier",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [LayerwiseLRDecay, GradualUnfreezing])
def test_rates_fall_from_block_to_block(make):
    rates = make(lr=0.8, decay=0.5).rates(Stacked())
    assert {name.removesuffix(".weight"): rate for name, rate in rates.items() if not name.endswith("bias")} == {
        "token": 0.1, "stem": 0.1, "stem_norm": 0.1, "encoder.layers.0": 0.2, "encoder.layers.1": 0.4, "norm": 0.4,
        "head": 0.8,
    }  # fmt: skip
    named = make(lr=0.8, decay=0.5, blocks=["encoder", "head"]).rates(Stacked())
    assert {named[name] for name in named if not name.startswith("head")} == {0.4}
    assert named["head.bias"] == 0.8


def test_layerwise_decay_groups_each_rate_with_and_without_decay():
    model = Stacked()
    groups = LayerwiseLRDecay(lr=0.8, decay=0.5, weight_decay=0.3).param_groups(model)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert all(decay[id(p)] == (0.3 if p.dim() >= 2 else 0.0) for p in model.parameters())
    asked = LayerwiseLRDecay(lr=0.8, decay=0.5, weight_decay=0.3, decay_all=True).param_groups(model)
    assert {group["weight_decay"] for group in asked} == {0.3}
    assert LayerwiseLRDecay(lr=0.1).decay == 0.75


def test_blocks_join_one_after_another_and_the_rest_stays_bit_for_bit(blobs, state_bytes, assert_same_bits):
    seen = []

    class Watching(GradualUnfreezing):
        def before_epoch(self, model, epoch):
            super().before_epoch(model, epoch)
            seen.append((trainable(model), [module.training for module in model], state_bytes(model)))

    model = deep()
    fit(model, blobs, objective=Supervised(), strategy=Watching(lr=0.1, weight_decay=0.5), epochs=6, batch_size=32)
    for epoch, (names, modes, _) in enumerate(seen):
        lowest = max(3 - epoch, 0)
        assert {name.split(".")[0] for name in names} == {str(place) for place in range(lowest, 4)}
        assert modes == [place >= lowest for place in range(4)]
        if epoch < 3:
            before, after = (
                {name: tensor for name, tensor in seen[e][2].items() if int(name[0]) < lowest}
                for e in (epoch, epoch + 1)
            )
            assert_same_bits(before, after)
    assert not torch.equal(seen[-2][2]["0.0.weight"], seen[-1][2]["0.0.weight"])


def test_epochs_per_block_and_named_blocks():
    model = Stacked()
    strategy = GradualUnfreezing(lr=0.1, epochs_per_block=2, blocks=["stem", "encoder", "head"])
    strategy.prepare(model)
    assert trainable(model) == ["head.weight", "head.bias"]
    for epoch, expected in ((1, {"head"}), (2, {"encoder", "norm", "head"}), (3, {"encoder", "norm", "head"})):
        strategy.before_epoch(model.train(), epoch)
        assert {name.split(".")[0] for name in trainable(model)} == expected
        assert model.norm.training == (epoch >= 2)
        assert not model.dropout.training
    strategy.before_epoch(model.train(), 4)
    assert len(trainable(model)) == len(list(model.parameters()))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerwiseLRDecay(lr=0.1, decay=0.0), "decay is 0.0; it must be above 0 and at most 1"),
        (lambda: LayerwiseLRDecay(lr=0.1, decay=1.5), "decay is 1.5"),
        (lambda: GradualUnfreezing(lr=0.1, decay=-1.0), "decay is -1.0"),
        (lambda: GradualUnfreezing(lr=0.1, epochs_per_block=0), "epochs_per_block is 0; it must be a whole number"),
        (lambda: GradualUnfreezing(lr=0.1, epochs_per_block=1.5), "epochs_per_block is 1.5"),
        (lambda: LayerwiseLRDecay(lr=0.1, blocks="head"), "blocks is 'head'; it must be a list"),
        (lambda: GradualUnfreezing(lr=0.1, blocks=[]), r"blocks is \[\]; it must be a list of one or more"),
        (lambda: LoRA(lr=0.1, r=0), "r is 0; it must be a whole number of 1 or more"),
        (lambda: LoRA(lr=0.1, alpha=0), "alpha is 0; it must be positive"),
        (lambda: LoRA(lr=0.1, dropout=1.0), "dropout is 1.0; it must be from 0 to below 1"),
        (lambda: LoRA(lr=0.1, target_modules="0"), "target_modules is '0'; it must be a list"),
        (
            lambda: Phases(FullFineTuning(lr=0.1), FullFineTuning(lr=0.1), first_epochs=0),
            "first_epochs is 0; it must be a whole number",
        ),
        (
            lambda: Phases(FullFineTuning(lr=0.1), FullFineTuning(lr=0.1), first_epochs=5).phase(0, 5),
            "first_epochs is 5, which leaves none of 5",
        ),
    ],
)
def test_bad_arguments_of_strategies_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [LayerwiseLRDecay, GradualUnfreezing])
def test_blocks_that_do_not_exist_are_named(make, blobs):
    with pytest.raises(ValueError, match=r"blocks is 'haed', which Stacked does not have; .*'head'"):
        fit(Stacked(), blobs, objective=Supervised(), strategy=make(lr=0.1, blocks=["haed"]), epochs=1)


# Biases, low rank, phases --------------------------------------------------------------------------


def test_biases_alone_move(net, blobs, state_bytes):
    model = net()
    before = state_bytes(model)
    fit(model, blobs, objective=Supervised(), strategy=BitFit(lr=0.1, weight_decay=0.5), epochs=3, batch_size=32)
    after = state_bytes(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"body.0.bias", "body.1.bias", "head.bias"}


def test_a_head_may_move_with_the_biases(net, blobs, state_bytes):
    model = net()
    before = state_bytes(model)
    fit(model, blobs, objective=Supervised(), strategy=BitFit(lr=0.1, head="head"), epochs=3, batch_size=32)
    after = state_bytes(model)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert torch.equal(before["body.0.weight"], after["body.0.weight"])
    assert model.body[3].training
    with pytest.raises(ValueError, match="head is 'haed'"):
        BitFit(lr=0.1, head="haed").prepare(model)
    plain = nn.Sequential(nn.Linear(4, 3, bias=False))
    with pytest.raises(ValueError, match="leaves nothing of Sequential to train"):
        fit(plain, blobs, objective=Supervised(), strategy=BitFit(lr=0.1), epochs=1)


def test_dropout_stays_on_for_biases():
    model = deep().train()
    BitFit(lr=0.1).prepare(model)
    BitFit(lr=0.1).before_epoch(model, 0)
    assert model[0][2].training
    assert not model[0][1].training


def test_a_low_rank_update_is_merged_and_of_low_rank(blobs):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    structure, required = repr(model), [parameter.requires_grad for parameter in model.parameters()]
    strategy = LoRA(lr=3e-2, r=2, alpha=4.0, head="5")
    history = fit(model, blobs, objective=Supervised(), strategy=strategy, epochs=20, batch_size=32)
    assert repr(model) == structure
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    assert history.steps[-1]["loss"] < 0.7 * history.steps[0]["loss"]
    after = model.state_dict()
    for name in ("0.weight", "3.weight"):
        update = after[name] - before[name]
        assert 1 <= torch.linalg.matrix_rank(update, rtol=1e-3) <= 2
    for name in ("0.bias", "1.weight", "1.running_mean", "3.bias"):
        assert torch.equal(after[name], before[name]), name
    assert not torch.equal(after["5.weight"], before["5.weight"])


def test_an_update_that_is_not_merged_stays_beside_the_weights(blobs, state_bytes):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    before = state_bytes(model)
    strategy = LoRA(lr=3e-2, r=2, target_modules=["0"], merge=False)
    fit(model, blobs, objective=Supervised(), strategy=strategy, epochs=3, batch_size=32)
    after = state_bytes(model)
    assert torch.equal(after["0.base_layer.weight"], before["0.weight"])
    assert torch.equal(after["2.weight"], before["2.weight"])
    assert after["0.lora_B.default.weight"].abs().sum() > 0
    tuned = model(blobs.inputs)
    again = LoRA(lr=1e-9, r=2, target_modules=["0"])
    fit(model, blobs, objective=Supervised(), strategy=again, epochs=1, batch_size=32)
    assert model.state_dict().keys() == before.keys()
    torch.testing.assert_close(model(blobs.inputs), tuned, rtol=1e-4, atol=1e-5)


def test_low_rank_starts_where_the_model_was(blobs):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    before = model(blobs.inputs)
    LoRA(lr=0.1).prepare(model)
    torch.testing.assert_close(model(blobs.inputs), before)
    assert trainable(model) == [
        "0.lora_A.default.weight", "0.lora_B.default.weight", "2.lora_A.default.weight", "2.lora_B.default.weight",
    ]  # fmt: skip
    assert model[0].scaling["default"] == 2.0


def test_low_rank_chooses_layers():
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten())
    LoRA(lr=0.1, r=2).prepare(convolutions)
    assert {name.split(".")[0] for name in trainable(convolutions)} == {"0"}
    attention = nn.TransformerEncoderLayer(8, 2, 16)
    LoRA(lr=0.1, r=2).prepare(attention)
    assert {name.split(".")[0] for name in trainable(attention)} == {"linear1", "linear2"}
    named = nn.ModuleDict({"fc": nn.Linear(2, 2), "deep": nn.ModuleDict({"fc": nn.Linear(2, 2)})})
    LoRA(lr=0.1, r=2, target_modules=["fc"]).prepare(named)
    assert {name.split(".lora")[0] for name in trainable(named)} == {"fc"}
    with pytest.raises(
        ValueError, match="Sequential has no linear layer or convolution to update; name some in target_modules"
    ):
        LoRA(lr=0.1, head="0").prepare(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="target_modules is 'fcc', which Sequential does not have"):
        LoRA(lr=0.1, target_modules=["fcc"]).prepare(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"target_modules is \['0'\], and peft cannot update them"):
        LoRA(lr=0.1, target_modules=["0"]).prepare(nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)))


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.Conv2d(3, 3, 1)], ids=["linear", "convolution"])
def test_low_rank_needs_nothing_else_that_peft_can_use(monkeypatch, layer):
    def refuse():
        raise ImportError("Found an incompatible version of torchao. Found version 0.10.0")

    monkeypatch.setattr("peft.tuners.lora.torchao.is_torchao_available", refuse)
    model = nn.Sequential(layer)
    LoRA(lr=0.1, r=2, target_modules=["0"]).prepare(model)
    assert hasattr(model[0], "lora_A")


def test_an_interrupted_low_rank_run_leaves_the_layers_that_were(blobs):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    structure = repr(model)

    def stop(*_):
        raise KeyboardInterrupt

    model[1].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        fit(model, blobs, objective=Supervised(), strategy=LoRA(lr=0.1), epochs=1)
    assert repr(model) == structure


def test_probing_then_fine_tuning(net, blobs, state_bytes):
    seen = []

    class Watching(Phases):
        def before_epoch(self, model, epoch):
            super().before_epoch(model, epoch)
            seen.append((trainable(model), model.body.training, state_bytes(model)))

    model = net()
    strategy = Watching(
        HeadOnly(head="head", lr=0.1, weight_decay=0.3), FullFineTuning(lr=1e-3, weight_decay=0.2), first_epochs=2
    )
    history = fit(model, blobs, objective=Supervised(), strategy=strategy, epochs=5, batch_size=32, schedule="cosine")
    heads, everything = ["head.weight", "head.bias"], [name for name, _ in model.named_parameters()]
    assert [names for names, *_ in seen] == [heads, heads, everything, everything, everything]
    assert [training for _, training, _ in seen] == [False, False, True, True, True]
    assert all(torch.equal(seen[0][2][name], seen[2][2][name]) for name in seen[0][2] if name.startswith("body"))
    assert not torch.equal(seen[0][2]["head.weight"], seen[2][2]["head.weight"])
    from kdft_lib.training import cosine

    rates = [step["lr"] for step in history.steps]
    expected = [0.1 * cosine((i + 0.5) / 6) for i in range(6)] + [1e-3 * cosine((i + 0.5) / 9) for i in range(9)]
    assert rates == pytest.approx(expected)


def test_each_phase_has_its_own_decay(net):
    model = net()
    strategy = Phases(
        HeadOnly(head="head", lr=0.1, weight_decay=0.3), FullFineTuning(lr=1e-3, weight_decay=0.2), first_epochs=2
    )
    strategy.prepare(model)
    sizes = []
    for epoch, expected in ((0, {(0.1, 0.3), (0.1, 0.0), (0, 0.0)}), (2, {(1e-3, 0.2), (1e-3, 0.0)})):
        strategy.before_epoch(model, epoch)
        groups = strategy.param_groups(model)
        assert {(group["lr"], group["weight_decay"]) for group in groups} == expected
        sizes.append([[id(parameter) for parameter in group["params"]] for group in groups])
    assert sizes[0] == sizes[1]


def test_phases_may_hold_any_strategy(net, blobs, state_bytes):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    before = state_bytes(model)
    strategy = Phases(HeadOnly(head="2", lr=0.1), LoRA(lr=1e-2, r=2, head="2"), first_epochs=1)
    fit(model, blobs, objective=Supervised(), strategy=strategy, epochs=3, batch_size=32)
    assert model.state_dict().keys() == before.keys()
    assert torch.linalg.matrix_rank(model[0].weight - before["0.weight"], rtol=1e-3) <= 2
    unfreezing = Phases(HeadOnly(head="head", lr=0.1), GradualUnfreezing(lr=1e-2), first_epochs=2)
    model = net()
    unfreezing.prepare(model)
    assert unfreezing.phase(0, 6) == (0, 2)
    assert unfreezing.phase(3, 6) == (2, 6)
    for epoch, moved in ((1, {"head"}), (2, {"head"}), (3, {"body", "head"})):
        unfreezing.before_epoch(model.train(), epoch)
        assert {name.split(".")[0] for name in trainable(model)} == moved


ALL = {
    BitFit: {"lr": 0.1}, FullFineTuning: {"lr": 0.1}, GradualUnfreezing: {"lr": 0.1},
    HeadOnly: {"lr": 0.1, "head": "head"}, LayerwiseLRDecay: {"lr": 0.1}, LoRA: {"lr": 0.1},
    Phases: {"first": FullFineTuning(lr=0.1), "second": FullFineTuning(lr=0.2), "first_epochs": 3},
}  # fmt: skip


def test_arguments_are_keywords():
    public = {getattr(strategies, name) for name in strategies.__all__}
    assert {thing for thing in public if isinstance(thing, type)} == {*ALL, strategies.Strategy}
    for make in (*ALL, strategies.Strategy):
        parameters = inspect.signature(make).parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        assert positional == (["first", "second"] if make is Phases else []), make
    with pytest.raises(TypeError, match="positional argument"):
        FullFineTuning(0.1)


@pytest.mark.parametrize("make", ALL)
def test_public_attributes_are_the_arguments(make):
    strategy = make(**ALL[make])
    shown = {name for name in vars(strategy) if not name.startswith("_")}
    assert shown == set(inspect.signature(make).parameters)
    again = strategy.but()
    assert again is not strategy
    assert repr(again) == repr(strategy)
    for name in shown:
        assert f"{name}=" in repr(strategy)


def test_a_strategy_but_for_some_arguments():
    given = LoRA(lr=0.1, r=4, target_modules=["0"])
    other = given.but(lr=0.2, weight_decay=0.5)
    assert (given.lr, given.weight_decay) == (0.1, 0.01)
    assert (other.lr, other.weight_decay, other.r, other.target_modules) == (0.2, 0.5, 4, ["0"])
    phases = Phases(HeadOnly(lr=0.1, head="head"), FullFineTuning(lr=0.1), first_epochs=2)
    phases = phases.but(second=FullFineTuning(lr=0.1).but(weight_decay=0.0), first_epochs=1)
    assert (phases.second.weight_decay, phases.first_epochs, phases.first.head) == (0.0, 1, "head")
    message = "rank is no argument of LoRA; choose among 'lr', 'weight_decay', 'decay_all', 'r', 'alpha', 'head'"
    with pytest.raises(ValueError, match=message):
        given.but(rank=4)
    with pytest.raises(ValueError, match="lr is -1; it must be positive"):
        given.but(lr=-1)


def test_low_rank_decays_all_if_asked(net):
    for decay_all in (False, True):
        model = net()
        strategy = LoRA(lr=0.1, head="head", weight_decay=0.3, decay_all=decay_all)
        strategy.prepare(model)
        decay = {id(p): group["weight_decay"] for group in strategy.param_groups(model) for p in group["params"]}
        assert decay[id(model.head.bias)] == (0.3 if decay_all else 0.0)


def test_texts_name_the_arguments_and_nothing_private():
    text = repr(Phases(HeadOnly(head="head", lr=0.1), FullFineTuning(lr=0.2), first_epochs=3))
    assert text == (
        "Phases(first=HeadOnly(lr=0.1, weight_decay=0.01, decay_all=False, head='head'),"
        " second=FullFineTuning(lr=0.2, weight_decay=0.01, decay_all=False), first_epochs=3)"
    )


@pytest.mark.parametrize("name", ["Lamb", "Lion", "NAdamW", "Adopt", "SGD", "RMSprop", "Adan"])
def test_optimizers_of_torch_and_timm_train_and_freeze(net, blobs, state_bytes, assert_same_bits, name):
    import timm.optim

    optimizer = getattr(timm.optim, name, None) or getattr(torch.optim, name)
    model = net()
    before = state_bytes(model.body)
    strategy = HeadOnly(head="head", lr=1e-2, weight_decay=0.1)
    history = fit(model, blobs, objective=Supervised(), strategy=strategy, optimizer=optimizer, epochs=5, batch_size=32)
    assert_same_bits(before, state_bytes(model.body))
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_what_is_frozen_whole_is_still_with_its_dropout():
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2, dropout=0.5, bias=False), "norm": nn.BatchNorm1d(4),
            "plain": nn.BatchNorm1d(4, affine=False), "dropout": nn.Dropout(), "head": nn.Linear(4, 3),
        }
    )  # fmt: skip
    strategy = BitFit(lr=0.1)
    strategy.prepare(model)
    model.train()
    strategy.before_epoch(model, 0)
    modes = {name: module.training for name, module in model.items()}
    assert modes == {"attention": False, "norm": False, "plain": False, "dropout": True, "head": True}


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: HeadOnly(head="head", lr=0.1, **more),
        lambda **more: BitFit(lr=0.1, head="head", **more),
        lambda **more: GradualUnfreezing(lr=0.1, **more),
        lambda **more: FullFineTuning(lr=0.1, **more),
    ],
)
def test_decay_is_asked_for_on_everything(net, make):
    for decay_all in (False, True):
        model = net()
        strategy = make(weight_decay=0.3, decay_all=decay_all)
        strategy.prepare(model)
        decay = {id(p): group["weight_decay"] for group in strategy.param_groups(model) for p in group["params"]}
        assert decay[id(model.head.weight)] == 0.3
        assert decay[id(model.head.bias)] == (0.3 if decay_all else 0.0)


@pytest.mark.parametrize("layer", [nn.MultiheadAttention(4, 2), nn.GRU(3, 4)])
def test_biases_of_attention_and_of_recurrent_layers_move(layer):
    model = nn.ModuleDict({"body": layer})
    BitFit(lr=0.1).prepare(model)
    moving = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert moving == {name for name, _ in model.named_parameters() if "bias" in name}
    assert moving


def causal(kind):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=16)
        return transformers.GPT2LMHeadModel(config).eval()
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=1, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_lora_leaves_alone_what_shares_its_weight_and_comes_back_as_it_was_trained(kind):
    model, tokens = causal(kind), torch.arange(6).unsqueeze(0)
    strategy = LoRA(lr=0.1)
    strategy.prepare(model)
    updates = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert updates
    assert not any("lm_head" in name for name in updates)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(parameter)
    trained = model(tokens).logits
    strategy.finish(model)
    torch.testing.assert_close(model(tokens).logits, trained)


def test_lora_refuses_to_merge_into_a_shared_weight_and_to_train_other_updates_on():
    with pytest.raises(ValueError, match="'lm_head' shares its weight with another layer"):
        LoRA(lr=0.1, target_modules=["lm_head"]).prepare(causal("llama"))
    model = causal("llama")
    LoRA(lr=0.1, r=2, merge=False).prepare(model)
    LoRA(lr=0.01, r=2, merge=False).prepare(model)
    with pytest.raises(
        ValueError, match=r"r is 4, but the model carries updates of an earlier LoRA\(merge=False\) with 2"
    ):
        LoRA(lr=0.1, r=4).prepare(model)


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3))


def sequences(count=12):
    generator = torch.Generator().manual_seed(0)
    return TensorData(torch.randn(count, 5, 8, generator=generator), torch.arange(count * 5).view(count, 5) % 3)


def test_what_lora_learned_is_seen_in_evaluation_too():
    """Without a hook inside, torch's encoder layers read the frozen weights past peft's layers."""
    model, data = encoder(), sequences()
    before = predict(model, data)
    names = ["0.linear1", "0.linear2"]
    history = fit(
        model, data, objective=Supervised(), strategy=LoRA(lr=0.1, target_modules=names, merge=False), epochs=10,
        batch_size=4, val_data=data,
    )  # fmt: skip
    assert (predict(model, data) - before).abs().max() > 0.1
    assert torch.allclose(predict(model, data), model(data.inputs), atol=1e-5)
    fit(model, data, objective=Supervised(), strategy=LoRA(lr=1e-9, target_modules=names), steps=1, batch_size=4)
    assert evaluate(model, data)["loss"] == pytest.approx(history.epochs[-1]["val_loss"], abs=1e-4)
    assert not hasattr(model, "peft_config")


def test_layers_that_attention_reads_past_are_refused():
    with pytest.raises(ValueError, match="an update would do nothing"):
        LoRA(lr=0.1, target_modules=["0.self_attn.out_proj"]).prepare(encoder())


def test_a_run_that_was_refused_merges_nothing(blobs):
    def train(**more):
        fit(model, blobs, objective=Supervised(), strategy=LoRA(lr=0.1, **more), steps=2)

    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    train(r=4, merge=False)
    with pytest.raises(ValueError, match="carries updates"):
        train(r=8)
    assert hasattr(model[0], "lora_A")
    train(r=4)
    assert type(model[0]) is nn.Linear


def test_new_layers_have_the_mode_of_the_model(blobs):
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).eval()
    fit(model, blobs, objective=Supervised(), strategy=LoRA(lr=0.1, dropout=0.5, merge=False), steps=2)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("make", [BitFit, LoRA])
def test_a_head_moves_whole_its_statistics_too(blobs, make):
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3)))
    fit(model, blobs, objective=Supervised(), strategy=make(lr=0.1, head="1"), steps=5)
    assert model[1][0].num_batches_tracked == 5


def test_updates_of_a_model_in_16_bits_are_kept_in_32():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).bfloat16()
    LoRA(lr=0.1).prepare(model)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert model(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_blocks_of_a_compiled_model_are_those_inside():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    assert blocks(torch.compile(Three())) == [f"_orig_mod.{name}" for name in blocks(Three())]
