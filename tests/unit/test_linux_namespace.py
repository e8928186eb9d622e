"""Network namespaces made without leaving one's own."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from unionfs.linux.namespace import CLONE_NEWNET, CLONE_NEWUSER, new_network_namespace, setns, unshare


def _number(fd: int) -> int:
    return os.fstat(fd).st_ino


def children() -> set[str]:
    """Zombies too."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(pid)
    return found


@requires("root")
def test_new_network_is_another_and_ours_stays() -> None:
    own, open_before = os.stat("/proc/self/ns/net").st_ino, len(os.listdir("/proc/self/fd"))
    children_before = children()
    fds = [new_network_namespace(), new_network_namespace()]
    assert len({own, *map(_number, fds)}) == 3
    assert os.stat("/proc/self/ns/net").st_ino == own
    for fd in fds:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert children() == children_before


@requires("root")
def test_new_network_within_a_user_namespace() -> None:
    """Where there is no way back."""

    def inside() -> None:
        unshare(CLONE_NEWUSER)
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        fd = new_network_namespace()
        assert _number(fd) != _number(own)
        setns(fd, CLONE_NEWNET)
        with pytest.raises(PermissionError):
            setns(own, CLONE_NEWNET)

    run_as_nobody(inside)


@requires("root")
def test_new_network_without_the_privilege() -> None:
    def attempt() -> None:
        with pytest.raises(OSError) as caught:
            new_network_namespace()
        assert caught.value.errno == errno.EPERM

    run_as_nobody(attempt)
