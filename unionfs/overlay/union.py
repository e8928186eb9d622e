"""The state that all operations share: layers, inodes, handles, one lock.

Operations live in the modules named after what they change; each takes a `Union` and, where its name ends in
`_locked` or its docstring says so, expects `union.lock` to be held.
"""

from __future__ import annotations

import errno
import gc
import itertools
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from unionfs.layers.layer import Layer, OriginHandle, Path, WritableLayer
from unionfs.overlay.inode import DirInode, FileInode, Inode, InodeTable, Links, join
from unionfs.overlay.stack import IMPURE, Stack, UnionOptions
from unionfs.overlay.statistics import COUNTERS
from unionfs.overlay.workdir import Workdir
from unionfs.vfs import ATTR_RECORD, Attr, AttrRecord, NodeId, d_type, pack_stat

NAME_MAX = 255
#: How often who waits for another thread's copy-up looks whether its caller is still there.
_LOOK_SECONDS = 0.1


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def _namespace_of(upper: Layer) -> bytes:
    """The xattr namespace in which an upper that we may not probe was written."""
    names = upper.listxattr(b"")
    unprivileged = any(name.startswith(b"user.overlay.") for name in names) or os.geteuid() != 0
    return b"user." if unprivileged and not any(n.startswith(b"trusted.overlay.") for n in names) else b"trusted."


def _as_shown(record: AttrRecord, links: Links) -> AttrRecord:
    """The record of a file that is not shown as it is stored."""
    attr = Attr.unpack(record)
    if links.inner_whiteout:
        attr = attr._replace(mode=stat.S_IFCHR, rdev=0, size=0, blocks=0)
    elif links.data is not None:
        attr = attr._replace(blocks=links.data.blocks)  # ovl_getattr()
        if links.times is not None:
            attr = attr._replace(atime_ns=links.times[0], mtime_ns=links.times[1])
    return attr.pack()


class Describer(Protocol):
    """Says what extended attribute `user.unionfs.NAME` a path has; None: none. Called with the lock held."""

    def __call__(self, path: Path, name: bytes) -> bytes | None: ...

    def close(self) -> None: ...


class Union:
    """Everything one mounted union is."""

    def __init__(self, stack: Stack, options: UnionOptions) -> None:
        self.stack = stack
        self.options = options
        #: (uid, gid) of what this process makes.
        self.owner = stack.upper.new_owner if stack.has_upper else (-1, -1)
        #: Guards names, tables and attributes. Data is read, written and copied without it.
        self.lock = threading.RLock()
        self.table = InodeTable()
        #: None: nothing may be changed.
        self.workdir = (
            None if options.read_only or not (stack.has_upper and stack.has_work) else Workdir(stack, options)
        )
        if self.workdir is None and stack.has_upper:
            stack.use_namespace(options.xattr_prefix or _namespace_of(stack.upper))
        #: Is a copy-up for the sake of metadata to copy no data? Not in the namespace that everybody may write to:
        #: the kernel follows no metacopies there ("conflicting options: userxattr,metacopy=on").
        self.metacopy = (
            options.metacopy
            and self.workdir is not None
            and self.workdir.xattrs
            and stack.private(b"").startswith(b"trusted.")
        )
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self.handles: dict[int, object] = {}
        self.next_handle = itertools.count(1)
        #: Who answers for `user.unionfs.*`, if anybody does (xattrs.py).
        self.describer: Describer | None = None
        #: st_ino shown for upper objects that were copied up in this session: (st_dev, st_ino) there -> shown.
        self.origins: dict[tuple[int, int], int] = {}
        #: Where origins without a way to tell their layer were found: (handle, slot mark) -> (layer, stat) or None.
        self.located: dict[tuple[OriginHandle, bytes | None], tuple[int, os.stat_result] | None] = {}
        #: Index entries of this session's hard-link groups that have none the kernel would know: by stored file.
        self.groups: dict[tuple[int, int], Path] = {}
        #: Link counts of groups in uppers that hold no xattrs, by index entry.
        self.nlinks: dict[Path, int] = {}
        #: Stored inode numbers of what was put in its place since its name was last flushed; see durability.py.
        self.unflushed: set[int] = set()
        #: Does the upper's file system take long to flush a file, as a disk does?
        self.flushes_slowly = False
        #: Of each thread: `gone`, a function that says whether its caller has given up, or None.
        self.callers = threading.local()
        self._copying: dict[int, tuple[threading.Lock, list[None]]] = {}
        self.root = self._root()
        self.read_root_marks()

    def _root(self) -> DirInode:
        root = DirInode(self.table.allocate(), 0, None, b"")
        root.upper = self.stack.has_upper
        top = 1 if self.stack.lowers else 0
        root.ino = self.stack.number(top, self.stack.layer(top).lstat(b"").st_ino)
        root.nlookup = 1
        self.table.add(root)
        return root

    def read_root_marks(self) -> None:
        """What the roots of the layers say about themselves. Lock held."""
        root = self.root
        root.lowers = tuple((i, b"") for i in range(1, len(self.stack.lowers) + 1))
        root.described = self.stack.described(root.lowers)
        if root.upper:
            root.impure = root.impure or self.stack.upper.getxattr(b"", self.stack.private(IMPURE)) is not None
        xwhiteouts, impure = [], []
        for number, path in root.lowers:
            names = self.stack.layer(number).listxattr(path)
            self.stack.read_root(number, names)
            known = self.stack.marks_of(number)
            if any(name in known.whiteouts + known.opaque for name in names):
                xwhiteouts.append(number)
            if any(name in known.impure for name in names):
                impure.append(number)
        root.xwhiteouts, root.impure_lowers = tuple(xwhiteouts), tuple(impure)

    @property
    def work(self) -> Workdir:
        if self.workdir is None:
            fail(errno.EROFS)
        return self.workdir

    def check_writable(self) -> None:
        if self.workdir is None:
            fail(errno.EROFS)

    # inodes -----------------------------------------------------------------------------------------------------
    def inode(self, node: NodeId) -> Inode:
        inode = self.known(node)
        if inode is None:
            fail(errno.ESTALE)
        return inode

    def known(self, node: NodeId) -> Inode | None:
        """The inode of a NodeId, if it is in use. Also without the lock."""
        inode = self.table.nodes.get(node)
        if inode is None:
            with self.lock:
                inode = self.table.nodes.get(node) or self.table.take(node)
        return inode

    def directory(self, node: NodeId) -> DirInode:
        inode = self.inode(node)
        if not isinstance(inode, DirInode):
            fail(errno.ENOTDIR)
        return inode

    def live_directory(self, node: NodeId) -> DirInode:
        """A directory in which names may be made: not one that is removed and only still open."""
        directory = self.directory(node)
        if directory.removed:
            fail(errno.ENOENT)
        return directory

    def release_unused(self, inode: Inode | None) -> None:
        """Drop an inode that nothing refers to any more, and the parents that were kept for it alone."""
        if inode is None or inode.nlookup or inode.opens:
            return
        todo = [inode]
        while todo:
            inode = todo.pop()
            if inode.nlookup or inode.opens or inode is self.root or self.table.is_superseded(inode):
                continue
            if inode.node not in self.table.nodes:
                continue  # met twice: a file had names in it and below it
            if isinstance(inode, DirInode):
                if inode.children or inode.batched:
                    continue
                if inode.parent is not None and not inode.removed:
                    del inode.parent.children[inode.name]
                    todo.append(inode.parent)
            elif isinstance(inode, FileInode):
                if inode.orphan is not None:
                    self.work.discard(inode.orphan)
                for directory, name, _ in inode.names:
                    del directory.children[name]
                    todo.append(directory)
                inode.names.clear()
            self.table.drop(inode)

    def trim(self) -> None:
        """Give memory back to the system after most inodes have gone.

        A single object that was made meanwhile and stays keeps a megabyte from being returned (an arena of pymalloc):
        the layers' descriptors and their paths, and the blocks on the interpreter's own free lists, which only a full
        collection empties.
        """
        from unionfs.linux.process import return_free_memory  # a union in memory may be on any system

        self.stack.trim()
        gc.collect()
        return_free_memory()

    # places -----------------------------------------------------------------------------------------------------
    def place(self, inode: Inode) -> tuple[Layer, Path]:
        """Where the inode's attributes and data are now."""
        if isinstance(inode, DirInode):
            if inode.removed:
                fail(errno.ENOENT)
            if inode.upper:
                return self.stack.upper, inode.path
            layer, path = inode.described or inode.lowers[0]
            return self.stack.layer(layer), path
        assert isinstance(inode, FileInode)
        if inode.upper:
            return self.upper_place(inode)
        if inode.lost:
            fail(errno.ESTALE)
        assert inode.lower is not None
        layer, path = inode.lower
        return self.stack.layer(layer), path

    def data_place(self, inode: FileInode) -> tuple[Layer, Path]:
        """Where the inode's data is now."""
        data = inode.data
        return self.place(inode) if data is None else (self.stack.layer(data.layer), data.path)

    def upper_place(self, inode: Inode) -> tuple[WritableLayer, Path]:
        """Where to change an inode that has been copied up."""
        if isinstance(inode, DirInode):
            if inode.removed:
                fail(errno.ENOENT)
            return self.stack.upper, inode.path
        assert isinstance(inode, FileInode)
        if inode.orphan is not None:
            return self.stack.work, inode.orphan
        known = inode.stored_name()
        if known is not None:
            return self.stack.upper, join(known[0].path, known[1])
        if inode.index is not None:
            return self.stack.work, inode.index
        fail(errno.ESTALE)

    def placed(self, stored: int) -> None:
        """A copy-up, or a creation in the work directory, has given a stored object its name: that is not flushed."""
        if not self.options.volatile:
            self.unflushed.add(stored)

    # attributes ---------------------------------------------------------------------------------------------------
    def attributes(self, inode: Inode) -> AttrRecord:
        """The attribute record, from the cache where nobody can have changed the file behind it."""
        record = inode.attr
        if record is not None:
            return record
        if isinstance(inode, DirInode):
            layer, path = self.place(inode)
            st = layer.lstat(path)
            if not stat.S_ISDIR(st.st_mode):
                fail(errno.ESTALE)  # a layer was changed behind our back
            record = pack_stat(st, inode.ino, 1 if inode.merged else st.st_nlink)
            inode.attr = record
            return record
        assert isinstance(inode, FileInode)
        if inode.handles and (inode.upper or inode.lost):
            st = inode.handles[0].fstat()
        else:
            layer, path = self.place(inode)
            st = layer.lstat(path)
            if d_type(st.st_mode) != inode.type and not (inode.links is not None and inode.links.inner_whiteout):
                fail(errno.ESTALE)  # as above
        return self.set_attributes(inode, st)

    def set_attributes(self, inode: FileInode, st: os.stat_result) -> AttrRecord:
        """The record of a file from its stored stat; cached unless a writer may change it without our knowing."""
        nlink, links = st.st_nlink, inode.links
        if links is not None and links.index is not None:
            nlink = links.nlink
        elif (links is not None and links.orphan is not None) or not (inode.names or inode.upper):
            # One link is our own, or is the name in a lower layer that is whited out by now (or went there too).
            nlink = max(0, nlink - 1)
        record = pack_stat(st, inode.ino, nlink)
        if links is not None and (links.inner_whiteout or links.data is not None):
            record = _as_shown(record, links)
        if not inode.writers:
            inode.attr = record
        return record

    @staticmethod
    def unlinked(record: AttrRecord, nlink: int = 0) -> AttrRecord:
        """The record of an inode that has lost a name and can no longer be asked: its last known one."""
        fields = list(ATTR_RECORD.unpack(record))
        fields[10] = nlink
        return ATTR_RECORD.pack(*fields)

    # exclusion ----------------------------------------------------------------------------------------------------
    @contextmanager
    def copying(self, inode: Inode) -> Iterator[None]:
        """Only one thread at a time copies up an inode. Taken before `lock`, never while holding it."""
        key = id(inode)
        with self.lock:
            lock, users = self._copying.setdefault(key, (threading.Lock(), []))
            users.append(None)
        try:
            self._acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self.lock:
                users.pop()
                if not users:
                    del self._copying[key]

    def is_copying(self, inode: Inode) -> bool:
        """Is a thread copying up the inode, or about to? Lock held."""
        return id(inode) in self._copying

    def _acquire(self, lock: threading.Lock) -> None:
        """EINTR where the caller gives up meanwhile."""
        while not lock.acquire(timeout=_LOOK_SECONDS):
            if self.caller_is_gone():
                fail(errno.EINTR)

    def caller_is_gone(self) -> bool:
        """Has the caller of what this thread does given up? Asked by what takes long, between its parts."""
        gone: Callable[[], bool] | None = getattr(self.callers, "gone", None)
        return gone is not None and gone()

    def check_caller(self) -> None:
        """EINTR where the caller has given up."""
        if self.caller_is_gone():
            fail(errno.EINTR)

    def check_wanted(self, inode: Inode) -> None:
        """EINTR where nobody wants the copy-up of the inode any more."""
        if self.caller_is_gone():
            with self.lock:
                _, users = self._copying.get(id(inode), (None, []))
            if len(users) < 2:
                fail(errno.EINTR)

    # handles ------------------------------------------------------------------------------------------------------
    def add_handle(self, handle: object) -> int:
        fh = next(self.next_handle)
        self.handles[fh] = handle
        return fh
