"""`vfs.Gate` of a devfuse mount: has the loop keep back what changes something, and waits for what is in progress."""

from __future__ import annotations

import time

from unionfs.transport.devfuse.files import OpenFiles
from unionfs.transport.devfuse.loop import Loop
from unionfs.transport.devfuse.notify import Notifier
from unionfs.vfs import NodeId

_LOOK_SECONDS = 0.001


class ChangeGate:
    """`device`: st_dev of the mount, (major, minor)."""

    def __init__(self, loop: Loop, notifier: Notifier, files: OpenFiles, device: tuple[int, int]) -> None:
        self.device = device
        self._loop = loop
        self._notifier = notifier
        self._files = files
        self._shut = False

    @property
    def bypassed(self) -> bool:
        return self._files.bypassed

    def bypasses(self, node: NodeId) -> bool:
        return self._files.backings.has(node)

    def shut(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._loop.park()
        self._shut = True
        while not self._loop.is_past:
            self._look_again(deadline)
        before = self._loop.in_progress()
        while before & self._loop.in_progress():
            self._look_again(deadline)

    def _look_again(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.open()
            raise TimeoutError
        time.sleep(_LOOK_SECONDS)

    def open(self) -> None:
        if self._shut:
            self._shut = False
            self._loop.unpark()

    def waiting(self) -> frozenset[int]:
        self._loop.dismiss()
        return self._loop.parked_callers

    def flush(self, node: NodeId) -> None:
        # Laundering a page waits until it is written (invalidate_inode_pages2_range()).
        self._notifier.inval_inode(node)
