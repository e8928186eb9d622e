"""The portable transport: a `vfs.Filesystem` mounted by libfuse 2, whose path API fusepy binds.

    serve      mount, answer until unmounted

What a path API cannot have, and so is not to be had here: rename flags (EINVAL), READDIRPLUS, SEEK_HOLE (the kernel
answers as for a file without holes), O_TMPFILE (EOPNOTSUPP), copy_file_range (the kernel copies), passthrough. ACLs
are stored and inherited, but without FUSE_POSIX_ACL the kernel judges access by the mode bits alone.

*Hard links.* For libfuse, and so for the kernel, each name of an inode is an inode of its own with a page cache and
cached attributes of its own; only the `st_ino` (use_ino) is one. Three consequences:

- attr_timeout is 0 unless the mount is read-only: a write, chmod or link by one name changes size, mode or nlink of
  the other names, and libfuse has one timeout for all. Entries and negative entries may stay cached without limit:
  that a name exists, and for which inode, is changed by the kernel's own calls only.
- A file that has, or ever had, several names is read past the page cache (direct_io), or a descriptor of the other
  name would go on showing old pages. The price: a shared mmap of such a file is ENODEV. All other files keep their
  pages from one open to the next (keep_cache, which is what kernel_cache does for all). Not covered: a descriptor
  that was already open when the file got its second name.
- An O_APPEND write to such a file goes to its end as we know it, not as the kernel's cached size has it.

*Unlinked open files.* The kernel sends GETATTR, SETATTR and the xattr calls by inode without a handle, and libfuse
has no path for a nameless inode: with -o hard_remove, fstat of an unlinked file is ENOENT. Without it libfuse renames
the file to `.fuse_hidden…` first, and the upper, diff and commit would show that. Here libfuse is let rename, and the
adapter takes that rename for what it is: it unlinks the file in the file system, which keeps open files alive, and
remembers the hidden path as an alias of the node (`_hidden`). Where the file is about to be replaced by a rename it
does nothing but remember, so that the replacement stays atomic. Not covered: directories, which libfuse does not
move: fstat of a removed one that is open, or of a file whose directory has been removed too, is ENOENT.

*Changed layers.* libfuse 2's path API has no call by which to tell the kernel what is not so any more, so
`vfs.Notifier` reaches our own cache of paths only, and pages at the next open: the kernel goes on with the names that
it knows, present or missing, and on a read-only mount with their attributes, until it drops them by itself.

Readdir is by offset: libfuse asks from a cookie on, and gets what fills its buffer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from unionfs.linux import libfuse2
from unionfs.linux.libfuse2 import FileInfo
from unionfs.transport import MountOptions
from unionfs.transport.fusepy_paths import PathNodes, split
from unionfs.vfs import NOW, AttrRecord, Caller, DirEntry, FileHandle, Filesystem, NodeId, Now, SetAttr, Watcher

#: Threads that answer. Measured on 2 CPUs (walk, tar, untar, rm -rf of 4,000 files): 2 or 3 threads take the CPU time
#: of one, 4 take a fifth more. During a copy-up of 300 MB the slowest stat took 0.2 to 3 s with one, 10 ms with more.
THREADS: Final = 3

_FOREVER: Final = "1000000000"
_DIRENT_OVERHEAD: Final = 24  # struct fuse_dirent without the name
_NLINK: Final = slice(64, 68)  # in vfs.ATTR_RECORD, after <QQQqqqIIIII…: ino … ns parts, mode
_MODE: Final = slice(60, 64)
_IFDIR: Final = 0o040000


def _nlink(record: AttrRecord) -> int:
    return int.from_bytes(record[_NLINK], "little")


def _is_dir(record: AttrRecord) -> bool:
    return int.from_bytes(record[_MODE], "little") & 0o170000 == _IFDIR


def serve(fs: Filesystem, mountpoint: bytes, options: MountOptions, ready: Callable[[], None]) -> None:
    """As `unionfs.transport` says. `options.passthrough` is not to be had and is ignored.

    Raises TransportUnavailable (fusepy or libfuse 2 missing) or MountError (with libfuse's own words).
    """
    fuse = libfuse2.load()
    adapter = Adapter(fs)
    session = libfuse2.Session(fuse, adapter, mountpoint, mount_arguments(options, os.geteuid()))
    adapter.session = session
    attach = getattr(fs, "attach", None)
    if attach is not None:
        attach(_Forgetful(adapter), adapter.statistics, None, adapter.watch)
    try:
        session.run(ready, THREADS)
    finally:
        if attach is not None:
            attach(None, adapter.statistics, None, None)
        session.close()
        adapter.close()


def mount_arguments(options: MountOptions, euid: int) -> list[str]:
    """libfuse's `-o` words for `options`."""
    as_root = euid == 0
    words = [
        f"fsname={_escaped(options.fsname)}",
        f"subtype={_escaped(options.subtype)}",
        "use_ino",
        "nonempty",  # whether that is safe has been decided before
        f"entry_timeout={_FOREVER}",
        f"negative_timeout={_FOREVER}",
        f"attr_timeout={_FOREVER if options.read_only else 0}",
    ]
    if as_root:
        # libfuse mounts nosuid,nodev unless told otherwise; root gets a mount like any other.
        words += ["suid", "dev"]
    if as_root if options.allow_other is None else options.allow_other:
        words.append("allow_other")
    if options.default_permissions:
        words.append("default_permissions")
    if options.read_only:
        words.append("ro")
    if options.debug:
        words.append("debug")
    return [*words, *map(_escaped, options.extra)]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


class Adapter:
    """libfuse's operations on paths, in terms of nodes. Called by `libfuse2.Session`, on any of its threads.

    Arguments are those of fusepy's `Operations` with raw_fi; paths arrive as bytes, times as (tv_sec, tv_nsec).
    """

    session: libfuse2.Session
    #: Who is told, or was the last to be.
    watcher: Watcher

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._paths = PathNodes(fs)
        self._local = threading.local()
        self._lock = threading.Lock()  # of what is below
        self._open: dict[FileHandle, NodeId] = {}
        self._open_dirs: dict[FileHandle, NodeId] = {}
        self._hidden: dict[bytes, NodeId] = {}  # what libfuse takes to be the name of an unlinked open file
        self._misnamed: dict[bytes, NodeId] = {}  # the same of a file that kept its name: `rename` failed
        self._shared: set[int] = set()  # st_ino of files that have or had several names
        self._trusted: set[int] | None = None  # st_ino of files whose pages are theirs; None: all
        self._counts = {"bytes_read": 0, "bytes_written": 0, "passthrough_open": 0}

    def __call__(self, name: str, *args: Any) -> Any:
        """One operation. The nodes it walks to stay held until it returns."""
        self._count(f"request_{name}", 1)
        held: list[NodeId] = []
        self._local.held = held
        try:
            return getattr(self, name)(*[a.encode("latin-1") if isinstance(a, str) else a for a in args])
        finally:
            for node in held:
                self._paths.unhold(node)

    def watch(self, watcher: Watcher | None) -> None:
        """Tell `watcher` of every operation that begins from now on; None: nobody. In any thread."""
        from unionfs.transport.fusepy_watching import WatchedAdapter  # few mounts ever need it

        if watcher is not None:
            self.watcher = watcher
        self.__class__ = Adapter if watcher is None else WatchedAdapter

    def hides(self, path: bytes, new_path: bytes) -> bool:
        """Is a rename libfuse's own, which moves an open file out of the way?"""
        request = self.session.request
        return request.opcode != libfuse2.RENAME or split(new_path)[1] != request.rename_target

    def is_hidden(self, path: bytes) -> bool:
        """Does libfuse take this to be the name of an unlinked open file?"""
        return path in self._hidden

    def node_of(self, fh: FileHandle) -> NodeId:
        """What is open; 0 where nothing is."""
        return self._open.get(fh, 0) or self._open_dirs.get(fh, 0)

    def statistics(self) -> dict[str, int]:
        """Requests by the name of libfuse's operation, and the bytes that they moved."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str, more: int) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + more

    def distrust_pages(self) -> None:
        """Any file may have other data than before: its next open drops the pages that the kernel has of it."""
        with self._lock:
            self._trusted = set()

    def forget_paths(self) -> None:
        """The file system has other names than before."""
        self._paths.drop(b"")  # all begin with a slash

    def close(self) -> None:
        """After the session: release what was still open (an aborted connection sends no RELEASE)."""
        for fh in list(self._open):
            self.release(None, _Handle(fh))
        for fh in list(self._open_dirs):
            self.releasedir(None, fh)
        self._paths.close()

    # paths ------------------------------------------------------------------------------------------------------
    def _walk(self, path: bytes) -> tuple[NodeId, AttrRecord | None]:
        if (self._hidden or self._misnamed) and self.session.request.opcode != libfuse2.LOOKUP:
            node = self._hidden.get(path) or self._misnamed.get(path)
            if node is not None:
                self._paths.hold(node)
                self._local.held.append(node)
                return node, None
        node, record = self._paths.hold_path(path)
        self._local.held.append(node)
        return node, record

    def _node(self, path: bytes) -> NodeId:
        return self._walk(path)[0]

    def _parent(self, path: bytes) -> tuple[NodeId, bytes]:
        parent, name = split(path)
        return self._node(parent), name

    def _caller(self) -> Caller:
        context = self.session.context()
        return Caller(context.uid, context.gid, context.pid, context.umask)

    def _note_links(self, record: AttrRecord) -> AttrRecord:
        if _nlink(record) > 1 and not _is_dir(record):
            with self._lock:
                self._shared.add(int.from_bytes(record[:8], "little"))
        return record

    # names ------------------------------------------------------------------------------------------------------
    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        self._paths.enter(path, self._fs.mknod(*self._parent(path), mode, rdev, self._caller()))

    def mkdir(self, path: bytes, mode: int) -> None:
        self._paths.enter(path, self._fs.mkdir(*self._parent(path), mode & 0o7777, self._caller()))

    def symlink(self, path: bytes, target: bytes) -> None:
        self._paths.enter(path, self._fs.symlink(*self._parent(path), target, self._caller()))

    def link(self, path: bytes, source: bytes) -> None:
        entry = self._fs.link(self._node(source), *self._parent(path), self._caller())
        self._note_links(entry.attr)
        self._paths.enter(path, entry)

    def unlink(self, path: bytes) -> None:
        if path in self._hidden:
            return  # libfuse, at the last close: `release` has seen to it
        self._fs.unlink(*self._parent(path))
        self._paths.drop_file(path)

    def rmdir(self, path: bytes) -> None:
        self._fs.rmdir(*self._parent(path))
        self._paths.drop_file(path)  # it was empty: nothing is cached below

    def rename(self, path: bytes, new_path: bytes) -> None:
        request = self.session.request
        if self.hides(path, new_path):
            self._hide(path, new_path, replaced=request.opcode == libfuse2.RENAME)
            return
        unique, replaced = getattr(self._local, "replaced", (0, b""))
        node, record = self._walk(path)
        is_dir = _is_dir(record or self._fs.getattr(node))
        try:
            self._fs.rename(*self._parent(path), *self._parent(new_path), 0)
        except OSError:
            if unique == request.unique:
                with self._lock:
                    self._misnamed[replaced] = self._hidden[replaced]
            raise
        self._paths.drop_file(new_path)
        if not is_dir:
            self._paths.drop_file(path)
            return
        self._paths.drop(path)
        with self._lock:
            for aliases in (self._hidden, self._misnamed):
                for old in [alias for alias in aliases if alias.startswith(path + b"/")]:
                    aliases[new_path + old[len(path) :]] = aliases.pop(old)

    def _hide(self, path: bytes, hidden_path: bytes, replaced: bool) -> None:
        """libfuse renames an open file out of the way (fuse.c, hide_node): for an unlink, or to be `replaced` by the
        rename that follows within the same request."""
        node = self._node(path)
        if replaced:
            self._local.replaced = self.session.request.unique, hidden_path
        else:
            self._fs.unlink(*self._parent(path))
            self._paths.drop_file(path)
        with self._lock:
            self._hidden[hidden_path] = node
        self._paths.hold(node)  # until the last `release`

    # inodes -----------------------------------------------------------------------------------------------------
    def getattr(self, path: bytes | None, fi: FileInfo | None = None) -> AttrRecord:
        if fi is not None:
            return self._note_links(self._fs.getattr(self._open[fi.fh], fi.fh))
        assert path is not None, "libfuse omits the path only where there is a handle"
        node, record = self._walk(path)
        record = self._note_links(record or self._fs.getattr(node))
        if path in self._hidden:
            # libfuse counts the hidden name and takes it off (fuse.c, fuse_lib_getattr); it is gone already.
            links = _nlink(record)
            record = record[: _NLINK.start] + (links + (links > 0)).to_bytes(4, "little") + record[_NLINK.stop :]
        return record

    def _setattr(self, path: bytes, changes: SetAttr) -> None:
        self._fs.setattr(self._node(path), changes, self._caller())

    def chmod(self, path: bytes, mode: int) -> None:
        self._setattr(path, SetAttr(mode=mode & 0o7777))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self._setattr(path, SetAttr(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid))

    def truncate(self, path: bytes | None, size: int, fi: FileInfo | None = None) -> None:
        if fi is not None:
            self._fs.setattr(self._open[fi.fh], SetAttr(size=size), self._caller(), fi.fh)
        elif path is not None:
            self._setattr(path, SetAttr(size=size))

    def utimens(self, path: bytes, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
        self._setattr(path, SetAttr(atime_ns=_time(*atime), mtime_ns=_time(*mtime)))

    def readlink(self, path: bytes) -> bytes:
        return self._fs.readlink(self._node(path))

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return self._fs.getxattr(self._node(path), name)

    def listxattr(self, path: bytes) -> list[bytes]:
        names = self._fs.listxattr(self._node(path))
        if self.session.context().uid == 0:
            return names
        # xattr(7): trusted attributes are not even listed for others. The kernel hides their values, not their names.
        return [name for name in names if not name.startswith(b"trusted.")]

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        self._fs.setxattr(self._node(path), name, value, flags)

    def removexattr(self, path: bytes, name: bytes) -> None:
        self._fs.removexattr(self._node(path), name)

    def statfs(self, path: bytes) -> dict[str, int]:
        return {f"f_{field}": value for field, value in self._fs.statfs(self._node(path))._asdict().items()}

    # files ------------------------------------------------------------------------------------------------------
    def open(self, path: bytes, fi: FileInfo) -> None:
        node = self._node(path)
        opened = self._fs.open(node, fi.flags)
        if fi.flags & os.O_TRUNC:
            self._drop_privileges(node, opened.fh)
        self._opened(fi, node, opened.fh, self._fs.getattr(node, opened.fh))

    def _drop_privileges(self, node: NodeId, fh: FileHandle) -> None:
        """Set-user-ID and its like go when data does. By ATOMIC_O_TRUNC the kernel leaves that to us (fuse_setattr,
        ATTR_OPEN); for every other change it sends the new mode."""
        caller = self._caller()
        if caller.uid != 0:
            self._fs.setattr(node, SetAttr(kill_priv=True), caller, fh)
            return
        with contextlib.suppress(OSError):  # ENODATA nearly always
            self._fs.removexattr(node, b"security.capability")

    def create(self, path: bytes, mode: int, fi: FileInfo) -> None:
        entry, opened = self._fs.create(*self._parent(path), mode & 0o7777, fi.flags, self._caller())
        self._paths.enter(path, entry)
        self._opened(fi, entry.node, opened.fh, entry.attr)

    def _opened(self, fi: FileInfo, node: NodeId, fh: FileHandle, record: AttrRecord) -> None:
        self._note_links(record)
        self._paths.hold(node)
        with self._lock:
            self._open[fh] = node
            ino = int.from_bytes(record[:8], "little")
            shared = ino in self._shared
            trusted = self._trusted is None or ino in self._trusted
            if self._trusted is not None:
                self._trusted.add(ino)
        fi.fh = fh
        fi.direct_io, fi.keep_cache = shared, trusted and not shared

    def read(self, path: bytes | None, size: int, offset: int, fi: FileInfo) -> bytes:
        data = self._fs.read(fi.fh, offset, size)
        self._count("bytes_read", len(data))
        return data

    def write(self, path: bytes | None, data: bytes, offset: int, fi: FileInfo) -> int:
        if fi.flags & os.O_APPEND and self._shared and not fi.writepage:
            written = self._append(data, offset, fi)
        else:
            written = self._fs.write(fi.fh, offset, data)
        self._count("bytes_written", written)
        return written

    def _append(self, data: bytes, offset: int, fi: FileInfo) -> int:
        record = self._fs.getattr(self._open[fi.fh], fi.fh)
        if int.from_bytes(record[:8], "little") not in self._shared:
            return self._fs.write(fi.fh, offset, data)
        with self._lock:  # between two names the kernel does not serialise
            end = int.from_bytes(self._fs.getattr(self._open[fi.fh], fi.fh)[8:16], "little")
            return self._fs.write(fi.fh, end, data)

    def flush(self, path: bytes | None, fi: FileInfo) -> None:
        self._fs.flush(fi.fh)

    def release(self, path: bytes | None, fi: FileInfo) -> None:
        with self._lock:
            node = self._open.pop(fi.fh)
            unheld = [node]
            if self._hidden and node not in self._open.values():
                for alias in [alias for alias, hidden in self._hidden.items() if hidden == node]:
                    del self._hidden[alias]
                    if alias not in self._misnamed:  # libfuse goes on using that one
                        unheld.append(node)
        self._fs.release(fi.fh)
        for held in unheld:
            self._paths.unhold(held)

    def fsync(self, path: bytes | None, datasync: int, fi: FileInfo) -> None:
        self._fs.fsync(fi.fh, bool(datasync))

    def fallocate(self, path: bytes | None, mode: int, offset: int, length: int, fi: FileInfo) -> None:
        self._fs.fallocate(fi.fh, mode, offset, length)

    # directories ------------------------------------------------------------------------------------------------
    def opendir(self, path: bytes) -> FileHandle:
        node = self._node(path)
        fh = self._fs.opendir(node)
        self._paths.hold(node)
        with self._lock:
            self._open_dirs[fh] = node
        return fh

    def readdir(self, path: bytes | None, fh: FileHandle, offset: int) -> Iterable[DirEntry]:
        return self._fs.readdir(fh, offset, self.session.request.read_size, _DIRENT_OVERHEAD)

    def releasedir(self, path: bytes | None, fh: FileHandle) -> None:
        with self._lock:
            node = self._open_dirs.pop(fh)
        self._fs.releasedir(fh)
        self._paths.unhold(node)

    def fsyncdir(self, path: bytes | None, datasync: int, fh: FileHandle) -> None:
        self._fs.fsyncdir(fh, bool(datasync))

    # the whole --------------------------------------------------------------------------------------------------
    def destroy(self, path: bytes) -> None:
        """FUSE_DESTROY: `serve` sees to everything."""


class _Forgetful:
    """`vfs.Notifier`, as far as it goes here. Paths and pages are not known by node, so it is all of them."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def inval_inode(self, node: NodeId, offset: int = 0, length: int = 0) -> bool:
        self._adapter.distrust_pages()
        return False

    def inval_entry(self, parent: NodeId, name: bytes) -> bool:
        self._adapter.forget_paths()
        return False


def _time(seconds: int, nanoseconds: int) -> int | Now | None:
    """A timespec of utimensat(2): UTIME_NOW and UTIME_OMIT stand in tv_nsec."""
    if nanoseconds == libfuse2.UTIME_NOW:
        return NOW
    if nanoseconds == libfuse2.UTIME_OMIT:
        return None
    return seconds * 1_000_000_000 + nanoseconds


class _Handle:
    """A FileInfo that only names a handle."""

    flags = writepage = direct_io = keep_cache = 0

    def __init__(self, fh: FileHandle) -> None:
        self.fh = fh
