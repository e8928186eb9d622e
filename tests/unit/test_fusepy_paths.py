"""PathNodes: paths to nodes, with every lookup given back exactly once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport.fusepy_paths import PathNodes, split
from unionfs.vfs import ROOT, Caller, Entry, NodeId

ME = Caller(os.geteuid(), os.getegid())


class Counting(LoopbackFilesystem):
    """A loopback that knows what each node is owed, and refuses to be given more."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.owed: Counter[NodeId] = Counter()
        self.looked_up = 0

    def lookup(self, parent: NodeId, name: bytes) -> Entry:
        entry = super().lookup(parent, name)
        self.owed[entry.node] += 1
        self.looked_up += 1
        return entry

    def forget(self, node: NodeId, count: int) -> None:
        self.owed[node] -= count
        assert self.owed[node] >= 0, f"node {node} given back too often"
        super().forget(node, count)

    @property
    def debts(self) -> dict[NodeId, int]:
        return {node: count for node, count in self.owed.items() if count}


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Counting]:
    for path in ("a/b/c", "a/b/d", "e", "f"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    made = Counting(tmp_path)
    yield made
    made.close()


def walk(paths: PathNodes, path: bytes) -> NodeId:
    node, _ = paths.hold_path(path)
    paths.unhold(node)
    return node


@pytest.mark.parametrize(
    "path, parts", [(b"/a", (b"/", b"a")), (b"/a/b", (b"/a", b"b")), (b"/\xff/ ", (b"/\xff", b" "))]
)
def test_split(path: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split(path) == parts


def test_second_walk_asks_nothing_and_close_gives_all_back(fs: Counting) -> None:
    paths = PathNodes(fs)
    node = walk(paths, b"/a/b/c")
    assert fs.looked_up == 3 and len(paths) == 3
    assert walk(paths, b"/a/b/c") == node and walk(paths, b"/a/b") != node
    assert fs.looked_up == 3
    assert walk(paths, b"/") == ROOT
    paths.check_invariants()
    paths.close()
    assert fs.debts == {}


def test_attributes_come_with_the_first_walk_only(fs: Counting) -> None:
    paths = PathNodes(fs)
    assert paths.hold_path(b"/e")[1] is not None
    assert paths.hold_path(b"/e")[1] is None
    assert paths.hold_path(b"/")[1] is None


@pytest.mark.parametrize("path, error", [(b"/none", FileNotFoundError), (b"/e/x", NotADirectoryError)])
def test_failing_walk_holds_nothing(fs: Counting, path: bytes, error: type[OSError]) -> None:
    paths = PathNodes(fs)
    with pytest.raises(error):
        paths.hold_path(path)
    paths.check_invariants()
    paths.close()
    assert fs.debts == {}


def test_dropped_directory_takes_what_is_below_and_nothing_else(fs: Counting) -> None:
    paths = PathNodes(fs)
    for path in (b"/a/b/c", b"/a/b/d", b"/e"):
        walk(paths, path)
    paths.drop(b"/a/b")
    assert len(paths) == 2 and sum(fs.debts.values()) == 2  # /a, /e
    paths.drop_file(b"/e")
    paths.drop_file(b"/never walked")
    assert len(paths) == 1


def test_node_that_is_held_is_forgotten_only_when_let_go(fs: Counting) -> None:
    paths = PathNodes(fs)
    node, _ = paths.hold_path(b"/e")
    paths.hold(node)
    paths.drop_file(b"/e")
    assert fs.debts == {node: 1}
    paths.unhold(node)
    assert fs.debts == {node: 1}
    paths.unhold(node)
    assert fs.debts == {}


def test_two_names_of_one_node_owe_two_lookups(fs: Counting, tmp_path: Path) -> None:
    os.link(tmp_path / "e", tmp_path / "e2")
    paths = PathNodes(fs)
    node = walk(paths, b"/e")
    assert walk(paths, b"/e2") == node and fs.debts == {node: 2}
    paths.drop_file(b"/e")
    assert fs.debts == {node: 1}


def test_cache_is_bounded_and_keeps_what_was_used_last(fs: Counting, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"n{number}").touch()
    paths = PathNodes(fs, limit=5)
    for number in range(20):
        walk(paths, b"/e")
        walk(paths, b"/n%d" % number)
        paths.check_invariants()
    before = fs.looked_up
    walk(paths, b"/e")
    assert fs.looked_up == before
    assert len(paths) == 5 == sum(fs.debts.values())


def test_held_node_survives_eviction(fs: Counting) -> None:
    paths = PathNodes(fs, limit=1)
    node, _ = paths.hold_path(b"/e")
    walk(paths, b"/f")
    assert fs.debts.get(node) == 1
    paths.unhold(node)
    assert node not in fs.debts


def test_entered_name_replaces_what_was_there(fs: Counting) -> None:
    paths = PathNodes(fs)
    walk(paths, b"/e")
    fs.unlink(ROOT, b"e")
    entry = fs.mknod(ROOT, b"e", 0o100600, 0, ME)
    fs.owed[entry.node] += 1
    paths.enter(b"/e", entry)
    assert walk(paths, b"/e") == entry.node and fs.debts == {entry.node: 1}


def test_walk_that_overlaps_a_removal_is_not_cached(fs: Counting) -> None:
    paths = PathNodes(fs)

    class Racing(Counting):
        def lookup(self, parent: NodeId, name: bytes) -> Entry:
            entry = super().lookup(parent, name)
            # Another thread removes the name just now, and is done before the walk is.
            super().unlink(parent, name)
            paths.drop_file(b"/" + name)
            return entry

    fs.__class__ = Racing
    node, _ = paths.hold_path(b"/e")
    assert len(paths) == 0 and fs.debts == {node: 1}
    paths.unhold(node)
    assert fs.debts == {}


_PATHS = [b"/a", b"/a/b", b"/a/b/c", b"/a/b/d", b"/e", b"/f"]
_steps = st.lists(
    st.tuples(st.sampled_from(["hold", "unhold", "drop", "drop_file"]), st.sampled_from(_PATHS)), max_size=40
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, limit=st.integers(1, 6))
def test_any_sequence_keeps_the_accounts(fs: Counting, steps: list[tuple[str, bytes]], limit: int) -> None:
    paths = PathNodes(fs, limit)
    held: dict[bytes, list[NodeId]] = {}
    for step, path in steps:
        if step == "hold":
            held.setdefault(path, []).append(paths.hold_path(path)[0])
        elif step == "unhold":
            if held.get(path):
                paths.unhold(held[path].pop())
        else:
            getattr(paths, step)(path)
        paths.check_invariants()
        for nodes in held.values():
            assert all(node == ROOT or fs.owed[node] > 0 for node in nodes)
    for nodes in held.values():
        for node in nodes:
            paths.unhold(node)
    assert sum(fs.debts.values()) == len(paths)
    paths.close()
    assert fs.debts == {}
