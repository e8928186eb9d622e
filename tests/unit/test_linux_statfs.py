"""The kind of a file system, by what /proc says of it."""

from __future__ import annotations

import os

from unionfs.linux import statfs

PROC_SUPER_MAGIC = 0x9FA0


def test_magic_of_procfs_and_that_it_is_not_taken_for_memory() -> None:
    with open("/proc/self/stat") as file:
        assert statfs.magic(file.fileno()) == PROC_SUPER_MAGIC
        assert not statfs.is_in_memory(file.fileno())


def test_memfd_is_in_memory() -> None:
    with open(os.memfd_create("test"), "wb") as file:
        assert statfs.magic(file.fileno()) == statfs.TMPFS_MAGIC
        assert statfs.is_in_memory(file.fileno())
