"""Data: read, write, holes, mmap, sendfile, copy_file_range, fallocate, direct I/O."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from tests.posix.tools import expect, fallocate, next_tick, opened

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 0x01, 0x02, 0x08, 0x10
MIB = 1 << 20
PAGE = mmap.PAGESIZE
PATTERN = bytes(range(256)) * 16  # 4 KiB


def lower_data(d: Path) -> None:
    (d / "small").write_bytes(b"0123456789")
    (d / "big").write_bytes(PATTERN * 768)  # 3 MiB: several requests whatever the transport
    with open(d / "sparse", "wb") as f:
        f.truncate(4 * MIB)
        f.seek(MIB)
        f.write(PATTERN)


@pytest.mark.populate(base=lower_data)
def test_reads_at_every_kind_of_offset(mnt: Path) -> None:
    whole = PATTERN * 768
    with opened(mnt / "big", os.O_RDONLY) as fd:
        for offset, size in ((0, 1), (1, 4095), (4095, 2), (131071, 131073), (MIB - 1, MIB + 2), (3 * MIB - 3, 100)):
            assert os.pread(fd, size, offset) == whole[offset : offset + size]
        assert os.pread(fd, 10, 3 * MIB) == b""
        assert os.pread(fd, 10, 1 << 40) == b""


@pytest.mark.populate(base=lower_data)
def test_whole_file_in_pieces(mnt: Path) -> None:
    with open(mnt / "big", "rb", buffering=0) as f:
        pieces = b"".join(iter(lambda: f.read(70_001), b""))
    assert pieces == PATTERN * 768


def test_writes_at_every_kind_of_offset(mnt: Path) -> None:
    model = bytearray()
    with opened(mnt / "f", os.O_CREAT | os.O_RDWR) as fd:
        for offset, size in ((0, 1), (10, 5), (4090, 12), (131070, 5), (MIB, 300_001), (3, 131072), (2 * MIB, 1)):
            data = (PATTERN * 80)[:size]
            assert os.pwrite(fd, data, offset) == size
            model.extend(bytes(max(0, offset + size - len(model))))
            model[offset : offset + size] = data
            assert os.fstat(fd).st_size == len(model)
    assert (mnt / "f").read_bytes() == model


@pytest.mark.populate(base=lower_data)
def test_one_changed_byte_in_an_old_file(mnt: Path) -> None:
    with opened(mnt / "big", os.O_RDWR) as fd:
        os.pwrite(fd, b"!", MIB)
        assert os.pread(fd, 3, MIB - 1) == b"\xff!\x01"
    data = (mnt / "big").read_bytes()
    assert data == (PATTERN * 768)[:MIB] + b"!" + (PATTERN * 768)[MIB + 1 :]


@pytest.mark.populate(base=lower_data)
def test_writes_are_seen_by_a_reader_opened_before(mnt: Path) -> None:
    with opened(mnt / "small", os.O_RDWR) as writer, opened(mnt / "small", os.O_RDONLY) as reader:
        os.write(writer, b"ABC")
        assert os.pread(reader, 20, 0) == b"ABC3456789"
        os.ftruncate(writer, 4)
        assert os.pread(reader, 20, 0) == b"ABC3"
        os.pwrite(writer, b"Z", 6)
        assert os.pread(reader, 20, 0) == b"ABC3\0\0Z"


def test_vectored_io(mnt: Path) -> None:
    with opened(mnt / "f", os.O_CREAT | os.O_RDWR) as fd:
        assert os.writev(fd, [b"one", b"", b"two"]) == 6
        buffers = [bytearray(2), bytearray(10)]
        assert os.preadv(fd, buffers, 1) == 5
        assert bytes(buffers[0]) == b"ne"
        assert bytes(buffers[1][:3]) == b"two"


def test_writes_move_mtime(mnt: Path) -> None:
    with opened(mnt / "f", os.O_CREAT | os.O_RDWR) as fd:
        before = os.fstat(fd)
        next_tick(before.st_mtime_ns)
        os.write(fd, b"x")
        os.fsync(fd)
        after = os.fstat(fd)
    assert after.st_mtime_ns > before.st_mtime_ns
    assert os.stat(mnt / "f").st_mtime_ns == after.st_mtime_ns


@pytest.mark.populate(base=lower_data)
def test_fsync_and_fdatasync(mnt: Path) -> None:
    with opened(mnt / "small", os.O_RDWR) as fd:
        os.write(fd, b"x")
        os.fsync(fd)
        os.fdatasync(fd)
    with opened(mnt, os.O_RDONLY) as fd:
        os.fsync(fd)
    assert (mnt / "small").read_bytes() == b"x123456789"


# Holes ---------------------------------------------------------------------------------------------------------------
@pytest.mark.populate(base=lower_data)
def test_sparse_file_takes_few_blocks(mnt: Path) -> None:
    st = os.stat(mnt / "sparse")
    assert st.st_size == 4 * MIB
    assert st.st_blocks * 512 < MIB
    with open(mnt / "sparse", "r+b") as f:  # on a union: copied up now
        f.seek(2 * MIB)
        f.write(b"x")
    st = os.stat(mnt / "sparse")
    assert st.st_size == 4 * MIB
    assert st.st_blocks * 512 < MIB
    data = (mnt / "sparse").read_bytes()
    assert data == bytes(MIB) + PATTERN + bytes(MIB - 4096) + b"x" + bytes(2 * MIB - 1)


@pytest.mark.needs("seek_hole")
@pytest.mark.populate(base=lower_data)
def test_seek_hole_and_data(mnt: Path) -> None:
    with opened(mnt / "sparse", os.O_RDONLY) as fd:
        check_holes(fd)


@pytest.mark.needs("seek_hole")
@pytest.mark.populate(base=lower_data)
def test_seek_hole_and_data_after_copy_up(mnt: Path) -> None:
    with opened(mnt / "sparse", os.O_RDWR) as fd:
        os.pwrite(fd, PATTERN[:1], MIB)
        check_holes(fd)


def check_holes(fd: int) -> None:
    """4 MiB of hole but for one page of data at 1 MiB."""
    assert os.lseek(fd, 0, os.SEEK_DATA) == MIB
    assert os.lseek(fd, MIB, os.SEEK_HOLE) == MIB + 4096
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    with expect(errno.ENXIO):
        os.lseek(fd, 2 * MIB, os.SEEK_DATA)
    with expect(errno.ENXIO):
        os.lseek(fd, 4 * MIB, os.SEEK_HOLE)
    assert os.lseek(fd, -10, os.SEEK_END) == 4 * MIB - 10


def test_seek_set_cur_end(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"0123456789")
    with opened(mnt / "f", os.O_RDONLY) as fd:
        assert os.lseek(fd, 4, os.SEEK_SET) == 4
        assert os.lseek(fd, 2, os.SEEK_CUR) == 6
        assert os.read(fd, 1) == b"6"
        assert os.lseek(fd, -1, os.SEEK_END) == 9
        with expect(errno.EINVAL):
            os.lseek(fd, -1, os.SEEK_SET)


# fallocate -----------------------------------------------------------------------------------------------------------
@pytest.mark.populate(base=lower_data)
def test_fallocate_extends_or_keeps_the_size(mnt: Path) -> None:
    with opened(mnt / "small", os.O_RDWR) as fd:
        fallocate(fd, KEEP_SIZE, 0, MIB)
        assert os.fstat(fd).st_size == 10
        assert os.fstat(fd).st_blocks * 512 >= MIB
        os.posix_fallocate(fd, 0, 20_000)
        assert os.fstat(fd).st_size == 20_000
    assert (mnt / "small").read_bytes() == b"0123456789" + bytes(19_990)


@pytest.mark.populate(base=lower_data)
def test_punched_hole_reads_zero_and_frees_blocks(mnt: Path) -> None:
    with opened(mnt / "big", os.O_RDWR) as fd:
        before = os.fstat(fd)
        assert os.pread(fd, 4, MIB) == PATTERN[:4]
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB, MIB)
        after = os.fstat(fd)
        assert os.pread(fd, 4, MIB) == bytes(4)
    assert after.st_size == before.st_size
    assert after.st_blocks * 512 <= before.st_blocks * 512 - MIB
    assert (mnt / "big").read_bytes() == PATTERN * 256 + bytes(MIB) + PATTERN * 256


@pytest.mark.populate(base=lower_data)
def test_fallocate_errors(mnt: Path) -> None:
    with opened(mnt / "small", os.O_RDWR) as fd:
        with expect(errno.EINVAL):
            fallocate(fd, 0, 0, 0)
        with expect(errno.EINVAL):
            fallocate(fd, 0, -1, 10)
        with expect(errno.EOPNOTSUPP):
            fallocate(fd, PUNCH_HOLE, 0, 10)
    with opened(mnt / "small", os.O_RDONLY) as fd, expect(errno.EBADF):
        fallocate(fd, 0, 0, 10)


# copy_file_range, sendfile -------------------------------------------------------------------------------------------
@pytest.mark.populate(base=lower_data)
def test_copy_file_range_between_files(mnt: Path) -> None:
    with opened(mnt / "big", os.O_RDONLY) as source, opened(mnt / "copy", os.O_CREAT | os.O_RDWR) as target:
        done = 0
        while done < 2 * MIB:
            count = os.copy_file_range(source, target, 2 * MIB - done, 100 + done, done)
            assert count > 0
            done += count
        assert os.copy_file_range(source, target, 10, 3 * MIB, 0) == 0
        assert os.fstat(target).st_size == 2 * MIB
        assert os.pread(target, 4096, 0) == (PATTERN * 2)[100 : 100 + 4096]
    assert (mnt / "copy").read_bytes() == (PATTERN * 768)[100 : 100 + 2 * MIB]


@pytest.mark.populate(base=lower_data)
def test_copy_file_range_within_a_file(mnt: Path) -> None:
    with opened(mnt / "big", os.O_RDWR) as fd:
        assert os.pread(fd, 1, 2 * MIB) == PATTERN[:1]
        assert os.copy_file_range(fd, fd, 100, 1, 2 * MIB) == 100
        assert os.pread(fd, 101, 2 * MIB) == PATTERN[1:101] + PATTERN[100:101]
        with expect(errno.EINVAL):
            os.copy_file_range(fd, fd, 100, 0, 50)


@pytest.mark.populate(base=lower_data)
def test_sendfile_out_of_and_into_the_mount(mnt: Path) -> None:
    with opened(mnt / "big", os.O_RDONLY) as source, opened(mnt / "copy", os.O_CREAT | os.O_WRONLY) as target:
        sent = 0
        while count := os.sendfile(target, source, sent, 3 * MIB):
            sent += count
    assert sent == 3 * MIB
    assert (mnt / "copy").read_bytes() == PATTERN * 768


@pytest.mark.populate(base=lower_data)
def test_splice_through_a_pipe(mnt: Path) -> None:
    reader, writer = os.pipe()
    with opened(mnt / "big", os.O_RDONLY) as source, opened(mnt / "copy", os.O_CREAT | os.O_WRONLY) as target:
        for _ in range(20):
            count = os.splice(source, writer, 40_000)
            while count:
                count -= os.splice(reader, target, count)
    os.close(reader)
    os.close(writer)
    assert (mnt / "copy").read_bytes() == (PATTERN * 768)[: os.stat(mnt / "copy").st_size]
    assert os.stat(mnt / "copy").st_size >= 20 * PAGE


# mmap ----------------------------------------------------------------------------------------------------------------
@pytest.mark.populate(base=lower_data)
def test_private_map_reads_and_does_not_write_back(mnt: Path) -> None:
    with open(mnt / "big", "rb") as f, mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | 2) as m:
        assert m[MIB : MIB + 4096] == PATTERN
        m[0:3] = b"XYZ"
        assert m[0:4] == b"XYZ\x03"
    assert (mnt / "big").read_bytes()[:4] == PATTERN[:4]


@pytest.mark.populate(base=lower_data)
@pytest.mark.parametrize("name", ["big", "new"])
def test_shared_map_writes_are_read(mnt: Path, name: str) -> None:
    if name == "new":
        (mnt / name).write_bytes(PATTERN * 768)
    with open(mnt / name, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[MIB : MIB + 3] = b"abc"
        m.flush()
        assert os.pread(f.fileno(), 5, MIB - 1) == b"\xffabc\x03"
    assert (mnt / name).read_bytes()[MIB : MIB + 4] == b"abc\x03"


@pytest.mark.populate(base=lower_data)
def test_map_sees_write_and_write_sees_map(mnt: Path) -> None:
    with open(mnt / "big", "r+b", buffering=0) as f, mmap.mmap(f.fileno(), 0) as m:
        assert m[0:4] == PATTERN[:4]
        os.pwrite(f.fileno(), b"file", 0)
        assert m[0:4] == b"file"
        m[10:13] = b"map"
        assert os.pread(f.fileno(), 3, 10) == b"map"


def test_map_past_the_end_of_a_short_page_is_zero(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"abc")
    with open(mnt / "f", "r+b") as f, mmap.mmap(f.fileno(), 3) as m:
        assert m[:] == b"abc"
        os.ftruncate(f.fileno(), 2)
        os.ftruncate(f.fileno(), 5)
    assert (mnt / "f").read_bytes() == b"ab\0\0\0"


@pytest.mark.populate(base=lambda d: (d / "prog").write_bytes(Path("/bin/true").read_bytes()))
def test_programs_run_from_the_mount(mnt: Path) -> None:
    os.chmod(mnt / "prog", 0o755)
    assert os.spawnv(os.P_WAIT, mnt / "prog", ["prog"]) == 0
    (mnt / "script").write_text("#!/bin/sh\nexit 7\n")
    os.chmod(mnt / "script", 0o755)
    assert os.spawnv(os.P_WAIT, mnt / "script", ["script"]) == 7


# Direct I/O ----------------------------------------------------------------------------------------------------------
def aligned(data: bytes) -> mmap.mmap:
    """A page-aligned buffer with this content."""
    buffer = mmap.mmap(-1, len(data))
    buffer[:] = data
    return buffer


@pytest.mark.populate(base=lower_data)
def test_direct_reads_and_writes_agree_with_buffered_ones(mnt: Path) -> None:
    path = mnt / "big"
    with opened(path, os.O_RDWR) as buffered, opened(path, os.O_RDWR | os.O_DIRECT) as direct:
        got = aligned(bytes(PAGE))
        assert os.preadv(direct, [got], MIB) == PAGE
        assert got[:] == PATTERN
        os.pwrite(buffered, b"B" * PAGE, MIB)
        assert os.preadv(direct, [got], MIB) == PAGE
        assert got[:] == b"B" * PAGE
        assert os.pread(buffered, PAGE, 2 * MIB) == PATTERN  # now cached
        assert os.pwritev(direct, [aligned(b"D" * PAGE)], 2 * MIB) == PAGE
        assert os.pread(buffered, PAGE, 2 * MIB) == b"D" * PAGE
    with open(path, "rb") as f:
        f.seek(2 * MIB)
        assert f.read(PAGE) == b"D" * PAGE


def test_direct_write_extends_a_new_file(mnt: Path) -> None:
    with opened(mnt / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT) as fd:
        assert os.write(fd, aligned(b"x" * 2 * PAGE)) == 2 * PAGE
        assert os.fstat(fd).st_size == 2 * PAGE
    assert (mnt / "f").read_bytes() == b"x" * 2 * PAGE
