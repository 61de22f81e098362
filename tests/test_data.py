from __future__ import annotations

import gzip
import hashlib
import shutil
import time
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from kdft_lib.data import UNLABELED, RandomShiftFlip, TensorData, as_batch, batches
from kdft_lib.datasets import FASHION_CLASSES, fashion_mnist
from kdft_lib.datasets import fashion as module


def digests(data):
    return Counter(hashlib.sha256(image.numpy().tobytes()).digest() for image in data.inputs)


def files():
    return module._folder(None)


def unpacked(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder with the four files, the only place to look."""
    for path in files().glob("*-ubyte*"):
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.setenv("KDFT_DATA", str(tmp_path))
    module._read.cache_clear()
    return tmp_path


def test_the_four_parts_make_up_the_whole(fashion):
    whole = digests(fashion_mnist(labeled=None).train) + digests(fashion.val)
    assert digests(fashion.train) + digests(fashion.transfer) + digests(fashion.val) == whole
    assert sum(whole.values()) == 60_000
    assert len(fashion.test) == 10_000


def test_classes_are_balanced_and_inputs_normalized(fashion):
    assert fashion.train.targets.bincount().tolist() == [100] * 10
    assert fashion.val.targets.bincount().tolist() == [500] * 10
    assert fashion.test.targets.bincount().tolist() == [1000] * 10
    assert fashion_mnist(labeled=1003).train.targets.bincount().tolist().count(100) == 7
    everything = fashion_mnist(labeled=None).train.inputs
    assert everything.shape == (55_000, 1, 28, 28)
    assert abs(everything.mean()) < 2e-3
    assert abs(everything.std() - 1) < 2e-3
    assert everything.min().item() == pytest.approx(module.FASHION_BACKGROUND, abs=1e-4)
    assert len(FASHION_CLASSES) == 10


def test_validation_is_the_same_for_every_seed_and_the_draw_is_not(fashion):
    other = fashion_mnist(labeled=1000, seed=1)
    assert torch.equal(other.val.inputs, fashion.val.inputs)
    assert not torch.equal(other.train.inputs, fashion.train.inputs)
    again = fashion_mnist(labeled=1000, seed=0)
    assert torch.equal(again.train.inputs, fashion.train.inputs)
    fewer = fashion_mnist(labeled=1000, validation=1000)
    assert not digests(fewer.val) - digests(fashion.val)


def test_validation_within_the_labels(fashion):
    splits = fashion_mnist(labeled=500, validation="within")
    assert (len(splits.train), len(splits.val)) == (400, 100)
    assert splits.val.targets.bincount().tolist() == [10] * 10
    assert len(splits.transfer) == 54_500
    assert not (digests(splits.val) + digests(splits.train)) & digests(fashion.val)


def test_transfer_data_has_no_labels(fashion):
    assert fashion.transfer.targets is None
    assert len(fashion_mnist(labeled=None).transfer) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 5}, "labeled is 5; it must be from 10 to 55000"),
        ({"labeled": 60_000}, "labeled is 60000"),
        ({"validation": 6000}, "validation is 6000; it must be from 10 to 5000"),
        ({"validation": "inside"}, "validation is 'inside'"),
        ({"labeled": 20, "validation": "within"}, "must be 50 or more"),
    ],
)
def test_counts_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist(**arguments)


@pytest.mark.parametrize("form", ["packed", "unpacked"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "longer"])
def test_a_damaged_file_is_named(copied, form, damage):
    name = "t10k-labels-idx1-ubyte"
    path = next(copied.glob(f"{name}*"))
    content = bytearray(unpacked(path))
    content = {"truncated": content[:-1], "altered": content[:-1] + b"\x63", "longer": content + b"\0"}[damage]
    path.unlink()
    path = copied / (f"{name}.gz" if form == "packed" else name)
    path.write_bytes(gzip.compress(content) if form == "packed" else content)
    with pytest.raises(
        ValueError, match=rf"{path} holds .* bytes .*expected 10,008 bytes with SHA-256 0402a96d.*Delete"
    ):
        fashion_mnist()


def test_a_file_cut_off_in_transfer_is_named(copied):
    path = next(copied.glob("train-labels-idx1-ubyte*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{path} .*expected 60,008 bytes"):
        fashion_mnist()


def test_places_are_searched_in_order(copied, tmp_path_factory, monkeypatch):
    assert module._folder(None) == copied
    other = tmp_path_factory.mktemp("other")
    nested = other / "FashionMNIST" / "raw"
    shutil.copytree(copied, nested)
    assert module._folder(other) == nested
    monkeypatch.delenv("KDFT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(other))
    shutil.copytree(copied, other / "kdft")
    assert module._folder(None) == other / "kdft"


def test_offline_and_absent_is_one_clear_sentence(tmp_path, monkeypatch):
    import torchvision

    def unreachable(*_, **__):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror, got:\nnothing\n")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded \(Error downloading.*dataset-fashion-mnist.*KDFT_DATA"
    ):
        fashion_mnist(root=tmp_path / "empty")


def test_a_download_is_used_and_its_time_limited(copied, tmp_path_factory, monkeypatch):
    import socket

    import torchvision

    limits = []

    def download(root, download):
        limits.append(socket.getdefaulttimeout())
        shutil.copytree(copied, f"{root}/FashionMNIST/raw")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    splits = fashion_mnist(labeled=100, root=tmp_path_factory.mktemp("fresh"))
    assert len(splits.test) == 10_000
    assert limits == [20.0]
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
def test_a_pass_takes_a_fiftieth_of_the_usual_loader(tmp_path):
    from torchvision import datasets, transforms

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in files().glob("*-ubyte*"):
        (raw / path.name.removesuffix(".gz")).write_bytes(unpacked(path))
    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.2860, 0.3530)])
    loader = DataLoader(datasets.FashionMNIST(str(tmp_path), transform=change), batch_size=128, shuffle=True)
    data = fashion_mnist(labeled=None).train
    started = time.perf_counter()
    for count, _ in enumerate(loader, 1):
        if count == 100:
            break
    usual = (time.perf_counter() - started) / 100
    started = time.perf_counter()
    passes = [sum(1 for _ in data.batches(128, shuffle=True)) for _ in range(5)]
    ours = (time.perf_counter() - started) / sum(passes)
    print(f"\na batch: DataLoader {1e3 * usual:.3f} ms, TensorData {1e3 * ours:.3f} ms, ratio {usual / ours:.0f}")
    assert ours < usual / 50


def test_batches_hold_every_row_once(blobs):
    seen = torch.cat([batch["inputs"] for batch in blobs.batches(7, shuffle=True)])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, blobs.inputs.tolist()))
    assert not torch.equal(seen, blobs.inputs)
    first, again = (
        torch.cat([b["targets"] for b in blobs.batches(7, shuffle=True, generator=torch.Generator().manual_seed(3))])
        for _ in range(2)
    )
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(blobs.batches(0))


def test_tensor_data_rejects_columns_of_different_lengths():
    with pytest.raises(ValueError, match="inputs has 3, targets has 2 rows"):
        TensorData(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="teacher_logits and teacher go together"):
        TensorData(torch.zeros(3, 2), teacher_logits=torch.zeros(3, 2))


def test_tensor_data_takes_a_dict_of_inputs():
    data = TensorData(
        {"input_ids": torch.arange(6).view(3, 2), "attention_mask": torch.ones(3, 2)}, torch.tensor([0, 1, 2])
    )
    assert len(data[1:]) == 2
    assert data[1]["inputs"]["input_ids"].tolist() == [2, 3]
    assert next(data.batches(2, shuffle=True))["inputs"]["input_ids"].shape == (2, 2)
    assert data.fingerprint() != data[torch.tensor([1, 0, 2])].fingerprint()


def test_batches_are_recognized_at_the_door():
    inputs, targets = torch.zeros(2, 3), torch.tensor([0, 1])
    assert as_batch((inputs, targets)).keys() == {"inputs", "targets"}
    assert as_batch([inputs, targets]).keys() == {"inputs", "targets"}
    assert as_batch(inputs).keys() == {"inputs"}
    hugging_face = as_batch({"input_ids": inputs, "attention_mask": inputs, "labels": targets})
    assert hugging_face["inputs"].keys() == {"input_ids", "attention_mask"}
    assert hugging_face["targets"] is targets
    with pytest.raises(TypeError, match="a batch came as a str"):
        as_batch("images")


def test_joined_batches_keep_labels_apart():
    labeled = {"inputs": torch.zeros(2, 3), "targets": torch.tensor([1, 2])}
    joined = batches.join(labeled, {"inputs": torch.ones(3, 3)})
    assert joined["targets"].tolist() == [1, 2, *[UNLABELED] * 3]
    assert joined["inputs"].shape == (5, 3)
    with pytest.raises(ValueError, match="transfer_data has no teacher_logits"):
        batches.join(labeled | {"teacher_logits": torch.zeros(2, 4)}, {"inputs": torch.ones(3, 3)})


def test_views_are_shifted_and_mirrored_copies():
    image = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    views = RandomShiftFlip(padding=1, fill=0.0)(image.expand(2000, 1, 4, 4))
    possible = {
        tuple(torch.nn.functional.pad(source, [1] * 4)[..., y : y + 4, x : x + 4].flatten().tolist())
        for source in (image, image.flip(-1))
        for y in range(3)
        for x in range(3)
    }
    assert set(map(tuple, views.flatten(1).tolist())) == possible
    assert torch.equal(RandomShiftFlip(padding=0, flip=0)(image), image)
    with pytest.raises(ValueError, match="flip is 2"):
        RandomShiftFlip(flip=2)
