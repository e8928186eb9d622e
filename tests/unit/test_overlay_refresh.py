"""Layers changed behind the union's back: before `refresh` nothing but an errno, after it what a new mount shows."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.posix.tools import expect
from tests.unit.overlay_rig import ME, Rig, tree, union
from unionfs.layers.fd_file import FdFile
from unionfs.layers.upper import WritableDirectory
from unionfs.vfs import Attr


@contextmanager
def opened(rig: Rig, path: str, flags: int = os.O_RDONLY) -> Iterator[tuple[int, int]]:
    with rig.node(path) as node:
        fh = rig.fs.open(node, flags).fh
        yield node, fh
        rig.fs.release(fh)


PATHS = "", "d", "d/f", "d/hard", "d/g", "d/top", "e2", "e2/h", "new"


def seen(rig: Rig, path: str) -> Attr:
    return rig.stat(path)._replace(atime_ns=0)  # reading a directory moves it


def test_refresh_when_nothing_changed_changes_nothing(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", d__f="f", d__g="g", gone="gone", e__h="h")
    top = tree(tmp_path / "top", d__top="top")
    os.link(base / "d/f", base / "d/hard")
    with union(tmp_path, [top, base]) as rig:
        rig.write("d/g", b"changed")
        rig.unlink("gone")
        rig.rename("e", "e2")
        rig.write("d/hard", b"H")
        rig.mkdir("new")
        with opened(rig, "d/f") as (node, fh), rig.node("e2/h") as held:
            before = [seen(rig, path) for path in PATHS]
            found = rig.fs.refresh()
            rig.fs.check_invariants()
            assert (found.gone, found.come) == ((), ())
            assert [seen(rig, path) for path in PATHS] == before
            with rig.node("e2/h") as again:
                assert (again, rig.fs.read(fh, 0, 9)) == (held, b"H")
            assert Attr.unpack(rig.fs.getattr(node)).nlink == 2
        assert (rig.list(), rig.list("d")) == (["d", "e2", "new"], ["f", "g", "hard", "top"])


def test_new_removed_and_replaced_files_are_noticed(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", d__keep="keep", d__gone="gone", d__other="other")
    names = "d/keep", "d/gone", "d/other"
    with union(tmp_path, [base]) as rig, ExitStack() as held:
        keep, gone, other = (held.enter_context(rig.node(name)) for name in names)
        assert not rig.exists("d/new")
        (base / "d/new").write_text("new")
        (base / "d/gone").unlink()
        (base / "d/fresh").write_text("another")
        os.rename(base / "d/fresh", base / "d/other")
        (base / "d/keep").write_text("longer than before")
        found = rig.fs.refresh()
        rig.fs.check_invariants()
        assert {name for _, name in found.gone} == {b"gone", b"other"}
        assert {name for _, name in found.come} == {b"new"}
        assert rig.list("d") == ["keep", "new", "other"]
        assert (rig.read("d/new"), rig.read("d/other")) == (b"new", b"another")
        with rig.node("d/keep") as again:
            assert (again, rig.stat("d/keep").size) == (keep, 18)
        for node in (gone, other):
            with expect(errno.ESTALE):
                rig.fs.getattr(node)
            with expect(errno.ESTALE):
                rig.fs.open(node, os.O_RDWR)


def test_open_file_of_a_lower_goes_on_after_it_vanished(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", f="content")
    with union(tmp_path, [base]) as rig, opened(rig, "f") as (node, fh):
        (base / "f").unlink()
        (base / "f").write_text("another")
        rig.fs.refresh()
        assert (rig.fs.read(fh, 0, 100), Attr.unpack(rig.fs.getattr(node, fh)).size) == (b"content", 7)
        with expect(errno.ESTALE):
            rig.fs.open(node, os.O_WRONLY)
        assert rig.read("f") == b"another"
        rig.write("f", b"A")
        assert (rig.fs.read(fh, 0, 100), rig.read("f")) == (b"content", b"Another")


def test_file_and_directory_change_places(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", f="file", d__sub__x="x")
    with (
        union(tmp_path, [base]) as rig,
        rig.node("f") as file,
        rig.node("d/sub/x"),
        rig.node("d") as directory,
    ):
        fh = rig.fs.opendir(directory)
        (base / "f").unlink()
        tree(base, f__inside="inside")
        shutil.rmtree(base / "d")
        (base / "d").write_text("a file now")
        rig.fs.refresh()
        rig.fs.check_invariants()
        assert (rig.list(), rig.list("f"), rig.read("d")) == (["d", "f"], ["inside"], b"a file now")
        assert rig.fs.readdir(fh, 0, 4096, 24) == []
        with expect(errno.ENOENT):
            rig.fs.mkdir(directory, b"new", 0o755, ME)
        with expect(errno.ESTALE):
            rig.fs.readlink(file)
        rig.fs.releasedir(fh)


def test_names_of_a_hard_link_come_and_go(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", f="shared", sub=None)
    for name in ("g", "sub/h"):
        os.link(base / "f", base / name)
    with union(tmp_path, [base]) as rig, rig.node("f"), rig.node("sub/h") as node:
        (base / "f").unlink()
        rig.fs.refresh()
        rig.fs.check_invariants()
        assert (rig.list(), rig.stat("g").nlink, rig.read("sub/h")) == (["g", "sub"], 2, b"shared")
        assert Attr.unpack(rig.fs.getattr(node)).ino == rig.stat("g").ino
        rig.write("g", b"S")
        rig.fs.refresh()
        rig.fs.check_invariants()
        assert (rig.read("g"), rig.read("sub/h")) == (b"Shared", b"Shared")


def test_layers_of_a_directory_come_and_go(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", d__below="below")
    top = tree(tmp_path / "top", other=None)
    with union(tmp_path, [top, base]) as rig, rig.node("d") as node:
        assert rig.list("d") == ["below"]
        tree(top, d__above="above", d__below="covers")
        rig.fs.refresh()
        with rig.node("d") as again:
            assert (again, rig.list("d"), rig.read("d/below")) == (node, ["above", "below"], b"covers")
        (top / "d/.wh..wh..opq").touch()
        (top / "d/below").unlink()
        rig.fs.refresh()
        assert rig.list("d") == ["above"]
        (top / "d/.wh..wh..opq").unlink()
        (top / "d/.wh.above").touch()
        (top / "d/above").unlink()
        rig.fs.refresh()
        assert rig.list("d") == ["below"]
        shutil.rmtree(top / "d")
        rig.fs.refresh()
        assert rig.read("d/below") == b"below"


def test_changes_of_the_union_stay_over_a_change_below(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", d__f="f", d__g="g", d__h="h", e__x="x")
    with union(tmp_path, [base]) as rig:
        rig.write("d/f", b"F")
        rig.unlink("d/g")
        rig.rename("e", "e2")
        number = rig.stat("d/f").ino
        shutil.rmtree(base / "d")
        tree(base, d__g="new g", d__f="new f", d__i="i", e__y="y")
        rig.fs.refresh()
        rig.fs.check_invariants()
        assert (rig.list("d"), rig.read("d/f"), rig.stat("d/f").ino) == (["f", "i"], b"F", number)
        assert (rig.list(), rig.list("e2")) == (["d", "e2"], ["x", "y"])


def test_reading_a_directory_goes_on_where_it_was(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", **{f"f{i:03}": "" for i in range(100)})
    with union(tmp_path, [base]) as rig, rig.node("") as node:
        fh = rig.fs.opendir(node)
        names: list[str] = []
        offset = removed = 0
        while entries := rig.fs.readdir(fh, offset, 400, 24):
            names += [entry.name.decode() for entry in entries]
            offset = entries[-1].cookie
            (base / names[-1]).unlink(missing_ok=True)
            (base / f"new{removed}").touch()
            removed += 1
            rig.fs.refresh()
        assert len(names) == len(set(names)) and removed > 5
        assert {f"f{i:03}" for i in range(100)} <= set(names)
        rig.fs.releasedir(fh)


def test_refresh_while_a_file_is_copied_up(tmp_path: Path) -> None:
    """The source vanishes, and that is noticed, between the copying of its data and its becoming the file."""
    base = tree(tmp_path / "base", f="content")
    meanwhile: list[Callable[[], object]] = []

    class Interleaved(FdFile):
        def fsync(self, datasync: bool) -> None:
            while meanwhile:
                meanwhile.pop(0)()

    class Upper(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return Interleaved(super().create(path, mode, flags).fd)

    with union(tmp_path, [base], upper=Upper) as rig, opened(rig, "f") as (node, fh):
        meanwhile += [(base / "f").unlink, rig.fs.refresh]
        with expect(errno.ENOENT):
            rig.fs.open(node, os.O_WRONLY)
        rig.fs.check_invariants()
        assert (meanwhile, rig.stored(), os.listdir(tmp_path / "work/work")) == ([], [], [])
        assert (rig.fs.read(fh, 0, 100), rig.list()) == (b"content", [])


def test_layer_directory_itself_is_removed(tmp_path: Path) -> None:
    base, top = tree(tmp_path / "base", f="f"), tree(tmp_path / "top", g="g", d__x="x")
    with union(tmp_path, [top, base]) as rig, opened(rig, "g") as (_, fh), rig.node("d/x"):
        shutil.rmtree(top)
        rig.fs.refresh()
        rig.fs.check_invariants()
        assert (rig.list(), rig.fs.read(fh, 0, 9), rig.read("f")) == (["f"], b"g", b"f")
        rig.create("new", b"n")
        assert rig.list() == ["f", "new"]
