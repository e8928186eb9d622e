"""Advisory locks hold across a copy-up: who locked the lower file and who opens its copy lock the same file."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from tests.posix.tools import opened, python

pytestmark = [pytest.mark.needs("union")]

#: One that a server may treat as small, one that it may not.
SIZES = {"small": 100, "large": 3 << 20}


def files(d: Path) -> None:
    for name, size in SIZES.items():
        (d / name).write_bytes(bytes(size))


#: Arguments: path, flags of open, "flock" or "posix". Says whether an exclusive lock can be had, after each line.
ASKER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], int(sys.argv[2]))
take = fcntl.flock if sys.argv[3] == "flock" else fcntl.lockf
print("open", flush=True)
for line in sys.stdin:
    try:
        take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        take(fd, fcntl.LOCK_UN)
        print("free", flush=True)
    except BlockingIOError:
        print("locked", flush=True)
"""


def lock_shared(fd: int, kind: str) -> None:
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_SH)
    else:
        fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))


@pytest.mark.populate(base=files)
@pytest.mark.parametrize("kind", ["flock", "posix"])
@pytest.mark.parametrize(
    "size",
    [
        "small",
        pytest.param(
            "large",
            marks=pytest.mark.unlike("union-devfuse", "in passthrough a copied-up file is another inode to the kernel"),
        ),
    ],
)
def test_lock_on_the_lower_file_is_seen_by_who_copies_it_up(mnt: Path, size: str, kind: str) -> None:
    with opened(mnt / size, os.O_RDONLY) as reader:
        assert os.pread(reader, 1, 0) == b"\0"
        lock_shared(reader, kind)
        writer = python(ASKER, str(mnt / size), str(os.O_RDWR), kind)
        assert writer.stdin is not None and writer.stdout is not None
        try:
            assert writer.stdout.readline() == b"open\n"
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == b"locked\n"
            fcntl.flock(reader, fcntl.LOCK_UN) if kind == "flock" else fcntl.lockf(reader, fcntl.LOCK_UN)
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == b"free\n"
        finally:
            writer.communicate(timeout=20)
