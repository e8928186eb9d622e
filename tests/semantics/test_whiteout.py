"""Deletions: nobody makes a whiteout by hand, and what was deleted stays so, whatever comes in its place."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import RENAME_WHITEOUT, expect, names, renameat2
from tests.semantics.unions import Union, contents

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, pytest.mark.engine]


def a_directory(d: Path) -> None:
    (d / "old").mkdir()
    for name in ("a", "b", "c"):
        (d / "old" / name).write_bytes(name.encode())
    (d / "gone").write_bytes(b"gone")


# By hand -----------------------------------------------------------------------------------------------------------
@pytest.mark.populate(base=a_directory)
@pytest.mark.parametrize("place", ["", "old", "new"])
def test_mknod_of_a_whiteout_is_seen_and_hides_nothing(mnt: Path, place: str) -> None:
    """It is for a union on top of this one, and an object like another here."""
    os.mkdir(mnt / "new")
    before = names(mnt / place)
    os.mknod(mnt / place / "w", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    assert names(mnt / place) == before | {"w"}
    assert (os.lstat(mnt / place / "w").st_rdev, stat.S_ISCHR(os.lstat(mnt / place / "w").st_mode)) == (0, True)
    assert os.listxattr(mnt / place / "w") == []
    os.rename(mnt / place / "w", mnt / "w2")
    assert names(mnt / place) - {"w2"} == before
    os.unlink(mnt / "w2")
    assert names(mnt / place) == before


@pytest.mark.populate(base=a_directory)
def test_mknod_of_a_whiteout_where_something_was(mnt: Path) -> None:
    with expect(errno.EEXIST):
        os.mknod(mnt / "old" / "a", stat.S_IFCHR, os.makedev(0, 0))
    os.unlink(mnt / "old" / "b")
    os.mknod(mnt / "old" / "b", stat.S_IFCHR, os.makedev(0, 0))
    assert names(mnt / "old") == {"a", "b", "c"}
    os.unlink(mnt / "old" / "b")
    assert names(mnt / "old") == {"a", "c"}
    os.mknod(mnt / "old" / "b", stat.S_IFCHR, os.makedev(0, 0))
    os.rename(mnt / "old" / "b", mnt / "old" / "a")
    assert stat.S_ISCHR(os.lstat(mnt / "old" / "a").st_mode)
    assert names(mnt / "old") == {"a", "c"}


@pytest.mark.parametrize(("kind", "major", "minor"), [(stat.S_IFBLK, 0, 0), (stat.S_IFCHR, 0, 1), (stat.S_IFCHR, 1, 0)])
def test_devices_that_nearly_are_whiteouts_are_devices(mnt: Path, kind: int, major: int, minor: int) -> None:
    os.mknod(mnt / "d", kind | 0o600, os.makedev(major, minor))
    st = os.lstat(mnt / "d")
    assert (stat.S_IFMT(st.st_mode), st.st_rdev) == (kind, os.makedev(major, minor))
    assert names(mnt) == {"d"}


@pytest.mark.populate(base=a_directory)
def test_fifo_with_a_device_number_is_no_whiteout(mnt: Path) -> None:
    os.mknod(mnt / "fifo", stat.S_IFIFO | 0o600, os.makedev(0, 0))
    assert stat.S_ISFIFO(os.lstat(mnt / "fifo").st_mode)


# Deletions that must last ------------------------------------------------------------------------------------------
def remove_and_recreate(mnt: Path) -> None:
    os.unlink(mnt / "gone")
    shutil.rmtree(mnt / "old")
    os.mkdir(mnt / "old")
    (mnt / "old" / "c").write_bytes(b"new c")


def remove_some_and_rename(mnt: Path) -> None:
    os.unlink(mnt / "old" / "a")
    os.rename(mnt / "old", mnt / "renamed")
    os.unlink(mnt / "renamed" / "b")
    os.rename(mnt / "renamed", mnt / "old")


def file_in_place_of_a_directory_and_back(mnt: Path) -> None:
    shutil.rmtree(mnt / "old")
    (mnt / "old").write_bytes(b"a file")
    os.unlink(mnt / "old")
    os.mkdir(mnt / "old")
    os.unlink(mnt / "gone")
    os.mkdir(mnt / "gone")


def rename_over_what_was_deleted(mnt: Path) -> None:
    os.mkdir(mnt / "other")
    (mnt / "other" / "new").write_bytes(b"new")
    shutil.rmtree(mnt / "old")
    os.rename(mnt / "other", mnt / "old")


def rename_over_a_directory_emptied_by_deletions(mnt: Path) -> None:
    for name in ("a", "b", "c"):
        os.unlink(mnt / "old" / name)
    os.mkdir(mnt / "other")
    os.rename(mnt / "other", mnt / "old")


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (remove_and_recreate, {"old", "old/c"}),
        (remove_some_and_rename, {"old", "old/c", "gone"}),
        (file_in_place_of_a_directory_and_back, {"old", "gone"}),
        (rename_over_what_was_deleted, {"old", "old/new", "gone"}),
        (rename_over_a_directory_emptied_by_deletions, {"old", "gone"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_deletions_last_over_remount_rotation_and_commit(
    union: Union, change: Callable[[Path], None], left: set[str], tmp_path: Path
) -> None:
    a_directory(union.lower())
    mnt = union.mount()
    change(mnt)
    seen = contents(mnt)
    assert set(seen) == left
    union.remount()
    assert contents(mnt) == seen
    union.rotate()
    assert contents(mnt) == seen
    assert contents(union.flattened(tmp_path / "flat")) == seen


# As a container build does -----------------------------------------------------------------------------------------
def sizes(d: Path, small: bool) -> None:
    (d / "big").mkdir()
    (d / "big" / "sub").mkdir()
    for i in range(5):
        (d / "big" / f"f{i}").write_bytes(b"big %d" % i)
        (d / "big" / "sub" / f"f{i}").write_bytes(b"sub %d" % i)
    if small:
        (d / "small").mkdir()
        (d / "small" / "s").write_bytes(b"small")


@pytest.mark.parametrize("layers", ["one-layer", "layer-per-step"])
@pytest.mark.parametrize("small", [False, True], ids=["small-is-new", "small-was-there"])
def test_mv_big_small_rm_small_mkdir_small(union: Union, tmp_path: Path, small: bool, layers: str) -> None:
    sizes(union.lower(), small)
    mnt = union.mount()
    steps: list[Callable[[], object]] = [
        lambda: os.rename(mnt / "big", mnt / "small"),
        lambda: shutil.rmtree(mnt / "small"),
        lambda: os.mkdir(mnt / "small"),
    ]
    if small:
        steps.insert(0, lambda: shutil.rmtree(mnt / "small"))
    for step in steps:
        step()
        if layers == "layer-per-step":
            union.rotate()
    assert contents(mnt) == {"small": None}
    union.remount()
    assert contents(mnt) == {"small": None}
    (mnt / "big").mkdir()
    (mnt / "small" / "s").write_bytes(b"new")
    union.remount()
    assert contents(mnt) == {"big": None, "small": None, "small/s": b"new"}
    after = tmp_path / "after"
    shutil.copytree(mnt, after)
    assert contents(union.flattened(tmp_path / "flat")) == contents(after)


@pytest.mark.parametrize("layers", ["one-layer", "layer-per-step"])
def test_directories_swapped_by_three_renames(union: Union, tmp_path: Path, layers: str) -> None:
    sizes(union.lower(), True)
    mnt = union.mount()
    before = contents(mnt)
    for old, new in (("big", "tmp"), ("small", "big"), ("tmp", "small")):
        os.rename(mnt / old, mnt / new)
        if layers == "layer-per-step":
            union.rotate()
    swapped = {"big": "small", "small": "big"}
    wanted = {"/".join([swapped[path.split("/")[0]], *path.split("/")[1:]]): value for path, value in before.items()}
    assert contents(mnt) == dict(sorted(wanted.items()))
    union.remount()
    assert contents(mnt) == dict(sorted(wanted.items()))
    assert contents(union.flattened(tmp_path / "flat")) == dict(sorted(wanted.items()))


# RENAME_WHITEOUT ---------------------------------------------------------------------------------------------------
@pytest.mark.needs("rename_whiteout")
@pytest.mark.populate(base=a_directory)
@pytest.mark.parametrize("name", ["gone", "new", "old"])
def test_rename_with_a_whiteout_leaves_a_device_at_the_old_name(mnt: Path, name: str) -> None:
    (mnt / "new").write_bytes(b"new")
    ino = os.lstat(mnt / name).st_ino
    renameat2(mnt / name, mnt / "moved", RENAME_WHITEOUT)
    assert os.lstat(mnt / "moved").st_ino == ino
    left = os.lstat(mnt / name)
    assert stat.S_ISCHR(left.st_mode) and left.st_rdev == 0
    assert names(mnt) == {"gone", "new", "old", "moved"}
    os.unlink(mnt / name)
    assert names(mnt) == {"gone", "new", "old", "moved"} - {name}
