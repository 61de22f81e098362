"""The door: data of every kind goes into every function, and comes out as the same samples, whoever reads them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torch.utils.data.distributed import DistributedSampler

from kdft_lib.data import TensorData, as_batch
from kdft_lib.data.reading import is_hugging_face, sharded
from kdft_lib.data.sources import source
from kdft_lib.features import precompute
from kdft_lib.losses.checks import check_mask, check_targets
from kdft_lib.objectives import Objective, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import evaluate, fit, predict

COUNT = 30
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(COUNT, 4, generator=GENERATOR)
Y = torch.randint(0, 3, (COUNT,), generator=GENERATOR)
FULL = FullFineTuning(lr=0.1)
WHOLE = TensorData(X, Y)


class Rows(Dataset):
    """Samples one by one, as most datasets give them."""

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        return X[row], int(Y[row])


class Noisy(Rows):
    """Random transforms, from each of the three sources that people draw from."""

    def __getitem__(self, row):
        noise = torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002
        return X[row] + noise, int(Y[row])


class Stream(IterableDataset):
    """Samples without a length."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def hugging_face(streaming=False):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"input": X.tolist(), "label": Y.tolist(), "text": ["a"] * COUNT})
    return data.to_iterable_dataset() if streaming else data


KINDS = {
    "TensorData": lambda: WHOLE,
    "TensorDataset": lambda: TensorDataset(X, Y),
    "Dataset": Rows,
    "Subset": lambda: Subset(Rows(), range(COUNT)),
    "pair of tensors": lambda: (X, Y),
    "pair of arrays": lambda: (X.double().numpy(), Y.int().numpy()),
    "dict of columns": lambda: {"inputs": X, "targets": Y},
    "DataLoader": lambda: DataLoader(TensorDataset(X, Y), batch_size=10),
    "list of batches": lambda: [*WHOLE.batches(10)],
    "IterableDataset": Stream,
    "loader without a length": lambda: DataLoader(Stream(), batch_size=10),
    "Hugging Face": hugging_face,
    "Hugging Face streaming": lambda: hugging_face(streaming=True),
}
KEYWORDS = ("Hugging Face", "Hugging Face streaming")


class Keywords(nn.Linear):
    """A model that takes its input by name, as those of Transformers do."""

    def forward(self, input):
        return super().forward(input)


def linear():
    torch.manual_seed(0)
    return Keywords(4, 3)


class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, input):
        return self.head(self.body(input))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_is_predicted_in_its_order(kind):
    torch.testing.assert_close(predict(linear(), KINDS[kind]()), predict(linear(), WHOLE))  # Batches round differently.


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_is_scored(kind):
    assert evaluate(linear(), KINDS[kind]()) == pytest.approx(evaluate(linear(), WHOLE), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_every_kind_of_data_are_computed(kind):
    head, data = precompute(Headed(), "head", KINDS[kind]())
    assert torch.equal(data.inputs, precompute(Headed(), "head", WHOLE)[1].inputs)
    assert torch.equal(data.targets, Y)
    assert head.in_features == 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_trains(kind):
    model = linear()
    history = fit(model, KINDS[kind](), objective=Supervised(), strategy=FULL, steps=6, **sized(kind))
    assert len(history.steps) == 6
    assert history.steps[-1]["loss"] < history.steps[0]["loss"]
    assert history.ledger.labels == (60 if kind in UNKNOWN else COUNT)


UNKNOWN = ("list of batches", "IterableDataset", "loader without a length", "Hugging Face streaming")
"""Kinds whose number of samples nobody knows; each labelled sample that is drawn counts."""


def sized(kind):
    """A loader has its own batches."""
    return {} if "oader" in kind or kind == "list of batches" else {"batch_size": 10}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNKNOWN and "Loader" not in kind])
def test_what_has_indices_trains_like_tensors(kind, assert_same_bits):
    """The same order, so the same weights to the last bit."""
    ends = []
    for data in (WHOLE, KINDS[kind]()):
        model = linear()
        fit(model, data, objective=Supervised(), strategy=FULL, epochs=2, batch_size=10)
        ends.append(model)
    assert_same_bits(*[model.state_dict() for model in ends])


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_indices_is_given_a_teachers_answers(kind):
    if kind in UNKNOWN or "Loader" in kind:
        with pytest.raises(TypeError, match="whose samples have no indices"):
            cache(linear(), KINDS[kind]())
        return
    taught = source(cache(linear(), KINDS[kind]())).in_order(7)
    assert torch.equal(torch.cat([batch["teacher_logits"] for batch in taught]), predict(linear(), WHOLE))


def test_validation_reads_as_training_does_and_is_looked_at_first():
    class Ragged(Rows):
        def __getitem__(self, row):
            return X[row, : row % 4 + 1], int(Y[row])

    def padded(samples):
        inputs = [torch.nn.functional.pad(inputs, (0, 4 - len(inputs))) for inputs, _ in samples]
        return torch.stack(inputs), torch.tensor([label for _, label in samples])

    model = linear()
    given = {"objective": Supervised(), "strategy": FULL, "epochs": 1, "batch_size": 10}
    history = fit(model, Ragged(), val_data=Ragged(), collate_fn=padded, num_workers=2, **given)
    assert history.epochs[0]["val_accuracy"] == evaluate(model, Ragged(), collate_fn=padded)["accuracy"]
    before = model.weight.clone()
    with pytest.raises(TypeError, match="val_data is of type int"):
        fit(model, WHOLE, val_data=7, **given)
    assert torch.equal(before, model.weight)


def test_the_number_of_steps_is_what_batch_size_says():
    """600 steps of one sample each is what a dataset taken for a loader gave, in silence."""
    data = TensorDataset(torch.randn(300, 4), torch.randint(0, 3, (300,)))
    history = fit(linear(), data, objective=Supervised(), strategy=FULL, batch_size=32, epochs=2)
    assert len(history.steps) == 18
    assert predict(linear(), data).shape == (300, 3)


def test_what_a_dataset_of_ones_own_makes_of_tensors_is_not_passed_over():
    class Doubled(TensorDataset):
        def __getitem__(self, row):
            return tuple(2 * tensor[row] for tensor in self.tensors)

    assert torch.equal(predict(nn.Identity(), Doubled(X)), 2 * X)


def test_values_are_left_alone_while_they_are_traced():
    """Out of range, and no error: a graph has no values to look at."""
    logits, targets = torch.zeros(2, 3, 4), torch.full((2, 3), 9)
    with pytest.raises(ValueError, match="targets holds 9"):
        check_targets(targets[0], logits[0])
    torch.func.vmap(lambda one, other: check_targets(one, other) or other)(targets, logits)

    @torch.compile(backend="eager", fullgraph=True)
    def traced(one, other):
        check_targets(one, other)
        check_mask(one > 9, other)
        return other + 1

    assert torch.equal(traced(targets, logits), logits + 1)


class Columns(Objective):
    """Looks at what a batch holds."""

    name = "columns"

    def __init__(self):
        super().__init__({"loss": 1.0})
        self.seen = []

    def parts(self, student, teacher, batch):
        self.seen.append(dict(batch))
        return {"loss": student.logits.square().mean()}


@pytest.mark.parametrize("kind", ["columns", "dicts", "Hugging Face"])
def test_a_batch_keeps_every_column(kind):
    rows = torch.arange(COUNT)
    data = {
        "columns": lambda: TensorData(X, Y, columns={"weights": rows}),
        "dicts": lambda: [{"inputs": X, "targets": Y, "weights": rows, "names": [str(row) for row in range(COUNT)]}],
        "Hugging Face": lambda: hugging_face(),
    }[kind]()
    objective = Columns()
    fit(linear(), data, objective=objective, strategy=FULL, steps=1, batch_size=COUNT if kind != "dicts" else 1)
    batch = objective.seen[0]
    if kind == "Hugging Face":
        assert batch["text"] == ["a"] * COUNT
        assert batch["inputs"].keys() == {"input"}
    else:
        assert torch.equal(X[batch["weights"]], batch["inputs"])
    if kind == "dicts":
        assert batch["names"] == [str(row) for row in range(COUNT)]


def test_columns_are_cut_with_their_samples():
    objective = Columns()
    data = [{"inputs": X, "targets": Y, "names": [str(row) for row in range(COUNT)]}]
    fit(linear(), data, objective=objective, strategy=FULL, steps=1, accumulate=4)
    assert [name for batch in objective.seen for name in batch["names"]] == [str(row) for row in range(COUNT)]
    assert [len(batch["names"]) for batch in objective.seen] == [len(batch["inputs"]) for batch in objective.seen]


@pytest.mark.parametrize("workers", [0, 2])
def test_random_transforms_depend_on_seed_pass_and_sample_alone(workers):
    """Not on who reads, on where reading began, or on what else was drawn."""
    batches = {}
    for start in (0, 4):
        torch.rand(start + 1)
        stream = source(Noisy(), num_workers=workers).training(10, seed=3, first_step=start, share=(0, 1))
        batches[start] = [next(stream)[0]["inputs"] for _ in range(6 - start)]
    reference = source(Noisy()).training(10, seed=3, first_step=0, share=(0, 1))
    expected = [next(reference)[0]["inputs"] for _ in range(6)]
    assert torch.equal(torch.cat(batches[0]), torch.cat(expected))
    assert torch.equal(torch.cat(batches[4]), torch.cat(expected[4:]))
    passes = [torch.cat(expected[:3]).sort(0).values, torch.cat(expected[3:]).sort(0).values]
    assert not torch.allclose(*passes), "each pass draws anew"


def test_reading_disturbs_no_random_numbers():
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    for data in (Noisy(), DataLoader(Noisy(), batch_size=10, shuffle=True), Stream()):
        stream = source(data).training(10, seed=0, first_step=0, share=(0, 1))
        next(stream), next(stream)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("kind", ["TensorData", "Dataset", "DataLoader", "list of batches"])
def test_shares_of_processes_make_the_same_batches(kind):
    whole = source(KINDS[kind]()).training(10, 5, 2, (0, 1))
    parts = [source(KINDS[kind]()).training(10, 5, 2, (process, 3)) for process in range(3)]
    for _ in range(5):
        shares = [next(part)[0] for part in parts]
        assert [len(share["inputs"]) for share in shares] == [3, 3, 4]
        assert torch.equal(torch.cat([share["inputs"] for share in shares]), next(whole)[0]["inputs"])


def test_a_process_reads_its_own_samples_alone():
    """Of indices nothing is read that another process keeps; of a stream, every n-th sample is kept."""
    read = []

    class Watched(Rows):
        def __getitem__(self, row):
            read.append(row)
            return super().__getitem__(row)

    for data in (Watched(), DataLoader(Watched(), batch_size=10)):
        read.clear()
        stream = source(data).training(10, 0, 0, (1, 2))
        [next(stream) for _ in range(3)]
        assert len(read) == 15
    stream = source(Stream()).training(10, 0, 0, (1, 2))
    assert torch.equal(next(stream)[0]["inputs"], X[1:10:2])


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_run_resumes_exactly(kind, workers, tmp_path, assert_same_bits):
    if workers and kind not in ("Dataset", "IterableDataset", "DataLoader"):
        pytest.skip("workers read what is not in memory")

    class Stop(Exception):
        pass

    def data():
        if kind == "Dataset":
            return Noisy()
        if kind == "DataLoader":
            return DataLoader(Noisy(), batch_size=10, shuffle=True, num_workers=workers)
        return KINDS[kind]()

    def run(model, stop_at=None, **more):
        def augment(inputs):
            augment.calls += 1
            if augment.calls == stop_at:
                raise Stop
            return inputs + 0.1 if isinstance(inputs, torch.Tensor) else inputs

        augment.calls = 0
        fit(
            model, data(), objective=Supervised(), strategy=FULL, steps=8, augment=augment,
            num_workers=workers if kind != "DataLoader" else 0, **sized(kind), **more,
        )  # fmt: skip

    whole, resumed = linear(), linear()
    run(whole)
    with pytest.raises(Stop):
        run(linear(), 6, checkpoint_dir=tmp_path, checkpoint_every=2)
    run(resumed, checkpoint_dir=tmp_path, checkpoint_every=2)
    assert_same_bits(whole.state_dict(), resumed.state_dict())


def test_a_run_that_may_not_resume_exactly_says_so(tmp_path):
    class Own(torch.utils.data.Sampler):
        def __iter__(self):
            return iter(range(COUNT))

        def __len__(self):
            return COUNT

    loader = DataLoader(TensorDataset(X, Y), batch_size=10, sampler=Own())
    with pytest.warns(UserWarning, match="its order comes from a Own"):
        fit(linear(), loader, objective=Supervised(), strategy=FULL, steps=1, checkpoint_dir=tmp_path)


def test_targets_are_looked_at_before_a_step_and_counted_once():
    data = TensorData(X, Y.masked_fill(torch.arange(COUNT) % 2 == 0, -100), mask=torch.arange(COUNT) < 20)
    totals = data.counts().of_all()
    extent = {"lowest": int(Y[1:20:2].min()), "highest": 2}
    assert totals == {"samples": 30, "given": 20, "labeled": 10, "counted": 20} | extent
    rows = torch.tensor([1, 2, 3, 25])
    counted = totals | {"samples": 4, "given": 3, "labeled": 2, "counted": 3}
    assert [*data.counts().of_batches(rows.view(1, -1))] == [counted]


def test_a_loader_that_gives_each_process_its_part_is_not_cut_again():
    data = TensorDataset(torch.zeros(8, 2), torch.zeros(8, dtype=torch.int64))
    sampler = DistributedSampler(data, num_replicas=2, rank=0)
    with pytest.raises(ValueError, match="the loader has a DistributedSampler"):
        sharded(DataLoader(data, batch_size=4, sampler=sampler), (0, 2))
    assert sharded(DataLoader(data, batch_size=4, shuffle=True), (0, 2)) is not None


def test_a_data_set_from_a_package_that_is_called_datasets_is_no_hugging_face_one():
    own = type("Cells", (), {"__module__": "datasets.cells"})()
    assert not is_hugging_face(own)


def noisy(samples):
    """Makes a batch as a collator of masked words does: with noise of its own."""
    inputs, labels = map(list, zip(*samples, strict=True))
    return torch.stack(inputs) + torch.rand(len(inputs), 1), torch.tensor(labels)


def drawn_by(workers, seed, first=0, share=(0, 1)):
    batches = source(Rows(), num_workers=workers, collate_fn=noisy).training(5, seed, first, share)
    return [next(batches)[0]["inputs"] for _ in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_a_collator_draws_depends_on_seed_and_batch_alone(workers):
    before = torch.get_rng_state()
    whole = drawn_by(workers, seed=1)
    assert torch.equal(torch.cat(whole), torch.cat(drawn_by(0, seed=1)))
    assert torch.equal(torch.cat(whole[1:]), torch.cat(drawn_by(workers, seed=1, first=1)[:2]))
    assert not torch.equal(drawn_by(workers, seed=2)[0], whole[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_is_read_once_and_in_order_whatever_the_workers():
    for workers in (0, 2):
        read = [batch["inputs"] for batch in source(Stream(), num_workers=workers).in_order(4)]
        assert torch.equal(torch.cat(read), X)


def test_answers_of_two_teachers_in_one_data_set_are_refused():
    first, second = (cache(nn.Linear(4, 3), Subset(Rows(), range(10))) for _ in range(2))
    assert source(ConcatDataset([first, first])).teacher == first.teacher
    for parts in ([first, second], [first, Rows()]):
        with pytest.raises(ValueError, match="different teachers, or none"):
            source(ConcatDataset(parts)).teacher  # noqa: B018


def test_samplers_draw_by_the_seed_though_they_have_generators_of_their_own():
    def loader():
        sampler = RandomSampler(Rows(), generator=torch.Generator().manual_seed(7))
        return DataLoader(Rows(), 5, sampler=sampler)

    def read(seed, first=0):
        batches = source(loader()).training(5, seed, first, (0, 1))
        return [next(batches)[0]["inputs"] for _ in range(3)]

    whole = read(1)
    assert torch.equal(torch.cat(whole[1:]), torch.cat(read(1, first=1)[:2]))
    assert not torch.equal(read(2)[0], whole[0])


def test_a_part_of_a_data_set_counts_as_a_part():
    part = DataLoader(Rows(), 4, sampler=SubsetRandomSampler(range(8)))
    assert source(part).labels() == (8, 0)


def test_numbers_of_64_bits_from_an_iterable_are_torchs_default():
    given = [(X.double().numpy(), Y.numpy())]
    assert evaluate(nn.Linear(4, 3), given)["loss"] > 0
    (batch,) = source(given).in_order(5)
    assert (batch["inputs"].dtype, batch["targets"].dtype) == (torch.float32, torch.int64)


def test_of_two_columns_of_labels_the_one_of_transformers_counts():
    batch = as_batch({"input_ids": torch.ones(2, 3), "label": torch.ones(2), "labels": torch.zeros(2, 3)})
    assert (batch["targets"].shape, sorted(batch["inputs"])) == ((2, 3), ["input_ids", "label"])


def test_a_model_that_writes_into_its_inputs_is_refused():
    class Centring(nn.Linear):
        def forward(self, inputs):
            inputs -= inputs.mean()
            return super().forward(inputs)

    for data in (WHOLE, {"inputs": X}):
        with pytest.raises(ValueError, match="Centring changes its inputs in place"):
            predict(Centring(4, 3), data)
    with pytest.raises(ValueError, match="Sequential changes its inputs in place"):
        predict(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), X.clone())
    assert predict(nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True)), WHOLE).shape == (COUNT, 3)


def test_numbers_of_positions_are_counted_where_the_mask_has_them():
    batch = {"inputs": torch.zeros(4, 6), "targets": torch.rand(4, 6), "mask": torch.arange(24).view(4, 6) % 2 == 0}
    _, totals = next(source([batch]).training(4, 0, 0, (0, 1)))
    assert (totals["counted"], totals["labeled"]) == (12, 12)


def test_labels_that_transformers_would_shift_are_refused():
    tokens = torch.arange(12).view(2, 6)
    with pytest.raises(ValueError, match="a target is the token after"):
        as_batch({"input_ids": tokens, "labels": tokens.masked_fill(tokens < 3, -100)})
    as_batch({"input_ids": tokens, "labels": tokens.masked_fill(tokens < 6, -100)})
    as_batch({"input_ids": tokens, "labels": torch.full_like(tokens, -100)})
    as_batch({"input_ids": tokens, "labels": tokens + 1})
