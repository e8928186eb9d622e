"""Processes that stand still for a moment: all their threads, stopped through ptrace, unseen by their parents.

    frozen = Frozen()
    frozen.freeze(pids, …)      returns those that go on
    frozen.tend()               now and then: who is killed meanwhile is to be gone for its parent
    frozen.thaw()

INVARIANT: one thread makes and uses a `Frozen`: it is the tracer of those threads, and when it ends, or all of us do,
the kernel lets them go on. None of them is of a child of this process: waitpid(2) in any other thread of ours would
report such stops too (do_wait_pid() of kernel/exit.c), as if the child had been stopped by a signal.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from unionfs.linux import ptrace

#: Between two looks for a thread that is not stopped yet: first, and at most.
_LOOK_SECONDS, _LONGEST_LOOK = 0.0002, 0.01
#: After so long a thread that has not stopped may sleep in a system call, and it is looked at in which.
_SETTLE_SECONDS: Final = 0.1


class Frozen:
    """The threads that this thread has seized."""

    def __init__(self) -> None:
        self.processes: set[int] = set()
        self._stopped: dict[int, int] = {}  # thread -> the signal that it was about to get, or 0
        self._running: set[int] = set()  # seized, and not stopped yet

    def freeze(
        self, pids: Iterable[int], waiting: Callable[[], AbstractSet[int]], harmless: Callable[[int], bool],
        deadline: float,
    ) -> set[int]:  # fmt: skip
        """Stop processes, until `deadline` (time.monotonic). Returns those that could not be: not permitted, or busy in
        a system call of which nobody knows that it changes nothing.

        Threads in `waiting()`, and such that sleep in a system call and are `harmless(thread)`, need not stop: they
        will when they come out of it.
        """
        refused: set[int] = set()
        todo = set(pids)
        self.processes |= todo
        while todo:
            # Once more after each stop: threads that were made before their makers stopped.
            seized = {pid: self._seize(pid) for pid in todo}
            refused |= {pid for pid, count in seized.items() if count is None}
            todo = {pid for pid, count in seized.items() if count}
            if todo and not self._settle(waiting, harmless, deadline):
                refused |= {pid for pid in todo if _threads(pid) & self._running}
                break
        self.processes -= refused
        return refused

    def tend(self) -> None:
        """Take note of who has stopped, and bury the dead: a tracee that was killed is not gone before its tracer has
        waited for it."""
        while (stop := ptrace.next_stop()) is not None:
            thread, signal = stop
            self._running.discard(thread)
            if signal is None:
                self._stopped.pop(thread, None)
            else:
                self._stopped[thread] = signal

    def thaw(self) -> None:
        """All that have stopped go on. The others do when this thread ends."""
        self.tend()
        for thread, signal in self._stopped.items():
            try:
                ptrace.let_go(thread, signal)
            except ProcessLookupError:
                pass  # killed
        self._stopped.clear()
        self.processes.clear()

    def _seize(self, pid: int) -> int | None:
        """Have all threads that are not ours yet, and say how many they were. None where one may not be had."""
        seized = 0
        for thread in _threads(pid) - self._running - self._stopped.keys():
            try:
                ptrace.seize(thread)
            except ProcessLookupError:
                continue  # it has ended
            except OSError as error:
                if error.errno == errno.EPERM and _state(thread) in (b"Z", b"X"):
                    continue
                return None
            self._running.add(thread)
            seized += 1
        return seized

    def _settle(
        self, waiting: Callable[[], AbstractSet[int]], harmless: Callable[[int], bool], deadline: float
    ) -> bool:
        """Until all have stopped that need to."""
        started, pause = time.monotonic(), _LOOK_SECONDS
        while True:
            self.tend()
            busy = self._running - waiting()
            now = time.monotonic()
            if now - started > _SETTLE_SECONDS:
                # One that is ready to run may only have had no CPU yet: it may be anywhere.
                busy = {thread for thread in busy if not (_state(thread) == b"D" and harmless(thread))}
            if not busy:
                return True
            if now > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)


def _threads(pid: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()


def _state(thread: int) -> bytes:
    """As in proc_pid_stat(5): D waits for an event, whatever signals come; Z and X have ended, even if somebody has yet
    to wait for them, and cannot be seized (ptrace_attach())."""
    try:
        with open(f"/proc/{thread}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b"X"
