"""Requests that would change something, kept back for a while in the order in which they came; and which those are.

They are kept as bytes, in no thread, so that however many wait, reads are answered by as many threads as ever. All
methods may be called from any thread. No I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from unionfs.transport.devfuse import abi, requests
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE, Opcode
from unionfs.transport.devfuse.requests import Buffer, Header
from unionfs.transport.devfuse.slow import CHANGING

#: Not among them: FSYNC and its like, which change nothing, RELEASE and FORGET, after which at most a file without a
#: name goes, and locks, which are the kernel's.
_CHANGES: Final = frozenset(
    (
        Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
        Opcode.RENAME2, Opcode.LINK, Opcode.WRITE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.CREATE, Opcode.TMPFILE,
        Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64,
    )
)  # fmt: skip


def changes(buffer: Buffer) -> bool:
    """Would the request change the file system, or let somebody change it without another request? An open for writing
    copies up, and may give the file to the kernel."""
    opcode = requests.header(buffer).opcode
    if opcode == Opcode.OPEN:
        return bool(abi.OPEN_IN.unpack_from(buffer, IN_HEADER_SIZE)[0] & CHANGING)
    return opcode in _CHANGES


class Parking:
    """The requests that wait, by `unique`. At first it is open, and none does."""

    def __init__(self) -> None:
        self._open = True
        self._requests: dict[int, bytes] = {}
        self._interrupted: set[int] = set()
        self._lock = threading.Lock()

    def shut(self) -> None:
        with self._lock:
            self._open = False

    def open(self) -> list[bytes]:
        """Nothing waits from now on. Returns what did, in the order in which it came."""
        with self._lock:
            self._open = True
            taken = list(self._requests.values())
            self._requests.clear()
            self._interrupted.clear()
        return taken

    def park(self, request: bytes) -> bool:
        """False where it is open: the request does not wait."""
        with self._lock:
            if not self._open:
                self._requests[requests.header(request).unique] = request
            return not self._open

    def interrupt(self, unique: int) -> bool:
        """INTERRUPT has come for a request: does it wait here? It comes once, so it is kept in mind."""
        with self._lock:
            if unique in self._requests:
                self._interrupted.add(unique)
            return unique in self._requests

    def give_up(self, gave_up: Callable[[int, bool], bool]) -> list[Header]:
        """Take out, and return, the requests whose callers have given up: `gave_up(thread, interrupted)` says so."""
        with self._lock:
            waiting = [requests.header(request) for request in self._requests.values()]
            interrupted = set(self._interrupted)
        gone = [header for header in waiting if gave_up(header.pid, header.unique in interrupted)]
        with self._lock:
            return [header for header in gone if self._requests.pop(header.unique, None) is not None]

    def callers(self) -> frozenset[int]:
        """The threads that wait. 0 stands for those that cannot be seen from here, and for the kernel itself."""
        with self._lock:
            return frozenset(requests.header(request).pid for request in self._requests.values())
