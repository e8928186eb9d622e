"""Content-addressed files: `blobs/ALGORITHM/HEX`. What stands there under a digest is complete and has been verified.

    Blobs       those of a layout: open, read, remove
    HeldBlobs   some of them, which stay readable whoever removes them
    BlobWriter  a new one on its way: a temporary file, hashed and counted while it is written
    Workspace   a directory of new ones, which are published together

A blob is written to a workspace, synced, and then given its name by link(2); the workspace keeps its own name for it
until all is done. So a workspace that a crash has left tells which blobs it may have published: whoever sweeps it
removes those that nothing refers to, and none that somebody else has put there (`leftovers`).

INVARIANT: a workspace whose process lives is locked (`locks.come_alive`) for as long as there is anything in it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import queue
import shutil
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO, Final

from unionfs.changeset.replacing import fsync_path
from unionfs.errors import ImageError, ImageFormatError
from unionfs.image import locks
from unionfs.image.digest import ALGORITHMS, Digest, Verifier
from unionfs.linux.process import nofile_limit

CHUNK: Final = 1 << 20
#: What helps where a blob is missing, or not of its size, or a document damaged.
LOAD_AGAIN: Final = "load the image again"
#: Chunks that wait for the hashing thread of a `BlobWriter`.
_AHEAD: Final = 4
#: link(2) on a file system without hard links (FAT)
_NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK))


class Blobs:
    """The blobs below `root`, the directory of a layout."""

    def __init__(self, root: bytes) -> None:
        self.root = os.path.join(root, b"blobs")

    def path(self, digest: Digest) -> bytes:
        return os.path.join(self.root, digest.algorithm.encode(), digest.hex.encode())

    def size(self, digest: Digest) -> int | None:
        """Bytes, or None where there is no such blob."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return None

    def existing(self, digest: Digest) -> bytes:
        """The path of a blob. ImageError where it is missing."""
        if self.size(digest) is None:
            raise _missing(digest)
        return self.path(digest)

    def open(self, digest: Digest) -> BinaryIO:
        """Unbuffered, for reading. ImageError where it is missing."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit: int, size: int | None = None) -> bytes:
        """A document, compared with its digest (and `size`). ImageError where it is missing, damaged or too large."""
        with self.open(digest) as file:
            found = os.fstat(file.fileno()).st_size
            if found > limit:
                raise ImageFormatError(f"the blob {digest} has {found} bytes; more than {limit} are refused")
            data = file.read(found)
        verifier = Verifier(digest.algorithm)
        verifier.feed(data)
        try:
            verifier.check(f"the blob {digest}", digest, size)
        except ImageFormatError as error:
            raise ImageFormatError(str(error), hint=LOAD_AGAIN) from error
        return data

    def remove(self, digest: Digest) -> int:
        """Remove a blob, if it is there; the bytes it had."""
        path = self.path(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def __iter__(self) -> Iterator[Digest]:
        """All of them, in no order. Other files are left out."""
        for algorithm, digits in ALGORITHMS.items():
            try:
                names = os.listdir(os.path.join(self.root, algorithm.encode()))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                if len(name) == digits:
                    with contextlib.suppress(ImageFormatError, UnicodeDecodeError):
                        yield Digest(f"{algorithm}:{name.decode()}")


def _missing(digest: Digest) -> ImageError:
    return ImageError(f"the blob {digest} is missing from the store", hint=LOAD_AGAIN)


class HeldBlobs:
    """Open files of `digests`, made under `Layout.reading` and read without: what is removed then stays until `close`.
    A context manager.

    Held are as many as half of the descriptors that the process may have, and none that is missing; others are opened
    when they are asked for, and may be gone by then.
    """

    def __init__(self, blobs: Blobs, digests: Iterable[Digest]) -> None:
        self._blobs = blobs
        self._files: dict[Digest, int] = {}
        try:
            for digest in itertools.islice(dict.fromkeys(digests), nofile_limit() // 2):
                with contextlib.suppress(FileNotFoundError):
                    self._files[digest] = os.open(blobs.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> HeldBlobs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. What `open` gave stays open."""
        while self._files:
            os.close(self._files.popitem()[1])

    def open(self, digest: Digest) -> BinaryIO:
        """From its beginning, unbuffered; a second one of the same blob moves with the first. ImageError where it is
        missing."""
        fd = self._files.get(digest)
        if fd is None:
            return self._blobs.open(digest)
        file = os.fdopen(os.dup(fd), "rb", buffering=0)
        file.seek(0)
        return file


class BlobWriter:
    """A new blob. `write` it, then `finish` once; a context manager that removes what was not finished.

    Hashing (by `algorithm`; None: the caller does it) is on a thread of its own, since hashlib lets go of the
    interpreter lock; `hash_aside` False where there are threads enough that do the same. A chunk that was written must
    not be changed afterwards. `there`: the file has the bytes already, and stays in any case; they are only counted and
    hashed.
    """

    def __init__(
        self, path: bytes, algorithm: str | None = "sha256", there: bool = False, hash_aside: bool = True
    ) -> None:
        self.path = path
        self.size = 0
        # Closed by finish or __exit__.
        self._file = None if there else open(path, "xb", buffering=0)  # noqa: SIM115
        self._verifier = None if algorithm is None else Verifier(algorithm)
        self._hash_aside = hash_aside
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None and not self._file.closed:
            os.unlink(self.path)
        self._stop()

    def write(self, data: bytes | memoryview) -> int:
        if self._verifier is not None:
            if self._hash_aside and self._thread is None and self.size:  # what is one chunk needs none
                self._thread = threading.Thread(target=self._hash, name="blob-hash", daemon=True)
                self._thread.start()
            self._queue.put(data) if self._thread else self._verifier.feed(data)
        if self._file is not None:
            view = memoryview(data)
            try:
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:
                error.filename = self.path
                raise
        self.size += len(data)
        return len(data)

    def finish(self) -> Digest | None:
        """All is written, though not synced: the digest, if it was hashed here."""
        self._stop()
        return None if self._verifier is None else self._verifier.digest

    def _hash(self) -> None:
        assert self._verifier is not None
        while (data := self._queue.get()) is not None:
            self._verifier.feed(data)

    def _stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._file is not None:
            self._file.close()


class Workspace:
    """A directory for files on their way into `blobs`. `close` removes it with all that is still in it.

    To be made under `Layout.reading`, and good without it."""

    def __init__(self, directory: bytes, blobs: Blobs) -> None:
        self.directory = directory
        self.blobs = blobs
        self._new: set[Digest] = set()
        self._flushed: set[Digest] = set()
        self._files = itertools.count(1)  # next() is one step, whatever other threads do
        os.mkdir(directory, 0o700)
        self._alive: int | None = locks.come_alive(directory)

    def close(self) -> None:
        """Idempotent. What was published stays."""
        if self._alive is None:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self.directory):
                if name != locks.ALIVE:  # which goes last: what is left has no life
                    os.unlink(os.path.join(self.directory, name))
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._alive)
        self._alive = None

    def new_file(self) -> bytes:
        """A path where nothing is yet. Not a blob's: `leftovers` leaves it out."""
        return os.path.join(self.directory, b"file-%d" % next(self._files))

    def writer(
        self, algorithm: str | None = "sha256", path: bytes | None = None, hash_aside: bool = True
    ) -> BlobWriter:
        """For a new file; or for `path`, which has the bytes already."""
        return BlobWriter(self.new_file() if path is None else path, algorithm, path is not None, hash_aside)

    def finished(self, writer: BlobWriter) -> Digest:
        """`finish` and `adopt` what a `writer` that hashes has written."""
        digest = writer.finish()
        assert digest is not None
        self.adopt(writer.path, digest)
        return digest

    def adopt(self, path: bytes, digest: Digest) -> None:
        """The finished file `path` (from `new_file`) is the blob `digest`."""
        target = os.path.join(self.directory, str(digest).encode())
        os.replace(path, target)
        self._new.add(digest)
        self._flushed.discard(digest)

    def adopt_also(self, path: bytes, digest: Digest) -> None:
        """`adopt`, with `path` staying there as well, for whoever else reads it."""
        target = os.path.join(self.directory, str(digest).encode())
        try:
            os.link(path, target)
        except FileExistsError:
            pass  # the same bytes
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(path, target)
        self._new.add(digest)

    def add(self, data: bytes) -> Digest:
        """A small blob. Idempotent."""
        digest = Digest.of(data)
        if digest not in self._new:
            with self.writer() as writer:
                writer.write(data)
                self.finished(writer)
        return digest

    def add_as(self, digest: Digest, data: bytes) -> None:
        """A small blob that has been compared with its digest, of any algorithm. Idempotent."""
        if digest.algorithm == "sha256":
            self.add(data)
            return
        with self.writer(digest.algorithm) as writer:
            writer.write(data)
            self.finished(writer)

    def find(self, digest: Digest) -> bytes | None:
        """The path of a blob that is here or published already; None where it is in neither place."""
        if digest in self._new:
            return os.path.join(self.directory, str(digest).encode())
        return self.blobs.path(digest) if self.blobs.size(digest) is not None else None

    def has(self, digest: Digest, size: int) -> bool:
        """Is a blob here, or published already, of that size?"""
        return digest in self._new or self.blobs.size(digest) == size

    def flush(self) -> None:
        """Make durable what is here so far. Idempotent; what takes the time of `publish`, and needs no lock."""
        for digest in sorted(self._new - self._flushed):
            fsync_path(os.path.join(self.directory, str(digest).encode()))
            self._flushed.add(digest)

    def publish(self) -> None:
        """Give all blobs their names in the layout, durably. One that stands there already is replaced: what is here
        has been verified just now. Hold `Layout.reading`, until index.json leads to them."""
        self.flush()
        fsync_path(self.directory)
        for digest in sorted(self._new):
            mine, target = os.path.join(self.directory, str(digest).encode()), self.blobs.path(digest)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                os.link(mine, target)
            except FileExistsError:
                # It was there before: no leftover of ours, so that nobody needs to find our name for it.
                os.replace(mine, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # A crash now leaves a blob that only `prune` removes.
                os.replace(mine, target)
        for algorithm in {digest.algorithm for digest in self._new}:
            fsync_path(os.path.join(self.blobs.root, algorithm.encode()))


def leftovers(directory: bytes) -> Iterator[Digest]:
    """The blobs that the workspace `directory`, whose process has died, may have published."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:  # it was being removed
        return
    for name in names:
        with contextlib.suppress(ImageFormatError, UnicodeDecodeError):
            yield Digest(name.decode())
