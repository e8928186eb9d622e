"""Notifications: what goes to the kernel, and what happens when it is gone."""

from __future__ import annotations

import errno
import os

import pytest

from tests.posix.tools import expect
from unionfs.transport.devfuse import abi
from unionfs.transport.devfuse.notify import Notifier


class Written(list[bytes]):
    """A device that takes every message, or fails with `number`."""

    number = 0

    def write(self, message: bytes) -> int:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        self.append(message)
        return len(message)


def test_names_and_inodes_are_dropped() -> None:
    device = Written()
    notifier = Notifier(device.write)
    assert notifier.inval_entry(1, b"name") and notifier.inval_inode(7) and notifier.inval_inode(8, -1)
    name, inode, attributes = device
    assert abi.OUT_HEADER.unpack_from(name) == (len(name), abi.NOTIFY_INVAL_ENTRY, 0)
    assert (abi.NOTIFY_INVAL_ENTRY_OUT.unpack_from(name, 16), name[32:]) == ((1, 4, 0), b"name\0")
    assert abi.NOTIFY_INVAL_INODE_OUT.unpack_from(inode, 16) == (7, 0, 0)
    assert abi.NOTIFY_INVAL_INODE_OUT.unpack_from(attributes, 16) == (8, -1, 0)


def test_what_the_kernel_does_not_cache_is_no_failure() -> None:
    device = Written()
    device.number = errno.ENOENT
    assert Notifier(device.write).inval_entry(1, b"name") is False
    device.number = errno.EBUSY
    with expect(errno.EBUSY):
        Notifier(device.write).delete(1, 2, b"name")


@pytest.mark.parametrize("closes", [1, 2])
def test_after_the_unmount_nothing_is_written(closes: int) -> None:
    device = Written()
    notifier = Notifier(device.write)
    for _ in range(closes):
        notifier.close()
    with expect(errno.ENODEV):
        notifier.inval_inode(1)
    with expect(errno.ENODEV):
        notifier.inval_entry(1, b"name")
    assert device == []
