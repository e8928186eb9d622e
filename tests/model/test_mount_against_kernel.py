"""Our mount and kernel overlayfs, side by side: the same errno, then the same tree, after each operation.

At the end of each example our file system is mounted on the kernel's upper, and the kernel's on ours.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

import pytest

from tests.requirements import requires

from .arenas import MountArena
from .drivers import Op
from .layers import Node, Stack, without_stray_whiteouts
from .machine import run
from .regressions import REGRESSIONS, kernel_reads
from .strategies import stacks
from .trial import replay

pytestmark = [requires("root", "overlayfs", "fuse"), pytest.mark.needs_root, pytest.mark.needs_fuse]

ARENAS = {
    "devfuse": partial(MountArena, transport="devfuse"),
    "devfuse without passthrough": partial(MountArena, transport="devfuse", passthrough=False),
    "devfuse with metacopies": partial(MountArena, transport="devfuse", metacopy=True),
}

arenas = pytest.mark.parametrize("arena", ARENAS.values(), ids=ARENAS)
readable = stacks(("kernel", "kernel", "xattr")).map(without_stray_whiteouts)


@pytest.mark.slow
@arenas
def test_our_mount_does_what_the_kernels_does(arena: partial[MountArena]) -> None:
    run(arena, readable, max_examples=40, stateful_step_count=60)


@arenas
@pytest.mark.parametrize("script", kernel_reads(REGRESSIONS).values(), ids=kernel_reads(REGRESSIONS))
def test_regression(script: tuple[Stack, list[Op]], arena: partial[MountArena]) -> None:
    replay(*script, arena)


@pytest.mark.slow
@requires("libfuse")
def test_our_mount_by_fusepy_does_what_the_kernels_does() -> None:
    """libfuse 2 has neither rename flags nor O_TMPFILE."""
    arena = partial(MountArena, transport="fusepy", passthrough=False)
    run(arena, readable, without=("rename/flags", "tmpfile", "hlink"), max_examples=20, stateful_step_count=60)


def test_known_difference_stale_readers() -> None:
    """KNOWN_DIFFERENCES: the day this fails, the row can go. (Small files are not read by passthrough.)"""
    old, new = b"old".ljust(1 << 20), b"new".ljust(1 << 20)
    arena = MountArena(Stack(lowers=((Node("file", "a", data=old),),)))
    try:
        seen = {}
        for name, driver in (("ours", arena.ours), ("kernel", arena.kernel)):
            with open(f"{driver.base}/a", "rb", buffering=0) as reader:
                driver.write("a", 0, new)
                seen[name] = reader.read(3)
            driver.close()
        assert seen == {"ours": b"old", "kernel": b"new"}
    finally:
        arena.close()


def test_known_difference_whiteouts_by_hand() -> None:
    """The same: and neither shows anything else by it."""
    arena = MountArena(Stack(lowers=((Node("file", "a"),),)))
    try:
        outcomes = {}
        for name, driver in (("ours", arena.ours), ("kernel", arena.kernel)):
            try:
                os.mknod(f"{driver.base}/w", stat.S_IFCHR, 0)
                outcomes[name] = 0
            except OSError as e:
                outcomes[name] = e.errno or 0
        assert outcomes == {"ours": 0, "kernel": errno.EPERM}
    finally:
        arena.close()
