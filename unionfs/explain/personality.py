"""How other union file systems are known to behave: what `--as` of the simulator changes around the engine.

Each fact was observed on Linux 6.18 with the program named, and tests/compat/test_sim_witnesses.py observes it again:

    kernel            overlayfs without redirect_dir and index, which is its default: a directory that a layer has
                      cannot be renamed (EXDEV); the names of a hard-linked file part when one is copied up; a mapping
                      made before a copy-up keeps the old data (a read of the same descriptor does not); every directory
                      that is made in a merged one is marked opaque
    docker            the same, since overlay2 mounts the kernel's so (index=off); and its diff does not compare the
                      times of directories (ChangesDirs() of moby)
    fuse-overlayfs    EXDEV as above; names of a hard-linked file part on disk, which is seen from the next mount on
                      (and then 1.16 gives both one inode number, and the data of that which was asked for first: not
                      shown here); a name that begins with `.wh.` is EINVAL; every new directory is marked opaque,
                      and beside the mark there is always a file `.wh..wh..opq`

The engine is not changed for it: it stands on lower layers that hide link counts, and what it would do otherwise is
refused before it is asked.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Path
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.layers.memory_disk import MemoryInode
from unionfs.overlay.inode import join

OPAQUE_XATTR: Final = b"trusted.overlay.opaque"


class Personality(NamedTuple):
    """`links`: how long the names of a hard-linked lower file stay one: always, mount (until the next one) or never.
    `opaque_new`: which new directories are marked. The others are as in the module's table."""

    name: str
    title: str
    links: Literal["always", "mount", "never"] = "always"
    exdev: bool = False
    opaque_new: Literal["", "merged", "all"] = ""
    mapping_keeps: bool = False
    wh_refused: bool = False
    opaque_file: bool = False
    diff_without_times: bool = False


UNIONFS = Personality("unionfs", "unionfs")
KERNEL = Personality("kernel", "the kernel's overlayfs", "never", exdev=True, opaque_new="merged", mapping_keeps=True)
PERSONALITIES = {
    one.name: one
    for one in (
        UNIONFS,
        KERNEL,
        KERNEL._replace(name="docker", title="docker's overlay2", diff_without_times=True),
        Personality(
            "fuse-overlayfs", "fuse-overlayfs", "mount", exdev=True, wh_refused=True, opaque_file=True, opaque_new="all"
        ),
    )
}

EXDEV_HINT = "{title} does not rename a directory that a layer has; mv(1) then copies it and removes the old one"
WH_HINT = "fuse-overlayfs keeps names that begin with .wh. for whiteouts"


class SeparateNames(MemoryLayer):
    """The same layer in memory, but no file has two names, so that the engine copies up each by itself."""

    def __init__(self, layer: MemoryLayer) -> None:
        self.name = layer.name
        self.root = layer.root
        self.disk = _OneName(layer.disk)


class _OneName(MemoryDisk):
    """Another's inodes and clock; it makes nothing."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk.clock, disk.device)
        self.inodes = disk.inodes

    def nlink(self, inode: MemoryInode) -> int:
        return inode.nlink if inode.is_dir else 1


def mark_new_directory(upper: MemoryLayer, path: Path) -> None:
    """ovl_create_object(): "Setting opaque here is just an optimization, allow to fail"."""
    upper.setxattr(path, OPAQUE_XATTR, b"y")


def write_opaque_files(upper: MemoryLayer, path: Path = b"") -> None:
    """What fuse-overlayfs leaves in every opaque directory."""
    entries = upper.inode(path).entries
    if upper.getxattr(path, OPAQUE_XATTR) and whiteout.OPAQUE not in entries:
        upper.create(join(path, whiteout.OPAQUE), 0o700).close()
    for name, inode in list(entries.items()):
        if inode.is_dir:
            write_opaque_files(upper, join(path, name))
