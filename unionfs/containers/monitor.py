"""The process beside each container that runs: it starts the container, carries its output, and sees its end.

It is forked by who starts the container (or was forked ahead of that, api.container_worker), and goes on by itself: it
leads a session of its own, and is what the container's init belongs to once the runtime has ended
(PR_SET_CHILD_SUBREAPER), so that it learns the exit status.

    network → mount → spec → runtime run → STARTED … exit → runtime delete → unmount → record → EXIT

INVARIANT: it holds the container's lock from before the mount until it ends. Whoever gets that lock while the state
says "running" knows that the monitor was killed, and puts right what is left (`recovery`).

Output goes to the log first and then to whoever watches (`frames`). A watcher who does not read holds the container up
once WATCHER_LIMIT bytes wait for him; one who goes away does not. One thread does everything: what it waits for is in
one poll.

The daemon of the mount is a child of the monitor. If it dies, the container has lost its root, and is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, NoReturn

from unionfs.containers import cgroups, frames, preparation, recovery, runtime, spec, terminal, userns, volumes
from unionfs.containers.container import Container, Place, Process, State, boot_id
from unionfs.containers.logs import LogWriter
from unionfs.containers.store import Containers
from unionfs.errors import ContainerError, ProtocolError, UnionFSError
from unionfs.linux.process import cut_off, set_child_subreaper
from unionfs.mounts.control import error_to_json

#: Bytes that may wait for one watcher.
WATCHER_LIMIT: Final = 1 << 20
_READ: Final = 1 << 16
_LISTEN_BACKLOG: Final = 64


class Mounts(NamedTuple):
    """How the root is mounted, which answers the daemon's pid; and unmounted, whatever state it is in."""

    mount: Callable[[Place], int]
    unmount: Callable[[Place], None]


class Task(NamedTuple):
    """What a monitor is to do. `runtime_directory`: of the mounts registry. `mapping`: of the user namespace that it
    is to live in, if it is not that of the caller."""

    containers: Containers
    container: Container
    mounts: Mounts
    preparation: preparation.Host
    runtime_directory: bytes
    mapping: userns.Mapping | None = None


class StartFailed(UnionFSError):
    """The container did not come to run; `status` as docker's. `misfit`: of a volume, which was why."""

    def __init__(self, failure: runtime.Failure, misfit: volumes.Misfit | None = None) -> None:
        if misfit is None:
            super().__init__(failure.message)
        else:
            super().__init__(f"{misfit.message}: {failure.message}", hint=misfit.hint)
        self.status = failure.status


def start(task: Task, lock: int, watcher: socket.socket | None, *, here: bool = False) -> None:
    """Fork the monitor, which has `lock`, and tells `watcher` (the far end of what the caller reads) how it goes.

    Both descriptors are the monitor's then; the caller closes its own. `here`: this process has nothing else to do, and
    is the monitor itself, unless that has to live in another user namespace.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if (here and task.mapping is None) or userns.fork(task.mapping) == 0:
        _main(task, lock, watcher)


def _main(task: Task, lock: int, watcher: socket.socket | None) -> NoReturn:
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.umask(0o022)  # of volumes that are made, not of who ran it
        # In a user namespace it is root, who would take another.
        os.environb[b"UNIONFS_RUNTIME_DIR"] = task.runtime_directory
        set_child_subreaper()
        _reset_signals()
        place = task.containers.place(task.container.id)
        os.chdir(place.directory)
        _redirect(place.monitor_log, {lock} if watcher is None else {lock, watcher.fileno()})
        _Monitor(task, place).run(watcher)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _reset_signals() -> None:
    """What the caller has is not for this process. It is a session of its own; who ends it ends the container."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in signal.Signals.__members__.values() and callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _redirect(log: bytes, keep: set[int]) -> None:
    """Let nothing of the caller's stay open; errors go to the log."""
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    cut_off({errors, *keep})
    os.dup2(errors, 2)
    os.close(errors)


class _Watcher:
    """One connection: what it wants, and what waits to be sent."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.frames = frames.Frames()
        self.attached = False
        self.waiting = bytearray()
        self.owner = False  # whose input ends the container's (docker's StdinOnce)

    def send(self, kind: bytes, data: bytes = b"") -> None:
        self.waiting += frames.frame(kind, data)

    def send_json(self, kind: bytes, value: Any) -> None:
        self.send(kind, json.dumps(value).encode())

    def flush(self) -> bool:
        """False where nobody is there any more."""
        try:
            while self.waiting:
                sent = self.socket.send(self.waiting[: 1 << 18], socket.MSG_NOSIGNAL)
                del self.waiting[:sent]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class _Streams(NamedTuple):
    """The monitor's ends of the container's standard streams; -1 is none. A terminal is one descriptor."""

    stdin: int
    stdout: int
    stderr: int


class _Monitor:
    def __init__(self, task: Task, place: Place) -> None:
        self._task = task
        self._container = task.container
        self._containers = task.containers
        self._place = place
        self._settings = task.container.settings
        self._watchers: list[_Watcher] = []
        self._listener: socket.socket | None = None
        self._state = State(monitor=Process.of(os.getpid()), boot=boot_id())
        self._log: LogWriter | None = None
        self._init = -1  # pid
        self._input = bytearray()
        self._input_ended = False
        self._streams = _Streams(-1, -1, -1)
        self._daemon = -1  # pid
        self._killed_for = ""

    # from start to end ----------------------------------------------------------------------------------------------
    def run(self, first: socket.socket | None) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: self._signal(number))
        if first is not None:
            watcher = _Watcher(first)
            watcher.owner = True
            self._watchers.append(watcher)
        before = self._containers.state(self._container)
        if before.monitor is not None:  # which was killed, and has left what it had
            recovery.clean_locked(self._containers, self._container, before, self._task.mounts.unmount)
        self._state = before._replace(
            monitor=Process.of(os.getpid()), boot=boot_id(), error="", running=False, process=None, runtime=()
        )
        self._write_state()
        try:
            with self._network() as network:
                self._start(network)
                self._log = LogWriter(self._place.log)
                self._carry()
        except (UnionFSError, OSError) as error:
            self._failed(error)
            return
        except BaseException as error:
            self._failed(error)
            raise
        self._ended()

    def _start(self, network: preparation.NetworkOf) -> None:
        self._daemon = self._task.mounts.mount(self._place)
        prepared = preparation.prepare(self._container, self._place, self._task.preparation, network)
        self._state = self._state._replace(runtime=prepared.runtime, rootless=self._task.preparation.rootless)
        self._write_state()  # from here on there may be a container of the runtime's, whoever is killed
        with self._standard_streams() as theirs:
            self._create(prepared.runtime, theirs)
        if prepared.filter is not None:
            prepared.filter.keep(self._container.id)
        self._listen()
        self._state = self._state._replace(
            running=True, process=Process.of(self._init), started=time.time(), finished=None, exit_code=0,
            oom_killed=False, ports=network.ports,
        )  # fmt: skip
        self._write_state()
        for watcher in self._watchers:
            watcher.attached = watcher.owner
            watcher.send_json(frames.STARTED, {"pid": self._init})
            watcher.flush()

    def _logging(self) -> tuple[str, ...]:
        return ("--log", os.fsdecode(self._place.runtime_log), "--log-format", "json")

    def _create(self, called: tuple[str, ...], theirs: tuple[int, int, int]) -> None:
        """Have the runtime run the container, and learn its init's pid."""
        for path in (self._place.runtime_log, self._place.pid_file):
            _unlink(path)
        console = ["--console-socket", "console.sock"] if self._settings.terminal else []
        argv = [
            *called, *self._logging(), "run", "--detach", "--bundle", ".", "--pid-file", "pid", *console,
            self._container.id,
        ]  # fmt: skip
        with self._console() as console_socket:
            pid = runtime.spawn(argv, theirs)
            _, status = os.waitpid(pid, 0)
            if status:
                raise self._start_failed(runtime.failure(self._place.runtime_log, called[0]))
            with open(self._place.pid_file, "rb") as file:
                self._init = int(file.read())
            if console_socket is not None:
                master = terminal.received(console_socket)
                if master is None:
                    raise ContainerError("the runtime gave no terminal")
                self._streams = _Streams(master, master, -1)

    def _start_failed(self, failure: runtime.Failure) -> StartFailed:
        wanted = spec.volumes(self._settings, self._container.config)
        root_fd = os.open(self._place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return StartFailed(failure, volumes.misfit(wanted, root_fd, failure.message))
        finally:
            os.close(root_fd)

    @contextmanager
    def _console(self) -> Iterator[socket.socket | None]:
        if not self._settings.terminal:
            yield None
            return
        _unlink(self._place.console)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind("console.sock")  # relative: unix(7) allows 107 bytes
            listener.listen(1)
            try:
                yield listener
            finally:
                _unlink(self._place.console)

    @contextmanager
    def _standard_streams(self) -> Iterator[tuple[int, int, int]]:
        """The container's ends, for the block; ours are kept."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs = [null]
        try:
            if self._settings.terminal:
                yield null, null, null
                return
            stdin, ours_in = os.pipe() if self._settings.interactive else (null, -1)
            ours_out, stdout = os.pipe()
            ours_err, stderr = os.pipe()
            theirs += [fd for fd in (stdin, stdout, stderr) if fd != null]
            self._streams = _Streams(ours_in, ours_out, ours_err)
            yield stdin, stdout, stderr
        finally:
            for fd in theirs:
                os.close(fd)

    def _network(self) -> preparation.NetworkOf:
        return preparation.NetworkOf(self._container.settings, self._place)

    # while it runs --------------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        _unlink(self._place.attach)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o077)
        try:
            listener.bind("attach.sock")
        finally:
            os.umask(umask)
        listener.listen(_LISTEN_BACKLOG)
        listener.setblocking(False)
        self._listener = listener

    def _carry(self) -> None:
        """Until the container has ended, and all that it wrote is in the log."""
        with runtime.pidfd(self._init) as init, runtime.pidfd(self._daemon) as daemon:
            for fd in self._streams:
                if fd >= 0:
                    os.set_blocking(fd, False)
            sources = {fd: stream for fd, stream in ((self._streams.stdout, 1), (self._streams.stderr, 2)) if fd >= 0}
            while True:
                ready = self._poll(sources, init, daemon)
                if init in ready:
                    break
                if daemon in ready and not self._killed_for:
                    self._killed_for = "its root file system is gone: the daemon of the mount has ended"
                    self._signal(signal.SIGKILL)
                for fd in [fd for fd in sources if fd in ready]:
                    if not self._read_output(fd, sources[fd]):
                        del sources[fd]
            for fd, stream in sources.items():
                while self._read_output(fd, stream, last=True):
                    self._flush()

    def _poll(self, sources: dict[int, int], init: int, daemon: int) -> set[int]:
        """What is ready of `sources` and the two processes; all else that is ready is dealt with."""
        poll = select.poll()
        for fd in (init, *(() if self._killed_for else (daemon,))):
            poll.register(fd, select.POLLIN)
        if not any(len(watcher.waiting) > WATCHER_LIMIT for watcher in self._watchers):
            for fd in sources:
                poll.register(fd, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        if self._input and self._streams.stdin >= 0:
            # One descriptor is in a poll once: a terminal is its own input.
            also = select.POLLIN if self._streams.stdin in sources else 0
            poll.register(self._streams.stdin, select.POLLOUT | also)
        self._register_watchers(poll)
        ready = dict(poll.poll())
        self._serve_watchers(ready)
        if self._streams.stdin >= 0 and ready.get(self._streams.stdin, 0) & (select.POLLOUT | select.POLLERR):
            self._write_input()
        self._flush()
        return {fd for fd, events in ready.items() if events & ~select.POLLOUT}

    def _register_watchers(self, poll: select.poll) -> None:
        for watcher in self._watchers:
            # Who sends more input than the container takes waits.
            events = select.POLLIN if len(self._input) <= WATCHER_LIMIT else 0
            poll.register(watcher.socket, events | (select.POLLOUT if watcher.waiting else 0))

    def _serve_watchers(self, ready: dict[int, int]) -> None:
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept()
        for watcher in list(self._watchers):
            events = ready.get(watcher.socket.fileno(), 0)
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._hear(watcher)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._watchers.append(_Watcher(connection))

    def _hear(self, watcher: _Watcher) -> None:
        try:
            data = watcher.socket.recv(_READ)
            if data:
                for kind, content in watcher.frames.feed(data):
                    self._obey(watcher, kind, content)
                return
        except BlockingIOError:
            return
        except (OSError, ProtocolError, ValueError, KeyError):
            pass
        self._drop(watcher)

    def _drop(self, watcher: _Watcher) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            watcher.socket.close()

    def _obey(self, watcher: _Watcher, kind: bytes, content: bytes) -> None:
        if kind == frames.HELLO:
            watcher.attached = json.loads(content)["want"] == "attach"
            watcher.send_json(frames.STARTED, {"pid": self._init})
        elif kind == frames.STDIN:
            self._take_input(content)
        elif kind == frames.SIGNAL:
            self._answer_signal(watcher, int(content))
        elif kind == frames.WINDOW and self._settings.terminal and self._streams.stdin >= 0:
            import termios

            rows, columns = map(int, content.split())
            termios.tcsetwinsize(self._streams.stdin, (rows, columns))

    def _answer_signal(self, watcher: _Watcher, number: int) -> None:
        try:
            self._signal(number)
            watcher.send(frames.DONE)
        except OSError as error:
            watcher.send_json(frames.FAILED, error_to_json(error))

    def _signal(self, number: int) -> None:
        """To the container's init, which is this process's child until it is waited for."""
        if self._init > 0:
            os.kill(self._init, number)

    def _take_input(self, data: bytes) -> None:
        if self._streams.stdin < 0 or self._input_ended:
            return
        self._input += data
        if not data:
            self._input_ended = True
        self._write_input()

    def _write_input(self) -> None:
        try:
            while self._input:
                del self._input[: os.write(self._streams.stdin, self._input)]
        except BlockingIOError:
            return
        except OSError:
            self._input.clear()  # nobody reads it
            self._input_ended = True
        if self._input_ended and not self._settings.terminal:
            os.close(self._streams.stdin)
            self._streams = self._streams._replace(stdin=-1)

    def _read_output(self, fd: int, stream: int, *, last: bool = False) -> bool:
        """One piece of output; False at its end. `last`: nobody writes any more."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return not last
        except OSError:
            data = b""  # EIO: a terminal that nobody has open
        if not data:
            return False
        if self._log is not None:
            self._log.write(stream, data)
        kind = frames.STDOUT if stream == 1 else frames.STDERR
        for watcher in self._watchers:
            if watcher.attached:
                watcher.send(kind, data)
        return True

    def _flush(self) -> None:
        for watcher in list(self._watchers):
            if not watcher.flush():
                self._drop(watcher)

    # the end --------------------------------------------------------------------------------------------------------
    def _ended(self) -> None:
        """The init has ended, and is waited for."""
        code = runtime.finished(self._init)
        self._init = -1
        if self._log is not None:
            self._log.close()
        # Before the runtime takes the group away.
        starved = cgroups.killed_for_memory(self._task.preparation.cgroups, self._container.id)
        self._finish(
            self._state._replace(
                running=False, process=None, monitor=None, finished=time.time(), exit_code=code,
                error=self._killed_for, oom_killed=starved,
            ),
            {"status": code},
        )  # fmt: skip

    def _failed(self, error: BaseException) -> None:
        """It did not come to run, or was lost by a bug of ours."""
        if self._init > 0:
            try:
                os.kill(self._init, signal.SIGKILL)
                os.waitpid(self._init, 0)
            except OSError:
                pass
            self._init = -1
        code = error.status if isinstance(error, StartFailed) else runtime.FAILED
        for watcher in self._watchers:
            watcher.send_json(frames.FAILED, error_to_json(_told(error)))
        state = self._state._replace(running=False, process=None, monitor=None, exit_code=code, error=str(error))
        self._finish(state, {"status": code})

    def _finish(self, state: State, told: dict[str, Any]) -> None:
        """Nothing of the run stays but what it wrote; then who watches hears of it."""
        self._clean_up(state)
        try:
            if self._container.auto_remove:
                os.chdir("/")
                self._containers.remove(self._container)
            else:
                self._containers.write_state(self._container, state, flush=True)
        except OSError:
            traceback.print_exc()  # whoever looks next settles it
        for watcher in self._watchers:
            watcher.send_json(frames.EXIT, told)
        self._last_words()

    def _clean_up(self, state: State) -> None:
        if self._listener is not None:
            self._listener.close()
        deleting = runtime.begin(state.runtime, "delete", "--force", self._container.id) if state.runtime else -1
        for path in (self._place.attach, self._place.console, self._place.pid_file):
            _unlink(path)
        try:
            self._task.mounts.unmount(self._place)
        except (UnionFSError, OSError):
            traceback.print_exc()
        if deleting > 0:
            runtime.finished(deleting)

    def _last_words(self) -> None:
        """What waits for the watchers, as long as they are there."""
        while self._watchers:
            self._flush()
            self._watchers = [watcher for watcher in self._watchers if watcher.waiting]
            poll = select.poll()
            for watcher in self._watchers:
                poll.register(watcher.socket, select.POLLOUT)
            if self._watchers:
                poll.poll()

    def _write_state(self) -> None:
        self._containers.write_state(self._container, self._state)


def _told(error: BaseException) -> BaseException:
    """As another process can be told."""
    return ContainerError(str(error), hint=error.hint) if isinstance(error, StartFailed) else error


def _unlink(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
