"""The life of a mount's daemon: into the background, ready, signalled, gone.

    run_in_background    fork; the parent waits until the mount answers, or tells why it never will
    run_in_foreground    the same without a fork

Both run `serve(ready)`, which makes the mount, calls `ready()` once it answers and returns when it is unmounted.

*The fork comes first*, before any thread and before `serve` opens anything. One pipe leads from the child to the
parent: one line of JSON, `{"ready": true}` or `{"error": …}` (as control.error_to_json), or nothing if the child dies.

*Descriptors 0, 1 and 2* lead to /dev/null or to the log file before the parent hears "ready", never after:
podman and buildah read the stderr they gave us until its end, and would wait for ever on a daemon that keeps it.
All other descriptors of the caller are cut off at once, for the same reason (a pipe, or a lock, that a script holds):
`serve` opens what it needs by itself.

*Signals.* SIGTERM, SIGINT and SIGHUP unmount, and the exit status is 0. A thread does it, woken through
signal.set_wakeup_fd: the main thread may sit in C for ever (then a Python handler is never run), or have to answer
the requests that unmounting makes. A busy mount is reported and detached (MNT_DETACH): its open files go on, and the
daemon ends with the last of them, or at once by another signal.

A daemon that is killed leaves a dead mount (ENOTCONN), which `umount` clears and `check_mountpoint` explains.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from unionfs.errors import MountError, UnionFSError
from unionfs.linux.mount import mountinfo
from unionfs.linux.process import cut_off, raise_nofile_limit, reserve_descriptors
from unionfs.mounts.control import error_from_json, error_to_json
from unionfs.mounts.mountpoint import detach

Ready = Callable[[], None]
Serve = Callable[[Ready], None]
Unmount = Callable[[bool], None]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("unionfs.daemon")


def run_in_background(
    serve: Serve, mountpoint: bytes, *, log_file: bytes | str | None = None, unmount: Unmount | None = None
) -> int:
    """Serve in a new process; returns its pid once the mount answers.

    Raises what `serve` raised before it was ready (UnionFSError and OSError as they were), MountError if the process
    died or had a bug, or if `log_file` (appended to; made 0600) cannot be opened. `unmount(lazy)` is what signals do;
    by default `mountpoint` is detached. The new process never returns from here.
    """
    log_fd = None if log_file is None else _open_log(log_file)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # else the child would write it again
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _daemon(serve, mountpoint, writer, log_fd, unmount)
    os.close(writer)
    if log_fd is not None:
        os.close(log_fd)
    try:
        with open(reader, "rb") as pipe:
            message = pipe.readline()
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        raise
    if message == b'{"ready": true}\n':
        return pid
    _, status = os.waitpid(pid, 0)
    raise _told(message, os.waitstatus_to_exitcode(status))


def _told(message: bytes, exit_code: int) -> UnionFSError | OSError:
    try:
        told = json.loads(message)["error"]
    except (ValueError, KeyError, TypeError):
        how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited with {exit_code}"
        return MountError(f"the daemon {how} before the mount was ready", hint="run it with -f to see more")
    return error_from_json(told)


def run_in_foreground(
    serve: Serve,
    mountpoint: bytes,
    *,
    log_file: bytes | str | None = None,
    debug: bool = False,
    unmount: Unmount | None = None,
) -> None:
    """Serve in this process (its main thread) until unmounted, by a signal or by anybody. What `serve` raises comes
    out as it is. With `log_file` the log goes there instead of to stderr; with `debug` it has every request."""
    handler = logging.StreamHandler(sys.stderr) if log_file is None else logging.StreamHandler(_LogFile(log_file))
    level = logging.DEBUG if debug else logging.NOTSET
    raise_nofile_limit()
    reserve_descriptors()
    with _logging_to(handler, level), _signals(mountpoint, unmount) as mounted:
        os.umask(0)  # modes of new files are the callers' affair
        serve(mounted)


def _daemon(serve: Serve, mountpoint: bytes, writer: int, log_fd: int | None, unmount: Unmount | None) -> NoReturn:
    """The child. Leaves by os._exit only: whatever the parent registered to happen at exit is the parent's."""
    status = 1
    told = False  # what the parent waits for

    def tell(message: dict[str, Any]) -> None:
        nonlocal told
        told = True
        with open(writer, "wb") as pipe:
            pipe.write(json.dumps(message).encode() + b"\n")

    try:
        os.setsid()
        cut_off({0, 1, 2, writer, *(() if log_fd is None else (log_fd,))})
        os.umask(0)
        raise_nofile_limit()
        reserve_descriptors()
        with _logging_to(logging.StreamHandler(sys.stderr)), _signals(mountpoint, unmount) as mounted:

            def ready() -> None:
                mounted()
                os.chdir("/")
                _redirect(log_fd)
                tell({"ready": True})

            serve(ready)
        status = 0
        if not told:
            tell({"error": error_to_json(MountError("the mount ended before it was ready"))})
    except BaseException as error:
        try:
            if not isinstance(error, (UnionFSError, OSError)) or told:
                log.error("the daemon failed", exc_info=True)
            if not told:
                tell({"error": error_to_json(error)})
        except OSError:
            pass  # the parent is gone
    finally:
        os._exit(status)


def _open_log(path: bytes | str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MountError(f"cannot open the log file {os.fsdecode(path)}: {error.strerror}") from None


def _redirect(log_fd: int | None) -> None:
    """0 reads nothing; 1 and 2 go to the log, or nowhere."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.dup2(null, 0)
    for fd in (1, 2):
        os.dup2(null if log_fd is None else log_fd, fd)
    for opened in (null, log_fd):
        if opened is not None and opened > 2:
            os.close(opened)


class _LogFile:
    """A text stream on a log file, one write per record."""

    def __init__(self, path: bytes | str) -> None:
        self._fd = _open_log(path)

    def write(self, text: str) -> None:
        os.write(self._fd, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        pass


@contextmanager
def _logging_to(handler: logging.Handler, level: int = logging.NOTSET) -> Iterator[None]:
    """Records of "unionfs" from `level` on (NOTSET: as the root logger has it) go to `handler`, each with time and
    process."""
    logger = logging.getLogger("unionfs")
    before = logger.level
    logger.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _signals(mountpoint: bytes, unmount: Unmount | None) -> Iterator[Ready]:
    """While it lasts, SIGNALS unmount. Gives the function to call when the mount is there."""
    watcher = _Watcher(mountpoint, unmount or (lambda lazy: detach(mountpoint, lazy)))
    before = {number: signal.signal(number, _noticed) for number in SIGNALS}
    wakeup_before = signal.set_wakeup_fd(watcher.writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield watcher.mounted
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        watcher.stop()


def _noticed(number: int, frame: object) -> None:
    """A handler must exist for the wakeup descriptor to be written; the watcher does the work."""


class _Watcher:
    """The thread that unmounts when a signal comes."""

    def __init__(self, mountpoint: bytes, unmount: Unmount) -> None:
        self._mountpoint = mountpoint
        self._unmount = unmount
        self._before = _top_mount(mountpoint)
        self._is_mounted = False
        self._reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.writer.close()  # ends the watch
        self._thread.join()
        self._reader.close()

    def mounted(self) -> None:
        self._is_mounted = True

    def _watch(self) -> None:
        detached = False
        while received := self._reader.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            name = signal.Signals(number).name
            if not self._is_mounted:
                self._give_up(number)
            try:
                self._unmount(False)
                log.info("%s: unmounted", name)
            except (UnionFSError, OSError) as error:
                if detached:
                    log.error("%s again: ending at once", name)
                    os._exit(1)
                log.warning("%s: %s; detached: the daemon ends when the last file is closed", name, error)
                self._detach()
                detached = True

    def _detach(self) -> None:
        try:
            self._unmount(True)
        except (UnionFSError, OSError) as error:
            log.error("cannot detach: %s", error)

    def _give_up(self, number: int) -> NoReturn:
        """Signalled before the mount was ready: nobody uses it yet. Take away what may be there already, and go."""
        if _top_mount(self._mountpoint) != self._before:
            self._detach()
        os._exit(128 + number)


def _top_mount(mountpoint: bytes) -> int | None:
    """The id of the topmost mount on `mountpoint`."""
    ids = [row.mount_id for row in mountinfo() if row.mountpoint == mountpoint]
    return ids[-1] if ids else None
