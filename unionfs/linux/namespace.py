"""Namespaces of this thread (namespaces(7)): unshare, setns, and a new network namespace without leaving one's own."""

from __future__ import annotations

import errno
import os
from typing import Final, NoReturn

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

    A child makes it: in a user namespace of one's own there is no way back into the network of the one above, which
    setns(2) wants CAP_SYS_ADMIN in.
    """
    told, teller = os.pipe()
    waits, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _make_network(teller, waits, (told, end))
    try:
        os.close(teller)
        os.close(waits)
        code = os.read(told, 1)
        if code != b"\0":
            raise syscalls.error(code[0] if code else errno.EAGAIN)
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(told)
        os.close(end)
        os.waitpid(pid, 0)


def _make_network(teller: int, waits: int, others: tuple[int, int]) -> NoReturn:
    """The child: tell how it went, an errno, and be there until it was seen."""
    try:
        for fd in others:
            os.close(fd)
        try:
            unshare(CLONE_NEWNET)
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        os.write(teller, bytes((code,)))
        os.read(waits, 1)
    finally:
        os._exit(0)
