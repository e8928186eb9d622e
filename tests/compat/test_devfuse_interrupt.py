"""A copy-up of much data whose caller dies is given up, and leaves nothing. Not so for a signal that is handled."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.test_devfuse_mount import serving_union
from tests.requirements import missing

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]

LARGE = 384 << 20
PATIENCE = 60.0

APPEND = "open(path, 'ab', buffering=0).write(b'!')"
CLIENTS = {
    "append": APPEND,
    "truncate": f"os.truncate(path, {LARGE - 1})",
    "chmod": "os.chmod(path, 0o600)",
    "rename": "os.rename(path, path + '-renamed')",
    "link": "os.link(path, path + '-linked')",
    "setxattr": "os.setxattr(path, 'user.x', b'1')",
}


class Union:
    def __init__(self, base: Path, mnt: Path) -> None:
        self.path, self.upper, self.work = mnt / "file", base / "upper", base / "work/work"
        self._clients: list[subprocess.Popen[bytes]] = []

    def client(self, code: str) -> subprocess.Popen[bytes]:
        """A process that does `code` with the `path` of the large file; it waits for nothing else."""
        program = f"import os, signal, sys\npath = sys.argv[1]\n{code}\nprint('done')"
        process = subprocess.Popen([sys.executable, "-c", program, str(self.path)], stdout=subprocess.PIPE)
        self._clients.append(process)
        return process

    def copying(self) -> bool:
        """Is there a copy with data in it?"""
        try:
            return any(entry.stat(follow_symlinks=False).st_blocks for entry in os.scandir(self.work))
        except FileNotFoundError:
            return False

    def clean(self) -> None:
        for process in self._clients:
            process.kill()
            process.communicate()

    def nothing_is_left(self) -> None:
        assert (os.listdir(self.upper), os.listdir(self.work)) == ([], [])
        assert self.path.stat().st_size == LARGE


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(PATIENCE)


@pytest.fixture
def union(tmp_path: Path) -> Iterator[Union]:
    if (reason := missing("root")) is not None:
        pytest.skip(reason)
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    part = os.urandom(1 << 20)
    with (tmp_path / "lower/file").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(part)
    with serving_union(tmp_path, tmp_path / "lower", tmp_path / "upper", tmp_path / "work") as server:
        made = Union(tmp_path, server.mnt)
        yield made
        made.clean()
    (tmp_path / "lower/file").unlink()


@pytest.mark.parametrize("what", CLIENTS)
def test_copy_up_ends_with_its_killed_caller(union: Union, what: str) -> None:
    client = union.client(CLIENTS[what])
    until(union.copying)
    client.kill()
    # It cannot end before its request is answered. Had that been done, the upper would have the file.
    assert ended(client) == -signal.SIGKILL
    union.nothing_is_left()


def test_what_was_given_up_can_be_done_again(union: Union) -> None:
    for _ in range(2):
        client = union.client(APPEND)
        until(union.copying)
        client.send_signal(signal.SIGTERM)
        assert ended(client) == -signal.SIGTERM
        union.nothing_is_left()
    again = union.client(APPEND)
    assert ended(again) == 0
    assert union.path.stat().st_size == (union.upper / "file").stat().st_size == LARGE + 1
    assert os.listdir(union.work) == []


def test_signal_that_the_caller_handles_stops_nothing(union: Union) -> None:
    """A profiler's timer, say: whoever tries again after EINTR would never get there."""
    timer = "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)"
    client = union.client(
        f"{timer}\nfd = os.open(path, os.O_WRONLY | os.O_APPEND)\nsignal.setitimer(signal.ITIMER_REAL, 0)"
    )
    assert ended(client) == 0
    assert (union.upper / "file").stat().st_size == LARGE


def test_caller_that_dies_after_a_signal_that_it_handled(union: Union) -> None:
    """The kernel interrupts a request once only, and by then the caller was not to die."""
    client = union.client(f"signal.signal(signal.SIGUSR1, lambda *_: None)\nprint('go', flush=True)\n{APPEND}")
    assert client.stdout is not None and select.select([client.stdout], [], [], PATIENCE)[0]
    until(union.copying)
    client.send_signal(signal.SIGUSR1)
    client.kill()
    assert ended(client) == -signal.SIGKILL
    union.nothing_is_left()


def test_copy_up_goes_on_for_another_who_waits_for_it(union: Union) -> None:
    first = union.client(APPEND)
    until(union.copying)
    (copy,) = os.scandir(union.work)
    second = union.client(f"print('go', flush=True)\n{APPEND}")
    assert second.stdout is not None and select.select([second.stdout], [], [], PATIENCE)[0]
    # It sleeps in the request, and what comes after that one has been answered (but for the worker that waits now).
    until(lambda: Path(f"/proc/{second.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    for i in range(100):
        assert not union.path.with_name(f"other{i}").exists()
    assert os.listdir(union.upper) == []
    first.kill()
    assert (ended(first), ended(second)) == (-signal.SIGKILL, 0)
    stored = (union.upper / "file").stat()
    assert (stored.st_size, stored.st_ino) == (LARGE + 1, copy.inode())
