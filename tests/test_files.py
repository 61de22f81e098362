"""Files that others made, and files that are whole or absent."""

from __future__ import annotations

import contextlib

import pytest

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
