"""What is done to the files of another user namespace's container, done there.

An ordinary user's container has IDs that are others outside: its files belong to subordinate IDs, and to read them, and
to say whose they are, one is root in its namespace. While it runs, its mount is there as well, and can be held.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from unionfs.api.container_changes import Target
from unionfs.containers import userns


def is_elsewhere(target: Target | None) -> bool:
    """Is a container's world another than this process's?"""
    return target is not None and os.geteuid() != 0 and (target.state.rootless or not target.state.watched)


def call_inside(target: Target, function: Callable[[], Any]) -> Any:
    """What `function` returns (JSON), called by a process of the container's user namespace, which has this one's
    working directory. What it raises is raised here."""
    monitor = target.state.monitor
    if not target.state.watched or monitor is None:
        return userns.within(userns.mapping(), function)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = os.readlink(f"/proc/self/fd/{here}")  # getcwd(3) of one that was removed fails
    finally:
        os.close(here)

    def there() -> Any:
        with contextlib.suppress(OSError):  # it was mounted later than the namespace was made
            os.chdir(directory)  # setns(2) has changed it to the root
        return function()

    return userns.inside(monitor.pid, there)
