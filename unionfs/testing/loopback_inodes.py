"""The inodes of a `LoopbackFilesystem`: which node stands for which file, and how to get hold of the file.

A node is known by its key (st_dev, st_ino), so hard links are one node, and found again through its `links`, the
(parent node, name) pairs under which it was seen; a node's path is its parent's path and a name, worked out anew each
time, so that a rename of a directory moves everything below it. A node without a name (O_TMPFILE, or unlinked while
open) is reached through one of its open descriptors.

Lifetime: `InodeTable` holds a node strongly while somebody has looked it up or has it open, and weakly beyond that:
children keep their parents. A key is given up when its last link goes, since the number may then be used again.

Knows no operations. Not synchronised: `LoopbackFilesystem` holds its lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakValueDictionary

from unionfs import vfs
from unionfs.linux.path import openat2
from unionfs.linux.syscalls import error

#: openat2(2) takes at most PATH_MAX, 4096 bytes with the NUL, at once
_WALK_BYTES = 4000


class Node:
    """One inode. `fds` are the descriptors of its open handles."""

    __slots__ = ("__weakref__", "fds", "id", "key", "kind", "links", "lookups")

    def __init__(self, node_id: vfs.NodeId, st: os.stat_result) -> None:
        self.id = node_id
        self.key = (st.st_dev, st.st_ino)
        self.kind = stat.S_IFMT(st.st_mode)
        self.links: dict[tuple[Node, bytes], None] = {}
        self.lookups = 0
        self.fds: list[int] = []


class Place(NamedTuple):
    """A node within reach, while the context of `InodeTable.reach` lasts.

    `fd` is a descriptor of the node itself, O_PATH or not. `name` in `dir_fd` is one of its names, or None.
    """

    fd: int
    dir_fd: int
    name: bytes | None

    @property
    def path(self) -> bytes:
        """A path that leads to the inode itself, symbolic links included: proc(5)'s magic links are not text."""
        return b"/proc/self/fd/%d" % self.fd


class InodeTable:
    """All nodes of the tree below `root_fd`, which is an ordinary (not O_PATH) directory descriptor."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self.root = Node(vfs.ROOT, os.fstat(root_fd))
        self._nodes: dict[vfs.NodeId, Node] = {vfs.ROOT: self.root}
        self._by_key: WeakValueDictionary[tuple[int, int], Node] = WeakValueDictionary({self.root.key: self.root})
        self._next_id = vfs.ROOT + 1

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: vfs.NodeId) -> Node:
        """ESTALE where nobody holds such a node."""
        node = self._nodes.get(node_id)
        if node is None:
            raise error(errno.ESTALE)
        return node

    def find(self, st: os.stat_result) -> Node | None:
        """The node that stands for this file, if there is one."""
        node = self._by_key.get((st.st_dev, st.st_ino))
        # Another type under the same number: the file was replaced from outside.
        return node if node is not None and node.kind == stat.S_IFMT(st.st_mode) else None

    def look_up(self, parent: Node | None, name: bytes, st: os.stat_result) -> Node:
        """The node of the file `name` in `parent` (None: it has no name), made if need be, its lookup counted."""
        node = self.find(st)
        if node is None:
            node = Node(self._next_id, st)
            self._next_id += 1
            self._by_key[node.key] = node
        if parent is not None and node is not self.root:
            if node.kind == stat.S_IFDIR:
                node.links.clear()  # a directory has one name; any other is from before a rename outside
            node.links[parent, name] = None
        node.lookups += 1
        self._nodes[node.id] = node
        return node

    def forget(self, node_id: vfs.NodeId, count: int) -> None:
        node = self._nodes.get(node_id)
        if node is not None:
            node.lookups = max(0, node.lookups - count)
            self._drop_if_unused(node)

    def opened(self, node: Node, fd: int) -> None:
        node.fds.append(fd)
        self._nodes[node.id] = node

    def closed(self, node: Node, fd: int) -> None:
        node.fds.remove(fd)
        self._drop_if_unused(node)

    def _drop_if_unused(self, node: Node) -> None:
        if node.lookups == 0 and not node.fds and node is not self.root:
            del self._nodes[node.id]

    def unlinked(self, parent: Node, name: bytes, st: os.stat_result) -> None:
        """`name` in `parent`, which was the file `st` before, is gone."""
        node = self.find(st)
        if node is None:
            return
        node.links.pop((parent, name), None)
        if st.st_nlink == 1 or node.kind == stat.S_IFDIR:
            self._by_key.pop(node.key, None)

    def moved(self, old: tuple[Node, bytes], new: tuple[Node, bytes], st: os.stat_result) -> None:
        """The file `st` went from the name `old` to the name `new`."""
        node = self.find(st)
        if node is not None:
            node.links.pop(old, None)
            node.links[new] = None

    # Reaching ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def directory(self, node: Node) -> Iterator[int]:
        """A descriptor of the directory `node`. ENOTDIR where it is none."""
        if node is self.root:
            yield self._root_fd
            return
        if node.kind != stat.S_IFDIR:
            raise error(errno.ENOTDIR)
        with self.reach(node) as place:
            yield place.fd

    @contextlib.contextmanager
    def reach(self, node: Node) -> Iterator[Place]:
        """`node` by one of its names, or else by an open descriptor. ESTALE where there is neither."""
        if node is self.root:
            yield Place(self._root_fd, self._root_fd, b".")
            return
        for parent, name in list(node.links):
            with contextlib.ExitStack() as stack:
                try:
                    dir_fd = self._open_directory(parent)
                    stack.callback(os.close, dir_fd)
                    fd = openat2(dir_fd, name, os.O_PATH | os.O_NOFOLLOW)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # changed from outside; another name may be good
                stack.callback(os.close, fd)
                st = os.fstat(fd)
                if (st.st_dev, st.st_ino) == node.key:
                    yield Place(fd, dir_fd, name)
                    return
        if not node.fds:
            raise error(errno.ESTALE)
        yield Place(node.fds[0], self._root_fd, None)

    def _open_directory(self, node: Node) -> int:
        """A new O_PATH descriptor of the directory `node`, whatever the length of its path."""
        names = []
        while node is not self.root:
            if not node.links:
                raise error(errno.ENOENT)
            node, name = next(iter(node.links))
            names.append(name)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = openat2(self._root_fd, b".", flags)
        while names:
            step = names.pop()
            while names and len(step) + len(names[-1]) < _WALK_BYTES:
                step += b"/" + names.pop()
            try:
                below = openat2(fd, step, flags)
            finally:
                os.close(fd)
            fd = below
        return fd
