"""Waiting for what becomes of a container."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.containers.changes import Changes
from unionfs.containers.container import Place, Process


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "id").mkdir()
    return Place(os.fsencode(tmp_path / "id"))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """One that ends when it is told to."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process


def ended(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_what_happened_before_the_wait_ends_it(place: Place, child: subprocess.Popen[bytes]) -> None:
    running = [Process.of(child.pid)]
    with Changes(place) as changes:
        with open(place.log, "wb", buffering=0) as log:
            log.write(b"a line")
            changes.wait(running)
            log.write(b"another")
            changes.wait(running)
        Path(os.fsdecode(place.directory), "new").write_text("of another state")
        changes.wait(running)
        os.replace(place.directory + b"/new", place.state)
        changes.wait(running)
        os.rename(place.directory, place.directory + b"-dying")
        changes.wait(running)


def test_the_end_of_a_process_ends_it(place: Place, child: subprocess.Popen[bytes]) -> None:
    running = Process.of(child.pid)
    with Changes(place) as changes:
        ended(child)
        changes.wait([running])  # a zombie
        child.wait()
        changes.wait([running])  # no more
        changes.wait([Process(os.getpid(), 1)])  # another with its number


def test_without_a_watch_it_looks_again_after_a_while(tmp_path: Path) -> None:
    with Changes(Place(os.fsencode(tmp_path / "gone"))) as changes:
        changes.wait([Process.of(os.getpid())])
