"""Writing the tar format of OCI layers: POSIX ustar headers, PAX extended headers where ustar cannot say it.

Bytes out, no I/O. A member is `pax header + its records` (only where needed), then a 512-byte header, then the data
padded to 512. Every field is a function of the arguments alone (no user names, no atime or ctime), so equal
trees give equal archives.

Choices, each checked against GNU tar, libarchive, Go's archive/tar and Python's tarfile:

- a name that fits ustar stands there as raw bytes, UTF-8 or not; else in the PAX record `path`. If that is not UTF-8
  (which PAX demands), `hdrcharset=BINARY` comes first;
- mtime: whole seconds in ustar; a PAX record only if there are nanoseconds or it is negative or beyond 8^11 s;
- xattrs: `SCHILY.xattr.NAME` with the raw value. A "=" in NAME cannot be said (readers cut there): ChangesetError.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from unionfs.errors import ChangesetError

BLOCK: Final = 512
#: End of the archive: two zero blocks.
TRAILER: Final = bytes(2 * BLOCK)
#: Go's archive/tar refuses extended headers larger than this (maxSpecialFileSize).
MAX_PAX: Final = 1 << 20

REG, LINK, SYMLINK, CHR, BLK, DIR, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
XATTR: Final = b"SCHILY.xattr."

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_MAX_ID = 0o7777777
_MAX_LONG = 0o77777777777
_SECOND = 1_000_000_000
_PAX_NAME = b"././@PaxHeader"


class Fields(NamedTuple):
    """One member. `name` is relative and without a trailing slash; `mode` is taken modulo 0o7777."""

    name: bytes
    type: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    rdev: int = 0


def member(fields: Fields, xattrs: dict[bytes, bytes] | None = None) -> bytes:
    """All headers of one member. ChangesetError where the format cannot hold it."""
    name = fields.name + b"/" if fields.type == DIR else fields.name
    records: dict[bytes, bytes] = {}
    prefix, short = _split(name, records)
    linkname = fields.linkname
    if len(linkname) > 100:
        records[b"linkpath"] = linkname
        linkname = linkname[:100]
    uid, gid, size = fields.uid, fields.gid, fields.size
    if uid > _MAX_ID:
        records[b"uid"], uid = b"%d" % uid, 0
    if gid > _MAX_ID:
        records[b"gid"], gid = b"%d" % gid, 0
    if size > _MAX_LONG:
        records[b"size"], size = b"%d" % size, 0
    seconds, fraction = divmod(fields.mtime_ns, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_LONG:
        records[b"mtime"] = _decimal(fields.mtime_ns)
        seconds = seconds if 0 <= seconds <= _MAX_LONG else 0
    for xattr, value in (xattrs or {}).items():
        if b"=" in xattr:
            shown = os.fsdecode(xattr)
            raise ChangesetError(f"/{os.fsdecode(fields.name)}: a layer tar cannot hold the xattr name {shown!r}")
        records[XATTR + xattr] = value
    block = _header(short, fields.type, fields.mode & 0o7777, uid, gid, size, seconds, linkname, fields.rdev, prefix)
    return _pax(records, fields.name) + block if records else block


def padding(size: int) -> int:
    """Bytes of zero that follow `size` bytes of data."""
    return -size % BLOCK


def _header(
    name: bytes, type: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, linkname: bytes, rdev: int,
    prefix: bytes,
) -> bytes:  # fmt: skip
    major, minor = (os.major(rdev), os.minor(rdev)) if rdev else (0, 0)
    block = _HEADER.pack(
        name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime, b"        ", type,
        linkname, b"ustar", b"00", b"", b"", b"%07o" % major, b"%07o" % minor, prefix,
    )  # fmt: skip
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _split(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """ustar's (prefix, name) of a path; adds a PAX record where it does not fit."""
    if len(name) <= 100:
        return b"", name
    if len(name) <= 256:
        # The slash between the two is not stored; a directory's own last slash must stay in the name.
        cut = name.rfind(b"/", 0, min(156, len(name) - 1))
        if cut > 0 and len(name) - cut - 1 <= 100:
            return name[:cut], name[cut + 1 :]
    records[b"path"] = name
    return b"", name[:100].rstrip(b"/")


def _decimal(ns: int) -> bytes:
    """Nanoseconds as the decimal seconds of PAX: "1.5", "-0.25", no trailing zeros."""
    whole, fraction = divmod(abs(ns), _SECOND)
    text = b"%d.%09d" % (whole, fraction)
    text = text.rstrip(b"0").rstrip(b".")
    return b"-" + text if ns < 0 else text


def _pax(records: dict[bytes, bytes], name: bytes) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    if not _is_utf8(records.get(b"path", b"") + records.get(b"linkpath", b"")):
        body = _record(b"hdrcharset", b"BINARY") + body
    if len(body) > MAX_PAX:
        raise ChangesetError(f"/{os.fsdecode(name)}: its extended attributes are larger than a layer tar can hold")
    header = _header(_PAX_NAME, b"x", 0o644, 0, 0, len(body), 0, b"", 0, b"")
    return header + body + bytes(padding(len(body)))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts itself."""
    length = len(key) + len(value) + 3
    size = length + len(b"%d" % length)
    size = length + len(b"%d" % size)
    return b"%d %b=%b\n" % (size, key, value)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
