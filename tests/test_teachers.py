from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kdft_lib.data import TensorData
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import fit


@pytest.mark.parametrize("make", [SoftTargets, HardTargets])
def test_no_training_changes_a_bit_of_the_teacher(make, net, blobs, state_bytes, assert_same_bits, tmp_path):
    model, teacher = net(), net()
    before = state_bytes(teacher)
    objective = make(teacher)
    objective.train().to(torch.float64).requires_grad_(True)
    teacher.train()
    fit(
        model, blobs, objective=objective, strategy=FullFineTuning(0.1, weight_decay=0.5), epochs=3, batch_size=32,
        transfer_data=blobs.without_labels(), checkpoint_dir=tmp_path,
    )  # fmt: skip
    assert_same_bits(before, state_bytes(teacher))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert not list(objective.parameters())
    assert not objective.state_dict()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["model"].keys() == model.state_dict().keys()


def test_a_teacher_answers_in_evaluation_mode_whatever_was_done_to_it(net, blobs):
    model = net()
    teacher = Teacher(model)
    expected = teacher(blobs.inputs)
    model.train()
    assert torch.equal(teacher(blobs.inputs), expected)
    model.body.train()
    assert torch.equal(teacher(blobs.inputs), expected)
    assert not expected.requires_grad


def test_a_student_cannot_be_its_own_teacher(net, blobs):
    model = net()
    with pytest.raises(ValueError, match="the teacher shares tensors with the model"):
        fit(model, blobs, objective=SoftTargets(model), strategy=FullFineTuning(0.1), epochs=1)
    tied = net()
    tied.head = model.head
    with pytest.raises(ValueError, match="the teacher shares tensors with the model"):
        fit(model, blobs, objective=SoftTargets(tied), strategy=FullFineTuning(0.1), epochs=1)


def test_a_teacher_must_be_a_module():
    with pytest.raises(TypeError, match="the teacher is a function"):
        Teacher(lambda inputs: inputs)


def test_fingerprints_tell_teachers_apart(net):
    model = net()
    first = Teacher(model).fingerprint()
    assert Teacher(model).fingerprint() == first
    model.body[1].running_mean[0] += 1e-3
    assert Teacher(model).fingerprint() != first


def test_cached_logits_stay_with_their_samples(net, blobs):
    teacher = net()
    cached = cache(teacher, blobs, batch_size=7)
    torch.testing.assert_close(cached.teacher_logits, Teacher(teacher)(blobs.inputs))
    parts = [*cached.batches(11, shuffle=True), cached[torch.randperm(120)][5:20]._columns]
    for batch in parts:
        torch.testing.assert_close(batch["teacher_logits"], Teacher(teacher)(batch["inputs"]))


def test_a_cache_trains_as_the_teacher_in_the_loop_does(net, blobs, state_bytes):
    teacher, ends = net(), []
    for data in (blobs, cache(teacher, blobs)):
        torch.manual_seed(3)
        model = net()
        fit(model, data, objective=SoftTargets(teacher), strategy=FullFineTuning(1e-2), epochs=3, batch_size=40)
        ends.append(state_bytes(model))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-5, atol=1e-5)


def test_a_cached_teacher_is_not_asked_again(net, blobs):
    teacher = net()
    cached = cache(teacher, blobs)
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    fit(net(), cached, objective=SoftTargets(teacher), strategy=FullFineTuning(1e-2), epochs=1)
    assert not asked
    fit(net(), blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(1e-2), epochs=1)
    assert asked


def test_logits_of_another_teacher_are_refused(net, blobs):
    cached = cache(net(), blobs)
    for where in ({"train_data": cached}, {"train_data": cached, "transfer_data": cached.without_labels()}):
        with pytest.raises(ValueError, match="cached logits are of another teacher"):
            fit(net(), objective=SoftTargets(net()), strategy=FullFineTuning(1e-2), epochs=1, **where)


def test_cached_logits_and_new_views_are_refused(net, blobs):
    teacher = net()
    with pytest.raises(ValueError, match="augment changes the inputs"):
        fit(
            net(), cache(teacher, blobs), objective=SoftTargets(teacher), strategy=FullFineTuning(1e-2), epochs=1,
            augment=lambda inputs: inputs + 1,
        )  # fmt: skip
    fit(
        net(), cache(teacher, blobs), objective=Supervised(), strategy=FullFineTuning(1e-2), epochs=1, augment=torch.neg
    )


def test_a_file_of_logits_is_for_one_teacher_and_one_data_set(net, blobs, tmp_path):
    teacher, path = net(), tmp_path / "logits.safetensors"
    first = cache(teacher, blobs, path=path)
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    assert torch.equal(cache(teacher, blobs, path=path).teacher_logits, first.teacher_logits)
    assert not asked
    with pytest.raises(ValueError, match="was made from other data"):
        cache(teacher, blobs[torch.randperm(120)], path=path)
    with pytest.raises(ValueError, match="was made by another teacher"):
        cache(net(), blobs, path=path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"cannot be read .*delete it"):
        cache(teacher, blobs, path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["logits.safetensors"]


class Noisy(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.randn(4), index % 3


def test_data_transformed_at_random_cannot_be_cached(net, blobs):
    with pytest.raises(ValueError, match="data changes from one look to the next"):
        cache(net(), Noisy())
    same = TensorDataset(blobs.inputs, blobs.targets)
    teacher = net()
    assert torch.equal(cache(teacher, same).teacher_logits, cache(teacher, blobs).teacher_logits)
    with pytest.raises(ValueError, match="For a DataLoader, pass its dataset"):
        cache(teacher, DataLoader(same))
    with pytest.raises(ValueError, match="data is empty"):
        cache(teacher, TensorData(torch.zeros(0, 4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
def test_teacher_and_cache_on_a_gpu(net, blobs):
    teacher = net().cuda()
    cached = cache(teacher, blobs)
    assert cached.teacher_logits.device.type == "cpu"
    model = net()
    fit(model, cached, objective=SoftTargets(nn.Sequential(teacher)[0]), strategy=FullFineTuning(1e-2), epochs=1)
    assert next(model.parameters()).is_cuda
