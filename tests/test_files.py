"""Files that others made, and files that are whole or absent."""

from __future__ import annotations

import contextlib

import pytest
from safetensors import SafetensorError

from kdft_lib import files


def test_no_more_is_read_than_is_allowed():
    class Endless:
        def open(self, mode):
            return contextlib.nullcontext(self)

        def read(self, size):
            assert 0 <= size <= 101
            return b"x" * size

    with pytest.raises(ValueError, match="is larger than the 100 bytes"):
        files.read_whole(Endless(), 100)


def test_what_is_written_is_whole_and_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "new" / "kept.bin"
    calls = []
    for name in ("fsync", "replace"):
        called = getattr(files.os, name)
        monkeypatch.setattr(files.os, name, lambda *given, n=name, c=called: (calls.append(n), c(*given))[1])
    for content in (b"first", b"second"):
        with files.written_whole(path) as temporary:
            assert temporary.is_relative_to(path.parent)
            temporary.write_bytes(content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert calls == ["fsync", "replace"] * 2


@pytest.mark.parametrize("error", [OSError, RuntimeError, SafetensorError])
def test_nothing_half_written_is_left(tmp_path, error):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"before")

    def interrupted(*named):
        with files.written_whole(path, *named) as temporary:
            temporary.write_bytes(b"half")
            raise error("the disk is full")

    with pytest.raises(OSError, match=rf"^path is {path}, and nothing can be written there \(the disk is full\)$"):
        interrupted()
    with pytest.raises(OSError, match=r"^folder is here, and nothing can be written there"):
        interrupted("folder is here")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_is_passed_on(tmp_path):
    def interrupted():
        with files.written_whole(tmp_path / "kept.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "kept.bin"
    with pytest.raises(OSError, match=rf"^path is {path}, and nothing"), files.written_whole(path):
        pass
