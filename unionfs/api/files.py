"""Open files of a `Tree`: `UnionFile` is a raw `io` stream over the read and write of a `vfs.Filesystem`.

`wrap` puts the buffered and text layers of the standard library on top, by the rules of the built-in `open`.

INVARIANT: an open `UnionFile` owns one file handle and one lookup of its node; `close` gives both back.
"""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING, Any

from unionfs.vfs import Attr, Caller, FileHandle, Filesystem, NodeId, SetAttr

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def flags_of_mode(mode: str) -> int:
    """The open(2) flags of a mode as the built-in `open` takes it; ValueError as it raises it."""
    words = set(mode)
    if len(words) < len(mode) or words - set("rwxabt+"):
        raise ValueError(f"invalid mode: {mode!r}")
    if len(words & set("rwxa")) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    if {"b", "t"} <= words:
        raise ValueError("can't have text and binary mode at once")
    both = "+" in words
    if "r" in words:
        return os.O_RDWR if both else os.O_RDONLY
    how = {"w": os.O_CREAT | os.O_TRUNC, "x": os.O_CREAT | os.O_EXCL, "a": os.O_CREAT | os.O_APPEND}
    return (os.O_RDWR if both else os.O_WRONLY) | how[(words & set("wxa")).pop()]


def wrap(
    raw: UnionFile, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    """Dress a raw file as the built-in `open` does: buffered unless `buffering` is 0, text unless binary."""
    binary = "b" in mode
    if binary and (encoding, errors, newline) != (None, None, None):
        raise ValueError("binary mode doesn't take an encoding, errors or newline argument")
    if buffering == 0:
        if not binary:
            raise ValueError("can't have unbuffered text I/O")
        return raw  # type: ignore[return-value]  # io.RawIOBase is no IO[bytes] in typeshed; at run time it is the one
    size = buffering if buffering > 1 else max(raw.blksize(), io.DEFAULT_BUFFER_SIZE)
    buffered: io.BufferedRandom | io.BufferedWriter | io.BufferedReader
    if "+" in mode:
        buffered = io.BufferedRandom(raw, size)
    elif "r" in mode:
        buffered = io.BufferedReader(raw, size)
    else:
        buffered = io.BufferedWriter(raw, size)
    if binary:
        return buffered
    text = io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]  # as io.open does; typeshed calls it read-only
    return text


class UnionFile(io.RawIOBase):
    """An open regular file. Safe to use from one thread at a time, as other raw streams.

    There is no `fileno`: the descriptor behind it may be of a lower layer and change at copy-up.
    """

    def __init__(self, fs: Filesystem, node: NodeId, fh: FileHandle, mode: str, name: str, caller: Caller) -> None:
        super().__init__()
        self._fs = fs
        self._node = node
        self._fh = fh
        self._caller = caller
        self._append = "a" in mode
        self._readable = "r" in mode or "+" in mode
        self._writable = "r" not in mode or "+" in mode
        self.mode = mode
        self.name = name
        self._position = self._size() if self._append else 0

    def _attr(self) -> Attr:
        return Attr.unpack(self._fs.getattr(self._node, self._fh))

    def _size(self) -> int:
        return self._attr().size

    def blksize(self) -> int:
        return self._attr().blksize

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def _check(self, allowed: bool, what: str) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not allowed:
            raise io.UnsupportedOperation(what)

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check(self._readable, "not readable")
        view = memoryview(buffer).cast("B")
        data = self._fs.read(self._fh, self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        self._check(self._readable, "not readable")
        chunks = []
        # One read for what fstat promises and one that finds the end, as io.FileIO does.
        want = max(self._size() - self._position, 0) + 1
        while data := self._fs.read(self._fh, self._position, want):
            chunks.append(data)
            self._position += len(data)
            want = max(want - len(data), 1 << 16)
        return b"".join(chunks)

    def write(self, buffer: ReadableBuffer) -> int:
        self._check(self._writable, "not writable")
        if self._append:
            # Not atomic against other writers of the same file in other processes: in process there are none.
            self._position = self._size()
        written = self._fs.write(self._fh, self._position, memoryview(buffer).cast("B"))
        self._position += written
        return written

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check(True, "")
        if whence in (os.SEEK_HOLE, os.SEEK_DATA):
            position = self._fs.lseek(self._fh, offset, whence)
        else:
            bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
            position = offset + (bases[whence] if whence in bases else self._end(whence))
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def _end(self, whence: int) -> int:
        if whence != os.SEEK_END:
            raise ValueError(f"invalid whence value: {whence}")
        return self._size()

    def tell(self) -> int:
        self._check(True, "")
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._check(self._writable, "not writable")
        length = self._position if size is None else size
        self._fs.setattr(self._node, SetAttr(size=length), self._caller, self._fh)
        return length

    def fsync(self, datasync: bool = False) -> None:
        """fsync(2) or fdatasync(2) of what has been written to this raw file."""
        self._check(True, "")
        self._fs.fsync(self._fh, datasync)

    def stat(self) -> Attr:
        """fstat(2), also after the name is gone."""
        self._check(True, "")
        return self._attr()

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
            if self._writable:
                self._fs.flush(self._fh)
        finally:
            self._fs.release(self._fh)
            self._fs.forget(self._node, 1)
