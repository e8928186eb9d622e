"""Changes of a live mount held while its upper is read, so that what is read is one moment.

    with held(mountpoint) as hold:
        …                   nothing changes in the mount; reading it goes on
        hold.end()          changes go on; what was read was one moment, else MountError
    hold.seconds            how long they waited

What one moment means, and how it is made, is in `unionfs.mounts.hold`. The hold is the process's own: it ends when
that does, however it does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unionfs.api import HOLD_SECONDS
from unionfs.api.layers import LayerSpec
from unionfs.api.mounting import live_record
from unionfs.errors import MountError, UnionFSError
from unionfs.linux.data import syncfs
from unionfs.mounts.control import Lease
from unionfs.mounts.hold import GRANT_SECONDS


class Held:
    """A hold. `seconds`: how long it lasted, None while it does, or where there was none.

    `unfrozen`: processes that could go on writing through descriptors or mappings that need no request, as they may not
    be stopped; `unseen`: files open for writing by somebody who was not found. With either, what is read may be
    several moments. `failed`: why there is no hold at all, where it was wanted.
    """

    def __init__(self, lease: Lease | None, limit: float, failed: UnionFSError | None = None) -> None:
        self.seconds: float | None = None
        self.failed = failed
        self._lease = lease
        self._limit = limit
        told = {} if lease is None else lease.answer
        unfrozen, unseen = told.get("unfrozen"), told.get("unseen")
        self.unfrozen = tuple(pid for pid in unfrozen if isinstance(pid, int)) if isinstance(unfrozen, list) else ()
        self.unseen = unseen if isinstance(unseen, int) else 0

    @property
    def holds(self) -> bool:
        """Do changes wait now?"""
        return self._lease is not None

    def end(self) -> None:
        """Changes go on. MountError where they did already, before their time. Idempotent."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            told = lease.release()
        except UnionFSError:
            told = {}  # closed at the time limit
        if told.get("whole") is not True:
            raise MountError(
                f"changes were not held to the end: the mount has ended, or {self._limit:g} seconds were over",
                hint="allow more time with --pause-limit",
            )
        seconds = told.get("seconds")
        self.seconds = seconds if isinstance(seconds, float) else 0.0

    def close(self) -> None:
        """The end, whatever was read."""
        if self._lease is not None:
            self._lease.close()

    def warnings(self) -> list[tuple[str, str]]:
        """What is to be told to whoever reads what was read: (what, hint)."""
        found = []
        if self.failed is not None:
            found.append((f"changes go on while the upper is read: {self.failed}", self.failed.hint or ""))
        if self.unfrozen or self.unseen:
            who = [f"process {pid}" for pid in self.unfrozen]
            if self.unseen:
                who.append(f"somebody unknown ({self.unseen} file{'s' if self.unseen > 1 else ''})")
            found.append(
                (
                    f"not held, and perhaps seen in part, is what is written by {', '.join(who)}",
                    "stop them, or mount with --passthrough off, where only writable shared mappings go unheld",
                )
            )
        return found


@contextmanager
def held(mountpoint: LayerSpec, wanted: bool = True, *, limit: float = HOLD_SECONDS) -> Iterator[Held]:
    """Hold the changes of the live mount on `mountpoint` for the block, or until `Held.end`, at most `limit` seconds.

    What the kernel has cached of them is written first. Without `wanted` it is that alone. MountError where there is no
    such mount, where changes in progress do not end, or the hold does so too early. A mount that cannot be held
    (through fusepy) goes on: see `Held.failed`.
    """
    _flush(mountpoint)
    if not wanted:
        yield Held(None, limit)
        return
    _check_own_output(mountpoint)
    hold = _take(mountpoint, limit)
    try:
        yield hold
        hold.end()
    finally:
        hold.close()


def _check_own_output(mountpoint: LayerSpec) -> None:
    """Who writes into the mount while holding it waits for itself. (What this process has open is its own affair, but
    these two are written to by whoever likes.)"""
    inside = os.stat(mountpoint).st_dev
    for fd, name in ((1, "standard output"), (2, "standard error")):
        try:
            leads_inside = os.fstat(fd).st_dev == inside
        except OSError:
            continue  # closed
        if leads_inside:
            raise MountError(
                f"{name} leads into the mount whose changes are held meanwhile",
                hint="redirect it to a place outside, or use --no-pause",
            )


def _take(mountpoint: LayerSpec, limit: float) -> Held:
    record = live_record(os.fsencode(mountpoint))
    if record.control is None or record.transport == "fusepy":
        why = "it is mounted through fusepy" if record.control is not None else "it has no control socket"
        return Held(
            None, limit, MountError(f"the mount cannot hold them, as {why}", hint="mount with --transport devfuse")
        )
    return Held(Lease(record.control, "hold", {"seconds": limit}, timeout=2 * GRANT_SECONDS), limit)


def _flush(mountpoint: LayerSpec) -> None:
    """Have the kernel hand what it caches for the mount to its daemon."""
    shown = os.fsdecode(mountpoint)
    try:
        fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise MountError(
            f"the mount on {shown} cannot be opened: {e.strerror}", hint="name its -l and -u instead"
        ) from e
    try:
        syncfs(fd)
    finally:
        os.close(fd)
