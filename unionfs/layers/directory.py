"""`DirectoryLayer`: a layer that is a directory of the host.

All access is relative to one descriptor of the root. A path's parent directory is opened component by component
with O_NOFOLLOW from the nearest ancestor whose descriptor is at hand, and the last name is given to an *at() call
that does not follow: so no symbolic link is ever followed, nothing outside the tree is reached by a name, and a path
may be longer than PATH_MAX.

Directory descriptors (O_PATH) are kept, the least recently used ones closed. INVARIANTS:
- `_dirs[b""]` is the root, and is never evicted;
- `_dirs[p]` is a descriptor of the directory that has, or had when last looked, the path p. Whoever renames
  directories behind this object's back calls `invalidate`;
- the descriptor got last survives the getting of the next one: calls with two paths rely on it.

A layer knows nothing of whiteouts and stacks; it shows what is stored.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from unionfs.errors import LayerError
from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import OriginHandle, Path, ScanEntry
from unionfs.linux import fileattr as linux_fileattr
from unionfs.linux import handle as linux_handle
from unionfs.linux import statfs as linux_statfs
from unionfs.linux import xattr as linux_xattr
from unionfs.vfs import DT_DIR, DT_LNK, DT_REG, FlagsForm, StatFs, d_type

_DIRECTORY: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = os.O_PATH | _DIRECTORY
#: O_NONBLOCK: a fifo or device put in a file's place must not stop us; it means nothing for regular files
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
#: name_to_handle_at(2): no handles here, or a filter forbids to ask
_NO_HANDLES: Final = frozenset({errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS, errno.EPERM})
_OPEN_REFUSAL: Final = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}

_ENCODING: Final = sys.getfilesystemencoding()
_ENCODE_ERRORS: Final = sys.getfilesystemencodeerrors()


class DirectoryLayer:
    """Implements `Layer` over the directory `path`, whose own last component may be a symbolic link.

    `dir_fds` bounds the directory descriptors kept, besides the root's (at least 2). LayerError where there is no
    such directory or it may not be opened.
    """

    #: O_PATH: a root that may be searched but not listed is still good for lookups
    _ROOT_FLAGS = os.O_PATH
    _FILE_FLAGS = os.O_NOATIME

    def __init__(self, path: bytes | str, name: str | None = None, dir_fds: int = 256) -> None:
        self.path: bytes = os.path.abspath(os.fsencode(path))
        self.name: str = os.fsdecode(path) if name is None else name
        self.root_fd: int = self._open_root()
        self._bound = max(2, dir_fds) + 1
        self._dirs: OrderedDict[Path, int] = OrderedDict({b"": self.root_fd})
        self._evicted = False  # until then, all directories on the way to one in `_dirs` are there too
        self._uuids: dict[int, bytes | None] = {}  # by mount id; None: its handles do not last

    def _open_root(self) -> int:
        try:
            return os.open(self.path, self._ROOT_FLAGS | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            message, hint = "no such directory", "check the spelling, or create it first"
        except NotADirectoryError:
            message, hint = "not a directory", "a layer is a directory; unpack an archive first"
        except PermissionError:
            message, hint = "permission denied", "run as a user who may read it"
        except OSError as e:
            message, hint = e.strerror or str(e), None
        raise LayerError(f"layer {self.name}: {message}", hint=hint)

    # reading ----------------------------------------------------------------------------------------------------

    def lstat(self, path: Path) -> os.stat_result:
        # Written out, not by `_at`: this is the hot path.
        parent, _, name = path.rpartition(b"/")
        dirs = self._dirs
        fd = dirs.get(parent)
        if fd is None:
            fd = self._open_dir(parent)
        else:
            dirs.move_to_end(parent)
        return os.stat(name or b".", dir_fd=fd, follow_symlinks=False)

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        return functools.partial(os.stat, dir_fd=self.dir_fd(path), follow_symlinks=False)

    def limit_dir_fds(self, bound: int) -> None:
        """Keep no more than `bound` directory descriptors from now on (at least 2)."""
        self._bound = max(2, bound) + 1

    def scan(self, path: Path) -> list[ScanEntry]:
        dir_fd, dir_name = self._at(path)
        fd = os.open(dir_name, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)
        kept = False
        try:
            entries: list[ScanEntry] = []
            with os.scandir(fd) as listing:
                for entry in listing:
                    # is_* answer from d_type, and ask by fstatat where that is DT_UNKNOWN.
                    if entry.is_file(follow_symlinks=False):
                        kind = DT_REG
                    elif entry.is_dir(follow_symlinks=False):
                        kind = DT_DIR
                    elif entry.is_symlink():
                        kind = DT_LNK
                    else:
                        try:
                            kind = d_type(os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_mode)
                        except FileNotFoundError:
                            continue  # gone since the listing was read
                    name = entry.name.encode(_ENCODING, _ENCODE_ERRORS)
                    entries.append(tuple.__new__(ScanEntry, (name, kind, entry.inode())))  # twice as fast
            if path not in self._dirs:
                # Who lists a directory asks about its entries next.
                kept, last = True, next(reversed(self._dirs))
                self._dirs[path] = fd
                self._evict(path, last)
            return entries
        finally:
            if not kept:
                os.close(fd)

    def readlink(self, path: Path) -> bytes:
        fd, name = self._at(path)
        return os.readlink(name, dir_fd=fd)

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        fd, last = self._at(path)
        return linux_xattr.find_xattr(fd, last, name)

    def listxattr(self, path: Path) -> list[bytes]:
        fd, last = self._at(path)
        return linux_xattr.llistxattr(fd, last)

    def open(self, path: Path, flags: int = os.O_RDONLY) -> FdFile:
        """Open a regular file. Others are refused: EISDIR, ELOOP (symbolic link), ENXIO (fifo, socket, device).

        Where the system lets us, `_FILE_FLAGS` has O_NOATIME: reading a layer leaves no trace in it."""
        dir_fd, name = self._at(path)
        flags = (flags & ~os.O_CREAT) | _FILE
        try:
            fd = os.open(name, flags | self._FILE_FLAGS, dir_fd=dir_fd)
        except PermissionError:
            # O_NOATIME is for the file's owner and CAP_FOWNER (open(2)).
            fd = os.open(name, flags, dir_fd=dir_fd)
        return _regular(fd, path)

    def handle(self, path: Path) -> OriginHandle | None:
        fd, name = self._at(path)
        try:
            found = linux_handle.name_to_handle_at(fd, name)
        except OSError as e:
            if e.errno in _NO_HANDLES:
                return None
            raise
        if found.mount_id not in self._uuids:
            self._uuids[found.mount_id] = self._uuid_at(fd, name)
        uuid = self._uuids[found.mount_id]
        return None if uuid is None else OriginHandle(found.type, found.handle, uuid)

    def _uuid_at(self, dir_fd: int, name: bytes) -> bytes | None:
        """The UUID of the file system that holds `name`: the parent's, unless `name` is a mount point. None for FUSE:
        its handles hold the server's number of a node, which is another file's after a remount (fuse_encode_fh())."""
        holder = b"."
        if os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_dev != os.fstat(dir_fd).st_dev:
            holder = name
        try:
            fd = os.open(holder, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
        except PermissionError:
            return linux_handle.NO_UUID
        try:
            return None if linux_statfs.magic(fd) == linux_statfs.FUSE_MAGIC else linux_handle.fs_uuid(fd)
        finally:
            os.close(fd)

    def fileattr(self, path: Path, form: FlagsForm) -> bytes:
        """The flags of a regular file or a directory."""
        with self._opened(path) as fd:
            return linux_fileattr.get(fd, form.get, form.size)

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """A descriptor for ioctl(2). ENOTTY for what is neither regular file nor directory."""
        dir_fd, name = self._at(path)
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            file = self.open(path)
            try:
                yield file.fd
            finally:
                file.close()
            return
        fd = os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=dir_fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def statfs(self) -> StatFs:
        st = os.fstatvfs(self.root_fd)
        return StatFs(
            st.f_bsize, st.f_frsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_namemax
        )

    def close(self) -> None:
        """Close every descriptor. Idempotent; files opened from the layer stay open."""
        for fd in self._dirs.values():
            os.close(fd)
        self._dirs.clear()
        self.root_fd = -1

    # directory descriptors --------------------------------------------------------------------------------------

    def dir_fd(self, path: Path) -> int:
        """A descriptor (O_PATH but for the root of an upper) of the directory `path`: the layer's own, to be used
        before the next call on the layer and never closed."""
        dirs = self._dirs
        fd = dirs.get(path)
        if fd is None:
            return self._open_dir(path)
        dirs.move_to_end(path)
        return fd

    def invalidate(self, path: Path = b"") -> None:
        """Forget the descriptors of `path` and of everything below it (all of them for the root)."""
        below = path + b"/"
        dirs = self._dirs
        for key in [key for key in dirs if key and (not path or key == path or key.startswith(below))]:
            os.close(dirs.pop(key))

    def _at(self, path: Path) -> tuple[int, bytes]:
        """The descriptor of a path's parent directory, and its last name (b"." for the root)."""
        parent, _, name = path.rpartition(b"/")
        return self.dir_fd(parent), name or b"."

    def _open_dir(self, path: Path) -> int:
        """Open a directory that is not at hand, and keep it and those on the way."""
        dirs = self._dirs
        if b"" not in dirs:
            raise OSError(errno.EBADF, "the layer is closed", path)
        last = next(reversed(dirs))
        known = path
        while known not in dirs:
            known = known.rpartition(b"/")[0]
        fd = dirs[known]
        start = len(known) + 1 if known else 0
        for name in path[start:].split(b"/"):
            fd = self._step(fd, name, known, last)
            known = known + b"/" + name if known else name
            dirs[known] = fd
            self._evict(known, last)
        return fd

    def _step(self, dir_fd: int, name: bytes, path: Path, last: Path) -> int:
        try:
            return os.open(name, _STEP, dir_fd=dir_fd)
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        # Out of descriptors: what we keep for speed is the first to go.
        self._evict(path, last, bound=2)
        return os.open(name, _STEP, dir_fd=dir_fd)

    def _evict(self, path: Path, last: Path, bound: int | None = None) -> None:
        """Close the least recently used descriptors beyond the bound, but none of `path`, `last` and the root."""
        dirs = self._dirs
        excess = len(dirs) - (self._bound if bound is None else bound)
        if excess <= 0:
            return
        victims: list[Path] = []
        for key in dirs:
            if len(victims) == excess:
                break
            if key and key != path and key != last:
                victims.append(key)
        for key in victims:
            self._evicted = True
            os.close(dirs.pop(key))


def _regular(fd: int, path: Path) -> FdFile:
    """The open file as a `FdFile`; closed and refused where it is not a regular one."""
    try:
        st = os.fstat(fd)
        kind = stat.S_IFMT(st.st_mode)
        if kind != stat.S_IFREG:
            code = _OPEN_REFUSAL.get(kind, errno.ENXIO)
            raise OSError(code, os.strerror(code), path)
    except BaseException:
        os.close(fd)
        raise
    return FdFile(fd, st)
