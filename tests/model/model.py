"""What a union mount must do, with nothing behind it: a tree of inodes, and the errno Linux gives in each case.

After the start there are no layers: a union is a file system like another. One method per operation; each returns
plain data or raises OSError. The order of the checks is that of the Linux VFS (fs/namei.c, fs/open.c, fs/xattr.c),
whose functions are named at the branch. The caller is privileged and its umask is `UMASK`.

Paths are text and relative to the root; "" is the root. Symbolic links in this world always dangle: walking through
one, or following it at the end, is ENOENT.
"""

from __future__ import annotations

import errno as E
import os
from typing import Any, NoReturn

from .layers import GROUP, OWNER, TYPES, Inode

UMASK = 0o022
NOREPLACE, EXCHANGE = 1, 2
Handle = tuple[Inode, bool]  # the file, and whether it may be written


def fail(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


class Model:
    """`root` is what the layers show (layers.merge). Handles live in small numbered slots."""

    def __init__(self, root: Inode) -> None:
        self.root = root
        self.handles: dict[int, Handle] = {}

    # walking ------------------------------------------------------------------------------------------------------
    def _child(self, parent: Inode, name: str) -> Inode | None:
        if parent.kind != "dir":
            fail(E.ENOENT if parent.kind == "symlink" else E.ENOTDIR)
        return parent.children.get(name)

    def _walk(self, path: str) -> Inode:
        inode = self.root
        for name in path.split("/") if path else []:
            inode = self._child(inode, name) or fail(E.ENOENT)
        return inode

    def _parent(self, path: str) -> tuple[Inode, str, Inode | None]:
        """The directory that holds the last name, the name, and what it names now, if anything."""
        directory, _, name = path.rpartition("/")
        parent = self._walk(directory)
        return parent, name, self._child(parent, name)

    def _follow(self, path: str) -> Inode:
        inode = self._walk(path)
        return inode if inode.kind != "symlink" else fail(E.ENOENT)

    def _for_writing(self, inode: Inode) -> Inode:
        """open(2) with O_WRONLY | O_NOFOLLOW | O_NONBLOCK; do_open() and fifo_open()."""
        if inode.kind != "file":
            fail({"symlink": E.ELOOP, "dir": E.EISDIR, "fifo": E.ENXIO}[inode.kind])
        return inode

    # making -------------------------------------------------------------------------------------------------------
    def _make(self, path: str, kind: str, mode: int, target: str = "") -> Inode:
        parent, name, existing = self._parent(path)
        if existing:
            fail(E.EEXIST)
        inode = self._new(parent, kind, mode, target)
        parent.children[name], parent.mtime = inode, None
        return inode

    def _new(self, parent: Inode, kind: str, mode: int, target: str = "") -> Inode:
        """inode_init_owner(): a set-group-ID directory hands down its group, and to directories the bit too."""
        inherits = bool(parent.mode & 0o2000)
        if inherits and kind == "dir":
            mode |= 0o2000
        return Inode(kind, mode, OWNER, parent.gid if inherits else GROUP, target=target)

    def create(self, path: str, mode: int) -> None:
        """open(2) with O_CREAT | O_EXCL."""
        self._make(path, "file", mode & ~UMASK)

    def creat(self, path: str, mode: int) -> None:
        """open(2) with O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW: made anew, or emptied."""
        inode = self._parent(path)[2]
        if inode is None:
            self._make(path, "file", mode & ~UMASK)
        else:
            self._resize(self._for_writing(inode), 0)

    def mkdir(self, path: str, mode: int) -> None:
        self._make(path, "dir", mode & 0o1777 & ~UMASK)

    def symlink(self, target: str, path: str) -> None:
        self._make(path, "symlink", 0o777, target)

    def mkfifo(self, path: str, mode: int) -> None:
        self._make(path, "fifo", mode & ~UMASK)

    def link(self, source: str, path: str) -> None:
        self._link(self._walk(source), path)

    def _link(self, inode: Inode, path: str) -> None:
        parent, name, existing = self._parent(path)
        if existing:  # filename_create() comes before vfs_link()
            fail(E.EEXIST)
        if inode.kind == "dir":
            fail(E.EPERM)
        if inode.nlink == 0 and not inode.linkable:
            fail(E.ENOENT)
        inode.linkable = False
        inode.nlink += 1
        parent.children[name], parent.mtime = inode, None

    # removing and renaming ----------------------------------------------------------------------------------------
    def unlink(self, path: str) -> None:
        parent, name, inode = self._parent(path)
        if inode is None or inode.kind == "dir":
            fail(E.EISDIR if inode else E.ENOENT)
        self._drop(parent, name, inode)

    def rmdir(self, path: str) -> None:
        parent, name, inode = self._parent(path)
        if inode is None or inode.kind != "dir":
            fail(E.ENOTDIR if inode else E.ENOENT)
        if inode.children:
            fail(E.ENOTEMPTY)
        self._drop(parent, name, inode)

    def _drop(self, parent: Inode, name: str, inode: Inode) -> None:
        inode.nlink -= 1
        del parent.children[name]
        parent.mtime = None

    def rename(self, source: str, path: str, flags: int = 0) -> None:
        """do_renameat2(), then vfs_rename(), then the file system."""
        old_parent, old_name, old = self._parent(source)
        new_parent, new_name, new = self._parent(path)
        if old is None:
            fail(E.ENOENT)
        if flags & NOREPLACE and new:
            fail(E.EEXIST)
        if flags & EXCHANGE and not new:
            fail(E.ENOENT)
        if self._holds(old, new_parent):
            fail(E.EINVAL)
        if new and self._holds(new, old_parent):
            fail(E.EINVAL if flags & EXCHANGE else E.ENOTEMPTY)
        if old is new:  # two names of one inode
            return
        if new and not flags & EXCHANGE:
            if (old.kind == "dir") != (new.kind == "dir"):  # may_delete()
                fail(E.EISDIR if new.kind == "dir" else E.ENOTDIR)
            if new.children:
                fail(E.ENOTEMPTY)
            new.nlink -= 1
        del old_parent.children[old_name]
        new_parent.children[new_name] = old
        if new and flags & EXCHANGE:
            old_parent.children[old_name] = new
        old_parent.mtime = new_parent.mtime = None

    def _holds(self, ancestor: Inode, inode: Inode) -> bool:
        return ancestor is inode or any(self._holds(child, inode) for child in ancestor.children.values())

    # inodes -------------------------------------------------------------------------------------------------------
    def write(self, path: str, offset: int, data: bytes) -> int:
        return self._store(self._for_writing(self._walk(path)), offset, data)

    def append(self, path: str, data: bytes) -> int:
        inode = self._for_writing(self._walk(path))
        return self._store(inode, len(inode.data), data)

    def _store(self, inode: Inode, offset: int, data: bytes) -> int:
        inode.data = inode.data[:offset].ljust(offset, b"\0") + data + inode.data[offset + len(data) :]
        inode.mtime = None
        return len(data)

    def truncate(self, path: str, size: int) -> None:
        """vfs_truncate(): EISDIR, else EINVAL for what is no regular file."""
        inode = self._follow(path)
        if inode.kind != "file":
            fail(E.EISDIR if inode.kind == "dir" else E.EINVAL)
        self._resize(inode, size)

    def _resize(self, inode: Inode, size: int) -> None:
        inode.data = inode.data[:size].ljust(size, b"\0")
        inode.mtime = None

    def chmod(self, path: str, mode: int) -> None:
        self._follow(path).mode = mode

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._chown(self._walk(path), uid, gid)

    def _chown(self, inode: Inode, uid: int, gid: int) -> None:
        """chown_common(): set-user-ID goes, and set-group-ID where group may execute (else it means locking)."""
        inode.uid = uid if uid >= 0 else inode.uid
        inode.gid = gid if gid >= 0 else inode.gid
        if inode.kind != "dir":
            inode.mode &= ~(0o6000 if inode.mode & 0o010 else 0o4000)

    def utime(self, path: str, mtime_ns: int) -> None:
        self._walk(path).mtime = mtime_ns

    def _user_xattrs(self, inode: Inode, name: str, code: int) -> Inode:
        """xattr_permission(): user.* is for regular files and directories only."""
        if name.startswith("user.") and inode.kind not in ("file", "dir"):
            fail(code)
        return inode

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        xattrs = self._user_xattrs(self._walk(path), name, E.EPERM).xattrs
        if flags & os.XATTR_CREATE and name in xattrs:
            fail(E.EEXIST)
        if flags & os.XATTR_REPLACE and name not in xattrs:
            fail(E.ENODATA)
        xattrs[name] = value

    def removexattr(self, path: str, name: str) -> None:
        xattrs = self._user_xattrs(self._walk(path), name, E.EPERM).xattrs
        xattrs.pop(name, None) if name in xattrs else fail(E.ENODATA)

    def getxattr(self, path: str, name: str) -> bytes:
        xattrs = self._user_xattrs(self._walk(path), name, E.ENODATA).xattrs
        return xattrs[name] if name in xattrs else fail(E.ENODATA)

    # looking ------------------------------------------------------------------------------------------------------
    def stat(self, path: str) -> dict[str, Any]:
        return self.view(self._walk(path))

    def view(self, inode: Inode) -> dict[str, Any]:
        """st_nlink of a directory and st_size of what has none are nobody's business (POSIX leaves both open)."""
        seen: dict[str, Any] = {"mode": TYPES[inode.kind] | inode.mode, "uid": inode.uid, "gid": inode.gid}
        if inode.kind != "dir":
            seen["nlink"] = inode.nlink
        if inode.kind in ("file", "symlink"):
            seen["size"] = len(inode.data if inode.kind == "file" else inode.target)
        return seen

    def readlink(self, path: str) -> str:
        inode = self._walk(path)
        return inode.target if inode.kind == "symlink" else fail(E.EINVAL)

    def readdir(self, path: str) -> list[str]:
        inode = self._follow(path)
        return sorted(inode.children) if inode.kind == "dir" else fail(E.ENOTDIR)

    def read(self, path: str) -> bytes:
        """open(2) with O_RDONLY | O_NOFOLLOW | O_NONBLOCK: a fifo without a writer is at its end."""
        inode = self._walk(path)
        if inode.kind in ("symlink", "dir"):
            fail(E.ELOOP if inode.kind == "symlink" else E.EISDIR)
        return inode.data

    # open files: numbered slots -------------------------------------------------------------------------------------
    def open(self, slot: int, path: str, writable: bool) -> None:
        self.handles.pop(slot, None)
        inode = self._walk(path)
        if inode.kind != "file":
            fail({"symlink": E.ELOOP, "dir": E.EISDIR, "fifo": E.ENXIO}[inode.kind])
        self.handles[slot] = (inode, writable)

    def tmpfile(self, slot: int, path: str, mode: int) -> None:
        """O_TMPFILE | O_RDWR | O_NOFOLLOW."""
        self.handles.pop(slot, None)
        parent = self._walk(path)
        if parent.kind != "dir":
            fail(E.ENOTDIR)
        inode = self._new(parent, "file", mode & ~UMASK)
        inode.nlink, inode.linkable = 0, True
        self.handles[slot] = (inode, True)

    def close_slot(self, slot: int) -> None:
        self._open(slot)
        del self.handles[slot]

    def _open(self, slot: int, writable: bool = False) -> Inode:
        inode, may_write = self.handles.get(slot) or fail(E.EBADF)
        return inode if may_write or not writable else fail(E.EBADF)

    def hread(self, slot: int) -> bytes:
        return self._open(slot).data

    def hwrite(self, slot: int, offset: int, data: bytes) -> int:
        return self._store(self._open(slot, True), offset, data)

    def htruncate(self, slot: int, size: int) -> None:
        """do_ftruncate(): EINVAL for a descriptor that may not write."""
        inode = self._open(slot)
        self._resize(inode if self.handles[slot][1] else fail(E.EINVAL), size)

    def hstat(self, slot: int) -> dict[str, Any]:
        return self.view(self._open(slot))

    def hchmod(self, slot: int, mode: int) -> None:
        self._open(slot).mode = mode

    def hchown(self, slot: int, uid: int, gid: int) -> None:
        self._chown(self._open(slot), uid, gid)

    def hlink(self, slot: int, path: str) -> None:
        """linkat(2) of /proc/self/fd/N."""
        self._link(self._open(slot), path)

    def hsetxattr(self, slot: int, name: str, value: bytes) -> None:
        self._open(slot).xattrs[name] = value

    # what stands for the machine round it ---------------------------------------------------------------------------
    def remount(self) -> None:
        """Everything is closed, unmounted, and mounted again."""
        self.handles.clear()

    def rotate(self) -> None:
        """As remount, with the upper for topmost lower, under a new one. (Groups of hard links that were in the lowers
        fall apart when one of their names was copied up: the index does not come along. Not for stacks with such.)"""
        self.handles.clear()

    def drop_caches(self) -> None:
        """The kernel forgets what nobody holds."""

    def refresh(self) -> None:
        """The engine reads anew what it knows of its layers, which is what it knows."""
