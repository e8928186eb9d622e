"""A client that opens all it can gets EMFILE, and the mount goes on."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from tests.posix.tools import names


def lower_files(d: Path) -> None:
    for i in range(8):
        (d / f"f{i}").write_bytes(b"data%d" % i)


def open_until_refused(place: Path) -> tuple[int, int]:
    """(how many files could be opened, the errno of the first that could not); all are closed again."""
    held: list[int] = []
    try:
        while True:
            flags = os.O_RDWR if len(held) % 2 else os.O_RDONLY
            held.append(os.open(place / f"f{len(held) % 8}", flags))
    except OSError as e:
        return len(held), e.errno or 0
    finally:
        for fd in held:
            os.close(fd)


@pytest.mark.populate(base=lower_files)
def test_client_at_its_limit_leaves_the_mount_alive(mnt: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1500, hard), hard))
    try:
        count, number = open_until_refused(mnt)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert number in (errno.EMFILE, errno.ENFILE)
    assert count > min(1500, hard) // 2
    (mnt / "after").write_bytes(b"alive")
    assert (mnt / "after").read_bytes() == b"alive"
    assert names(mnt) == {f"f{i}" for i in range(8)} | {"after"}


@pytest.mark.slow
@pytest.mark.populate(base=lower_files)
def test_client_at_the_hard_limit_leaves_the_mount_alive(own_mnt: Path) -> None:
    # The server has the same hard limit as its client, and some descriptors of its own: it refuses first.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, 100_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        count, number = open_until_refused(own_mnt)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert number in (errno.EMFILE, errno.ENFILE)
    assert count > hard // 2
    for i in range(8):
        (own_mnt / f"new{i}").write_bytes(b"alive")
        assert (own_mnt / f"f{i}").read_bytes() == b"data%d" % i
    assert len(os.listdir(own_mnt)) == 16
