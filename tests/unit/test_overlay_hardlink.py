"""Hard links of lower layers: one inode, before and after copy-up by any name, and after a remount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.overlay_rig import Rig, tree, union
from unionfs.overlay import UnionOptions


def layers(tmp_path: Path) -> list[Path]:
    a = tree(tmp_path / "a", one="data", d=None)
    os.link(a / "one", a / "two")
    os.link(a / "one", a / "d/three")
    return [a]


NAMES = ("one", "two", "d/three")


def assert_group(u: Rig, names: tuple[str, ...], data: bytes, nlink: int) -> None:
    attrs = [u.stat(name) for name in names]
    assert len({attr.ino for attr in attrs}) == 1
    assert [attr.nlink for attr in attrs] == [nlink] * len(names)
    assert [u.read(name) for name in names] == [data] * len(names)


def test_an_upper_in_use_can_be_read_without_touching_it(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u, u.node("one") as node:
        u.write("one", b"DA")
        fh = u.fs.open(node, os.O_RDWR).fh
        u.mkdir("m")
        u.rename("d", "moved")
        u.unlink("two")
        with union(tmp_path, [tmp_path / "a"], options=UnionOptions(read_only=True)) as view:
            assert_group(view, ("one", "moved/three"), b"DAta", 2)
            assert view.list() == u.list()
            changes: list[Callable[[], None]] = [
                lambda: view.write("one", b""),
                lambda: view.mkdir("n"),
                lambda: view.unlink("one"),
                lambda: view.rename("m", "n"),
            ]
            for change in changes:
                with pytest.raises(OSError) as caught:
                    change()
                assert caught.value.errno == errno.EROFS
        u.fs.release(fh)


@pytest.mark.parametrize("by", NAMES)
@pytest.mark.parametrize("index", [True, False])
def test_group_survives_copy_up_by_any_name(tmp_path: Path, by: str, index: bool) -> None:
    with union(tmp_path, layers(tmp_path), options=UnionOptions(index=index)) as u:
        assert_group(u, NAMES, b"data", 3)
        u.write(by, b"DA")
        assert_group(u, NAMES, b"DAta", 3)
        u.list(), u.list("d")
    if index:
        with union(tmp_path, [tmp_path / "a"]) as u:
            assert_group(u, NAMES, b"DAta", 3)
            u.list(), u.list("d")


def test_links_and_unlinks_of_a_group(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        u.write("one", b"DA")
        u.link("two", "four")
        assert_group(u, (*NAMES, "four"), b"DAta", 4)
        u.unlink("two")
        assert_group(u, ("one", "d/three", "four"), b"DAta", 3)
        u.unlink("one")
        u.rename("d/three", "five")
        assert_group(u, ("five", "four"), b"DAta", 2)
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert_group(u, ("five", "four"), b"DAta", 2)
        u.unlink("four")
        u.unlink("five")
        assert u.list() == ["d"]
    assert not list((tmp_path / "work/index").iterdir())


def test_unlinking_a_lower_name_counts(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        u.unlink("two")
        assert_group(u, ("one", "d/three"), b"data", 2)
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert_group(u, ("one", "d/three"), b"data", 2)


def test_group_replaced_by_rename(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        u.create("n", b"new")
        u.rename("n", "two")
        assert u.read("two") == b"new"
        assert_group(u, ("one", "d/three"), b"data", 2)
        u.rename("one", "d/three")
        assert u.exists("one"), "two names of one file: rename does nothing"


def test_group_open_after_its_last_name_is_gone(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u, u.node("one") as node:
        fh = u.fs.open(node, os.O_RDWR).fh
        for name in NAMES:
            u.unlink(name)
        from unionfs.vfs import Attr

        assert Attr.unpack(u.fs.getattr(node)).nlink == 0
        u.fs.write(fh, 0, b"XX")
        assert u.fs.read(fh, 0, 9) == b"XXta"
        u.fs.release(fh)
    assert not list((tmp_path / "work/index").iterdir())
    assert not list((tmp_path / "work/work").iterdir())


def test_hard_links_in_the_upper_are_one_inode_after_forgetting(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        u.create("x", b"1")
        u.link("x", "d/y")
        with u.node("x") as a, u.node("d/y") as b:
            assert a == b
        assert u.stat("x").nlink == 2
        u.unlink("x")
        assert u.stat("d/y").nlink == 1


def test_two_names_in_one_directory_are_forgotten_together(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        with u.node("one"), u.node("two"):
            pass
        u.mkdir("m")
        u.create("m/x")
        u.link("m/x", "m/y")
        with u.node("m/x"), u.node("m/y"):
            pass
        assert u.list("m") == ["x", "y"]


def test_names_in_a_directory_and_below_it_are_forgotten_together(tmp_path: Path) -> None:
    with union(tmp_path, layers(tmp_path)) as u:
        u.mkdir("m")
        u.mkdir("m/n")
        u.create("m/x")
        u.link("m/x", "m/n/y")
        with u.node("m/x"), u.node("m/n/y"):
            pass
        assert u.list("m") == ["n", "x"]
