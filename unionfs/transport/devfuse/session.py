"""One mount's conversation: request bytes in, calls on a `vfs.Filesystem`, reply bytes out. No I/O of its own.

    handle(buffer, length)     answers a request, or says LATER where that could take long
    handle_now(buffer, length) answers it in any case; may run in any thread, beside others
    undelivered(reply, opcode) takes back what a reply gave that never reached the kernel
    watch(watcher)             from now on somebody is told of every request

The rules:
  * An `OSError` of the file system is the reply. Anything else is our bug: one log record names the request, the
    caller gets EIO, the mount stays.
  * While nobody watches, the handlers are those of answers.py themselves.

What each opcode does is in answers.py.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi, negotiate, replies, requests
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE, OPCODES, Opcode
from unionfs.transport.devfuse.answers import LATER, Answers, Handler, Reply
from unionfs.transport.devfuse.files import BackingFiles, OpenFiles, Reader
from unionfs.transport.devfuse.negotiate import Agreed, Wishes
from unionfs.transport.devfuse.passthrough import no_backings
from unionfs.transport.devfuse.requests import Buffer
from unionfs.transport.devfuse.slow import slow_table
from unionfs.vfs import Filesystem, Watcher

__all__ = ["LATER", "Reply", "Session"]

_log = logging.getLogger(__name__)

_BODY: Final = IN_HEADER_SIZE


class Session:
    """See the module. `backings` is None where passthrough is not wanted, `reader` None where READ goes through
    `fs.read`. `invalidate(node)` tells the kernel that a node's attributes are stale. `generation` (32 bits) is to be
    another for each mount: a file handle holds it beside the node, whose numbers begin anew."""

    def __init__(
        self,
        fs: Filesystem,
        *,
        backings: BackingFiles | None = None,
        reader: Reader | None = None,
        invalidate: Callable[[int], object] | None = None,
        readdirplus: str = "auto",
        generation: int = 0,
    ) -> None:
        self.fs = fs
        self.agreed: Agreed | None = None
        self.finished = False
        self.files = OpenFiles(fs, backings if backings is not None else no_backings(), reader, invalidate)
        self._answers = Answers(fs, self.files, reader, generation)
        #: Called with the `unique` of a request that its caller has given up.
        self.on_interrupt: Callable[[int], None] | None = None
        self.wishes = Wishes(
            passthrough=backings is not None,
            stable_cookies=bool(getattr(fs, "stable_cookies", False)),
            readdirplus=readdirplus,
        )
        self._fs_cancellation: Callable[[Callable[[], bool] | None], None] | None = getattr(fs, "cancellation", None)
        self.counts = [0] * OPCODES
        self._own: list[Handler] = self._answers.table()
        self._own[Opcode.INIT] = self._init
        self._own[Opcode.DESTROY] = self._destroy
        self._own[Opcode.INTERRUPT] = self._interrupted
        #: By opcode, for the thread that calls `handle`, and for threads that may wait.
        self._handlers, self._waiting = self._tables(None)
        self._slow = slow_table(fs)

    def watch(self, watcher: Watcher | None) -> None:
        """Tell `watcher` of every request that comes from now on; None: nobody. In any thread."""
        self._handlers, self._waiting = self._tables(watcher)

    def _tables(self, watcher: Watcher | None) -> tuple[list[Handler], list[Handler]]:
        here, there = list(self._own), list(self._own)
        for opcode, handler in self._answers.waiting().items():
            there[opcode] = handler
        if watcher is not None:
            from unionfs.transport.devfuse.watching import watched  # few mounts ever need it

            told = watched(watcher, self.files, self._answers.setxattr_ext)
            here, there = [told(handler) for handler in here], [told(handler) for handler in there]
        return here, there

    # dispatch ---------------------------------------------------------------------------------------------------
    def handle(self, buffer: Buffer, length: int) -> Reply:
        """The reply to the request in `buffer[:length]`, None where there is none to give, or LATER."""
        opcode, unique, node = requests.check(buffer, length)
        if opcode >= OPCODES:
            return replies.error(unique, errno.ENOSYS)
        self.counts[opcode] += 1
        try:
            slow = self._slow[opcode]
            if slow is not None and slow(buffer, node):
                return LATER
            return self._handlers[opcode](buffer, length, unique, node)
        except Exception as error:
            return self._failed(error, buffer, length, opcode, unique)

    def handle_now(self, buffer: Buffer, length: int, cancelled: Callable[[], bool] | None = None) -> Reply:
        """As `handle`, and never LATER. `buffer` must be the request's own. `cancelled`: has its caller given up?"""
        if cancelled is None or self._fs_cancellation is None:
            return self._handle_now(buffer, length)
        self._fs_cancellation(cancelled)
        try:
            return self._handle_now(buffer, length)
        finally:
            self._fs_cancellation(None)

    def _handle_now(self, buffer: Buffer, length: int) -> Reply:
        opcode, unique, node = requests.check(buffer, length)
        try:
            return self._waiting[opcode](buffer, length, unique, node)
        except Exception as error:
            return self._failed(error, buffer, length, opcode, unique)

    def _failed(self, error: Exception, buffer: Buffer, length: int, opcode: int, unique: int) -> Reply:
        if isinstance(error, OSError):
            number = error.errno
            if number is not None and 0 < number < 512:  # what fuse_dev_do_write accepts
                return None if opcode in _NO_REPLY else replies.error(unique, number)
        if isinstance(error, ProtocolError):
            _log.error("%s: malformed request: %s", requests.opcode_name(opcode), error)
            return None if opcode in _NO_REPLY else replies.error(unique, errno.EINVAL)
        try:
            request = str(requests.decode(buffer, length, setxattr_ext=self._answers.setxattr_ext))
        except ProtocolError:
            request = requests.opcode_name(opcode)
        _log.error("%s: internal error, answered EIO", request, exc_info=error)
        return None if opcode in _NO_REPLY else replies.error(unique, errno.EIO)

    def undelivered(self, reply: Reply, opcode: int, node: int) -> None:
        """`reply` to `opcode` on `node` could not be written as the caller has gone: give back what it granted."""
        if not reply or bytes(reply[4:8]) != b"\0\0\0\0":
            return
        start = abi.OUT_HEADER_SIZE
        if opcode in _ENTRY_REPLIES:
            entry_node = abi.ENTRY_OUT.unpack_from(reply, start)[0]
            if opcode in (Opcode.CREATE, Opcode.TMPFILE):
                self.files.close(entry_node, abi.OPEN_OUT.unpack_from(reply, start + abi.ENTRY_OUT.size)[0])
            if entry_node:
                self.fs.forget(entry_node, 1)
        elif opcode == Opcode.OPEN:
            self.files.close(node, abi.OPEN_OUT.unpack_from(reply, start)[0])
        elif opcode == Opcode.OPENDIR:
            self.fs.releasedir(abi.OPEN_OUT.unpack_from(reply, start)[0])

    def close(self) -> None:
        """The connection has ended: release what is held for it. Open handles are the file system's to close."""
        self._answers.close()

    def statistics(self) -> dict[str, int]:
        """Requests by opcode, bytes that did not take passthrough, and the passthrough files open now."""
        counts = {f"request_{op.name.lower()}": self.counts[op] for op in Opcode if self.counts[op]}
        counts["bytes_read"] = self._answers.bytes_read
        counts["bytes_written"] = self._answers.bytes_written
        counts["passthrough_open"] = len(self.files.backings)
        return counts

    # set-up -----------------------------------------------------------------------------------------------------
    def _init(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        offer = requests.init(buffer, length)
        if offer.major > abi.VERSION:
            return replies.init_version(unique)  # the kernel asks again, with a version that we know
        agreed = negotiate.agree(offer, self.wishes)
        self.files.backings.enabled = "passthrough" in agreed.features
        self._answers.setxattr_ext = "setxattr_ext" in agreed.features
        if "no_opendir" not in agreed.features:
            self._own[Opcode.OPENDIR] = self._answers.opendir
            self._handlers, self._waiting = self._tables(None)
        self.agreed = agreed
        return agreed.reply(unique)

    def _destroy(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        self.finished = True
        return replies.empty(unique)

    def _interrupted(self, buffer: Buffer, length: int, unique: int, node: int) -> Reply:
        if self.on_interrupt is not None:
            self.on_interrupt(abi.INTERRUPT_IN.unpack_from(buffer, _BODY)[0])
        return None


_NO_REPLY: Final = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY))
_ENTRY_REPLIES: Final = frozenset(
    (Opcode.LOOKUP, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.CREATE, Opcode.TMPFILE)
)
