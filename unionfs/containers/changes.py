"""`Changes`: waiting until something has become of a container, or it has written something, without looking meanwhile.

Its directory tells of both (a write to its log; a state, which takes its name by rename; the directory's own renaming
by who removes it), its processes of what nobody writes down: a monitor that was killed.

INVARIANT: what happens after the `Changes` was made ends the next `wait`. Look before you wait, never after.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable
from typing import Final

from unionfs.containers.container import Place, Process
from unionfs.linux import inotify

#: How long one wait is where the kernel has no watch for us (inotify(7): there are so many for each user).
LOOK_SECONDS: Final = 0.05


class Changes:
    """Of the container in `place`. To be closed."""

    def __init__(self, place: Place) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            events = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_MOVE_SELF
            self._fd = inotify.watch(place.directory, events)

    def wait(self, processes: Iterable[Process]) -> None:
        """Until there is something to look at, or one of `processes` has ended."""
        with contextlib.ExitStack() as held:
            poll = select.poll()
            for process in processes:
                try:
                    fd = os.pidfd_open(process.pid)
                except ProcessLookupError:
                    return
                held.callback(os.close, fd)
                if not process.alive:  # another has the number
                    return
                poll.register(fd, select.POLLIN)
            if self._fd < 0:
                poll.poll(LOOK_SECONDS * 1000)
                return
            poll.register(self._fd, select.POLLIN)
            poll.poll()
        inotify.drain(self._fd)

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
