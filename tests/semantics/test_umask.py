"""The umask of the calling process holds for everything that is created, in lower, merged and new directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import mode, names, opened, umask

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]


def a_directory(d: Path) -> None:
    (d / "old").mkdir()
    (d / "old" / "gone").write_bytes(b"gone")


def merged(d: Path) -> None:
    (d / "old").mkdir()


@pytest.mark.populate(base=a_directory, above=merged)
@pytest.mark.parametrize("place", ["old", "new"])
@pytest.mark.parametrize("mask", [0, 0o027, 0o777])
def test_umask_of_the_caller(mnt: Path, place: str, mask: int) -> None:
    (mnt / "new").mkdir()
    d = mnt / place
    with umask(mask):
        os.mkfifo(d / "fifo", 0o666)
        os.mknod(d / "socket", stat.S_IFSOCK | 0o777)
        os.mknod(d / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(d / "regular", stat.S_IFREG | 0o666)
        os.mkdir(d / "dir", 0o777)
        with opened(d / "opened", os.O_CREAT | os.O_WRONLY, 0o777):
            pass
    for name, asked in (
        ("fifo", 0o666), ("socket", 0o777), ("device", 0o666), ("regular", 0o666), ("dir", 0o777), ("opened", 0o777),
    ):  # fmt: skip
        assert mode(d / name) == asked & ~mask, name


@pytest.mark.populate(base=a_directory, above=merged)
def test_umask_over_a_deleted_name(mnt: Path) -> None:
    os.unlink(mnt / "old" / "gone")
    with umask(0o077):
        os.mkfifo(mnt / "old" / "gone", 0o666)
    assert mode(mnt / "old" / "gone") == 0o600
    assert names(mnt / "old") == {"gone"}


@pytest.mark.populate(base=a_directory, above=merged)
def test_umask_does_not_touch_copy_ups(mnt: Path) -> None:
    os.chmod(mnt / "old", 0o777)
    with umask(0o077):
        with open(mnt / "old" / "gone", "ab") as f:
            f.write(b"!")
        os.rename(mnt / "old", mnt / "moved")
    assert (mode(mnt / "moved"), mode(mnt / "moved" / "gone")) == (0o777, 0o644)
