"""READ replies for cached files: into one buffer, or for large ones from page cache to page cache by splice(2).

A copy into our memory and one out of it cost more than all else in a large READ. Spliced, the pages themselves go
through a pipe, behind the header; the kernel copies them once. The header comes first and holds the length, so that has
to be known before: where the file turns out shorter, the pipe is thrown away and the plain way taken.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from unionfs.linux.pipe import large_pipe
from unionfs.transport.devfuse import abi, negotiate, replies

_HEADER: Final = abi.OUT_HEADER_SIZE
#: What a reader returns when the reply has gone out already.
SENT: Final = memoryview(b"")


class FileReader:
    """session.Reader over preadv2(2). Without `may_wait` it uses one buffer again and again: for one thread."""

    def __init__(self, device: int = -1) -> None:
        self._reply = memoryview(bytearray(_HEADER + negotiate.MAX_WRITE))
        self._splicer = Splicer(device) if device >= 0 else None

    def __call__(self, unique: int, fd: int, offset: int, size: int, may_wait: bool) -> memoryview | None:
        if may_wait:
            return _read(memoryview(bytearray(_HEADER + size)), unique, fd, offset, size, 0)
        if size > negotiate.MAX_WRITE:
            return None
        try:
            if self._splicer is not None and size >= Splicer.SMALLEST and self._splicer.send(unique, fd, offset, size):
                return SENT
            return _read(self._reply, unique, fd, offset, size, os.RWF_NOWAIT)
        except BlockingIOError:
            return None

    def close(self) -> None:
        if self._splicer is not None:
            self._splicer.close()


def _read(reply: memoryview, unique: int, fd: int, offset: int, size: int, flags: int) -> memoryview:
    """The reply, header included, in `reply`. BlockingIOError with RWF_NOWAIT where the data is not in memory."""
    done = 0
    while done < size:
        part = reply[_HEADER + done : _HEADER + size]
        try:
            count = os.preadv(fd, (part,), offset + done, flags)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not flags:
                raise
            flags = 0  # this file system cannot say whether it would wait
            continue
        if not count:
            break  # only the end of the file makes a READ short
        done += count
    reply[:_HEADER] = replies.data_header(unique, done)
    return reply[: _HEADER + done]


class Splicer:
    """Sends READ replies to the descriptor `device` of /dev/fuse. For one thread."""

    #: Below this, copying is cheaper than four system calls.
    SMALLEST: Final = 32 << 10

    def __init__(self, device: int) -> None:
        self._device = device
        self._pipe: tuple[int, int, int] | None = None
        self._byte = (bytearray(1),)
        self._refused = False

    def send(self, unique: int, fd: int, offset: int, size: int) -> bool:
        """Answer a READ. False where it has to go the plain way: too short, too long, or not to be spliced.

        BlockingIOError where the data seems not to be in memory: its first and last byte stand for all, as the kernel
        reads ahead without gaps."""
        length = min(size, os.fstat(fd).st_size - offset)
        if length < self.SMALLEST or self._refused:
            return False
        if self._pipe is None:
            self._pipe = large_pipe(negotiate.MAX_WRITE)
        read_end, write_end, capacity = self._pipe
        # A slot for the header, and one more than the pages of the data, which may begin inside one.
        if length > capacity - 3 * abi.PAGE:
            return False
        if not self._in_memory(fd, offset) or not self._in_memory(fd, offset + length - 1):
            return False
        os.write(write_end, replies.data_header(unique, length))
        done = 0
        try:
            while done < length:
                count = os.splice(fd, write_end, length - done, offset_src=offset + done)
                if not count:
                    break
                done += count
            if done == length:
                return os.splice(read_end, self._device, _HEADER + length) > 0
        except OSError as error:
            # EINVAL before anything was moved: the file system has no splice. Else the READ was aborted (ENOENT), or
            # fails in the plain way again.
            self._refused = error.errno == errno.EINVAL and not done
        self._drop()
        return False

    def _in_memory(self, fd: int, offset: int) -> bool:
        try:
            return os.preadv(fd, self._byte, offset, os.RWF_NOWAIT) == 1
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return True  # unknown
            raise

    def _drop(self) -> None:
        """Throw away the pipe with what is left in it."""
        if self._pipe is not None:
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None

    close = _drop
