"""The one door for image archives and layout directories of unknown origin: named files, to be read, nothing more.

    open_members    a directory, an archive (compressed or not), or a stream of one, as `Members`
    Members         the files by name, links followed within
    Member          one file: where its bytes are

Nothing is unpacked to a name that an archive chose, so none can lead anywhere; names and links that try to are refused
all the same, since no honest archive has them. The data of a plain archive file stays where it is, and is read from
there once it is known what it is for. What comes compressed, or from a pipe, is kept in the workspace member by member.

Refused: absolute names and "..", links that leave, devices, two files of one name, sparse members, more members than
any image has, and an archive that unpacks to far more than it is (a bomb).
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from unionfs.changeset import tar_format as tar
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.errors import ImageError, ImageFormatError, TarError
from unionfs.image.blobs import Workspace
from unionfs.image.digest import Digest
from unionfs.linux.path import openat2

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Progress = Callable[[int], None]

MAX_MEMBERS: Final = 200_000
#: How many times its size an archive may unpack to, once it has come to so many bytes. gzip ends at 1032 times.
MAX_RATIO: Final = 200
RATIO_FROM: Final = 1 << 30
_MAX_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class Member:
    """One file. `open_fd` opens what has its `size` bytes, at `offset`. `path`: the file of the workspace that holds
    just them, where they had to be read from the source already."""

    name: str
    size: int
    open_fd: Callable[[], int]
    offset: int = 0
    path: bytes | None = None

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Window(self.open_fd(), self.offset, self.size), 1 << 20)

    def read(self, limit: int) -> bytes:
        """All of it. ImageFormatError where it is larger than `limit`."""
        if self.size > limit:
            raise ImageFormatError(f"{self.name} has {self.size} bytes; more than {limit} are refused")
        with self.open() as file:
            return file.read()


class _Window(io.RawIOBase):
    """A part of a file, whose descriptor it owns. Where the file turns out shorter, it ends early."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__()
        self._fd, self._at, self._end = fd, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: max(self._end - self._at, 0)]
        count = os.preadv(self._fd, [view], self._at) if view else 0
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class Members:
    """Files by name. Names are relative, with "/" between their parts."""

    def find(self, name: str) -> Member | None:
        """The file of this name, links followed; None where there is none."""
        raise NotImplementedError

    def get(self, name: str) -> Member:
        member = self.find(checked_name(name))
        if member is None:
            raise ImageFormatError(f"the archive has no {shown(name)}", hint="it is incomplete, or cut short")
        return member

    def blob(self, digest: Digest) -> Member | None:
        return self.find(f"blobs/{digest.algorithm}/{digest.hex}")


class DirectoryMembers(Members):
    """The files below a directory, with no symbolic link followed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def find(self, name: str) -> Member | None:
        try:
            fd = self._open(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ImageFormatError(f"{shown(name)} is a symbolic link, or lies behind one") from None
        try:
            st = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(st.st_mode):
            raise ImageFormatError(f"{shown(name)} is not a file")
        return Member(name, st.st_size, lambda: self._open(name))

    def _open(self, name: str) -> int:
        # O_NONBLOCK: a fifo is not waited for.
        return openat2(self._fd, os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK)


class TarMembers(Members):
    """The files of an archive, found by one pass over it."""

    def __init__(self, files: dict[str, Member], links: dict[str, str]) -> None:
        self._files, self._links = files, links

    def find(self, name: str) -> Member | None:
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                return self._files.get(name)
            name = self._links[name]
        raise ImageFormatError(f"{shown(name)} is a link that leads back to itself")


def shown(name: str) -> str:
    """A name of an archive, fit for a message."""
    return repr(name if len(name) <= 200 else name[:200] + "…")


def checked_name(name: str) -> str:
    """A name, normalised. ImageFormatError for one that leads out of the archive."""
    plain = posixpath.normpath(name) if name else ""
    if name.startswith("/") or "\0" in name or plain == ".." or plain.startswith("../"):
        raise ImageFormatError(f"the archive names {shown(name)}, which leads out of it")
    return "" if plain == "." else plain


@contextmanager
def open_members(source: bytes | BinaryIO, space: Workspace, progress: Progress | None = None) -> Iterator[Members]:
    """The files of a directory, of an archive file, or of the archive that a stream holds. They are there until the
    block ends. `progress` gets the bytes read so far of what is not left in place. ImageError where `source` cannot be
    read, ImageFormatError for a bad archive."""
    with ExitStack() as stack:
        if isinstance(source, bytes):
            path = os.fsdecode(source)
            try:
                fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ImageError(f"{path} cannot be read: {error.strerror}") from error
            stack.callback(os.close, fd)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                yield DirectoryMembers(fd)
                return
            source = stack.enter_context(open(fd, "rb", buffering=0, closefd=False))
        yield _tar_members(source, space, progress)


def _tar_members(stream: BinaryIO, space: Workspace, progress: Progress | None) -> TarMembers:
    try:
        fd = _plain_file(stream)
        start = stream.tell() if fd is not None else 0
        reader = TarReader(stream, None if fd is not None else progress, digests=False)
        if reader.compression:
            fd = None
        return _scan(
            reader, lambda entry: _in_place(entry, fd, start) if fd is not None else _kept(reader, entry, space)
        )
    except TarError as error:
        raise ImageFormatError(f"this is no image archive: {error}", hint=error.hint) from error


def _plain_file(stream: BinaryIO) -> int | None:
    """The descriptor of a regular file."""
    try:
        fd = stream.fileno()
    except (OSError, AttributeError):
        return None
    return fd if stat.S_ISREG(os.fstat(fd).st_mode) else None


def _scan(reader: TarReader, keep: Callable[[TarEntry], Member]) -> TarMembers:
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    count = 0
    for entry in reader:
        count += 1
        if count > MAX_MEMBERS:
            raise ImageFormatError(f"the archive has more than {MAX_MEMBERS} members")
        name = checked_name(os.fsdecode(entry.name))
        if entry.type == tar.DIR:
            continue
        if name in files or name in links or not name:
            raise ImageFormatError(f"the archive has {shown(name)} twice, or as something else than a directory")
        if entry.type == tar.REG:
            if entry.extents is not None:
                raise ImageFormatError(f"the archive has {shown(name)} as a sparse file", hint="make it without -S")
            files[name] = keep(entry)
        elif entry.type in (tar.LINK, tar.SYMLINK):
            links[name] = _target(name, entry)
        else:
            raise ImageFormatError(f"the archive has {shown(name)}, which is a device or fifo")
    return TarMembers(files, links)


def _target(name: str, entry: TarEntry) -> str:
    """Where a link leads: a hard link's target counts from the root of the archive, a symbolic one's from beside it."""
    target = os.fsdecode(entry.linkname)
    if entry.type == tar.SYMLINK and not target.startswith("/"):
        target = posixpath.join(posixpath.dirname(name), target)
    return checked_name(target)


def _in_place(entry: TarEntry, fd: int, start: int) -> Member:
    return Member(os.fsdecode(entry.name), entry.size, lambda: os.dup(fd), start + entry.data_offset)


def _kept(reader: TarReader, entry: TarEntry, space: Workspace) -> Member:
    """Its data goes to a file of the workspace."""
    with space.writer(None) as writer:
        for piece in reader.data():
            if reader.plain_size > RATIO_FROM and reader.plain_size > MAX_RATIO * reader.size:
                _bomb(reader)
            writer.write(piece)
        writer.finish()
        path = writer.path
    return Member(os.fsdecode(entry.name), entry.size, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0, path)


def _bomb(reader: TarReader) -> NoReturn:
    raise ImageFormatError(
        f"the archive unpacks to more than {MAX_RATIO} times its size",
        hint="if that is as it should be, decompress it first",
    )
