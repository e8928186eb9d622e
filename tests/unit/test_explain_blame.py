"""`explain.blame`: held against `diff` of the union with and without each layer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import layers as model
from tests.model import strategies
from tests.unit.explain_rig import ENCODINGS, Change, changed, changes, every_path, needs_root, read_only
from tests.unit.overlay_rig import tree
from unionfs.changeset.tree import Tree as Handles
from unionfs.compare.changes import as_change
from unionfs.compare.view import FilesystemView
from unionfs.compare.walk import Side
from unionfs.compare.walk import differences as compared
from unionfs.errors import LayerError
from unionfs.explain.blame import MAX_TEXT, Touch, blame, blame_lines, blame_tree
from unionfs.explain.versions import Versions
from unionfs.layers.directory import DirectoryLayer
from unionfs.overlay import UnionFilesystem
from unionfs.vfs import DT_DIR

WORDS = {"A": "added", "C": "changed", "D": "deleted"}


def differences(versions: Versions, paths: set[bytes]) -> dict[int, dict[bytes, str]]:
    """By layer and path: how the union with the layer differs from the one without."""
    by_layer = {}
    for number in versions.numbers:
        before = versions.before(number)
        if before is None:
            continue
        sides = [Side(FilesystemView(fs)) for fs in (before, versions.at(number))]
        found = [as_change(one) for one in compared(*sides, exact=True, parents=True) if one.path]
        for side in sides:
            side.view.close()
        # Of what was in a directory that is gone, or something else now, a diff does not speak.
        gone = tuple(change.path + b"/" for change in found if change.was == DT_DIR and change.kind in ("C", "D"))
        with Handles(before) as below, Handles(versions.at(number)) as above:
            lost = {path for path in paths if path.startswith(gone) and below.resolve(path) and not above.resolve(path)}
        by_layer[number] = dict.fromkeys(lost, "D") | {change.path: str(change.kind) for change in found}
    return by_layer


def _is_dir(touch: Touch | None) -> bool:
    return touch is not None and touch.kind == "dir"


def check(fs: UnionFilesystem, paths: set[bytes]) -> None:
    by_layer = differences(Versions(fs), paths)
    last = {one.path: one.layer for one in blame_tree(fs, b"")}
    for path in sorted(paths):
        try:
            found = blame(fs, path)
        except FileNotFoundError:
            assert path not in last and not any(path in changed for changed in by_layer.values()), path
            continue
        assert (path in last) == (found.kind not in (None, "dir")), found
        assert last.get(path) in (None, found.touches[0].layer), (found, last[path])
        touches = {touch.layer: touch for touch in found.touches}
        for number, theirs in by_layer.items():
            touch, change = touches.get(number), theirs.get(path)
            action = None if touch is None or touch.action == "same" else touch.action
            # To a diff a directory is changed by what changes in it, and not by an opaque mark that hides nothing.
            if (change == "C" and action is None) or (action == "changed" and _is_dir(touch)):
                continue
            assert action == (None if change is None else WORDS[change]), (path, number, found, changed)


@needs_root
@settings(max_examples=40, deadline=None)
@given(strategies.stacks(ENCODINGS))
def test_each_layer_of_any_stack_did_what_it_differs_in_from_those_below(stack: model.Stack) -> None:
    with tempfile.TemporaryDirectory() as directory:
        lowers, upper, work = model.build(stack, directory)
        with read_only(lowers, upper, work) as fs:
            check(fs, set(every_path(upper, *lowers)))


@needs_root
@settings(max_examples=40, deadline=None)
@given(strategies.stacks(ENCODINGS), st.lists(changes(), min_size=1, max_size=8))
def test_what_was_renamed_linked_or_changed_in_the_upper_is_the_uppers_doing(
    stack: model.Stack, made: list[Change]
) -> None:
    with changed(stack, made) as (lowers, upper, work, names), read_only(lowers, upper, work) as fs:
        check(fs, names | set(every_path(upper, *lowers)))


def union(tmp_path: Path, *names: str) -> UnionFilesystem:
    return UnionFilesystem([DirectoryLayer(str(tmp_path / name)) for name in names])


def test_lines_keep_the_layer_they_came_with_until_the_file_is_deleted(tmp_path: Path) -> None:
    tree(tmp_path / "base", f="one\ntwo\nthree\n", g="same\n")
    tree(tmp_path / "middle", f="one\n2\nthree\nfour\n")
    os.chmod(tmp_path / "middle/f", 0o600)
    tree(tmp_path / "top", f="zero\none\n2\nfour", g="new\nsame\n")
    tree(tmp_path / "gone")
    (tmp_path / "gone/.wh.g").touch()
    fs = union(tmp_path, "top", "gone", "middle", "base")
    try:
        lines = [(line.layer, line.text) for line in blame_lines(fs, b"f")]
        assert lines == [(1, b"zero"), (4, b"one"), (3, b"2"), (3, b"four")]
        assert [line.layer for line in blame_lines(fs, b"g")] == [1, 1]
        assert [(touch.layer, touch.action) for touch in blame(fs, b"g").touches] == [
            (1, "added"),
            (2, "deleted"),
            (4, "added"),
        ]
    finally:
        fs.close()


def test_a_version_that_is_too_large_has_no_lines(tmp_path: Path) -> None:
    tree(tmp_path / "base", f="")
    tree(tmp_path / "top", f="small\n")
    os.truncate(tmp_path / "base/f", MAX_TEXT + 1)
    fs = union(tmp_path, "top", "base")
    try:
        with pytest.raises(LayerError, match=f"layer 2 has {MAX_TEXT + 1} bytes"):
            blame_lines(fs, b"f")
        assert blame(fs, b"f").touches[0].what[0] == "content"
    finally:
        fs.close()


def test_binary_files_directories_and_what_is_deleted_have_no_lines(tmp_path: Path) -> None:
    tree(tmp_path / "base", b="\0", d__x="x", gone="x\n")
    tree(tmp_path / "top")
    (tmp_path / "top/.wh.gone").touch()
    fs = union(tmp_path, "top", "base")
    try:
        with pytest.raises(LayerError, match="binary"):
            blame_lines(fs, b"b")
        with pytest.raises(LayerError, match="/d is no file but a dir"):
            blame_lines(fs, b"d")
        with pytest.raises(FileNotFoundError):
            blame_lines(fs, b"gone")
    finally:
        fs.close()


@needs_root
def test_what_is_changed_is_named(tmp_path: Path) -> None:
    tree(tmp_path / "base", f="text", d__x="x")
    tree(tmp_path / "top", f="TEXT", d__y="y")
    os.symlink("a", tmp_path / "base/l")
    os.symlink("b", tmp_path / "top/l")
    for name in ("f", "l", "d"):
        os.utime(tmp_path / "base" / name, (1, 1), follow_symlinks=False)
        os.utime(tmp_path / "top" / name, (1, 1), follow_symlinks=False)
    os.chmod(tmp_path / "top/d", 0o700)
    os.chown(tmp_path / "top/f", 7, 8)
    os.setxattr(tmp_path / "top/d", "user.a", b"1")
    os.setxattr(tmp_path / "top/d", "trusted.overlay.opaque", b"y")
    fs = union(tmp_path, "top", "base")
    try:
        shown = {path: blame(fs, path).touches[0] for path in (b"f", b"l", b"d", b"d/x")}
        assert [shown[path].what for path in (b"f", b"l", b"d")] == [
            ("content", "owner"),
            ("link",),
            ("mode", "xattr"),
        ]
        assert shown[b"d"].opaque and not shown[b"f"].opaque
        assert (shown[b"d/x"].action, shown[b"d/x"].place) == ("deleted", blame(fs, b"d").touches[0].place)
    finally:
        fs.close()
