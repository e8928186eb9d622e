"""Which processes could change files of one file system without a further open(2), from /proc: descriptors open for
writing, and shared mappings that are or may become writable.

Nothing here asks the file systems themselves, which may hang: of a descriptor its fdinfo is read (flags, mnt_id, ino),
of a mapping its line in maps. Processes that may not be looked at (another user's, hidepid) are left out, as is what is
in no process: a descriptor under way in a socket, one registered with io_uring, a user inside the kernel (a loop
device, an overlayfs on top).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from unionfs.linux.mount import parse_mountinfo

_PROC: Final = "/proc"
#: VmFlags of smaps: shared, may be made writable (mprotect(2)).
_SHARED, _MAY_WRITE = b"sh", b"mw"


class Writer(NamedTuple):
    """A process. `open`: inode numbers of its descriptors that may write; `mapped`: of its mappings."""

    pid: int
    open: frozenset[int]
    mapped: frozenset[int]


def writers(device: tuple[int, int], but: AbstractSet[int] = frozenset()) -> list[Writer]:
    """The processes, except for `but`, that could write to the file system with this st_dev (major, minor)."""
    mounts = _Mounts(device)
    found = []
    for name in os.listdir(_PROC):
        if not name.isdigit() or int(name) in but:
            continue
        process = f"{_PROC}/{name}"
        try:
            opened = frozenset(_open_for_writing(process, mounts))
            mapped = frozenset(_mapped_for_writing(process, b"%02x:%02x" % device))
        except OSError:
            continue  # it has ended, or may not be looked at
        if opened or mapped:
            found.append(Writer(int(name), opened, mapped))
    return found


class _Mounts:
    """Which mount ids are mounts of a file system, in whatever namespace: the kernel numbers them through."""

    def __init__(self, device: tuple[int, int]) -> None:
        self._device = device
        self._known: dict[int, bool] = {}
        self._namespaces: set[str] = set()
        self._read(f"{_PROC}/self")

    def _read(self, process: str) -> None:
        namespace = os.readlink(f"{process}/ns/mnt")
        if namespace in self._namespaces:
            return
        self._namespaces.add(namespace)
        with open(f"{process}/mountinfo", "rb") as file:
            for row in parse_mountinfo(file):
                self._known[row.mount_id] = (row.major, row.minor) == self._device

    def has(self, mount_id: int, process: str, fd: str) -> bool:
        if mount_id not in self._known:
            self._read(process)
        if mount_id not in self._known:
            # Detached, or outside of the root of all processes of its namespace that were met.
            st_dev = os.stat(f"{process}/fd/{fd}").st_dev
            self._known[mount_id] = (os.major(st_dev), os.minor(st_dev)) == self._device
        return self._known[mount_id]


def _open_for_writing(process: str, mounts: _Mounts) -> Iterator[int]:
    for fd in os.listdir(f"{process}/fd"):
        try:
            if not os.readlink(f"{process}/fd/{fd}").startswith("/"):
                continue  # a socket, a pipe …
            with open(f"{process}/fdinfo/{fd}", "rb") as file:
                info = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
            if int(info[b"flags"], 8) & os.O_ACCMODE and mounts.has(int(info[b"mnt_id"]), process, fd):
                yield int(info.get(b"ino", b"0"))  # since Linux 5.14
        except (OSError, KeyError, ValueError):
            continue  # closed meanwhile


def _mapped_for_writing(process: str, device: bytes) -> Iterator[int]:
    readable = False
    with open(f"{process}/maps", "rb") as file:
        for line in file:
            # start-end rwxs offset major:minor inode [path]
            fields = line.split(None, 5)
            if len(fields) >= 5 and fields[3] == device and fields[1][3:4] == b"s":
                if fields[1][1:2] == b"w":
                    yield int(fields[4])
                else:
                    readable = True
    if readable:
        yield from _may_become_writable(process, device)


def _may_become_writable(process: str, device: bytes) -> Iterator[int]:
    """smaps costs a walk through all page tables: only where maps leaves a doubt."""
    inode = 0
    with open(f"{process}/smaps", "rb") as file:
        for line in file:
            fields = line.split(None, 5)
            if line.startswith(b"VmFlags:"):
                flags = line.split()
                if inode and _SHARED in flags and _MAY_WRITE in flags:
                    yield inode
                inode = 0
            elif len(fields) >= 5 and b"-" in fields[0] and not fields[0].endswith(b":"):
                inode = int(fields[4]) if fields[3] == device else 0
