"""The loop of a mount: reads requests from /dev/fuse, answers them, hands slow ones to worker threads.

One readv is one request, one write is one reply. One thread reads; any thread may write.

*Held changes.* From `park` to `unpark` requests that change something are kept back (parking.py): `_handle` is another
function meanwhile, read for each request anew. What came before is done once `is_past`, and what workers had then.

*Waiting.* After a reply the loop looks for the next request a number of times before it sleeps; patience.py decides how
many, from how that turned out before. Between requests, with nobody asking, the loop always sleeps.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from unionfs.errors import ProtocolError
from unionfs.linux.process import is_dying, is_interrupted
from unionfs.transport.devfuse import abi, negotiate, parking, replies, requests
from unionfs.transport.devfuse.parking import Parking
from unionfs.transport.devfuse.patience import Patience
from unionfs.transport.devfuse.requests import Buffer, Header
from unionfs.transport.devfuse.session import LATER, Reply, Session
from unionfs.transport.devfuse.workers import Workers

_log = logging.getLogger(__name__)

#: fuse_dev_do_read wants room for both headers and max_write; a page for the former leaves the data aligned.
BUFFER_SIZE: Final = negotiate.MAX_WRITE + 4096
_REPLY_HEADER: Final = 16
#: Threads for reads that wait, for a disk or a network.
READERS: Final = 32


class Loop:
    """Serves `session` over the device descriptor `fd`, which stays the caller's."""

    def __init__(self, fd: int, session: Session, *, debug: bool = False) -> None:
        self._fd = fd
        self._session = session
        self._debug = debug
        self._workers = Workers(self._answer_slow)
        # A read may wait for a network: as many as that must not keep a copy-up or an fsync from a thread.
        self._readers = Workers(self._answer_read, READERS)
        self._plain = self._traced if debug else session.handle
        self._handle = self._plain
        self._parking = Parking()
        self._busy = False  # between taking a request and having answered it
        self._passed = False
        self._releasing = threading.Lock()  # held while what was parked is answered: the descriptor stays open
        self._ended = False
        self._file = io.FileIO(fd, "r+", closefd=False)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        # Looking for work on the CPU that the client waits for would only keep it waiting.
        self._patience = Patience(len(os.sched_getaffinity(0)) > 1)

    def run(self, ready: Callable[[], None]) -> None:
        """Until the mount is gone. Calls `ready` when INIT has been answered.

        OSError ECONNABORTED when the connection was aborted, which leaves the mount; ProtocolError, with a hint, for
        a kernel that is too old."""
        buffer = bytearray(BUFFER_SIZE)
        try:
            if self._greet(buffer):
                ready()
                self._serve(buffer)
        finally:
            with self._releasing:
                self._ended = True
            self._workers.stop()
            self._readers.stop()

    def cancel(self, unique: int) -> None:
        """INTERRUPT: answer a request that still waits for a worker with EINTR. What one is at may be given up, if its
        caller is to die: a signal that it handles may come time and again (timers), and it would never get there.

        A caller whom a debugger stops, or we do (mounts.freezing), has got no signal: it is not told of any."""
        if self._parking.interrupt(unique):
            self.dismiss()
        elif any(
            pool.cancel(unique, lambda request: _gave_up(requests.header(request).pid, True))
            for pool in (self._workers, self._readers)
        ):
            self._write(replies.error(unique, errno.EINTR), Header(abi.Opcode.INTERRUPT, unique, 0, 0, 0, 0))

    # held changes -------------------------------------------------------------------------------------------------
    def park(self) -> None:
        """From now on requests that change something are kept back. Not the one that is being answered."""
        self._passed = False
        self._parking.shut()
        self._handle = self._parked

    def unpark(self) -> None:
        """Answer what was kept back, in order, and what comes. Not in the loop's own thread."""
        self._handle = self._plain
        with self._releasing:
            for request in self._parking.open():
                if self._ended:
                    return  # nobody waits any more
                reply = self._plain(request, len(request))
                if reply is LATER:
                    self._submit(request)
                elif reply:
                    self._write(reply, requests.header(request))

    @property
    def is_past(self) -> bool:
        """Has what was being answered when `park` was called been answered, or given to a worker?"""
        return self._passed or not self._busy

    def in_progress(self) -> frozenset[int]:
        """The `unique`s of the requests that workers have now; not reads, which change nothing."""
        return self._workers.uniques()

    def dismiss(self) -> None:
        """Answer EINTR to those kept back whose callers have given up. In any thread."""
        with self._releasing:
            for header in self._parking.give_up(_gave_up):
                if not self._ended:
                    self._write(replies.error(header.unique, errno.EINTR), header)

    @property
    def parked_callers(self) -> frozenset[int]:
        return self._parking.callers()

    def _parked(self, buffer: Buffer, length: int) -> Reply:
        self._passed = True
        requests.check(buffer, length)
        if parking.changes(buffer) and self._parking.park(bytes(memoryview(buffer)[:length])):
            return None
        return self._plain(buffer, length)

    def _greet(self, buffer: bytearray) -> bool:
        """Answer up to INIT. False where the connection ended before it."""
        session = self._session
        while session.agreed is None:
            length = self._read_blocking(buffer)
            if not length:
                return False
            opcode, unique, _ = requests.check(buffer, length)
            if opcode == abi.Opcode.INIT:
                # Here a bad version is the caller's business, not an EINVAL in the log.
                offer = requests.init(buffer, length)
                if offer.major <= abi.VERSION:
                    try:
                        negotiate.agree(offer, session.wishes)
                    except ProtocolError:
                        self._write(replies.error(unique, errno.EPROTO), requests.header(buffer))
                        raise
            self._answer(buffer, length)
        return True

    def _read_blocking(self, buffer: bytearray) -> int:
        """The length of the next request, 0 at the end of the connection."""
        while True:
            try:
                length = self._file.readinto(buffer)
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno in _ENDED:
                    return 0
                raise
            if length is not None:
                return length
            self._poll.poll()

    def _serve(self, buffer: bytearray) -> None:
        patience = self._patience
        readinto = self._file.readinto
        fd, write = self._fd, os.write
        looking = None
        while True:
            self._busy = False
            wanted = not patience.pause
            if wanted is not looking:
                looking = wanted
                os.set_blocking(fd, not looking)
            try:
                length = readinto(buffer)
                if length is None:
                    length = self._look(buffer)
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno in _ENDED:
                    return
                raise
            if patience.pause > 0:
                patience.pause -= 1
            self._busy = True
            reply = self._handle(buffer, length)
            if not reply:
                continue
            if reply is LATER:
                self._submit(bytes(memoryview(buffer)[:length]))
                continue
            try:
                write(fd, reply)
            except OSError as error:
                self._unwritten(error, reply, requests.header(buffer))

    def _look(self, buffer: bytearray) -> int:
        """The next request, by looking for a while and then by sleeping."""
        readinto, patience = self._file.readinto, self._patience
        for _ in range(patience.looks):
            length = readinto(buffer)
            if length is not None:
                patience.looked(True)
                return length
        patience.looked(False)
        while True:
            self._poll.poll()
            length = readinto(buffer)
            if length is not None:
                return length

    def _answer(self, buffer: bytearray, length: int) -> None:
        reply = self._session.handle(buffer, length)
        if reply:
            self._write(reply, requests.header(buffer))

    def _submit(self, request: bytes) -> None:
        header = requests.header(request)
        pool = self._readers if header.opcode == abi.Opcode.READ else self._workers
        pool.submit(header.unique, request)

    def _answer_slow(self, request: bytes) -> None:
        """In a worker."""
        self._answer_later(request, self._workers.interrupted)

    def _answer_read(self, request: bytes) -> None:
        """In a reader."""
        self._answer_later(request, self._readers.interrupted)

    def _answer_later(self, request: bytes, interrupted: Callable[[], bool]) -> None:
        try:
            caller = requests.header(request).pid
            reply = self._session.handle_now(request, len(request), lambda: interrupted() and is_dying(caller))
            if self._debug:
                _log.debug("%s -> %s", _described(request, len(request)), _outcome(reply))
            if reply:
                self._write(reply, requests.header(request))
        except Exception:
            _log.exception("a request was not answered")

    def _write(self, reply: bytes | memoryview, header: Header) -> None:
        try:
            os.write(self._fd, reply)
        except OSError as error:
            self._unwritten(error, reply, header)

    def _unwritten(self, error: OSError, reply: bytes | memoryview, header: Header) -> None:
        """The kernel did not take a reply: what it granted is taken back."""
        self._session.undelivered(reply, header.opcode, header.node)
        if error.errno == errno.EINVAL:
            # It found the reply malformed (too long, say): our bug, and the caller still waits.
            _log.error("the kernel refused the reply to %s", requests.opcode_name(header.opcode))
            os.write(self._fd, replies.error(header.unique, errno.EIO))
        elif error.errno not in _UNWANTED:
            raise error

    def _traced(self, buffer: Buffer, length: int) -> Reply:
        reply = self._session.handle(buffer, length)
        if reply is not LATER:
            _log.debug("%s -> %s", _described(buffer, length), _outcome(reply))
        return reply


def _gave_up(caller: int, interrupted: bool) -> bool:
    """The kernel interrupts a request once; a caller that dies later says nothing (request_wait_answer()). Of one that
    cannot be seen from here the interruption must do."""
    if not interrupted:
        return is_dying(caller)
    return not caller or is_interrupted(caller)


def _described(buffer: Buffer, length: int) -> str:
    try:
        return str(requests.decode(buffer, length))
    except ProtocolError as error:
        return f"malformed request: {error}"


def _outcome(reply: Reply) -> str:
    if reply is None:
        return "no reply"
    if not reply:
        return "spliced"
    number = -int.from_bytes(reply[4:8], "little", signed=True)
    if number:
        return errno.errorcode.get(number, str(number))
    return f"{len(reply) - _REPLY_HEADER} bytes"


#: ENOENT: the request was aborted between its being announced and read.
_AGAIN: Final = frozenset((errno.ENOENT, errno.EINTR, errno.EAGAIN))
#: fuse_dev_do_read: unmounted, or aborted by a kernel that has no ABORT_ERROR.
_ENDED: Final = frozenset((errno.ENODEV, errno.ENOTCONN))
#: Replies to requests that were aborted, or after the unmount.
_UNWANTED: Final = frozenset((errno.ENOENT, errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.EPERM))
