"""Small file systems that can be filled to the last byte and inode, to put an upper on. Root only.

with MEDIA["tmpfs"](directory) as medium:   mounted on `directory`; `medium.root` is to be used
    medium.fill()                           nothing more can be stored: `medium.error`
    medium.drain()                          there is room again
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from tests.requirements import need
from tests.rigs import run


class Medium(Protocol):
    #: What a call gets that needs room when there is none.
    error: int
    root: Path

    def fill(self) -> None: ...
    def drain(self) -> None: ...


class Tmpfs:
    error = errno.ENOSPC

    def __init__(self, place: Path) -> None:
        self.root = self._place = place

    def _limit(self, size: int, inodes: int) -> None:
        run("mount", "-o", f"remount,size={size},nr_inodes={inodes}", str(self._place))

    def fill(self) -> None:
        st = os.statvfs(self._place)
        self._limit((st.f_blocks - st.f_bfree) * st.f_frsize, st.f_files - st.f_ffree)

    def drain(self) -> None:
        self._limit(16 << 20, 4000)


@contextlib.contextmanager
def tmpfs(place: Path) -> Iterator[Medium]:
    run("mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=4000,mode=755", "unionfs-tests", str(place))
    try:
        yield Tmpfs(place)
    finally:
        run("umount", "-l", str(place))


@contextlib.contextmanager
def formatted(place: Path, size: int, mkfs: str, options: str) -> Iterator[None]:
    """A file system made by `mkfs` in so many bytes, mounted on `place`."""
    image = place.with_name(place.name + ".img")
    with open(image, "wb") as file:
        file.truncate(size)
    run(*mkfs.split(), str(image))
    run("mount", "-o", f"loop,{options}", str(image), str(place))
    image.unlink()  # the loop device holds it
    try:
        yield
    finally:
        run("umount", "-l", str(place))


class Ext4:
    """Filled with files: first the inodes go, then the blocks."""

    error = errno.ENOSPC

    def __init__(self, place: Path) -> None:
        self.root = place
        self._filler = place / "filler"

    def fill(self) -> None:
        self._filler.mkdir()
        made = 0
        with contextlib.suppress(OSError):
            while True:
                (self._filler / str(made)).touch()
                made += 1
        for size in (1 << 20, 4096, 1024, 1):
            with open(self._filler / "0", "ab", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
                os.fsync(file.fileno())

    def drain(self) -> None:
        subprocess.run(["rm", "-rf", str(self._filler)], check=True, timeout=60)


@contextlib.contextmanager
def ext4(place: Path) -> Iterator[Medium]:
    need("mkfs.ext4")
    # Without delayed allocation, whose reservations come back when the data is written.
    with formatted(place, 16 << 20, "mkfs.ext4 -q -F -b 4096 -m 0 -N 400 -O ^has_journal", "nodelalloc"):
        yield Ext4(place)


class BtrfsQuota:
    """The quota of a subvolume, which binds root too. A limit may lie below what is in use already."""

    error = errno.EDQUOT

    def __init__(self, place: Path) -> None:
        self.root, self._place = place / "subvolume", place
        run("btrfs", "quota", "enable", str(place))
        run("btrfs", "subvolume", "create", str(self.root))
        self._group = "0/256"  # of the first subvolume (BTRFS_FIRST_FREE_OBJECTID)

    def _limit(self, size: str) -> None:
        run("btrfs", "filesystem", "sync", str(self._place))
        run("btrfs", "qgroup", "limit", size, self._group, str(self._place))

    def fill(self) -> None:
        self._limit("1")

    def drain(self) -> None:
        self._limit("none")


@contextlib.contextmanager
def btrfs_quota(place: Path) -> Iterator[Medium]:
    need("mkfs.btrfs")
    with formatted(place, 256 << 20, "mkfs.btrfs -q -f -m single", "rw"):
        yield BtrfsQuota(place)


MEDIA: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[Medium]]] = {
    "tmpfs": tmpfs,
    "ext4": ext4,
    "btrfs-quota": btrfs_quota,
}
