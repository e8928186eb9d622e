"""What control groups this machine has for containers (cgroups(7)).

    unified   cgroup v2 alone: every runtime
    legacy    v1 alone: every runtime
    hybrid    v1, and v2 beside it: runc, not crun
    none      nothing on /sys/fs/cgroup

Without control groups a container runs all the same: nothing counts or limits its memory, and it is not frozen by the
runtime. That is so for every container without root, since a user's groups would have to be delegated to him.
"""

from __future__ import annotations

import os
from typing import Final, Literal, NamedTuple

from unionfs.linux.mount import MountInfo, mountinfo

PLACE: Final = b"/sys/fs/cgroup"
#: Where those of containers are, below those of the machine.
PARENT: Final = "/unionfs/"

Mode = Literal["unified", "legacy", "hybrid", "none"]


class Cgroups(NamedTuple):
    """`writable`: this process may make groups. `swap`: swap is counted. `memory`: the directory of the groups that
    count memory; None where none do."""

    mode: Mode
    writable: bool
    swap: bool
    memory: bytes | None = None


def look(mounts: list[MountInfo] | None = None, place: bytes = PLACE) -> Cgroups:
    """Of `mounts`, else those of this process."""
    mounts = mountinfo() if mounts is None else mounts
    found = [mount for mount in mounts if (mount.mountpoint + b"/").startswith(place + b"/")]
    at_place = [mount for mount in found if mount.mountpoint == place]
    if not at_place:
        return Cgroups("none", False, False)
    if at_place[-1].fstype == b"cgroup2":
        return Cgroups("unified", _writable(place), _counts_swap(place), place)
    first = [mount for mount in found if mount.fstype == b"cgroup"]
    if not first:
        return Cgroups("none", False, False)
    memory = next((mount.mountpoint for mount in first if b"memory" in mount.super_options), None)
    mode: Mode = "hybrid" if any(mount.fstype == b"cgroup2" for mount in found) else "legacy"
    swap = memory is not None and os.path.exists(os.path.join(memory, b"memory.memsw.limit_in_bytes"))
    return Cgroups(mode, all(_writable(mount.mountpoint) for mount in first), swap, memory)


def group_of(container_id: str) -> str:
    """As the runtime is told: absolute is below where the groups are mounted."""
    return PARENT + container_id


def killed_for_memory(cgroups: Cgroups, container_id: str) -> bool:
    """Was a process of the container's group killed for want of memory, the group's or the machine's? False where
    there is no such group, or it does not count memory.

    The kernel counts it before it kills (mm/oom_kill.c, __oom_kill_process): who sees the end sees the count. That of
    version 2 has the groups below in it; that of version 1 has not (memcg_memory_event).
    """
    if cgroups.memory is None:
        return False
    group = os.fsencode(group_of(container_id).lstrip("/"))
    file = b"memory.events" if cgroups.mode == "unified" else b"memory.oom_control"
    try:
        with open(os.path.join(cgroups.memory, group, file), "rb") as events:
            counts = dict(line.split(b" ", 1) for line in events.read().splitlines() if b" " in line)
    except OSError:
        return False
    return counts.get(b"oom_kill", b"0").strip() != b"0"


def _writable(path: bytes) -> bool:
    return os.access(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY


def _counts_swap(path: bytes) -> bool:
    """The root group has no limits, and so none of their files; a group below it has."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return any(os.path.exists(os.path.join(path, name, b"memory.swap.max")) for name in names)
