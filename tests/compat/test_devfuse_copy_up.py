"""Copy-up under a file that is open, over the union: what readers and writers see, with passthrough and without."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_devfuse_mount import MODES, cpu_ticks, serving_union
from tests.requirements import missing

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]

OLD = b"lower" * 50_000  # large enough for passthrough


class Union:
    def __init__(self, mnt: Path, lower: Path, upper: Path, pid: int, mode: str) -> None:
        self.mnt, self.lower, self.upper, self.pid = mnt, lower, upper, pid
        self.passthrough = mode == "auto"


@pytest.fixture(params=MODES)
def union(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Union]:
    if (reason := missing("root")) is not None:
        pytest.skip(reason)
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for directory in (lower, upper, work):
        directory.mkdir()
    (lower / "file").write_bytes(OLD)
    os.link(lower / "file", lower / "alias")
    with serving_union(tmp_path, lower, upper, work, "--passthrough", request.param) as server:
        yield Union(server.mnt, lower, upper, server.process.pid, request.param)


def test_a_writer_may_open_a_file_that_a_reader_has_open(union: Union) -> None:
    path = union.mnt / "file"
    with path.open("rb", buffering=0) as reader:
        before = os.stat(path)
        with path.open("r+b", buffering=0) as writer:
            writer.write(b"UPPER")
            # Passthrough: the reader keeps the lower file, as with the kernel's overlayfs. Cached: it sees the write.
            assert os.pread(reader.fileno(), 5, 0) == (b"lower" if union.passthrough else b"UPPER")
            assert os.pread(writer.fileno(), 5, 0) == b"UPPER"
            assert path.read_bytes() == b"UPPER" + OLD[5:]
            assert os.stat(path).st_ino == before.st_ino == os.fstat(reader.fileno()).st_ino
            writer.seek(0, os.SEEK_END)
            writer.write(b"longer")
            for seen in (os.stat(path), os.fstat(writer.fileno()), os.fstat(reader.fileno())):
                assert seen.st_size == len(OLD) + 6
        assert os.pread(reader.fileno(), 5, 0) == (b"lower" if union.passthrough else b"UPPER")
    assert path.read_bytes() == b"UPPER" + OLD[5:] + b"longer"
    assert (union.lower / "file").read_bytes() == OLD
    assert (union.upper / "file").read_bytes() == path.read_bytes()


def test_attributes_are_right_through_both_nodes_and_every_name(union: Union) -> None:
    path, alias = union.mnt / "file", union.mnt / "alias"
    with alias.open("rb") as reader:
        with path.open("r+b", buffering=0) as writer:
            writer.truncate(7)
            os.chmod(path, 0o640)
            for seen in (os.stat(path), os.stat(alias), os.fstat(reader.fileno())):
                assert (seen.st_size, seen.st_mode & 0o7777, seen.st_nlink) == (7, 0o640, 2)
        with alias.open("r+b", buffering=0) as writer:
            writer.write(b"by alias")
            assert os.stat(path).st_size == os.stat(alias).st_size == 8
    assert path.read_bytes() == alias.read_bytes() == b"by alias"


def test_truncating_by_name_under_a_reader(union: Union) -> None:
    path = union.mnt / "file"
    with path.open("rb", buffering=0) as reader:
        os.truncate(path, 3)
        assert os.stat(path).st_size == 3
        assert path.read_bytes() == b"low"
        assert os.pread(reader.fileno(), 10, 0)[:3] == b"low"
    assert (union.upper / "file").read_bytes() == b"low"


def test_create_truncate_under_a_reader(union: Union) -> None:
    path = union.mnt / "file"
    with path.open("rb", buffering=0) as reader:
        path.write_bytes(b"new")
        assert path.read_bytes() == b"new"
        assert os.fstat(reader.fileno()).st_ino == os.stat(path).st_ino


def test_a_mapping_of_the_lower_file_survives(union: Union) -> None:
    path = union.mnt / "file"
    with path.open("rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        with path.open("r+b", buffering=0) as writer:
            writer.write(b"UPPER")
        assert mapping[5:10] == b"lower"
        assert len(mapping[:]) == len(OLD)


def test_readers_and_writers_come_and_go(union: Union) -> None:
    path = union.mnt / "file"
    for i in range(20):
        with path.open("rb", buffering=0) as first, path.open("r+b", buffering=0) as writer:
            writer.write(b"%05d" % i)
            with path.open("rb", buffering=0) as second:
                assert second.read(5) == b"%05d" % i
            if i:
                assert first.read(5) == b"%05d" % i
    assert path.read_bytes() == b"00019" + OLD[5:]


def test_no_time_goes_by_when_nothing_happens(union: Union) -> None:
    for _ in range(300):
        os.path.exists(union.mnt / "file")
    before = cpu_ticks(union.pid)
    threading.Event().wait(0.5)
    assert cpu_ticks(union.pid) - before <= 1


def test_a_reader_of_a_small_file_sees_what_a_writer_writes(union: Union) -> None:
    small = union.lower / "small"
    small.write_bytes(b"lower")
    path = union.mnt / "small"
    with path.open("rb", buffering=0) as reader:
        assert reader.read() == b"lower"
        with path.open("r+b", buffering=0) as writer:
            writer.write(b"UPPER")
            assert os.pread(reader.fileno(), 9, 0) == b"UPPER"
    assert small.read_bytes() == b"lower"


def test_cached_pages_of_a_small_file_do_not_outlive_a_passthrough_write(union: Union) -> None:
    (union.lower / "small").write_bytes(b"lower" * 1000)
    path = union.mnt / "small"
    expected = bytearray(path.read_bytes())  # cached
    for i in range(20):
        with path.open("r+b", buffering=0) as writer:
            os.pwrite(writer.fileno(), b"%05d" % i, i * 200)
            expected[i * 200 : i * 200 + 5] = b"%05d" % i
        with path.open("rb", buffering=0) as reader:
            with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                assert mapping[:] == bytes(expected)
            assert reader.read() == bytes(expected)
