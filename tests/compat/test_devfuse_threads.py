"""A daemon that can have no more threads (pids.max of a container, no memory) answers slow requests all the same."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_devfuse_mount import Server, serving
from tests.posix.tools import opened
from tests.requirements import requires

pytestmark = [requires("root", "fuse"), pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as made:
        yield made


def without_threads(pid: int) -> None:
    """No room for another stack, as there is where the number of tasks is limited: what root can be refused."""
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))


def flush(mnt: Path) -> None:
    with opened(mnt / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"data")
        os.fsync(fd)


def test_slow_request_without_a_thread_is_answered(server: Server) -> None:
    without_threads(server.process.pid)
    for _ in range(3):
        flush(server.mnt)
    assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 2, "it had a thread: nothing was tested"
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    flush(server.mnt)
    assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 3
    assert (server.root / "file").read_bytes() == b"data"


def test_slow_requests_of_several_clients_share_the_thread_there_is(server: Server) -> None:
    flush(server.mnt)
    without_threads(server.process.pid)
    code = "import os, sys\nfor _ in range(20): os.fsync(os.open(sys.argv[1], os.O_RDWR))"
    argv = [sys.executable, "-S", "-E", "-c", code, str(server.mnt / "file")]
    clients = [subprocess.Popen(argv) for _ in range(4)]
    assert [client.wait(20) for client in clients] == [0] * 4
    assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 3
