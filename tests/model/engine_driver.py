"""`EngineDriver`: a `vfs.Filesystem` in process, driven as the kernel drives it.

It walks paths by lookups, keeps the entries it got (a dcache: later operations use the node without asking again,
renames move it), pins the node of an open file, and forgets what it has no name for. What the VFS decides by itself
before it asks a file system (following links, xattr_permission(), EISDIR of open) is decided here; where the VFS would
only spare the file system a question (EEXIST, ENOTDIR, ENOTEMPTY), the engine is asked.
"""

from __future__ import annotations

import errno as E
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unionfs.vfs import ROOT, Attr, Caller, Entry, Filesystem, SetAttr, d_type

from .drivers import Op, Tree, view
from .layers import GROUP, OWNER
from .model import UMASK, fail


@dataclass(eq=False)
class _Dentry:
    node: int
    children: dict[bytes, _Dentry] = field(default_factory=dict)


class EngineDriver:
    """A `vfs.Filesystem` made by `make`. `keep`: hold entries between operations, else forget after each. `push`: as
    for PathDriver."""

    def __init__(
        self, make: Callable[[], Filesystem], keep: bool = True, push: Callable[[], None] = lambda: None
    ) -> None:
        self.make, self.keep, self.push = make, keep, push
        self.caller = Caller(OWNER, GROUP, os.getpid(), UMASK)
        self.handles: dict[int, tuple[_Dentry, int, bool]] = {}
        self._start()

    def _start(self) -> None:
        self.fs = self.make()
        self.root = _Dentry(ROOT)
        self.lookups: Counter[int] = Counter()  # node: lookups we were given and did not give back
        self.pins: Counter[int] = Counter()  # node: dentries and open files that hold it
        self.linkable: set[int] = set()  # nodes of files that never had a name (I_LINKABLE)

    def run(self, op: Op) -> Any:
        os.umask(0)  # ours is in `caller`
        try:
            return getattr(self, op[0])(*op[1:])
        finally:
            if not self.keep:
                self.drop_caches()
            self.check()

    def check(self) -> None:
        invariants = getattr(self.fs, "check_invariants", None)
        if invariants is not None:
            invariants()

    # the dcache ---------------------------------------------------------------------------------------------------
    def _pin(self, node: int) -> None:
        self.pins[node] += 1

    def _unpin(self, node: int) -> None:
        self.pins[node] -= 1
        if node != ROOT and not self.pins[node]:
            del self.pins[node]
            self.fs.forget(node, self.lookups.pop(node))

    def _instantiate(self, parent: _Dentry, name: bytes, entry: Entry) -> _Dentry:
        assert entry.node != 0
        self.lookups[entry.node] += 1
        self._pin(entry.node)
        assert name not in parent.children
        dentry = parent.children[name] = _Dentry(entry.node)
        return dentry

    def _dput(self, dentry: _Dentry) -> None:
        for child in dentry.children.values():
            self._dput(child)
        dentry.children.clear()
        self._unpin(dentry.node)

    def drop_caches(self) -> None:
        for dentry in self.root.children.values():
            self._dput(dentry)
        self.root.children.clear()

    def _child(self, parent: _Dentry, name: bytes) -> _Dentry:
        if name in parent.children:
            return parent.children[name]
        if stat.S_ISLNK(self._attr(parent).mode):  # followed by the kernel; the targets here all dangle
            fail(E.ENOENT)
        return self._instantiate(parent, name, self.fs.lookup(parent.node, name))

    def _walk(self, path: str) -> _Dentry:
        dentry = self.root
        for name in path.encode().split(b"/") if path else []:
            dentry = self._child(dentry, name)
        return dentry

    def _parent(self, path: str) -> tuple[_Dentry, bytes]:
        directory, _, name = path.rpartition("/")
        parent = self._walk(directory)
        mode = self._attr(parent).mode
        if not stat.S_ISDIR(mode):
            fail(E.ENOENT if stat.S_ISLNK(mode) else E.ENOTDIR)
        return parent, name.encode()

    def _peek(self, parent: _Dentry, name: bytes) -> _Dentry | None:
        try:
            return self._child(parent, name)
        except OSError as error:
            if error.errno != E.ENOENT:
                raise
            return None

    def _attr(self, dentry: _Dentry) -> Attr:
        return Attr.unpack(self.fs.getattr(dentry.node))

    def _follow(self, path: str) -> _Dentry:
        dentry = self._walk(path)
        if stat.S_ISLNK(self._attr(dentry).mode):
            fail(E.ENOENT)
        return dentry

    def close(self) -> None:
        for slot in list(self.handles):
            self.close_slot(slot)
        self.drop_caches()
        assert not self.lookups, "the driver lost count"
        self.check()
        self.fs.close()

    # names --------------------------------------------------------------------------------------------------------
    def create(self, path: str, mode: int) -> None:
        parent, name = self._parent(path)
        if self._peek(parent, name):  # the kernel knows by its lookup, and O_EXCL says the rest
            fail(E.EEXIST)
        self._create(parent, name, mode, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def _create(self, parent: _Dentry, name: bytes, mode: int, flags: int) -> None:
        entry, opened = self.fs.create(parent.node, name, stat.S_IFREG | mode, flags, self.caller)
        self._instantiate(parent, name, entry)
        self._release(opened.fh)

    def _release(self, fh: int) -> None:
        self.fs.flush(fh)
        self.fs.release(fh)

    def creat(self, path: str, mode: int) -> None:
        parent, name = self._parent(path)
        dentry = self._peek(parent, name)
        if dentry is None:
            self._create(parent, name, mode, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        else:
            self._release(self._open_for_writing(dentry, os.O_WRONLY | os.O_TRUNC))

    def _open_for_writing(self, dentry: _Dentry, flags: int) -> int:
        kind = stat.S_IFMT(self._attr(dentry).mode)
        if kind != stat.S_IFREG:
            fail({stat.S_IFLNK: E.ELOOP, stat.S_IFDIR: E.EISDIR, stat.S_IFIFO: E.ENXIO}[kind])
        return self.fs.open(dentry.node, flags).fh

    def _make(self, path: str, call: Callable[[int, bytes], Entry]) -> None:
        parent, name = self._parent(path)
        known = name in parent.children
        entry = call(parent.node, name)
        assert not known, f"made {path}, which exists"
        self._instantiate(parent, name, entry)

    def mkdir(self, path: str, mode: int) -> None:
        # vfs_prepare_mode(): mkdir(2) takes permission bits and the sticky bit only
        self._make(path, lambda parent, name: self.fs.mkdir(parent, name, mode & 0o1777, self.caller))

    def symlink(self, target: str, path: str) -> None:
        self._make(path, lambda parent, name: self.fs.symlink(parent, name, target.encode(), self.caller))

    def mkfifo(self, path: str, mode: int) -> None:
        self._make(path, lambda parent, name: self.fs.mknod(parent, name, stat.S_IFIFO | mode, 0, self.caller))

    def link(self, source: str, path: str) -> None:
        node = self._walk(source).node
        self._make(path, lambda parent, name: self.fs.link(node, parent, name, self.caller))

    def unlink(self, path: str) -> None:
        self._remove(path, self.fs.unlink)

    def rmdir(self, path: str) -> None:
        self._remove(path, self.fs.rmdir)

    def _remove(self, path: str, call: Callable[[int, bytes], None]) -> None:
        parent, name = self._parent(path)
        call(parent.node, name)
        if name in parent.children:
            self._dput(parent.children.pop(name))

    def rename(self, source: str, path: str, flags: int = 0) -> None:
        old_parent, old_name = self._parent(source)
        new_parent, new_name = self._parent(path)
        old, new = self._peek(old_parent, old_name), self._peek(new_parent, new_name)
        self.fs.rename(old_parent.node, old_name, new_parent.node, new_name, flags)
        assert old is not None, f"renamed {source}, which does not exist"
        if old is new or (new and old.node == new.node):  # two names of one inode: nothing happens (vfs_rename)
            return
        del old_parent.children[old_name]
        new_parent.children[new_name] = old
        if new and flags & 2:
            old_parent.children[old_name] = new
        elif new:
            self._dput(new)

    # inodes -------------------------------------------------------------------------------------------------------
    def write(self, path: str, offset: int, data: bytes) -> int:
        fh = self._open_for_writing(self._walk(path), os.O_WRONLY)
        try:
            return self.fs.write(fh, offset, data)
        finally:
            self._release(fh)

    def append(self, path: str, data: bytes) -> int:
        dentry = self._walk(path)
        fh = self._open_for_writing(dentry, os.O_WRONLY | os.O_APPEND)
        try:  # the kernel knows the size and sends the offset
            return self.fs.write(fh, self._attr(dentry).size, data)
        finally:
            self._release(fh)

    def truncate(self, path: str, size: int) -> None:
        dentry = self._follow(path)
        mode = self._attr(dentry).mode
        if not stat.S_ISREG(mode):
            fail(E.EISDIR if stat.S_ISDIR(mode) else E.EINVAL)
        self._setattr(dentry, SetAttr(size=size))

    def _setattr(self, dentry: _Dentry, changes: SetAttr, fh: int | None = None) -> None:
        answer = self.fs.setattr(dentry.node, changes, self.caller, fh)
        now = self.fs.getattr(dentry.node)
        assert answer == now, f"setattr answered {Attr.unpack(answer)}, getattr {Attr.unpack(now)}"

    def chmod(self, path: str, mode: int) -> None:
        dentry = self._follow(path)
        self._setattr(dentry, SetAttr(mode=stat.S_IFMT(self._attr(dentry).mode) | mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._chown(self._walk(path), uid, gid, None)

    def _chown(self, dentry: _Dentry, uid: int, gid: int, fh: int | None) -> None:
        """As fuse_setattr() without FUSE_HANDLE_KILLPRIV: the kernel sends the mode without set-user-ID."""
        mode: int | None = self._attr(dentry).mode
        assert mode is not None
        kept = mode & ~(0o6000 if mode & 0o010 else 0o4000)
        mode = None if stat.S_ISDIR(mode) or kept == mode else kept
        changes = SetAttr(mode=mode, uid=uid if uid >= 0 else None, gid=gid if gid >= 0 else None)
        self._setattr(dentry, changes, fh)

    def utime(self, path: str, mtime_ns: int) -> None:
        self._setattr(self._walk(path), SetAttr(atime_ns=0, mtime_ns=mtime_ns))

    def _user_xattrs(self, path: str, name: str, code: int) -> int:
        """xattr_permission(), the VFS's part."""
        dentry = self._walk(path)
        if name.startswith("user.") and stat.S_IFMT(self._attr(dentry).mode) not in (stat.S_IFREG, stat.S_IFDIR):
            fail(code)
        return dentry.node

    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
        self.fs.setxattr(self._user_xattrs(path, name, E.EPERM), name.encode(), value, flags)

    def removexattr(self, path: str, name: str) -> None:
        self.fs.removexattr(self._user_xattrs(path, name, E.EPERM), name.encode())

    def getxattr(self, path: str, name: str) -> bytes:
        return self.fs.getxattr(self._user_xattrs(path, name, E.ENODATA), name.encode())

    # looking ------------------------------------------------------------------------------------------------------
    def _view(self, attr: Attr) -> dict[str, Any]:
        return view(attr.mode, attr.uid, attr.gid, attr.nlink, attr.size)

    def stat(self, path: str) -> dict[str, Any]:
        return self._view(self._attr(self._walk(path)))

    def readlink(self, path: str) -> str:
        dentry = self._walk(path)
        if not stat.S_ISLNK(self._attr(dentry).mode):
            fail(E.EINVAL)
        return self.fs.readlink(dentry.node).decode()

    def readdir(self, path: str) -> list[str]:
        dentry = self._follow(path)
        if not stat.S_ISDIR(self._attr(dentry).mode):
            fail(E.ENOTDIR)
        return sorted(name.decode() for name, _, _ in self._entries(dentry))

    def _entries(self, dentry: _Dentry) -> list[tuple[bytes, int, int]]:
        """Name, inode number, d_type; read in small pieces; without "." and "..", which are checked."""
        fh = self.fs.opendir(dentry.node)
        try:
            found: list[tuple[bytes, int, int]] = []
            offset = 0
            while batch := self.fs.readdir(fh, offset, 96, 24):
                found += [(entry.name, entry.ino, entry.type) for entry in batch]
                offset = batch[-1].cookie
        finally:
            self.fs.releasedir(fh)
        assert [name for name, _, _ in found[:2]] == [b".", b".."], found
        assert found[0][1] == self._attr(dentry).ino, 'd_ino of "."'
        assert len({name for name, _, _ in found}) == len(found), f"twice in one listing: {found}"
        return found[2:]

    def read(self, path: str) -> bytes:
        dentry = self._walk(path)
        mode = self._attr(dentry).mode
        if stat.S_ISFIFO(mode):
            return b""
        if not stat.S_ISREG(mode):
            fail(E.ELOOP if stat.S_ISLNK(mode) else E.EISDIR)
        return self._data(dentry.node)

    def _data(self, node: int) -> bytes:
        fh = self.fs.open(node, os.O_RDONLY).fh
        try:
            return self.fs.read(fh, 0, 1 << 20)
        finally:
            self._release(fh)

    # open files ---------------------------------------------------------------------------------------------------
    def open(self, slot: int, path: str, writable: bool) -> None:
        if slot in self.handles:
            self.close_slot(slot)
        dentry = self._walk(path)
        fh = self._open_for_writing(dentry, os.O_RDWR if writable else os.O_RDONLY)
        self._hold(slot, dentry.node, fh, writable)

    def _hold(self, slot: int, node: int, fh: int, writable: bool) -> None:
        self._pin(node)
        self.handles[slot] = (_Dentry(node), fh, writable)

    def tmpfile(self, slot: int, path: str, mode: int) -> None:
        if slot in self.handles:
            self.close_slot(slot)
        dentry = self._walk(path)
        if not stat.S_ISDIR(self._attr(dentry).mode):
            fail(E.ENOTDIR)
        entry, opened = self.fs.tmpfile(dentry.node, stat.S_IFREG | mode, os.O_RDWR, self.caller)
        self.lookups[entry.node] += 1
        self.linkable.add(entry.node)
        self._hold(slot, entry.node, opened.fh, True)

    def close_slot(self, slot: int) -> None:
        dentry, fh, _ = self._open(slot)
        del self.handles[slot]
        self._release(fh)
        self._unpin(dentry.node)

    def _open(self, slot: int, writable: bool = False) -> tuple[_Dentry, int, bool]:
        opened = self.handles.get(slot)
        if opened is None or (writable and not opened[2]):
            fail(E.EBADF)
        return opened

    def hread(self, slot: int) -> bytes:
        return self.fs.read(self._open(slot)[1], 0, 1 << 20)

    def hwrite(self, slot: int, offset: int, data: bytes) -> int:
        return self.fs.write(self._open(slot, True)[1], offset, data)

    def htruncate(self, slot: int, size: int) -> None:
        dentry, fh, writable = self._open(slot)
        if not writable:
            fail(E.EINVAL)
        self._setattr(dentry, SetAttr(size=size), fh)

    def hstat(self, slot: int) -> dict[str, Any]:
        dentry, fh, _ = self._open(slot)
        by_handle = self.fs.getattr(dentry.node, fh)
        assert by_handle == self.fs.getattr(dentry.node), "getattr by handle and by node differ"
        return self._view(Attr.unpack(by_handle))

    def hchmod(self, slot: int, mode: int) -> None:
        dentry, fh, _ = self._open(slot)
        self._setattr(dentry, SetAttr(mode=stat.S_IFREG | mode), fh)

    def hchown(self, slot: int, uid: int, gid: int) -> None:
        dentry, fh, _ = self._open(slot)
        self._chown(dentry, uid, gid, fh)

    def hlink(self, slot: int, path: str) -> None:
        node = self._open(slot)[0].node
        parent, name = self._parent(path)
        # vfs_link(), after filename_create()
        if not self._peek(parent, name) and node not in self.linkable and not Attr.unpack(self.fs.getattr(node)).nlink:
            fail(E.ENOENT)
        self._make(path, lambda parent, name: self.fs.link(node, parent, name, self.caller))
        self.linkable.discard(node)

    def hsetxattr(self, slot: int, name: str, value: bytes) -> None:
        self.fs.setxattr(self._open(slot)[0].node, name.encode(), value, 0)

    # the whole ----------------------------------------------------------------------------------------------------
    def remount(self) -> None:
        self.close()
        self._start()

    def refresh(self) -> None:
        refresh = getattr(self.fs, "refresh", None)
        if refresh is not None:
            found = refresh()
            assert (found.lost, found.gone, found.come) == ((), (), ())

    def rotate(self) -> None:
        self.close()
        self.push()
        self._start()

    def tree(self) -> Tree:
        found: Tree = {}
        self._add(found, "", self.root)
        self.check()
        return found

    def _add(self, found: Tree, path: str, dentry: _Dentry) -> None:
        attr = self._attr(dentry)
        seen = {**self._view(attr), "ino": attr.ino, "mtime": attr.mtime_ns}
        names = sorted(self.fs.listxattr(dentry.node))
        seen["xattrs"] = {name.decode(): self.fs.getxattr(dentry.node, name) for name in names}
        if stat.S_ISREG(attr.mode):
            seen["data"] = self._data(dentry.node)
        elif stat.S_ISLNK(attr.mode):
            seen["target"] = self.fs.readlink(dentry.node).decode()
        found[path] = seen
        if not attr.is_dir:
            return
        entries = self._entries(dentry)
        plus = self._entries_plus(dentry)
        assert sorted(name for name, _, _ in entries) == sorted(plus), "readdir and readdirplus differ"
        for name, ino, kind in sorted(entries):
            kept = name in dentry.children
            child = self._child(dentry, name)
            now = self._attr(child)
            at = f"{path}/{name.decode()}".lstrip("/")
            assert (ino, kind) == (now.ino, d_type(now.mode)), f"d_ino {ino}, d_type {kind}, stat {now}: {at}"
            # Reading changes atime, and in a ramfs it fills holes.
            assert plus[name]._replace(atime_ns=0, blocks=0) == now._replace(atime_ns=0, blocks=0), (
                f"readdirplus {plus[name]}, getattr {now}: {at}"
            )
            self._add(found, at, child)
            if not kept and not self.keep:
                self._dput(dentry.children.pop(name))

    def _entries_plus(self, dentry: _Dentry) -> dict[bytes, Attr]:
        fh = self.fs.opendir(dentry.node)
        found: dict[bytes, Attr] = {}
        try:
            offset = 0
            while batch := self.fs.readdirplus(fh, offset, 400, 152):
                for entry in batch:
                    if entry.node:
                        self.lookups[entry.node] += 1
                        self._pin(entry.node)
                        self._unpin(entry.node)
                        found[entry.name] = Attr.unpack(entry.attr)
                offset = batch[-1].cookie
        finally:
            self.fs.releasedir(fh)
        return found
