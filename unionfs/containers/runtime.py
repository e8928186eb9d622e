"""The OCI runtime (opencontainers/runtime-spec runtime.md) as a program: which one, and what is asked of it.

crun where it can, since it is the quickest; runc where there are control groups of both versions beside each other,
which crun refuses. $UNIONFS_RUNTIME names another.

What a runtime says when it fails, it says in its log, one JSON object a line: its stderr is the container's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from unionfs.containers.cgroups import Cgroups
from unionfs.containers.container import UNSEEN_EXIT
from unionfs.errors import ContainerError

RUNTIMES: Final = ("crun", "runc")

#: docker's exit statuses (docker run --help, "Exit status"): its own failure, a command that cannot be invoked, one
#: that is not there.
FAILED: Final = 125
CANNOT_INVOKE: Final = 126
NOT_FOUND: Final = 127

_NOT_FOUND = re.compile(
    r"not found in \$PATH|exec.*no such file or directory|executable file .* not found", re.I | re.S
)
_NO_PERMISSION = re.compile(
    r"exec.*(permission denied|is a directory|exec format error)|open executable|.*Permission denied|Exec format error",
    re.I | re.S,
)


def choose(cgroups: Cgroups, environ: Mapping[str, str]) -> str:
    """The path of the runtime's program. ContainerError where there is none."""
    if explicit := environ.get("UNIONFS_RUNTIME"):
        found = shutil.which(explicit)
        if found is None:
            raise ContainerError(f"there is no runtime {explicit}, which UNIONFS_RUNTIME names")
        return found
    fit = RUNTIMES if cgroups.mode != "hybrid" else ("runc",)
    for name in fit:
        if (found := shutil.which(name)) is not None:
            return found
    if len(fit) < len(RUNTIMES):
        raise ContainerError(
            "control groups of both versions are mounted here, which crun cannot use, and there is no runc",
            hint="apt-get install runc",
        )
    raise ContainerError("there is no OCI runtime to run containers with", hint="apt-get install crun")


def arguments(program: str, root: bytes, *, with_cgroups: bool) -> tuple[str, ...]:
    """What every call begins with. `root`: where the runtime keeps what it knows of containers that run."""
    options = ["--root", os.fsdecode(root)]
    if os.path.basename(program) == "crun":
        options.append("--cgroup-manager=cgroupfs" if with_cgroups else "--cgroup-manager=disabled")
    return (program, *options)


class Failure(NamedTuple):
    """Why a runtime failed, and the exit status that docker has for it. `said`: it said why."""

    message: str
    status: int
    said: bool = True


def spawn(
    argv: list[str] | list[str | bytes],
    stdio: tuple[int, int, int],
    *,
    environ: Mapping[bytes, bytes] | None = None,
    new_session: bool = False,
) -> int:
    """The pid of a new process with these descriptors as 0, 1 and 2, and with no signal blocked or ignored."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    return os.posix_spawn(
        argv[0],
        argv,
        os.environb if environ is None else environ,
        file_actions=actions,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        setsid=new_session,
    )


def begin(runtime: Sequence[str], *arguments: str | bytes) -> int:
    """The pid of one call that reads and says nothing."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return spawn([*runtime, *arguments], (null, null, null))
    finally:
        os.close(null)


def call(runtime: Sequence[str], *arguments: str | bytes) -> int:
    """The exit status of one."""
    return finished(begin(runtime, *arguments))


def finished(pid: int) -> int:
    """Wait for a child; its exit status as a shell has it. UNSEEN_EXIT where somebody else had it.

    A process that crun has made in the background (`run --detach`, `exec --detach`) is a child of a crun that ends a
    moment after the one that was called, and only then of this process, a subreaper.
    """
    while True:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            if not os.path.exists(f"/proc/{pid}"):
                return UNSEEN_EXIT
            time.sleep(0.001)
        else:
            return code if code >= 0 else 128 - code


@contextmanager
def pidfd(pid: int) -> Iterator[int]:
    """A descriptor that can be read when a process has ended."""
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def failure(log: bytes, program: str) -> Failure:
    """What a runtime's log says last."""
    message = ""
    try:
        with open(log, "rb") as file:
            for line in file.read().splitlines():
                told = json.loads(line)
                if told.get("level") in ("error", "fatal"):
                    message = str(told["msg"])
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    if not message:
        return Failure(f"{os.path.basename(program)} failed, and does not say why", FAILED, said=False)
    return Failure(message, status_of(message))


def status_of(message: str) -> int:
    if _NOT_FOUND.search(message):
        return NOT_FOUND
    return CANNOT_INVOKE if _NO_PERMISSION.search(message) else FAILED
