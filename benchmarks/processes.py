"""Child processes with a time limit: the only thing that is ever timed, and the only way a mount is touched.

A step is one client program from before its start to after its end, on the monotonic clock. Its start (some 1–2 ms
of fork and exec) is part of every engine's time alike and is recorded as `spawn_seconds` in the machine facts.

Output goes to a memfd: no file system under test, no pipe whose reader would add wake-ups. What a client prints to
standard error is a failure unless the workload expects it (dd's summary), because the shell has no exit status for
the left side of a pipe.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Every process of a run carries this variable, so that daemons that detached themselves are still known as ours.
MARKER = "UNIONFS_BENCHMARK_RUN"

#: nobody: the ordinary user of the `*-user` peers.
USER_ID = 65534


class StepError(Exception):
    """A client failed: exit status or words on standard error."""


class StepTimedOut(StepError):
    """A client did not end within its limit, and was killed."""


class WrongResult(Exception):
    """A client ended well, yet what it left or printed is not what the workload must leave or print."""


@dataclass(frozen=True, slots=True)
class Step:
    """One ended client. `seconds` wall clock; `cpu_seconds` of it, its children and the servers of its mount; `stdout`
    and `stderr` whole."""

    seconds: float
    cpu_seconds: float
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Runner:
    """Starts client programs. `environment` holds the marker; `user` runs them as `USER_ID`; `limit` in seconds.

    `on_timeout` is called before the client is killed: it must make the mount answer or fail (abort the
    connection), for a client that waits for a FUSE reply may not die before. `servers`: processes whose processor
    time is part of a client's.
    """

    environment: dict[str, str]
    limit: float
    user: bool = False
    on_timeout: Callable[[], None] | None = None
    servers: Sequence[int] = ()

    def run(self, argv: Sequence[str], *, words_expected: bool = False, cwd: str = "/") -> Step:
        """Run to the end. `words_expected`: standard error may hold text. Raises `StepError` or `StepTimedOut`."""
        out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
        try:
            busy = self._cpu_seconds()
            started = time.perf_counter()
            process = start(argv, self.environment, user=self.user, stdout=out, stderr=err, cwd=cwd)
            try:
                self._wait(process, argv)
            finally:
                kill_group(process)
            seconds = time.perf_counter() - started
            step = Step(seconds, self._cpu_seconds() - busy, read_all(out), read_all(err))
        finally:
            os.close(out)
            os.close(err)
        if process.returncode != 0 or (step.stderr and not words_expected):
            raise StepError(f"{argv[0]}: exit {process.returncode}: {gist(step.stderr)}")
        return step

    def _cpu_seconds(self) -> float:
        """Processor time so far of the servers and of all ended children of the runner (getrusage(2))."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime + sum(map(thread_seconds, self.servers))

    def _wait(self, process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
        """Block until `process` ends. Not `Popen.wait(timeout)`: that polls, up to 50 ms late."""
        if not ended_within(process, self.limit):
            if self.on_timeout is not None:
                self.on_timeout()
            kill_group(process)
            raise StepTimedOut(f"{argv[0]}: not done after {self.limit:g} s")


def gist(output: bytes) -> str:
    """The line of a program's error output that says what is wrong: the last of a traceback, else the first."""
    lines = output.decode(errors="replace").strip().splitlines()
    if not lines:
        return "no message"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def start(
    argv: Sequence[str],
    environment: dict[str, str],
    *,
    stdout: int,
    stderr: int,
    user: bool = False,
    cwd: str = "/",
) -> subprocess.Popen[bytes]:
    """A child in its own session, as root or as `USER_ID`. The caller waits for it and ends its group.

    Raises `StepError` where the program cannot be executed.
    """
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            user=USER_ID if user else None,
            group=USER_ID if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise StepError(f"{argv[0]}: {error.strerror}") from None


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """True once `process` has ended and been reaped; False when it still runs after `seconds`."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        process.wait()
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
    finally:
        os.close(pidfd)
    process.wait()
    return True


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a child's session. Idempotent; does nothing to a child that ended alone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    ended_within(process, 10)


def kill_pids(pids: Sequence[int]) -> None:
    """Kill processes that `marked_pids` found."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked_pids(environment: dict[str, str]) -> list[int]:
    """Live processes that carry this run's marker with this value, the runner itself excepted."""
    wanted = f"{MARKER}={environment[MARKER]}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if wanted in file.read().split(b"\0"):
                found.append(int(name))
    return found


def thread_seconds(pid: int) -> float:
    """Processor time of a process's live threads, from their schedstat, which counts nanoseconds and not ticks."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def resident_bytes(pids: Sequence[int]) -> int:
    """Sum of the resident set sizes (VmRSS of proc_pid_status(5)) of the processes that still live."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))
    return total


def read_all(fd: int) -> bytes:
    """The whole content of a regular file or memfd, whatever its offset."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
