"""A bug in a handler: EIO for who asked, one log record that names the request, and everybody else is served."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix.tools import expect, opened
from tests.requirements import requires
from tests.rigs import PROJECT, python_path

pytestmark = [requires("root", "fuse"), pytest.mark.needs_root, pytest.mark.needs_fuse]


class Buggy:
    def __init__(self, mnt: Path, log: Path) -> None:
        self.mnt = mnt
        self._log = log

    def records(self) -> list[str]:
        """The log's error records, each with its traceback."""
        return [record for record in self._log.read_text().split("ERROR:")[1:] if record]


@pytest.fixture
def buggy(tmp_path: Path) -> Iterator[Buggy]:
    root, mnt, log = tmp_path / "root", tmp_path / "mnt", tmp_path / "log"
    root.mkdir()
    mnt.mkdir()
    (root / "file").write_bytes(b"data")
    argv = [sys.executable, "-m", "tests.compat.buggy_program", str(root), str(mnt)]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with (
        open(log, "wb") as stderr,
        subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", log.read_text()
            yield Buggy(mnt, log)
        finally:
            subprocess.run(["umount", "-l", str(mnt)], check=True, timeout=20)
            assert process.wait(20) == 0


def fsync(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR) as fd:
        os.fsync(fd)


BUGS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "name": (lambda mnt: os.stat(mnt / "bug"), "LOOKUP", "a bug in lookup"),
    "changing": (lambda mnt: os.mkdir(mnt / "new"), "MKDIR", "a bug in mkdir"),
    "in-a-worker": (fsync, "FSYNC", "a bug in fsync"),
}


@pytest.mark.parametrize("name", BUGS)
def test_bug_is_eio_and_one_record_and_the_mount_goes_on(buggy: Buggy, name: str) -> None:
    act, request, message = BUGS[name]
    for times in (1, 2):
        with expect(errno.EIO):
            act(buggy.mnt)
        assert len(buggy.records()) == times
        record = buggy.records()[-1]
        assert request in record.splitlines()[0] and "answered EIO" in record.splitlines()[0]
        assert record.count("Traceback") == 1 and message in record
        assert (buggy.mnt / "file").read_bytes() == b"data"


def test_bug_where_no_reply_is_due_is_a_record_and_the_mount_goes_on(buggy: Buggy) -> None:
    (buggy.mnt / "made").write_bytes(b"made")
    os.unlink(buggy.mnt / "made")
    while not buggy.records():
        os.statvfs(buggy.mnt)  # the kernel forgets the file soon after
    assert "FORGET" in buggy.records()[0].splitlines()[0] and "a bug in forget" in buggy.records()[0]
    assert (buggy.mnt / "file").read_bytes() == b"data"
