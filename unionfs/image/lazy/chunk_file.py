"""What has come of a layer's data: a sparse file that holds each chunk at its place, and knows which ones those are.

    header     one page: magic, version, what it is of, sizes; CRC-32 of that and of the table; the boot it was used in
    data       from `contents.DATA_START` on: chunks at their `start`, holes where none has come
    table      72 bytes a chunk, ascending
    states     one byte a chunk: ABSENT, HERE, or DOUBTFUL

All of it is in one file, so that it cannot be half of one and half of another. Any number of processes use it at once,
without locks: a chunk's bytes are always the same, and its state is written after them. A killed process leaves what it
had written, for that is in the page cache; a machine that goes down may lose bytes and keep their state, since nothing
is flushed. So the boot is noted, and after another one all that is there is DOUBTFUL: to be compared with its digest
before it is used. The file may be unlinked at any time; who has it open goes on.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from unionfs.errors import LayerError
from unionfs.image.lazy.contents import DATA_START, Chunk, Contents

#: To be raised with every change of this format, or of where contents.py puts data.
VERSION: Final = 1

ABSENT, HERE, DOUBTFUL = 0, 1, 2

_MAGIC: Final = b"unionfsC"
#: magic version | what it is of | chunks, end of the data, offset of the table, size of the file | CRC of the table
_HEADER: Final = struct.Struct("<8sI4x32sQQQQI4x")
_CRC: Final = struct.Struct("<I")
_BOOT_AT: Final = 512
_BOOT: Final = 36
_RECORD: Final = struct.Struct("<QQQQI4x32s")
_START: Final = struct.Struct("<Q")
_PIECE: Final = 1 << 20


class ChunkFileDamaged(LayerError):
    """A chunk file that is not what was written: damaged, cut short, or of another version."""


def write(file: BinaryIO, key: bytes, contents: Contents) -> None:
    """Make an empty one of `file`, which is new. `key`: what it is of, 32 bytes."""
    table = b"".join(
        [_RECORD.pack(one.start, one.size, one.offset, one.end, one.inner, one.digest) for one in contents.chunks]
    )
    count, size = len(contents.chunks), max(contents.size, DATA_START)
    header = _HEADER.pack(_MAGIC, VERSION, key, count, size, size, size + len(table) + count, zlib.crc32(table))
    file.write(header + _CRC.pack(zlib.crc32(header)))
    file.seek(size)
    file.write(table + bytes(count))
    file.truncate()  # where there is neither: to the end of the header's page


def boot_id() -> bytes:
    """Of this boot, 36 bytes; elsewhere than on Linux none, and then every use is that of another boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(_BOOT).ljust(_BOOT)
    except FileNotFoundError:
        return b""


class ChunkFile:
    """A chunk file by its descriptor `fd`, open for reading and writing, which it owns. May be used by any thread.
    ChunkFileDamaged where it is none, or of something else than `key`."""

    def __init__(self, fd: int, key: bytes) -> None:
        self.fd = fd
        self._table: mmap.mmap | None = None
        try:
            self._open(key)
        except BaseException:
            self.close()
            raise

    def _open(self, key: bytes) -> None:
        raw = os.pread(self.fd, _HEADER.size + _CRC.size, 0)
        if len(raw) != _HEADER.size + _CRC.size or _CRC.unpack_from(raw, _HEADER.size)[0] != zlib.crc32(raw[:-4]):
            raise ChunkFileDamaged("its header is damaged")
        magic, version, of, self.count, self.end, table, size, crc = _HEADER.unpack_from(raw)
        if (magic, version, of) != (_MAGIC, VERSION, key) or os.fstat(self.fd).st_size != size:
            raise ChunkFileDamaged("it is of another version, or of something else")
        self._states_at = table + self.count * _RECORD.size
        if not self.count:
            return
        first = table // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        self._table = mmap.mmap(self.fd, size - first, mmap.MAP_SHARED, mmap.PROT_READ, offset=first)
        self._records, self._states = table - first, self._states_at - first
        if zlib.crc32(self._table[self._records : self._states]) != crc:
            raise ChunkFileDamaged("its table is damaged")
        self._note_boot()

    def _note_boot(self) -> None:
        """States first: who dies between the two leaves them to the next."""
        now = boot_id()
        if now and os.pread(self.fd, _BOOT, _BOOT_AT) == now:
            return
        assert self._table is not None
        states = self._table[self._states : self._states + self.count]
        os.pwrite(self.fd, states.replace(bytes((HERE,)), bytes((DOUBTFUL,))), self._states_at)
        os.pwrite(self.fd, now, _BOOT_AT)

    # what is there --------------------------------------------------------------------------------------------------
    def chunk(self, number: int) -> Chunk:
        assert self._table is not None
        return Chunk._make(_RECORD.unpack_from(self._table, self._records + number * _RECORD.size))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The chunks that have something of [start, end): the first, and the one behind the last."""
        return self._position(start), self._position(end - 1) + 1 if end > start else self._position(start)

    def _position(self, place: int) -> int:
        """The last chunk that begins at or before a place; 0 where none does."""
        table, low, high = self._table, 0, self.count
        while high - low > 1:
            middle = (low + high) // 2
            if _START.unpack_from(table, self._records + middle * _RECORD.size)[0] <= place:  # type: ignore[arg-type]
                low = middle
            else:
                high = middle
        return low

    def has(self, start: int, end: int) -> bool:
        """Has all of [start, end) come, for sure? Looks at states alone."""
        first, last = self.span(start, end)
        table = self._table
        return table is not None and table[self._states + first : self._states + last].count(HERE) == last - first

    def state(self, number: int) -> int:
        assert self._table is not None
        return int(self._table[self._states + number])

    def missing(self, first: int, last: int) -> Iterator[int]:
        """Which of the chunks from `first` up to `last` have not come."""
        if self._table is None:
            return
        states = self._table[self._states + first : self._states + last]
        for at, state in enumerate(states):
            if state != HERE and not (state == DOUBTFUL and self._still_right(first + at)):
                yield first + at

    def _still_right(self, number: int) -> bool:
        """Compare what was here before the machine was started, once."""
        chunk = self.chunk(number)
        right = digest_at(self.fd, chunk.start, chunk.size) == chunk.digest
        self._set(number, HERE if right else ABSENT)
        return right

    # taking in ------------------------------------------------------------------------------------------------------
    def put(self, number: int, data: bytes | None) -> None:
        """The bytes of a chunk, which were compared; None: they are zeros."""
        chunk = self.chunk(number)
        if data is None:
            if digest_at(self.fd, chunk.start, chunk.size) != chunk.digest:  # what a lost machine has left there
                self._write_zeros(chunk)
        else:
            self._write(data, chunk.start)
        self._set(number, HERE)

    def _write(self, data: bytes, at: int) -> None:
        """All of it, zeros too: a hole is only where nothing was ever written."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, at)
            view, at = view[written:], at + written

    def _write_zeros(self, chunk: Chunk) -> None:
        for at in range(chunk.start, chunk.start + chunk.size, _PIECE):
            self._write(bytes(min(_PIECE, chunk.start + chunk.size - at)), at)

    def _set(self, number: int, state: int) -> None:
        # Not by the mapping: on a full disk that would be a signal.
        os.pwrite(self.fd, bytes((state,)), self._states_at + number)

    def come(self) -> int:
        """How many chunks have come."""
        return 0 if self._table is None else self._table[self._states : self._states + self.count].count(HERE)

    def close(self) -> None:
        """Idempotent."""
        if self._table is not None:
            self._table.close()
            self._table = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def digest_at(fd: int, start: int, size: int) -> bytes:
    """The sha256 of what a file holds there."""
    found = hashlib.sha256()
    while size and (data := os.pread(fd, min(size, _PIECE), start)):
        found.update(data)
        start, size = start + len(data), size - len(data)
    return found.digest()


def digest_of_zeros(size: int) -> bytes:
    """The sha256 of so many zeros."""
    found, piece = hashlib.sha256(), bytes(min(size, _PIECE))
    for _ in range(size // _PIECE):
        found.update(piece)
    found.update(bytes(size % _PIECE))
    return found.digest()
