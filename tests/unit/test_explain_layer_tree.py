"""`explain.layer_tree`: a row for every path, as `which` says it; states, origins, where the bytes are."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import layers as model
from tests.model import strategies
from tests.unit.explain_rig import ENCODINGS, Change, changed, changes, every_path, read_only
from tests.unit.overlay_rig import Rig, tree, union
from unionfs.explain import drawing, page
from unionfs.explain.layer_tree import LayerHeading, LayerTree, TreeRow, layer_tree
from unionfs.explain.location import Locator, Roots, Stored
from unionfs.explain.which import Place, which
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.overlay import UnionFilesystem, UnionOptions

needs_root = pytest.mark.needs_root


def check_rows(lowers: list[str], upper: str, work: str) -> None:
    """Every row is what `which` says of its path, and no path is left out."""
    with read_only(lowers, upper, work) as fs:
        rows = layer_tree(fs)
        fs.check_invariants()
        assert not fs._union.root.children  # nothing is kept in use
        paths = [row.path for row in rows]
        assert len(paths) == len(set(paths))
        assert paths == sorted(paths, key=lambda path: path.split(b"/") if path else [])
        for row in rows:
            assert row.which == which(fs, row.path)
            assert [item.part for item in row.items] == list(row.which.parts)
        check_below(rows)
        check_pictures(rows, len(lowers))
        for path in every_path(upper, *lowers) - set(paths):
            try:
                found = which(fs, path)
            except FileNotFoundError:
                continue  # a layer has it where a redirect does not lead
            assert not found.parts or {part.kind for part in found.parts} == {"whiteout"}, path


def check_pictures(rows: list[TreeRow], lowers: int) -> None:
    """Whatever there is can be drawn, and every row is in the page."""
    headings = tuple(LayerHeading(number, f"layer {number}") for number in range(lowers + 1))
    tree = LayerTree("any", headings, tuple(rows))
    drawn = ElementTree.fromstring(drawing.draw(tree))
    names = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert all("/" + os.fsdecode(row.path) in names for row in rows)
    (data,) = re.findall(r'id="data">(.*?)</script>', page.draw(tree))
    assert [row[1] for row in json.loads(data)["rows"]] == [os.fsdecode(row.name) for row in rows]


def check_below(rows: list[TreeRow]) -> None:
    for at, row in enumerate(rows):
        prefix = row.path + b"/" if row.path else b""
        inside = [one for one in rows[at + 1 :] if one.path.startswith(prefix)]
        assert rows[at + 1 : at + 1 + row.below] == inside
        assert row.depth == (row.path.count(b"/") + 1 if row.path else 0)


@needs_root
@settings(max_examples=60, deadline=None)
@given(strategies.stacks(ENCODINGS))
def test_every_path_of_any_stack_has_the_row_that_which_says(stack: model.Stack) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check_rows(*model.build(stack, directory))


@needs_root
@settings(max_examples=60, deadline=None)
@given(strategies.stacks(ENCODINGS), st.lists(changes(), min_size=1, max_size=8))
def test_redirects_metacopies_and_links_have_the_rows_that_which_says(stack: model.Stack, made: list[Change]) -> None:
    with changed(stack, made) as (lowers, upper, work, _):
        check_rows(lowers, upper, work)


# one thing at a time ----------------------------------------------------------------------------------------------
@pytest.fixture
def two(tmp_path: Path) -> Iterator[Rig]:
    top = tree(tmp_path / "top", etc__motd="the top", bin__app="app")
    base = tree(tmp_path / "base", etc__motd="base", etc__passwd="root", srv__a="a", srv__b="b", only__x="x")
    with union(tmp_path, [top, base], options=UnionOptions(metacopy=True)) as rig:
        yield rig


def rows_of(fs: UnionFilesystem) -> dict[str, TreeRow]:
    return {os.fsdecode(row.path): row for row in layer_tree(fs)}


def states(fs: UnionFilesystem) -> dict[str, str]:
    return {path: row.state for path, row in rows_of(fs).items()}


def test_nothing_is_changed(two: Rig) -> None:
    assert states(two.fs) == {
        "": "merged",
        "bin": "single",
        "bin/app": "single",
        "etc": "merged",
        "etc/motd": "overridden",
        "etc/passwd": "single",
        "only": "single",
        "only/x": "single",
        "srv": "single",
        "srv/a": "single",
        "srv/b": "single",
    }


@needs_root
def test_what_the_upper_changes(two: Rig) -> None:
    two.write("etc/motd", b"new")
    two.unlink("etc/passwd")
    two.create("etc/new", b"new")
    two.setattr("bin/app", mode=0o700)
    two.rename("srv", "www")
    two.rename("only/x", "moved")
    two.unlink("www/b")
    found = states(two.fs)
    assert {path: state for path, state in found.items() if state != "single"} == {
        "": "merged",
        "bin": "merged",
        "bin/app": "changed",
        "etc": "merged",
        "etc/motd": "changed",
        "etc/new": "added",
        "etc/passwd": "deleted",
        "moved": "moved",
        "only": "merged",
        "only/x": "deleted",
        "srv": "deleted",
        "srv/a": "deleted",
        "srv/b": "deleted",
        "www": "moved",
        "www/b": "deleted",
    }
    rows = rows_of(two.fs)
    assert rows["etc/motd"].origin == Place(1, b"etc/motd")
    assert rows["moved"].origin == Place(2, b"only/x")
    assert rows["etc/new"].origin is None
    assert rows["bin/app"].which.data == Place(1, b"bin/app")


def test_a_file_put_in_the_place_of_another_was_not_copied_up(two: Rig) -> None:
    two.unlink("etc/motd")
    two.create("etc/motd", b"another")
    row = rows_of(two.fs)["etc/motd"]
    assert (row.state, row.origin) == ("changed", None)


def test_what_a_file_hides_has_rows_too(two: Rig) -> None:
    two.unlink("only/x")
    two.rmdir("only")
    two.create("only", b"a file")
    rows = rows_of(two.fs)
    assert (rows["only"].state, rows["only"].below, rows["only/x"].state) == ("changed", 1, "deleted")


def test_items_say_how_a_part_is_stored(two: Rig, tmp_path: Path) -> None:
    os.chmod(tmp_path / "base/etc/motd", 0o4711)
    os.utime(tmp_path / "base/etc/motd", ns=(0, 1_000_000_007))
    os.symlink("motd", tmp_path / "top/etc/link")
    top, base = rows_of(two.fs)["etc/motd"].items
    assert (top.size, base.size, base.mode, base.mtime_ns) == (7, 4, 0o4711, 1_000_000_007)
    assert (base.uid, base.gid) == (os.getuid(), os.getgid())
    assert rows_of(two.fs)["etc/link"].items[0].target == b"motd"


def test_a_part_of_the_tree_and_no_deeper_than_asked_for(two: Rig) -> None:
    assert [row.path for row in layer_tree(two.fs, b"etc")] == [b"etc", b"etc/motd", b"etc/passwd"]
    rows = layer_tree(two.fs, depth=1)
    assert [(row.path, row.cut) for row in rows[:3]] == [(b"", False), (b"bin", True), (b"etc", True)]
    assert [(row.path, row.cut, row.below) for row in layer_tree(two.fs, b"etc", 0)] == [(b"etc", True, 0)]
    assert [row.path for row in layer_tree(two.fs, b"etc/motd")] == [b"etc/motd"]
    with pytest.raises(FileNotFoundError):
        layer_tree(two.fs, b"nothing")


def test_bytes_are_where_the_locator_says(two: Rig, tmp_path: Path) -> None:
    roots = Roots(tuple(os.fsencode(tmp_path / name) for name in ("upper", "top", "base")))
    rows = layer_tree(two.fs, locate=Locator(two.fs, roots).find)
    (row,) = [row for row in rows if row.path == b"etc/motd"]
    assert row.data == Stored(os.fsencode(tmp_path / "top/etc/motd"), 7)
    assert [row.data for row in rows if row.path == b"etc"] == [None]


@needs_root
def test_what_the_engine_fails_for_is_a_row_that_says_so(two: Rig, tmp_path: Path) -> None:
    os.setxattr(tmp_path / "base/srv/a", "trusted.overlay.metacopy", b"")  # and no layer below has data for it
    found = {os.fsdecode(row.path): row for row in layer_tree(two.fs)}
    assert (found["srv/a"].state, found["srv/a"].failure) == ("broken", os.strerror(errno.EIO))
    assert (found["srv/b"].state, found["srv"].below) == ("single", 2)
    two.fs.check_invariants()
    assert not two.fs._union.root.children
    tree = LayerTree("x", tuple(LayerHeading(number, f"layer{number}") for number in range(3)), tuple(found.values()))
    for text in (drawing.draw(tree), page.draw(tree)):
        assert os.strerror(errno.EIO) in text


def test_what_went_away_meanwhile_has_no_row() -> None:
    """A layer that somebody changes while it is shown: its directory was read, the name is gone."""

    class Leaving(MemoryLayer):
        def lstat(self, path: bytes) -> os.stat_result:
            if path == b"d/leaves":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return super().lstat(path)

    layer = Leaving(MemoryDisk(lambda: 0, 1), "base")
    layer.mkdir(b"d", 0o755)
    for name in (b"d/leaves", b"d/stays"):
        layer.create(name, 0o644).close()
    fs = UnionFilesystem([layer])
    try:
        assert [row.path for row in layer_tree(fs)] == [b"", b"d", b"d/stays"]
    finally:
        fs.close()


def test_a_tree_deeper_than_python_recurses() -> None:
    layer = MemoryLayer(MemoryDisk(lambda: 0, 1), "base")
    path = b""
    for _ in range(1100):
        path = path + b"/d" if path else b"d"
        layer.mkdir(path, 0o755)
    fs = UnionFilesystem([layer])
    try:
        rows = layer_tree(fs)
        assert (len(rows), rows[-1].depth, rows[0].below) == (1101, 1100, 1100)
    finally:
        fs.close()
