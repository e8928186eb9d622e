"""`Tree`: reading a `vfs.Filesystem` by handles, with every lookup given back.

It adds nothing to the file system but bookkeeping and plain loops: complete listings, xattrs as a mapping. What does
not exist is None here; every other failure is the OSError of the file system.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from unionfs.changeset.content import OpenContent
from unionfs.layers.whiteout import PRIVATE_XATTRS
from unionfs.vfs import ROOT, Attr, Filesystem, NodeId

#: Attributes that belong to the machine and not to the file: labels of a security policy, the NFS server's ACLs. (umoci
#: and buildah leave the same ones out of layers.)
HOST_XATTRS = frozenset((b"security.selinux", b"system.nfs4_acl"))

_LISTING = 1 << 18
#: EINVAL: a union that keeps `.wh.` names for itself answers so. ENAMETOOLONG: no such name can exist.
_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG))


class Node(NamedTuple):
    """A handle, and the attributes it had when it was looked up."""

    node: NodeId
    attr: Attr


def is_carried(xattr: bytes) -> bool:
    """Whether a layer carries this extended attribute."""
    return not xattr.startswith(PRIVATE_XATTRS) and xattr not in HOST_XATTRS


class Tree:
    """A file system read by handles. Nodes handed out stay valid until `forget` or `close`."""

    def __init__(self, fs: Filesystem) -> None:
        self.fs = fs
        self._counts: dict[NodeId, int] = {}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back every lookup. Idempotent; the file system itself stays open."""
        for node, count in self._counts.items():
            self.fs.forget(node, count)
        self._counts.clear()

    def root(self) -> Node:
        return Node(ROOT, Attr.unpack(self.fs.getattr(ROOT)))

    def lookup(self, parent: NodeId, name: bytes) -> Node | None:
        """The child, or None where there is none or `parent` is no directory."""
        try:
            node, record = self.fs.lookup(parent, name)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        self._counts[node] = self._counts.get(node, 0) + 1
        return Node(node, Attr.unpack(record))

    def resolve(self, path: bytes) -> Node | None:
        """The object at `path` (no symbolic link is followed). Lookups of its parents are given back."""
        at: Node | None = self.root()
        for name in path.split(b"/") if path else []:
            if at is None:
                return None
            child = self.lookup(at.node, name)
            self.forget(at.node)
            at = child
        return at

    def forget(self, node: NodeId) -> None:
        """Give back one lookup of `node`."""
        count = self._counts.get(node, 0)
        if count:
            self.fs.forget(node, 1)
            if count == 1:
                del self._counts[node]
            else:
                self._counts[node] = count - 1

    def children(self, node: NodeId) -> Iterator[tuple[bytes, Node]]:
        """All entries but "." and "..", each looked up."""
        fh = self.fs.opendir(node)
        try:
            cookie = 0
            while entries := self.fs.readdirplus(fh, cookie, _LISTING, 152):
                cookie = entries[-1].cookie
                for entry in entries:
                    if entry.node:
                        self._counts[entry.node] = self._counts.get(entry.node, 0) + 1
                for name, child, record, _ in entries:
                    if child:
                        yield name, Node(child, Attr.unpack(record))
        finally:
            self.fs.releasedir(fh)

    def xattrs(self, node: NodeId) -> dict[bytes, bytes]:
        """The extended attributes that a layer carries. Empty where the storage has none."""
        try:
            names = self.fs.listxattr(node)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return {}
            raise
        return {name: self.fs.getxattr(node, name) for name in sorted(names) if is_carried(name)} if names else {}

    def readlink(self, node: NodeId) -> bytes:
        return self.fs.readlink(node)

    def content(self, node: NodeId) -> OpenContent:
        """The data of a regular file, to be closed."""
        return OpenContent(self.fs, node, Attr.unpack(self.fs.getattr(node)).size)
