"""A further process in a container that runs: what is executed, as whom, and how it ends.

The process is the runtime's to make (`exec --process FILE`), of what the container's own has: its environment, working
directory and capabilities, but for what was asked for. If who began it goes away, it goes on.

With a terminal the runtime sends its master over a socket (`--console-socket`), and it is carried to the user's here;
else the streams are the caller's own. Where nobody waits (-d) a process of ours stays behind to hold that terminal.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from unionfs.containers import runtime, spec, terminal
from unionfs.containers.container import Place, State
from unionfs.containers.users import find_user
from unionfs.errors import ContainerError
from unionfs.linux.process import cut_off, set_child_subreaper


class Execution(NamedTuple):
    """What is asked for. None: as the container has it. `detach`: do not wait for it."""

    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    working_directory: str | None = None
    user: str | None = None
    terminal: bool = False
    interactive: bool = False
    detach: bool = False


def process_of(bundle: Mapping[str, Any], asked: Execution, root_fd: int) -> dict[str, Any]:
    """The runtime's `process` (runtime-spec config.md), made of the container's own. `root_fd`: where users are."""
    process = dict(bundle["process"])
    environment = {pair.partition("=")[0]: pair for pair in process["env"]}
    if asked.terminal:
        environment.setdefault("TERM", "TERM=xterm")
    if asked.user is not None:
        user = find_user(root_fd, asked.user)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
        process["capabilities"] = spec.capabilities(user)
        environment["HOME"] = f"HOME={user.home}"
    for pair in asked.environment:
        name, equals, _ = pair.partition("=")
        if equals:
            environment[name] = pair
        else:
            environment.pop(name, None)
    process.pop("consoleSize", None)
    if asked.terminal and (size := terminal.window_size()) is not None:
        process["consoleSize"] = spec.console_size(size)
    return process | {
        "args": list(asked.command),
        "env": list(environment.values()),
        "cwd": asked.working_directory or process["cwd"],
        "terminal": asked.terminal,
    }


def execute(place: Place, state: State, id: str, asked: Execution) -> terminal.Ended:
    """Do it, with this process's streams, in this process: it goes to the container's directory."""
    assert state.process is not None
    os.chdir(place.directory)
    with open(place.bundle, "rb") as file:
        bundle = json.load(file)
    root_fd = os.open(f"/proc/{state.process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        process = process_of(bundle, asked, root_fd)
    finally:
        os.close(root_fd)
    with _files() as names:
        with open(names.process, "xb") as file:
            file.write(spec.encode(process))
        argv = [*state.runtime, "--log", names.log, "--log-format", "json", "exec", "--process", names.process]
        if not asked.terminal:
            status = _run(argv, asked, id)
        else:
            status = _leave_on_terminal(argv, names, id) if asked.detach else _run_on_terminal(argv, names, asked, id)
        failure = runtime.failure(os.fsencode(names.log), "") if status else None
        if failure is None or not failure.said:
            return terminal.Ended(status)
        # The runtime says it on its stderr too, which is the user's.
        told = not (asked.terminal or asked.detach)
        return terminal.Ended(failure.status, None if told else ContainerError(failure.message))


class _Names(NamedTuple):
    process: str
    log: str
    console: str
    pid: str


@contextmanager
def _files() -> Iterator[_Names]:
    """Names in the container's directory that nobody else has, relative: unix(7) allows a socket's 107 bytes."""
    stem = f"exec-{os.getpid()}"
    names = _Names(*(f"{stem}.{end}" for end in ("json", "log", "sock", "pid")))
    _remove(names)
    try:
        yield names
    finally:
        _remove(names)


def _remove(names: _Names) -> None:
    for name in names:
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def _run(argv: list[str], asked: Execution, id: str) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        if asked.detach:
            return runtime.finished(runtime.spawn([*argv, "--detach", id], (null, null, null)))
        return runtime.finished(runtime.spawn([*argv, id], (0 if asked.interactive else null, 1, 2)))
    finally:
        os.close(null)


def _run_on_terminal(argv: list[str], names: _Names, asked: Execution, id: str) -> int:
    """The runtime gives a terminal away only if it does not wait itself: the process is then to be this one's child."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        terminal.catching(terminal=True) as signals,
        _adopting(),
    ):
        status, pid = _begin_on_terminal(listener, argv, names, id)
        if status:
            return status
        with runtime.pidfd(pid) as ended:
            master = terminal.received(listener, ended)
            if master is not None:
                try:
                    terminal.carry(master, 0 if asked.interactive else None, signals, ended)
                finally:
                    os.close(master)
        return runtime.finished(pid)


def _begin_on_terminal(listener: socket.socket, argv: list[str], names: _Names, id: str) -> tuple[int, int]:
    """The runtime's exit status, and the process's pid, whose terminal comes by `listener`."""
    listener.bind(names.console)
    listener.listen(1)
    more = ["--detach", "--pid-file", names.pid, "--console-socket", names.console]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = runtime.finished(runtime.spawn([*argv, *more, id], (null, null, null)))
    finally:
        os.close(null)
    if status:
        return status, -1
    with open(names.pid, "rb") as file:
        return 0, int(file.read())


def _leave_on_terminal(argv: list[str], names: _Names, id: str) -> int:
    """The runtime's exit status. The process has a terminal as long as it runs: who would take the terminal's last
    descriptor with him would hang it up (tty_ioctl(4))."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _hold_terminal(argv, names, id, writer)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, "rb") as told:
        answer = told.read()
    if not answer:
        raise ContainerError("the process that was to hold the terminal has ended")
    return int(answer)


def _hold_terminal(argv: list[str], names: _Names, id: str, told: int) -> NoReturn:
    try:
        os.setsid()
        cut_off({told})
        set_child_subreaper()  # so that the number stays the process's
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            status, pid = _begin_on_terminal(listener, argv, names, id)
            master = None
            if not status:
                with runtime.pidfd(pid) as ended:
                    master = terminal.received(listener, ended)
        os.write(told, b"%d" % status)
        os.close(told)
        while master is not None and os.read(master, 1 << 16):
            pass
    finally:  # EIO: nobody has the terminal open any more
        os._exit(0)


@contextmanager
def _adopting() -> Iterator[None]:
    set_child_subreaper()
    try:
        yield
    finally:
        set_child_subreaper(False)
