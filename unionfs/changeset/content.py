"""The data of a regular file, whatever holds it: read in pieces, compared, digested.

Two files are the same without being read where their bytes are the same bytes of the same file: one inode under two
names, one place in a layer tar that two images share. What is a hole in both is not read either.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from typing import Final, Protocol

from unionfs.layers.layer import LayerFile
from unionfs.vfs import SEEK_DATA, Filesystem, NodeId

_CHUNK: Final = 1 << 18
#: lseek(2): past the last data; not a file that can have holes, or a transport that cannot say.
_NO_HOLES_KNOWN: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY})

#: Where data lies: device, inode, offset.
Place = tuple[int, int, int]


class Content(Protocol):
    """An open regular file of `size` bytes. Every failure is an OSError."""

    size: int

    def read(self, size: int, offset: int) -> bytes:
        """Short at the end of the file only."""
        ...

    def next_data(self, offset: int) -> int:
        """The first offset from there on that is in no hole; not below `size` where there is none."""
        ...

    def place(self) -> Place | None:
        """Where all of it lies in one piece; None where that is in no file, or not known."""
        ...

    def close(self) -> None: ...


class Digests:
    """What is known of a file whose data is not at hand: digests, at least one, hexadecimal, by hashlib's names."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        self.digests = digests

    def close(self) -> None:
        """There is nothing to close."""


class LayerContent:
    """`Content` of a file of a layer, which it closes."""

    def __init__(self, file: LayerFile) -> None:
        self._file = file
        self._stat = file.stat_when_opened()
        self.size = self._stat.st_size

    def read(self, size: int, offset: int) -> bytes:
        return self._file.pread(size, offset)

    def next_data(self, offset: int) -> int:
        try:
            return self._file.seek_data(offset)
        except OSError as error:
            return _without_data(error, offset, self.size)

    def place(self) -> Place | None:
        if self._file.fd >= 0:
            return self._stat.st_dev, self._stat.st_ino, 0
        extent = getattr(self._file, "extent", None)
        if extent is None or not getattr(self._file, "in_one_piece", False):
            return None
        return _place_of(extent(0))

    def close(self) -> None:
        self._file.close()


class OpenContent:
    """`Content` of a file of `fs`, `size` bytes long, which it opens and releases."""

    def __init__(self, fs: Filesystem, node: NodeId, size: int) -> None:
        self.size = size
        self._fs = fs
        self._open = fs.open(node, os.O_RDONLY)

    def read(self, size: int, offset: int) -> bytes:
        if self._open.fd >= 0:
            return os.pread(self._open.fd, size, offset)
        return self._fs.read(self._open.fh, offset, size)

    def next_data(self, offset: int) -> int:
        try:
            if self._open.fd >= 0:
                return os.lseek(self._open.fd, offset, SEEK_DATA)
            return self._fs.lseek(self._open.fh, offset, SEEK_DATA)
        except OSError as error:
            return _without_data(error, offset, self.size)

    def place(self) -> Place | None:
        if self._open.fd >= 0:
            return _place_of((self._open.fd, 0, self.size))
        return _place_of(self._open.extent(0)) if self._open.extent is not None else None

    def close(self) -> None:
        self._fs.release(self._open.fh)


def _place_of(extent: tuple[int, int, int] | None) -> Place | None:
    if extent is None:
        return None
    fd, offset, _ = extent
    st = os.fstat(fd)
    return st.st_dev, st.st_ino, offset


def _without_data(error: OSError, offset: int, size: int) -> int:
    if error.errno == errno.ENXIO:
        return size
    if error.errno in _NO_HOLES_KNOWN:
        return offset
    raise error


def same_content(one: Content | Digests, other: Content | Digests) -> bool:
    """Whether both hold the same bytes. EOPNOTSUPP where that cannot be known: of both there are only digests, and
    no two of one kind."""
    if isinstance(one, Digests):
        return _same_digests(one, other)
    if isinstance(other, Digests):
        return _same_digests(other, one)
    size = one.size
    if size != other.size:
        return False
    if not size:
        return True
    where = one.place()
    if where is not None and where == other.place():
        return True
    if size <= _CHUNK:
        return one.read(size, 0) == other.read(size, 0)
    at = 0
    while at < size:
        at = min(one.next_data(at), other.next_data(at))
        length = min(_CHUNK, size - at)
        if length > 0 and one.read(length, at) != other.read(length, at):
            return False
        at += _CHUNK
    return True


def _same_digests(one: Digests, other: Content | Digests) -> bool:
    if isinstance(other, Digests):
        common = one.digests.keys() & other.digests.keys()
        if not common:
            raise OSError(errno.EOPNOTSUPP, "its digests are of different kinds")
        return all(one.digests[name] == other.digests[name] for name in common)
    # One of them says all: the strongest, which is the longest.
    name = max(one.digests, key=lambda name: len(one.digests[name]))
    return digest(other, name) == one.digests[name]


def digest(content: Content, algorithm: str = "sha256") -> str:
    """The digest of all its bytes, hexadecimal."""
    hashed = hashlib.new(algorithm, usedforsecurity=False)
    zeros = bytes(_CHUNK)
    at = 0
    while at < content.size:
        data_at = min(content.next_data(at), content.size) if content.size > _CHUNK else at
        while at < data_at:
            length = min(_CHUNK, data_at - at)
            hashed.update(zeros[:length])
            at += length
        length = min(_CHUNK, content.size - at)
        if not length:
            break
        data = content.read(length, at)
        hashed.update(data)
        if len(data) < length:
            break  # cut short behind our back: what is there was read
        at += length
    return hashed.hexdigest()
