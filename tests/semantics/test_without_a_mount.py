"""The traps in process, with no mount, no root and no transport: what the engine itself must get right.

Each has its counterpart over a mount in the file of its noun; here it runs on any machine, and in a moment.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import expect
from tests.unit.overlay_rig import ME, Rig, tree, union
from tests.unit.test_overlay_marks import NoMarks
from unionfs.vfs import ROOT, Attr

Step = Callable[[Rig], None]


def numbers(rig: Rig, *paths: str) -> list[int]:
    return [rig.stat(path).ino for path in paths]


# Symbolic links ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["file", "/", "../../../etc/passwd", "link", "nothing"])
def test_nothing_follows_a_link(tmp_path: Path, target: str) -> None:
    base = tree(tmp_path / "base", file="file")
    os.symlink(target, base / "link")
    with union(tmp_path, [base]) as rig:
        with rig.node("link") as node:
            assert rig.fs.readlink(node) == target.encode()
            assert rig.fs.listxattr(node) == []
            with expect(errno.ENODATA):
                rig.fs.getxattr(node, b"user.note")
            with pytest.raises(OSError):
                rig.fs.setxattr(node, b"user.note", b"1", 0)
            with pytest.raises(OSError):
                rig.fs.open(node, os.O_RDWR)
        changed = rig.setattr("link", mtime_ns=5)
        assert (stat.S_ISLNK(changed.mode), changed.mtime_ns) == (True, 5)
        assert rig.stat("file").mtime_ns != 5
        with expect(errno.ENOTDIR), rig.node("link/passwd"):
            pass
        assert rig.stored() == ["link"]


# Whiteouts ---------------------------------------------------------------------------------------------------------
def test_whiteout_by_hand_is_a_device_that_hides_nothing(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", a="a", d__x="x")
    with union(tmp_path, [base]) as rig:
        rig.unlink("a")
        for name in (b"a", b"new"):
            entry = rig.fs.mknod(ROOT, name, stat.S_IFCHR | 0o600, 0, ME)
            rig.fs.forget(entry.node, 1)
        assert rig.list() == ["a", "d", "new"]
        rig.link("new", "d/linked")
        rig.rename("new", "d/moved")
        rig.rename("d", "e")
    with union(tmp_path, [base]) as rig:  # nothing of it is in memory only
        assert rig.list() == ["a", "e"] and rig.list("e") == ["linked", "moved", "x"]
        for path in ("a", "e/linked", "e/moved"):
            assert (stat.S_IFMT(rig.stat(path).mode), rig.stat(path).rdev) == (stat.S_IFCHR, 0)
            assert not rig.is_whiteout(path)
        assert rig.stat("e/linked").ino == rig.stat("e/moved").ino
        rig.unlink("a")
        assert rig.is_whiteout("a")
        rig.fs.refresh()
        assert rig.list() == ["e"] and rig.list("e") == ["linked", "moved", "x"]


def test_whiteout_by_hand_where_marks_cannot_be_kept(tmp_path: Path) -> None:
    with union(tmp_path, [tree(tmp_path / "base", a="a")], upper=NoMarks) as rig:
        for name, refusal in ((b"a", errno.EEXIST), (b"new", errno.EPERM)):
            with expect(refusal):
                rig.fs.mknod(ROOT, name, stat.S_IFCHR | 0o600, 0, ME)
        assert rig.list() == ["a"]


def rmtree(path: str) -> Step:
    def step(rig: Rig) -> None:
        for name in rig.list(path):
            below = f"{path}/{name}"
            if stat.S_ISDIR(rig.stat(below).mode):
                rmtree(below)(rig)
            else:
                rig.unlink(below)
        rig.rmdir(path)

    return step


@pytest.mark.parametrize("remount", [False, True], ids=["at-once", "remounted"])
@pytest.mark.parametrize("small", [False, True], ids=["small-is-new", "small-was-there"])
def test_mv_big_small_rm_small_mkdir_small(tmp_path: Path, small: bool, remount: bool) -> None:
    base = tree(tmp_path / "base", big__a="a", big__sub__b="b", **({"small__s": "s"} if small else {}))
    steps: list[Step] = [
        lambda rig: rig.rename("big", "small"), rmtree("small"), lambda rig: rig.mkdir("small"),
    ]  # fmt: skip
    if small:
        steps.insert(0, rmtree("small"))
    if remount:
        for step in steps:
            with union(tmp_path, [base]) as rig:
                step(rig)
    else:
        with union(tmp_path, [base]) as rig:
            for step in steps:
                step(rig)
    with union(tmp_path, [base]) as rig:
        assert (rig.list(), rig.list("small")) == (["small"], [])


# Numbers -----------------------------------------------------------------------------------------------------------
def test_one_number_a_file_over_copy_up_and_remount(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", d__f="f", d__g="g")
    with union(tmp_path, [base]) as rig:
        before = numbers(rig, "d", "d/f", "d/g")
        assert len(set(before)) == 3
        rig.write("d/f", b"changed")
        assert numbers(rig, "d", "d/f", "d/g") == before
        rig.rename("d", "e")
    with union(tmp_path, [base]) as rig:
        assert numbers(rig, "e", "e/f", "e/g") == before


def test_name_unlinked_and_made_again_is_another_file(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", f="old")
    with union(tmp_path, [base]) as rig:
        before = rig.stat("f").ino
        rig.unlink("f")
        rig.create("f", b"new")
        assert rig.stat("f").ino != before
        assert rig.list() == ["f"]  # compares d_ino with st_ino


# Links and unlinked files ------------------------------------------------------------------------------------------
def test_link_count_of_an_unlinked_open_file_is_zero(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", f="content")
    os.link(base / "f", base / "g")
    with union(tmp_path, [base]) as rig, rig.node("f") as node:
        fh = rig.fs.open(node, os.O_RDONLY).fh
        assert Attr.unpack(rig.fs.getattr(node, fh)).nlink == 2
        rig.unlink("g")
        assert Attr.unpack(rig.fs.getattr(node, fh)).nlink == 1
        rig.unlink("f")
        after = Attr.unpack(rig.fs.getattr(node, fh))
        assert (after.nlink, after.size) == (0, 7)
        assert rig.fs.read(fh, 0, 100) == b"content"
        rig.fs.release(fh)
        # Not open any more, but not forgotten either: an O_PATH descriptor may still be on it.
        assert Attr.unpack(rig.fs.getattr(node)).nlink == 0


@pytest.mark.parametrize("by", ["f", "sub/g"])
def test_group_is_one_file_after_copy_up(tmp_path: Path, by: str) -> None:
    base = tree(tmp_path / "base", f="shared", sub=None)
    os.link(base / "f", base / "sub" / "g")
    with union(tmp_path, [base]) as rig:
        rig.write(by, b"S")
    with union(tmp_path, [base]) as rig:
        assert rig.read("f") == rig.read("sub/g") == b"Shared"
        assert rig.stat("f").ino == rig.stat("sub/g").ino
        assert (rig.stat("f").nlink, rig.stat("sub/g").nlink) == (2, 2)


# Names -------------------------------------------------------------------------------------------------------------
def test_names_of_255_bytes_and_no_more(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", **{"n" * 255: "old"})
    with union(tmp_path, [base]) as rig:
        rig.unlink("n" * 255)
        rig.create("n" * 255, b"new")
        rig.rename("n" * 255, "m" * 255)
        assert rig.list() == ["m" * 255]
        for call in (rig.create, rig.mkdir, rig.unlink, rig.rmdir, rig.stat):
            with expect(errno.ENAMETOOLONG):
                call("n" * 256)


def test_path_beyond_path_max_is_copied_up(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    here = os.open(tmp_path / "base", os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    leaf = os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(leaf, b"deep")
    os.close(leaf)
    os.close(here)
    path = "/".join(["d" * 200] * 25)
    with union(tmp_path, [tmp_path / "base"]) as rig:
        rig.write(f"{path}/leaf", b" water", 4)
        rig.rename(f"{path}/leaf", f"{path}/leaf2")
    with union(tmp_path, [tmp_path / "base"]) as rig:
        assert rig.list(path) == ["leaf2"]
        assert rig.read(f"{path}/leaf2") == b"deep water"
    for name in ("base", "upper"):
        shutil.rmtree(tmp_path / name)  # pytest's own cleaning goes by paths, which are too long here
