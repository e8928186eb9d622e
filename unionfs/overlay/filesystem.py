"""`UnionFilesystem`: the union as a `vfs.Filesystem`. Locks and delegation, no rules of its own.

Lock order (README.md beside this file): `union.copying(inode)` before `union.lock`; the second is re-entrant, the
first is never taken while holding it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from unionfs.layers.layer import Layer, Path, WritableLayer
from unionfs.overlay import dir as directories
from unionfs.overlay import durability, fileattr, lookup, metacopy, readdir, refresh, rename, xattrs
from unionfs.overlay import file as files
from unionfs.overlay.copy_up import comes_later, copy_up
from unionfs.overlay.inode import DirInode, FileInode, Inode, join
from unionfs.overlay.invariants import check
from unionfs.overlay.refresh import Refreshed
from unionfs.overlay.stack import UPPER, Stack, UnionOptions
from unionfs.overlay.statistics import with_hits
from unionfs.overlay.step import Report
from unionfs.overlay.union import Describer, Union, fail
from unionfs.vfs import (
    O_ACCMODE,
    AttrRecord,
    Caller,
    DirEntry,
    DirEntryPlus,
    Entry,
    FileHandle,
    FlagsForm,
    Gate,
    NodeId,
    Notifier,
    OpenResult,
    SetAttr,
    StatFs,
    Watcher,
    record_size,
)

#: More data than this makes a copy-up slow enough to leave a transport's own thread.
SLOW_COPY_UP = 1 << 20
_DOTS = (b".", b"..")


class UnionFilesystem:
    """Implements `vfs.Filesystem` over a stack of layers.

    `lowers` are topmost first; `upper` and `work` are on one file system. Without both, or with
    `options.read_only`, every change is EROFS and nothing is touched. The process umask must be 0. The layers belong
    to the union from now on and are closed with it.
    """

    #: A directory offset means the same to every handle of the directory, for as long as it is known.
    stable_cookies = True

    def __init__(
        self,
        lowers: Sequence[Layer],
        upper: WritableLayer | None = None,
        work: WritableLayer | None = None,
        options: UnionOptions | None = None,
    ) -> None:
        self._union = Union(Stack(lowers, upper, work), options or UnionOptions())
        self._lock = self._union.lock
        self._closed = False
        self._notifier: Notifier | None = None
        self._transport: Callable[[], dict[str, int]] = dict
        #: The transport's, while it is attached and where it has one.
        self.gate: Gate | None = None
        #: Has a watcher told of every request: the transport's too.
        self.watch: Callable[[Watcher | None], None] | None = None

    def trace(self, report: Report | None) -> None:
        """From now on `report` is told each step that changes a layer, with the lock held and in the thread that takes
        it; None: nobody is."""
        with self._lock:
            self._union.stack.trace = report

    def describe(self, describer: Describer) -> None:
        """From now on files have the attributes `user.unionfs.*`, by this one; he is closed with the union."""
        self._union.describer = describer

    def cancellation(self, asked: Callable[[], bool] | None) -> None:
        """See vfs.Filesystem. Copy-ups of much data ask; they go on where another thread waits for the same one."""
        self._union.callers.gone = asked

    def attach(
        self,
        notifier: Notifier | None,
        statistics: Callable[[], dict[str, int]],
        gate: Gate | None = None,
        watch: Callable[[Watcher | None], None] | None = None,
    ) -> None:
        """A transport introduces itself; see vfs.Filesystem."""
        self._notifier, self._transport, self.gate, self.watch = notifier, statistics, gate, watch

    def _entry(self, inode: Inode) -> Entry:
        record = self._union.attributes(inode)
        inode.nlookup += 1
        return Entry(inode.node, record)

    # names --------------------------------------------------------------------------------------------------------
    def lookup(self, parent: NodeId, name: bytes) -> Entry:
        found = self.find(parent, name)
        if found is None:
            fail(errno.ENOENT)
        return found

    def find(self, parent: NodeId, name: bytes) -> Entry | None:
        """`lookup` without an exception for a name that is not there, as most names are that are to be made."""
        union = self._union
        with self._lock:
            if name in _DOTS:
                return self._entry(self._dot(union.inode(parent), name))
            inode = lookup.child(union, union.directory(parent), name)
            if inode is None:
                union.counters["negative_lookups"] += 1
                return None
            return self._entry(inode)

    def _dot(self, inode: Inode, name: bytes) -> Inode:
        """What a file handle is resolved to: the inode itself, or the directory above one (fuse_export_operations)."""
        if name == b".":
            return inode
        if not isinstance(inode, DirInode) or inode.removed:
            fail(errno.ENOENT)
        return inode.parent or inode

    def forget(self, node: NodeId, count: int) -> None:
        with self._lock:
            union = self._union
            inode = union.table.forget(node, count)
            if inode is not None and not (inode.nlookup or inode.opens):
                union.release_unused(inode)
            if union.table.shrunk():
                union.trim()

    def _create(self, parent: NodeId, name: bytes, new: directories.New, caller: Caller) -> Entry:
        union = self._union
        with self._lock:
            inode, _ = directories.create(union, union.live_directory(parent), name, new, caller)
            return self._entry(inode)

    def mknod(self, parent: NodeId, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        return self._create(parent, name, directories.New(mode, rdev), caller)

    def mkdir(self, parent: NodeId, name: bytes, mode: int, caller: Caller) -> Entry:
        return self._create(parent, name, directories.New(stat.S_IFDIR | stat.S_IMODE(mode)), caller)

    def symlink(self, parent: NodeId, name: bytes, target: bytes, caller: Caller) -> Entry:
        return self._create(parent, name, directories.New(stat.S_IFLNK | 0o777, 0, target), caller)

    def link(self, node: NodeId, parent: NodeId, name: bytes, caller: Caller) -> Entry:
        union = self._union
        inode = union.inode(node)
        with self._lock:
            directories.check_new_name(union, union.live_directory(parent), name)
        if not isinstance(inode, FileInode):
            fail(errno.EPERM)
        copy_up(union, inode, data=False)
        with self._lock:
            redirected = metacopy.set_redirect(union, inode, None)
        if not redirected:
            copy_up(union, inode)
        with self._lock:
            directories.link(union, inode, union.live_directory(parent), name)
            return self._entry(inode)

    def unlink(self, parent: NodeId, name: bytes) -> None:
        union = self._union
        with self._lock:
            directory = union.directory(parent)
            inode = lookup.existing(union, directory, name)
            if not directories.hides_lower_link(union, inode):
                directories.unlink(union, directory, name, inode)
                return
            inode.nlookup += 1
        try:
            copy_up(union, inode, data=False)
        finally:
            self.forget(inode.node, 1)
        with self._lock:
            directory = union.directory(parent)
            directories.unlink(union, directory, name, lookup.existing(union, directory, name))

    def rmdir(self, parent: NodeId, name: bytes) -> None:
        with self._lock:
            directories.rmdir(self._union, self._union.directory(parent), name)

    def rename(self, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int) -> None:
        union = self._union
        while True:
            old, new = union.directory(parent), union.live_directory(new_parent)
            union.check_writable()
            with self._lock:
                if rename.prepared(union, old, name, new, new_name, flags):
                    try:
                        rename.rename(union, old, name, new, new_name, flags)
                        return
                    except rename.RedirectImpossible as e:
                        tree = e.inode
                else:
                    tree = None
            if tree is not None:
                rename.copy_up_tree(union, tree)
            else:
                rename.prepare(union, old, name, new, new_name, flags)

    # inodes -------------------------------------------------------------------------------------------------------
    def sources(self, node: NodeId) -> list[tuple[int, Path]]:
        """Where what an inode shows is now: (layer, path there), topmost first; layer 0 is the upper, or for a file
        with no name there its work directory. A directory may come from several; the data of a metacopy comes last."""
        with self._lock:
            inode = self._union.inode(node)
            if isinstance(inode, DirInode):
                return [*([(UPPER, inode.path)] if inode.upper else ()), *inode.lowers]
            assert isinstance(inode, FileInode)
            found = [] if inode.lower is None else [inode.lower]
            if inode.upper:
                found = [(UPPER, self._union.upper_place(inode)[1])]
            return found if inode.data is None else [*found, (inode.data.layer, inode.data.path)]

    def getattr(self, node: NodeId, fh: FileHandle | None = None) -> AttrRecord:
        with self._lock:
            inode = self._union.inode(node)
            if (
                isinstance(inode, FileInode)
                and inode.upper
                and inode.attr is not None
                and files.may_be_read(inode.attr)
            ):
                inode.attr = None
            if inode.attr is None:
                self._union.counters["attribute_misses"] += 1
            return self._union.attributes(inode)

    def setattr(self, node: NodeId, changes: SetAttr, caller: Caller, fh: FileHandle | None = None) -> AttrRecord:
        return files.setattr(self._union, self._union.inode(node), changes, fh)

    def readlink(self, node: NodeId) -> bytes:
        with self._lock:
            layer, path = self._union.place(self._union.inode(node))
            return layer.readlink(path)

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        with self._lock:
            return xattrs.getxattr(self._union, self._union.inode(node), name)

    def xattr_refusal(self, node: NodeId, name: bytes) -> int:
        """The errno of `getxattr` where an inode has no xattrs at all, as most have not; else 0: ask."""
        with self._lock:
            return xattrs.refusal(self._union, self._union.inode(node), name)

    def listxattr(self, node: NodeId) -> list[bytes]:
        with self._lock:
            return xattrs.listxattr(self._union, self._union.inode(node))

    def setxattr(self, node: NodeId, name: bytes, value: bytes, flags: int) -> None:
        xattrs.setxattr(self._union, self._union.inode(node), name, value, flags)

    def removexattr(self, node: NodeId, name: bytes) -> None:
        xattrs.removexattr(self._union, self._union.inode(node), name)

    def fileattr(self, node: NodeId, form: FlagsForm) -> bytes:
        """Optional part: an inode's flags, as ioctl(2) hands them over."""
        return fileattr.get(self._union, self._union.inode(node), form)

    def set_fileattr(self, node: NodeId, form: FlagsForm, value: bytes) -> None:
        fileattr.set(self._union, self._union.inode(node), form, value)

    def statfs(self, node: NodeId) -> StatFs:
        with self._lock:
            return self._union.stack.topmost.statfs()

    # files --------------------------------------------------------------------------------------------------------
    def open(self, node: NodeId, flags: int) -> OpenResult:
        return files.open_file(self._union, self._union.inode(node), flags)

    def open_later(self, node: NodeId) -> FileHandle | None:
        """A handle for reading whose file is opened when first read: for who has the data already."""
        with self._lock:
            return files.open_later(self._union, self._union.inode(node))

    def create(self, parent: NodeId, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        union = self._union
        new = directories.New(stat.S_IFREG | stat.S_IMODE(mode))
        with self._lock:
            directory = union.live_directory(parent)
            found = lookup.child(union, directory, name)
            if found is None:
                inode, file = directories.create(union, directory, name, new, caller, flags)
                assert isinstance(inode, FileInode) and file is not None
                entry = self._entry(inode)  # before there is a writer, from whom attributes have to be asked anew
                return entry, files.add(union, inode, file, flags & O_ACCMODE != os.O_RDONLY)
            if flags & os.O_EXCL:
                union.release_unused(found)
                fail(errno.EEXIST)
            found.nlookup += 1
        try:
            opened = files.open_file(union, found, flags)
        except BaseException:
            self.forget(found.node, 1)
            raise
        with self._lock:
            return Entry(found.node, union.attributes(found)), opened

    def tmpfile(self, parent: NodeId, mode: int, flags: int, caller: Caller) -> tuple[Entry, OpenResult]:
        union = self._union
        with self._lock:
            inode, file = directories.create_unnamed(union, union.live_directory(parent), mode, caller)
            opened = files.add(union, inode, file, flags & O_ACCMODE != os.O_RDONLY)
            return self._entry(inode), opened

    def read(self, fh: FileHandle, offset: int, size: int) -> bytes:
        return files.read(self._union, fh, offset, size)

    def write(self, fh: FileHandle, offset: int, data: bytes | memoryview, kill_priv: bool = False) -> int:
        return files.write(self._union, fh, offset, data, kill_priv)

    def flush(self, fh: FileHandle) -> None:
        files.handle(self._union, fh)

    def release(self, fh: FileHandle) -> None:
        files.release(self._union, fh)

    def fsync(self, fh: FileHandle, datasync: bool) -> None:
        files.fsync(self._union, fh, datasync)

    def fallocate(self, fh: FileHandle, mode: int, offset: int, length: int) -> None:
        files.fallocate(self._union, fh, mode, offset, length)

    def lseek(self, fh: FileHandle, offset: int, whence: int) -> int:
        return files.lseek(self._union, fh, offset, whence)

    def copy_file_range(
        self, fh_in: FileHandle, offset_in: int, fh_out: FileHandle, offset_out: int, length: int
    ) -> int:
        return files.copy_file_range(self._union, fh_in, offset_in, fh_out, offset_out, length)

    # directories --------------------------------------------------------------------------------------------------
    def opendir(self, node: NodeId) -> FileHandle:
        with self._lock:
            return readdir.opendir(self._union, self._union.directory(node))

    def readdir(self, fh: FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntry]:
        with self._lock:
            return readdir.readdir(self._union, fh, offset, budget, overhead)

    def readdirplus(self, fh: FileHandle, offset: int, budget: int, overhead: int) -> Sequence[DirEntryPlus]:
        with self._lock:
            return readdir.readdirplus(self._union, fh, offset, budget, overhead)

    def releasedir(self, fh: FileHandle) -> None:
        with self._lock:
            readdir.releasedir(self._union, fh)

    def fsyncdir(self, fh: FileHandle, datasync: bool) -> None:
        union = self._union
        with self._lock:
            directory = readdir.handle(union, fh).directory
        if not union.options.volatile:
            durability.flush_directory(union, directory)

    # the whole ----------------------------------------------------------------------------------------------------
    def syncfs(self) -> None:
        if self._union.workdir is not None and not self._union.options.volatile:
            durability.flush_all(self._union)

    def refresh(self) -> Refreshed:
        """Notice what has changed in the layers behind our back, and have the kernel notice; see refresh.py.

        What is open stays open. Not to be called from a thread that answers the transport's requests.
        """
        with self._lock:
            found = refresh.refresh(self._union)
        notifier = self._notifier
        return found if notifier is None else found._replace(dropped=refresh.tell(notifier, found))

    def slow(self, node: NodeId) -> bool:
        """Would changing the inode now copy up more than SLOW_COPY_UP bytes of data, or wait for a disk to flush what
        it copies? (A hint for transports.)"""
        inode = self._union.known(node)  # unlocked: a hint
        return isinstance(inode, FileInode) and self._lacks_data(inode) and self._is_slow(inode)

    def slow_name(self, parent: NodeId, name: bytes) -> bool:
        """The same for what a name leads to, if it was looked up before."""
        with self._lock:
            directory = self._union.table.nodes.get(parent)
            inode = lookup.known_child(self._union, directory, name) if isinstance(directory, DirInode) else None
            return isinstance(inode, FileInode) and not inode.upper and self._is_slow(inode)

    @staticmethod
    def _lacks_data(inode: FileInode) -> bool:
        return not inode.upper or inode.data is not None

    def _is_slow(self, inode: FileInode) -> bool:
        with self._lock:
            size: int = record_size(self._union.attributes(inode))[0]
            if size and not inode.lost and comes_later(self._union, inode):
                return True
        return size > (0 if self._union.flushes_slowly else SLOW_COPY_UP)

    def supersede(self, node: NodeId) -> None:
        """From now on look-ups answer with another NodeId for this inode; the old one stays valid until forgotten."""
        with self._lock:
            self._union.table.supersede(self._union.inode(node))

    def upper_path(self, node: NodeId) -> bytes | None:
        """Where the inode is stored in the upper, if it is."""
        with self._lock:
            inode = self._union.inode(node)
            if isinstance(inode, DirInode):
                return inode.path if inode.upper else None
            assert isinstance(inode, FileInode)
            known = inode.stored_name()
            return join(known[0].path, known[1]) if known is not None else None

    def stored(self, node: NodeId) -> tuple[Layer, Path]:
        """The layer that has an inode's attributes and data now, and its path there."""
        with self._lock:
            return self._union.place(self._union.inode(node))

    def written(self) -> dict[NodeId, int]:
        """The st_ino of each file that is open for writing."""
        union = self._union
        with self._lock:
            opened = [handle.inode for handle in union.handles.values() if isinstance(handle, files.Handle)]
            return {inode.node: inode.ino for inode in opened if inode.writers}

    def statistics(self) -> dict[str, int]:
        union = self._union
        with self._lock:
            engine = {**union.counters, "inodes": len(union.table), "handles": len(union.handles)}
            engine["fetched_bytes"] = sum(getattr(layer, "fetched_bytes", 0) for layer in union.stack.lowers)
        return with_hits(self._transport(), engine)

    def check_invariants(self) -> None:
        """Assert every INVARIANT of the engine's tables; for tests."""
        with self._lock:
            check(self._union)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._lock:
            union = self._union
            if union.describer is not None:
                union.describer.close()
            for opened in union.handles.values():
                if isinstance(opened, files.Handle) and opened.file is not None:
                    opened.file.close()
            union.handles.clear()
            for inode in list(union.table):
                if isinstance(inode, FileInode) and inode.orphan is not None and union.workdir is not None:
                    union.workdir.discard(inode.orphan)
            union.stack.close()
