"""`Fetcher`: brings the chunks of a layer into its chunk file, when somebody reads them.

A read that lacks chunks starts a thread for each run of them that lie side by side, or joins the one that is bringing
them, and waits. So a reader that is killed stops waiting at once, and what was asked for still comes, for the next.
One request asks for more than was wanted if the file goes on, and more still where it is read in order.

INVARIANT: nothing is written to the chunk file that was not compared with the digest in its table. What is not right is
asked for once more, past any cache on this machine, then it is an error: logged, and EIO for who waits. The next read
tries again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from unionfs.changeset.compression import Source
from unionfs.errors import TarError, UnionFSError
from unionfs.image.lazy.chunk_file import ABSENT, HERE, ChunkFile, digest_of_zeros
from unionfs.image.lazy.contents import Chunk, Kind
from unionfs.layers.lazy_tar import Check

#: Seconds between two looks whether who waits is still wanted.
_LOOK = 0.05
#: Compressed bytes that one request asks for, where the file has them: at first, and when it is read in order.
AHEAD, IN_ORDER = 256 << 10, 4 << 20
#: Bytes between two chunks that are asked for along with them, rather than in another request.
_GAP = 64 << 10

_log = logging.getLogger(__name__)


class Parts(Protocol):
    """The blob of a layer, wherever it is. May be used by any thread."""

    def read(self, offset: int, size: int, again: bool) -> bytes:
        """So many bytes from there. `again`: those that were given before were wrong. OSError or UnionFSError where it
        cannot be had, or not now."""
        ...

    def close(self) -> None:
        """Ends what is under way."""
        ...


class Fetcher:
    """Implements `layers.lazy_tar.LayerData` over a chunk file, which it owns, as it does `parts`."""

    def __init__(self, file: ChunkFile, kind: Kind, parts: Parts, name: str) -> None:
        self._file, self._kind, self._parts, self._name = file, kind, parts, name
        self._lock = threading.Lock()
        self._jobs: dict[int, _Job] = {}  # by chunk
        self._running = 0
        self._closed = False
        self.bytes_fetched = 0

    @property
    def fd(self) -> int:
        return self._file.fd

    def has(self, start: int, end: int) -> bool:
        return self._file.has(start, end)

    def fetch(self, start: int, end: int, ahead: int, check: Check) -> None:
        first, last = self._file.span(start, end)
        missing = list(self._file.missing(first, last))
        if not missing:
            return
        for job in self._start(missing, self._file.span(start, ahead)[1]):
            while not job.done.wait(_LOOK):
                check()
            if job.error is not None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def prefetch(self, end: int) -> None:
        """Bring all chunks that lie before an offset of the blob. In this thread."""
        wanted = [at for at in self._file.missing(0, self._file.count) if self._file.chunk(at).offset < end]
        for run in self._runs(sorted(wanted, key=lambda at: self._file.chunk(at).offset)):
            self._bring(run)

    def close(self) -> None:
        with self._lock:
            was, self._closed = self._closed, True
            idle = not self._running
        if was:
            return
        self._parts.close()
        if idle:
            self._file.close()

    # jobs -----------------------------------------------------------------------------------------------------------
    def _start(self, missing: Sequence[int], limit: int) -> list[_Job]:
        """Jobs that bring these chunks, and what is to come along, before the chunk `limit`; running or new."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            jobs = {id(job): job for at in missing if (job := self._jobs.get(at)) is not None}
            wanted = [at for at in missing if at not in self._jobs]
            new = [_Job(run) for run in self._runs([*wanted, *self._along(wanted, limit)])]
            for job in new:
                jobs[id(job)] = job
                self._jobs |= dict.fromkeys(job.chunks, job)
            self._running += len(new)
        for job in new:
            try:
                threading.Thread(target=self._work, args=(job,), name="unionfs-fetch", daemon=True).start()
            except RuntimeError:  # none can be had (pids.max of a cgroup)
                self._work(job)
        return list(jobs.values())

    def _along(self, wanted: Sequence[int], limit: int) -> Iterable[int]:
        """What else of the file is to come; and of the next files a little, where one was read after the other."""
        if not wanted:
            return
        file = self._file
        in_order = wanted[0] > 0 and file.state(wanted[0] - 1) == HERE
        bound = IN_ORDER if in_order else AHEAD
        size = sum(_stored(file.chunk(at)) for at in wanted)
        at = wanted[-1] + 1
        while at < file.count and at not in self._jobs and file.state(at) == ABSENT:
            if at >= limit:
                bound = AHEAD if in_order else 0
            size += _stored(file.chunk(at))
            if size > bound:
                return
            yield at
            at += 1

    def _runs(self, chunks: Sequence[int]) -> list[list[int]]:
        """Chunks that one request can bring, in order."""
        runs: list[list[int]] = []
        end = size = 0
        for at in chunks:
            chunk = self._file.chunk(at)
            if not chunk.end:  # zeros take no bytes
                runs[-1:] = [[*runs[-1], at]] if runs else [[at]]
                continue
            near = end <= chunk.offset <= end + _GAP or (runs and chunk.offset < end <= chunk.end)
            if runs and (near or not end) and size < IN_ORDER:
                runs[-1].append(at)
            else:
                runs.append([at])
                size = 0
            size += chunk.end - chunk.offset
            end = chunk.end
        return runs

    def _work(self, job: _Job) -> None:
        try:
            self._bring(job.chunks)
        except (OSError, UnionFSError) as error:
            job.error = error
            if not self._closed:
                _log.error("layer %s: its data does not come: %s", self._name, error)
        except BaseException as error:  # a client that is closed under it raises what it likes
            job.error = error
            if not self._closed:
                _log.exception("layer %s: its data does not come", self._name)
        finally:
            with self._lock:
                for at in job.chunks:
                    self._jobs.pop(at, None)
                self._running -= 1
                last = self._closed and not self._running
            job.done.set()
            if last:
                self._file.close()

    # bytes ----------------------------------------------------------------------------------------------------------
    def _bring(self, chunks: Sequence[int]) -> None:
        """Ask for chunks of one run, compare them, write them. What is wrong is asked for once more."""
        wrong = self._attempt(chunks, again=False)
        if wrong:
            wrong = self._attempt(list(wrong), again=True)
        if wrong:
            at, why = next(iter(wrong.items()))
            chunk = self._file.chunk(at)
            raise TarError(f"{why}, and is not shown: the blob from {chunk.offset} to {chunk.end}")

    def _attempt(self, chunks: Sequence[int], *, again: bool) -> dict[int, str]:
        """What is wrong, by chunk."""
        wrong: dict[int, str] = {}
        stored = [(at, chunk) for at in chunks if (chunk := self._file.chunk(at)).end]
        for at in chunks:
            chunk = self._file.chunk(at)
            if not chunk.end:
                if digest_of_zeros(chunk.size) == chunk.digest:
                    self._file.put(at, None)
                else:
                    wrong[at] = "what is said to be zeros is not what its digest says"
        if not stored:
            return wrong
        begin, end = min(chunk.offset for _, chunk in stored), max(chunk.end for _, chunk in stored)
        data = self._parts.read(begin, end - begin, again)
        with self._lock:
            self.bytes_fetched += len(data)
        view = memoryview(data)
        for at, chunk in stored:
            try:
                plain = unpack(view[chunk.offset - begin : chunk.end - begin], chunk, self._kind)
            except TarError as error:
                wrong[at] = f"what has come cannot be unpacked ({error})"
                continue
            if hashlib.sha256(plain).digest() != chunk.digest:
                wrong[at] = "what has come is not what its digest says"
                continue
            self._file.put(at, plain)
        return wrong


def _stored(chunk: Chunk) -> int:
    """Bytes that a chunk takes in the blob."""
    return max(0, chunk.end - chunk.offset)


class _Job:
    """A run of chunks that is being brought."""

    __slots__ = ("chunks", "done", "error")

    def __init__(self, chunks: Sequence[int]) -> None:
        self.chunks = chunks
        self.done = threading.Event()
        self.error: BaseException | None = None


def unpack(data: bytes | memoryview, chunk: Chunk, kind: Kind) -> bytes:
    """The bytes of a chunk out of those that the blob has of it. TarError for what cannot be unpacked, or is too
    little. What follows them is not looked at."""
    source = Source(io.BytesIO(data))
    if source.compression != kind:
        raise TarError(f"it is not {kind}")
    parts, left, skip = [], chunk.size, chunk.inner
    while left:
        piece = source.read()
        if not piece:
            raise TarError("it ends early")
        taken = memoryview(piece)[skip : skip + left]
        skip = max(0, skip - len(piece))
        left -= len(taken)
        parts.append(taken)
    return b"".join(parts)
