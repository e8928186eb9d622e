"""Notifications: telling the kernel to drop what it caches. For changes that did not come through the mount.

A notification is a reply with `unique` 0 whose error field holds the code (fuse_notify, fs/fuse/dev.c). The encoders
are pure; `Notifier` writes them, from any thread. That the kernel does not cache the thing (ENOENT) is success.

inval_inode with a range, inval_entry and delete take locks that a request of the same inode may hold while it waits
for us: call those from a thread that answers no requests, never from within an operation of the file system.

inval_entry and inval_inode are `vfs.Notifier`. After the unmount all is forgotten, and `close` has them say ENODEV.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Final

from unionfs.transport.devfuse import abi


def inval_inode(node: int, offset: int = 0, length: int = 0) -> bytes:
    """Drop a node's attributes and the data from `offset` on (`length` 0: to the end; `offset` < 0: no data)."""
    body = abi.NOTIFY_INVAL_INODE_OUT.pack(node, offset, length)
    return abi.OUT_HEADER.pack(16 + len(body), abi.NOTIFY_INVAL_INODE, 0) + body


def inval_entry(parent: int, name: bytes, *, expire_only: bool = False) -> bytes:
    """Drop a name, negative or not, and the parent's listing. `expire_only`: look it up anew, keep what is mounted
    or open below (needs HAS_EXPIRE_ONLY)."""
    flags = abi.EXPIRE_ONLY if expire_only else 0
    body = abi.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(name), flags) + name + b"\0"
    return abi.OUT_HEADER.pack(16 + len(body), abi.NOTIFY_INVAL_ENTRY, 0) + body


def delete(parent: int, child: int, name: bytes) -> bytes:
    """`name` in `parent`, which was `child`, is gone: as inval_entry, and inotify watchers hear of it."""
    body = abi.NOTIFY_DELETE_OUT.pack(parent, child, len(name)) + name + b"\0"
    return abi.OUT_HEADER.pack(16 + len(body), abi.NOTIFY_DELETE, 0) + body


def store_header(node: int, size: int) -> bytes:
    """What precedes `size` bytes of data, to be put into the page cache of `node` from offset 0 on; the file must not
    get longer by it. Takes the locks of those pages: see files.OpenFiles."""
    length = 16 + abi.NOTIFY_STORE_OUT.size + size
    return abi.OUT_HEADER.pack(length, abi.NOTIFY_STORE, 0) + abi.NOTIFY_STORE_OUT.pack(node, 0, size)


#: For how long `close` waits for a notification in progress. Once the connection has ended none takes any time.
_CLOSE_SECONDS: Final = 1.0


class Notifier:
    """Sends notifications. Each method returns whether the kernel knew the thing; OSError where it cannot obey
    (ENOTEMPTY, EBUSY for `delete`; ENODEV after the unmount)."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self._closed = False
        #: Held while one of those that may wait is sent, hence never by `inval_attributes`.
        self._sending = threading.Lock()

    @classmethod
    def on(cls, fd: int) -> Notifier:
        """Over the descriptor of /dev/fuse."""
        return cls(lambda message: os.write(fd, message))

    def inval_inode(self, node: int, offset: int = 0, length: int = 0) -> bool:
        return self._send_waiting(inval_inode(node, offset, length))

    def inval_attributes(self, node: int) -> bool:
        """Only a node's attributes and ACLs: takes no lock, and may be sent while a request is being answered."""
        return self._send(inval_inode(node, -1))

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        return self._send_waiting(inval_entry(parent, name, expire_only=expire_only))

    def delete(self, parent: int, child: int, name: bytes) -> bool:
        return self._send_waiting(delete(parent, child, name))

    def close(self) -> None:
        """The descriptor is about to be closed, and its number may come to mean another file."""
        sending = self._sending.acquire(timeout=_CLOSE_SECONDS)
        self._closed = True
        if sending:
            self._sending.release()

    def _send_waiting(self, message: bytes) -> bool:
        with self._sending:
            if self._closed:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            return self._send(message)

    def _send(self, message: bytes) -> bool:
        try:
            self._write(message)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True
