"""diff over unions made by the kernel: kinds as `docker diff`, in O(changes), nothing missed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.changeset_rig import Union, Unions, views
from unionfs.changeset.change import Change, Kind
from unionfs.changeset.diff import Survey, diff
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import ScanEntry

pytestmark = requires("root", "overlayfs")


@pytest.fixture
def unions(tmp_path: Path) -> Iterator[Unions]:
    made = Unions(tmp_path)
    yield made
    made.close()


@pytest.fixture
def union(unions: Unions, tmp_path: Path) -> Union:
    low = tmp_path / "low"
    (low / "etc/conf.d").mkdir(parents=True)
    (low / "etc/passwd").write_text("root")
    (low / "etc/group").write_text("root")
    (low / "etc/conf.d/a").write_text("a")
    (low / "etc/conf.d/b").write_text("b")
    (low / "usr/share/doc").mkdir(parents=True)
    (low / "usr/share/doc/x").write_text("x")
    (low / "one").write_text("linked")
    os.link(low / "one", low / "two")
    os.link(low / "one", low / "usr/three")
    return unions.mount([low])


def test_nothing_changed_is_nothing(union: Union) -> None:
    assert union.diff() == []


def test_parents_of_a_change_are_changed(union: Union) -> None:
    (union.mnt / "usr/share/doc/y").write_text("y")
    assert union.lines() == ["C /usr", "C /usr/share", "C /usr/share/doc", "A /usr/share/doc/y"]


def test_removed_directory_is_one_line(union: Union) -> None:
    for path in ("etc/conf.d/a", "etc/conf.d/b"):
        (union.mnt / path).unlink()
    (union.mnt / "etc/conf.d").rmdir()
    assert union.lines() == ["C /etc", "D /etc/conf.d"]


def test_order_is_by_components(union: Union) -> None:
    for name in ("d", "d-x", "d.x"):
        (union.mnt / name).mkdir()
        (union.mnt / name / "f").touch()
    assert union.lines() == ["A /d", "A /d/f", "A /d-x", "A /d-x/f", "A /d.x", "A /d.x/f"]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: os.chmod(p, 0o600),
        lambda p: os.chown(p, 1, 2),
        lambda p: os.utime(p, ns=(1, 1)),
        lambda p: os.setxattr(p, "user.x", b"1"),
        lambda p: p.write_text("rOOt"),
    ],
)
def test_each_attribute_counts(union: Union, change: object) -> None:
    change(union.mnt / "etc/passwd")  # type: ignore[operator]
    assert union.lines() == ["C /etc", "C /etc/passwd"]


def test_copied_up_but_unchanged_is_not_listed(union: Union) -> None:
    path = union.mnt / "etc/passwd"
    os.chmod(path, 0o600)
    os.chmod(path, 0o644)
    os.chmod(union.mnt / "usr/share", 0o700)
    os.chmod(union.mnt / "usr/share", 0o755)
    assert (union.upper / "etc/passwd").exists()
    assert (union.upper / "usr/share").exists()
    assert union.lines() == []


def test_same_size_and_mtime_set_back_is_a_change(union: Union) -> None:
    path = union.mnt / "etc/passwd"
    st = path.stat()
    path.write_text("evil")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert union.lines() == ["C /etc", "C /etc/passwd"]


def test_touched_directory_is_changed(union: Union) -> None:
    os.utime(union.mnt / "usr/share", ns=(5, 5))
    assert union.lines() == ["C /usr", "C /usr/share"]


def test_file_becomes_directory_and_reverse(union: Union) -> None:
    (union.mnt / "etc/passwd").unlink()
    (union.mnt / "etc/passwd").mkdir()
    (union.mnt / "etc/passwd/in").touch()
    (union.mnt / "usr/share/doc/x").unlink()
    (union.mnt / "usr/share/doc").rmdir()
    (union.mnt / "usr/share/doc").touch()
    changes = {change.path: change for change in union.diff()}
    assert changes[b"etc/passwd"].text() == "C /etc/passwd"
    assert changes[b"etc/passwd"].replaced
    assert changes[b"etc/passwd/in"].kind is Kind.ADDED
    assert changes[b"usr/share/doc"].replaced
    assert b"usr/share/doc/x" not in changes
    assert not changes[b"etc"].replaced


def test_recreated_directory_is_opaque(union: Union) -> None:
    conf = union.mnt / "etc/conf.d"
    (conf / "a").unlink()
    (conf / "b").unlink()
    conf.rmdir()
    conf.mkdir()
    (conf / "b").write_text("new")
    changes = {change.path: change for change in union.diff()}
    assert [c.text() for c in changes.values()] == ["C /etc", "C /etc/conf.d", "D /etc/conf.d/a", "C /etc/conf.d/b"]
    assert changes[b"etc/conf.d"].opaque
    assert changes[b"etc/conf.d/a"].covered


def test_recreated_directory_that_hides_nothing_is_not_opaque(union: Union) -> None:
    conf = union.mnt / "etc/conf.d"
    for name in "ab":
        (conf / name).unlink()
    conf.rmdir()
    conf.mkdir()
    for name in "abc":
        (conf / name).write_text(name * 3)
    changes = {change.path: change for change in union.diff()}
    assert not changes[b"etc/conf.d"].opaque
    assert changes[b"etc/conf.d/c"].kind is Kind.ADDED


def test_unchanged_below_an_opaque_directory_is_written_but_not_shown(union: Union) -> None:
    conf = union.mnt / "etc/conf.d"
    st = (conf / "a").stat()
    for name in "ab":
        (conf / name).unlink()
    conf.rmdir()
    conf.mkdir()
    (conf / "a").write_text("a")
    os.utime(conf / "a", ns=(st.st_atime_ns, st.st_mtime_ns))
    with union.views() as three, Survey(*three) as survey:
        kinds = {change.path: change.kind for change in survey.changes}
    assert kinds[b"etc/conf.d/a"] is Kind.SAME
    assert "C /etc/conf.d/a" not in union.lines()


def test_renamed_lower_directory_is_all_new(union: Union) -> None:
    (union.mnt / "usr/share").rename(union.mnt / "usr/lib")
    assert union.lines() == ["C /usr", "A /usr/lib", "A /usr/lib/doc", "A /usr/lib/doc/x", "D /usr/share"]


def test_lower_directory_renamed_over_a_removed_one_is_compared_in_full(union: Union) -> None:
    for name in "ab":
        (union.mnt / "etc/conf.d" / name).unlink()
    (union.mnt / "etc/conf.d").rmdir()
    (union.mnt / "usr/share/doc").rename(union.mnt / "etc/conf.d")
    lines = union.lines()
    assert "D /etc/conf.d/a" in lines
    assert "A /etc/conf.d/x" in lines


def test_hard_links_not_in_the_upper_change_too(union: Union) -> None:
    (union.mnt / "two").write_text("rewritten")
    assert not (union.upper / "one").exists()
    assert union.lines() == ["C /one", "C /two", "C /usr", "C /usr/three"]


def test_new_name_of_a_lower_file_is_a_link_to_it(union: Union) -> None:
    os.link(union.mnt / "etc/passwd", union.mnt / "shadow")
    changes = {change.path: change for change in union.diff()}
    assert list(changes) == [b"shadow"]
    assert changes[b"shadow"].link_to == b"etc/passwd"


def test_broken_hard_link_is_a_change_although_all_else_is_equal(union: Union) -> None:
    old = union.mnt / "one"
    st = old.stat()
    data = old.read_bytes()
    old.unlink()
    old.write_bytes(data)
    os.utime(old, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert [line for line in union.lines() if "one" in line] == ["C /one"]


def test_change_that_lives_in_the_index_alone(union: Union) -> None:
    """Written under one name, which is then removed: the others show it, and none of them stands in the upper."""
    (union.mnt / "two").write_text("rewritten")
    (union.mnt / "two").unlink()
    assert union.lines() == ["C /one", "D /two", "C /usr", "C /usr/three"]


def test_change_in_the_index_whose_name_went_with_its_directory(union: Union) -> None:
    (union.mnt / "usr/three").write_text("rewritten")
    for path in ("usr/three", "usr/share/doc/x"):
        (union.mnt / path).unlink()
    for path in ("usr/share/doc", "usr/share", "usr"):
        (union.mnt / path).rmdir()
    assert union.lines() == ["C /one", "C /two", "D /usr"]


def test_removed_name_of_an_unchanged_file_says_nothing_of_the_others(union: Union) -> None:
    (union.mnt / "two").unlink()
    assert union.lines() == ["D /two"]


def test_whiteouts_in_the_upper_that_hide_nothing_say_nothing(union: Union) -> None:
    (union.mnt / "fresh").touch()
    (union.mnt / "fresh").unlink()
    os.mknod(union.upper / "never", 0o020000, os.makedev(0, 0))
    assert union.lines() == []


def test_root_is_never_listed_but_surveyed(union: Union) -> None:
    os.chmod(union.mnt, 0o711)
    assert union.lines() == []
    with union.views() as three, Survey(*three) as survey:
        assert [(c.path, c.kind) for c in survey.changes] == [(b"", Kind.CHANGED)]


def test_deeper_than_the_recursion_limit(union: Union) -> None:
    fd = os.open(union.mnt, os.O_PATH)
    for _ in range(1200):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    assert len(union.diff()) == 1200


def test_several_lowers(unions: Unions, tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for low, name in ((top, "t"), (bottom, "b")):
        (low / "d").mkdir(parents=True)
        (low / "d" / name).write_text(name)
    union = unions.mount([top, bottom])
    (union.mnt / "d/b").unlink()
    (union.mnt / "d/t").write_text("T")
    assert union.lines() == ["C /d", "D /d/b", "C /d/t"]


class _Counting(DirectoryLayer):
    scans = 0

    def scan(self, path: bytes) -> list[ScanEntry]:
        type(self).scans += 1
        return super().scan(path)


def test_only_what_stands_in_the_upper_is_visited(union: Union) -> None:
    (union.mnt / "etc/new").touch()
    with views(union.before, union.mnt, union.upper) as (before, after, _):
        upper = _Counting(str(union.upper))
        assert len(list(diff(before, after, upper))) == 2
        upper.close()
        assert _Counting.scans == 2  # the root and /etc


def test_lookups_are_given_back(union: Union) -> None:
    (union.mnt / "two").write_text("rewritten")
    (union.mnt / "usr/share").rename(union.mnt / "usr/lib")
    forgotten: dict[int, int] = {}
    with union.views() as (before, after, upper):
        gained: dict[int, int] = {}
        lookup, readdirplus, forget = after.lookup, after.readdirplus, after.forget

        def count_lookup(parent: int, name: bytes):  # type: ignore[no-untyped-def]
            entry = lookup(parent, name)
            gained[entry.node] = gained.get(entry.node, 0) + 1
            return entry

        def count_readdirplus(*args: int):  # type: ignore[no-untyped-def]
            entries = readdirplus(*args)
            for entry in entries:
                if entry.node:
                    gained[entry.node] = gained.get(entry.node, 0) + 1
            return entries

        def count_forget(node: int, count: int) -> None:
            forgotten[node] = forgotten.get(node, 0) + count
            forget(node, count)

        after.lookup, after.readdirplus, after.forget = count_lookup, count_readdirplus, count_forget  # type: ignore
        list(diff(before, after, upper))
        assert gained
        assert gained == forgotten


def test_json_of_a_change() -> None:
    change = Change(b"a\xff", Kind.DELETED, was=8)
    assert json.loads(json.dumps(change.to_json())) == {"kind": "D", "path": "/a\udcff", "type": "file"}
