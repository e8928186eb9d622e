"""Which layer wins, in every encoding of whiteouts, opaque directories and redirects."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import tree, union
from unionfs.overlay import UnionOptions

#: A union that heeds what anybody may set.
USER = UnionOptions(xattr_prefix=b"user.")

AS_ROOT = os.geteuid() == 0


def test_topmost_file_wins_and_directories_merge(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", d__x="top", only_a="1")
    b = tree(tmp_path / "b", d__x="below", d__y="y", only_b="2")
    with union(tmp_path, [a, b]) as u:
        assert u.list() == ["d", "only_a", "only_b"]
        assert u.list("d") == ["x", "y"]
        assert u.read("d/x") == b"top"


def test_file_over_directory_hides_it_and_directory_over_file_too(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", x="file", y__inner="in y")
    b = tree(tmp_path / "b", x__inner="hidden", y="hidden")
    c = tree(tmp_path / "c", y__other="hidden by the file in b")
    with union(tmp_path, [a, b, c]) as u:
        assert u.read("x") == b"file"
        assert u.list("y") == ["inner"]


def test_two_hundred_layers(tmp_path: Path) -> None:
    layers = [tree(tmp_path / f"l{i}", **{f"f{i}": str(i), "shared": str(i), f"d__g{i}": ""}) for i in range(200)]
    with union(tmp_path, layers) as u:
        assert len(u.list()) == 202
        assert u.read("shared") == b"0"
        assert len(u.list("d")) == 200
        u.write("f199", b"changed")
        assert u.read("f199") == b"changed"


@pytest.mark.skipif(not AS_ROOT, reason="needs root: mknod c 0 0 in a lower is refused to others before Linux 5.8")
def test_kernel_whiteout_hides_below_and_shows_nowhere(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b", gone="", kept="")
    os.mknod(a / "gone", stat.S_IFCHR | 0o600, 0)
    os.mknod(a / "hides-nothing", stat.S_IFCHR, 0)
    with union(tmp_path, [a, b]) as u:
        assert u.list() == ["kept"]
        assert not u.exists("gone")


def test_aufs_whiteouts_and_opaque(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", **{".wh.gone": "", "d__.wh..wh..opq": "", "d__new": "n", ".wh..wh.plnk": "", ".wh.": ""})
    b = tree(tmp_path / "b", gone="", d__old="o", kept="")
    with union(tmp_path, [a, b]) as u:
        assert u.list() == [".wh.", "d", "kept"]
        assert u.list("d") == ["new"]


def test_aufs_whiteout_leaves_the_same_layers_own_entry(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", **{".wh.d": "", "d__new": "n"})
    b = tree(tmp_path / "b", d__old="o")
    with union(tmp_path, [a, b]) as u:
        assert u.list("d") == ["new"]


@pytest.mark.parametrize("name", ["user.overlay.opaque", "user.fuseoverlayfs.opaque", "trusted.overlay.opaque"])
def test_xattr_opaque_of_any_writer(tmp_path: Path, name: str) -> None:
    if name.startswith("trusted.") and not AS_ROOT:
        pytest.skip("needs root: trusted.* xattrs")
    a, b = tree(tmp_path / "a", d__new=""), tree(tmp_path / "b", d__old="")
    os.setxattr(a / "d", name, b"y")
    with union(tmp_path, [a, b]) as u:
        assert u.list("d") == ["new"]


@pytest.mark.parametrize(("name", "value"), [("user.overlay.opaque", b"x"), ("user.overlay.whiteouts", b"y")])
def test_xattr_whiteouts_only_where_the_directory_announces_them(tmp_path: Path, name: str, value: bytes) -> None:
    a, b = tree(tmp_path / "a", d__gone="", e__gone=""), tree(tmp_path / "b", d__gone="old", e__gone="old")
    for directory in "de":
        os.setxattr(a / directory / "gone", "user.overlay.whiteout", b"y")
    os.setxattr(a / "d", name, value)
    with union(tmp_path, [a, b]) as u:
        assert u.list("d") == []
        assert u.read("e/gone") == b""


@requires("root")
@pytest.mark.parametrize("value", [b"/private", b"private"])
def test_redirect_that_a_user_could_set_shows_him_nothing(tmp_path: Path, value: bytes) -> None:
    """In a union of root's, a directory's owner would see what lies behind another's 0700, as his own."""
    a = tree(tmp_path / "a", theirs__mine="", way__on__mine="", private__on__above="")
    b = tree(tmp_path / "b", private__key="", private__on__key="")
    (b / "private").chmod(0o700)
    os.setxattr(a / "theirs", "user.overlay.redirect", value)
    os.setxattr(a / "way", "user.overlay.redirect", value)
    with union(tmp_path, [a, b]) as u:
        assert u.list("theirs") == ["mine"] and u.list("way") == ["on"] and u.list("way/on") == ["mine"]
    os.setxattr(tree(tmp_path / "upper", renamed__x="") / "renamed", "trusted.overlay.redirect", b"/way/on")
    with union(tmp_path, [a, b]) as u:  # and not on the way of another
        assert u.list("renamed") == ["mine", "x"]


def test_redirects_relative_and_absolute_through_layers(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", renamed__from_a="", deep__moved__from_a="")
    b = tree(tmp_path / "b", original__from_b="", far__away=None)
    c = tree(tmp_path / "c", original__from_c="", elsewhere__from_c="")
    os.setxattr(a / "renamed", "user.overlay.redirect", b"original")
    os.setxattr(a / "deep/moved", "user.overlay.redirect", b"/far/away")
    os.setxattr(b / "far/away", "user.overlay.redirect", b"/elsewhere")
    with union(tmp_path, [a, b, c], options=USER) as u:
        assert u.list("renamed") == ["from_a", "from_b", "from_c"]
        assert u.list("deep/moved") == ["from_a", "from_c"]


@pytest.mark.parametrize("value", [b"", b"a/b", b"/../outside", b"..", b"//x", b"/x/", b"/", b"/x/../../y"])
def test_invalid_redirect_is_ignored(tmp_path: Path, value: bytes) -> None:
    tree(tmp_path / "outside", secret="")
    a, b = tree(tmp_path / "a", d__mine=""), tree(tmp_path / "b", d__below="", x__y="")
    os.setxattr(a / "d", "user.overlay.redirect", value)
    with union(tmp_path, [a, b], options=USER) as u:
        assert u.list("d") == ["below", "mine"]


def test_redirect_loop_ends(tmp_path: Path) -> None:
    layers = [tree(tmp_path / f"l{i}", x__a="", y__b="") for i in range(4)]
    for i, layer in enumerate(layers):
        os.setxattr(layer / "x", "user.overlay.redirect", b"/y" if i % 2 else b"y")
        os.setxattr(layer / "y", "user.overlay.redirect", b"/x")
    with union(tmp_path, layers, options=USER) as u:
        assert u.list("x") == ["a", "b"]


def test_one_inode_number_in_two_layers_is_two_files(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", x="same"), tree(tmp_path / "b")
    os.link(a / "x", b / "y")
    with union(tmp_path, [a, b]) as u:
        assert u.stat("x").ino != u.stat("y").ino
        u.write("x", b"new!")
        assert u.read("y") == b"same"


def test_symlinks_in_layers_are_never_followed(tmp_path: Path) -> None:
    tree(tmp_path / "outside", secret="")
    a = tree(tmp_path / "a")
    (a / "link").symlink_to(tmp_path / "outside")
    with union(tmp_path, [a]) as u:
        with pytest.raises(NotADirectoryError):
            u.list("link")
        assert not u.exists("link/secret")


def test_read_only_union_refuses_every_change(tmp_path: Path) -> None:
    from unionfs.layers.directory import DirectoryLayer
    from unionfs.overlay import UnionFilesystem
    from unionfs.vfs import ROOT, Caller, SetAttr

    a = tree(tmp_path / "a", x="1", d=None)
    fs = UnionFilesystem([DirectoryLayer(str(a))])
    x, me = fs.lookup(ROOT, b"x").node, Caller(0, 0)
    for change in (
        lambda: fs.mkdir(ROOT, b"n", 0o755, me),
        lambda: fs.unlink(ROOT, b"x"),
        lambda: fs.rmdir(ROOT, b"d"),
        lambda: fs.rename(ROOT, b"x", ROOT, b"y", 0),
        lambda: fs.link(x, ROOT, b"y", me),
        lambda: fs.open(x, os.O_WRONLY),
        lambda: fs.setattr(x, SetAttr(mode=0o600), me),
        lambda: fs.setxattr(x, b"user.a", b"1", 0),
        lambda: fs.create(ROOT, b"n", 0o644, os.O_WRONLY, me),
        lambda: fs.tmpfile(ROOT, 0o644, os.O_RDWR, me),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == 30  # EROFS
    fs.close()
