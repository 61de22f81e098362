from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kdft_lib.data import TensorData
from kdft_lib.experiments.trained import shown
from kdft_lib.models import ImageTransform
from kdft_lib.models.own import MLP
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Ensemble, Teacher, cache, compress, expand
from kdft_lib.training import fit


@pytest.mark.parametrize("make", [SoftTargets, HardTargets])
def test_no_training_changes_a_bit_of_the_teacher(make, net, blobs, state_bytes, assert_same_bits, tmp_path):
    model, teacher = net(), net()
    before = state_bytes(teacher)
    objective = make(teacher)
    objective.train().to(torch.float64).requires_grad_(True)
    teacher.train()
    fit(
        model, blobs, objective=objective, strategy=FullFineTuning(lr=0.1, weight_decay=0.5), epochs=3, batch_size=32,
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
        fit(model, blobs, objective=SoftTargets(model), strategy=FullFineTuning(lr=0.1), epochs=1)
    tied = net()
    tied.head = model.head
    with pytest.raises(ValueError, match="the teacher shares tensors with the model"):
        fit(model, blobs, objective=SoftTargets(tied), strategy=FullFineTuning(lr=0.1), epochs=1)


def test_memory_that_student_and_teacher_share_is_refused(net, blobs):
    """Two parameters, one memory: the optimiser would train the teacher, whose own objects nobody gave to it."""
    teacher, model = net(), net()
    model.load_state_dict(teacher.state_dict(), assign=True)
    assert model.head.weight is not teacher.head.weight
    with pytest.raises(ValueError, match="the teacher shares tensors with the model"):
        fit(model, blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=1)
    model.load_state_dict(teacher.state_dict())
    before = teacher.head.weight.clone()
    model = copy.deepcopy(model)
    fit(model, blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=1)
    assert torch.equal(before, teacher.head.weight)
    assert not torch.equal(before, model.head.weight)


class DropPath(nn.Module):
    """Drops whole samples in training, as other libraries write it."""

    @functools.wraps(nn.Dropout.forward)
    def forward(self, inputs):
        return nn.functional.dropout(inputs, 0.5, self.training)


@pytest.mark.parametrize("make", [nn.Dropout, nn.RReLU, DropPath, lambda: nn.Sequential(nn.AlphaDropout())])
def test_what_student_and_teacher_share_may_not_act_by_mode(make, blobs):
    """The teacher's evaluation mode, set at each call, would be the student's from the second step on."""
    shared = make()

    def pair(*activations):
        return [nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 3)) for activation in activations]

    model, teacher = pair(shared, shared)
    with pytest.raises(
        ValueError, match=r"the teacher shares a .* with the model, which the teacher's evaluation mode"
    ):
        fit(model, blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=1)
    modes, rectifier = [], nn.ReLU()
    model, teacher = pair(nn.Sequential(make(), rectifier), nn.Sequential(make(), rectifier))
    model[1][0].register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(model, blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=2, batch_size=40)
    assert modes == 6 * [True]


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
        fit(model, data, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=1e-2), epochs=3, batch_size=40)
        ends.append(state_bytes(model))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-5, atol=1e-5)


def test_a_cached_teacher_is_not_asked_again(net, blobs):
    teacher = net()
    cached = cache(teacher, blobs)
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    fit(net(), cached, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=1e-2), epochs=1)
    assert not asked
    fit(net(), blobs, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=1e-2), epochs=1)
    assert asked


def test_logits_of_another_teacher_are_refused(net, blobs):
    cached = cache(net(), blobs)
    for where in ({"train_data": cached}, {"train_data": cached, "transfer_data": cached.without_labels()}):
        with pytest.raises(ValueError, match="cached logits are of another teacher"):
            fit(net(), objective=SoftTargets(net()), strategy=FullFineTuning(lr=1e-2), epochs=1, **where)


def test_cached_logits_and_new_views_are_refused(net, blobs):
    teacher = net()
    with pytest.raises(ValueError, match="augment changes the inputs"):
        fit(
            net(), cache(teacher, blobs), objective=SoftTargets(teacher), strategy=FullFineTuning(lr=1e-2), epochs=1,
            augment=lambda inputs: inputs + 1,
        )  # fmt: skip
    fit(
        net(),
        cache(teacher, blobs),
        objective=Supervised(),
        strategy=FullFineTuning(lr=1e-2),
        epochs=1,
        augment=torch.neg,
    )


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
    with pytest.raises(TypeError, match="data is a DataLoader, whose samples have no indices"):
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
    fit(model, cached, objective=SoftTargets(nn.Sequential(teacher)[0]), strategy=FullFineTuning(lr=1e-2), epochs=1)
    assert next(model.parameters()).is_cuda


# Ensembles, fewer bits, fewer classes ---------------------------------------------------------------


def test_an_ensemble_averages_probabilities_or_logits():
    members = [nn.Linear(4, 3) for _ in range(3)]
    inputs = torch.randn(5, 4)
    logits = torch.stack([member(inputs) for member in members])
    probabilities = Ensemble(members)(inputs).softmax(-1)
    torch.testing.assert_close(probabilities, logits.softmax(-1).mean(0))
    torch.testing.assert_close(Ensemble(members, average="logits")(inputs), logits.mean(0))
    torch.testing.assert_close(Ensemble(members[:1])(inputs).softmax(-1), logits[0].softmax(-1))
    dense = [nn.Conv2d(2, 3, 1) for _ in range(2)]
    images = torch.randn(2, 2, 4, 4)
    expected = torch.stack([member(images).softmax(1) for member in dense]).mean(0)
    torch.testing.assert_close(Ensemble(dense, class_dim=1)(images).softmax(1), expected)


def test_an_ensemble_teaches_is_cached_and_asked_by_keywords(blobs):
    members = [nn.Linear(4, 3) for _ in range(2)]
    teacher = Ensemble(members)
    data = cache(teacher, blobs)
    torch.testing.assert_close(data.teacher_logits, teacher(blobs.inputs))
    fit(nn.Linear(4, 3), data, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=1)
    other = Ensemble(members, average="logits")
    with pytest.raises(ValueError, match="cached logits are of another teacher"):
        fit(nn.Linear(4, 3), data, objective=SoftTargets(other), strategy=FullFineTuning(lr=0.1), epochs=1)

    class Keyed(nn.Module):
        def forward(self, words):
            return {"logits": words}

    words = torch.randn(2, 3)
    torch.testing.assert_close(Teacher(Ensemble([Keyed(), Keyed()]))({"words": words}).softmax(-1), words.softmax(-1))


def test_ensembles_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="members is empty"):
        Ensemble([])
    with pytest.raises(ValueError, match='average is \'votes\'; choose "probabilities" or "logits"'):
        Ensemble([nn.Linear(1, 1)], average="votes")


def test_logits_kept_in_half_precision(blobs):
    teacher = nn.Linear(4, 3)
    whole, half = cache(teacher, blobs), cache(teacher, blobs, dtype=torch.float16)
    assert half.teacher_logits.dtype == torch.float16
    assert half.teacher_logits.nbytes == whole.teacher_logits.nbytes // 2
    torch.testing.assert_close(half.teacher_logits.float(), whole.teacher_logits, rtol=2**-10, atol=1e-6)
    with torch.no_grad():
        teacher.weight.mul_(1e5)
    with pytest.raises(ValueError, match=r"dtype is torch.float16, which cannot hold a logit of .*; keep"):
        cache(teacher, blobs, dtype=torch.float16)


def test_the_highest_classes_and_a_remainder():
    logits = torch.tensor([[3.0, 0.0, 1.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    compact = compress(logits, 2)
    assert compact["indices"].tolist()[0] == [0, 3]
    found, wanted = expand(compact).softmax(-1), logits.softmax(-1)
    torch.testing.assert_close(found[0, [0, 3]], wanted[0, [0, 3]])
    torch.testing.assert_close(found[0, [1, 2, 4]], wanted[0, [1, 2, 4]].mean().expand(3))
    torch.testing.assert_close(found[1], wanted[1])
    torch.testing.assert_close(found.sum(-1), torch.ones(2))
    almost = expand(compress(logits, 4)).softmax(-1)
    torch.testing.assert_close(almost, wanted)
    dense = torch.randn(2, 3, 6)
    assert expand(compress(dense, 1)).shape == dense.shape
    for top_k in (0, 6, 9):
        with pytest.raises(ValueError, match=f"top_k is {top_k}; it must be from 1 to 5, the number of classes"):
            compress(logits, top_k)


def test_what_keeping_64_of_32000_costs():
    """A distribution over 32,000 words as language models have it: Zipf's, and sharper."""
    ranks = torch.arange(1.0, 32001)
    generator = torch.Generator().manual_seed(0)
    for sharpness, mass, bound in ((1.0, 0.40, 0.40), (2.0, 0.99, 0.02)):
        logits = -sharpness * ranks.log() + 0.3 * torch.randn(16, 32000, generator=generator)
        logits = logits[:, torch.randperm(32000, generator=generator)]
        compact = {
            name: column.half() if column.is_floating_point() else column
            for name, column in compress(logits, 64).items()
        }
        size = sum(column.nbytes for column in compact.values()) / logits.nbytes
        whole, kept = logits.softmax(-1), expand(compact).float().softmax(-1)
        error = (whole - kept).abs().sum(-1).max() / 2
        held = whole.topk(64).values.sum(-1).mean()
        print(f"\nsharpness {sharpness}: {size:.4f} of the memory; the 64 hold {held:.2f}; total variation {error:.4f}")
        assert size < 0.004
        assert held > mass
        assert error < bound


def test_cached_tops_teach_like_the_whole(blobs):
    """With all classes but one kept, nothing is lost."""
    teacher = nn.Linear(4, 3)
    tops = cache(teacher, blobs, top_k=2)
    assert set(tops.teacher_logits) == {"values", "indices", "even", "classes"}
    assert tops[:7].teacher_logits["values"].shape == (7, 2)
    ends = []
    for data in (tops, cache(teacher, blobs), blobs):
        torch.manual_seed(1)
        student = nn.Linear(4, 3)
        fit(student, data, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=3, batch_size=32)
        ends.append(student.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ends[1], ends[2], rtol=1e-4, atol=1e-5)


def test_a_teacher_elsewhere_is_named():
    teacher = Teacher(nn.Linear(4, 3, device="meta"))
    with pytest.raises(ValueError, match=r"the teacher is on meta and the inputs on cpu; .*teacher.to\('cpu'\)"):
        teacher(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="the teacher is on meta"):
        teacher({"input": torch.zeros(2, 4)})


def test_a_teacher_gives_features_without_gradient(net):
    teacher = Teacher(net().train())
    given = teacher.outputs(torch.randn(3, 4), ["body.0"])
    assert given.features["body.0"].shape == (3, 8)
    assert not given.features["body.0"].requires_grad
    assert not teacher.model.body.training


# What a teacher is told by ---------------------------------------------------------------------------


def test_a_repr_hashes_nothing(net):
    teacher = Teacher(net())
    before = repr(teacher)
    assert before == "Teacher(NormalizedNet, 83 parameters)"
    teacher.fingerprint = None
    assert repr(teacher) == before


def test_teachers_that_look_alike_are_told_apart_where_runs_are_kept(net, blobs, tmp_path):
    first, second = Teacher(net()), Teacher(net())
    assert repr(first) == repr(second)
    for make in (
        lambda teacher: teacher,
        SoftTargets,
        lambda teacher: SoftTargets(teacher) + Supervised(),
        lambda teacher: functools.partial(SoftTargets, teacher, temperature=2.0),
    ):
        assert shown(make(first)) == shown(make(first))
        assert shown(make(first)) != shown(make(second))
    more = {"strategy": FullFineTuning(lr=0.1), "checkpoint_dir": tmp_path}
    fit(net(), blobs, objective=SoftTargets(first), epochs=1, **more)
    with pytest.raises(ValueError, match="belongs to another run: teachers was"):
        fit(net(), blobs, objective=SoftTargets(second), epochs=2, **more)


def transform(size):
    return ImageTransform(size, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.ReLU(), nn.GELU()),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (MLP(4, 3, mean=1.0), MLP(4, 3, mean=2.0)),
        (transform(16), transform(24)),
    ],
)
def test_a_fingerprint_tells_parts_without_weights(first, second):
    if isinstance(first, MLP):
        second.load_state_dict(first.state_dict())
    one, same, other = (Teacher(nn.Sequential(nn.Identity(), part)).fingerprint() for part in (first, first, second))
    assert one == same != other


def test_a_fingerprint_is_that_of_the_model_inside(net):
    model = net().eval()
    wanted = Teacher(model).fingerprint()
    assert Teacher(torch.compile(model)).fingerprint() == wanted
    assert Teacher(nn.DataParallel(torch.compile(model))).fingerprint() == wanted


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
def test_a_quantised_teacher_has_a_fingerprint():
    first, second = (torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 2))) for _ in range(2))
    assert Teacher(first).fingerprint() == Teacher(copy.deepcopy(first)).fingerprint() != Teacher(second).fingerprint()


def test_a_fingerprint_has_buffers_that_are_not_saved():
    def made(value):
        module = nn.Identity()
        module.register_buffer("rates", torch.tensor(value), persistent=False)
        return Teacher(nn.Sequential(module)).fingerprint()

    assert made(1.0) == made(1.0) != made(2.0)
