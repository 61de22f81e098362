"""Teachers' answers on disk, beside data sets of any kind, and to views."""

from __future__ import annotations

import ctypes
import pickle
import random
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from kdft_lib.data import MappedColumn, RandomShiftFlip, RandomShiftMask, TensorData
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Answered, Teacher, ViewData, cache
from kdft_lib.training import fit


class Counting(nn.Module):
    """A teacher of pictures that notes how many it was asked about each time."""

    def __init__(self, classes=5):
        super().__init__()
        self.head = nn.Linear(16, classes)
        self.asked = []

    def forward(self, pictures):
        self.asked.append(len(pictures))
        return self.head(pictures.flatten(1))


class Pictures(Dataset):
    """A data set that makes each sample when it is asked for it."""

    def __init__(self, data, form="pair"):
        self.data, self.form = data, form

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        picture, target = self.data.inputs[index], int(self.data.targets[index])
        if self.form == "alone":
            return picture
        return (picture, target) if self.form == "pair" else {"pixel_values": picture, "labels": target}


class Batched(Pictures):
    """As Hugging Face's are: several samples at once, as dicts."""

    def __init__(self, data):
        super().__init__(data, "dict")

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Keyed(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values)


@pytest.fixture
def pictures():
    return TensorData(torch.rand(120, 1, 4, 4), torch.arange(120) % 5)


def columns(data):
    logits = data.teacher_logits
    return logits if isinstance(logits, dict) else {"": logits}


def read(column):
    return column.read() if isinstance(column, MappedColumn) else column


# On disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"dtype": torch.float16}, {"top_k": 2}, {"top_k": 2, "dtype": torch.bfloat16}])
def test_answers_on_disk_are_those_in_memory(pictures, tmp_path, more):
    teacher = Counting()
    here = cache(teacher, pictures, batch_size=7, **more)
    there = cache(teacher, pictures, to=tmp_path, batch_size=7, **more)
    asked = len(teacher.asked)
    again = cache(teacher, pictures, to=tmp_path, batch_size=7, **more)
    assert len(teacher.asked) == asked
    assert len([*tmp_path.glob("shard-*")]) == 18
    order = torch.randperm(120)
    for data in (there, again):
        assert data.teacher == here.teacher
        for name, column in columns(data).items():
            assert isinstance(column, MappedColumn)
            assert (column.shape, column.dtype, column.nbytes) == (
                columns(here)[name].shape, columns(here)[name].dtype, columns(here)[name].nbytes
            )  # fmt: skip
            assert torch.equal(column.read(), columns(here)[name])
        for batch, wanted in zip(data.batches(11), here.batches(11), strict=True):
            assert same(batch, wanted)
        assert same(data.rows(order), here.rows(order))
        assert same(data.rows(order[:0]), here.rows(order[:0]))
        assert same(data[17], here[17])
        assert same(data[-1], here[-1])


def same(batch, other):
    """Whether two batches are alike, bit for bit."""
    if isinstance(batch, dict):
        return batch.keys() == other.keys() and all(same(batch[key], other[key]) for key in batch)
    return batch.dtype == other.dtype and torch.equal(batch, other)


def test_rows_that_are_selected_stay_on_disk(pictures, tmp_path):
    teacher = Counting()
    here, there = cache(teacher, pictures, batch_size=16), cache(teacher, pictures, to=tmp_path, batch_size=16)
    for rows in (slice(5, 90, 3), [7, 3, 3], torch.randperm(120)[:50], torch.arange(120) % 2 == 0):
        part = there[rows]
        assert isinstance(part.teacher_logits, MappedColumn)
        assert part.teacher_logits.shape == here[rows].teacher_logits.shape
        assert same(part.rows(slice(0, 99)), here[rows].rows(slice(0, 99)))
        assert same(part[1:][torch.tensor([1])].rows(slice(None)), here[rows][1:][torch.tensor([1])].rows(slice(None)))
    assert not there.resident
    assert here.resident
    assert there.to("cpu").teacher_logits is there.teacher_logits
    assert same(there.with_rows(there).rows(slice(None)), here.with_rows(here).rows(slice(None)))
    assert there.fingerprint() == here.fingerprint()
    for wrong in (120, -121):
        with pytest.raises(IndexError):
            there.teacher_logits[wrong]
    with pytest.raises(IndexError, match="rows -1 to 3 were asked for, of 120"):
        there.teacher_logits.index_select(0, torch.tensor([3, -1]))


def test_what_is_read_can_be_changed_and_the_files_stay(pictures, tmp_path):
    data = cache(Counting(), pictures, to=tmp_path)
    before = data.teacher_logits.read()
    for read in (data.rows(torch.tensor([3]))["teacher_logits"], data[3]["teacher_logits"]):
        read.zero_()
    assert torch.equal(data.teacher_logits.read(), before)


def test_a_copy_for_another_process_opens_the_files_anew(pictures, tmp_path):
    data = cache(Counting(), TensorData(torch.rand(20_000, 16)), to=tmp_path)
    packed = pickle.dumps(data.teacher_logits)
    assert len(packed) < 20_000 < data.teacher_logits.nbytes
    assert torch.equal(pickle.loads(packed).read(), data.teacher_logits.read())
    part = pickle.loads(pickle.dumps(data.teacher_logits[[5, 3]]))
    assert torch.equal(part.read(), data.teacher_logits.read()[[5, 3]])


@pytest.mark.parametrize(
    ("method", "views"), [("fork", None), ("fork", 3), pytest.param("spawn", 3, marks=pytest.mark.slow)]
)
def test_workers_subsets_and_shuffling_leave_answers_with_their_samples(pictures, tmp_path, method, views):
    teacher = Counting()
    more = {} if views is None else {"views": views, "augment": RandomShiftFlip(1)}
    for data in (cache(teacher, pictures, to=tmp_path / "data", **more),
                 cache(teacher, Pictures(pictures), to=tmp_path / "set", **more)):  # fmt: skip
        part = Subset(data, torch.randperm(120)[:60].tolist())
        loader = DataLoader(part, 16, shuffle=True, num_workers=1, multiprocessing_context=method)
        seen = 0
        for batch in loader:
            torch.testing.assert_close(batch["teacher_logits"], Teacher(teacher)(batch["inputs"]))
            seen += len(batch["targets"])
        assert seen == 60


@pytest.mark.parametrize("wrong", ["teacher", "rows", "length", "kind", "classes", "top_k"])
def test_a_folder_is_for_one_teacher_one_data_set_and_one_way(pictures, tmp_path, wrong):
    teacher = Counting()
    cache(teacher, pictures, to=tmp_path)
    given = {"teacher": teacher, "data": pictures, "to": tmp_path}
    changed, message = {
        "teacher": ({"teacher": Counting()}, "teacher was .{12} and is now"),
        "rows": ({"data": pictures[torch.randperm(120)]}, "data was .{12} and is now"),
        "length": ({"data": pictures[:100]}, "samples was 120 and is now 100"),
        "kind": ({"dtype": torch.float16}, "dtype was None and is now torch.float16"),
        "classes": ({"top_k": 1}, "top_k was None and is now 1"),
        "top_k": ({"views": 2, "augment": RandomShiftFlip(1)}, "views was None and is now 2, augment was None"),
    }[wrong]
    with pytest.raises(ValueError, match=f"holds other answers: {message}.*another folder, or delete this one"):
        cache(**given | changed)


def test_a_data_set_is_known_by_its_length_and_its_ends(pictures, tmp_path):
    teacher = Counting()
    cache(teacher, Pictures(pictures), to=tmp_path)
    for change in (0, 119):
        other = TensorData(pictures.inputs.clone(), pictures.targets)
        other.inputs[change] += 1
        with pytest.raises(ValueError, match="holds other answers: data was"):
            cache(teacher, Pictures(other), to=tmp_path)
    with pytest.raises(ValueError, match="samples was 120 and is now 119"):
        cache(teacher, Subset(Pictures(pictures), range(119)), to=tmp_path)


def test_another_machine_goes_on_with_another_size_of_calls(pictures, tmp_path):
    teacher = Counting()
    cache(teacher, pictures, to=tmp_path / "here", batch_size=16)
    moved = tmp_path / "there"
    shutil.copytree(tmp_path / "here", moved)
    (moved / "shard-000003.safetensors").unlink()
    shutil.rmtree(tmp_path / "here")
    teacher.asked.clear()
    data = cache(teacher, pictures, to=moved, batch_size=10)
    assert teacher.asked == [10, 6]
    torch.testing.assert_close(data.teacher_logits.read(), Teacher(teacher)(pictures.inputs))


def test_shards_of_other_answers_and_damaged_ones_are_named(pictures, tmp_path):
    teacher, other = Counting(), Counting()
    cache(other, pictures, to=tmp_path, batch_size=16)
    (tmp_path / "index.json").unlink()
    with pytest.raises(ValueError, match=r"shard-000000.safetensors cannot be read \(it is of other answers\); delete"):
        cache(teacher, pictures, to=tmp_path, batch_size=16)
    for path in tmp_path.glob("shard-*"):
        path.unlink()
    cache(teacher, pictures, to=tmp_path, batch_size=16)
    shard = tmp_path / "shard-000002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"shard-000002.safetensors cannot be read .*delete it, and it is asked for"):
        cache(teacher, pictures, to=tmp_path, batch_size=16)
    shard.unlink()
    teacher.asked.clear()
    cache(teacher, pictures, to=tmp_path, batch_size=16)
    assert teacher.asked == [16]


def same_files(folder, other):
    """Whether all shards hold the same bits."""
    from safetensors.torch import load_file

    names = [sorted(path.name for path in place.iterdir()) for place in (folder, other)]
    if names[0] != names[1]:
        return False
    return all(same(load_file(folder / name), load_file(other / name)) for name in names[0] if name.startswith("shard"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_moment_it_goes_on(fork, tmp_path):
    for name, kills in (("whole", 0), ("cut", 12)):
        process = fork("caching.py", tmp_path / name, kills)
        process.join(timeout=300)
        assert process.exitcode == 0
    killed, halves, whole = map(int, (tmp_path / "cut.txt").read_text().split())
    print(f"\n{killed} kills, {halves} in the middle of a file; the last life began with {whole} of 63 shards")
    assert killed >= 10
    assert 0 < whole < 63
    assert same_files(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_processes_share_the_shards_and_any_number_goes_on(fork, tmp_path):
    def together(folder, count, stop_after=None):
        variables = {"WORLD_SIZE": str(count), "ASKED": str(tmp_path / "asked")}
        runs = [fork("caching.py", folder, 0, RANK=str(rank), **variables) for rank in range(count)]
        if stop_after is not None:
            written = []
            while len(written) < stop_after or len({number % count for number in written}) < count:
                time.sleep(0.01)
                written = [int(path.stem.split("-")[1]) for path in folder.glob("shard-*")]
            for run in runs:
                run.kill()
        for run in runs:
            run.join(timeout=200)
        return [run.exitcode for run in runs]

    assert together(tmp_path / "one", 1) == [0]
    (tmp_path / "asked").unlink()
    together(tmp_path / "three", 3, stop_after=9)
    assert together(tmp_path / "three", 2) == [0, 0]
    calls = (tmp_path / "asked").read_text().splitlines()
    shares = [sum(call.startswith(f"{rank} ") for call in calls) for rank in range(3)]
    print(f"\ncalls of three processes, then of two: {shares}, {sum(shares)} of 126")
    assert all(shares)
    assert 126 <= sum(shares) <= 126 + 3 * 2  # and what the kills lost
    assert same_files(tmp_path / "one", tmp_path / "three")


def test_a_process_waits_for_the_shards_of_others(pictures, tmp_path, monkeypatch):
    """Two processes as two threads would not be told apart, so the second one comes as soon as the first waits."""
    teacher = Counting()
    whole = cache(teacher, pictures, batch_size=16)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    found = []
    first = threading.Thread(target=lambda: found.append(cache(teacher, pictures, to=tmp_path, batch_size=16)))
    first.start()
    while len([*tmp_path.glob("shard-*")]) < 4:
        time.sleep(0.01)
    time.sleep(0.2)
    assert sorted(int(path.stem[-6:]) for path in tmp_path.glob("shard-*")) == [0, 2, 4, 6]
    assert first.is_alive()
    monkeypatch.setenv("RANK", "1")
    second = cache(teacher, pictures, to=tmp_path, batch_size=16)
    first.join(timeout=20)
    for data in (found[0], second):
        assert torch.equal(data.teacher_logits.read(), whole.teacher_logits)


def test_what_a_killed_process_left_is_removed(pictures, tmp_path):
    teacher = Counting()
    for name in (".index.json.abc", ".shard-000001.safetensors.xyz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    cache(teacher, pictures, to=tmp_path, batch_size=60)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["index.json", "shard-000000.safetensors", "shard-000001.safetensors"]


# Beside data sets of any kind --------------------------------------------------------------------------


@pytest.mark.parametrize("to", [None, "folder"])
@pytest.mark.parametrize("form", ["pair", "alone", "dict", "batched"])
def test_a_data_set_of_any_form_has_answers(pictures, tmp_path, form, to):
    model = Counting()
    teacher = Keyed(model) if form in ("dict", "batched") else model
    dataset = Batched(pictures) if form == "batched" else Pictures(pictures, form)
    data = cache(teacher, dataset, to=None if to is None else tmp_path, batch_size=50)
    assert isinstance(data, Answered)
    assert (len(data), data.teacher) == (120, Teacher(teacher).fingerprint())
    expected = cache(model, pictures, batch_size=50).teacher_logits
    assert torch.equal(read(data.teacher_logits), expected)
    assert torch.equal(data[-3]["teacher_logits"], expected[-3])
    seen = []
    for batch in DataLoader(data, 32, shuffle=True):
        inputs = batch["inputs"]["pixel_values"] if isinstance(batch["inputs"], dict) else batch["inputs"]
        torch.testing.assert_close(batch["teacher_logits"], Teacher(model)(inputs))
        assert ("targets" in batch) == (form != "alone")
        seen.append(len(inputs))
    assert sum(seen) == 120
    rows = data.rows(torch.tensor([7, 3]))
    assert torch.equal(rows["teacher_logits"], expected[[7, 3]])
    with pytest.raises(IndexError):
        data[120]


def test_answers_of_highest_classes_come_with_samples(pictures):
    teacher = Counting()
    data, wanted = cache(teacher, Pictures(pictures), top_k=2), cache(teacher, pictures, top_k=2)
    batch = next(iter(DataLoader(data, 120)))
    assert same(batch["teacher_logits"], wanted.teacher_logits)


def test_a_loader_over_answers_trains_as_data_in_memory_does(pictures, tmp_path):
    teacher, ends = Counting(), []
    for data in (pictures, Pictures(pictures)):
        kept = cache(teacher, data, to=tmp_path / type(data).__name__)
        torch.manual_seed(2)
        student = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
        rows = kept if isinstance(kept, TensorData) else DataLoader(kept, 120)
        asked = len(teacher.asked)
        fit(student, rows, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=3, batch_size=120)
        assert len(teacher.asked) == asked
        ends.append(student[1].weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1, 4, 4)


class Measured(Stream):
    def __len__(self):
        return 1


@pytest.mark.parametrize(
    "make",
    [Stream, Measured, lambda: iter([torch.zeros(1, 4, 4)]), lambda: DataLoader(TensorDataset(torch.zeros(2, 16)))],
)
def test_what_has_no_indices_is_refused(make):
    data = make()
    with pytest.raises(
        TypeError, match=f"data is a {type(data).__name__}, whose samples have no indices .*its dataset"
    ):
        cache(Counting(), data)


def test_pairs_and_tensor_data_sets_become_data_in_memory(pictures, tmp_path):
    teacher = Counting()
    wanted = cache(teacher, pictures)
    pair = (pictures.inputs, pictures.targets)
    for data in (
        pair,
        TensorDataset(*pair),
        {"inputs": pair[0], "labels": pair[1]},
        tuple(part.numpy() for part in pair),
    ):
        assert same(cache(teacher, data).rows(slice(None)), wanted.rows(slice(None)))
    weighed = TensorData(*pair, columns={"weights": torch.rand(120)})
    for more in ({}, {"to": tmp_path / "plain"}, {"to": tmp_path / "views", "views": 2, "augment": RandomShiftFlip(1)}):
        data = cache(teacher, weighed, **more)
        assert torch.equal(data[60:].rows(slice(0, 9))["weights"], weighed.rows(slice(60, 69))["weights"])


# Views -----------------------------------------------------------------------------------------------


def invert(pictures):
    return torch.where(torch.rand(len(pictures), 1, 1, 1) < 0.5, 1 - pictures, pictures)


@pytest.mark.parametrize("augment", [RandomShiftFlip(1), invert])
@pytest.mark.parametrize("make", [lambda data: data, Pictures])
def test_student_and_teacher_see_the_same_view(pictures, tmp_path, augment, make):
    teacher = Counting()
    data = make(pictures)
    here = cache(teacher, data, views=3, augment=augment, batch_size=16)
    there = cache(teacher, data, views=3, augment=augment, batch_size=16, to=tmp_path)
    assert teacher.asked.count(16) == 2 * 3 * 7
    asked = len(teacher.asked)
    again = cache(teacher, data, views=3, augment=augment, batch_size=16, to=tmp_path)
    assert len(teacher.asked) == asked
    order, seen = torch.randperm(120), []
    for kept in (here, there, again):
        assert isinstance(kept, ViewData if isinstance(data, TensorData) else Answered)
        assert len(kept) == 120
        torch.manual_seed(5)
        seen.append([kept.rows(order) for _ in range(20)])
        for batch in seen[-1]:
            torch.testing.assert_close(batch["teacher_logits"], Teacher(teacher)(batch["inputs"]))
            assert torch.equal(batch["targets"], pictures.targets[order])
    assert all(same(*pair) for others in seen[1:] for pair in zip(seen[0], others, strict=True))
    views = torch.stack([batch["inputs"] for batch in seen[0]], 1)
    different = [len({view.numpy().tobytes() for view in row}) for row in views]
    assert max(different) == (2 if augment is invert else 3)
    assert sum(different) > 120


@pytest.mark.parametrize(("flip", "count"), [(0.5, 18), (0.0, 9), (1.0, 9)])
def test_all_views_are_kept_once_each(pictures, tmp_path, flip, count):
    teacher, augment = Counting(), RandomShiftFlip(1, flip)
    few = pictures[:9]
    here = cache(teacher, few, views="all", augment=augment, batch_size=4)
    there = cache(teacher, few, views="all", augment=augment, batch_size=4, to=tmp_path, seed=1)
    assert sum(teacher.asked) == 2 * count * len(few)
    assert len(here.teacher_logits) == len(there.teacher_logits) == count * len(few)
    every = augment.every()
    for place in range(len(few)):
        views = augment.apply(few.inputs[place].expand(count, 1, 4, 4), every)
        assert len({view.numpy().tobytes() for view in views}) == count
        answers = Teacher(teacher)(views)
        torch.testing.assert_close(here.teacher_logits[place * count : (place + 1) * count], answers)
        batches = [kept.rows(torch.tensor([place] * 200)) for kept in (here, there)]
        for batch in batches:
            assert {view.numpy().tobytes() for view in batch["inputs"]} == {view.numpy().tobytes() for view in views}
            torch.testing.assert_close(batch["teacher_logits"], Teacher(teacher)(batch["inputs"]))
    asked = len(teacher.asked)
    cache(teacher, few, views="all", augment=augment, to=tmp_path, seed=2)
    assert len(teacher.asked) == asked, "nothing is drawn, so the seed decides nothing"
    with pytest.raises(ValueError, match=r"views was all and is now 18"):
        cache(teacher, few, views=18, augment=augment, to=tmp_path)


def test_views_are_decided_by_the_seed_and_not_by_the_size_of_calls(pictures):
    teacher = Counting()

    def drawn(**more):
        data = cache(teacher, pictures, views=2, augment=RandomShiftFlip(1), **more)
        torch.manual_seed(0)
        return data.rows(slice(None))["inputs"]

    state = torch.get_rng_state()
    first = drawn()
    assert torch.equal(first, drawn(batch_size=50))
    assert not torch.equal(first, drawn(seed=1))
    torch.set_rng_state(state)
    cache(teacher, pictures, views=2, augment=invert)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_on_views_resumes_bit_for_bit(pictures, tmp_path, state_bytes, assert_same_bits):
    teacher = Counting()
    data = cache(teacher, pictures, to=tmp_path / "answers", views=4, augment=RandomShiftFlip(1))
    asked, ends = len(teacher.asked), []

    class Stop(Exception):
        pass

    class Stopping(nn.Linear):
        left = None

        def forward(self, inputs):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Stop
            return super().forward(inputs)

    def train(folder, left=None):
        torch.manual_seed(1)
        student = nn.Sequential(nn.Flatten(), Stopping(16, 5))
        student[1].left = left
        fit(
            student, data, objective=SoftTargets(teacher), strategy=FullFineTuning(lr=0.1), epochs=3, batch_size=16,
            checkpoint_dir=folder, checkpoint_every=2,
        )  # fmt: skip
        return state_bytes(student)

    ends.append(train(tmp_path / "whole"))
    with pytest.raises(Stop):
        train(tmp_path / "cut", left=11)
    ends.append(train(tmp_path / "cut"))
    assert_same_bits(*ends)
    assert len(teacher.asked) == asked
    other = cache(teacher, pictures, views=4, augment=RandomShiftFlip(1), seed=3)
    assert other.fingerprint() != data.fingerprint()
    assert data[:60].fingerprint() != data[60:].fingerprint()


def test_rows_of_views_are_selected_with_their_views(pictures):
    teacher = Counting()
    data = cache(teacher, pictures, views=2, augment=RandomShiftFlip(1))
    order = torch.randperm(120)[:40]
    part = data[order]
    torch.manual_seed(7)
    batch = part.rows(torch.arange(40))
    torch.manual_seed(7)
    assert same(batch, data.rows(order))
    assert part[3]["targets"] == pictures.targets[order[3]]
    assert data[5:9].without_labels().rows(slice(None))["teacher_logits"].shape == (4, 5)
    assert not data.resident
    fit(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), data, objective=Supervised(), strategy=FullFineTuning(lr=0.1),
        epochs=1)  # fmt: skip
    with pytest.raises(ValueError, match="augment changes the inputs"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), data, objective=SoftTargets(teacher), augment=invert,
            strategy=FullFineTuning(lr=0.1), epochs=1)  # fmt: skip
    with pytest.raises(ValueError, match="cache the data that they were made of"):
        cache(teacher, data)
    kept = cache(teacher, pictures, views=2, augment=invert)
    with pytest.raises(ValueError, match="other inputs would not be seen"):
        kept.with_inputs(pictures.inputs)
    assert data.with_inputs(pictures.inputs + 1).rows(slice(0, 4))["inputs"].mean() > 0


def test_augmentations_that_look_alike_are_told_apart(pictures, tmp_path):
    class Shifted:
        def __init__(self, by):
            self.by = by

        def __call__(self, inputs):
            return inputs + self.by

    teacher, pairs = Counting(), [(lambda x: x + 1, lambda x: x + 100), (Shifted(1), Shifted(100))]
    for number, (first, second) in enumerate(pairs):
        cache(teacher, pictures, to=tmp_path / str(number), views=2, augment=first)
        cache(teacher, pictures, to=tmp_path / str(number), views=2, augment=first)
        with pytest.raises(ValueError, match="holds other answers: augment was"):
            cache(teacher, pictures, to=tmp_path / str(number), views=2, augment=second)


def test_views_are_made_of_copies_and_of_the_seed_whoever_draws(pictures):
    def mixed(inputs):
        return inputs.mul_(random.random() + np.random.rand())  # noqa: NPY002

    before = pictures.inputs.clone()
    teacher = Counting()
    first, second = (cache(teacher, pictures, views=2, augment=mixed, seed=np.int64(3)) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    assert torch.equal(pictures.inputs, before)


class Fixed:
    """Draws and applies, and does not say what it is."""

    def draw(self, count, generator=None):
        return {"by": torch.zeros(count, 1)}

    def apply(self, inputs, drawn):
        return inputs


def test_a_fingerprint_is_the_same_for_an_augmentation_of_another_process(pictures):
    teacher = Counting()
    first, second = (cache(teacher, pictures, views=2, augment=Fixed()) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()


def test_an_augmentation_that_draws_otherwise_is_told(pictures, tmp_path):
    """What was drawn is kept, so another generator changes nothing; what is made of it is checked."""

    class Changed(RandomShiftFlip):
        def __repr__(self):
            return "RandomShiftFlip(padding=1, flip=0.5, fill=0.0)"

        def draw(self, count, generator=None):
            raise AssertionError

    class Turned(Changed):
        def apply(self, images, drawn):
            return super().apply(images, drawn).flip(2)

    teacher = Counting()
    for more in ({}, {"batch_size": 16}):
        folder = tmp_path / str(len(more))
        cache(teacher, pictures, to=folder, views=2, augment=RandomShiftFlip(1), **more)
        cache(teacher, pictures, to=folder, views=2, augment=Changed(1), **more)
        with pytest.raises(ValueError, match="holds answers to other views than RandomShiftFlip"):
            cache(teacher, pictures, to=folder, views=2, augment=Turned(1), **more)


@pytest.mark.parametrize("augment", [RandomShiftFlip(2), RandomShiftMask(1, 2, 2)])
def test_an_augmentation_is_its_two_steps(augment):
    """And draws as it always did: recorded results depend on the order of these numbers."""
    inputs = torch.rand(64, 2, 8, 8)
    torch.manual_seed(3)
    views, after = augment(inputs), torch.rand(1)
    torch.manual_seed(3)
    drawn = augment.draw(64)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(augment.apply(inputs, drawn), views)
    assert torch.equal(augment.apply(inputs[9:], {name: rows[9:] for name, rows in drawn.items()}), views[9:])
    assert all(len(rows) == 64 for rows in drawn.values())
    again = [augment.draw(9, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert same(*again)
    torch.manual_seed(3)
    if isinstance(augment, RandomShiftFlip):
        shifts, mirrored = torch.randint(0, 5, (2, 64, 1)), torch.rand(64, 1) < 0.5
        padded = torch.nn.functional.pad(inputs, [2] * 4)
        columns = torch.where(mirrored, torch.arange(8).flip(0), torch.arange(8)) + shifts[1]
        for place in range(64):
            window = padded[place][:, torch.arange(8) + shifts[0, place]][:, :, columns[place]]
            assert torch.equal(views[place], window)


# What it costs, scaled down from benchmarks/kept_answers.py -------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what memory is a process's own")
def test_training_from_disk_holds_a_batch_and_reads_as_fast_as_from_memory(tmp_path, monkeypatch):
    """60,000 answers over 1,000 classes are 120 MB. The bounds leave room for a machine that does other things."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import kept_answers
    from memory import private

    data, highest = kept_answers.ask(tmp_path, 60_000), 0
    order = torch.randperm(60_000).split(256)
    kept_answers.epoch(data.teacher_logits, torch.arange(512))
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # What earlier tests freed would hold what is read below, and nothing would show.
    before = private()
    for rows in order:
        data.rows(rows)
        highest = max(highest, private() - before)
    memory, seconds = data.teacher_logits.read(), {}
    assert private() - before > 100 * 2**20
    for name, column in (("memory", memory), ("disk", data.teacher_logits)) * 3:
        started = time.process_time()
        kept_answers.epoch(column, torch.cat(order))
        seconds[name] = min(seconds.get(name, torch.inf), time.process_time() - started)
    ratio = seconds["disk"] / seconds["memory"]
    print(
        f"\nheld beside the pages: {highest / 2**20:.1f} MiB; an epoch of reads takes {ratio:.2f} of that from memory"
    )
    assert highest < 30 * 2**20
    assert ratio < 3


def test_what_somebody_else_keeps_in_the_folder_stays(pictures, tmp_path):
    for name in (".venv-3.11", ".config.old"):
        (tmp_path / name).mkdir()
    cache(Counting(), pictures, to=tmp_path, batch_size=60)
    assert (tmp_path / ".venv-3.11").exists()
    assert (tmp_path / ".config.old").exists()


def test_samples_that_changed_in_the_middle_are_noticed(pictures, tmp_path):
    teacher = Counting()
    cache(teacher, Pictures(pictures, "pair"), to=tmp_path, batch_size=50)
    changed = TensorData(pictures.inputs.clone(), pictures.targets)
    changed.inputs[60] += 1.0
    with pytest.raises(ValueError, match="data"):
        cache(teacher, Pictures(changed, "pair"), to=tmp_path, batch_size=50)


def test_rows_with_answers_of_two_teachers_are_not_put_together(pictures):
    first, second = (
        cache(nn.Sequential(nn.Flatten(), nn.Linear(pictures.inputs[0].numel(), 3)), pictures) for _ in range(2)
    )
    assert len(first.with_rows(first)) == 2 * len(first)
    with pytest.raises(ValueError, match="the rows have answers of two teachers"):
        first.with_rows(second)


@pytest.mark.parametrize("index", [np.int64(3), 3])
def test_an_integer_of_numpy_is_one_row(pictures, tmp_path, index):
    for data in (pictures, cache(Counting(), pictures, to=tmp_path)):
        row = data[index]
        assert torch.equal(row["inputs"], pictures.inputs[3])
        assert row["targets"] == pictures.targets[3]
