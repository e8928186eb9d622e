"""flock(2) and fcntl(2) locks between processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.posix.tools import opened, python

pytestmark = pytest.mark.populate(base=lambda d: (d / "file").write_bytes(b"0123456789"))

HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "flock":
    fcntl.flock(fd, int(sys.argv[3]))
else:
    fcntl.lockf(fd, int(sys.argv[3]), 5, 0)
sys.stdout.write("held"); sys.stdout.flush(); sys.stdin.read(1)
"""


def hold(path: Path, how: str, kind: int) -> subprocess.Popen[bytes]:
    """A process that holds the lock until its stdin ends."""
    process = python(HOLDER, str(path), how, str(kind))
    assert process.stdout is not None
    assert process.stdout.read(4) == b"held"
    return process


def free(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_flock_excludes_and_shares(mnt: Path, kind: int) -> None:
    holder = hold(mnt / "file", "flock", kind)
    with opened(mnt / "file", os.O_RDWR) as fd:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if kind == fcntl.LOCK_SH:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        free(holder)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_record_locks_exclude_by_range(mnt: Path) -> None:
    holder = hold(mnt / "file", "lockf", fcntl.LOCK_EX)
    with opened(mnt / "file", os.O_RDWR) as fd:
        with pytest.raises(BlockingIOError):
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 4)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)
        free(holder)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 0)


def test_lock_waits_until_the_holder_lets_go(mnt: Path) -> None:
    holder = hold(mnt / "file", "lockf", fcntl.LOCK_EX)
    waiter = python(HOLDER, str(mnt / "file"), "lockf", str(fcntl.LOCK_EX))
    assert waiter.stdout is not None
    free(holder)
    assert waiter.stdout.read(4) == b"held"
    free(waiter)


def test_close_of_any_descriptor_frees_record_locks(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.close(os.open(mnt / "file", os.O_RDONLY))
        free(hold(mnt / "file", "lockf", fcntl.LOCK_EX | fcntl.LOCK_NB))
