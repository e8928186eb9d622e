r"""mtree(5): a tree written down, a line for each object. The entries of it, written and read.

    #mtree
    ./etc/motd type=file mode=0644 uid=0 gid=0 nlink=1 size=12 time=1700000000.000000000 sha256digest=9f86…

Written are paths from the root, in order, with every keyword on each line; what is not plain in a name is `\ooo`, as
vis(3) has it. Beside mtree(8)'s keywords there are `xattr.NAME=BASE64`, as go-mtree and so umoci have them (NetBSD's
mtree refuses what it does not know, and so a tree with xattrs). What no keyword of all of them says stands in comments:

    # keywords: …      what was looked for: an object without `xattr.` has no xattrs then
    # inode: 1         behind the names of one file, which are counted from 1: the same tree gives the same bytes

Read is what mtree(8) of NetBSD and FreeBSD, bsdtar, gomtree and umoci write: relative entries and `..`, `/set` and
`/unset`, lines continued by a backslash, `tar_time` (whole seconds), any digest that hashlib has. A keyword that is not
there is not known of that object, and is not compared.

Hostile input: a line has at most 1 MiB, a name no `/` and is not `.` or `..`, numbers are bounded. What breaks the
format raises `SnapshotError` with the line's number.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from unionfs.errors import SnapshotError
from unionfs.vfs import DT_BLK, DT_CHR, DT_DIR, DT_FIFO, DT_LNK, DT_REG, DT_SOCK, DT_WHT

SIGNATURE: Final = b"#mtree"
MAX_LINE: Final = 1 << 20
_MAX_INODE: Final = (1 << 64) - 1
_SECOND: Final = 1_000_000_000

TYPES: Final = {
    b"file": DT_REG,
    b"dir": DT_DIR,
    b"link": DT_LNK,
    b"char": DT_CHR,
    b"block": DT_BLK,
    b"device": DT_BLK,  # gomtree
    b"fifo": DT_FIFO,
    b"socket": DT_SOCK,
    b"whiteout": DT_WHT,  # ours: of a layer that is read as a changeset
}
_WORDS: Final = {kind: word for word, kind in reversed(TYPES.items())}
#: Keywords by the names that hashlib has for them.
_DIGESTS: Final = {
    **{name.encode(): name for name in ("md5", "sha1", "sha256", "sha384", "sha512")},
    **{f"{name}digest".encode(): name for name in ("md5", "sha1", "sha256", "sha384", "sha512")},
}
_HEX_DIGITS: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
#: What is written of each object that has it.
_KEYWORDS: Final = b"type mode uid gid nlink size time device link sha256digest xattr".split()
#: What needs no quoting: it means nothing to mtree(8), in patterns of names neither.
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._/+@:,~%-]*")
_ESCAPES: Final = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"s": b" ", b"t": b"\t", b"v": b"\v",
    b"0": b"\0", b"\\": b"\\", b"#": b"#", b" ": b" ", b"=": b"=",
}  # fmt: skip
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2}|M[-^].|\^.|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. None: not known. `inode` is common to the names of one file; `second`: the time is of whole seconds,
    as far as is known. `permissions` has the set-ID bits too."""

    path: bytes
    type: int
    permissions: int | None = None
    uid: int | None = None
    gid: int | None = None
    nlink: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    second: bool = False
    link: bytes | None = None
    device: int | None = None
    inode: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


# writing --------------------------------------------------------------------------------------------------------------
def head() -> bytes:
    """How a file begins."""
    return SIGNATURE + b"\n# keywords: " + b",".join(_KEYWORDS) + b"\n"


def line(entry: Entry) -> bytes:
    """The entry as a line, with its newline, and the comment behind it."""
    words = [b"./" + quote(entry.path) if entry.path else b".", b"type=" + _WORDS[entry.type]]
    if entry.permissions is not None:
        words.append(b"mode=%04o" % entry.permissions)
    for keyword in ("uid", "gid", "nlink", "size"):
        value = getattr(entry, keyword)
        if value is not None:
            words.append(b"%s=%d" % (keyword.encode(), value))
    if entry.mtime_ns is not None:
        words.append(b"time=%d.%09d" % divmod(entry.mtime_ns, _SECOND))
    if entry.device is not None:
        words.append(b"device=native,%d,%d" % (os.major(entry.device), os.minor(entry.device)))
    if entry.link is not None:
        words.append(b"link=" + quote(entry.link))
    words += [b"%sdigest=%s" % (name.encode(), value.encode()) for name, value in sorted(entry.digests.items())]
    words += [b"xattr.%s=%s" % (quote(name), base64.b64encode(value)) for name, value in sorted(entry.xattrs.items())]
    comment = b"" if entry.inode is None else b"# inode: %d\n" % entry.inode
    return b" ".join(words) + b"\n" + comment


def quote(name: bytes) -> bytes:
    r"""A name as it stands in a line: whatever is not plain as `\ooo`."""
    if _PLAIN.fullmatch(name):
        return name
    return b"".join(bytes((byte,)) if _PLAIN.fullmatch(bytes((byte,))) else b"\\%03o" % byte for byte in name)


# reading --------------------------------------------------------------------------------------------------------------
def is_mtree(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return head.startswith(SIGNATURE)


class Reading:
    """A file as its `entries`, in the order in which they stand there; the same path may come twice, and the root be
    missing. `keywords`: what whoever wrote it says that it looked for, in a comment as ours; known at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.keywords: frozenset[bytes] = frozenset()

    def entries(self) -> Iterator[Entry]:
        parser = _Parser()
        last: Entry | None = None
        for number, words in _lines(self._file):
            if words[0].startswith(b"#"):
                if words[:2] == [b"#", b"keywords:"]:
                    self.keywords |= frozenset(b",".join(words[2:]).split(b","))
                elif words[:2] == [b"#", b"inode:"] and last is not None:
                    last = replace(last, inode=_number(number, {b"inode": b"".join(words[2:])}, b"inode", _MAX_INODE))
                continue
            if last is not None:
                yield last
            last = parser.take(number, words)
        if last is not None:
            yield last


def _lines(file: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """The words of each line that has some, with the number of its first line."""
    number, started, text = 0, 0, b""
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(text) + len(raw) > MAX_LINE:
            raise SnapshotError("too long", line=number)
        started = started or number
        raw = raw.rstrip(b"\r\n")
        if (len(raw) - len(raw.rstrip(b"\\"))) % 2:
            text += raw[:-1] + b" "
            continue
        text += raw
        if words := text.split():
            yield started, words
        started, text = 0, b""
    if text:
        raise SnapshotError("ends in the middle of a line", line=number)


class _Parser:
    """What /set has said so far, and where relative entries are."""

    def __init__(self) -> None:
        self._set: dict[bytes, bytes | None] = {}
        self._directory: list[bytes] = []
        self._begun = False  # the first relative entry is the root, by whatever name

    def take(self, number: int, words: list[bytes]) -> Entry | None:
        name = words[0]
        if name == b"/set":
            self._set |= _keywords(number, words[1:])
        elif name == b"/unset":
            self._unset(words[1:])
        elif name == b"..":
            if not self._directory and not self._begun:
                raise SnapshotError("goes above the root", line=number)
            del self._directory[-1:]
        elif name.startswith(b"/"):
            raise SnapshotError(f"{os.fsdecode(name)} is not understood", line=number)
        else:
            return self._entry(number, name, {**self._set, **_keywords(number, words[1:])})
        return None

    def _unset(self, names: list[bytes]) -> None:
        for name in names:
            if name == b"all":
                self._set.clear()
            self._set.pop(name, None)

    def _entry(self, number: int, name: bytes, words: dict[bytes, bytes | None]) -> Entry | None:
        word = words.get(b"type")
        kind = TYPES.get(word or b"")
        if kind is None:
            raise SnapshotError("no type" if word is None else f"no type {os.fsdecode(word)}", line=number)
        if b"/" in name:
            parts = [_name(number, part) for part in name.split(b"/") if part not in (b"", b".")]
        elif name == b"." or not self._begun:
            if kind != DT_DIR and name == b".":
                raise SnapshotError("the root is no directory", line=number)
            parts = [] if kind == DT_DIR else [_name(number, name)]
            self._begun, self._directory = True, []
        else:
            parts = [*self._directory, _name(number, name)]
            if kind == DT_DIR:
                self._directory = parts
        return _entry_of(number, b"/".join(parts), kind, words)


def _keywords(number: int, words: list[bytes]) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for word in words:
        keyword, equals, value = word.partition(b"=")
        found[keyword] = value if equals else None
    return found


def _name(number: int, raw: bytes) -> bytes:
    name = unquote(raw)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise SnapshotError(f"{os.fsdecode(raw)} is no name of a file", line=number)
    return name


def unquote(text: bytes) -> bytes:
    """What vis(3) has written, in any of its styles."""
    return _ESCAPE.sub(_unescaped, text) if b"\\" in text else text


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3 and code.isdigit():
        return bytes((int(code, 8),))
    if code[:1] == b"M" and len(code) == 3:
        low = code[2] if code[1:2] == b"-" else code[2] ^ 0x40
        return bytes((low & 0x7F | 0x80,))
    if code[:1] == b"^" and len(code) == 2:
        return bytes(((code[1] ^ 0x40) & 0x7F,))
    return _ESCAPES.get(code, code)


def _entry_of(number: int, path: bytes, kind: int, words: dict[bytes, bytes | None]) -> Entry:
    time, second = _time(number, words)
    return Entry(
        path,
        kind,
        permissions=_number(number, words, b"mode", 0o7777, base=8),
        uid=_number(number, words, b"uid", 0xFFFFFFFF),
        gid=_number(number, words, b"gid", 0xFFFFFFFF),
        nlink=_number(number, words, b"nlink", 0xFFFFFFFF),
        size=_number(number, words, b"size", 1 << 63),
        mtime_ns=time,
        second=second,
        link=None if (link := words.get(b"link")) is None else unquote(link),
        device=_device(number, words.get(b"device")),
        inode=_number(number, words, b"inode", _MAX_INODE),
        digests=_digests(number, words),
        xattrs=_xattrs(number, words),
    )


def _number(number: int, words: dict[bytes, bytes | None], keyword: bytes, most: int, base: int = 10) -> int | None:
    value = words.get(keyword)
    if value is None:
        return None
    digits = rb"[0-7]{1,22}" if base == 8 else rb"[0-9]{1,20}"
    if not re.fullmatch(digits, value) or int(value, base) > most:
        raise SnapshotError(f"{keyword.decode()}={os.fsdecode(value)}", line=number)
    return int(value, base)


def _time(number: int, words: dict[bytes, bytes | None]) -> tuple[int | None, bool]:
    """Nanoseconds, and whether it is of seconds only. Behind the point is a count of nanoseconds, which all write as
    nine digits but bsdtar."""
    for keyword in (b"time", b"tar_time"):
        value = words.get(keyword)
        if value is None:
            continue
        match = re.fullmatch(rb"(-?[0-9]{1,12})(?:\.([0-9]{1,9}))?", value)
        if match is None:
            raise SnapshotError(f"{keyword.decode()}={os.fsdecode(value)}", line=number)
        nanoseconds = int(match[2] or b"0")
        return int(match[1]) * _SECOND + nanoseconds, keyword == b"tar_time"
    return None, False


def _device(number: int, value: bytes | None) -> int | None:
    """FORMAT,MAJOR,MINOR with whatever format, or one number."""
    if value is None:
        return None
    match = re.fullmatch(rb"[a-z0-9]+,(0x[0-9a-f]{1,8}|[0-9]{1,10}),(0x[0-9a-f]{1,8}|[0-9]{1,10})", value)
    if match is not None:
        return os.makedev(int(match[1], 0), int(match[2], 0))
    if re.fullmatch(rb"0x[0-9a-f]{1,8}|[0-9]{1,10}", value):
        return int(value, 0)
    raise SnapshotError(f"device={os.fsdecode(value)}", line=number)


def _digests(number: int, words: dict[bytes, bytes | None]) -> dict[str, str]:
    found: dict[str, str] = {}
    for keyword, name in _DIGESTS.items():
        value = words.get(keyword)
        if value is None:
            continue
        if not re.fullmatch(b"[0-9a-f]{%d}" % _HEX_DIGITS[name], value.lower()):
            raise SnapshotError(f"{keyword.decode()} has {len(value)} characters, or others than digits", line=number)
        found[name] = value.lower().decode()
    return found


def _xattrs(number: int, words: dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for keyword, value in words.items():
        if keyword.startswith((b"xattr.", b"xattrs.")) and value is not None:
            name = unquote(keyword.partition(b".")[2])
            try:
                found[name] = base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise SnapshotError(f"{os.fsdecode(keyword)}: {error}", line=number) from error
    return found
