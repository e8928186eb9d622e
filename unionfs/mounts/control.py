"""A mount's control socket: a Unix stream socket that answers questions about one live mount.

    ControlServer    the daemon's end, in threads of its own
    request          one question from another process
    Lease            something had from the daemon for as long as the connection lasts
    Streamed         lines from the daemon for as long as the connection lasts

Format: one JSON object per line, UTF-8, at most REQUEST_LIMIT bytes with its newline.

    -> {"method": "statistics", "params": {}}
    <- {"result": {…}}   or   {"error": {"type": "ProtocolError", "message": "…", "hint": "…" or null}}

`type` is the name of a class of `unionfs.errors`, or "OSError" (then with "errno"), or "InternalError".
A connection may carry several requests, one after the other. A line that is too long ends it, after the error.

A *lease* is had by a request and given back by the next one on the connection, {"method": "release"}, whose answer is
what the lease came to. It ends by itself with the connection, so with the process that has it; and at its time limit,
which closes the connection.

A *stream* is had by a request too: after its answer come lines of JSON, until there are no more, or the peer shuts its
end for writing (or ends, or sends anything): then come those that are left, and the connection is closed. A peer may
take all the time he wants to read: only a thread of the server's own waits for him.

The socket is 0600 and only root and the daemon's own user are answered (SO_PEERCRED). Whatever arrives, the daemon
goes on: every fault of a request is an answer, and at most MAX_CONNECTIONS are served at a time. A peer has
IDLE_SECONDS to send all of a request, and as many to take an answer; when there are too many, the one that has been
waited for longest makes place for the next. So nobody keeps others out by being slow.

Methods are the caller's, by name; nothing here knows what they do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from unionfs import errors
from unionfs.errors import MountError, ProtocolError, UnionFSError

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class Leased(NamedTuple):
    """A lease that was given: the answer, how long it lasts at most, and how it ends, with the answer to that."""

    answer: dict[str, Any]
    seconds: float
    release: Callable[[], dict[str, Any]]


#: (params, the peer's process id or 0) -> lease
LeaseHandler = Callable[[dict[str, Any], int], Leased]


class Stream(Protocol):
    """Lines for a peer."""

    def take(self, seconds: float) -> bytes | None:
        """Whole lines; b"" where none have come in that time, None where none will."""
        ...

    def finish(self) -> None:
        """No more are wanted than have come. Idempotent."""
        ...


class Streaming(NamedTuple):
    """A stream that was given, with the answer that precedes it."""

    answer: dict[str, Any]
    stream: Stream


#: params -> stream
StreamHandler = Callable[[dict[str, Any]], Streaming]

REQUEST_LIMIT: Final = 64 * 1024
ANSWER_LIMIT: Final = 16 * 1024 * 1024
MAX_CONNECTIONS: Final = 8
MAX_LEASES: Final = MAX_CONNECTIONS // 2
MAX_STREAMS: Final = 3
#: How often the peer of a stream is looked after while there is nothing to send.
_LOOK_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 5.0
#: Who finds it full is refused at once (EAGAIN), since our own clients connect with a time limit.
_BACKLOG: Final = 128

_PEERCRED: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
log = logging.getLogger("unionfs.control")


class _SocketName:
    """`path` in a form that fits into sockaddr_un (108 bytes), as a context."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._directory: int | None = None

    def __enter__(self) -> bytes:
        if len(self._path) < 108:
            return self._path
        directory, name = os.path.split(self._path)
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return b"/proc/self/fd/%d/%s" % (self._directory, name)

    def __exit__(self, *_: object) -> None:
        if self._directory is not None:
            os.close(self._directory)


class _WaitedFor:
    """The connections whose peers are to send or to read, the one that has been so for longest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, None] = {}

    @contextlib.contextmanager
    def entered(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections[connection] = None
        try:
            yield
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    @contextlib.contextmanager
    def left(self, connection: socket.socket) -> Iterator[None]:
        """While its request is answered."""
        with self._lock:
            self._connections.pop(connection, None)
        try:
            yield
        finally:
            with self._lock:
                self._connections[connection] = None

    def drop_oldest(self) -> None:
        """End one, if there is any; its thread then gives its slot back."""
        with self._lock:
            for connection in self._connections:
                del self._connections[connection]
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return


class ControlServer:
    """Serves `handlers`, `leases` and `streams` on a socket at `path` from `start` (or `with`) to `close`. What is at
    `path` is replaced.

    A handler gets the request's params and returns a JSON object; it may raise UnionFSError or OSError. Handlers run
    beside each other, in threads. Start it after the daemon's fork.
    """

    def __init__(
        self,
        path: bytes,
        handlers: Mapping[str, Handler],
        leases: Mapping[str, LeaseHandler] | None = None,
        streams: Mapping[str, StreamHandler] | None = None,
    ) -> None:
        self._path = path
        self._handlers = dict(handlers)
        self._leases = dict(leases or {})
        self._streams = dict(streams or {})
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lent = threading.BoundedSemaphore(MAX_LEASES)
        self._streaming = threading.BoundedSemaphore(MAX_STREAMS)
        self._waited_for = _WaitedFor()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _SocketName(self._path) as name:
                try:
                    os.unlink(self._path)
                except FileNotFoundError:
                    pass
                listener.bind(name)
            # bind makes it 0777 less the umask, which a daemon has at 0. Nobody can connect before listen.
            os.chmod(self._path, 0o600)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._socket = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting and remove the socket. Idempotent. Requests in progress are answered if the process lives."""
        listener, self._socket = self._socket, None
        if listener is None:
            return
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); close() alone would not
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        listener.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def __enter__(self) -> ControlServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._socket is not listener:
                    return
                log.warning("control socket: %s", error)
                if listener.fileno() == -1:
                    return
                # EMFILE and the like: wait until a connection ends before trying again.
                with self._slots:
                    continue
            if not self._slots.acquire(blocking=False):
                self._waited_for.drop_oldest()
                self._slots.acquire()
            threading.Thread(target=self._serve, args=(connection,), name="control-peer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, self._waited_for.entered(connection):
                connection.settimeout(IDLE_SECONDS)
                pid, uid = _peer(connection)
                if uid in (0, os.geteuid()):
                    self._converse(connection, pid)
        except OSError:
            pass  # the peer went away, or was too slow: its own loss
        except BaseException:
            log.exception("bug in the control socket")
        finally:
            self._slots.release()

    def _converse(self, connection: socket.socket, pid: int) -> None:
        lines = _Lines(connection)
        while (line := lines.next(IDLE_SECONDS)) is not None:
            with self._waited_for.left(connection):
                answer, given = self._answer(line, pid)
                if isinstance(given, Streaming):
                    self._stream(connection, answer, given.stream)
                    return
                if given is not None and not _lend(connection, lines, answer, given):
                    return
            if given is None:
                connection.settimeout(IDLE_SECONDS)
                connection.sendall(answer)

    def answer(self, line: bytes) -> bytes:
        """The answer to one request line that asks for no lease, a line. Never raises."""
        return self._answer(line, None)[0]

    def _stream(self, connection: socket.socket, answer: bytes, stream: Stream) -> None:
        """From the answer to the end."""
        try:
            connection.settimeout(None)
            connection.sendall(answer)
            wanted = True
            while (lines := stream.take(_LOOK_SECONDS)) is not None:
                if lines:
                    connection.sendall(lines)
                if wanted and _has_spoken(connection):
                    wanted = False
                    stream.finish()
        finally:
            stream.finish()
            self._streaming.release()

    def _answer(self, line: bytes, pid: int | None) -> tuple[bytes, Leased | Streaming | None]:
        """Leases and streams are given to `pid` unless it is None."""
        given: Leased | Streaming | None = None
        try:
            method, params = _parse_request(line)
            if method in self._leases and pid is not None:
                given = self._lease(method, params, pid)
                result = given.answer
            elif method in self._streams and pid is not None:
                given = self._start_stream(method, params)
                result = given.answer
            elif method in self._handlers:
                result = self._handlers[method](params)
            else:
                known = ", ".join(sorted({*self._handlers, *self._leases, *self._streams}))
                raise ProtocolError(f"unknown method {method!r}", hint=f"methods: {known}")
            return json.dumps({"result": result}).encode() + b"\n", given
        except (UnionFSError, OSError) as error:
            return _error_line(error), None
        except BaseException as error:
            log.exception("bug in answer to control request %r", line[:200])
            return _error_line(error), None

    def _start_stream(self, method: str, params: dict[str, Any]) -> Streaming:
        if not self._streaming.acquire(blocking=False):
            raise MountError(f"{MAX_STREAMS} others listen to the mount already", hint="try again later")
        try:
            return self._streams[method](params)
        except BaseException:
            self._streaming.release()
            raise

    def _lease(self, method: str, params: dict[str, Any], pid: int) -> Leased:
        """One of MAX_LEASES, so that there are connections left for all else."""
        if not self._lent.acquire(blocking=False):
            raise MountError(f"{MAX_LEASES} others have the mount already", hint="try again later")
        try:
            leased = self._leases[method](params, pid)
        except BaseException:
            self._lent.release()
            raise

        def release() -> dict[str, Any]:
            try:
                return leased.release()
            finally:
                self._lent.release()

        return leased._replace(release=release)


class _Lines:
    """The lines that a peer sends, empty ones left out. A line that is too long is answered, and is the last."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def next(self, seconds: float) -> bytes | None:
        """Without its newline; None at the end. TimeoutError where not all of it comes in time."""
        deadline = time.monotonic() + seconds
        while True:
            end = self._buffer.find(b"\n")
            if end >= REQUEST_LIMIT or (end < 0 and len(self._buffer) >= REQUEST_LIMIT):
                self._connection.sendall(_error_line(ProtocolError(f"a request is at most {REQUEST_LIMIT} bytes")))
                return None
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                if line.strip():
                    return line
                continue
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._connection.recv(65536)
            if not received:
                return None
            self._buffer += received


def _lend(connection: socket.socket, lines: _Lines, answer: bytes, leased: Leased) -> bool:
    """A lease from its answer to its end. False where that is the end of the connection too. OSError at its limit."""
    try:
        connection.settimeout(IDLE_SECONDS)
        connection.sendall(answer)
        line = lines.next(leased.seconds)
    finally:
        told = leased.release()
    if line is None:
        return False
    connection.settimeout(IDLE_SECONDS)
    connection.sendall(json.dumps({"result": told}).encode() + b"\n")
    return True


def _has_spoken(connection: socket.socket) -> bool:
    """Has the peer sent something, shut its end, or gone?"""
    try:
        connection.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _peer(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who has connected; pid 0 where it cannot be seen from here."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    pid, uid, _gid = _PEERCRED.unpack(credentials)
    return pid, uid


def _parse_request(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a request is one line of JSON: {error}") from None
    if not isinstance(request, dict):
        raise ProtocolError("a request is a JSON object")
    method, params = request.get("method"), request.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        raise ProtocolError("a request has a string 'method' and, if any, an object 'params'")
    return method, params


def _error_line(error: BaseException) -> bytes:
    return json.dumps({"error": error_to_json(error)}).encode() + b"\n"


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An exception as the daemon tells another process of it."""
    if isinstance(error, UnionFSError):
        return {"type": type(error).__name__, "message": str(error), "hint": error.hint}
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        return {
            "type": "OSError",
            "errno": error.errno,
            "message": error.strerror or os.strerror(error.errno),
            "hint": None,
            "filename": os.fsdecode(name) if isinstance(name, (bytes, str)) else None,
        }
    return {"type": "InternalError", "message": f"{type(error).__name__}: {error}", "hint": "this is a bug in unionfs"}


def error_from_json(told: Any) -> UnionFSError | OSError:
    """The exception that `error_to_json` told of; ProtocolError where it is none."""
    if not isinstance(told, dict) or not isinstance(told.get("message"), str):
        return ProtocolError("an error of no known form was answered")
    name, message, hint = told.get("type"), told["message"], told.get("hint")
    hint = hint if isinstance(hint, str) else None
    number = told.get("errno")
    if name == "OSError" and isinstance(number, int):
        filename = told.get("filename")
        return OSError(number, message, filename) if isinstance(filename, str) else OSError(number, message)
    kind = getattr(errors, name, None) if isinstance(name, str) else None
    if isinstance(kind, type) and issubclass(kind, UnionFSError):
        return kind(message, hint=hint)
    return MountError(message, hint=hint)


def request(
    path: bytes, method: str, params: Mapping[str, Any] | None = None, *, timeout: float = IDLE_SECONDS
) -> dict[str, Any]:
    """Ask the daemon behind the socket `path`; `timeout` in seconds, for each step.

    Raises MountError where nobody answers in time, ProtocolError for an answer of no known form, and what the
    handler raised.
    """
    with _connected(path, timeout) as connection:
        return _ask(connection, method, params)


class Lease:
    """A lease had from the daemon behind the socket `path`. `answer` is what it said; raises as `request` does."""

    def __init__(self, path: bytes, method: str, params: Mapping[str, Any], *, timeout: float) -> None:
        self._timeout = timeout
        self._connection = _connected(path, timeout)
        try:
            self.answer = _ask(self._connection, method, params)
        except BaseException:
            self.close()
            raise

    def release(self) -> dict[str, Any]:
        """Give it back; what it came to. MountError where it has ended before."""
        try:
            return _ask(self._connection, "release", {})
        finally:
            self.close()

    def close(self) -> None:
        """Give it back, whatever it came to. Idempotent."""
        self._connection.close()


class Streamed:
    """A stream had from the daemon behind the socket `path`. `answer` is what it said; raises as `request` does."""

    def __init__(self, path: bytes, method: str, params: Mapping[str, Any], *, timeout: float = IDLE_SECONDS) -> None:
        self._connection = _connected(path, timeout)
        self._buffer = bytearray()
        try:
            self.answer = _ask(self._connection, method, params, self._buffer)
            self._connection.settimeout(None)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines, until there are no more. ProtocolError for what is no line of JSON; MountError where the daemon
        has gone in the middle of one."""
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > ANSWER_LIMIT:
                    raise ProtocolError("the mount's daemon sent a line without end")
                try:
                    received = self._connection.recv(1 << 16)
                except ConnectionResetError:
                    received = b""
                if received:
                    self._buffer += received
                    continue
                if self._buffer:
                    raise MountError("the mount's daemon ended in the middle of a line")
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            if not isinstance(told, dict):
                raise ProtocolError("the mount's daemon sent no JSON object")
            yield told

    def stop(self) -> None:
        """No more are wanted than are on their way. May be called in a signal handler."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()


def _connected(path: bytes, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with _SocketName(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise _unanswered(error, timeout) from error
    return connection


def _unanswered(error: OSError, timeout: float | None) -> MountError:
    if isinstance(error, TimeoutError):
        return MountError(f"the mount's daemon did not answer within {timeout or 0:g} seconds")
    return MountError(
        f"the mount's daemon cannot be asked: {error.strerror}", hint="is it still there? see: unionfs mounts"
    )


def _ask(
    connection: socket.socket, method: str, params: Mapping[str, Any] | None, rest: bytearray | None = None
) -> dict[str, Any]:
    """`rest`: gets what has come behind the answer."""
    line = json.dumps({"method": method, "params": dict(params or {})}).encode() + b"\n"
    if len(line) > REQUEST_LIMIT:
        raise ProtocolError(f"a request is at most {REQUEST_LIMIT} bytes")
    try:
        connection.sendall(line)
        answer = _receive_line(connection, rest)
    except OSError as error:
        raise _unanswered(error, connection.gettimeout()) from error
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        raise ProtocolError("the mount's daemon did not answer JSON") from None
    if isinstance(told, dict) and isinstance(told.get("result"), dict):
        return dict(told["result"])
    raise error_from_json(told.get("error") if isinstance(told, dict) else None)


def _receive_line(connection: socket.socket, rest: bytearray | None) -> bytes:
    buffer = bytearray()
    while b"\n" not in buffer if rest is not None else not buffer.endswith(b"\n"):
        received = connection.recv(65536)
        if not received:
            raise ProtocolError("the mount's daemon closed the connection without an answer")
        buffer += received
        if len(buffer) > ANSWER_LIMIT:
            raise ProtocolError("the mount's daemon answered without end")
    if rest is not None:
        end = buffer.index(b"\n") + 1
        rest += buffer[end:]
        del buffer[end:]
    return bytes(buffer)
