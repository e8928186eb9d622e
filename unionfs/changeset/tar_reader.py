"""The one door for tars of unknown origin: bytes in, `TarEntry` out, `TarError` with an offset for all that is wrong.

Understood: V7, ustar, PAX (extended and global headers; xattrs as SCHILY.xattr and LIBARCHIVE.xattr), GNU (long
names and links, base-256 numbers), sparse files in all four encodings (GNU old, PAX 0.0, 0.1, 1.0), and compression as
compression.Source tells it. Names, targets and xattr values are bytes and never decoded; no name is judged here (that
is apply's office). Where writers and readers of the world disagree, Go's archive/tar is followed, since it reads most
layers: links, directories and devices have no data whatever their size field says; PAX overrides the header.

Stricter than most: an archive must have its end marker (one zero block at least, POSIX says two), for without it an
archive cut between two members could not be told from a whole one. After the marker anything may follow (padding, or a
partial second archive); it is read for the digests and otherwise ignored, as GNU tar does.

Bounded: extended headers and long names to 1 MiB each, as Go; sparse maps to a million extents.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes

from unionfs.changeset.compression import Source
from unionfs.changeset.tar_format import BLK, BLOCK, CHR, DIR, FIFO, LINK, MAX_PAX, REG, SYMLINK, XATTR
from unionfs.errors import TarError

_LIBARCHIVE_XATTR: Final = b"LIBARCHIVE.xattr."
_HEADER_ONLY: Final = frozenset((LINK, SYMLINK, CHR, BLK, DIR, FIFO))
_TYPES: Final = {b"\0": REG, b"7": REG, b"S": REG, b"D": DIR, **{t: t for t in (*_HEADER_ONLY, REG)}}
_MAX_EXTENTS: Final = 1 << 20
#: All extended headers of one member, in bytes, and the number of global records.
_MAX_META: Final = 8 << 20
_MAX_GLOBAL: Final = 1024
_MAX_SIZE: Final = (1 << 63) - 1
_SECOND: Final = 1_000_000_000
_ENDS: Final = b"\0 "

#: (offset in the file, bytes of data there), ascending, not overlapping
Extents = list[tuple[int, int]]


@dataclass(slots=True)
class TarEntry:
    """One member. `type` is one of tar_format's seven. `size` is the file's own; `stored` the bytes in the archive,
    from `data_offset` on (both offsets count uncompressed bytes). They differ for a sparse file, whose data lies where
    `extents` say; None for any other."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: bytes
    devmajor: int
    devminor: int
    offset: int
    data_offset: int
    stored: int
    extents: Extents | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class TarReader:
    """Iterate over the members of the tar (compressed or not) that `stream` holds from its current position on.

    The data of the member last got may be read by `data` before the next one is asked for. After the last member the
    rest of the stream is read, and `diff_id` and `digest` (sha256:HEX, uncompressed and as read) are of the whole.
    `progress` gets the bytes taken from `stream` so far. OSErrors of `stream` pass through.

    `digests` False is for archives of which only some members matter: there are no digests then, what follows the last
    member is not read, and data that nobody asks for is passed over by seeking, where `stream` can and is plain.
    `marked` False: the archive may end without a marker, or amid the padding before it (umoci's `insert` writes such
    layers), since the caller will know by its digest whether it is whole.
    """

    def __init__(
        self,
        stream: BinaryIO,
        progress: Callable[[int], None] | None = None,
        *,
        digests: bool = True,
        marked: bool = True,
    ) -> None:
        self._marked = marked
        #: Gets all uncompressed bytes as they come.
        self.tee: Callable[[bytes], object] | None = None
        self._raw = _Hashed(stream, progress, digests)
        self._source = Source(self._raw)  # type: ignore[arg-type]  # read() is all that Source uses
        self._digests = digests
        #: where the stream ends, counted from where it began, if it may be passed over in parts
        self._end = None if digests or self._source.compression else _end(stream, self._source.position)
        #: of the uncompressed bytes, where those are not the stored ones
        self._plain = hashlib.sha256() if self._source.compression and digests else None
        self._buffer, self._at = b"", 0
        self._offset = 0  # of the next byte, uncompressed
        self._left = 0  # data of the current entry not yet read, and its padding
        self._padding = 0
        self._global: dict[bytes, bytes] = {}

    @property
    def diff_id(self) -> str:
        return "sha256:" + self._plain.hexdigest() if self._plain else self.digest

    @property
    def digest(self) -> str:
        return "sha256:" + self._raw.hash.hexdigest()

    @property
    def size(self) -> int:
        """Bytes taken from the stream, as stored."""
        return self._raw.count

    @property
    def plain_size(self) -> int:
        """Bytes of the tar, uncompressed, so far."""
        return self._offset

    @property
    def compressed(self) -> bool:
        return bool(self.compression)

    @property
    def compression(self) -> str:
        """ "" for none, else gzip, zstd, bzip2 or xz."""
        return self._source.compression

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self._next()) is not None:
            yield entry
        while self._digests and self._take(1 << 20):
            pass

    def data(self) -> Iterator[memoryview]:
        """What is left of the current entry's stored bytes, in pieces of up to 1 MiB."""
        while self._left:
            piece = self._take(self._left)
            if not piece:
                raise TarError("the archive ends inside a file", offset=self._offset)
            self._left -= len(piece)
            yield piece

    # bytes ------------------------------------------------------------------------------------------------------
    def _take(self, limit: int) -> memoryview:
        """1 to `limit` bytes; empty at the end of the stream."""
        self._peek()
        piece = memoryview(self._buffer)[self._at : self._at + limit]
        self._at += len(piece)
        self._offset += len(piece)
        return piece

    def _exactly(self, count: int, what: str) -> bytes:
        start = self._offset
        piece = bytes(self._take(count))
        while len(piece) < count:
            more = self._take(count - len(piece))
            if not more:
                raise TarError(f"the archive ends inside {what}", offset=start)
            piece += more
        return piece

    def _skip_data(self) -> None:
        if self._end is not None:
            self._seek_past_data(self._end)
        for _ in self.data():
            pass
        if self._padding:
            if self._marked or self._peek():
                self._exactly(self._padding, "a file's padding")
            self._padding = 0

    def _seek_past_data(self, end: int) -> None:
        """Pass over what is left of the current entry's bytes but for what is in the buffer."""
        beyond = self._left + self._padding - (len(self._buffer) - self._at)
        if beyond <= 0:
            return
        if self._raw.count + beyond > end:
            raise TarError("the archive ends inside a file", offset=self._offset)
        self._offset += self._left + self._padding
        self._buffer, self._at, self._left, self._padding = b"", 0, 0, 0
        self._raw.skip(beyond)

    # headers ----------------------------------------------------------------------------------------------------
    def _next(self) -> TarEntry | None:
        pax: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}
        sparse: Extents = []  # PAX 0.0: the repeated records, in order
        self._skip_data()
        start = self._offset
        while True:
            at = self._offset
            if at - start > _MAX_META or len(self._global) > _MAX_GLOBAL:
                raise TarError("extended headers without end", offset=start)
            block = self._block(first=at == start)
            if block is None:
                return None
            kind = block[156:157]
            if kind in (b"x", b"X", b"g"):
                records = _records(self._meta(block, at), at, sparse)
                if kind == b"g":
                    self._global.update(records)
                else:
                    pax.update(records)
            elif kind in (b"L", b"K"):
                long[kind] = self._meta(block, at).split(b"\0", 1)[0]
            elif kind == b"V":  # a volume label
                self._meta(block, at)
            else:
                return self._entry(block, at, start, {**self._global, **pax}, long, sparse)

    def _block(self, first: bool) -> bytes | None:
        """The next header, None at the end marker."""
        at = self._offset
        if not self._peek():
            if first and at and not self._marked:
                return None
            missing = "is empty" if at == 0 else "ends without its end marker: it was cut short"
            raise TarError(
                f"the archive {missing}" if first else "the archive ends after an extended header", offset=at
            )
        block = self._exactly(BLOCK, "a header")
        if not any(block):
            if not first:
                raise TarError("an extended header without its file", offset=at)
            if self._peek():
                second = self._exactly(BLOCK, "its end marker")
                if any(second):
                    raise TarError("a zero block amid the archive", offset=at)
            return None
        stored = _number(block[148:156], "checksum", at)
        # The field itself counts as spaces.
        unsigned = sum(block) - sum(block[148:156]) + 256
        if stored != unsigned and stored != _signed_sum(block):
            raise TarError("not a tar archive" if at == 0 else "a header's checksum is wrong", offset=at)
        return block

    def _peek(self) -> bool:
        """Whether there is more of the stream; fills the buffer."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(), 0
            if self._plain:
                self._plain.update(self._buffer)
            if self.tee:
                self.tee(self._buffer)
        return self._at < len(self._buffer)

    def _meta(self, block: bytes, at: int) -> bytes:
        size = _number(block[124:136], "size", at)
        if not 0 <= size <= MAX_PAX:
            raise TarError(f"an extended header of {size} bytes", offset=at)
        data = self._exactly(size, "an extended header")
        self._exactly(-size % BLOCK, "an extended header")
        return data

    def _entry(
        self, block: bytes, at: int, start: int, pax: dict[bytes, bytes], long: dict[bytes, bytes], sparse: Extents
    ) -> TarEntry:
        flag = block[156:157]
        type = _TYPES.get(flag)
        if type is None:
            raise TarError(f"unknown member type {flag!r}", offset=at)
        name, linkname, is_ustar = _names(block)
        name = pax.get(b"path") or long.get(b"L", name)
        if flag == b"\0" and name.endswith(b"/"):
            type = DIR  # V7 had no type for directories
        entry = TarEntry(
            name,
            type,
            _number(block[100:108], "mode", at) & 0o7777,
            _integer(pax, b"uid", at, _number(block[108:116], "uid", at)),
            _integer(pax, b"gid", at, _number(block[116:124], "gid", at)),
            _integer(pax, b"size", at, _number(block[124:136], "size", at)),
            _mtime(pax, block, at),
            pax.get(b"linkpath") or long.get(b"K", linkname),
            _number(block[329:337], "major", at) if is_ustar else 0,
            _number(block[337:345], "minor", at) if is_ustar else 0,
            start,
            self._offset,
            0,
            xattrs=_xattrs(pax, at),
        )
        if min(entry.uid, entry.gid, entry.size) < 0 or entry.size > _MAX_SIZE:
            raise TarError("a negative owner or size", offset=at)
        if type in _HEADER_ONLY:
            entry.size = 0
        entry.stored = self._left = entry.size
        self._padding = -entry.size % BLOCK
        if type == REG:
            self._sparse(entry, flag, block, pax, sparse)
        entry.data_offset = self._offset
        return entry

    # sparse files -----------------------------------------------------------------------------------------------
    def _sparse(self, entry: TarEntry, flag: bytes, block: bytes, pax: dict[bytes, bytes], repeated: Extents) -> None:
        at = entry.offset
        if flag == b"S":
            entry.extents = self._old_gnu_map(block, at)
            entry.size = _number(block[483:495], "real size", at)
        elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            entry.extents = self._map_in_data(at)
            entry.stored = self._left
            entry.size = _integer(pax, b"GNU.sparse.realsize", at, -1)
        elif b"GNU.sparse.map" in pax or repeated:
            entry.extents = repeated or _map_of_numbers(pax[b"GNU.sparse.map"].split(b","), at)
            entry.size = _integer(pax, b"GNU.sparse.size", at, -1)
        else:
            return
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        end = total = 0
        for offset, length in entry.extents:
            if offset < end or length < 0 or offset + length > entry.size:
                raise TarError("a sparse file whose map makes no sense", offset=at)
            end, total = offset + length, total + length
        if total != entry.stored or not 0 <= entry.size <= _MAX_SIZE:
            raise TarError("a sparse file whose map does not fit its data", offset=at)

    def _old_gnu_map(self, block: bytes, at: int) -> Extents:
        extents = _gnu_structs(block[386:482], at)
        extended = block[482]
        while extended:
            block = self._exactly(BLOCK, "a sparse map")
            extents += _gnu_structs(block[:504], at)
            extended = block[504]
            if len(extents) > _MAX_EXTENTS:
                raise TarError("a sparse file with too many extents", offset=at)
        return extents

    def _map_in_data(self, at: int) -> Extents:
        """PAX 1.0: decimal lines at the beginning of the data, padded to a block."""
        blocks = [self._map_block(at)]
        first, newline, _ = blocks[0].partition(b"\n")
        count = _decimal(first, "sparse map", at) if newline else -1
        if not 0 <= count <= _MAX_EXTENTS:
            raise TarError("a sparse file with too many extents", offset=at)
        lines = blocks[0].count(b"\n")
        while lines <= 2 * count:
            blocks.append(self._map_block(at))
            lines += blocks[-1].count(b"\n")
        return _map_of_numbers(b"".join(blocks).split(b"\n")[1 : 2 * count + 1], at)

    def _map_block(self, at: int) -> bytes:
        if self._left < BLOCK:
            raise TarError("a sparse map that is cut off", offset=at)
        self._left -= BLOCK
        return self._exactly(BLOCK, "a sparse map")


def _end(stream: BinaryIO, position: int) -> int | None:
    """The length of a stream of which `position` bytes were read; None where it cannot seek."""
    if not stream.seekable():
        return None
    here = stream.tell()
    length = stream.seek(0, 2) - here + position
    stream.seek(here)
    return length


class _Hashed:
    """A stream counted, and unless it is not asked for hashed, while it is read."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None] | None, digests: bool) -> None:
        self._stream, self._progress, self._digests = stream, progress, digests
        self.hash, self.count = hashlib.sha256(), 0

    def skip(self, count: int) -> None:
        self._stream.seek(count, 1)
        self.count += count

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self._digests:
            self.hash.update(data)
        self.count += len(data)
        if self._progress:
            self._progress(self.count)
        return data


def _signed_sum(block: bytes) -> int:
    """The checksum as some old tars made it, of signed bytes."""
    rest = block[:148] + block[156:]
    return sum(rest) + 256 - 256 * sum(byte > 127 for byte in rest)


# fields ---------------------------------------------------------------------------------------------------------
def _number(raw: bytes, what: str, at: int) -> int:
    """Octal with any padding of spaces and NULs, or GNU's base-256 (first bit set, two's complement)."""
    if raw[-1] in _ENDS and raw[:-1].isdigit():  # as nearly all writers have it
        try:
            return int(raw[:-1], 8)
        except ValueError:
            pass
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big") & ((1 << (8 * len(raw) - 1)) - 1)
        return value - (1 << (8 * len(raw) - 1)) if raw[0] & 0x40 else value
    text = raw.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise TarError(f"a header's {what} is no number", offset=at)
    return int(text, 8)


def _names(block: bytes) -> tuple[bytes, bytes, bool]:
    """Name (with ustar's prefix), link name, and whether the fields of ustar or GNU are there."""
    name = block[:100].split(b"\0", 1)[0]
    magic = block[257:263]
    if magic == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name, block[157:257].split(b"\0", 1)[0], magic in (b"ustar\0", b"ustar ")


def _records(data: bytes, at: int, sparse: Extents) -> dict[bytes, bytes]:
    """PAX records. GNU.sparse.offset and .numbytes, which repeat (PAX 0.0), are added to `sparse` in order."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        digits = data[position : max(space, position)]
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if length < 5 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise TarError("a malformed record in an extended header", offset=at)
        if key in (b"path", b"linkpath") and b"\0" in value:
            raise TarError("a name with a NUL byte", offset=at)
        if key == b"GNU.sparse.offset":
            sparse.append((_decimal(value, "sparse map", at), 0))
        elif key == b"GNU.sparse.numbytes" and sparse:
            sparse[-1] = (sparse[-1][0], _decimal(value, "sparse map", at))
        else:
            records[key] = value
        position = end
    return records


def _decimal(raw: bytes, what: str, at: int) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise TarError(f"{what}: {raw[:40]!r} is no number", offset=at)
    return int(raw)


def _integer(pax: dict[bytes, bytes], key: bytes, at: int, default: int) -> int:
    """An empty value takes the record back (POSIX pax, "extended header")."""
    raw = pax.get(key)
    return _decimal(raw, key.decode(), at) if raw else default


def _mtime(pax: dict[bytes, bytes], block: bytes, at: int) -> int:
    raw = pax.get(b"mtime")
    if not raw:
        stored = _number(block[136:148], "mtime", at)
        if abs(stored) < 1 << 62:
            return stored * _SECOND
        raise TarError("mtime: a time that no file can have", offset=at)
    try:
        seconds = Decimal(raw.decode("ascii"))
        if seconds.is_finite() and abs(seconds) < 1 << 62:
            return int((seconds * _SECOND).to_integral_value("ROUND_FLOOR"))
    except (InvalidOperation, UnicodeDecodeError):
        pass
    raise TarError(f"mtime: {raw[:40]!r} is no time", offset=at)


def _xattrs(pax: dict[bytes, bytes], at: int) -> dict[bytes, bytes]:
    xattrs: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE_XATTR):
            name = unquote_to_bytes(key[len(_LIBARCHIVE_XATTR) :])
            try:
                xattrs.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
            except binascii.Error as error:
                raise TarError("an xattr that is not base64", offset=at) from error
    for key, value in pax.items():
        if key.startswith(XATTR):
            xattrs[key[len(XATTR) :]] = value
    if any(not name or b"\0" in name for name in xattrs):
        raise TarError("an xattr without a name, or with a NUL byte in it", offset=at)
    return xattrs


def _gnu_structs(raw: bytes, at: int) -> Extents:
    """Offset and length, twelve bytes each; an empty one ends the list."""
    extents: Extents = []
    for position in range(0, len(raw) - 23, 24):
        if not raw[position]:
            break
        offset = _number(raw[position : position + 12], "sparse map", at)
        extents.append((offset, _number(raw[position + 12 : position + 24], "sparse map", at)))
    return extents


def _map_of_numbers(numbers: list[bytes], at: int) -> Extents:
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_EXTENTS:
        raise TarError("a sparse map that is cut off", offset=at)
    values = [_decimal(number, "sparse map", at) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))
