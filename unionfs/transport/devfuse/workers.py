"""Threads for requests that may take long: each is answered beside the others, in no particular order.

A request is queued as bytes of its own, for the receive buffer goes on. One that has not begun can be called off by
its `unique` (INTERRUPT); of one that has, `interrupted` tells whoever runs it. Threads are started when none is idle,
up to a limit, and end with `stop`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

#: A full house of copy-ups must leave room for an fsync; more threads than this only compete for the disk.
LIMIT: Final = 8


class Workers:
    """`run(request)` is called in some thread for each submitted request; it must not raise."""

    def __init__(self, run: Callable[[bytes], None], limit: int = LIMIT) -> None:
        self._run = run
        self._limit = limit
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._waiting: dict[int, bytes] = {}
        self._interrupted: dict[int, bool] = {}  # those that run, and those that wait and were told
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def submit(self, unique: int, request: bytes) -> None:
        with self._lock:
            self._waiting[unique] = request
            if self._idle < len(self._waiting) and len(self._threads) < self._limit:
                self._start_thread_locked()
            alone = not self._threads
        if alone:
            self._answer(unique)
        else:
            self._queue.put(unique)

    def _start_thread_locked(self) -> None:
        """Where none can be had (pids.max of a cgroup, no memory), those there are must do, or else the caller."""
        thread = threading.Thread(target=self._work, name="unionfs-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._threads.append(thread)
        self._idle += 1

    def cancel(self, unique: int, gave_up: Callable[[bytes], bool] = lambda request: True) -> bool:
        """Take a request back that waits, if `gave_up(request)`. False where it goes on, or is being answered already,
        and whoever runs it is told then; or where it is not here at all."""
        with self._lock:
            request = self._waiting.get(unique)
            if request is not None and gave_up(request):
                del self._waiting[unique]
                return True
            if request is not None or unique in self._interrupted:
                self._interrupted[unique] = True
        return False

    def uniques(self) -> frozenset[int]:
        """The requests that wait, or run."""
        with self._lock:
            return frozenset((*self._waiting, *self._interrupted))

    def interrupted(self) -> bool:
        """Within `run`: was its request to be cancelled, but too late?"""
        return self._interrupted[self._mine.unique]

    def stop(self) -> None:
        """Finish what was submitted and end the threads."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while (unique := self._queue.get()) is not None:
            self._answer(unique)

    def _answer(self, unique: int) -> None:
        with self._lock:
            request = self._waiting.pop(unique, None)
            if request is None:
                return
            self._idle -= 1
            self._interrupted.setdefault(unique, False)
        self._mine.unique = unique
        try:
            self._run(request)
        finally:
            with self._lock:
                self._idle += 1
                del self._interrupted[unique]
