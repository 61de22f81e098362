from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from kdft_lib import models
from kdft_lib.training import evaluate


@pytest.mark.parametrize(("width", "count"), [(4, 1_702), (8, 6_274), (16, 24_058)])
def test_students_have_the_sizes_the_book_names(width, count):
    assert sum(parameter.numel() for parameter in models.ConvNet(width).parameters()) == count


@pytest.mark.parametrize(("width", "count"), [(16, 4_394), (48, 28_522)])
def test_networks_for_words_have_the_sizes_the_book_names(width, count):
    assert sum(parameter.numel() for parameter in models.DSCNN(width).parameters()) == count


def test_a_depthwise_convolution_sees_each_channel_by_itself():
    depthwise = models.DSCNN(width=4).eval().body[3][0]
    spectra = torch.zeros(1, 8, 5, 5)
    before = depthwise(spectra)
    spectra[:, 2] = 1.0
    changed = (depthwise(spectra) != before).flatten(2).any(dim=2)
    assert changed.nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("make", [models.ConvNet, models.DSCNN, models.ResNet])
def test_networks_take_other_sizes(make):
    net = make(width=4, num_classes=7, channels=3).eval()
    assert net(torch.zeros(2, 3, 40, 31)).shape == (2, 7)
    with pytest.raises(ValueError, match="width is 0; it must be 1 or more"):
        make(width=0)


def test_the_shipped_teacher_is_what_its_card_says(fashion):
    teacher = models.fashion_teacher()
    scores = evaluate(teacher, fashion.test)
    assert not teacher.training
    assert 110_000 < sum(parameter.numel() for parameter in teacher.parameters()) < 130_000
    assert scores["accuracy"] >= 0.925
    assert scores["accuracy"] == pytest.approx(teacher.card["test_accuracy"], abs=5e-4)
    assert evaluate(teacher, fashion.val)["accuracy"] == pytest.approx(teacher.card["val_accuracy"], abs=5e-4)
    assert teacher.card["labels"] == 55_000


def test_saved_models_come_back_whole(tmp_path):
    net = models.ConvNet(width=3)
    path = models.save(net, tmp_path / "folder" / "student.safetensors", {"recipe": "none"})
    again = models.load(path)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    assert again.card == {"model": "ConvNet", "arguments": net.arguments, "recipe": "none"}
    assert {file.name for file in path.parent.iterdir()} == {"student.safetensors", "student.json"}


def test_a_network_for_words_comes_back_by_its_card(tmp_path):
    net = models.DSCNN(width=3, num_classes=4).eval()
    again = models.load(models.save(net, tmp_path / "words.safetensors")).eval()
    spectra = torch.randn(2, 1, 20, 51)
    assert torch.equal(again(spectra), net(spectra))


def test_a_model_of_the_reader_is_loaded_into(tmp_path):
    path = models.save(nn.Linear(3, 2), tmp_path / "linear.safetensors")
    assert models.load(path, nn.Linear(3, 2)).weight.shape == (2, 3)
    with pytest.raises(ValueError, match="names the model 'Linear', which is not one of ConvNet, ResNet, DSCNN"):
        models.load(path)
    with pytest.raises(ValueError, match="does not hold the weights of this Linear"):
        models.load(path, nn.Linear(4, 2))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        models.load(tmp_path / "none.safetensors", nn.Linear(3, 2))


def test_what_cannot_be_saved_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        models.save(nn.Linear(3, 2), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="card cannot be written as JSON"):
        models.save(nn.Linear(3, 2), tmp_path / "model.safetensors", {"lambda": print})
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    path = models.save(models.ConvNet(2), tmp_path / "student.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"student\.safetensors does not hold the weights"):
        models.load(path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["model"] == "ConvNet"


def test_logits_are_found_in_what_models_return():
    class Output:
        logits = torch.ones(2, 3)

    class Wrapped(nn.Module):
        def __init__(self, output):
            super().__init__()
            self.output = output

        def forward(self, input_ids=None, attention_mask=None):
            return self.output

    for output in (torch.ones(2, 3), Output(), {"logits": torch.ones(2, 3)}):
        assert models.logits(Wrapped(output), {"input_ids": torch.zeros(2), "attention_mask": None}).shape == (2, 3)
    with pytest.raises(TypeError, match="Wrapped returned a tuple without logits"):
        models.logits(Wrapped((torch.ones(2, 3),)), torch.zeros(2))


def test_evaluation_mode_gives_each_module_its_own_mode_back(net):
    model = net().train()
    model.body.eval()
    before = [module.training for module in model.modules()]
    with models.evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


def test_a_network_of_characters_comes_back_by_its_card(tmp_path):
    net = models.CharacterGRU(4, 4, 5).eval()
    again = models.load(models.save(net, tmp_path / "characters.safetensors")).eval()
    tokens = torch.randint(5, (2, 6))
    assert torch.equal(again(tokens), net(tokens))


def test_n_grams_are_told_apart_by_their_discount():
    first, second = (models.NGram(2, discount, 5) for discount in (0.0, 0.75))
    assert models.files.digest(first) != models.files.digest(second)


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:resnetv2_50", "timm:deit_tiny_distilled_patch16_224"])
def test_networks_without_one_linear_head_are_named(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match="whose head is not one linear layer"):
        models.imagenet_backbone(name, num_classes=10, pretrained=False)


def test_a_network_is_the_same_with_weights_and_without():
    plain = models.imagenet_backbone("inception_v3", num_classes=3, pretrained=False)
    assert plain.transform_input
