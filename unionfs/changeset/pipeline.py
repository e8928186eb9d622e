"""The way of a layer tar to its file: fill a buffer, hash it, compress it, hash that, write it; on three threads.

`Pipeline` is a write-only stream of fixed buffers. The caller's thread copies file data straight into the current
buffer (`space`/`advance`); a full buffer goes to the hashing thread (diff_id) and then to the writing thread
(compression, digest, the output). hashlib, zlib, zstd and the system calls all release the interpreter lock. Buffers
are full but for the last, so what comes out depends on the bytes alone.

A failure on a thread is raised in the caller by the next call. `close` ends the threads in every case.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO, Final

from unionfs.changeset.compression import Compressor

BUFFER: Final = 1 << 20
_BUFFERS: Final = 6

_Item = tuple[bytearray, int]
_Queue = queue.SimpleQueue["_Item | None"]


class Pipeline:
    """Write-only; not for several callers at once. `total`: bytes taken so far."""

    def __init__(self, out: BinaryIO, compressor: Compressor | None, progress: Callable[[int], None] | None) -> None:
        self.total = 0
        self._out, self._compressor, self._progress = out, compressor, progress
        self._plain, self._stored, self._written = hashlib.sha256(), hashlib.sha256(), 0
        self._to_hash: _Queue = queue.SimpleQueue()
        self._to_write: _Queue = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(_BUFFERS - 1):
            self._free.put(bytearray(BUFFER))
        self._buffer, self._used = bytearray(BUFFER), 0
        self._view = memoryview(self._buffer)
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._hash, name="layer-hash", daemon=True),
            threading.Thread(target=self._write_out, name="layer-write", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # the caller's side --------------------------------------------------------------------------------------------
    def space(self, limit: int) -> memoryview:
        """Where the next bytes go: 1 to `limit` of them, to be announced with `advance`."""
        return self._view[self._used : min(self._used + limit, BUFFER)]

    def advance(self, count: int) -> None:
        """`count` bytes of `space` have been filled."""
        self._used += count
        self.total += count
        if self._used == BUFFER:
            self._hand_over()

    def write(self, data: bytes) -> None:
        if len(data) <= BUFFER - self._used:
            self._view[self._used : self._used + len(data)] = data
            self.advance(len(data))
            return
        view = memoryview(data)
        while view:
            room = self.space(len(view))
            room[:] = view[: len(room)]
            view = view[len(room) :]
            self.advance(len(room))

    def zeros(self, count: int) -> None:
        while count:
            room = self.space(count)
            room[:] = bytes(len(room))
            count -= len(room)
            self.advance(len(room))

    def finish(self) -> tuple[str, str, int]:
        """Everything is out: diff_id, digest (both `sha256:HEX`) and the size of what was written."""
        self._hand_over()
        self.close()
        if self._error is not None:
            raise self._error
        diff_id = "sha256:" + self._plain.hexdigest()
        return diff_id, "sha256:" + self._stored.hexdigest() if self._compressor else diff_id, self._written

    def close(self) -> None:
        """End the threads. What was not finished is void. Idempotent."""
        self._to_hash.put(None)
        for thread in self._threads:
            thread.join()
        if self._compressor:
            self._compressor.close()

    def _hand_over(self) -> None:
        if self._error is not None:
            raise self._error
        self._to_hash.put((self._buffer, self._used))
        if self._progress:
            self._progress(self.total)
        self._buffer, self._used = self._free.get(), 0
        self._view = memoryview(self._buffer)

    # the threads --------------------------------------------------------------------------------------------------
    def _hash(self) -> None:
        while (item := self._to_hash.get()) is not None:
            self._plain.update(memoryview(item[0])[: item[1]])
            self._to_write.put(item)
        self._to_write.put(None)

    def _write_out(self) -> None:
        finished = False
        while not finished:
            item = self._to_write.get()
            finished = item is None
            if self._error is None:
                try:
                    self._store(item)
                except BaseException as error:  # handed to the caller, whose thread raises it
                    self._error = error
            if item is not None:
                self._free.put(item[0])

    def _store(self, item: _Item | None) -> None:
        data: memoryview | bytes = memoryview(item[0])[: item[1]] if item else b""
        if self._compressor:
            data = self._compressor.feed(data) if isinstance(data, memoryview) else self._compressor.finish()
            self._stored.update(data)
        self._written += len(data)
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]
