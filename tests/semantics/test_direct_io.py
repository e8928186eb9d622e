"""Buffered and direct I/O mixed, over copy-up: what one wrote the other reads."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests.posix.tools import opened

pytestmark = [pytest.mark.needs("union")]

BLOCK = 4096
OLD = b"o" * BLOCK * 8


def a_file(d: Path) -> None:
    (d / "f").write_bytes(OLD)


def block(byte: bytes) -> mmap.mmap:
    """A page-aligned buffer, as O_DIRECT wants it."""
    buffer = mmap.mmap(-1, BLOCK)
    buffer.write(byte * BLOCK)
    return buffer


def direct_read(fd: int, offset: int) -> bytes:
    with mmap.mmap(-1, BLOCK) as buffer:
        assert os.preadv(fd, [buffer], offset) == BLOCK
        return bytes(buffer[:])


@pytest.mark.populate(base=a_file)
def test_direct_write_to_a_lower_file_is_seen_by_buffered_readers(mnt: Path) -> None:
    assert (mnt / "f").read_bytes() == OLD  # into the page cache
    with opened(mnt / "f", os.O_RDWR | os.O_DIRECT) as direct, block(b"d") as data:
        assert os.pwritev(direct, [data], BLOCK) == BLOCK
        with opened(mnt / "f", os.O_RDONLY) as buffered:
            assert os.pread(buffered, 3 * BLOCK, 0) == OLD[:BLOCK] + b"d" * BLOCK + OLD[:BLOCK]
    assert (mnt / "f").read_bytes() == OLD[:BLOCK] + b"d" * BLOCK + OLD[2 * BLOCK :]


@pytest.mark.populate(base=a_file)
def test_writes_of_both_kinds_in_turn(mnt: Path) -> None:
    wanted = bytearray(OLD)
    with (
        opened(mnt / "f", os.O_RDWR) as buffered,
        opened(mnt / "f", os.O_RDWR | os.O_DIRECT) as direct,
        mmap.mmap(buffered, len(OLD), mmap.MAP_SHARED) as shared,
    ):
        for i in range(24):
            at = i * 3 % 8 * BLOCK
            byte = b"%c" % (65 + i)
            if i % 3 == 0:
                with block(byte) as data:
                    assert os.pwritev(direct, [data], at) == BLOCK
            elif i % 3 == 1:
                assert os.pwrite(buffered, byte * BLOCK, at) == BLOCK
            else:
                shared[at : at + BLOCK] = byte * BLOCK
            wanted[at : at + BLOCK] = byte * BLOCK
            assert direct_read(direct, at) == byte * BLOCK
            assert os.pread(buffered, BLOCK, at) == byte * BLOCK
            assert shared[at : at + BLOCK] == byte * BLOCK
    assert (mnt / "f").read_bytes() == wanted


@pytest.mark.populate(base=a_file)
def test_direct_reader_of_the_lower_file_after_a_buffered_copy_up(mnt: Path) -> None:
    with opened(mnt / "f", os.O_RDONLY | os.O_DIRECT) as direct:
        assert direct_read(direct, 0) == OLD[:BLOCK]
        with open(mnt / "f", "r+b") as f:
            f.write(b"n" * BLOCK)
        assert direct_read(direct, 0) in (OLD[:BLOCK], b"n" * BLOCK)
    with opened(mnt / "f", os.O_RDONLY | os.O_DIRECT) as direct:
        assert direct_read(direct, 0) == b"n" * BLOCK
        os.truncate(mnt / "f", BLOCK)
        with mmap.mmap(-1, BLOCK) as buffer:
            assert os.preadv(direct, [buffer], BLOCK) == 0
