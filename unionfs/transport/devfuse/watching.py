"""The handlers of a session while somebody watches: each tells the watcher what was asked and what was answered.

    watched(watcher, files, extended)(handler)     the same handler, watched

A request and its reply are taken apart once more for that, so that those who are not watched pay nothing. No I/O.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi, requests
from unionfs.transport.devfuse.abi import Opcode
from unionfs.transport.devfuse.answers import LATER, Handler, Reply
from unionfs.transport.devfuse.files import OpenFiles
from unionfs.transport.devfuse.requests import Buffer, Request
from unionfs.vfs import Answered, Asked, Caller, Watcher

_NS: Final = 1_000_000_000
_BODY: Final = abi.OUT_HEADER_SIZE
#: Opcodes that are another one with more room.
_SAME: Final = {Opcode.RENAME2: Opcode.RENAME, Opcode.COPY_FILE_RANGE_64: Opcode.COPY_FILE_RANGE}
_XATTRS: Final = frozenset((Opcode.GETXATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR))
_ENTRIES: Final = frozenset((Opcode.LOOKUP, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK))
#: Fields under the names that vfs.Filesystem has for them; None: said otherwise, or of no interest.
_FIELDS: Final[dict[str, str | None]] = {
    "umask": None, "open_flags": None, "newdir": None, "oldnodeid": None, "lk_flags": None, "read_flags": None,
    "release_flags": None, "setxattr_flags": None, "nodeid_out": None, "getattr_flags": None,
    "off_in": "offset_in", "off_out": "offset_out", "len": "length", "fsync_flags": "datasync",
}  # fmt: skip
_SETATTR: Final = (
    ("mode", abi.FATTR_MODE), ("uid", abi.FATTR_UID), ("gid", abi.FATTR_GID), ("size", abi.FATTR_SIZE),
    ("fh", abi.FATTR_FH),
)  # fmt: skip


def watched(watcher: Watcher, files: OpenFiles, extended: bool) -> Callable[[Handler], Handler]:
    """`extended`: SETXATTR_EXT was agreed."""

    def with_watcher(handler: Handler) -> Handler:
        def answer(buffer: Buffer, length: int, unique: int, node: int) -> Reply:
            try:
                request = requests.decode(buffer, length, setxattr_ext=extended)
            except ProtocolError:
                return handler(buffer, length, unique, node)  # which says so
            token = watcher.asked(asked(request))
            try:
                reply = handler(buffer, length, unique, node)
            except OSError as error:
                watcher.answered(token, Answered(error.errno or errno.EIO))
                raise
            except BaseException:
                watcher.answered(token, Answered(errno.EIO))
                raise
            watcher.answered(token, None if reply is LATER else answered(request, reply, files))
            return reply

        return answer

    return with_watcher


# what was asked -------------------------------------------------------------------------------------------------------
def asked(request: Request) -> Asked:
    head, names = request.header, request.names
    opcode = _SAME.get(head.opcode, head.opcode)  # type: ignore[call-overload]  # an int is what a dict of them takes
    told = Asked(
        requests.opcode_name(opcode).lower(),
        head.node,
        caller=Caller(head.uid, head.gid, head.pid, request.fields.get("umask", 0)),
        fields=_fields(opcode, request),
        data=request.data,
    )
    if opcode == Opcode.LINK:
        return told._replace(node=request.fields["oldnodeid"], to=head.node, to_name=names[0])
    if opcode == Opcode.RENAME:
        return told._replace(name=names[0], to=request.fields["newdir"], to_name=names[1])
    if opcode == Opcode.SYMLINK:
        return told._replace(name=names[0], data=names[1])
    if opcode in _XATTRS:
        return told._replace(attribute=names[0])
    if opcode == Opcode.TMPFILE:
        return told  # its name is a wish of the kernel's, not of the caller's
    return told._replace(name=names[0]) if names else told


def _fields(opcode: int, request: Request) -> dict[str, int]:
    given = request.fields
    if opcode == Opcode.SETATTR:
        return _setattr_fields(given)
    told = {}
    for name, value in given.items():
        shown = _FIELDS.get(name, name)
        if shown is not None:
            told[shown] = value
    if opcode == Opcode.GETATTR and not given["getattr_flags"] & abi.GETATTR_FH:
        told.pop("fh", None)
    if opcode == Opcode.WRITE:
        told = {"fh": given["fh"], "offset": given["offset"], "size": given["size"]}
        if given["write_flags"] & abi.WRITE_KILL_SUIDGID:
            told["kill_priv"] = 1
    if opcode in (Opcode.OPEN, Opcode.CREATE) and given["open_flags"] & abi.OPEN_KILL_SUIDGID:
        told["kill_priv"] = 1
    return told


def _setattr_fields(given: dict[str, int]) -> dict[str, int]:
    valid = given["valid"]
    told = {name: given[name] for name, flag in _SETATTR if valid & flag}
    if "mode" in told:
        told["mode"] &= 0o7777
    for which, flag, now in (
        ("atime", abi.FATTR_ATIME, abi.FATTR_ATIME_NOW),
        ("mtime", abi.FATTR_MTIME, abi.FATTR_MTIME_NOW),
    ):
        if valid & now:
            told[f"{which}_ns"] = -1
        elif valid & flag:
            told[f"{which}_ns"] = given[which] * _NS + given[f"{which}nsec"]
    if valid & abi.FATTR_KILL_SUIDGID:
        told["kill_priv"] = 1
    return told


# what was answered ----------------------------------------------------------------------------------------------------
def answered(request: Request, reply: Reply, files: OpenFiles) -> Answered:
    """`reply`: to be written, or None where there is none to give, or empty where it has been sent (a READ)."""
    opcode = request.header.opcode
    if reply is None:
        return Answered()
    if not reply:
        return Answered(amount=request.fields.get("size"))
    number = -int.from_bytes(reply[4:8], "little", signed=True)
    if number:
        return Answered(number)
    if opcode in _ENTRIES:
        node = abi.ENTRY_OUT.unpack_from(reply, _BODY)[0]
        # "zero nodeid is same as -ENOENT" (fuse_lookup_name(), fs/fuse/dir.c)
        return Answered(node=node) if node else Answered(errno.ENOENT)
    if opcode in (Opcode.CREATE, Opcode.TMPFILE):
        node = abi.ENTRY_OUT.unpack_from(reply, _BODY)[0]
        return _opened(reply, _BODY + abi.ENTRY_OUT.size)._replace(node=node)
    if opcode == Opcode.OPEN:
        return _opened(reply, _BODY)
    if opcode == Opcode.OPENDIR:
        return Answered(fh=abi.OPEN_OUT.unpack_from(reply, _BODY)[0])
    return _data(opcode, request, reply)


def _opened(reply: bytes | memoryview, start: int) -> Answered:
    fh, flags = abi.OPEN_OUT.unpack_from(reply, start)[:2]
    way = "direct" if flags & abi.FOPEN_DIRECT_IO else "passthrough" if flags & abi.FOPEN_PASSTHROUGH else "cached"
    return Answered(fh=fh, way=way)


def _data(opcode: int, request: Request, reply: bytes | memoryview) -> Answered:
    if opcode == Opcode.READ:
        return Answered(amount=len(reply) - _BODY)
    if opcode in (Opcode.WRITE, Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64):
        size = 8 if opcode == Opcode.COPY_FILE_RANGE_64 else 4
        return Answered(amount=int.from_bytes(reply[_BODY : _BODY + size], "little"))
    if opcode == Opcode.READLINK or (opcode in (Opcode.GETXATTR, Opcode.LISTXATTR) and request.fields["size"]):
        return Answered(amount=len(reply) - _BODY, data=bytes(reply[_BODY:]))
    if opcode in (Opcode.GETXATTR, Opcode.LISTXATTR):
        return Answered(amount=int.from_bytes(reply[_BODY : _BODY + 4], "little"))
    if opcode in (Opcode.READDIR, Opcode.READDIRPLUS):
        return Answered(amount=_entries(reply, plus=opcode == Opcode.READDIRPLUS))
    return Answered()


def _entries(reply: bytes | memoryview, *, plus: bool) -> int:
    """How many names a directory reply has."""
    size = (abi.DIRENTPLUS if plus else abi.DIRENT).size
    at, count = _BODY, 0
    while at + size <= len(reply):
        length = int.from_bytes(reply[at + size - 8 : at + size - 4], "little")
        at += (size + length + 7) & ~7
        count += 1
    return count
