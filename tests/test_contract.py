"""What the package promises, on models that nobody here wrote: torchvision's, timm's and Transformers'."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from kdft_lib.data import TensorData
from kdft_lib.features import precompute
from kdft_lib.objectives import (
    DIST,
    DKD,
    L2SP,
    RKD,
    AttentionTransfer,
    Contrastive,
    HardTargets,
    Hint,
    LogitMatching,
    LwF,
    SimilarityPreserving,
    SoftTargets,
    Supervised,
)
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
from kdft_lib.teachers import cache
from kdft_lib.training import evaluate, fit, predict


def images(size):
    generator = torch.Generator().manual_seed(0)
    return TensorData(torch.randn(8, 3, size, size, generator=generator), torch.arange(8) % 3)


def bert(hidden=32):
    torch.manual_seed(hidden)
    config = BertConfig(
        vocab_size=50, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * hidden,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def words():
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(8, 10, dtype=torch.int64)
    mask[:, 7:] = 0
    tokens = torch.randint(0, 50, (8, 10), generator=generator)
    return TensorData({"input_ids": tokens, "attention_mask": mask}, torch.arange(8) % 3)


MODELS = {
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
        lambda: images(64),
        {"layer": "features.3", "deep": "features.12", "head": "classifier.3"},
    ),
    "resnet": (
        lambda: timm.create_model("resnet10t", num_classes=3),
        lambda: images(64),
        {"layer": "layer1", "deep": "layer2", "head": "fc"},
    ),
    "vit": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", num_classes=3, img_size=32, depth=2, embed_dim=24, num_heads=2
        ),
        lambda: images(32),
        {"layer": "blocks.0", "deep": "blocks.1.attn", "head": "head"},
    ),
    "bert": (bert, words, {"layer": "bert.encoder.layer.0", "deep": "bert.encoder", "head": "classifier"}),
}
OBJECTIVES = {
    "supervised": lambda teacher, names, model: Supervised(label_smoothing=0.1),
    "soft": lambda teacher, names, model: SoftTargets(teacher),
    "standardized": lambda teacher, names, model: SoftTargets(
        teacher, temperature=2.0, kd_weight=9.0, standardize=True
    ),
    "hard": lambda teacher, names, model: HardTargets(teacher),
    "matching": lambda teacher, names, model: LogitMatching(teacher, kd_weight=0.1, ce_weight=1.0),
    "decoupled": lambda teacher, names, model: DKD(teacher, warmup=0.5),
    "dist": lambda teacher, names, model: DIST(teacher),
    "forgetting": lambda teacher, names, model: LwF(teacher, classes=[0, 1]),
    "hint": lambda teacher, names, model: Supervised() + Hint(teacher, names["layer"], names["layer"]),
    "attention": lambda teacher, names, model: (
        Supervised() + AttentionTransfer(teacher, names["layer"], names["layer"])
    ),
    "similarity": lambda teacher, names, model: (
        Supervised() + SimilarityPreserving(teacher, names["deep"], names["deep"])
    ),
    "contrastive": lambda teacher, names, model: Supervised() + Contrastive(teacher, names["deep"], names["deep"]),
    "rkd": lambda teacher, names, model: Supervised() + RKD(teacher, names["deep"], names["deep"]),
    "toward start": lambda teacher, names, model: Supervised() + 0.01 * L2SP(model, head=names["head"]),
    "everything": lambda teacher, names, model: (
        SoftTargets(teacher) + 10 * Hint(teacher, names["layer"], names["layer"]) + 0.01 * L2SP(model)
    ),
}
STRATEGIES = {
    "full": lambda head: FullFineTuning(lr=1e-3),
    "head": lambda head: HeadOnly(head=head, lr=1e-2, weight_decay=0.5),
    "layerwise": lambda head: LayerwiseLRDecay(lr=1e-3),
    "gradual": lambda head: GradualUnfreezing(lr=1e-3, weight_decay=0.5),
    "biases": lambda head: BitFit(lr=1e-2, head=head, weight_decay=0.5),
    "low rank": lambda head: LoRA(lr=1e-2, r=2, head=head, weight_decay=0.5),
    "phases": lambda head: Phases(HeadOnly(head=head, lr=1e-2), FullFineTuning(lr=1e-3), first_epochs=1),
}


@pytest.fixture(params=MODELS)
def case(request):
    make, data, names = MODELS[request.param]
    torch.manual_seed(0)
    return make, data(), names


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_no_teacher_changes(case, name, state_bytes, assert_same_bits):
    make, data, names = case
    model, teacher = make(), make().train()
    before, start = state_bytes(teacher), state_bytes(model)
    objective = OBJECTIVES[name](teacher, names, model)
    history = fit(model, data, objective=objective, strategy=FullFineTuning(lr=1e-3), epochs=2, batch_size=4)
    assert_same_bits(before, state_bytes(teacher))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert len(history.steps) == 4
    moved = [name for name, tensor in state_bytes(model).items() if not torch.equal(tensor, start[name])]
    assert any(name.startswith(names["head"]) for name in moved)
    for adapter in objective.parameters():
        assert adapter.grad is None or torch.isfinite(adapter.grad).all()
    assert torch.isfinite(predict(model, data)).all()


def test_adapters_are_trained(case):
    make, data, names = case
    torch.manual_seed(1)
    model, teacher = make(), make()
    objective = 100 * Hint(teacher, names["layer"], names["layer"])
    fit(model, data, objective=objective, strategy=FullFineTuning(lr=1e-3), steps=1, batch_size=8, schedule="constant")
    first = [parameter.detach().clone() for parameter in objective.parameters()]
    torch.manual_seed(1)
    fit(model, data, objective=objective, strategy=FullFineTuning(lr=1e-3), steps=4, batch_size=8, schedule="constant")
    assert all(not torch.equal(a, b) for a, b in zip(first, objective.parameters(), strict=True))
    assert all(parameter.shape == before.shape for parameter, before in zip(objective.parameters(), first, strict=True))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_and_what_is_frozen_stays(case, name, state_bytes):
    make, data, names = case
    model = make().train()
    start, structure = state_bytes(model), [kind for kind, _ in model.named_modules()]
    modes = [module.training for module in model.modules()]
    strategy = STRATEGIES[name](names["head"])
    teacher = make()
    fit(model, data, objective=SoftTargets(teacher), strategy=strategy, epochs=2, batch_size=4)
    assert [kind for kind, _ in model.named_modules()] == structure
    assert [module.training for module in model.modules()] == modes
    end = state_bytes(model)
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    head = {name for name in start if name.startswith(f"{names['head']}.")}
    assert head <= moved
    normalization = {name for name in start if "running_" in name or "num_batches" in name}
    match name:
        case "head":
            assert moved == head
        case "biases":
            assert moved <= head | {name for name in start if name.endswith("bias")}
        case "low rank":
            assert moved - head
            assert all(start[name].dim() >= 2 for name in moved - head)
        case "gradual":
            two = tuple(f"{block}." for block in blocks(model)[-2:])
            above = list(start)
            lowest = min(place for place, tensor in enumerate(above) if tensor.startswith(two))
            assert moved <= set(above[lowest:])
        case _:
            assert {name for name, _ in model.named_parameters()} <= moved | {
                name for name, parameter in model.named_parameters() if "position" in name or "embeddings" in name
            } | unused(model)
    if name in ("head", "biases", "low rank"):
        assert not normalization & moved


def unused(model):
    """Parameters without an effect on the logits, such as the bias of keys in attention, or shifted away."""
    return {
        name for name, _ in model.named_parameters() if "key.bias" in name or "qkv.bias" in name or "cls_token" in name
    }


def test_a_cache_and_features_work(case):
    make, data, names = case
    model, teacher = make(), make()
    cached = cache(teacher, data, batch_size=3)
    fit(model, cached, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=1e-3), epochs=1, batch_size=4)
    head, features = precompute(model, names["head"], data, batch_size=3)
    fit(head, features, objective=Supervised(), strategy=FullFineTuning(lr=1e-2), epochs=1, batch_size=4)
    torch.testing.assert_close(predict(head, features), predict(model, data), rtol=1e-4, atol=1e-5)
    assert 0 <= evaluate(model, data)["accuracy"] <= 1


def test_a_self_taught_copy_is_untouched(case, state_bytes, assert_same_bits):
    """Self-distillation: the teacher is the student's own past."""
    make, data, _ = case
    model = make()
    past = copy.deepcopy(model)
    before = state_bytes(past)
    fit(model, data, objective=SoftTargets(past), strategy=FullFineTuning(lr=1e-3), epochs=1, batch_size=4)
    assert_same_bits(before, state_bytes(past))


def test_pretrained_weights_know_what_they_see():
    """The weights of Lite0 line up with timm's architecture: a temple and a flower are seen as such."""
    from sklearn.datasets import load_sample_images
    from timm.data import ImageNetInfo

    from kdft_lib.models import imagenet_backbone

    backbone = imagenet_backbone().eval()
    info, expected = ImageNetInfo(), {"china.jpg": {"palace", "monastery", "bell cote"}, "flower.jpg": {"daisy", "pot"}}
    samples = load_sample_images()
    for path, picture in zip(samples.filenames, samples.images, strict=True):
        image = torch.tensor(picture.copy()).permute(2, 0, 1).unsqueeze(0) / 255
        side = min(image.shape[2:])
        left, top = ((length - side) // 2 for length in (image.shape[3], image.shape[2]))
        square = image[:, :, top : top + side, left : left + side]
        with torch.no_grad():
            best = backbone(backbone.transform(square)).topk(3).indices[0].tolist()
        names = {info.index_to_description(place).split(",")[0] for place in best}
        assert names & expected[path.split("/")[-1]], names


def test_a_new_head_and_an_unknown_name():
    from kdft_lib.datasets import FASHION_NORMALIZATION
    from kdft_lib.models import ImageTransform, imagenet_backbone

    backbone = imagenet_backbone(num_classes=5, image_size=64, given=FASHION_NORMALIZATION)
    assert backbone.classifier.out_features == 5
    assert backbone.training
    black, white = (torch.full((1, 1, 28, 28), (value - 0.2860) / 0.3530) for value in (0.0, 1.0))
    assert backbone.transform(black).unique().tolist() == pytest.approx([-1.0], abs=1e-5)
    assert backbone.transform(white).mean().item() == pytest.approx(1.0, abs=1e-5)
    assert backbone.transform(torch.rand(2, 3, 100, 80)).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="name is 'resnet81', which is no network here; choose efficientnet_lite0, or"):
        imagenet_backbone("resnet81")
    with pytest.raises(ValueError, match="num_classes is 0; it must be 1 or more"):
        imagenet_backbone(num_classes=0)
    with pytest.raises(ValueError, match=r"images has shape \(3, 28, 28\); it must be \(N, 1, H, W\)"):
        ImageTransform(8, (0.5,) * 3, (0.5,) * 3)(torch.zeros(3, 28, 28))


def test_a_backbone_behind_its_transform_takes_pictures_and_is_saved_whole(tmp_path):
    from kdft_lib.models import imagenet_backbone, load, save
    from kdft_lib.strategies import blocks

    net = imagenet_backbone(num_classes=10, image_size=32).eval()
    model = nn.Sequential(net.transform, net)
    pictures = torch.rand(2, 1, 28, 28)
    assert torch.equal(model(pictures), net(net.transform(pictures)))
    assert blocks(model)[-1] == "1.classifier"
    assert net.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert not net.conv_stem.weight.is_contiguous()
    lying_otherwise = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    assert torch.allclose(lying_otherwise(pictures), model(pictures), rtol=1e-4, atol=1e-4)
    other = imagenet_backbone(num_classes=10, image_size=32).eval()
    again = load(save(model, tmp_path / "net.safetensors"), nn.Sequential(other.transform, other))
    assert torch.equal(again(pictures), model(pictures))


def test_torchvisions_weights_come_with_their_transform(monkeypatch):
    """Without a network: the download is replaced by the state of a random network, nothing else."""
    from urllib.error import URLError

    from torchvision.models._api import WeightsEnum

    from kdft_lib.models import imagenet_backbone

    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **more: weights)
    backbone = imagenet_backbone("resnet18", num_classes=4)
    assert torch.equal(backbone.conv1.weight, weights["conv1.weight"])
    assert (backbone.head_name, backbone.fc.out_features) == ("fc", 4)
    assert (backbone.transform.size, backbone.transform.mean) == (224, (0.485, 0.456, 0.406))

    def offline(self, *args, **more):
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(OSError, match=r"the weights of resnet18 are not here and cannot be downloaded .*no route"):
        imagenet_backbone("resnet18")
