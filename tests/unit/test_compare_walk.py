"""Two trees compared: what differs, in which order, what is read for it, and what is said of what cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.compare_rig import THEN, Counted, Fill, Plot, compared, lines, plot, side
from unionfs.changeset.difference import EVERY, Reason
from unionfs.compare.globs import Scope
from unionfs.compare.view import LayerView
from unionfs.compare.walk import Side, differences
from unionfs.layers.directory import DirectoryLayer


@pytest.mark.parametrize(
    ("one", "other", "reasons"),
    [
        (lambda t: t.file(b"f", b"abc"), lambda t: t.file(b"f", b"abd"), "content"),
        (lambda t: t.file(b"f", b"abc"), lambda t: t.file(b"f", b"ab"), "size,content"),
        (lambda t: t.file(b"f", mode=0o644), lambda t: t.file(b"f", mode=0o4644), "mode"),
        (lambda t: t.file(b"f"), lambda t: (t.file(b"f"), t.chown(b"f", 1, -1)), "owner"),
        (lambda t: t.file(b"f"), lambda t: (t.file(b"f"), t.chown(b"f", -1, 7)), "owner"),
        (lambda t: t.file(b"f"), lambda t: t.file(b"f", mtime=THEN + 10**9), "mtime"),
        (lambda t: t.to(b"f", b"x"), lambda t: t.to(b"f", b"y"), "link"),
        (lambda t: t.device(b"f", 1, 3), lambda t: t.device(b"f", 1, 5), "device"),
        (lambda t: t.file(b"f"), lambda t: (t.file(b"f"), t.setxattr(b"f", b"user.a", b"1")), "xattr"),
        (lambda t: t.file(b"f"), lambda t: t.to(b"f", b"x"), "type"),
        (lambda t: t.dir(b"f", 0o755), lambda t: t.dir(b"f", 0o700), "mode"),
        (lambda t: t.file(b"f", b"a", 0o600), lambda t: t.file(b"f", b"bc", 0o644), "mode,size,content"),
    ],
)
def test_every_reason_is_told(one: Fill, other: Fill, reasons: str) -> None:
    assert lines(compared(plot(one), plot(other), exact=True)) == [f"C /f {reasons}"]
    assert lines(compared(plot(one), plot(other), wanted=EVERY - {*map(Reason, reasons.split(","))})) == []


def test_what_no_layer_carries_is_no_difference() -> None:
    def marked(tree: Plot) -> None:
        tree.file(b"f")
        tree.setxattr(b"f", b"trusted.overlay.origin", b"x")
        tree.setxattr(b"f", b"security.selinux", b"label")

    assert compared(plot(lambda t: t.file(b"f")), plot(marked), exact=True) == []


def test_the_order_is_that_of_path_components() -> None:
    tree = plot(*(lambda t, name=name: t.file(name) for name in (b"a-b", b"a/z", b"a/b/c", b"a.", b"b")))
    assert lines(compared(plot(), tree)) == ["A /a", "A /a/b", "A /a/b/c", "A /a/z", "A /a-b", "A /a.", "A /b"]


def test_a_removed_directory_is_one_line_or_all_that_was_in_it() -> None:
    tree = plot(lambda t: t.file(b"d/e/f"), lambda t: t.file(b"d/g"))
    assert lines(compared(tree, plot())) == ["D /d"]
    found = compared(tree, plot(), inside=True)
    assert lines(found) == ["D /d", "D /d/e", "D /d/e/f", "D /d/g"]
    assert [one.inside for one in found] == [False, True, True, True]


def test_a_file_where_a_directory_was_and_the_reverse() -> None:
    one, other = plot(lambda t: t.file(b"x/f")), plot(lambda t: t.file(b"x", b"data"))
    assert lines(compared(one, other)) == ["C /x type"]
    assert lines(compared(one, other, inside=True)) == ["C /x type", "D /x/f"]
    assert lines(compared(other, one)) == ["C /x type", "A /x/f"]


def test_directories_above_a_difference_are_told_once_and_before_it() -> None:
    one = plot(lambda t: t.file(b"a/b/one"), lambda t: t.file(b"a/b/two"), lambda t: t.file(b"c/d"))
    other = plot(lambda t: t.file(b"a/b/one", b"!"), lambda t: t.file(b"a/b/two", b"!"), lambda t: t.file(b"c/d"))
    assert lines(compared(one, other, parents=True)) == [
        "C /", "C /a", "C /a/b", "C /a/b/one size,content", "C /a/b/two size,content",
    ]  # fmt: skip


def test_the_root_itself_may_differ() -> None:
    assert lines(compared(plot(), plot(lambda t: t.chmod(b"", 0o700)))) == ["C / mode"]


# times ----------------------------------------------------------------------------------------------------------------
def test_where_one_side_has_no_fractions_of_a_second_those_do_not_count() -> None:
    fine, whole = plot(lambda t: t.file(b"f")), plot(lambda t: t.file(b"f", mtime=THEN // 10**9 * 10**9))
    assert compared(fine, whole) == compared(whole, fine) == []
    assert lines(compared(fine, whole, exact=True)) == ["C /f mtime"]
    assert lines(compared(fine, plot(lambda t: t.file(b"f", mtime=THEN + 1)))) == ["C /f mtime"]


def test_the_time_of_a_directory_is_a_reason_of_its_own() -> None:
    later = plot(lambda t: t.dir(b"d"), lambda t: t.utime(b"d", THEN, THEN + 10**10))
    assert lines(compared(plot(lambda t: t.dir(b"d")), later)) == ["C /d dirmtime"]


# hard links -----------------------------------------------------------------------------------------------------------
def linked(*names: bytes) -> Fill:
    def fill(tree: Plot) -> None:
        tree.file(names[0], b"data")
        for name in names[1:]:
            tree.join(names[0], name)

    return fill


def test_names_of_one_file_that_are_two_files_differ() -> None:
    apart = plot(lambda t: t.file(b"a", b"data"), lambda t: t.file(b"b", b"data"))
    assert lines(compared(plot(linked(b"a", b"b")), apart)) == ["C /b hardlink"]
    assert lines(compared(apart, plot(linked(b"a", b"b")))) == ["C /b hardlink"]


def test_groups_are_compared_and_not_counts() -> None:
    assert lines(compared(plot(linked(b"a", b"b")), plot(linked(b"a", b"b", b"c")))) == ["A /c"]
    assert lines(compared(plot(linked(b"b", b"c")), plot(linked(b"a", b"b", b"c")))) == ["A /a"]
    outside = plot(linked(b"a", b"b"))
    outside.disk.make(0o040755)
    assert compared(plot(linked(b"a", b"b")), outside) == []


def test_groups_that_were_dealt_anew_differ() -> None:
    one = plot(linked(b"a", b"b"), linked(b"c", b"d"))
    other = plot(linked(b"a", b"c"), linked(b"b", b"d"))
    assert lines(compared(one, other)) == ["C /b hardlink", "C /c hardlink", "C /d hardlink"]


def test_what_several_names_share_is_read_once() -> None:
    names = [b"n%d" % number for number in range(5)]
    views = [Counted(plot(linked(*names))) for _ in range(2)]
    assert list(differences(*(Side(view) for view in views))) == []  # type: ignore[arg-type]
    assert [view.opened for view in views] == [[b"n0"], [b"n0"]]


# data -----------------------------------------------------------------------------------------------------------------
def test_files_of_different_size_are_not_opened() -> None:
    views = [Counted(plot(lambda t, n=n: t.file(b"f", bytes(n)))) for n in (3, 4)]  # type: ignore[misc]
    assert lines(differences(*(Side(view) for view in views))) == ["C /f size,content"]  # type: ignore[arg-type]
    assert [view.opened for view in views] == [[], []]


def test_content_that_does_not_count_is_not_opened() -> None:
    views = [Counted(plot(lambda t, d=d: t.file(b"f", d))) for d in (b"a", b"b")]  # type: ignore[misc]
    assert list(differences(*(Side(view) for view in views), wanted=EVERY - {Reason.CONTENT})) == []  # type: ignore[arg-type]
    assert [view.opened for view in views] == [[], []]


@pytest.mark.parametrize("at", [0, (1 << 18) - 1, 1 << 18, (1 << 20) - 1])
def test_one_byte_of_a_large_file_is_found_wherever_it_is(at: int) -> None:
    data = bytearray(os.urandom(1 << 20))
    one = plot(lambda t: t.file(b"f", bytes(data)))
    data[at] ^= 1
    assert lines(compared(one, plot(lambda t: t.file(b"f", bytes(data))))) == ["C /f content"]


def directories(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "other"


def of_directories(one: Path, other: Path, **options: Any) -> list[str]:
    layers = [DirectoryLayer(str(path)) for path in (one, other)]
    try:
        return lines(differences(*(Side(LayerView(layer)) for layer in layers), **options))
    finally:
        for layer in layers:
            layer.close()


CONTENT = frozenset({Reason.SIZE, Reason.CONTENT})


def test_holes_of_sparse_files_are_not_read(tmp_path: Path) -> None:
    """A tebibyte of them would take an hour."""
    for path in directories(tmp_path):
        with open(path / "f", "wb") as file:
            file.truncate(1 << 40)
            os.pwrite(file.fileno(), b"data", 1 << 39)
    assert of_directories(tmp_path / "one", tmp_path / "other", wanted=CONTENT) == []
    with open(tmp_path / "other/f", "r+b") as file:
        os.pwrite(file.fileno(), b"!", (1 << 40) - 1)
    assert of_directories(tmp_path / "one", tmp_path / "other", wanted=CONTENT) == ["C /f content"]


def test_a_hole_is_the_same_as_zeros(tmp_path: Path) -> None:
    one, other = directories(tmp_path)
    (one / "f").write_bytes(bytes(3 << 20))
    with open(other / "f", "wb") as file:
        file.truncate(3 << 20)
    assert of_directories(one, other, wanted=CONTENT) == []


# scope ----------------------------------------------------------------------------------------------------------------
def test_what_is_left_out_is_not_looked_into() -> None:
    one, other = plot(), plot(lambda t: t.file(b"a/b/c"), lambda t: t.file(b"x/b/c"), lambda t: t.file(b"x/d"))
    assert lines(compared(one, other, scope=Scope(without=["b"]))) == ["A /a", "A /x", "A /x/d"]
    assert lines(compared(one, other, scope=Scope(only=["/x"]))) == ["A /x", "A /x/b", "A /x/b/c", "A /x/d"]
    assert lines(compared(one, other, scope=Scope(only=["/x"], without=["b"]))) == ["A /x", "A /x/d"]
    assert lines(compared(one, other, scope=Scope(only=["c"]))) == ["A /a/b/c", "A /x/b/c"]


# failures -------------------------------------------------------------------------------------------------------------
class Broken(LayerView):
    """A tree of which some calls fail, for some paths."""

    def __init__(self, layer: Plot, failing: dict[str, bytes]) -> None:
        super().__init__(layer)
        self._failing = failing

    def _check(self, call: str, ref: bytes) -> None:
        if self._failing.get(call) == ref:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def children(self, ref: bytes) -> Any:
        self._check("children", ref)
        return super().children(ref)

    def xattrs(self, ref: bytes) -> Any:
        self._check("xattrs", ref)
        return super().xattrs(ref)

    def content(self, ref: bytes) -> Any:
        self._check("content", ref)
        return super().content(ref)


@pytest.mark.parametrize(("call", "path"), [("children", b"d"), ("xattrs", b"d/f"), ("content", b"d/f")])
@pytest.mark.parametrize("broken", [0, 1])
def test_what_cannot_be_read_is_named_and_the_rest_compared(call: str, path: bytes, broken: int) -> None:
    tree = plot(lambda t: t.file(b"d/f", b"data"), lambda t: t.file(b"e", b"1"))
    same = plot(lambda t: t.file(b"d/f", b"data"), lambda t: t.file(b"e", b"2"))
    views = [LayerView(tree), LayerView(same)]
    views[broken] = Broken((tree, same)[broken], {call: path})
    sides = [Side(view, lambda path, at=at: f"{at}:{os.fsdecode(path)}") for at, view in enumerate(views)]  # type: ignore[misc]
    failures: list[OSError] = []
    assert lines(differences(*sides, on_failure=failures.append)) == ["C /e content"]
    assert [(error.errno, error.filename) for error in failures] == [(errno.EIO, f"{broken}:{os.fsdecode(path)}")]
    with pytest.raises(OSError, match=os.fsdecode(path)):
        list(differences(*sides))


def test_trees_deeper_than_any_recursion_limit() -> None:
    tree = Plot()
    path = b"d"
    for _ in range(1200):
        tree.dir(path)
        path += b"/d"
    tree.file(path, b"1")
    assert len(compared(plot(), tree)) == 1201
    assert compared(tree, tree) == []


def test_memory_of_the_walk_does_not_grow_with_the_tree() -> None:
    """What is held is the listings on one path: no item of a directory that was left is kept."""
    tree = plot(*(lambda t, n=n: t.file(b"d%d/f" % n) for n in range(50)))
    held: set[bytes] = set()
    most = 0

    class Watched(LayerView):
        def children(self, ref: bytes) -> Any:
            nonlocal most
            found = super().children(ref)
            held.update(item.ref for item in found)
            most = max(most, len(held))
            return found

        def forget(self, ref: bytes) -> None:
            held.discard(ref)

    assert list(differences(Side(Watched(tree)), side(tree))) == []
    assert held == set() and most <= 52
