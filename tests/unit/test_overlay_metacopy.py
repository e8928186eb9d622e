"""Metacopies: files with their metadata in one layer and their data further down (the kernel's `metacopy=on`)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import ME, Rig, tree, union
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import LayerFile
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import RENAME_EXCHANGE, ROOT, Attr, SetAttr

pytestmark = [pytest.mark.needs_root, requires("root")]

ON = UnionOptions(metacopy=True)
BIG = "0123456789abcdef" * 40_000  # 640 kB: more than is copied under the lock


def lower(tmp_path: Path) -> Path:
    base = tree(tmp_path / "lower", big=BIG, d__f="in d", d__e__g="in e", empty="")
    (base / "d" / "hard").write_text("linked")
    os.link(base / "d" / "hard", base / "hard2")
    return base


@contextmanager
def metacopying(tmp_path: Path, *above: Path, options: UnionOptions = ON) -> Iterator[Rig]:
    base = tmp_path / "lower"
    with union(tmp_path, [*above, base if base.exists() else lower(tmp_path)], options=options) as u:
        yield u


def copied(u: Rig) -> tuple[int, int]:
    """(objects, bytes) copied up so far."""
    found = u.fs.statistics()
    return found["copy_ups"], found["copy_up_bytes"]


def stored_bytes(u: Rig, path: str) -> int:
    return os.lstat(u.upper / path).st_blocks * 512


def crafted(
    root: Path, path: str, *, redirect: str | None = None, value: bytes = b"", namespace: str = "trusted"
) -> None:
    """A metacopy of 4 bytes that somebody else has made, in a directory that says so."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.truncate(file, 4)
    os.setxattr(file, f"{namespace}.overlay.metacopy", value)
    os.setxattr(file.parent, f"{namespace}.overlay.impure", b"y")
    if redirect is not None:
        os.setxattr(file, f"{namespace}.overlay.redirect", redirect.encode())


# making -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", [{"uid": 5, "gid": 6}, {"mode": 0o100600}, {"mtime_ns": 10**18}])
def test_a_change_of_metadata_copies_no_data(tmp_path: Path, change: dict[str, int]) -> None:
    with metacopying(tmp_path) as u:
        before = u.stat("big")
        after = u.setattr("big", **change)
        assert copied(u) == (1, 0)
        assert u.mark("big", "metacopy") == b""
        assert (u.upper / "big").stat().st_size == len(BIG) and stored_bytes(u, "big") < len(BIG) // 10
        assert u.read("big") == BIG.encode()
        # What people see is the file: its size, number and the blocks of its data (ovl_getattr()).
        for attr in (after, u.stat("big")):
            assert (attr.ino, attr.size, attr.blocks) == (before.ino, before.size, before.blocks)
            assert all(getattr(attr, name) == value for name, value in change.items())


def test_an_xattr_copies_no_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        with u.node("big") as node:
            u.fs.setxattr(node, b"user.x", b"1", 0)
            assert u.fs.listxattr(node) == [b"user.x"]
        assert u.mark("big", "metacopy") == b"" and copied(u) == (1, 0)


def test_chown_of_a_tree_copies_no_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        for path in ("big", "d", "d/f", "d/e", "d/e/g", "d/hard", "hard2"):
            u.setattr(path, uid=7)
        assert copied(u)[1] == 0
        assert sum(stored_bytes(u, str(path)) for path in u.upper.rglob("*") if path.is_file()) < 100_000
        assert u.read("d/e/g") == b"in e" and u.stat("hard2").uid == 7


def test_without_the_option_the_data_is_copied(tmp_path: Path) -> None:
    with metacopying(tmp_path, options=UnionOptions()) as u:
        u.setattr("big", uid=5)
        assert u.mark("big", "metacopy") is None and copied(u) == (1, len(BIG))


def test_an_empty_file_is_copied(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("empty", uid=5)
        assert u.mark("empty", "metacopy") is None


@pytest.mark.parametrize("namespace", [b"user."])
def test_no_metacopies_where_everybody_may_write_the_marks(tmp_path: Path, namespace: bytes) -> None:
    with metacopying(tmp_path, options=ON._replace(xattr_prefix=namespace)) as u:
        u.setattr("big", uid=5)
        assert u.mark("big", "metacopy") is None and u.read("big") == BIG.encode()


def test_it_is_found_by_the_next_mount_whatever_its_options(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        before = u.setattr("big", mode=0o640)
        u.setattr("d/e/g", uid=9)
    for options in (ON, UnionOptions(), UnionOptions(read_only=True)):
        with metacopying(tmp_path, options=options) as u:
            after = u.stat("big")
            assert (after.ino, after.mode, after.blocks) == (before.ino, before.mode, before.blocks)
            assert u.read("big") == BIG.encode() and u.read("d/e/g") == b"in e"


# the data comes up ------------------------------------------------------------------------------------------------
def test_an_open_for_writing_copies_the_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        before = u.setattr("big", mode=0o640, mtime_ns=10**18)
        with u.node("big") as node:
            fh = u.fs.open(node, os.O_RDWR).fh
            assert u.mark("big", "metacopy") is None
            assert u.fs.read(fh, 0, 1 << 20) == BIG.encode()
            u.fs.release(fh)
        after = u.stat("big")
        assert after._replace(ctime_ns=0, atime_ns=0, blocks=0) == before._replace(ctime_ns=0, atime_ns=0, blocks=0)
        assert copied(u) == (2, len(BIG))
        u.write("big", b"new", 2)
        assert u.read("big") == BIG.encode()[:2] + b"new" + BIG.encode()[5:]
    with metacopying(tmp_path, options=UnionOptions()) as u:
        assert u.read("big")[:6] == b"01new5"


@pytest.mark.parametrize("size", [0, 5, len(BIG) + 7])
@pytest.mark.parametrize("linked", [False, True])
def test_truncate_copies_what_is_left(tmp_path: Path, size: int, linked: bool) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("big", uid=5)
        if linked:
            u.link("big", "other")
        assert u.setattr("big", size=size).size == size
        assert u.mark("big", "metacopy") is None
        assert u.read("big") == BIG.encode()[:size].ljust(size, b"\0")
        assert copied(u)[1] == min(size, len(BIG))
        assert u.stat("big").uid == 5


def test_open_with_o_trunc_copies_no_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("big", uid=5)
        u.write("big", b"new", flags=os.O_TRUNC)
        assert u.read("big") == b"new" and copied(u)[1] == 0 and u.stat("big").uid == 5


def test_who_reads_before_sees_what_is_written_after(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u, u.node("big") as node:
        first = u.fs.open(node, os.O_RDONLY).fh
        u.fs.setattr(node, SetAttr(uid=5), ME)
        second = u.fs.open(node, os.O_RDONLY).fh
        u.fs.fsync(second, False)
        u.write("big", b"new")
        assert u.fs.read(first, 0, 5) == u.fs.read(second, 0, 5) == b"new34"
        u.fs.release(first)
        u.fs.release(second)
        assert u.stat("big").uid == 5


def test_a_change_through_an_open_file_leaves_the_lower_alone(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u, u.node("big") as node:
        fh = u.fs.open(node, os.O_RDONLY).fh
        u.fs.setattr(node, SetAttr(uid=5), ME)
        u.fs.setattr(node, SetAttr(uid=6), ME, fh)
        u.fs.release(fh)
    assert os.stat(tmp_path / "lower/big").st_uid == os.getuid()
    assert os.stat(tmp_path / "upper/big").st_uid == 6


def test_what_the_kernel_keeps_on_a_metacopy_stays_on_the_copy(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("big", uid=5)
        origin = u.mark("big", "origin")
    os.setxattr(tmp_path / "upper/big", "trusted.overlay.protattr", b"a")
    with metacopying(tmp_path) as u:
        u.write("big", b"new")
        assert (u.mark("big", "origin"), u.mark("big", "protattr")) == (origin, b"a")
        assert u.mark("big", "metacopy") is None and u.mark("big", "redirect") is None


@pytest.mark.parametrize("linked", [False, True])
def test_capabilities_and_set_id_bits_stay_when_the_data_comes_up(tmp_path: Path, linked: bool) -> None:
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    with metacopying(tmp_path) as u:
        before = u.setattr("big", mode=0o4755, mtime_ns=10**18)
        with u.node("big") as node:
            u.fs.setxattr(node, b"security.capability", capability, 0)
        if linked:
            u.link("big", "other")
        with u.node("big") as node:
            u.fs.release(u.fs.open(node, os.O_WRONLY).fh)
            assert u.fs.getxattr(node, b"security.capability") == capability
        assert u.mark("big", "metacopy") is None
        after = u.stat("big")
        assert (after.mode, after.mtime_ns) == (before.mode, before.mtime_ns)


class Interrupted(WritableDirectory):
    """Before the first copied range, `meanwhile` is called once."""

    meanwhile: Callable[[], object] | None = None

    def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
        return _Interrupted(super().create(path, mode, flags).fd)

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> FdFile:
        return _Interrupted(super().open(path, flags).fd)


class _Interrupted(FdFile):
    def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
        call, Interrupted.meanwhile = Interrupted.meanwhile, None
        if call is not None:
            call()
        return super().copy_range(source, source_offset, offset, length)


MEANWHILE: dict[str, Callable[[Rig], object]] = {
    "link": lambda u: u.link("big", "d/new"),
    "rename": lambda u: u.rename("big", "d/new"),
    "unlink": lambda u: u.unlink("big"),
    "chown": lambda u: u.setattr("big", uid=77),
    "utime": lambda u: u.setattr("big", mtime_ns=123 * 10**9),
    "look": lambda u: u.stat("big"),
}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", MEANWHILE)
def test_what_happens_to_a_metacopy_while_its_data_comes_up(tmp_path: Path, name: str, linked: bool) -> None:
    lower(tmp_path)
    with union(tmp_path, [tmp_path / "lower"], upper=Interrupted, options=ON) as u:
        u.setattr("big", uid=5, mtime_ns=10**18)
        if linked:
            u.link("big", "other")
        seen: list[Attr] = []

        def meanwhile() -> None:
            MEANWHILE[name](u)
            with u.node("d/new" if name == "rename" else "other" if linked else "big") as node:
                seen.append(Attr.unpack(u.fs.getattr(node)))

        with u.node("big") as node:
            Interrupted.meanwhile = meanwhile if name != "unlink" or linked else lambda: MEANWHILE[name](u)
            fh = u.fs.open(node, os.O_RDWR).fh
            assert Interrupted.meanwhile is None
            assert u.fs.read(fh, 0, 1 << 20) == BIG.encode()
            u.fs.write(fh, 0, b"new")
            found = Attr.unpack(u.fs.getattr(node))
            u.fs.release(fh)
        for attr in (*seen, found._replace(mtime_ns=seen[0].mtime_ns if seen else 0)):
            assert attr.uid == (77 if name == "chown" else 5) and attr.size == len(BIG)
        assert all(attr.mtime_ns == (123 * 10**9 if name == "utime" else 10**18) for attr in seen)
        names = {"link": ["big", "d/new"], "rename": ["d/new"], "unlink": []}.get(name, ["big"])
        for path in [*names, *(["other"] if linked else [])]:
            assert u.read(path)[:5] == b"new34" and u.mark(path, "metacopy") is None, path
            assert u.stat(path).nlink == len(names) + linked


# names --------------------------------------------------------------------------------------------------------------
def test_a_renamed_metacopy_says_where_its_data_is(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.rename("big", "large")
        assert u.mark("large", "redirect") == b"big" and u.mark("large", "metacopy") == b""
        u.rename("large", "d/large")
        assert u.mark("d/large", "redirect") == b"/big"
        u.rename("d/large", "back")
        assert copied(u)[1] == 0 and u.read("back") == BIG.encode()
    with metacopying(tmp_path) as u:
        assert u.read("back") == BIG.encode() and not u.exists("big")
        u.rename("back", "d/e/again")
        u.write("d/e/again", b"new")
        assert u.read("d/e/again")[:5] == b"new34" and u.mark("d/e/again", "metacopy") is None


def test_a_metacopy_in_a_renamed_directory(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("d/f", uid=5)
        u.rename("d", "moved")
        u.setattr("moved/e/g", uid=6)
        u.rename("moved/e/g", "moved/g2")
        assert u.mark("moved/g2", "redirect") == b"/d/e/g"
        u.rename("moved/f", "moved/f2")
        assert u.mark("moved/f2", "redirect") == b"f"
    with metacopying(tmp_path) as u:
        assert (u.read("moved/f2"), u.read("moved/g2")) == (b"in d", b"in e")


def test_exchanged_metacopies_keep_their_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("d/f", uid=5)
        u.rename("d/f", "big", RENAME_EXCHANGE)
        assert (u.read("big"), u.read("d/f")) == (b"in d", BIG.encode())
    with metacopying(tmp_path) as u:
        assert (u.read("big"), u.read("d/f")) == (b"in d", BIG.encode())
        u.write("d/f", b"!")
        assert (u.read("big"), u.read("d/f")[:3]) == (b"in d", b"!12")


def test_a_linked_metacopy_is_one_file(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.link("big", "d/other")
        assert u.mark("big", "redirect") == b"/big" and copied(u)[1] == 0
        assert u.stat("big").nlink == 2
    with metacopying(tmp_path) as u:
        assert u.read("d/other") == BIG.encode()
        u.write("d/other", b"new")
        assert u.read("big")[:5] == b"new34" and u.stat("big") == u.stat("d/other")
        assert u.mark("big", "metacopy") is None
    assert (tmp_path / "lower/big").read_text() == BIG


@pytest.mark.parametrize("index", [True, False])
def test_a_group_of_lower_hard_links_is_one_metacopy(tmp_path: Path, index: bool) -> None:
    options = ON._replace(index=index)
    with metacopying(tmp_path, options=options) as u:
        u.setattr("d/hard", uid=5)
        assert u.stat("hard2") == u.stat("d/hard") and u.stat("hard2").nlink == 2
        assert copied(u)[1] == 0 and u.read("hard2") == b"linked"
        u.rename("hard2", "d/moved")
        u.write("d/moved", b"LINK")
        assert u.read("d/hard") == u.read("d/moved") == b"LINKed"
    if index:
        with metacopying(tmp_path, options=options) as u:
            assert u.stat("d/hard") == u.stat("d/moved") and u.read("d/hard") == b"LINKed"


def test_a_group_that_is_a_metacopy_is_found_by_the_name_that_is_not_stored(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("d/hard", uid=5)
    with metacopying(tmp_path) as u:
        assert u.stat("hard2").uid == 5 and u.read("hard2") == b"linked"
        u.write("hard2", b"LINK")
        assert u.read("d/hard") == b"LINKed"


def test_an_unlinked_metacopy_that_is_open_keeps_its_data(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("big", uid=5)
        with u.node("big") as node:
            fh = u.fs.open(node, os.O_RDONLY).fh
            u.unlink("big")
            u.fs.setattr(node, SetAttr(mode=0o600), ME, fh)
            assert u.fs.read(fh, 0, 1 << 20) == BIG.encode()
            u.fs.setattr(node, SetAttr(size=3), ME, None)
            assert u.fs.read(fh, 0, 10) == b"012"
            u.fs.release(fh)
        assert u.is_whiteout("big")


def test_a_directory_whose_redirect_cannot_be_held_takes_its_metacopies_along(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.setattr("d/f", uid=5)
        u.setattr("d/hard", uid=5)
    with metacopying(tmp_path, options=UnionOptions(redirect_dir=False)) as u:
        u.rename("d", "moved")
        assert u.mark("moved", "redirect") is None and u.mark("moved", "opaque") == b"y"
        assert u.mark("moved/f", "metacopy") is None and u.mark("moved/hard", "metacopy") is None
        assert (u.read("moved/f"), u.read("moved/hard"), u.read("hard2")) == (b"in d", b"linked", b"linked")


def test_the_place_of_a_metacopy_that_was_replaced_is_free_for_another_file(tmp_path: Path) -> None:
    with metacopying(tmp_path) as u:
        u.link("big", "other")
        with u.node("big") as node:
            old = os.lstat(u.upper / "big")
            u.unlink("other")
            u.fs.release(u.fs.open(node, os.O_WRONLY).fh)
            assert os.lstat(u.upper / "big").st_ino != old.st_ino
            assert (0, old.st_dev, old.st_ino) not in u.fs._union.table.real


def test_a_refresh_finds_the_data_where_it_is_now(tmp_path: Path) -> None:
    middle = tree(tmp_path / "middle", d=None)
    with metacopying(tmp_path, middle) as u:
        u.setattr("d/f", uid=5)
        with u.node("d/f") as node:
            (tmp_path / "lower/d/new").write_text("more and other data")
            os.rename(tmp_path / "lower/d/new", tmp_path / "lower/d/f")
            u.fs.refresh()
            assert u.read("d/f") == b"more and other data"
            assert Attr.unpack(u.fs.getattr(node)).uid == 5
            os.unlink(tmp_path / "lower/d/f")
            u.fs.refresh()
            with pytest.raises(FileNotFoundError):
                u.read("d/f")
            (tmp_path / "lower/d/f").write_text("back")
            u.fs.refresh()
            assert u.read("d/f") == b"back"
            (middle / "d/f").write_text("in another layer")
            u.fs.refresh()
            assert u.read("d/f") == b"in another layer"


# layers below ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [ON, UnionOptions()])
def test_a_chain_over_layers(tmp_path: Path, options: UnionOptions) -> None:
    lower(tmp_path)
    middle, top = tmp_path / "middle", tmp_path / "top"
    crafted(middle, "d/m", redirect="f", value=bytes((0, 8, 0, 1)) + b"abcd")  # with an fs-verity digest
    crafted(top, "t", redirect="/d/m")
    with metacopying(tmp_path, top, middle, options=options) as u:
        assert u.read("t") == u.read("d/m") == b"in d"
        assert u.stat("t").blocks == os.stat(tmp_path / "lower/d/f").st_blocks
        assert sorted(u.list()) == ["big", "d", "empty", "hard2", "t"]
        u.setattr("t", uid=5)
        u.rename("t", "d/t")
        assert u.read("d/t") == b"in d"
        u.write("d/m", b"IN")
        assert u.read("d/m") == b"IN d" and u.read("d/t") == b"in d"


def test_a_redirect_follows_the_directories_that_were_renamed_below(tmp_path: Path) -> None:
    lower(tmp_path)
    middle, top = tree(tmp_path / "middle", moved=None), tmp_path / "top"
    os.setxattr(middle / "moved", "trusted.overlay.redirect", b"/d")
    crafted(top, "t", redirect="/moved/e/g")
    with metacopying(tmp_path, top, middle) as u:
        assert u.read("t") == b"in e"


@pytest.mark.parametrize(
    "redirect", [None, "none", "/none", "/d", "..", "/../lower/big", "/d/../big", "d/f", "", "/d/f/x", "/t"]
)
def test_a_metacopy_without_data_is_eio(tmp_path: Path, redirect: str | None) -> None:
    lower(tmp_path)
    crafted(tmp_path / "top", "t", redirect=redirect)
    with metacopying(tmp_path, tmp_path / "top") as u:
        with pytest.raises(OSError) as refused:
            u.stat("t")
        assert refused.value.errno == errno.EIO
        fh = u.fs.opendir(ROOT)
        names = {entry.name: entry.node for entry in u.fs.readdirplus(fh, 0, 1 << 16, 152)}
        u.fs.releasedir(fh)
        for name, node in names.items():
            if node and name not in (b".", b".."):
                u.fs.forget(node, 1)
        assert names[b"t"] == 0 and names[b"big"]


@pytest.mark.parametrize("value", [b"\0", b"\1\4\0\0", b"\0\5\0\0"])
def test_a_mark_of_no_known_form_is_eio(tmp_path: Path, value: bytes) -> None:
    lower(tmp_path)
    crafted(tmp_path / "top", "big", value=value)
    with metacopying(tmp_path, tmp_path / "top") as u, pytest.raises(OSError) as refused:
        u.stat("big")
    assert refused.value.errno == errno.EIO


@pytest.mark.parametrize("encoding", ["kernel", "xattr", "aufs"])
def test_a_whiteout_between_a_metacopy_and_its_data(tmp_path: Path, encoding: str) -> None:
    lower(tmp_path)
    crafted(tmp_path / "top", "big")
    middle = tmp_path / "middle"
    middle.mkdir()
    if encoding == "kernel":
        os.mknod(middle / "big", 0o020000, 0)
    else:
        (middle / (".wh.big" if encoding == "aufs" else "big")).touch()
    if encoding == "xattr":
        os.setxattr(middle / "big", "trusted.overlay.whiteout", b"")
        os.setxattr(middle, "trusted.overlay.opaque", b"x")
    with metacopying(tmp_path, tmp_path / "top", tmp_path / "middle") as u, pytest.raises(OSError) as refused:
        u.stat("big")
    assert refused.value.errno == errno.EIO


def test_a_metacopy_that_a_user_may_have_made_is_not_followed(tmp_path: Path) -> None:
    """`user.` attributes are anybody's: whoever owns a file could read every other."""
    lower(tmp_path)
    os.chmod(tmp_path / "lower/big", 0o600)
    crafted(tmp_path / "top", "mine", redirect="/big", namespace="user")
    with metacopying(tmp_path, tmp_path / "top") as u:
        assert u.read("mine") == b"\0" * 4
    with metacopying(tmp_path, tmp_path / "top", options=UnionOptions(xattr_prefix=b"user.")) as u:
        assert u.read("mine") == BIG.encode()


def test_an_opaque_directory_does_not_end_an_absolute_redirect(tmp_path: Path) -> None:
    lower(tmp_path)
    crafted(tmp_path / "top", "d/t", redirect="/d/e/g")
    os.setxattr(tmp_path / "top/d", "trusted.overlay.opaque", b"y")
    with metacopying(tmp_path, tmp_path / "top") as u:
        assert u.list("d") == ["t"] and u.read("d/t") == b"in e"


# what it costs -----------------------------------------------------------------------------------------------------
class Counting(DirectoryLayer):
    """Counts what is asked of the attributes of its files, not of its directories."""

    asked = 0

    def getxattr(self, path: bytes, name: bytes) -> bytes | None:
        Counting.asked += not os.path.isdir(self.path + b"/" + path)
        return super().getxattr(path, name)


@pytest.mark.parametrize(("impure", "asked"), [(False, 0), (True, 4)])
def test_layers_nobody_copied_up_to_are_asked_nothing(tmp_path: Path, impure: bool, asked: int) -> None:
    base = tree(tmp_path / "lower", d__a="1", d__b="2", d__c="3", e__d="4")
    if impure:
        os.setxattr(base / "d", "trusted.overlay.impure", b"y")
    Counting.asked = 0
    fs = UnionFilesystem([Counting(str(base))], None, None)
    try:
        u = Rig(fs, base)
        for directory in ("", "d", "e"):
            with u.node(directory) as node:
                fh = fs.opendir(node)
                for entry in fs.readdirplus(fh, 0, 1 << 16, 152):
                    if entry.node and entry.name not in (b".", b".."):
                        fs.forget(entry.node, 1)
                fs.releasedir(fh)
        assert u.read("d/a") == b"1"
        # Each of three files as it is listed, and one as it is looked up anew.
        assert Counting.asked == asked
    finally:
        fs.close()
