"""A file system by path, in process: `Tree` turns paths into the inode operations of a `vfs.Filesystem`.

Paths are str, bytes or os.PathLike; they name things in the tree, absolute or relative to its root alike. Symbolic
links are followed inside the tree only: an absolute target starts at the tree's root, and ".." at the root stays
there (as chroot(2)), so no path reaches the host. More than 40 links in one path are ELOOP (MAXSYMLINKS).

Methods are called, and behave, as their namesakes in `os`, `os.path`, `shutil` and `pathlib`; every failure is an
`OSError` with errno and the path. There is no working directory and no permission check: what the process may do
to the layers it may do here, and what it creates belongs to the `Caller` given.

INVARIANT: between two calls a `Tree` holds one lookup of each directory it walked through lately, as the kernel's
dentry cache does and for its reason: what the file system remembers about them stays remembered. Open files hold one
of their own (see `files`).

This module knows nothing of layers, mounts or transports.
"""

from __future__ import annotations

import errno
import io
import os
import stat as _stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, AnyStr, NamedTuple, Self, TypeAlias

from unionfs.api.files import UnionFile, flags_of_mode, wrap
from unionfs.vfs import (
    DT_DIR,
    DT_LNK,
    DT_REG,
    NOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ROOT,
    Attr,
    AttrRecord,
    Caller,
    DirEntry,
    Entry,
    Filesystem,
    NodeId,
    Now,
    SetAttr,
    StatFs,
)

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: Symbolic links followed in one path before ELOOP (MAXSYMLINKS, include/linux/namei.h).
MAX_SYMLINKS = 40

#: Directories whose lookup is kept.
MAX_RECENT = 512

_READDIR_BUDGET = 1 << 16  # bytes asked from readdir at a time
_DIRENT_OVERHEAD = 24  # struct fuse_dirent without the name: makes the budget mean roughly that many bytes


def os_error(code: int, path: AnyPath) -> OSError:
    """The `OSError` of an errno and the path it is about."""
    return OSError(code, os.strerror(code), os.fsdecode(path))


@contextmanager
def _naming(path: AnyPath) -> Iterator[None]:
    """Give an OSError of the file system the path it is about, as the caller wrote it."""
    try:
        yield
    except OSError as e:
        # A name given by `os_error` is str. Below, names are bytes, and relative to some layer.
        if e.errno is None or isinstance(e.filename, str):
            raise
        raise os_error(e.errno, path) from e


class Found(NamedTuple):
    node: NodeId
    attr: Attr


class Place(NamedTuple):
    """Where a path leads. `name` is b"" for the root, "." and ".."; `found` is None where nothing is."""

    parent: NodeId
    name: bytes
    found: Found | None


class _Recent:
    """The directories met last, with one lookup each."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._lock = threading.Lock()
        self._nodes: OrderedDict[NodeId, None] = OrderedDict()

    def take(self, node: NodeId) -> None:
        """Take over one lookup of a directory; what is then too much is given back."""
        with self._lock:
            surplus = node if node in self._nodes else None
            self._nodes[node] = None
            self._nodes.move_to_end(node)
            if len(self._nodes) > MAX_RECENT:
                surplus, _ = self._nodes.popitem(last=False)
        if surplus is not None:
            self._fs.forget(surplus, 1)

    def clear(self) -> None:
        with self._lock:
            nodes = list(self._nodes)
            self._nodes.clear()
        for node in reversed(nodes):
            self._fs.forget(node, 1)


class _Walk:
    """One path resolution. It counts the lookups it makes and gives all of them away in `release`."""

    __slots__ = ("_fs", "_held", "_links", "_recent", "_trail")

    def __init__(self, fs: Filesystem, recent: _Recent) -> None:
        self._fs = fs
        self._recent = recent
        self._held: list[Found] = []
        self._links = 0
        #: The directories from the root to here: what ".." goes back along. Never empty.
        self._trail = [Found(ROOT, Attr.unpack(fs.getattr(ROOT)))]

    def release(self) -> None:
        for node, attr in self._held:
            if attr.is_dir:
                self._recent.take(node)
            else:
                self._fs.forget(node, 1)
        self._held.clear()

    def keep(self, found: Found) -> None:
        """Hand the lookup of what was found last over to the caller."""
        self._held.remove(found)

    def resolve(self, path: bytes, follow: bool) -> Place:
        """Walk `path`; a symbolic link in its last place is followed if `follow`, or if a slash comes after it.

        ENOENT for a missing directory on the way; a missing last component is a `Place` with nothing found.
        """
        if b"\0" in path:
            raise ValueError("embedded null byte")
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        pending = path.split(b"/")[::-1]  # a stack: the next component is the last element
        place = self._back(0)
        while pending:
            name, here = pending.pop(), place.found
            if here is None:
                # Only slashes may follow a missing name: mkdir("new/").
                if name or any(pending):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            elif not here.attr.is_dir:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            elif name == b"..":
                place = self._back(1)
            elif name == b".":
                place = self._back(0)
            elif name:
                place = self._step(here.node, name)
                found = place.found
                if found is not None and _stat.S_ISLNK(found.attr.mode) and (pending or follow):
                    pending.extend(self._target(found.node))
                    place = self._back(0)
        return place

    def _back(self, levels: int) -> Place:
        """The directory that many levels up; at the root, the root."""
        if levels and len(self._trail) > 1:
            self._trail.pop()
        return Place(self._trail[-1].node, b"", self._trail[-1])

    def _step(self, parent: NodeId, name: bytes) -> Place:
        try:
            entry = self._fs.lookup(parent, name)
        except FileNotFoundError:
            return Place(parent, name, None)
        found = Found(entry.node, Attr.unpack(entry.attr))
        self._held.append(found)
        if found.attr.is_dir:
            self._trail.append(found)
        return Place(parent, name, found)

    def _target(self, link: NodeId) -> list[bytes]:
        """The components of a link's target, as a stack; an absolute one restarts at the root."""
        self._links += 1
        if self._links > MAX_SYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = self._fs.readlink(link)
        if target.startswith(b"/"):
            del self._trail[1:]
        return target.split(b"/")[::-1]


def _like(path: Any, name: bytes) -> Any:
    """A name as the caller speaks: bytes if the path given was bytes, else str with surrogate escapes."""
    return name if isinstance(os.fspath(path), bytes) else os.fsdecode(name)


def stat_result(attr: Attr) -> os.stat_result:
    """The attributes as `os.stat` gives them; `st_dev` is 0."""
    times = (attr.atime_ns, attr.mtime_ns, attr.ctime_ns)
    head = (attr.mode, attr.ino, 0, attr.nlink, attr.uid, attr.gid, attr.size, *(t // 1_000_000_000 for t in times))
    more: dict[str, Any] = {"st_blksize": attr.blksize, "st_blocks": attr.blocks, "st_rdev": attr.rdev}
    for name, ns in zip(("st_atime", "st_mtime", "st_ctime"), times, strict=True):
        more[name] = ns / 1_000_000_000
        more[name + "_ns"] = ns
    return os.stat_result(head, more)


class TreeEntry:
    """One entry of `Tree.scandir`, with the interface of `os.DirEntry`; `path` can be given to the tree again."""

    __slots__ = ("_tree", "_type", "ino", "name", "path")

    def __init__(self, tree: Tree, path: Any, name: Any, ino: int, kind: int) -> None:
        self._tree = tree
        self.path = path
        self.name = name
        self.ino = ino
        self._type = kind

    def inode(self) -> int:
        return self.ino

    def is_symlink(self) -> bool:
        return self._type == DT_LNK

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind(follow_symlinks) == DT_DIR

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind(follow_symlinks) == DT_REG

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._tree.stat(self.path, follow_symlinks=follow_symlinks)

    def __repr__(self) -> str:
        return f"<TreeEntry {self.name!r}>"

    def _kind(self, follow: bool) -> int:
        if not (follow and self._type == DT_LNK):
            return self._type
        try:
            return _stat.S_IFMT(self.stat().st_mode) >> 12
        except FileNotFoundError:
            return 0


class Tree:
    """A `vfs.Filesystem` by path. Usable from several threads. The file system is closed by `close`."""

    def __init__(self, filesystem: Filesystem, caller: Caller) -> None:
        self.filesystem = filesystem
        self.caller = caller
        self._recent = _Recent(filesystem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.filesystem.close()

    def forget(self) -> None:
        """Give back every lookup kept for directories. Only memory is at stake."""
        self._recent.clear()

    # resolution ---------------------------------------------------------------------------------------------------
    @contextmanager
    def _place(self, path: AnyPath, *, follow: bool) -> Iterator[Place]:
        walk = _Walk(self.filesystem, self._recent)
        with _naming(path):
            try:
                yield walk.resolve(os.fsencode(path), follow)
            finally:
                walk.release()

    @contextmanager
    def _existing(self, path: AnyPath, *, follow: bool = True) -> Iterator[Found]:
        with self._place(path, follow=follow) as place:
            if place.found is None:
                raise os_error(errno.ENOENT, path)
            yield place.found

    @contextmanager
    def _named(self, path: AnyPath, *, dots: int = errno.EINVAL) -> Iterator[tuple[NodeId, bytes]]:
        """The directory and the last name of a path, links in last place not followed; `dots`: errno without name.

        A trailing slash, which would follow, is left off, and so a link it follows is renamed or removed itself.
        """
        raw = os.fsencode(path)
        with self._place(raw.rstrip(b"/") or raw, follow=False) as place:
            if not place.name:
                raise os_error(dots, path)
            if raw.endswith(b"/") and place.found is not None and not place.found.attr.is_dir:
                raise os_error(errno.ENOTDIR, path)
            yield place.parent, place.name

    @contextmanager
    def _new(self, path: AnyPath) -> Iterator[tuple[NodeId, bytes]]:
        """As `_named`, for a name that must not exist yet: EEXIST comes before any other reason."""
        raw = os.fsencode(path)
        with self._place(raw.rstrip(b"/") or raw, follow=False) as place:
            if place.found is not None:
                raise os_error(errno.EEXIST, path)
            yield place.parent, place.name

    def _drop(self, entry: Entry) -> Attr:
        self.filesystem.forget(entry.node, 1)
        return Attr.unpack(entry.attr)

    # looking ------------------------------------------------------------------------------------------------------
    def attr(self, path: AnyPath, *, follow_symlinks: bool = True) -> Attr:
        """The attributes with nanosecond integers; `stat` is the same as `os.stat_result`."""
        with self._existing(path, follow=follow_symlinks) as (node, _):
            return Attr.unpack(self.filesystem.getattr(node))

    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> os.stat_result:
        """`st_dev` is 0: one device for the whole tree, known to no kernel."""
        return stat_result(self.attr(path, follow_symlinks=follow_symlinks))

    def lstat(self, path: AnyPath) -> os.stat_result:
        return self.stat(path, follow_symlinks=False)

    def exists(self, path: AnyPath) -> bool:
        return self._mode(path, follow=True) is not None

    def lexists(self, path: AnyPath) -> bool:
        return self._mode(path, follow=False) is not None

    def is_dir(self, path: AnyPath) -> bool:
        return _stat.S_ISDIR(self._mode(path, follow=True) or 0)

    def is_file(self, path: AnyPath) -> bool:
        return _stat.S_ISREG(self._mode(path, follow=True) or 0)

    def is_symlink(self, path: AnyPath) -> bool:
        return _stat.S_ISLNK(self._mode(path, follow=False) or 0)

    def _mode(self, path: AnyPath, *, follow: bool) -> int | None:
        try:
            return self.attr(path, follow_symlinks=follow).mode
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def readlink(self, path: AnyStr | os.PathLike[AnyStr]) -> AnyStr:
        with self._existing(path, follow=False) as (node, attr):
            if not _stat.S_ISLNK(attr.mode):
                raise os_error(errno.EINVAL, path)
            target: AnyStr = _like(path, self.filesystem.readlink(node))
            return target

    def statvfs(self, path: AnyPath = "/") -> StatFs:
        with self._existing(path) as (node, _):
            return self.filesystem.statfs(node)

    def listdir(self, path: Any = "/") -> list[Any]:
        """The names, without "." and "..", as bytes if `path` is bytes, in no particular order."""
        return [_like(path, entry.name) for entry in self._entries(path)]

    def scandir(self, path: Any = "/") -> Iterator[TreeEntry]:
        directory = os.fspath(path)
        for entry in self._entries(path):
            name = _like(path, entry.name)
            yield TreeEntry(self, os.path.join(directory, name), name, entry.ino, entry.type)

    def _entries(self, path: AnyPath) -> list[DirEntry]:
        fs = self.filesystem
        entries: list[DirEntry] = []
        with self._existing(path) as (node, attr):
            if not attr.is_dir:
                raise os_error(errno.ENOTDIR, path)
            fh = fs.opendir(node)
            try:
                offset = 0
                while batch := fs.readdir(fh, offset, _READDIR_BUDGET, _DIRENT_OVERHEAD):
                    entries += [e for e in batch if e.name not in (b".", b"..")]
                    offset = batch[-1].cookie
            finally:
                fs.releasedir(fh)
        return entries

    def walk(
        self,
        top: Any = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """As `os.walk`: the directory names may be edited in place when `topdown`."""
        try:
            entries = list(self.scandir(top))
        except OSError as e:
            if onerror is not None:
                onerror(e)
            return
        dirs: list[Any] = []
        files: list[Any] = []
        for entry in entries:
            try:
                is_dir = entry.is_dir()
            except OSError:  # a link that leads in circles: no directory (os.walk)
                is_dir = False
            (dirs if is_dir else files).append(entry.name)
        if topdown:
            yield top, dirs, files
        for name in dirs:
            path = os.path.join(os.fspath(top), name)
            if followlinks or not self.is_symlink(path):
                yield from self.walk(path, topdown, onerror, followlinks)
        if not topdown:
            yield top, dirs, files

    # names --------------------------------------------------------------------------------------------------------
    def mkdir(self, path: AnyPath, mode: int = 0o777) -> None:
        with self._new(path) as (parent, name):
            self._drop(self.filesystem.mkdir(parent, name, mode, self.caller))

    def makedirs(self, path: AnyPath, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and those above it that are missing (those with mode 0o777, as `os.makedirs`)."""
        raw = os.fsencode(path).rstrip(b"/")
        head, _, tail = raw.rpartition(b"/")
        if head and tail and not self.exists(head):
            self.makedirs(head, exist_ok=True)
        try:
            self.mkdir(path, mode)
        except FileExistsError:
            if not exist_ok or not self.is_dir(path):
                raise

    def mknod(self, path: AnyPath, mode: int = 0o600 | _stat.S_IFREG, device: int = 0) -> None:
        if not _stat.S_IFMT(mode):
            mode |= _stat.S_IFREG
        with self._new(path) as (parent, name):
            self._drop(self.filesystem.mknod(parent, name, mode, device, self.caller))

    def mkfifo(self, path: AnyPath, mode: int = 0o666) -> None:
        self.mknod(path, _stat.S_IFIFO | mode)

    def symlink(self, target: AnyPath, path: AnyPath) -> None:
        with self._new(path) as (parent, name):
            self._drop(self.filesystem.symlink(parent, name, os.fsencode(target), self.caller))

    def link(self, source: AnyPath, path: AnyPath, *, follow_symlinks: bool = False) -> None:
        """A hard link. Unlike `os.link`, a link in last place is by default itself linked, as link(2) does."""
        with self._existing(source, follow=follow_symlinks) as (node, _), self._new(path) as (parent, name):
            self._drop(self.filesystem.link(node, parent, name, self.caller))

    def unlink(self, path: AnyPath) -> None:
        with self._named(path, dots=errno.EISDIR) as (parent, name):
            self.filesystem.unlink(parent, name)

    remove = unlink

    def rmdir(self, path: AnyPath) -> None:
        with self._named(path, dots=errno.EBUSY) as (parent, name):
            self.filesystem.rmdir(parent, name)

    def rmtree(self, path: AnyPath) -> None:
        """Remove a directory and all below it; symbolic links are removed, never followed."""
        if self.is_symlink(path):
            raise os_error(errno.ENOTDIR, path)
        for entry in self.scandir(os.fsencode(path)):
            if entry.is_dir(follow_symlinks=False):
                self.rmtree(entry.path)
            else:
                self.unlink(entry.path)
        self.rmdir(path)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        """rename(2): an existing target is replaced."""
        self._rename(source, target, 0)

    replace = rename

    def move(self, source: AnyPath, target: AnyPath) -> None:
        """rename(2) that never replaces: EEXIST (RENAME_NOREPLACE)."""
        self._rename(source, target, RENAME_NOREPLACE)

    def exchange(self, one: AnyPath, other: AnyPath) -> None:
        """Swap two existing names atomically (RENAME_EXCHANGE)."""
        self._rename(one, other, RENAME_EXCHANGE)

    def _rename(self, source: AnyPath, target: AnyPath, flags: int) -> None:
        with (
            self._named(source, dots=errno.EBUSY) as (parent, name),
            self._named(target, dots=errno.EBUSY) as (new_parent, new_name),
        ):
            self.filesystem.rename(parent, name, new_parent, new_name, flags)

    # attributes ---------------------------------------------------------------------------------------------------
    def _setattr(self, path: AnyPath, changes: SetAttr, follow: bool = True) -> AttrRecord:
        with self._existing(path, follow=follow) as (node, _):
            return self.filesystem.setattr(node, changes, self.caller)

    def chmod(self, path: AnyPath, mode: int) -> None:
        self._setattr(path, SetAttr(mode=mode & 0o7777))

    def chown(self, path: AnyPath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        """-1 leaves an id as it is."""
        owner = SetAttr(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)
        self._setattr(path, owner, follow_symlinks)

    def lchown(self, path: AnyPath, uid: int, gid: int) -> None:
        self.chown(path, uid, gid, follow_symlinks=False)

    def utime(
        self,
        path: AnyPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int | None, int | None] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set access and modification time: seconds, or `ns` (None leaves that one); neither means now."""
        atime: int | Now | None
        mtime: int | Now | None
        if ns is not None:
            if times is not None:
                raise ValueError("utime: give times or ns, not both")
            atime, mtime = ns
        elif times is not None:
            atime, mtime = (round(t * 1_000_000_000) for t in times)
        else:
            atime = mtime = NOW
        self._setattr(path, SetAttr(atime_ns=atime, mtime_ns=mtime), follow_symlinks)

    def truncate(self, path: AnyPath, length: int) -> None:
        with self._existing(path) as (node, attr):
            if not _stat.S_ISREG(attr.mode):
                raise os_error(errno.EISDIR if attr.is_dir else errno.EINVAL, path)
            self.filesystem.setattr(node, SetAttr(size=length), self.caller)

    def getxattr(self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        with self._existing(path, follow=follow_symlinks) as (node, _):
            return self.filesystem.getxattr(node, os.fsencode(name))

    def setxattr(
        self, path: AnyPath, name: str | bytes, value: bytes, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        with self._existing(path, follow=follow_symlinks) as (node, _):
            self.filesystem.setxattr(node, os.fsencode(name), value, flags)

    def listxattr(self, path: Any = "/", *, follow_symlinks: bool = True) -> list[Any]:
        """The names, as bytes if `path` is bytes."""
        with self._existing(path, follow=follow_symlinks) as (node, _):
            return [_like(path, name) for name in self.filesystem.listxattr(node)]

    def removexattr(self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True) -> None:
        with self._existing(path, follow=follow_symlinks) as (node, _):
            self.filesystem.removexattr(node, os.fsencode(name))

    # files --------------------------------------------------------------------------------------------------------
    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As the built-in `open`, on a file of the tree. Open a directory, device, fifo or socket: EISDIR, ENXIO."""
        flags = flags_of_mode(mode)
        raw = self._open_raw(path, flags, mode)
        try:
            return wrap(raw, mode, buffering, encoding, errors, newline)
        except BaseException:
            raw.close()
            raise

    def _open_raw(self, path: AnyPath, flags: int, mode: str) -> UnionFile:
        fs, name = self.filesystem, os.fsdecode(path)
        walk = _Walk(fs, self._recent)
        with _naming(path):
            try:
                # O_EXCL looks at the name itself, a dangling link included (open(2)); plain O_CREAT follows it.
                place = walk.resolve(os.fsencode(path), follow=not flags & os.O_EXCL)
                if place.found is None:
                    if not flags & os.O_CREAT:
                        raise os_error(errno.ENOENT, path)
                    if os.fsencode(path).endswith(b"/"):
                        raise os_error(errno.EISDIR, path)
                    entry, opened = fs.create(place.parent, place.name, 0o666, flags, self.caller)
                    return UnionFile(fs, entry.node, opened.fh, mode, name, self.caller)
                if flags & os.O_EXCL:
                    raise os_error(errno.EEXIST, path)
                node, attr = place.found
                if not _stat.S_ISREG(attr.mode):
                    raise os_error(errno.EISDIR if attr.is_dir else errno.ENXIO, path)
                opened = fs.open(node, flags & ~os.O_CREAT)
                walk.keep(place.found)
                return UnionFile(fs, node, opened.fh, mode, name, self.caller)
            finally:
                walk.release()

    def read_bytes(self, path: AnyPath) -> bytes:
        with self.open(path, "rb") as file:
            data: bytes = file.read()
        return data

    def read_text(self, path: AnyPath, encoding: str = "utf-8", errors: str = "strict") -> str:
        return io.TextIOWrapper(io.BytesIO(self.read_bytes(path)), encoding, errors).read()

    def write_bytes(self, path: AnyPath, data: bytes) -> int:
        with self.open(path, "wb") as file:
            return int(file.write(data))

    def write_text(self, path: AnyPath, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        return self.write_bytes(path, data.encode(encoding, errors))
