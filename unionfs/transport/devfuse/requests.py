"""Requests: bytes from /dev/fuse in, typed values out. Any bytes at all may raise `ProtocolError` and nothing else.

Two ways in, over the same layouts and checks:

    check(buffer, length)      what the session does with every request: one header, its lengths proven, so that
                               `abi.*_IN.unpack_from(buffer, 40)` and the name helpers below stay inside it
    decode(buffer, length)     the whole request as a readable value, for logs, traces and tests

The receive buffer is larger than a request and holds remains of earlier ones: nothing may be read past `length`.
This module knows neither what a request is for nor any reply.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE, OPCODES, Opcode

Buffer = bytes | bytearray | memoryview

_BODY: Final = IN_HEADER_SIZE


class Header(NamedTuple):
    """struct fuse_in_header without its length. `uid`, `gid`, `pid` are the caller's, in our namespaces."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int


class _Shape(NamedTuple):
    """What follows the header: a structure, then `names` NUL-terminated names, or data of a length given in it."""

    struct: Struct
    fields: tuple[str, ...]
    names: int = 0
    data: bool = False


_EMPTY: Final = Struct("")

# The fields of each structure, in the order abi.py gives them. Extensions after the names (total_extlen) are
# security contexts and supplementary groups; neither is asked for in INIT.
SHAPES: Final[dict[Opcode, _Shape]] = {
    Opcode.LOOKUP: _Shape(_EMPTY, (), 1),
    Opcode.FORGET: _Shape(abi.FORGET_IN, ("nlookup",)),
    Opcode.GETATTR: _Shape(abi.GETATTR_IN, ("getattr_flags", "fh")),
    Opcode.SETATTR: _Shape(
        abi.SETATTR_IN,
        ("valid", "fh", "size", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec", "mode", "uid", "gid"),
    ),
    Opcode.READLINK: _Shape(_EMPTY, ()),
    Opcode.SYMLINK: _Shape(_EMPTY, (), 2),
    Opcode.MKNOD: _Shape(abi.MKNOD_IN, ("mode", "rdev", "umask"), 1),
    Opcode.MKDIR: _Shape(abi.MKDIR_IN, ("mode", "umask"), 1),
    Opcode.UNLINK: _Shape(_EMPTY, (), 1),
    Opcode.RMDIR: _Shape(_EMPTY, (), 1),
    Opcode.RENAME: _Shape(abi.RENAME_IN, ("newdir",), 2),
    Opcode.LINK: _Shape(abi.LINK_IN, ("oldnodeid",), 1),
    Opcode.OPEN: _Shape(abi.OPEN_IN, ("flags", "open_flags")),
    Opcode.READ: _Shape(abi.READ_IN, ("fh", "offset", "size", "read_flags", "flags")),
    Opcode.WRITE: _Shape(abi.WRITE_IN, ("fh", "offset", "size", "write_flags", "flags"), 0, True),
    Opcode.STATFS: _Shape(_EMPTY, ()),
    Opcode.RELEASE: _Shape(abi.RELEASE_IN, ("fh", "flags", "release_flags")),
    Opcode.FSYNC: _Shape(abi.FSYNC_IN, ("fh", "fsync_flags")),
    # The name and the value follow; the size of the structure depends on SETXATTR_EXT, see setxattr().
    Opcode.SETXATTR: _Shape(abi.SETXATTR_IN, ("size", "flags")),
    Opcode.GETXATTR: _Shape(abi.GETXATTR_IN, ("size",), 1),
    Opcode.LISTXATTR: _Shape(abi.GETXATTR_IN, ("size",)),
    Opcode.REMOVEXATTR: _Shape(_EMPTY, (), 1),
    Opcode.FLUSH: _Shape(abi.FLUSH_IN, ("fh",)),
    Opcode.INIT: _Shape(abi.INIT_IN, ("major", "minor", "max_readahead", "flags")),
    Opcode.OPENDIR: _Shape(abi.OPEN_IN, ("flags", "open_flags")),
    Opcode.READDIR: _Shape(abi.READ_IN, ("fh", "offset", "size", "read_flags", "flags")),
    Opcode.RELEASEDIR: _Shape(abi.RELEASE_IN, ("fh", "flags", "release_flags")),
    Opcode.FSYNCDIR: _Shape(abi.FSYNC_IN, ("fh", "fsync_flags")),
    Opcode.GETLK: _Shape(abi.LK_IN, ("fh", "owner", "start", "end", "type", "pid", "lk_flags")),
    Opcode.SETLK: _Shape(abi.LK_IN, ("fh", "owner", "start", "end", "type", "pid", "lk_flags")),
    Opcode.SETLKW: _Shape(abi.LK_IN, ("fh", "owner", "start", "end", "type", "pid", "lk_flags")),
    Opcode.ACCESS: _Shape(abi.ACCESS_IN, ("mask",)),
    Opcode.CREATE: _Shape(abi.CREATE_IN, ("flags", "mode", "umask", "open_flags"), 1),
    Opcode.INTERRUPT: _Shape(abi.INTERRUPT_IN, ("unique",)),
    Opcode.BMAP: _Shape(abi.BMAP_IN, ("block", "blocksize")),
    Opcode.DESTROY: _Shape(_EMPTY, ()),
    Opcode.IOCTL: _Shape(abi.IOCTL_IN, ("fh", "flags", "cmd", "arg", "in_size", "out_size")),
    Opcode.POLL: _Shape(abi.POLL_IN, ("fh", "kh", "flags", "events")),
    Opcode.BATCH_FORGET: _Shape(abi.BATCH_FORGET_IN, ("count",)),
    Opcode.FALLOCATE: _Shape(abi.FALLOCATE_IN, ("fh", "offset", "length", "mode")),
    Opcode.READDIRPLUS: _Shape(abi.READ_IN, ("fh", "offset", "size", "read_flags", "flags")),
    Opcode.RENAME2: _Shape(abi.RENAME2_IN, ("newdir", "flags"), 2),
    Opcode.LSEEK: _Shape(abi.LSEEK_IN, ("fh", "offset", "whence")),
    Opcode.COPY_FILE_RANGE: _Shape(
        abi.COPY_FILE_RANGE_IN, ("fh_in", "off_in", "nodeid_out", "fh_out", "off_out", "len", "flags")
    ),
    Opcode.SYNCFS: _Shape(abi.SYNCFS_IN, ()),
    Opcode.TMPFILE: _Shape(abi.CREATE_IN, ("flags", "mode", "umask", "open_flags"), 1),
    Opcode.STATX: _Shape(abi.STATX_IN, ("getattr_flags", "fh", "sx_flags", "sx_mask")),
    Opcode.COPY_FILE_RANGE_64: _Shape(
        abi.COPY_FILE_RANGE_IN, ("fh_in", "off_in", "nodeid_out", "fh_out", "off_out", "len", "flags")
    ),
}

# A name takes two bytes at least. Unknown opcodes need nothing but the header: they are answered ENOSYS.
_MINIMUM: Final = [IN_HEADER_SIZE] * OPCODES
for _opcode, _shape in SHAPES.items():
    _MINIMUM[_opcode] += _shape.struct.size + 2 * _shape.names

_unpack_header: Final = abi.IN_HEADER.unpack_from


def check(buffer: Buffer, length: int) -> tuple[int, int, int]:
    """(opcode, unique, node) of the request in the first `length` bytes, which hold its whole structure."""
    if length < IN_HEADER_SIZE:
        raise ProtocolError(f"a FUSE request of {length} bytes has no header")
    size, opcode, unique, node, _uid, _gid, _pid, _extlen, _ = _unpack_header(buffer)
    if size != length:
        raise ProtocolError(f"a FUSE request of {length} bytes says that it has {size}")
    if opcode < OPCODES and length < _MINIMUM[opcode]:
        raise ProtocolError(f"{opcode_name(opcode)}: {length} bytes, of at least {_MINIMUM[opcode]}")
    return opcode, unique, node


def header(buffer: Buffer) -> Header:
    """The header of a checked request."""
    _size, *fields, _extlen, _ = _unpack_header(buffer)
    return Header(*fields)


def opcode_name(opcode: int) -> str:
    """The opcode as linux/fuse.h has it, or its number."""
    return Opcode(opcode).name if opcode in _KNOWN else f"opcode {opcode}"


_KNOWN: Final = frozenset(map(int, Opcode))


def one_name(buffer: Buffer, start: int, length: int) -> bytes:
    """The name that fills the request from `start` to its end, without its NUL."""
    name = bytes(buffer[start : length - 1])
    # An embedded NUL would make name and link target differ from what the VFS checked.
    if length <= start + 1 or buffer[length - 1] != 0 or 0 in name:
        raise ProtocolError("a name in a FUSE request is empty or not terminated")
    return name


def two_names(buffer: Buffer, start: int, length: int) -> tuple[bytes, bytes]:
    """The two NUL-terminated names from `start` to the end."""
    both = bytes(buffer[start:length])
    parts = both.split(b"\0")
    if len(parts) != 3 or not parts[0] or not parts[1] or parts[2]:
        raise ProtocolError("a FUSE request does not hold two names")
    return parts[0], parts[1]


def forgets(buffer: Buffer, length: int) -> list[tuple[int, int]]:
    """(node, count) pairs of a BATCH_FORGET."""
    (count,) = abi.BATCH_FORGET_IN.unpack_from(buffer, _BODY)
    start = _BODY + abi.BATCH_FORGET_IN.size
    if length - start < count * abi.FORGET_ONE.size:
        raise ProtocolError(f"BATCH_FORGET: {count} nodes do not fit in {length} bytes")
    body = memoryview(buffer)[start : start + count * abi.FORGET_ONE.size]
    return list(abi.FORGET_ONE.iter_unpack(body))


def write_data(buffer: Buffer, size: int, length: int) -> memoryview:
    """The data of a WRITE that says it has `size` bytes. A view of the buffer: valid while that is."""
    start = _BODY + abi.WRITE_IN.size
    if length - start < size:
        raise ProtocolError(f"WRITE: {size} bytes do not fit in {length}")
    return memoryview(buffer)[start : start + size]


class SetXattr(NamedTuple):
    name: bytes
    value: bytes
    flags: int
    setxattr_flags: int


def setxattr(buffer: Buffer, length: int, extended: bool) -> SetXattr:
    """A SETXATTR; `extended` when SETXATTR_EXT was agreed, which makes the structure 8 bytes longer."""
    start = _BODY + (abi.SETXATTR_IN_EXT if extended else abi.SETXATTR_IN).size
    if length < start:
        raise ProtocolError(f"SETXATTR: {length} bytes, of at least {start}")
    if extended:
        size, flags, setxattr_flags = abi.SETXATTR_IN_EXT.unpack_from(buffer, _BODY)
    else:
        (size, flags), setxattr_flags = abi.SETXATTR_IN.unpack_from(buffer, _BODY), 0
    rest = bytes(buffer[start:length])
    end = rest.find(b"\0")
    if end < 1 or len(rest) - end - 1 < size:
        raise ProtocolError(f"SETXATTR: no name, or a value shorter than {size} bytes")
    return SetXattr(rest[:end], rest[end + 1 : end + 1 + size], flags, setxattr_flags)


class InitIn(NamedTuple):
    major: int
    minor: int
    max_readahead: int
    flags: int


def init(buffer: Buffer, length: int) -> InitIn:
    """An INIT, `flags` being the whole 64-bit word (fuse_send_init, fs/fuse/inode.c)."""
    major, minor, max_readahead, flags = abi.INIT_IN.unpack_from(buffer, _BODY)
    start = _BODY + abi.INIT_IN.size
    if flags & abi.Init.INIT_EXT and length >= start + abi.INIT_IN_EXT.size:
        flags |= abi.INIT_IN_EXT.unpack_from(buffer, start)[0] << 32
    return InitIn(major, minor, max_readahead, flags)


class Request(NamedTuple):
    """A whole request, readable. `fields` are the structure's, by the names of linux/fuse.h."""

    header: Header
    fields: dict[str, int]
    names: tuple[bytes, ...] = ()
    data: bytes = b""
    forgets: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        """One line: `LOOKUP node=1 uid=0 pid=77 'etc'`."""
        h = self.header
        parts = [opcode_name(h.opcode), f"node={h.node}", f"uid={h.uid}", f"pid={h.pid}"]
        parts += [f"{name}={value:#x}" if "flags" in name else f"{name}={value}" for name, value in self.fields.items()]
        parts += [repr(name)[1:] for name in self.names]
        parts += [f"{node}:-{count}" for node, count in self.forgets]
        if self.data:
            parts.append(f"+{len(self.data)} bytes")
        return " ".join(parts)


def decode(buffer: Buffer, length: int, *, setxattr_ext: bool = True) -> Request:
    """The request in the first `length` bytes of `buffer`. An unknown opcode keeps its body as `data`."""
    opcode, _, _ = check(buffer, length)
    head = header(buffer)
    if opcode not in SHAPES:
        return Request(head, {}, data=bytes(buffer[_BODY:length]))
    special = _SPECIAL.get(Opcode(opcode))
    if special is not None:
        return special(head, buffer, length, setxattr_ext)
    shape = SHAPES[Opcode(opcode)]
    fields = dict(zip(shape.fields, shape.struct.unpack_from(buffer, _BODY), strict=True))
    start = _BODY + shape.struct.size
    names: tuple[bytes, ...] = ()
    if shape.names == 1:
        names = (one_name(buffer, start, length),)
    elif shape.names == 2:
        names = two_names(buffer, start, length)
    data = bytes(write_data(buffer, fields["size"], length)) if shape.data else b""
    return Request(head, fields, names, data)


def _decode_setxattr(head: Header, buffer: Buffer, length: int, setxattr_ext: bool) -> Request:
    name, value, flags, setxattr_flags = setxattr(buffer, length, setxattr_ext)
    fields = {"size": len(value), "flags": flags, "setxattr_flags": setxattr_flags}
    return Request(head, fields, (name,), value)


def _decode_batch_forget(head: Header, buffer: Buffer, length: int, setxattr_ext: bool) -> Request:
    pairs = forgets(buffer, length)
    return Request(head, {"count": len(pairs)}, forgets=tuple(pairs))


def _decode_init(head: Header, buffer: Buffer, length: int, setxattr_ext: bool) -> Request:
    return Request(head, init(buffer, length)._asdict())


_SPECIAL: Final[dict[Opcode, Callable[[Header, Buffer, int, bool], Request]]] = {
    Opcode.SETXATTR: _decode_setxattr,
    Opcode.BATCH_FORGET: _decode_batch_forget,
    Opcode.INIT: _decode_init,
}
