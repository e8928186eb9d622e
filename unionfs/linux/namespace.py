"""Namespaces of this thread (namespaces(7)): unshare, setns, and a new network namespace without leaving one's own."""

from __future__ import annotations

import os
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_int, call

# <linux/sched.h>
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000

_unshare: Final = syscalls.declare("unshare", c_int)
_setns: Final = syscalls.declare("setns", c_int, c_int)


def unshare(flags: int) -> None:
    """unshare(2). EPERM without the privilege; EINVAL for CLONE_NEWUSER in a process of several threads."""
    call(_unshare, flags)


def setns(fd: int, kind: int) -> None:
    """setns(2): enter the namespace that `fd` is of, which is a `kind` (CLONE_NEW*)."""
    call(_setns, fd, kind)


def new_network_namespace() -> int:
    """A network namespace, of this process's user namespace, that nobody is in. It lives as long as descriptors of it.

    This thread is in it for a moment: what another opens meanwhile through /proc/thread-self is not affected.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
