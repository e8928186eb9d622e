"""What changes leave on disk in the upper: the kernel's marks, or AUFS names where the file system cannot hold them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import tree, union
from unionfs import api
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionOptions
from unionfs.vfs import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, ROOT


class NoMarks(WritableDirectory):
    """An upper whose file system has neither device nodes nor xattrs."""

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        if rdev == 0 and mode & 0o170000 == 0o020000:
            raise PermissionError(errno.EPERM, "no devices")
        super().mknod(path, mode, rdev)

    def rename(self, path: bytes, to: WritableDirectory, to_path: bytes, flags: int = 0) -> None:  # type: ignore[override]
        if flags & RENAME_WHITEOUT:
            raise OSError(errno.EINVAL, "no whiteouts")
        super().rename(path, to, to_path, flags)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        raise OSError(errno.EOPNOTSUPP, "no xattrs")


class NoRenameWhiteout(WritableDirectory):
    """An upper that holds whiteout devices but cannot rename and leave one."""

    def rename(self, path: bytes, to: WritableDirectory, to_path: bytes, flags: int = 0) -> None:  # type: ignore[override]
        if flags & RENAME_WHITEOUT:
            raise OSError(errno.EINVAL, "no whiteouts")
        super().rename(path, to, to_path, flags)


class NoExchange(NoRenameWhiteout):
    """An upper that holds whiteout devices but has no flags of rename at all, as one in a mount through libfuse 2."""

    def rename(self, path: bytes, to: WritableDirectory, to_path: bytes, flags: int = 0) -> None:  # type: ignore[override]
        if flags & RENAME_EXCHANGE:
            raise OSError(errno.EINVAL, "no exchange")
        super().rename(path, to, to_path, flags)


def lower(tmp_path: Path) -> Path:
    return tree(tmp_path / "a", x="1", d__y="2", d__e__z="3", gone="4")


def test_unlink_lower_file_leaves_whiteout(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.unlink("x")
        assert u.is_whiteout("x")
        assert u.list() == ["d", "gone"]
        u.create("x", b"new")
        assert u.read("x") == b"new"
        u.unlink("x")
        assert u.is_whiteout("x")


def test_unlink_of_what_only_the_upper_has_leaves_nothing(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.create("n")
        u.mkdir("m")
        u.unlink("n")
        u.rmdir("m")
        assert u.stored() == []


def test_directory_over_whiteout_is_opaque_a_new_one_is_not(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.unlink("d/e/z")
        u.rmdir("d/e")
        assert u.is_whiteout("d/e")
        u.mkdir("d/e")
        u.mkdir("d/fresh")
        assert u.list("d/e") == []
        assert u.mark("d/e", "opaque") == b"y"
        assert u.mark("d/fresh", "opaque") is None


def test_rmdir_of_merged_directory_with_whiteouts_inside(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        with pytest.raises(OSError) as caught:
            u.rmdir("d/e")
        assert caught.value.errno == errno.ENOTEMPTY
        u.unlink("d/e/z")
        u.create("d/e/n")
        u.unlink("d/e/n")
        u.rmdir("d/e")
        assert u.is_whiteout("d/e")
        assert u.list("d") == ["y"]


def test_rename_of_lower_directory_by_redirect(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        ino = u.stat("d").ino
        u.rename("d", "moved")
        assert u.mark("moved", "redirect") == b"d"
        assert u.is_whiteout("d")
        assert u.stat("moved").ino == ino
        u.mkdir("deep")
        u.rename("moved", "deep/er")
        assert u.mark("deep/er", "redirect") == b"/d"
        assert u.read("deep/er/e/z") == b"3"
        u.rename("deep/er", "d")
        assert u.list("d") == ["e", "y"]
        u.write("d/e/z", b"4")
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert u.read("d/e/z") == b"4"
        assert u.list() == ["d", "deep", "gone", "x"]


def test_renamed_back_in_its_own_parent(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.rename("d", "t")
        u.rename("t", "d")
        assert u.list("d") == ["e", "y"]
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert u.list("d") == ["e", "y"]


def test_directory_renamed_and_new_one_in_its_place_and_the_old_name_freed(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", big__f="1", small__f="2")
    with union(tmp_path, [a]) as u:
        u.unlink("small/f")
        u.rmdir("small")
        u.rename("big", "small")
        u.unlink("small/f")
        u.rmdir("small")
        u.mkdir("small")
        assert u.list("small") == []
        assert u.list() == ["small"]
    with union(tmp_path, [a]) as u:
        assert u.list("small") == []
        assert u.list() == ["small"]


def test_exchange_of_lower_directory_and_file(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.rename("d", "x", RENAME_EXCHANGE)
        assert u.read("d") == b"1"
        assert u.list("x") == ["e", "y"]
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert u.read("d") == b"1"
        assert u.list("x") == ["e", "y"]


def test_noreplace(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        with pytest.raises(FileExistsError):
            u.rename("x", "gone", RENAME_NOREPLACE)
        u.unlink("gone")
        u.rename("x", "gone", RENAME_NOREPLACE)
        assert u.read("gone") == b"1"


def test_whiteout_asked_for_is_seen_as_a_device_and_survives_a_remount(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.rename("x", "y", RENAME_WHITEOUT)
        u.create("n")
        u.rename("n", "m", RENAME_WHITEOUT)
        for name in ("x", "n"):
            assert (u.stat(name).mode & 0o170000, u.stat(name).rdev) == (0o020000, 0)
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert u.list() == ["d", "gone", "m", "n", "x", "y"]
        assert u.stat("x").mode & 0o170000 == 0o020000
        u.unlink("x")
        assert not u.exists("x")


@pytest.mark.parametrize("place", ["d", "new"])
def test_marks_of_fuse_overlayfs_are_nobodys_to_set(tmp_path: Path, place: str) -> None:
    """It would be opaque after a remount, and was hidden until then."""
    name = b"user.fuseoverlayfs.opaque"
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.mkdir("new")
        with u.node(place) as node:
            for call, number in (
                (lambda: u.fs.setxattr(node, name, b"y", 0), errno.EPERM),
                (lambda: u.fs.getxattr(node, name), errno.ENODATA),
                (lambda: u.fs.removexattr(node, name), errno.ENODATA),
            ):
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == number
        assert u.stored() == ["new"]
    os.setxattr(tmp_path / "upper" / "new", name, b"y")
    with union(tmp_path, [tmp_path / "a"]) as u, u.node("new") as node:
        assert u.fs.listxattr(node) == []
        with pytest.raises(OSError):
            u.fs.getxattr(node, name)


def test_nested_overlay_attributes_are_escaped(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)], options=UnionOptions(xattr_prefix=b"user.")) as u:
        with u.node("d") as node:
            u.fs.setxattr(node, b"user.overlay.opaque", b"y", 0)
            assert u.fs.listxattr(node) == [b"user.overlay.opaque"]
            assert u.fs.getxattr(node, b"user.overlay.opaque") == b"y"
            with pytest.raises(OSError):
                u.fs.getxattr(node, b"user.overlay.origin")
        assert u.list("d") == ["e", "y"], "it is the user's data, not our mark"
        assert os.getxattr(tmp_path / "upper/d", "user.overlay.overlay.opaque") == b"y"


def test_upper_names_that_look_like_whiteouts_are_plain_names(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.create(".wh.x", b"mine")
        assert u.read(".wh.x") == b"mine"
        assert u.read("x") == b"1"
        for name in (".wh..wh..opq", ".wh..wh.aufs"):
            with pytest.raises(OSError) as caught:
                u.create(name)
            assert caught.value.errno == errno.EINVAL
        u.create("d/.wh..wh.aufs")
        assert u.list("d") == [".wh..wh.aufs", "e", "y"]


@pytest.mark.parametrize("upper", [NoMarks, NoRenameWhiteout])
def test_uppers_of_less_able_file_systems(tmp_path: Path, upper: type[WritableDirectory]) -> None:
    with union(tmp_path, [lower(tmp_path)], upper=upper) as u:
        u.unlink("x")
        u.unlink("d/e/z")
        u.rmdir("d/e")
        u.mkdir("d/e")
        u.create("d/e/n", b"n")
        u.rename("gone", "kept")
        u.rename("d", "moved")
        u.mkdir("x")
        u.create("gone", b"again")
        expected = {"": ["gone", "kept", "moved", "x"], "moved": ["e", "y"], "moved/e": ["n"], "x": []}
        assert {path: u.list(path) for path in expected} == expected
        u.rmdir("x")
        u.rename("moved/e", "x")
    with union(tmp_path, [tmp_path / "a"], upper=upper) as u:
        expected = {"": ["gone", "kept", "moved", "x"], "moved": ["y"], "x": ["n"]}
        assert {path: u.list(path) for path in expected} == expected
        assert u.read("moved/y") == b"2"
    names = {name for _, _, files in os.walk(tmp_path / "upper") for name in files}
    assert (".wh..wh.aufs" in names) == (upper is NoMarks)
    if upper is NoMarks:
        with union(tmp_path, [tmp_path / "a"], upper=upper) as u, pytest.raises(OSError) as caught:
            u.create(".wh.y")
        assert caught.value.errno == errno.EINVAL


def test_rename_over_a_lower_name_where_renames_leave_no_whiteout(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)], upper=NoRenameWhiteout) as u:
        u.rename("x", "gone")
        u.rename("d/y", "x")
        assert (u.list(), u.list("d")) == (["d", "gone", "x"], ["e"])
        assert (u.read("gone"), u.read("x")) == (b"1", b"2")


def test_redirect_longer_than_the_file_system_holds_copies_the_tree(tmp_path: Path) -> None:
    class Short(WritableDirectory):
        def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
            if name.endswith(b".redirect"):
                raise OSError(errno.ENOSPC, "value too long")
            super().setxattr(path, name, value, flags)

    with union(tmp_path, [lower(tmp_path)], upper=Short) as u:
        u.rename("d", "moved")
        assert u.read("moved/e/z") == b"3"
        u.rename("moved/e", "e")
        assert u.list("moved") == ["y"]
    with union(tmp_path, [tmp_path / "a"]) as u:
        assert (u.list(), u.list("moved"), u.read("e/z")) == (["e", "gone", "moved", "x"], ["y"], b"3")


def test_moving_a_directory_into_itself_and_over_its_parent(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        for new, number in (("d/e/inside", errno.EINVAL), ("d/e", errno.EINVAL)):
            with pytest.raises(OSError) as caught:
                u.rename("d", new)
            assert caught.value.errno == number
        with pytest.raises(OSError) as caught:
            u.rename("d/e", "d")
        assert caught.value.errno == errno.ENOTEMPTY


def test_removed_but_open_directory(tmp_path: Path) -> None:
    with union(tmp_path, [lower(tmp_path)]) as u:
        u.mkdir("m")
        with u.node("m") as node:
            fh = u.fs.opendir(node)
            u.rmdir("m")
            from unionfs.vfs import Attr

            assert Attr.unpack(u.fs.getattr(node)).nlink == 0
            assert u.fs.readdir(fh, 0, 4096, 24) == []
            with pytest.raises(FileNotFoundError):
                u.fs.mkdir(node, b"x", 0o755, __import__("tests.unit.overlay_rig", fromlist=["ME"]).ME)
            u.fs.releasedir(fh)
        assert u.fs.lookup(ROOT, b"d").node


def test_upper_without_exchange_holds_whiteouts_by_name(tmp_path: Path) -> None:
    """A device could not give way to a directory, nor a directory to it."""
    with union(tmp_path, [lower(tmp_path)], upper=NoExchange) as u:
        u.write("d/y", b"copied up")
        u.unlink("d/y")
        u.unlink("d/e/z")
        u.rmdir("d/e")
        u.rmdir("d")
        u.mkdir("d")
        u.create("d/new")
        u.rename("d", "moved")
        u.rename("x", "d")
        assert u.list() == ["d", "gone", "moved"]
        assert ".wh..wh.aufs" in u.stored()
    with union(tmp_path, [tmp_path / "a"], upper=NoExchange) as u:
        assert u.list() == ["d", "gone", "moved"] and u.list("moved") == ["new"]


# attributes that other unions would take for marks -----------------------------------------------------------------
@pytest.mark.needs_root
@requires("root")
@pytest.mark.parametrize(("own", "other"), [(b"trusted.", b"user."), (b"user.", b"trusted.")])
def test_an_attribute_named_as_the_other_kind_of_mark_is_data_in_the_next_layer(
    tmp_path: Path, own: bytes, other: bytes
) -> None:
    lower(tmp_path)
    options = UnionOptions(xattr_prefix=own)
    redirect, opaque = other + b"overlay.redirect", other + b"overlay.opaque"
    with union(tmp_path, [tmp_path / "a"], options=options) as u:
        with u.node("d") as node:
            u.fs.setxattr(node, redirect, b"/nowhere", 0)
        with u.node("d/e") as node:
            u.fs.setxattr(node, opaque, b"y", 0)
    second = tmp_path / "second"
    second.mkdir()
    with union(second, [tmp_path / "upper", tmp_path / "a"], options=options) as u:
        assert u.list("d") == ["e", "y"] and u.read("d/e/z") == b"3"
        with u.node("d") as node:
            assert u.fs.getxattr(node, redirect) == b"/nowhere"
        u.setattr("d/e", mode=0o700)  # which copies the attributes into the next upper
    third = tmp_path / "third"
    third.mkdir()
    with union(third, [second / "upper", tmp_path / "upper", tmp_path / "a"], options=options) as u:
        assert u.list("d") == ["e", "y"] and u.read("d/e/z") == b"3"


@pytest.mark.needs_root
@requires("root")
def test_the_changes_of_an_upper_with_user_marks_are_those_of_its_mount(tmp_path: Path) -> None:
    """Its root has to say that it is one, also where nothing was copied up: nobody who looks at it later is told."""
    lower(tmp_path)
    with union(tmp_path, [tmp_path / "a"], options=UnionOptions(xattr_prefix=b"user.")) as u:
        for path in ("d/e/z", "d/y"):
            u.unlink(path)
        for path in ("d/e", "d"):
            u.rmdir(path)
        u.mkdir("d")
    changes = api.diff(layers=[tmp_path / "a"], upper=tmp_path / "upper", work=tmp_path / "work")
    assert [f"{change.kind.value} {change.path.decode()}" for change in changes] == ["C d", "D d/e", "D d/y"]
