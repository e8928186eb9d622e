"""When the times of parents and files move by themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import next_tick, opened


def lower_tree(d: Path) -> None:
    (d / "p").mkdir()
    (d / "p" / "file").write_bytes(b"x")
    (d / "p" / "dir").mkdir()
    (d / "q").mkdir()


def lower_old_parent(d: Path) -> None:
    (d / "p").mkdir()
    (d / "p" / "f").write_bytes(b"x")
    os.utime(d / "p", ns=(5, 6))


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda p: (p / "new").write_bytes(b"x"),
    "mkdir": lambda p: os.mkdir(p / "new"),
    "symlink": lambda p: os.symlink("x", p / "new"),
    "mkfifo": lambda p: os.mkfifo(p / "new"),
    "link": lambda p: os.link(p / "file", p / "new"),
    "unlink": lambda p: os.unlink(p / "file"),
    "rmdir": lambda p: os.rmdir(p / "dir"),
    "rename": lambda p: os.rename(p / "file", p / "renamed"),
    "rename out": lambda p: os.rename(p / "file", p.parent / "q" / "file"),
}


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("change", CHANGES)
def test_change_of_entries_moves_the_parent_s_times(mnt: Path, change: str) -> None:
    parent = mnt / "p"
    (parent / "first").write_bytes(b"")  # so that the parent is in the upper, if there is one
    before = os.stat(parent)
    next_tick(before.st_mtime_ns)
    CHANGES[change](parent)
    after = os.stat(parent)
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


@pytest.mark.populate(base=lower_tree)
def test_rename_into_a_directory_moves_its_times(mnt: Path) -> None:
    before = os.stat(mnt / "q")
    next_tick(before.st_mtime_ns)
    os.rename(mnt / "p" / "file", mnt / "q" / "file")
    assert os.stat(mnt / "q").st_mtime_ns > before.st_mtime_ns


@pytest.mark.populate(base=lower_tree)
def test_write_to_an_old_file_does_not_move_its_parent_s_mtime(mnt: Path) -> None:
    os.utime(mnt / "p", ns=(5, 6))
    with opened(mnt / "p" / "file", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    os.chmod(mnt / "p" / "file", 0o600)
    assert os.stat(mnt / "p").st_mtime_ns == 6


@pytest.mark.populate(base=lower_old_parent)
def test_old_parent_keeps_its_mtime_when_a_file_in_it_changes(mnt: Path) -> None:
    # On a union the parent is copied up for this, and the file into it.
    with opened(mnt / "p" / "f", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    os.chmod(mnt / "p" / "f", 0o600)
    assert os.stat(mnt / "p").st_mtime_ns == 6


@pytest.mark.populate(base=lower_tree)
def test_chmod_of_a_directory_moves_ctime_alone(mnt: Path) -> None:
    (mnt / "p" / "first").write_bytes(b"")
    before = os.stat(mnt / "p")
    next_tick(before.st_ctime_ns)
    os.chmod(mnt / "p", 0o700)
    after = os.stat(mnt / "p")
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_mtime_ns == before.st_mtime_ns


def test_unlink_and_link_move_the_file_s_ctime(mnt: Path) -> None:
    (mnt / "a").write_bytes(b"x")
    os.link(mnt / "a", mnt / "b")
    before = os.stat(mnt / "a")
    next_tick(before.st_ctime_ns)
    os.unlink(mnt / "b")
    after = os.stat(mnt / "a")
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_mtime_ns == before.st_mtime_ns


def test_new_things_have_the_present_time(mnt: Path) -> None:
    (mnt / "before").write_bytes(b"")
    os.mkdir(mnt / "d")
    os.symlink("x", mnt / "l")
    (mnt / "after").write_bytes(b"")
    first, last = os.stat(mnt / "before").st_mtime_ns, os.stat(mnt / "after").st_mtime_ns
    for name in ("d", "l"):
        st = os.lstat(mnt / name)
        assert first <= st.st_mtime_ns <= last
        assert first <= st.st_ctime_ns <= last


def test_renamed_file_keeps_its_times(mnt: Path) -> None:
    (mnt / "a").write_bytes(b"x")
    os.utime(mnt / "a", ns=(5, 6))
    os.rename(mnt / "a", mnt / "b")
    assert os.stat(mnt / "b").st_mtime_ns == 6
