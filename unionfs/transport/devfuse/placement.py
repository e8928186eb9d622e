"""Where the loop's thread runs: on the CPU of a client that is alone and busy, else wherever the scheduler likes.

A request to a daemon on another CPU costs two wake-ups across CPUs, in a virtual machine tens of microseconds each, and
more than all the work. On the client's own CPU it is two context switches: the client sleeps while we work, so neither
is in the other's way. Several clients at once are better served from a CPU of our own, and then nothing is done here.

`Placement.sample` is shown a request now and then (every SAMPLE-th). A client that made all of the last RUN samples,
fast, is followed: its CPU is looked up with each further sample. Another client, or a pause, ends it, the latter
noticed by a thread that sleeps unless somebody is followed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Set
from typing import Final

#: One request in so many is looked at.
SAMPLE: Final = 16
#: So many samples in a row make a client the only one …
RUN: Final = 4
#: … if a sample comes within so many seconds of the last.
QUICK: Final = 0.004
#: A pause of this many seconds ends following.
PAUSE: Final = 0.05


def cpu_of(pid: int) -> int:
    """The CPU that a process last ran on (proc_pid_stat(5), field `processor`); -1 where it has gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The name in parentheses may hold anything; the fields counted from its end may not.
            return int(os.read(fd, 1024).rpartition(b")")[2].split()[36])
        finally:
            os.close(fd)
    except (OSError, IndexError, ValueError):
        return -1


class Placement:
    """Moves one thread. `move(cpus)` sets its affinity; `home` are the CPUs it may use at all."""

    def __init__(self, home: Set[int], move: Callable[[Set[int]], None], where: Callable[[int], int] = cpu_of) -> None:
        self._home = home
        self._move = move
        self._where = where
        self._client = 0
        self._run = 0
        self._last = 0.0
        self._cpu = -1  # followed there; -1: at home
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._closing = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def following(self) -> bool:
        return self._cpu >= 0

    def sample(self, pid: int, now: float) -> None:
        """A request of process `pid`, at `now` seconds. Requests of the kernel itself (pid 0) say nothing."""
        if pid == 0:
            return
        alone = pid == self._client and now - self._last < QUICK
        self._client, self._last = pid, now
        self._run = self._run + 1 if alone else 0
        if self._run >= RUN:
            self._go(self._where(pid))
        elif self._cpu >= 0 and not alone:
            self._go(-1)

    def _go(self, cpu: int) -> None:
        with self._lock:
            if cpu not in self._home:
                cpu = -1
            if cpu == self._cpu:
                return
            self._cpu = cpu
            self._move({cpu} if cpu >= 0 else self._home)
        if cpu >= 0:
            self._busy.set()
            if self._watch is None:
                self._watch = threading.Thread(target=self._watch_for_pauses, name="unionfs-placement", daemon=True)
                self._watch.start()

    def close(self) -> None:
        self._closing.set()
        self._busy.set()
        if self._watch is not None:
            self._watch.join()

    def _watch_for_pauses(self) -> None:
        """A thread that waits on a CPU for its client would be stuck there if something else takes the CPU."""
        os.sched_setaffinity(0, self._home)
        seen = -1.0
        while not self._closing.wait(PAUSE):
            if self._last == seen:
                self._busy.clear()
                self._go(-1)
                # `close` sets the one event before the other: if the latter was just cleared, the former is set.
                if not self._closing.is_set():
                    self._busy.wait()
            seen = self._last
