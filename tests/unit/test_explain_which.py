"""`explain.which`: which layer wins, what the others have, why that is not seen; held against what the union reads."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import layers as model
from tests.model import strategies
from tests.unit.explain_rig import (
    ENCODINGS,
    Change,
    changed,
    changes,
    every_path,
    layer_of,
    needs_root,
    read_only,
)
from tests.unit.overlay_rig import Rig, tree, union
from unionfs.api.paths import Tree
from unionfs.explain.which import Hider, Place, Which, which, which_all
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import Caller


def shown(merged: Tree, path: bytes) -> os.stat_result | None:
    """As lstat(2), but that no symbolic link is followed on the way."""
    parts = path.split(b"/")
    for end in range(1, len(parts)):
        with suppress(OSError):
            if merged.is_symlink(b"/".join(parts[:end])):
                return None
    try:
        return merged.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_path(fs: UnionFilesystem, merged: Tree, path: bytes) -> None:
    """What `which` says of a path is what the union does there."""
    st = shown(merged, path)
    try:
        found = which(fs, path)
    except FileNotFoundError:
        assert st is None, path
        return
    assert (found.kind is None) == (st is None), (path, found)
    assert (found.kind is None) == (not found.layers), (path, found)
    ended = False
    for part in found.parts:
        hidden = part.role in ("hidden", "linked")
        assert not hidden or part.hidden_by is not None, (path, found)
        assert not (ended and part.role in ("wins", "merged")), (path, found)
        past = part.hidden_by is not None and part.hidden_by.rule == "redirect"  # only the name, not the directory
        ended = ended or (part.role == "hidden" and not past) or part.opaque
        ended = ended or (part.role == "wins" and part.kind != "dir")
    if st is not None:
        assert found.parts and [part.role for part in found.parts].count("wins") == 1, (path, found)
        if found.kind == "file":
            assert read(fs, found) == merged.read_bytes(path), (path, found)
        (winner,) = [part for part in found.parts if part.role == "wins"]
        assert winner.kind == found.kind, (path, found)
        mode = layer_of(fs, winner.place).lstat(winner.place.path).st_mode
        assert stat.S_IFMT(mode) == stat.S_IFMT(st.st_mode), (path, found)
        if found.kind == "dir":
            names = {name for part in found.parts if part.role in ("wins", "merged") for name in stored(fs, part.place)}
            assert set(merged.listdir(path)) <= names, (path, found)
    elif found.parts:
        assert found.hider is not None or all(part.role == "whiteout" for part in found.parts), (path, found)


def stored(fs: UnionFilesystem, place: Place) -> list[bytes]:
    return [entry.name for entry in layer_of(fs, place).scan(place.path)]


def read(fs: UnionFilesystem, found: Which) -> bytes:
    assert found.data is not None
    file = layer_of(fs, found.data).open(found.data.path)
    try:
        return file.pread(1 << 20, 0)
    finally:
        file.close()


def check_all(lowers: list[str], upper: str, work: str) -> None:
    with read_only(lowers, upper, work) as fs:
        merged = Tree(fs, Caller(0, 0, 1, 0))
        for path in sorted({*every_path(upper, *lowers), b"a/b/c", b"d"}):
            check_path(fs, merged, path)
        assert [one.path for one in which_all(fs, b"")] == sorted(map(os.fsencode, merged.listdir("/")))


@needs_root
@settings(max_examples=100, deadline=None)
@given(strategies.stacks(ENCODINGS))
def test_every_path_of_any_stack_comes_from_where_the_union_reads_it(stack: model.Stack) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check_all(*model.build(stack, directory))


@needs_root
@settings(max_examples=100, deadline=None)
@given(strategies.stacks(ENCODINGS), st.lists(changes(), min_size=1, max_size=8))
def test_redirects_metacopies_and_linked_files_come_from_where_the_union_reads_them(
    stack: model.Stack, made: list[Change]
) -> None:
    with changed(stack, made) as (lowers, upper, work, _):
        check_all(lowers, upper, work)


# each rule --------------------------------------------------------------------------------------------------------
def told(fs: UnionFilesystem, path: str) -> list[tuple[int, str, str, str | None]]:
    """Of each part: its layer, path, role, and the rule that hides it."""
    parts = which(fs, os.fsencode(path)).parts
    return [
        (part.place.layer, os.fsdecode(part.place.path), part.role, part.hidden_by.rule if part.hidden_by else None)
        for part in parts
    ]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Rig]:
    """Two layers that have the same names, with other contents."""
    top = tree(tmp_path / "top", d__same="top", d__top="", alone="top")
    base = tree(tmp_path / "base", d__same="base!", d__base="", d__more__deep="deep", file="base")
    with union(tmp_path, [top, base], options=UnionOptions(metacopy=True)) as rig:
        yield rig


def test_the_topmost_file_wins_and_the_one_below_is_hidden_by_it(two: Rig) -> None:
    assert told(two.fs, "d/same") == [(1, "d/same", "wins", None), (2, "d/same", "hidden", "file")]
    found = which(two.fs, b"d/same")
    assert (found.kind, found.layers, found.data) == ("file", (1,), Place(1, b"d/same"))
    assert found.parts[1].hidden_by == Hider("file", Place(1, b"d/same"))


def test_a_directory_is_of_all_layers_that_have_it(two: Rig) -> None:
    assert told(two.fs, "d") == [(1, "d", "wins", None), (2, "d", "merged", None)]
    assert told(two.fs, "") == [(0, "", "wins", None), (1, "", "merged", None), (2, "", "merged", None)]


def test_a_copied_up_file_hides_both(two: Rig) -> None:
    two.write("d/same", b"new")
    assert told(two.fs, "d/same") == [
        (0, "d/same", "wins", None),
        (1, "d/same", "hidden", "file"),
        (2, "d/same", "hidden", "file"),
    ]


def test_a_deleted_name_is_hidden_by_its_whiteout(two: Rig) -> None:
    two.unlink("d/same")
    found = which(two.fs, b"d/same")
    assert (found.kind, found.layers, found.data) == (None, (), None)
    assert found.hider is not None and (found.hider.rule, found.hider.place.layer) == ("whiteout", 0)
    assert [(layer, role, rule) for layer, _, role, rule in told(two.fs, "d/same")] == [
        (0, "whiteout", None),
        (1, "hidden", "whiteout"),
        (2, "hidden", "whiteout"),
    ]


@needs_root
def test_what_is_in_a_deleted_directory_is_hidden_by_the_directorys_whiteout(two: Rig) -> None:
    two.unlink("d/more/deep")
    two.rmdir("d/more")
    assert which(two.fs, b"d/more/deep").hider == Hider("whiteout", Place(0, b"d/more"))


def test_a_name_in_an_opaque_directory_is_hidden_by_that(two: Rig) -> None:
    two.unlink("d/more/deep")
    two.rmdir("d/more")
    two.mkdir("d/more")
    assert told(two.fs, "d/more") == [(0, "d/more", "wins", None), (2, "d/more", "hidden", "opaque")]
    assert which(two.fs, b"d/more").parts[0].opaque
    assert which(two.fs, b"d/more/deep").hider == Hider("opaque", Place(0, b"d/more"))


def test_a_file_in_the_place_of_a_directory_hides_what_that_holds(two: Rig) -> None:
    two.unlink("d/more/deep")
    two.rmdir("d/more")
    two.create("d/more", b"a file")
    assert which(two.fs, b"d/more/deep").hider == Hider("file", Place(0, b"d/more"))


def test_a_directory_hides_the_file_below_and_that_the_directory_below_it(tmp_path: Path) -> None:
    layers = [
        tree(tmp_path / "one", x=None),
        tree(tmp_path / "two", x="file"),
        tree(tmp_path / "three", x__y=""),
    ]
    with union(tmp_path, layers) as rig:
        assert told(rig.fs, "x") == [
            (1, "x", "wins", None),
            (2, "x", "hidden", "directory"),
            (3, "x", "hidden", "file"),
        ]
        assert which(rig.fs, b"x/y").hider == Hider("file", Place(2, b"x"))


@needs_root
def test_a_renamed_directory_goes_on_where_its_redirect_says(two: Rig) -> None:
    two.mkdir("new")
    two.rename("d", "new/d")
    found = which(two.fs, b"new/d/same")
    assert told(two.fs, "new/d/same") == [(1, "d/same", "wins", None), (2, "d/same", "hidden", "file")]
    assert [(part.place, part.redirect) for part in found.redirects] == [(Place(0, b"new/d"), b"/d")]
    assert told(two.fs, "d/same")[-1] == (2, "d/same", "hidden", "whiteout")


@needs_root
def test_what_a_layer_has_under_the_name_that_a_redirect_passes_by(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", old__x="", new__y="")
    with union(tmp_path, [base]) as rig:
        rig.unlink("new/y")
        rig.rmdir("new")
        rig.rename("old", "new")
        assert told(rig.fs, "new") == [
            (0, "new", "wins", None),
            (1, "old", "merged", None),
            (1, "new", "hidden", "redirect"),
        ]


@needs_root
def test_what_is_hidden_below_a_redirect_is_looked_for_where_that_leads(tmp_path: Path) -> None:
    layers = [tree(tmp_path / "top", d__x=""), tree(tmp_path / "middle", d="file"), tree(tmp_path / "base", d__y="")]
    with union(tmp_path, layers) as rig:
        rig.mkdir("new")
        rig.rename("d", "new/d")
        assert told(rig.fs, "new/d") == [
            (0, "new/d", "wins", None),
            (1, "d", "merged", None),
            (2, "d", "hidden", "directory"),
            (3, "d", "hidden", "file"),
        ]
        assert told(rig.fs, "new/d/y") == [(3, "d/y", "hidden", "file")]


@needs_root
def test_a_metacopy_has_its_data_below(two: Rig) -> None:
    two.setattr("d/same", mode=0o600)
    found = which(two.fs, b"d/same")
    assert (found.layers, found.data) == ((0, 1), Place(1, b"d/same"))
    assert [(part.role, part.metacopy) for part in found.parts] == [("wins", True), ("data", False), ("hidden", False)]


@needs_root
def test_a_name_whose_file_was_copied_up_by_another_name_comes_from_the_index(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", a="one")
    os.link(base / "a", base / "b")
    with union(tmp_path, [base]) as rig:
        assert [part.links for part in which(rig.fs, b"b").parts] == [2]
        rig.write("a", b"two")
        found = which(rig.fs, b"b")
        assert [(part.place.layer, part.place.in_work, part.role) for part in found.parts] == [
            (0, True, "wins"),
            (1, False, "linked"),
        ]
        assert read(rig.fs, found) == b"two"


@needs_root
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_whiteouts_of_lower_layers_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    def directory(path: str, opaque: bool = False) -> model.Node:
        return model.Node("dir", path, opaque=opaque)

    top = (directory("d"), model.Node("whiteout", "d/x"), directory("o", opaque=True))
    base = (directory("d"), model.Node("file", "d/x", data=b"x"), directory("o"), model.Node("file", "o/y"))
    (tmp_path / "stack").mkdir()
    stack = model.build(model.Stack((top, base), (), (encoding, encoding)), str(tmp_path / "stack"))
    mark = b"d/.wh.x" if encoding == "aufs" else b"d/x"
    with read_only(*stack) as fs:
        assert which(fs, b"d/x").hider == Hider("whiteout", Place(1, mark))
        assert which(fs, b"o/y").hider == Hider("opaque", Place(1, b"o"))


def test_an_aufs_whiteout_leaves_its_own_layers_entry(tmp_path: Path) -> None:
    layers = [tree(tmp_path / "top", **{"x": "new", ".wh.x": ""}), tree(tmp_path / "base", x="old")]
    with union(tmp_path, layers) as rig:
        assert [one[:3] for one in told(rig.fs, "x")] == [
            (1, "x", "wins"),
            (1, ".wh.x", "whiteout"),
            (2, "x", "hidden"),
        ]


@pytest.mark.parametrize("marked", [True, False])
def test_an_uppers_wh_names_are_marks_where_its_root_says_so(tmp_path: Path, marked: bool) -> None:
    base = tree(tmp_path / "base", x="base", d__y="base")
    upper = tree(tmp_path / "upper", **{".wh.x": "", "d__.wh..wh..opq": ""}, **({".wh..wh.aufs": ""} if marked else {}))
    work = tree(tmp_path / "work")
    with read_only([str(base)], str(upper), str(work)) as fs:
        for path, mark in ((b"x", Hider("whiteout", Place(0, b".wh.x"))), (b"d/y", Hider("opaque", Place(0, b"d")))):
            found = which(fs, path)
            assert (found.hider, found.layers) == ((mark, ()) if marked else (None, (1,)))


@needs_root
def test_somebodys_wh_file_beside_a_whiteout_is_not_taken_for_the_mark(tmp_path: Path) -> None:
    base, upper = tree(tmp_path / "base", x="base"), tree(tmp_path / "upper", **{".wh.x": "somebody's"})
    os.mknod(upper / "x", stat.S_IFCHR, os.makedev(0, 0))
    with read_only([str(base)], str(upper), str(tree(tmp_path / "work"))) as fs:
        assert which(fs, b"x").hider == Hider("whiteout", Place(0, b"x"))


def test_what_no_layer_has_is_not_found(two: Rig) -> None:
    for path in (b"nothing", b"file/below", b"d/more/nothing"):
        with pytest.raises(FileNotFoundError):
            which(two.fs, path)


def test_all_names_of_a_directory_with_their_layers(two: Rig) -> None:
    two.unlink("d/top")
    two.create("d/new")
    listed = which_all(two.fs, b"d")
    assert [(one.path, one.layers) for one in listed] == [
        (b"d/base", (2,)),
        (b"d/more", (2,)),
        (b"d/new", (0,)),
        (b"d/same", (1,)),
    ]
    with pytest.raises(NotADirectoryError):
        which_all(two.fs, b"file")
