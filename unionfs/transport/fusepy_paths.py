"""From the paths that libfuse speaks to the nodes of a `vfs.Filesystem`, with every lookup given back.

    PathNodes   a bounded cache path -> node. Each cached path holds exactly one lookup count.

A path is as libfuse gives it: b"/" is the root, b"/etc/passwd" a file; absolute, no empty component.

INVARIANT: a node that somebody holds (`hold`: an operation in progress, an open handle) is not forgotten; what would
be given back meanwhile is owed until the last `unhold`.

INVARIANT: a path is in the cache only while the name exists: whoever removes or moves a name calls `drop` in the same
operation, after the file system did it. A walk that began before that and ends after it is not cached.

Must not know: libfuse, ctypes, hidden names.
"""

from __future__ import annotations

import threading
from typing import Final

from unionfs.vfs import ROOT, AttrRecord, Entry, Filesystem, NodeId

LIMIT: Final = 16384


def split(path: bytes) -> tuple[bytes, bytes]:
    """(parent path, name) of a path other than the root."""
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name


class PathNodes:
    """Thread-safe. `limit`: paths kept; the least recently walked go first."""

    def __init__(self, fs: Filesystem, limit: int = LIMIT) -> None:
        self._fs = fs
        self._limit = limit
        self._lock = threading.Lock()
        self._nodes: dict[bytes, NodeId] = {}  # in order of use
        self._holds: dict[NodeId, int] = {}
        self._owed: dict[NodeId, int] = {}
        self._drops = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def hold_path(self, path: bytes) -> tuple[NodeId, AttrRecord | None]:
        """The node of `path`, held, and its attributes if they came with it. OSError as from `lookup`."""
        if path == b"/":
            return ROOT, None
        with self._lock:
            node = self._nodes.pop(path, None)
            if node is not None:
                self._nodes[path] = node  # to the end: used last
                self._holds[node] = self._holds.get(node, 0) + 1
                return node, None
            drops = self._drops
        parent_path, name = split(path)
        parent, _ = self.hold_path(parent_path)
        try:
            entry = self._fs.lookup(parent, name)
        finally:
            self.unhold(parent)
        with self._lock:
            self._holds[entry.node] = self._holds.get(entry.node, 0) + 1
            if drops != self._drops:
                # The name may be gone again: it was looked up before a drop that has been by.
                self._owed[entry.node] = self._owed.get(entry.node, 0) + 1
                return entry.node, entry.attr
            gone = self._enter_locked(path, entry.node)
        self._give_back(gone)
        return entry.node, entry.attr

    def enter(self, path: bytes, entry: Entry) -> None:
        """Cache a new name; the lookup count of `entry` passes over to the cache."""
        with self._lock:
            gone = self._enter_locked(path, entry.node)
        self._give_back(gone)

    def _enter_locked(self, path: bytes, node: NodeId) -> list[NodeId]:
        """Cache one path; returns the nodes to give back one lookup of, when the lock is free."""
        before = self._nodes.pop(path, None)
        self._nodes[path] = node
        gone = [] if before is None else [before]
        while len(self._nodes) > self._limit:
            gone.append(self._nodes.pop(next(iter(self._nodes))))
        return gone

    def hold(self, node: NodeId) -> None:
        with self._lock:
            self._holds[node] = self._holds.get(node, 0) + 1

    def unhold(self, node: NodeId) -> None:
        with self._lock:
            left = self._holds.get(node, 0) - 1
            if left > 0:
                self._holds[node] = left
                return
            self._holds.pop(node, None)
            owed = self._owed.pop(node, 0)
        if owed:
            self._fs.forget(node, owed)

    def drop(self, path: bytes) -> None:
        """The name is gone, and with it all below (a directory renamed or removed)."""
        below = path + b"/"
        with self._lock:
            paths = [cached for cached in self._nodes if cached == path or cached.startswith(below)]
            gone = [self._nodes.pop(cached) for cached in paths]
            self._drops += 1
        self._give_back(gone)

    def drop_file(self, path: bytes) -> None:
        """As `drop`, for a name known to be no directory: no search."""
        with self._lock:
            node = self._nodes.pop(path, None)
            self._drops += 1
        if node is not None:
            self._give_back([node])

    def _give_back(self, nodes: list[NodeId]) -> None:
        for node in nodes:
            with self._lock:
                if node in self._holds:
                    self._owed[node] = self._owed.get(node, 0) + 1
                    continue
            self._fs.forget(node, 1)

    def close(self) -> None:
        """Give everything back; no operation may be in progress."""
        with self._lock:
            gone, self._nodes = list(self._nodes.values()), {}
            owed, self._owed = self._owed, {}
            self._holds.clear()
        for node in gone:
            self._fs.forget(node, 1)
        for node, count in owed.items():
            self._fs.forget(node, count)

    def check_invariants(self) -> None:
        assert len(self._nodes) <= self._limit
        assert all(count > 0 for count in self._holds.values())
        assert self._owed.keys() <= self._holds.keys()
