"""The umask holds for everything that is created."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import mode, opened, umask

MASKS = [0o000, 0o002, 0o027, 0o077, 0o777]


@pytest.mark.parametrize("mask", MASKS)
def test_open(mnt: Path, mask: int) -> None:
    with umask(mask), opened(mnt / "f", os.O_CREAT | os.O_WRONLY, 0o666):
        pass
    assert mode(mnt / "f") == 0o666 & ~mask


@pytest.mark.parametrize("mask", MASKS)
def test_mkdir(mnt: Path, mask: int) -> None:
    with umask(mask):
        os.mkdir(mnt / "d", 0o1777)
    assert mode(mnt / "d") == 0o1777 & ~mask


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG])
def test_mknod(mnt: Path, mask: int, kind: int) -> None:
    with umask(mask):
        os.mknod(mnt / "n", kind | 0o666)
    assert mode(mnt / "n") == 0o666 & ~mask


@pytest.mark.needs("tmpfile")
@pytest.mark.parametrize("mask", MASKS)
def test_tmpfile(mnt: Path, mask: int) -> None:
    with umask(mask), opened(mnt, os.O_TMPFILE | os.O_RDWR, 0o666) as fd:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o666 & ~mask


def test_symlinks_and_chmod_do_not_ask_the_umask(mnt: Path) -> None:
    with umask(0o777):
        os.symlink("x", mnt / "l")
        os.mkdir(mnt / "d")
        os.chmod(mnt / "d", 0o755)
    assert mode(mnt / "l") == 0o777
    assert mode(mnt / "d") == 0o755
