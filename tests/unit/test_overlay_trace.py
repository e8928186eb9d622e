"""The steps that the engine reports, and what it finds under a name: for each kind of operation, on real directories.

A last test has the layers themselves counted: whatever the engine makes, moves or removes in the upper is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.overlay_rig import ME, Rig, tree, union
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionOptions
from unionfs.overlay.inode import DirInode
from unionfs.overlay.lookup import child
from unionfs.overlay.step import Step
from unionfs.overlay.trace import found, looked
from unionfs.vfs import ROOT

Steps = list[tuple[str, ...]]


@contextmanager
def told(u: Rig) -> Iterator[list[Step]]:
    steps: list[Step] = []
    u.fs.trace(steps.append)
    try:
        yield steps
    finally:
        u.fs.trace(None)


def short(steps: list[Step]) -> Steps:
    """kind, layer:path, and what there is besides; listings left out."""
    result = []
    for step in steps:
        if step.kind == "listed":
            continue
        path = "(staged)" if step.path.startswith((b"work/#", b"index/")) else os.fsdecode(step.path)
        words = [step.kind, f"{step.layer}:{path}"]
        if step.what:
            words.append(step.what)
        if step.kind == "copied-up" and step.what != "dir":
            words.append(str(step.size))
        if step.other is not None and not step.other.startswith(b"index/"):
            words.append(os.fsdecode(step.other))
        result.append(tuple(words))
    return result


@pytest.fixture
def u(tmp_path: Path) -> Iterator[Rig]:
    top = tree(tmp_path / "top", etc__motd="top")
    base = tree(tmp_path / "base", etc__motd="base", etc__passwd="root", srv__www__index="hello", bin__a="linked")
    os.link(base / "bin/a", base / "bin/b")
    with union(tmp_path, [top, base]) as made:
        yield made


def test_a_copy_up_tells_the_parents_the_bytes_and_the_rename(u: Rig) -> None:
    with told(u) as steps:
        u.write("etc/passwd", b"x", 4)
    assert short(steps) == [
        ("copied-up", "2:etc/passwd", "file", "4"),
        ("impure", "0:"),
        ("copied-up", "1:etc", "dir"),
        ("placed", "0:etc"),
        ("impure", "0:etc"),
        ("placed", "0:etc/passwd"),
    ]


def test_a_truncated_file_copies_no_bytes(u: Rig) -> None:
    with told(u) as steps:
        u.write("etc/passwd", b"", flags=os.O_TRUNC)
    assert ("copied-up", "2:etc/passwd", "file", "0") in short(steps)


def test_removing_a_lower_file_tells_of_the_whiteout(u: Rig) -> None:
    u.setattr("etc", mode=0o755)
    with told(u) as steps:
        u.unlink("etc/passwd")
    assert short(steps) == [("whiteout", "0:etc/passwd")]


def test_removing_a_copied_up_file_tells_of_both(u: Rig) -> None:
    u.write("etc/passwd", b"x")
    with told(u) as steps:
        u.unlink("etc/passwd")
    assert short(steps) == [("removed", "0:etc/passwd"), ("whiteout", "0:etc/passwd")]


def test_removing_what_only_the_upper_has(u: Rig) -> None:
    u.create("new")
    u.mkdir("dir")
    with told(u) as steps:
        u.unlink("new")
        u.rmdir("dir")
    assert short(steps) == [("removed", "0:new"), ("removed", "0:dir")]


def test_an_open_file_that_loses_its_name_is_kept(u: Rig) -> None:
    u.create("new")
    with u.node("new") as node:
        fh = u.fs.open(node, os.O_RDONLY).fh
        with told(u) as steps:
            u.unlink("new")
        u.fs.release(fh)
    assert short(steps) == [("removed", "0:new"), ("kept", "0:(staged)")]


def test_a_directory_in_the_place_of_a_whiteout_is_opaque(u: Rig) -> None:
    u.unlink("srv/www/index")
    u.rmdir("srv/www")
    with told(u) as steps:
        u.mkdir("srv/www")
    assert short(steps) == [("opaque", "0:(staged)"), ("placed", "0:srv/www", "whiteout")]


def test_a_renamed_lower_directory_gets_a_redirect(u: Rig) -> None:
    u.setattr("srv", mode=0o755)
    with told(u) as steps:
        u.rename("srv/www", "srv/site")
    assert short(steps) == [
        ("impure", "0:srv"),
        ("copied-up", "2:srv/www", "dir"),
        ("placed", "0:srv/www"),
        ("redirect", "0:srv/www", "www"),
        ("renamed", "0:srv/site", "srv/www"),
        ("whiteout", "0:srv/www"),
    ]


def test_an_exchange(u: Rig) -> None:
    u.create("one")
    u.create("two")
    with told(u) as steps:
        u.rename("one", "two", flags=2)
    assert short(steps) == [("exchanged", "0:two", "one")]


def test_a_hard_link_group_tells_of_index_and_link(u: Rig) -> None:
    u.setattr("bin", mode=0o755)
    with told(u) as steps:
        u.write("bin/a", b"x")
    assert short(steps) == [
        ("copied-up", "2:bin/a", "file", "6"),
        ("impure", "0:bin"),
        ("index", "0:(staged)"),
        ("linked", "0:bin/a"),
    ]


def test_a_metacopy_and_then_its_data(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", file="data")
    options = UnionOptions(xattr_prefix=b"trusted.", metacopy=True)
    with union(tmp_path, [base], options=options) as u:
        if not u.fs._union.metacopy:
            pytest.skip("metacopies take root")
        with told(u) as steps:
            u.setattr("file", mode=0o600)
        assert ("copied-up", "1:file", "metacopy", "0") in short(steps)
        with told(u) as steps:
            u.write("file", b"x")
        assert short(steps) == [("copied-up", "1:file", "data", "4"), ("placed", "0:file")]


def test_a_directory_is_told_when_it_is_read_and_not_again(u: Rig) -> None:
    with told(u) as steps, u.node("etc"):  # which keeps it in use
        u.list("etc")
        u.list("etc")
        assert not u.exists("etc/nothing")
    assert [(step.path, step.size) for step in steps if step.kind == "listed"] == [(b"", 3), (b"etc", 2)]


def test_nothing_is_told_any_more_when_nobody_wants_it(u: Rig) -> None:
    with told(u) as steps:
        pass
    u.unlink("etc/passwd")
    assert steps == []


# names ----------------------------------------------------------------------------------------------------------------
def under(u: Rig, path: str) -> list[tuple[int, str]]:
    head, _, name = path.rpartition("/")
    with u.node(head) as node:
        directory = u.fs._union.table.nodes[node]
        assert isinstance(directory, DirInode)
        return [(step.layer, step.what) for step in looked(u.fs._union, directory, os.fsencode(name))]


def test_what_is_under_a_name_ends_at_the_first_that_has_it(u: Rig) -> None:
    assert under(u, "etc/motd") == [(1, "file")]  # the upper has no etc
    assert under(u, "etc/passwd") == [(1, "no"), (2, "file")]
    assert under(u, "etc/nothing") == [(1, "no"), (2, "no")]
    assert under(u, "etc") == [(0, "no"), (1, "dir")]
    u.unlink("etc/passwd")
    assert under(u, "etc/passwd") == [(0, "whiteout")]


def test_what_is_under_a_name_in_a_layer_of_another_encoding(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", etc=None, srv=None)
    (top / "etc/.wh.a").write_text("")
    (top / "srv/.wh..wh..opq").write_text("")
    base = tree(tmp_path / "base", etc__a="a", srv__b="b")
    with union(tmp_path, [top, base]) as u:
        assert under(u, "etc/a") == [(1, "whiteout")]
        assert under(u, "srv/b") == [(1, "no"), (1, "opaque")]
        assert not u.exists("etc/a") and not u.exists("srv/b")


def test_where_something_is_found(u: Rig) -> None:
    engine = u.fs._union
    for path, layers in (("etc", (1, 2)), ("etc/passwd", (2,)), ("", (0, 1, 2))):
        with u.node(path) as node:
            place = found(engine, engine.inode(node))
            assert place is not None and place.layers == layers
    u.write("etc/passwd", b"x")
    with u.node("etc/passwd") as node:
        place = found(engine, engine.inode(node))
        assert place is not None and (place.layer, place.path) == (0, b"etc/passwd")


def test_what_is_told_under_a_name_is_what_the_lookup_finds(u: Rig) -> None:
    """On a tree that operations have gone over: the last layer that has the name is the one that it comes from."""
    u.unlink("etc/passwd")
    u.write("etc/motd", b"x")
    u.rename("srv/www", "srv/site")
    u.unlink("bin/a")
    engine, checked = u.fs._union, 0
    for path in ("etc", "srv", "bin", ""):
        with u.node(path) as node:
            directory = engine.directory(node)
            for name in (b"motd", b"passwd", b"www", b"site", b"a", b"b", b"etc", b"srv", b"nothing"):
                steps = looked(engine, directory, name)
                inode = child(engine, directory, name)
                last = steps[-1] if steps else None
                if inode is None:
                    assert last is None or last.what in ("no", "whiteout", "opaque")
                else:
                    place = found(engine, inode)
                    assert last is not None and place is not None
                    assert last.layer == place.layer or place.path.startswith(b"index/"), (path, name)
                    checked += 1
                engine.release_unused(inode)
    assert checked == 5


# nothing is forgotten -------------------------------------------------------------------------------------------------
class _Counted(WritableDirectory):
    """An upper that notes which of its paths come, go or change marks."""

    changed: set[bytes]

    def _note(self, *paths: bytes) -> None:
        self.__dict__.setdefault("changed", set()).update(
            path for path in paths if not path.startswith((b"work", b"index"))
        )


for _name in ("create", "mkdir", "mknod", "symlink", "unlink", "rmdir"):

    def _method(self: _Counted, path: bytes, *args: object, _of: str = _name) -> object:
        result = getattr(WritableDirectory, _of)(self, path, *args)
        self._note(path)
        return result

    setattr(_Counted, _name, _method)


def _rename(self: _Counted, path: bytes, to: WritableDirectory, to_path: bytes, flags: int = 0) -> None:
    WritableDirectory.rename(self, path, to, to_path, flags)
    self._note(path)
    assert isinstance(to, _Counted)
    to._note(to_path)


def _link(self: _Counted, path: bytes, to: WritableDirectory, to_path: bytes) -> None:
    WritableDirectory.link(self, path, to, to_path)
    assert isinstance(to, _Counted)
    to._note(to_path)


_Counted.rename = _rename  # type: ignore[method-assign, assignment]
_Counted.link = _link  # type: ignore[method-assign, assignment]

OPERATIONS: list[Callable[[Rig], None]] = [
    lambda u: u.write("etc/passwd", b"x"),
    lambda u: u.unlink("etc/motd"),
    lambda u: u.mkdir("etc/motd"),
    lambda u: u.rmdir("etc/motd"),
    lambda u: u.rename("srv", "www"),
    lambda u: u.rename("etc/passwd", "www/passwd"),
    lambda u: u.link("www/passwd", "etc/again"),
    lambda u: u.write("bin/a", b"x"),
    lambda u: u.unlink("bin/a"),
    lambda u: u.unlink("bin/b"),
    lambda u: u.rename("etc/again", "www/www/index"),
    lambda u: u.rmdir("bin"),
    lambda u: u.fs.forget(u.fs.symlink(ROOT, b"bin", b"etc", ME).node, 1),
]


def test_whatever_comes_or_goes_in_the_upper_is_told(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", etc__motd="base", etc__passwd="root", srv__www__index="hello", bin__a="linked")
    os.link(base / "bin/a", base / "bin/b")
    counted = 0
    with union(tmp_path, [base], upper=_Counted) as u:
        upper = u.fs._union.stack.upper
        for number, operation in enumerate(OPERATIONS):
            upper.__dict__["changed"] = set()
            with told(u) as steps:
                operation(u)
            said = {step.path for step in steps} | {step.other for step in steps}
            # What is made in place by one call is what the request itself says.
            assert upper.__dict__["changed"] - said == set(), (number, steps)
            counted += len(upper.__dict__["changed"])
    assert counted >= 15
