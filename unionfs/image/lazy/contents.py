"""The table of contents of a layer that can be fetched in parts, read: members for an index, chunks for a fetcher.

    eStargz         gzip; annotation containerd.io/snapshot/stargz/toc.digest: of the JSON, which is the last member of
                    the tar, stargz.index.json; the blob's last 51 bytes say where that is (stargz-snapshotter,
                    docs/estargz.md)
    zstd:chunked    zstd; annotations io.github.containers.zstd-chunked.*: digest of the JSON as it is compressed, and
                    where that is, in a skippable frame behind the tar (containers/storage, pkg/chunked)

Both are JSON with the same fields: `entries`, one for each member, and of a file in several chunks one more for each
but the first. A chunk begins with a gzip member or zstd frame of its own at `offset`, or (`innerOffset`) so many bytes
into what that one holds, and goes on to where the next one begins.

The data of all files is given a place in one address space, that of the chunk file: each file in one piece, on a page
boundary. `Chunk.start` and `TarEntry.data_offset` are in it.

What cannot be read safely in parts is `Unsuitable`, whatever is wrong with it; the layer is fetched whole then, and
judged as any other. That includes names that are no UTF-8, which the writers' JSON has lost (U+FFFD).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, NoReturn

from unionfs.changeset import tar_format as tar
from unionfs.changeset.tar_reader import TarEntry
from unionfs.errors import ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.digest import Digest
from unionfs.image.models import Descriptor, parse_json

Kind = Literal["gzip", "zstd"]

#: Bytes of a TOC, as JSON. (250,000 files; containers/storage reads 150 MiB, at ten times that in memory.)
MAX_TOC: Final = 64 << 20
#: Bytes that one chunk may come to, since all of it is unpacked to be compared. Writers make them of up to 4 MiB.
MAX_CHUNK: Final = 64 << 20
PAGE: Final = 4096
#: Where the address space begins: before it is the chunk file's header.
DATA_START: Final = PAGE

TOC_NAME: Final = b"stargz.index.json"
PREFETCH: Final = b".prefetch.landmark"
NO_PREFETCH: Final = b".no.prefetch.landmark"
#: Names in the root that writers put there for themselves. (stargz-snapshotter writes zstd:chunked with landmarks.)
HIDDEN: Final[dict[Kind, frozenset[bytes]]] = {
    "gzip": frozenset((TOC_NAME, PREFETCH, NO_PREFETCH)),
    "zstd": frozenset((PREFETCH, NO_PREFETCH)),
}

FOOTER_SIZE: Final = 51
_TOC_DIGEST: Final = "containerd.io/snapshot/stargz/toc.digest"
#: The second is that of containers/storage until 1.44, which Debian 12's tools write.
_CHUNKED: Final = ("io.github.containers.zstd-chunked.manifest-", "io.containers.zstd-chunked.manifest-")
#: gzip header with FEXTRA, XLEN 26, subfield "SG" of 22 bytes: the TOC's offset in 16 hexadecimal digits and "STARGZ".
_footer: Final = re.compile(rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ.{13}", re.DOTALL).fullmatch
_position: Final = re.compile(r"(\d{1,18}):(\d{1,18}):(\d{1,18}):1", re.ASCII).fullmatch
_sha256: Final = re.compile(r"sha256:([0-9a-f]{64})").fullmatch
_time: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII).fullmatch

_TYPES: Final = {
    "reg": tar.REG,
    "dir": tar.DIR,
    "symlink": tar.SYMLINK,
    "hardlink": tar.LINK,
    "char": tar.CHR,
    "block": tar.BLK,
    "fifo": tar.FIFO,
}
_MAX_SIZE: Final = (1 << 63) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Unsuitable(ImageFormatError):
    """A layer that cannot be fetched in parts."""


class TocPlace(NamedTuple):
    """What a layer's descriptor says of its TOC. `digest` is of the JSON (gzip), or of it compressed (zstd). `offset`,
    `length` and `plain_length` in bytes; zero of eStargz, whose footer has the offset."""

    kind: Kind
    digest: Digest
    offset: int = 0
    length: int = 0
    plain_length: int = 0


class Chunk(NamedTuple):
    """`size` bytes from `start` on, of which the sha256 is `digest` (32 bytes). They are in the blob from `offset` to
    `end`, compressed, behind `inner` others. `end` 0: they are zeros, wherever the blob has them."""

    start: int
    size: int
    offset: int
    end: int
    inner: int
    digest: bytes


class Contents(NamedTuple):
    """`entries` as of a tar, in order. `chunks` ascending. `size`: where the address space ends. `prefetch`: the blob's
    part before this offset is what the image is said to need at once."""

    entries: list[TarEntry]
    chunks: list[Chunk]
    size: int
    prefetch: int = 0


def toc_place(layer: Descriptor) -> TocPlace | None:
    """None for a layer that does not say that it can be fetched in parts, or says it in a way not known here."""
    compression = mediatypes.LAYERS.get(layer.media_type)
    told = layer.annotations
    if compression == "gzip" and layer.size > FOOTER_SIZE and _sha256(told.get(_TOC_DIGEST, "")):
        return TocPlace("gzip", Digest(told[_TOC_DIGEST]))
    for prefix in _CHUNKED if compression == "zstd" else ():
        digest, position = told.get(prefix + "checksum", ""), _position(told.get(prefix + "position", ""))
        if _sha256(digest) and position:
            offset, length, plain = map(int, position.groups())
            if length and offset + length <= layer.size and max(length, plain) <= MAX_TOC:
                return TocPlace("zstd", Digest(digest), offset, length, plain)
    return None


def toc_offset(footer: bytes, size: int) -> int:
    """Where the TOC of an eStargz blob of `size` bytes is, by its last ones."""
    found = _footer(footer)
    offset = int(found[1], 16) if found else size
    if not offset < size - FOOTER_SIZE:
        raise Unsuitable("it has no footer of eStargz")
    return offset


def parse(toc: bytes, end: int, limit: int) -> Contents:
    """The JSON of a TOC whose chunks end at `end` in the blob. `limit`: bytes that all files together may come to."""
    if b"\xef\xbf\xbd" in toc or b"\\ufffd" in toc.lower():
        raise Unsuitable("it has names that are not UTF-8, which its TOC has lost")
    document = parse_json(toc, "the TOC", MAX_TOC)
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(entries, list) or document.get("version") != 1:
        raise Unsuitable("its TOC is of another version")
    return _Parser(entries, end, limit).run()


class _Pending(NamedTuple):
    """A chunk whose end is not known yet; `until`: what its entry says."""

    start: int
    size: int
    offset: int
    inner: int
    digest: bytes
    zeros: bool
    until: int


class _Parser:
    def __init__(self, entries: list[Any], end: int, limit: int) -> None:
        self._entries, self._end, self._limit = entries, end, limit
        self._members: list[TarEntry] = []
        self._pending: list[_Pending] = []
        self._at = DATA_START
        self._prefetch = 0

    def run(self) -> Contents:
        at = 0
        while at < len(self._entries):
            entry = self._entries[at]
            if not isinstance(entry, dict) or entry.get("type") not in _TYPES:
                _refuse("an entry of no known type")
            at += 1
            first = at
            while at < len(self._entries) and _is_chunk(self._entries[at]):
                at += 1
            self._member(entry, self._entries[first:at], first)
        return Contents(self._members, self._ends(), self._at, self._prefetch)

    def _member(self, entry: dict[str, Any], more: list[dict[str, Any]], number: int) -> None:
        kind = _TYPES[entry["type"]]
        size = _number(entry, "size") if kind == tar.REG else 0
        if more and not size:
            _refuse("chunks of what has no data")
        start = self._at
        if size:
            self._data(entry, more, size)
        name = _text(entry, "name")
        if name.strip(b"/") == PREFETCH or name == b"./" + PREFETCH:
            self._prefetch = _number(entry, "offset")
        self._members.append(
            TarEntry(
                name=name,
                type=kind,
                mode=_number(entry, "mode") & 0o7777,
                uid=_number(entry, "uid"),
                gid=_number(entry, "gid"),
                size=size,
                mtime_ns=_nanoseconds(entry.get("modtime")),
                linkname=_text(entry, "linkName"),
                devmajor=_number(entry, "devMajor"),
                devminor=_number(entry, "devMinor"),
                offset=number,
                data_offset=start,
                stored=size,
                xattrs=_xattrs(entry.get("xattrs")),
            )
        )

    def _data(self, entry: dict[str, Any], more: list[dict[str, Any]], size: int) -> None:
        if size > self._limit or self._at + size - DATA_START > self._limit:
            _refuse(f"it comes to more than {self._limit >> 20} MiB")
        done = 0
        until = _number(entry, "endOffset")
        for number, one in enumerate((entry, *more)):
            last = number == len(more)
            # "The last chunk in a reg file or reg file that isn't chunked MUST set this property to zero."
            length = _number(one, "chunkSize") or (size - done if last else 0)
            if _number(one, "chunkOffset") != done or not 0 < length <= size - done:
                _refuse("chunks that do not follow each other")
            zeros = one.get("chunkType") == "zeros"
            digest = one.get("chunkDigest") or ("" if more else entry.get("digest"))
            found = _sha256(digest) if isinstance(digest, str) else None
            if found is None:
                _refuse("a chunk without a digest")
            inner = _number(one, "innerOffset")
            if not zeros and inner + length > MAX_CHUNK:
                _refuse(f"a chunk of more than {MAX_CHUNK >> 20} MiB")
            offset = _number(one, "offset")
            self._pending.append(
                _Pending(self._at + done, length, offset, inner, bytes.fromhex(found[1]), zeros, until if last else 0)
            )
            done += length
        if done != size:
            _refuse("chunks that are not all of their file")
        self._at += -(-size // PAGE) * PAGE

    def _ends(self) -> list[Chunk]:
        """A chunk goes on to where the next one begins in the blob, or the TOC."""
        offsets = sorted({one.offset for one in self._pending})
        following = dict(pairwise([*offsets, self._end]))
        chunks = []
        for one in self._pending:
            end = following[one.offset]
            if one.offset < one.until < end:
                end = one.until
            # The headers of the members between two files are in it: what is empty has no chunk of its own.
            if not one.offset < end <= self._end:
                _refuse("a chunk outside of the blob")
            if not one.zeros and end - one.offset > 2 * MAX_CHUNK:
                _refuse("a chunk that takes too much to unpack")
            chunks.append(Chunk(one.start, one.size, one.offset, 0 if one.zeros else end, one.inner, one.digest))
        return chunks


def _is_chunk(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "chunk"


def _number(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key, 0)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        _refuse(f"{key} is no number")
    return value


def _text(entry: Mapping[str, Any], key: str) -> bytes:
    value = entry.get(key, "")
    if not isinstance(value, str):
        _refuse(f"{key} is no text")
    return value.encode()


def _nanoseconds(value: Any) -> int:
    """Of RFC 3339; "Empty means zero or unknown", and Go's zero time is neither."""
    found = _time(value) if isinstance(value, str) else None
    if found is None:
        if value in ("", None):
            return 0
        _refuse("modtime is no time")
    seconds, fraction, zone = found.groups()
    try:
        when = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        _refuse("modtime is no time")
    if when.year == 1:
        return 0
    return int((when - _EPOCH).total_seconds()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _xattrs(value: Any) -> dict[bytes, bytes]:
    """Values in base64, as Go writes bytes."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse("xattrs is no object")
    try:
        return {name.encode(): base64.b64decode(text, validate=True) if text else b"" for name, text in value.items()}
    except (TypeError, ValueError):
        _refuse("an xattr that is no base64")


def _refuse(why: str) -> NoReturn:
    raise Unsuitable(f"its TOC has {why}" if not why.startswith("it ") else why)
