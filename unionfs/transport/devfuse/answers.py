"""One answer for each opcode: the fields of a request, the call on a `vfs.Filesystem`, the reply's bytes. No I/O of
its own.

    Answers.table()        the handlers, by opcode: (buffer, length, unique, node) -> reply
    Answers.waiting()      those that differ in a thread that may wait

A handler raises what the file system raises; session.py makes replies of that, and has what is about the conversation
itself (INIT, DESTROY, INTERRUPT). The rules:

  * No object is built per request on the common paths but the reply: fields are unpacked where they are used.
  * Names and attributes are valid for ever, as every change passes through here. The exceptions are inodes that have
    two nodes for a while (`OpenFiles.twins`), whose attributes the kernel must ask for each time.
  * What has no handler is answered ENOSYS, which the kernel remembers for the opcodes where that matters.

What data path a file takes (passthrough, cached) is decided in files.py; what does I/O for it is given in.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from struct import Struct
from typing import Final

from unionfs.transport.devfuse import abi, ioctls, replies, requests
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE, OPCODES, Opcode
from unionfs.transport.devfuse.files import OpenFiles, Reader, record_mode
from unionfs.transport.devfuse.replies import FOREVER
from unionfs.transport.devfuse.requests import Buffer
from unionfs.transport.devfuse.slow import CHANGING
from unionfs.vfs import NOW, AttrRecord, Caller, Entry, FileHandle, Filesystem, NodeId, Now, OpenResult, SetAttr

#: A reply goes out in one write. None: the kernel expects none. Empty: it has gone out already (Reader).
Reply = bytes | memoryview | None
Handler = Callable[[Buffer, int, int, int], Reply]

#: What a handler returns instead of a reply: the one of `waiting`, in a thread that may wait, is to be asked.
LATER: Final[bytes] = b"later"

_BODY: Final = IN_HEADER_SIZE
_NS: Final = 1_000_000_000
_S_ISGID = 0o2000
_caller = Struct("<24xIII").unpack_from


class Answers:
    """See the module. `reader` is None where READ goes through `fs.read`; `generation` as in Session."""

    def __init__(self, fs: Filesystem, files: OpenFiles, reader: Reader | None, generation: int) -> None:
        self.fs = fs
        self.files = files
        self._reader = reader
        self._generation = generation
        self._twins = files.twins  # usually empty, and then all attributes are valid for ever
        #: SETXATTR_EXT was agreed.
        self.setxattr_ext = False
        # Optional parts of a file system, see vfs.Filesystem's users in the README of the engine.
        self._find: Callable[[NodeId, bytes], Entry | None] = getattr(fs, "find", self._find_by_lookup)
        self._fs_xattr_refusal: Callable[[NodeId, bytes], int] | None = getattr(fs, "xattr_refusal", None)
        self._dirs: dict[NodeId, FileHandle] = {}  # with no_opendir: one handle for each directory
        self._bytes_read = self._bytes_written = 0  # by the thread that calls `handle`
        self._bytes_read_waiting = 0  # by others
        self._counting = threading.Lock()

    def close(self) -> None:
        """The connection has ended: release what is held for it. Open handles are the file system's to close."""
        for fh in self._dirs.values():
            self.fs.releasedir(fh)
        self._dirs.clear()

    @property
    def bytes_read(self) -> int:
        return self._bytes_read + self._bytes_read_waiting + self.files.stored_bytes

    @property
    def bytes_written(self) -> int:
        return self._bytes_written

    # names ------------------------------------------------------------------------------------------------------
    def _lookup(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        found = self._find(node, requests.one_name(buffer, _BODY, length))
        if found is None:
            return replies.negative_entry(unique)
        entry_node, record = found
        return self._entry(unique, entry_node, record)

    def _find_by_lookup(self, parent: NodeId, name: bytes) -> Entry | None:
        try:
            return self.fs.lookup(parent, name)
        except FileNotFoundError:
            return None

    def _entry(self, unique: int, node: NodeId, record: AttrRecord) -> Reply:
        valid = self.files.valid(record) if self._twins else FOREVER
        return replies.entry(unique, node, record, valid, self._generation)

    def _forget(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.forget(node, abi.FORGET_IN.unpack_from(buffer, _BODY)[0])
        self._forgotten(node)
        return None

    def _batch_forget(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        forget = self.fs.forget
        for one, count in requests.forgets(buffer, length):
            forget(one, count)
            self._forgotten(one)
        return None

    def _forgotten(self, node: NodeId) -> None:
        """The kernel drops an inode with all its lookups at once, so what is kept for it here goes too."""
        fh = self._dirs.pop(node, None)
        if fh is not None:
            self.fs.releasedir(fh)
        self.files.forgotten(node)

    def _mknod(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        mode, rdev, umask = abi.MKNOD_IN.unpack_from(buffer, _BODY)
        name = requests.one_name(buffer, _BODY + 16, length)
        uid, gid, pid = _caller(buffer)
        return self._entry(unique, *self.fs.mknod(node, name, mode, rdev, Caller(uid, gid, pid, umask)))

    def _mkdir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        mode, umask = abi.MKDIR_IN.unpack_from(buffer, _BODY)
        name = requests.one_name(buffer, _BODY + 8, length)
        uid, gid, pid = _caller(buffer)
        return self._entry(unique, *self.fs.mkdir(node, name, mode, Caller(uid, gid, pid, umask)))

    def _symlink(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        name, target = requests.two_names(buffer, _BODY, length)
        return self._entry(unique, *self.fs.symlink(node, name, target, Caller(*_caller(buffer))))

    def _link(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        (old,) = abi.LINK_IN.unpack_from(buffer, _BODY)
        name = requests.one_name(buffer, _BODY + 8, length)
        return self._entry(unique, *self.fs.link(old, node, name, Caller(*_caller(buffer))))

    def _unlink(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.unlink(node, requests.one_name(buffer, _BODY, length))
        return replies.empty(unique)

    def _rmdir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.rmdir(node, requests.one_name(buffer, _BODY, length))
        return replies.empty(unique)

    def _rename(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        (new_parent,) = abi.RENAME_IN.unpack_from(buffer, _BODY)
        name, new_name = requests.two_names(buffer, _BODY + 8, length)
        self.fs.rename(node, name, new_parent, new_name, 0)
        return replies.empty(unique)

    def _rename2(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        new_parent, flags = abi.RENAME2_IN.unpack_from(buffer, _BODY)
        name, new_name = requests.two_names(buffer, _BODY + 16, length)
        self.fs.rename(node, name, new_parent, new_name, flags)
        return replies.empty(unique)

    # inodes -----------------------------------------------------------------------------------------------------
    def _getattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        flags, fh = abi.GETATTR_IN.unpack_from(buffer, _BODY)
        record = self.fs.getattr(node, fh if flags & abi.GETATTR_FH else None)
        return replies.attr(unique, record, self.files.valid(record) if self._twins else FOREVER)

    def _setattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        # FATTR_CTIME comes with writeback caching only, and no file system below could set it.
        valid, fh, size, at, mt, _ct, atn, mtn, _ctn, mode, uid, gid = abi.SETATTR_IN.unpack_from(buffer, _BODY)
        atime: int | Now | None = None
        mtime: int | Now | None = None
        if valid & abi.FATTR_ATIME_NOW:
            atime = NOW
        elif valid & abi.FATTR_ATIME:
            atime = at * _NS + atn
        if valid & abi.FATTR_MTIME_NOW:
            mtime = NOW
        elif valid & abi.FATTR_MTIME:
            mtime = mt * _NS + mtn
        changes = SetAttr(
            mode & 0o7777 if valid & abi.FATTR_MODE else None,
            uid if valid & abi.FATTR_UID else None,
            gid if valid & abi.FATTR_GID else None,
            size if valid & abi.FATTR_SIZE else None,
            atime,
            mtime,
            # chown(2) with both ids -1 changes nothing but that (chown_common() of fs/open.c), and says nothing.
            bool(valid & abi.FATTR_KILL_SUIDGID) or not valid & _CHANGES,
        )
        caller = Caller(*_caller(buffer))
        record = self.fs.setattr(node, changes, caller, fh if valid & abi.FATTR_FH else None)
        return replies.attr(unique, record, self.files.valid(record) if self._twins else FOREVER)

    def _readlink(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return replies.data(unique, self.fs.readlink(node))

    def _statfs(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return replies.statfs(unique, self.fs.statfs(node))

    def _getxattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        (size,) = abi.GETXATTR_IN.unpack_from(buffer, _BODY)
        name = requests.one_name(buffer, _BODY + 8, length)
        if self._fs_xattr_refusal is not None:
            number = self._fs_xattr_refusal(node, name)
            if number:
                return replies.error(unique, number)
        return self._xattr_reply(unique, size, self.fs.getxattr(node, name))

    def _listxattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        (size,) = abi.GETXATTR_IN.unpack_from(buffer, _BODY)
        names = self.fs.listxattr(node)
        # xattr(7): trusted attributes exist for CAP_SYS_ADMIN only. getxattr(2) of them the kernel refuses itself;
        # what capabilities the caller has is not told, so root stands for all who have that one.
        if _caller(buffer)[0]:
            names = [name for name in names if not name.startswith(b"trusted.")]
        return self._xattr_reply(unique, size, b"\0".join(names) + b"\0" if names else b"")

    def _xattr_reply(self, unique: int, size: int, value: bytes) -> Reply:
        if size == 0:
            return replies.xattr_size(unique, len(value))
        if len(value) > size:
            return replies.error(unique, errno.ERANGE)
        return replies.data(unique, value)

    def _setxattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        name, value, flags, ext = requests.setxattr(buffer, length, self.setxattr_ext)
        self.fs.setxattr(node, name, value, flags)
        if ext & abi.SETXATTR_ACL_KILL_SGID:
            # posix_acl_update_mode(): a caller who is no member of the group may not keep setgid with a new ACL.
            mode = record_mode(self.fs.getattr(node))[0]
            if mode & _S_ISGID:
                self.fs.setattr(node, SetAttr(mode=mode & 0o7777 & ~_S_ISGID), Caller(*_caller(buffer)))
        return replies.empty(unique)

    def _removexattr(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.removexattr(node, requests.one_name(buffer, _BODY, length))
        return replies.empty(unique)

    # files ------------------------------------------------------------------------------------------------------
    def _open(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        flags, open_flags = abi.OPEN_IN.unpack_from(buffer, _BODY)
        if not flags & CHANGING:
            again = self.files.open_again(node)
            if again is not None:
                return replies.opened(unique, again, abi.FOPEN_KEEP_CACHE, 0)
        opened = self.fs.open(node, flags)
        if open_flags & abi.OPEN_KILL_SUIDGID:
            self._kill_priv(node, buffer, opened)
        fopen, backing_id = self.files.opened(node, opened, bool(flags & os.O_ACCMODE), None)
        return replies.opened(unique, opened.fh, fopen, backing_id)

    def _kill_priv(self, node: NodeId, buffer: Buffer, opened: OpenResult) -> None:
        """O_TRUNC by a caller without CAP_FSETID clears set-user-ID and set-group-ID."""
        self.fs.setattr(node, SetAttr(kill_priv=True), Caller(*_caller(buffer)), opened.fh)

    def _create(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        flags, mode, umask, open_flags = abi.CREATE_IN.unpack_from(buffer, _BODY)
        name = requests.one_name(buffer, _BODY + 16, length)
        uid, gid, pid = _caller(buffer)
        entry, opened = self.fs.create(node, name, mode, flags, Caller(uid, gid, pid, umask))
        if open_flags & abi.OPEN_KILL_SUIDGID:
            self._kill_priv(entry.node, buffer, opened)
        return self._created(unique, entry.node, entry.attr, opened, flags)

    def _tmpfile(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        flags, mode, umask, _ = abi.CREATE_IN.unpack_from(buffer, _BODY)
        uid, gid, pid = _caller(buffer)
        entry, opened = self.fs.tmpfile(node, mode, flags, Caller(uid, gid, pid, umask))
        return self._created(unique, entry.node, entry.attr, opened, flags)

    def _created(self, unique: int, node: NodeId, record: AttrRecord, opened: OpenResult, flags: int) -> Reply:
        try:
            fopen, backing_id = self.files.opened(node, opened, bool(flags & os.O_ACCMODE), record)
        except OSError:
            self.fs.forget(node, 1)  # an existing file that was copied up: the kernel comes back as it does for OPEN
            raise
        valid = self.files.valid(record) if self._twins else FOREVER
        return replies.created(unique, node, record, valid, opened.fh, fopen, backing_id, self._generation)

    def _read(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, size, _, _ = abi.READ_IN.unpack_from(buffer, _BODY)
        self.files.reading(node)
        fd, start, count = self.files.place(fh, offset, size)
        if fd < 0 or self._reader is None:
            return LATER  # it could be a cold read, or one that unpacks
        reply = self._reader(unique, fd, start, count, False)
        if reply is None:
            return LATER
        got = len(reply) - abi.OUT_HEADER_SIZE if reply else count
        self._bytes_read += got
        self.files.was_read(node, offset, size, got)
        return reply

    def _read_waiting(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, size, _, _ = abi.READ_IN.unpack_from(buffer, _BODY)
        fd, start, count = self.files.place(fh, offset, size)
        reply: Reply
        if fd >= 0 and self._reader is not None:
            reply = self._reader(unique, fd, start, count, True)
        else:
            reply = replies.data(unique, self.fs.read(fh, offset, size))
        got = len(reply or b"") - abi.OUT_HEADER_SIZE
        with self._counting:
            self._bytes_read_waiting += got
        self.files.was_read(node, offset, size, got)
        return reply

    def _write(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, size, flags, _ = abi.WRITE_IN.unpack_from(buffer, _BODY)
        data = requests.write_data(buffer, size, length)
        written = self.fs.write(fh, offset, data, bool(flags & abi.WRITE_KILL_SUIDGID))
        self._bytes_written += written
        return replies.written(unique, written)

    def _release(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.files.close(node, abi.RELEASE_IN.unpack_from(buffer, _BODY)[0])
        return replies.empty(unique)

    def _fsync(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, flags = abi.FSYNC_IN.unpack_from(buffer, _BODY)
        self.fs.fsync(fh, bool(flags & abi.FSYNC_FDATASYNC))
        return replies.empty(unique)

    def _fallocate(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, count, mode = abi.FALLOCATE_IN.unpack_from(buffer, _BODY)
        self.fs.fallocate(fh, mode, offset, count)
        return replies.empty(unique)

    def _lseek(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, whence = abi.LSEEK_IN.unpack_from(buffer, _BODY)
        return replies.offset(unique, self.fs.lseek(fh, offset, whence))

    def _copied(self, buffer: Buffer) -> int:
        fh_in, offset_in, _node, fh_out, offset_out, count, _ = abi.COPY_FILE_RANGE_IN.unpack_from(buffer, _BODY)
        # The first reply has 32 bits for the count; the kernel asks for no more, but let that be certain.
        return self.fs.copy_file_range(fh_in, offset_in, fh_out, offset_out, min(count, 0xFFFFF000))

    def _copy_file_range(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return replies.written(unique, self._copied(buffer))

    def _copy_file_range_64(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return replies.offset(unique, self._copied(buffer))

    # directories ------------------------------------------------------------------------------------------------
    def _opendir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return replies.opened(unique, self.fs.opendir(node), 0, 0)

    def _dir(self, fh: FileHandle, node: NodeId) -> FileHandle:
        """The handle of a listing. Without OPENDIR the kernel names none, and one per directory serves all."""
        if fh:
            return fh
        shared = self._dirs.get(node)
        if shared is None:
            shared = self._dirs[node] = self.fs.opendir(node)
        return shared

    def _readdir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, size, _, _ = abi.READ_IN.unpack_from(buffer, _BODY)
        return replies.directory(
            unique, self.fs.readdir(self._dir(fh, node), offset, size, replies.DIRENT_OVERHEAD)
        )  # fmt: skip

    def _readdirplus(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, offset, size, _, _ = abi.READ_IN.unpack_from(buffer, _BODY)
        entries = self.fs.readdirplus(self._dir(fh, node), offset, size, replies.DIRENTPLUS_OVERHEAD)
        # While some inode has two nodes, all attributes given here are for one use: rare, and simpler than sorting.
        return replies.directory_plus(unique, entries, 0 if self._twins else FOREVER, self._generation)

    def _releasedir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.releasedir(abi.RELEASE_IN.unpack_from(buffer, _BODY)[0])
        return replies.empty(unique)

    def _fsyncdir(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        fh, flags = abi.FSYNC_IN.unpack_from(buffer, _BODY)
        self.fs.fsyncdir(self._dir(fh, node), bool(flags & abi.FSYNC_FDATASYNC))
        return replies.empty(unique)

    def _syncfs(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.fs.syncfs()
        return replies.empty(unique)

    # refusals ---------------------------------------------------------------------------------------------------
    def _enosys(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        """Not offered, and the kernel need not ask again: ACCESS (it checks modes itself, default_permissions),
        FLUSH (nothing is held back from the backing file by then), STATX (only the birth time would be new), BMAP,
        POLL (files are always ready), locks (they stay in the kernel), OPENDIR with no_opendir."""
        return replies.error(unique, errno.ENOSYS)

    def _ioctl(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return ioctls.answer(self.fs, buffer, length, unique, node)

    def _ignore(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        return None

    # tables -----------------------------------------------------------------------------------------------------
    def table(self) -> list[Handler]:
        """By opcode."""
        handlers: list[Handler] = [self._enosys] * OPCODES
        for opcode, handler in {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.LINK: self._link,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.STATFS: self._statfs,
            Opcode.RELEASE: self._release,
            Opcode.FSYNC: self._fsync,
            Opcode.SETXATTR: self._setxattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.READDIR: self._readdir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.CREATE: self._create,
            Opcode.IOCTL: self._ioctl,
            Opcode.NOTIFY_REPLY: self._ignore,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RENAME2: self._rename2,
            Opcode.LSEEK: self._lseek,
            Opcode.COPY_FILE_RANGE: self._copy_file_range,
            Opcode.SYNCFS: self._syncfs,
            Opcode.TMPFILE: self._tmpfile,
            Opcode.COPY_FILE_RANGE_64: self._copy_file_range_64,
        }.items():
            handlers[opcode] = handler
        return handlers

    def waiting(self) -> dict[Opcode, Handler]:
        """In place of those, in a thread that may wait."""
        return {Opcode.READ: self._read_waiting}

    @property
    def opendir(self) -> Handler:
        """Where the kernel does not take NO_OPENDIR_SUPPORT: it is not in the table."""
        return self._opendir


_CHANGES: Final = (
    abi.FATTR_MODE | abi.FATTR_UID | abi.FATTR_GID | abi.FATTR_SIZE
    | abi.FATTR_ATIME | abi.FATTR_MTIME | abi.FATTR_ATIME_NOW | abi.FATTR_MTIME_NOW | abi.FATTR_CTIME
)  # fmt: skip
