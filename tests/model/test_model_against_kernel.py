"""Kernel overlayfs does what the model says: the model may be trusted, and each known difference is still one.

At the end of each example our engine opens what the kernel left in upper and work, and must show the same tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.requirements import requires

from .arenas import KernelArena
from .drivers import Op
from .layers import Node, Stack, without_stray_whiteouts
from .machine import run
from .regressions import REGRESSIONS, kernel_reads
from .rigs import Bench
from .strategies import stacks
from .trial import replay

pytestmark = requires("root", "overlayfs")


def test_kernel_overlayfs_does_what_the_model_says() -> None:
    run(KernelArena, stacks(("kernel", "kernel", "xattr")).map(without_stray_whiteouts))


@pytest.mark.parametrize("script", kernel_reads(REGRESSIONS).values(), ids=kernel_reads(REGRESSIONS))
def test_regression(script: tuple[Stack, list[Op]]) -> None:
    replay(*script, KernelArena)


# KNOWN_DIFFERENCES: the day one of these fails, its row can go --------------------------------------------------------
@contextmanager
def _kernel(stack: Stack) -> Iterator[str]:
    bench = Bench(stack)
    try:
        driver = bench.kernel()
        yield driver.base
        driver.close()
    finally:
        bench.close()


def test_known_difference_stray_whiteouts() -> None:
    with _kernel(Stack(lowers=((Node("dir", "a"), Node("whiteout", "a/b")),))) as root:
        assert os.listdir(f"{root}/a") == ["b"]
        assert not os.path.lexists(f"{root}/a/b")


def test_known_difference_unmarked_upper() -> None:
    with _kernel(Stack(lowers=((Node("dir", "a"), Node("file", "b")),), upper=(Node("dir", "a"),))) as root:
        listed = {entry.name: entry.inode() for entry in os.scandir(root)}
        assert listed["a"] != os.lstat(f"{root}/a").st_ino
