"""READ replies for cached files: into one buffer, or for large ones from page cache to page cache by splice(2).

A copy into our memory and one out of it cost more than all else in a large READ. Spliced, the pages themselves go
through a pipe, behind the header; the kernel copies them once. The header comes first and holds the length: it promises
all that was asked for, which is right but for the last READ of a file. Then, and when the file is cut meanwhile, the
pipe is thrown away and the plain way taken.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Final

from unionfs.linux.pipe import large_pipe
from unionfs.linux.statfs import is_in_memory
from unionfs.transport.devfuse import abi, negotiate, replies
from unionfs.transport.devfuse.notify import store_header
from unionfs.transport.devfuse.passthrough import SMALL

_HEADER: Final = abi.OUT_HEADER_SIZE
#: What precedes the data of a message that puts it into the kernel's cache.
_STORE: Final = len(store_header(0, 0))
#: What a reader returns when the reply has gone out already.
SENT: Final = memoryview(b"")


class FileReader:
    """session.Reader over preadv2(2). Without `may_wait` it uses one buffer again and again: for one thread."""

    def __init__(self, device: int = -1) -> None:
        self._reply = memoryview(bytearray(_HEADER + negotiate.MAX_WRITE))
        self._splicer = Splicer(device) if device >= 0 else None
        self._byte = (bytearray(1),)
        self._device = device
        self._message = memoryview(bytearray(_STORE + SMALL + 1))
        self._storing = threading.Lock()
        #: Of file systems that have no RWF_NOWAIT: st_dev -> is it all in memory, as tmpfs? Else (another FUSE, NFS)
        #: any read may wait.
        self._blind: dict[int, bool] = {}

    def __call__(self, unique: int, fd: int, offset: int, size: int, may_wait: bool) -> memoryview | None:
        if may_wait:
            return _read(memoryview(bytearray(_HEADER + size)), unique, fd, offset, size, 0)
        if size > negotiate.MAX_WRITE:
            return None
        try:
            flags = self._flags(fd)
            if self._splicer is not None and size >= Splicer.SMALLEST:
                # Its last byte stands for all: the kernel reads ahead without gaps. None: the file ends before.
                there = not flags or os.preadv(fd, self._byte, offset + size - 1, flags)
                if there and self._splicer.send(unique, fd, offset, size):
                    return SENT
            return _read(self._reply, unique, fd, offset, size, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not self._is_new(fd):
                raise
        return self(unique, fd, offset, size, may_wait)

    def _flags(self, fd: int) -> int:
        """For preadv2(2). BlockingIOError where nothing can be had without the risk to wait."""
        in_memory = self._blind.get(os.fstat(fd).st_dev) if self._blind else None
        if in_memory is None:
            return os.RWF_NOWAIT
        if in_memory:
            return 0
        raise BlockingIOError

    def _is_new(self, fd: int) -> bool:
        """Note that a file system has no RWF_NOWAIT, unless that is known."""
        device = os.fstat(fd).st_dev
        known = device in self._blind
        self._blind[device] = is_in_memory(fd)
        return not known

    def store(self, node: int, fd: int, size: int, start: int = 0) -> bool:
        """See files.Reader. From any thread."""
        with self._storing:
            try:
                # One byte more than there should be: what has changed behind our back is not stored.
                room = self._message[_STORE : _STORE + size + (not start)]
                if self._read_now(fd, room, start) != size:
                    return False
                self._message[:_STORE] = store_header(node, size)
                return os.write(self._device, self._message[: _STORE + size]) > 0
            except OSError:
                return False  # not in memory, or the kernel has dropped the node meanwhile

    def _read_now(self, fd: int, room: memoryview, start: int) -> int:
        """Read a small file without waiting for a disk: BlockingIOError."""
        try:
            return os.preadv(fd, (room,), start, self._flags(fd))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or not self._is_new(fd):
                raise
        return self._read_now(fd, room, start)

    def close(self) -> None:
        if self._splicer is not None:
            self._splicer.close()


def _read(reply: memoryview, unique: int, fd: int, offset: int, size: int, flags: int) -> memoryview:
    """The reply, header included, in `reply`. BlockingIOError with RWF_NOWAIT where the data is not in memory."""
    done = 0
    while done < size:
        part = reply[_HEADER + done : _HEADER + size]
        count = os.preadv(fd, (part,), offset + done, flags)
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
        self._refused = False

    def send(self, unique: int, fd: int, offset: int, size: int) -> bool:
        """Answer a READ. False where it has to go the plain way."""
        if self._pipe is None:
            self._pipe = large_pipe(negotiate.MAX_WRITE)
        read_end, write_end, capacity = self._pipe
        # A slot for the header, and one more than the pages of the data, which may begin inside one.
        if self._refused or size > capacity - 3 * abi.PAGE:
            return False
        done = 0
        try:
            os.write(write_end, replies.data_header(unique, size))
            while done < size:
                count = os.splice(fd, write_end, size - done, offset + done)
                if not count:
                    break
                done += count
            if done == size:
                return os.splice(read_end, self._device, _HEADER + size) > 0
        except OSError as error:
            # EINVAL before anything was moved: the file system has no splice. Else the READ was aborted (ENOENT), or
            # fails in the plain way again.
            self._refused = not done and error.errno == errno.EINVAL
        self._drop()
        return False

    def _drop(self) -> None:
        """Throw away the pipe with what is left in it."""
        if self._pipe is not None:
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None

    close = _drop
