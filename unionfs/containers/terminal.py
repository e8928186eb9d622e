"""The near end of a running container: this process's standard streams and signals, carried to its monitor and back.

With a terminal (-t) the user's own is raw while it lasts, follows its size, and lets go at ctrl-p ctrl-q; signals are
not passed on then, since keys make them in the container. Without one, each signal that reaches this process is sent to
the container's init (docker's --sig-proxy).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from unionfs.containers import frames
from unionfs.errors import MountError, UnionFSError
from unionfs.mounts.control import error_from_json, error_to_json

#: What is not passed on: what stops or continues this process, tells it of its children and pipes, or cannot be caught.
_OWN: Final = frozenset(
    (
        signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH,
        signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE,
        signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
    )
)  # fmt: skip
PASSED_ON: Final = tuple(number for number in signal.Signals if number < 32 and number not in _OWN)
#: ctrl-p ctrl-q
DETACH_KEYS: Final = b"\x10\x11"
_READ: Final = 1 << 16


class Ended(NamedTuple):
    """How it came to an end. `status` None: it goes on, and was let go of. `error`: why it did not start."""

    status: int | None
    error: UnionFSError | OSError | None = None

    def told(self) -> Any:
        """As JSON, for another process."""
        return [self.status, None if self.error is None else error_to_json(self.error)]

    @classmethod
    def from_told(cls, told: Any) -> Ended:
        status, error = told
        return cls(status, None if error is None else error_from_json(error))


class Signals:
    """Signals as something to be polled, from `with` on."""

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._numbers = numbers
        self._before: dict[int, Any] = {}
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        return self._reader.fileno()

    def received(self) -> bytes:
        """Their numbers."""
        try:
            return self._reader.recv(4096)
        except BlockingIOError:
            return b""

    def __enter__(self) -> Signals:
        for end in (self._reader, self._writer):
            end.setblocking(False)
        for number in self._numbers:
            before = signal.getsignal(number)
            # Who was told to ignore them (nohup) goes on doing so.
            if before is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def catching(*, terminal: bool) -> Signals:
    """To be entered before the container starts: none is lost, nor ends this process on the way."""
    return Signals((signal.SIGWINCH,) if terminal else PASSED_ON)


@contextmanager
def ignoring_keys() -> Iterator[None]:
    """While a child has the terminal: what its keys signal is for the child."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal `fd` hands on every key, and changes nothing that is written to it."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


class Relay:
    """Standard streams to and from a monitor. `stdin` None: nothing goes in."""

    def __init__(self, monitor: socket.socket, signals: Signals, *, stdin: int | None, terminal: bool) -> None:
        self._monitor = monitor
        self._signals = signals
        self._stdin = stdin
        self._terminal = terminal
        self._frames = frames.Frames()
        self._out = bytearray()  # to the monitor
        self._keys = b""  # the beginning of DETACH_KEYS
        self._ended: Ended | None = None
        self._error: UnionFSError | OSError | None = None

    def run(self) -> Ended:
        """Until the container ends, or is let go of."""
        if self._terminal:
            self._send_size()
        if self._terminal and self._stdin is not None and os.isatty(self._stdin):
            with raw(self._stdin):
                return self._run()
        return self._run()

    def _run(self) -> Ended:
        self._monitor.setblocking(False)
        while self._ended is None:
            poll = select.poll()
            poll.register(self._monitor, select.POLLIN | (select.POLLOUT if self._out else 0))
            poll.register(self._signals, select.POLLIN)
            if self._stdin is not None and len(self._out) < _READ:
                poll.register(self._stdin, select.POLLIN)
            ready = dict(poll.poll())
            if self._signals.fileno() in ready:
                self._pass_signals()
            if self._stdin is not None and self._stdin in ready:
                self._read_input()
            self._flush()
            if ready.get(self._monitor.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._hear()
        return self._ended

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._monitor.send(self._out, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # it has ended; what it still says is read

    def _hear(self) -> None:
        try:
            data = self._monitor.recv(_READ * 4)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            lost = MountError("the container's monitor has ended, and does not say how the container did")
            self._ended = Ended(None, self._error or lost)
            return
        for kind, content in self._frames.feed(data):
            if kind in (frames.STDOUT, frames.STDERR):
                _write(1 if kind == frames.STDOUT else 2, content)
            elif kind == frames.FAILED:
                self._error = error_from_json(json.loads(content))
            elif kind == frames.EXIT:
                self._ended = Ended(int(json.loads(content)["status"]), self._error)

    def _read_input(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        # INVARIANT: keys that were typed after a resize are behind it. Its signal came before them, so that its handler
        # has run by now, if only after poll(2) had looked.
        self._pass_signals()
        if not data:
            self._stdin = None
        elif self._terminal:
            data, detached = self._without_keys(data)
            if detached:
                self._ended = Ended(None)
            if not data:
                return
        self._out += frames.frame(frames.STDIN, data)

    def _without_keys(self, data: bytes) -> tuple[bytes, bool]:
        data = self._keys + data
        before, found, _ = data.partition(DETACH_KEYS)
        if found:
            return before, True
        self._keys = DETACH_KEYS[:1] if data.endswith(DETACH_KEYS[:1]) else b""
        return data.removesuffix(self._keys) if self._keys else data, False

    def _pass_signals(self) -> None:
        for number in self._signals.received():
            if number == signal.SIGWINCH:
                self._send_size()
            elif number in PASSED_ON and not self._terminal:
                self._out += frames.frame(frames.SIGNAL, b"%d" % number)

    def _send_size(self) -> None:
        size = window_size()
        if size is not None:
            self._out += frames.frame(frames.WINDOW, b"%d %d" % size)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else's O_NONBLOCK on the same terminal or pipe
            select.select([], [fd], [])


def follow(monitor: socket.socket, signals: Signals, *, attach: bool, stdin: int | None, terminal: bool) -> Ended:
    """`Relay` until the container ends, or without `attach` `until_started`."""
    if not attach:
        return until_started(monitor)
    return Relay(monitor, signals, stdin=stdin, terminal=terminal).run()


def until_started(monitor: socket.socket) -> Ended:
    """Wait until the container runs, or does not. `status` None: it runs."""
    error = None
    stream = frames.Frames()
    while data := monitor.recv(_READ):
        for kind, content in stream.feed(data):
            if kind == frames.STARTED:
                return Ended(None)
            if kind == frames.FAILED:
                error = error_from_json(json.loads(content))
            elif kind == frames.EXIT:
                return Ended(int(json.loads(content)["status"]), error)
    return Ended(None, error or MountError("the container's monitor has ended"))


# a terminal of one's own ----------------------------------------------------------------------------------------------
def received(listener: socket.socket, ended: int = -1) -> int | None:
    """The master of a container's terminal, as the runtime sends it (runc docs/terminals.md); None where `ended` can be
    read before it comes."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if ended >= 0:
        poll.register(ended, select.POLLIN)
    if listener.fileno() not in dict(poll.poll()):
        return None
    connection, _ = listener.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    if not fds:
        return None
    os.set_inheritable(fds[0], False)
    return fds[0]


def carry(master: int, stdin: int | None, signals: Signals, ended: int) -> None:
    """Between a terminal's master and this process's streams, until `ended` can be read and all was written."""
    _copy_size(master)
    if stdin is not None and os.isatty(stdin):
        with raw(stdin):
            _carry(master, stdin, signals, ended)
    else:
        _carry(master, stdin, signals, ended)


def _carry(master: int, stdin: int | None, signals: Signals, ended: int) -> None:
    os.set_blocking(master, False)
    keys = bytearray()
    while True:
        poll = select.poll()
        poll.register(master, select.POLLIN | (select.POLLOUT if keys else 0))
        poll.register(signals, select.POLLIN)
        poll.register(ended, select.POLLIN)
        if stdin is not None and len(keys) < _READ:
            poll.register(stdin, select.POLLIN)
        ready = dict(poll.poll())
        if stdin is not None and stdin in ready:
            data = os.read(stdin, _READ)
            keys += data
            stdin = stdin if data else None
        if signals.received():  # behind the read, and before keys are written: as in Relay._read_input
            _copy_size(master)
        try:
            if keys:
                del keys[: os.write(master, keys)]
        except BlockingIOError:
            pass
        if ready.get(master, 0) & ~select.POLLOUT and not _copy_output(master):
            return
        if ended in ready:
            while _copy_output(master):
                pass
            return


def _copy_output(master: int) -> bool:
    """False where there is no more."""
    try:
        data = os.read(master, _READ)
    except OSError:  # EIO: nobody has the other end; EAGAIN: nothing now
        return False
    _write(1, data)
    return bool(data)


def _copy_size(master: int) -> None:
    size = window_size()
    if size is not None:
        termios.tcsetwinsize(master, size)


def window_size() -> tuple[int, int] | None:
    """Rows and columns of the user's terminal, if there is one."""
    for fd in (0, 1, 2):
        try:
            return termios.tcgetwinsize(fd)
        except (OSError, termios.error):
            continue
    return None
