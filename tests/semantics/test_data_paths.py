"""Every way to a file's data, for files in a lower layer, in the upper, and copied up a moment ago; small and large.

Small files are read through the page cache even where the kernel could read the backing file by itself (passthrough).
"""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import opened, python
from tests.rigs import Mounted

pytestmark = [pytest.mark.needs("union")]

PAGE = 4096
SIZES = {"small": 2 * PAGE, "large": 100 * PAGE}
PLACES = ("lower", "upper", "copied-up")


def content(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


def a_tree(d: Path) -> None:
    for name, length in SIZES.items():
        (d / name).write_bytes(content(length))
    program = Path("/bin/true").read_bytes()
    (d / "program-small").write_bytes(b"#!/bin/true\n".ljust(100, b"#"))
    (d / "program-large").write_bytes(program.ljust(max(len(program), SIZES["large"]), b"\0"))
    for size in SIZES:
        (d / f"program-{size}").chmod(0o755)


def put(path: Path, place: str) -> None:
    """Have the file where it is wanted. It was in the page cache before it was copied up."""
    data = path.read_bytes()
    if place == "upper":
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o755)
    elif place == "copied-up":
        with opened(path, os.O_RDWR) as fd:
            os.pwrite(fd, data[:1], 0)


# ways -------------------------------------------------------------------------------------------------------------
def private_mapping(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDONLY) as fd, mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        assert m[:] == data
        m[5:8] = b"own"


def shared_mapping(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 0) as m:
        assert m[:] == data
        m[PAGE : PAGE + 3] = data[PAGE : PAGE + 3] = b"map"
        assert os.pread(fd, 3, PAGE) == b"map"
        os.pwrite(fd, b"file", 10)
        data[10:14] = b"file"
        assert m[:20] == data[:20]


def shared_mapping_read_only(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDONLY) as fd, mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        assert m[:] == data


def direct_read(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, PAGE) as buffer:
        assert os.preadv(fd, [buffer], PAGE) == PAGE
        assert buffer[:] == data[PAGE : 2 * PAGE]


def direct_write(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDWR | os.O_DIRECT) as fd, mmap.mmap(-1, PAGE) as buffer:
        buffer[:] = b"d" * PAGE
        assert os.pwritev(fd, [buffer], PAGE) == PAGE
        data[PAGE : 2 * PAGE] = buffer[:]


APPEND = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for _ in range(30): os.write(fd, sys.argv[2].encode() * 100)
"""


def appending_processes(path: Path, data: bytearray) -> None:
    writers = [python(APPEND, str(path), letter) for letter in "abc"]
    for writer in writers:
        writer.communicate(timeout=20)
        assert writer.returncode == 0
    added = path.read_bytes()[len(data) :]
    blocks = sorted(added[i : i + 100] for i in range(0, len(added), 100))
    assert blocks == [letter * 100 for letter in (b"a", b"b", b"c") for _ in range(30)]
    data += added


def sendfile_out(path: Path, data: bytearray) -> None:
    with opened(path, os.O_RDONLY) as source, opened(path.with_name("target"), os.O_CREAT | os.O_RDWR) as target:
        sent = 0
        while count := os.sendfile(target, source, sent, len(data)):
            sent += count
        assert os.pread(target, len(data) + 1, 0) == data


def sendfile_in(path: Path, data: bytearray) -> None:
    with opened("/bin/sh", os.O_RDONLY) as source, opened(path, os.O_RDWR) as target:
        data[: 2 * PAGE] = os.pread(source, 2 * PAGE, 0)
        sent = 0
        while sent < 2 * PAGE:
            sent += os.sendfile(target, source, sent, 2 * PAGE - sent)


def splice_out(path: Path, data: bytearray) -> None:
    reader, writer = os.pipe()
    try:
        with opened(path, os.O_RDONLY) as source:
            got = b""
            while count := os.splice(source, writer, 10_000, offset_src=len(got)):
                while count:
                    piece = os.read(reader, count)
                    count -= len(piece)
                    got += piece
        assert got == data
    finally:
        os.close(reader)
        os.close(writer)


def splice_in(path: Path, data: bytearray) -> None:
    reader, writer = os.pipe()
    try:
        with opened(path, os.O_RDWR) as target:
            os.write(writer, b"s" * 3000)
            done = 0
            while done < 3000:
                done += os.splice(reader, target, 3000 - done, offset_dst=100 + done)
        data[100:3100] = b"s" * 3000
    finally:
        os.close(reader)
        os.close(writer)


WAYS: dict[str, Callable[[Path, bytearray], None]] = {
    "private-mapping": private_mapping,
    "shared-mapping": shared_mapping,
    "shared-mapping-read-only": shared_mapping_read_only,
    "direct-read": direct_read,
    "direct-write": direct_write,
    "append": appending_processes,
    "sendfile-out": sendfile_out,
    "sendfile-in": sendfile_in,
    "splice-out": splice_out,
    "splice-in": splice_in,
}


@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_ways_to_the_data(mnt: Path, mounted: Mounted, size: str, place: str) -> None:
    path = mnt / size
    put(path, place)
    data = bytearray(content(SIZES[size]))
    for name, way in WAYS.items():
        way(path, data)
        assert path.read_bytes() == data, f"after {name}"
    assert mounted.upper is not None
    assert (mounted.upper / mnt.name / size).read_bytes() == data
    assert (mounted.layers[-1] / mnt.name / size).read_bytes() == content(SIZES[size])


@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WAYS)
def test_first_thing_done_to_a_lower_file(mnt: Path, name: str, size: str) -> None:
    data = bytearray(content(SIZES[size]))
    WAYS[name](mnt / size, data)
    assert (mnt / size).read_bytes() == data


@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_program_runs(mnt: Path, size: str, place: str) -> None:
    path = mnt / f"program-{size}"
    put(path, place)
    for _ in range(2):
        assert subprocess.run([path], timeout=20).returncode == 0


READER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
old = os.pread(fd, size, 0)
new = sys.argv[2].encode() + old[len(sys.argv[2]):]
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapping:
    print("reading", flush=True)
    for _ in sys.stdin:
        for _ in range(3):
            assert os.pread(fd, size + 1, 0) in (old, new)
            assert mapping[:] in (old, new)
            assert os.pread(fd, 10, size) == b""
            assert os.fstat(fd).st_size == size
            assert os.lseek(fd, 0, os.SEEK_END) == size
        print("read", flush=True)
"""


def write_a_little(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, b"new", 0)


COPY_UPS: dict[str, Callable[[Path], object]] = {
    "write": write_a_little,
    "chmod": lambda path: os.chmod(path, 0o600),
    "rename": lambda path: os.rename(path, path.with_name("renamed")),
    "link": lambda path: os.link(path, path.with_name("linked")),
    "rename-over": lambda path: os.replace(path.with_name("program-small"), path),
    "unlink": os.unlink,
}


@pytest.mark.unlike("union-fusepy", "libfuse 2 asks for attributes by path, and there may be none any more")
@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("how", COPY_UPS)
@pytest.mark.parametrize("size", SIZES)
def test_reader_in_another_process_gets_no_error(mnt: Path, size: str, how: str) -> None:
    reader = python(READER, str(mnt / size), "new")
    assert reader.stdin is not None and reader.stdout is not None
    try:
        assert reader.stdout.readline() == b"reading\n"
        COPY_UPS[how](mnt / size)
        said, _ = reader.communicate(b"go\ngo\n", timeout=20)
        assert (said, reader.returncode) == (b"read\nread\n", 0)
    finally:
        if reader.poll() is None:
            reader.kill()
            reader.wait()
