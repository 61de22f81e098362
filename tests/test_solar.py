"""Solar cells: which cell is of which module, how modules are kept apart, and what is said of files that are others."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch

from kdft_lib.datasets import SOLAR_KINDS, SOLAR_MODULES, solar, solar_cells

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import solar_modules

INSTALLED = pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None,
    reason="elpv-dataset, which carries the solar cells, is not installed",
)
DOUBTS = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])


@pytest.fixture
def drawn(monkeypatch):
    """Splits of cells without pictures, so that the package is not needed."""
    cells = torch.arange(sum(SOLAR_MODULES))
    monkeypatch.setattr(solar, "_labels", lambda _: (DOUBTS[cells % 4], cells % 2))
    monkeypatch.setattr(solar, "_kept", lambda *_: (cells % 256).to(torch.uint8).view(-1, 1, 1, 1))
    return lambda *given, **named: solar_cells(*given, root="/nowhere", **named)


def column(part, name):
    return part.rows(slice(None))[name]


def modules(part):
    return set(column(part, "module").tolist())


# Parts


@pytest.mark.parametrize("fold", range(4))
def test_no_module_is_on_two_sides(drawn, fold):
    train, transfer, val, test = drawn(500, fold=fold)
    assert not modules(test) & (modules(train) | modules(transfer) | modules(val))
    assert not modules(val) & (modules(train) | modules(transfer))
    assert len(modules(test)) == 11
    assert len(modules(val)) in (5, 6)
    cells = torch.cat([column(part, "cell") for part in (train, transfer, val, test)])
    assert cells.sort().values.tolist() == list(range(2624))


def test_each_module_is_tested_once_in_four_folds(drawn):
    tested = [module for fold in range(4) for module in modules(drawn(500, fold=fold).test)]
    assert sorted(tested) == list(range(44))


def test_rows_to_test_and_to_choose_by_are_the_same_for_every_seed(drawn):
    for split in ("module", "random"):
        first, other = (drawn(500, split=split, seed=seed) for seed in (0, 1))
        for part in ("val", "test"):
            assert torch.equal(column(getattr(first, part), "cell"), column(getattr(other, part), "cell"))
        assert set(column(first.train, "cell").tolist()) != set(column(other.train, "cell").tolist())
        assert first.train.fingerprint() == drawn(500, split=split, seed=0).train.fingerprint()


def test_a_split_at_random_has_parts_as_large_and_modules_on_both_sides(drawn):
    apart, mixed = drawn(500), drawn(500, split="random")
    assert [len(part) for part in apart] == [len(part) for part in mixed] == [500, 1122, 348, 654]
    assert modules(mixed.test) == modules(mixed.transfer) == set(range(44))
    cells = torch.cat([column(part, "cell") for part in mixed])
    assert cells.sort().values.tolist() == list(range(2624))


def test_a_half_and_more_is_defective_and_without_a_label_nothing_is_said(drawn):
    splits = drawn(500)
    for part in (splits.train, splits.val, splits.test):
        assert torch.equal(part.targets, (column(part, "cell") % 4 >= 2).long())
        assert torch.equal(column(part, "probability"), DOUBTS[column(part, "cell") % 4])
    assert splits.transfer.targets is None
    assert column(splits.transfer, "probability").isnan().all()
    assert torch.equal(column(splits.transfer, "kind"), column(splits.transfer, "cell") % 2)
    assert splits.train.with_rows(splits.transfer).targets.eq(-100).sum() == len(splits.transfer)
    some, within = drawn(500, validation=100), drawn(500, validation="within")
    assert set(column(some.val, "cell").tolist()) < set(column(splits.val, "cell").tolist())
    assert (len(within.train), len(within.val)) == (400, 100)
    assert modules(within.val) <= modules(within.train) | modules(within.transfer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 301}, "size is 301; it must be from 8 to 300 pixels"),
        ({"fold": 4}, "fold is 4; it must be from 0 to 3"),
        ({"split": "row"}, 'split is \'row\'; it must be "module", or "random" to see what that does'),
        ({"labeled": 1700}, "labeled is 1700; with validation=348 it must be from 1 to 1,622, or None for all"),
        ({"validation": 10}, 'validation is 10; it must be from 20 to 348, or "within"'),
    ],
)
def test_what_is_out_of_range_is_named(drawn, arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn(**arguments)


# Files


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A folder with two pictures, in the place of all, and a cache of its own."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    digest = hashlib.sha256()
    for cell, grey in enumerate((10, 200), start=1):
        path = folder / "images" / f"cell{cell:04d}.png"
        pil.new("L", (300, 300), grey).save(path)
        digest.update(f"{path.stat().st_size}\n".encode() + path.read_bytes())
    table = b"images/cell0001.png  1.0                 mono\nimages/cell0002.png  0.3333333333333333  poly\n"
    (folder / "labels.csv").write_bytes(table)
    monkeypatch.setattr(solar, "SOLAR_MODULES", (1, 1))
    monkeypatch.setattr(solar, "_PICTURES_SHA256", digest.hexdigest())
    monkeypatch.setattr(solar, "_LABELS_SHA256", hashlib.sha256(table).hexdigest())
    for kept in (solar._labels, solar._kept):
        kept.cache_clear()
    yield folder
    for kept in (solar._labels, solar._kept):
        kept.cache_clear()


def test_pictures_are_read_once_and_kept(two, tmp_path, monkeypatch):
    first = solar._kept(two, tmp_path / "cache", 8)
    assert (first.shape, first.dtype) == ((2, 1, 8, 8), torch.uint8)
    assert first.flatten(1).unique(dim=1).tolist() == [[10], [200]]
    monkeypatch.setattr(solar, "_read", lambda *_: pytest.fail("they are kept already"))
    solar._kept.cache_clear()
    assert torch.equal(solar._kept(two, tmp_path / "cache", 8), first)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1] + bytes([whole[-1] ^ 1]), "does not hold the pictures that were written"),
        (whole[:-1], "cannot be read"),
    ]:
        path.write_bytes(content)
        solar._kept.cache_clear()
        with pytest.raises(ValueError, match=rf"\.safetensors {message}.*; delete the file and call again"):
            solar._kept(two, tmp_path / "cache", 8)


def test_the_table_is_read_and_checked(two):
    probability, kinds = solar._labels(two)
    assert probability.tolist() == pytest.approx([1.0, 1 / 3])
    assert [SOLAR_KINDS[kind] for kind in kinds] == ["mono", "poly"]
    (two / "labels.csv").write_bytes(b"another table")
    solar._labels.cache_clear()
    with pytest.raises(ValueError, match=r"labels\.csv is another table than expected; pip install --force-reinstall"):
        solar._labels(two)
    (two / "labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.csv does not exist; pip install --no-deps elpv-dataset==1"):
        solar._labels(two)


def test_other_pictures_are_noticed(two):
    path = two / "images" / "cell0002.png"
    whole = path.read_bytes()
    shutil.copy(two / "images" / "cell0001.png", path)
    with pytest.raises(ValueError, match=r"holds other pictures than expected: their SHA-256 is .* brings it anew"):
        solar._read(two, 8)
    for damaged in (whole[:60], b"", b"no picture"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cell0002\.png of .* cannot be read .* brings it anew"):
            solar._read(two, 8)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"cell0002\.png does not exist; pip install --no-deps elpv-dataset"):
        solar._read(two, 8)


def test_what_reads_pictures_is_named(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"^Pillow, .* is not installed; pip install 'kdft-lib\[solar\]' brings it"):
        solar._read(two, 8)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^elpv-dataset, .* is not installed; pip install 'kdft-lib\[solar\]'"):
        solar_cells()


# All of them, where they are installed


@INSTALLED
def test_a_third_is_defective_in_every_part():
    for fold in range(4):
        splits = solar_cells(None, size=60, fold=fold)
        for part, tolerance in ((splits.train, 0.01), (splits.val, 0.03), (splits.test, 0.02)):
            assert part.targets.double().mean() == pytest.approx(0.313, abs=tolerance)
    said = torch.cat([column(part, "probability") for part in splits])
    assert [int(said.isclose(doubt).sum()) for doubt in DOUBTS] == [1508, 295, 106, 715]
    assert said.numel() == 2624


@INSTALLED
def test_modules_end_where_the_kind_changes_and_where_pictures_do():
    images, kinds = solar_modules.pictures()
    borders = set(solar_modules.BORDERS)
    assert len(borders) == 43
    assert set((kinds.diff() != 0).nonzero().flatten().add(1).tolist()) < borders
    found = solar_modules.found(images)
    near = {border for border, place in found.items() if abs(place - border) <= solar_modules.NEAR}
    assert len(near) >= 30
    assert {1200, 1254, 1314} < near, "the module of 54"
    shares = solar_modules.neighbours(images)
    assert shares["as inferred"] > 0.67 > 0.66 > shares["runs of 60 from the first"] > shares["30 cells earlier"]
    edges = solar_modules.edges(images)
    first = {row for row, gap in edges.items() if gap < -20}
    last = {row for row, gap in edges.items() if gap > 40}
    assert first == borders & set(edges), "1784 among them, where the module of 50 ends"
    assert {row + 10 for row in last} == {1734, 1844, 1904, 1964}, "and its last row is missing"
