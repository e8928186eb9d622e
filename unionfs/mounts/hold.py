"""Holding the changes of a mount, so that who reads its upper beside the daemon reads one moment.

    holds.take(seconds, but)    a `Lease`; from now on nothing changes, until the last lease is given back
    lease.release()             idempotent
    holds.end()                 all leases, and no more from now on: the mount is about to go

*What one moment means.* Every change whose system call had returned before the moment is there; none is that began
after it. So if one change could have been the reason of another, no layer has the second without the first.

*How.* Three ways lead into the upper, and each is closed:

    requests            the gate (vfs.Gate): those that change something wait, those in progress end first
    by-passed files     what the kernel writes by itself (passthrough), by write(2) or through a mapping, no gate sees.
                        So the processes that have such files open for writing, or mapped, are frozen: stopped through
                        ptrace (freezing.py). Nobody can open another one: that is a request
    cached mappings     what is written through a shared mapping is in the kernel's memory until it is written back. So
                        who has such a mapping is frozen, and then the pages are flushed, which are requests

*In this order*: freeze, flush, shut the gate, look again. A file that is opened for writing meanwhile, or mapped, is
found by the second look, and its process frozen before the moment is declared; where that one has a cached mapping too,
all is done once more, since it has to be flushed while the gate is open: a write-back may wait for a truncation that
waits at the gate (fuse_set_nowrite()). A thread that waits at the gate cannot be stopped, and need not be.

Who may not be frozen (Yama, another user, a debugger that has it) is told of: `Moment.unfrozen`. So are files open for
writing that were found in no process: `Moment.unseen`.

One thread holds, from the first lease to the last: it is the tracer (ptrace is a matter of threads), and whatever ends
it sets the processes free.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, Protocol

from unionfs.errors import MountError
from unionfs.linux.ptrace import kernel_stack
from unionfs.linux.writers import Writer, writers
from unionfs.mounts.freezing import Frozen
from unionfs.vfs import Gate, NodeId

log = logging.getLogger("unionfs.hold")

#: How long a hold may take to begin: copy-ups in progress end first.
GRANT_SECONDS: Final = 60.0
#: How often what waits, and what is frozen, is looked after.
_TEND_SECONDS = 0.1
#: Attempts to find all who have a cached mapping.
_ATTEMPTS = 5
#: Looks for a file that was just opened, or is just being closed.
_LOOKS, _LOOK_SECONDS = 20, 0.005


class Holdable(Protocol):
    """The file system of a mount."""

    @property
    def gate(self) -> Gate | None: ...

    def written(self) -> dict[NodeId, int]:
        """The st_ino of each file that is open for writing."""
        ...


class Moment(NamedTuple):
    """`unfrozen`: processes that may change files all the same. `unseen`: how many files may be changed by somebody who
    was not found."""

    unfrozen: tuple[int, ...] = ()
    unseen: int = 0


class Lease:
    def __init__(self, holds: Holds, moment: Moment, started: float) -> None:
        self.moment = moment
        #: Were changes held until `release`, or did `Holds.end` come first? Known then.
        self.whole = False
        self._holds = holds
        self._started = started
        self._seconds: float | None = None

    def release(self) -> float:
        """Give it back. Returns for how many seconds changes were held, from the first on; with the last lease all go
        on when it returns."""
        if self._seconds is None:
            self.whole = self._holds._give_back(self)
            self._seconds = time.monotonic() - self._started
        return self._seconds


class Holds:
    """Of one mount. `attach` it to the file system that is served; methods may be called from any thread."""

    def __init__(self) -> None:
        self._fs: Holdable | None = None
        self._lock = threading.Lock()  # held while a hold begins or ends
        self._leases: set[Lease] = set()
        self._holder: _Holder | None = None
        self._ended = False
        self._count = 0
        self._seconds = 0.0

    def attach(self, fs: Holdable) -> None:
        self._fs = fs

    def take(self, but: AbstractSet[int] = frozenset()) -> Lease:
        """Hold changes; a hold that is there already is shared. `but`: processes never to be frozen.

        MountError where changes in progress do not end in GRANT_SECONDS, the mount is ending, or its transport
        cannot."""
        started = time.monotonic()
        with self._lock:
            gate = None if self._fs is None else self._fs.gate
            if self._ended or self._fs is None:
                raise MountError("the mount is ending")
            if gate is None:
                raise MountError(
                    "changes cannot be held: the mount's transport has no way to",
                    hint="mount with --transport devfuse, or commit with --no-pause",
                )
            if self._holder is None:
                holder = _Holder(self._fs, gate, but | {os.getpid()})
                holder.start()
                self._holder = holder
                self._count += 1
            lease = Lease(self, self._holder.moment, started)
            self._leases.add(lease)
            return lease

    def end(self) -> None:
        """Before the mount goes. Idempotent."""
        with self._lock:
            self._ended = True
            self._leases.clear()
            self._stop_locked()

    def statistics(self) -> dict[str, int]:
        """`holds`: begun so far; `holding`: leases now; `held_milliseconds`: so far, the present hold included;
        `waiting`: threads at the gate now."""
        fs, holder = self._fs, self._holder
        gate = None if fs is None else fs.gate
        seconds = self._seconds + (holder.seconds if holder is not None else 0.0)
        return {
            "holds": self._count,
            "holding": len(self._leases),
            "held_milliseconds": int(seconds * 1000),
            "waiting": 0 if gate is None else len(gate.waiting()),
        }

    def _give_back(self, lease: Lease) -> bool:
        with self._lock:
            whole = lease in self._leases
            self._leases.discard(lease)
            if not self._leases:
                self._stop_locked()
            return whole

    def _stop_locked(self) -> None:
        if self._holder is not None:
            self._holder.stop()
            self._seconds += self._holder.seconds
            self._holder = None


class _Holder:
    """The thread that holds. `start` returns when the moment has come."""

    def __init__(self, fs: Holdable, gate: Gate, but: AbstractSet[int]) -> None:
        self._fs = fs
        self._gate = gate
        self._but = but
        self._begun, self._over = threading.Event(), threading.Event()
        self._failed: BaseException | None = None
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hold", daemon=True)
        self.moment = Moment()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def start(self) -> None:
        self._thread.start()
        self._begun.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        frozen = Frozen()
        try:
            self.moment = _Beginning(self._fs, self._gate, frozen, self._but).moment()
            self._begun.set()
            while not self._over.wait(_TEND_SECONDS):
                frozen.tend()
                self._gate.waiting()
        except TimeoutError:
            self._failed = MountError(
                f"changes in progress did not end within {GRANT_SECONDS:g} seconds",
                hint="try again later, or with --no-pause",
            )
        except BaseException as error:
            if not isinstance(error, OSError):
                log.exception("bug in holding changes")
            self._failed = error
        finally:
            frozen.thaw()
            try:
                self._gate.open()
            except OSError as error:
                log.info("the mount ended while changes were held: %s", error)
            self._begun.set()


class _Beginning:
    """How the moment is made."""

    def __init__(self, fs: Holdable, gate: Gate, frozen: Frozen, but: AbstractSet[int]) -> None:
        self._fs = fs
        self._gate = gate
        self._frozen = frozen
        self._but = but
        self._deadline = time.monotonic() + GRANT_SECONDS
        self._unfrozen: set[int] = set()
        self._found: list[Writer] = []

    def moment(self) -> Moment:
        """TimeoutError where it does not come."""
        for left in reversed(range(_ATTEMPTS)):
            self._freeze(self._new_writers())
            self._flush()
            self._gate.shut(self._deadline - time.monotonic())
            while new := self._new_writers():
                unflushed = {one.pid for one in new if one.mapped & self._cached()}
                if unflushed and left:
                    self._gate.open()
                    break
                self._freeze(new)
                self._unfrozen |= unflushed
            else:
                break
        return Moment(tuple(sorted(self._unfrozen)), self._unseen())

    def _new_writers(self) -> list[Writer]:
        """Processes that need no request to change something, and are to be frozen: they have by-passed files open, or
        anything mapped."""
        written = self._fs.written()
        self._found = writers(self._gate.device) if written or self._gate.bypassed else []
        bypassed = {ino for node, ino in written.items() if self._gate.bypasses(node)}
        done = self._frozen.processes | self._unfrozen | self._but
        return [one for one in self._found if (one.mapped or one.open & bypassed) and one.pid not in done]

    def _freeze(self, found: list[Writer]) -> None:
        pids = [one.pid for one in found]
        self._unfrozen |= self._frozen.freeze(pids, self._gate.waiting, self._writes_nothing, self._deadline)

    def _writes_nothing(self, thread: int) -> bool:
        """May a thread that sleeps in a system call be left there? If that is not a write to a by-passed file
        (fs/backing-file.c). It waits for a lock, say, that another has who waits at the gate."""
        stack = kernel_stack(thread) if self._gate.bypassed else b"any"
        return bool(stack) and b"backing_file" not in stack

    def _cached(self) -> set[int]:
        """The st_ino of files open for writing whose mappings are of the kernel's cache. A mapping keeps such a file
        open, unlike a by-passed one (backing_file_mmap())."""
        return {ino for node, ino in self._fs.written().items() if not self._gate.bypasses(node)}

    def _flush(self) -> None:
        mapped = {ino for one in self._found for ino in one.mapped}
        elsewhere = {ino for one in self._found for ino in one.open} - mapped
        for node, ino in self._fs.written().items():
            if ino not in elsewhere and not self._gate.bypasses(node):
                self._gate.flush(node)

    def _unseen(self) -> int:
        """How many files are open for writing in no process that can be looked at."""
        unseen = set(self._fs.written().values())
        for _ in range(_LOOKS):
            unseen -= {ino for one in self._found for ino in one.open | one.mapped}
            # The last descriptor may just have been closed, and its RELEASE be under way.
            unseen &= set(self._fs.written().values())
            if not unseen:
                break
            time.sleep(_LOOK_SECONDS)
            self._found = writers(self._gate.device)
        return len(unseen)
