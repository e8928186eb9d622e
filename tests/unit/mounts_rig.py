"""Real mounts for the tests of `unionfs.mounts`, and the certainty that none is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unionfs.linux.mount import mountinfo
from unionfs.mounts.registry import Registry

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0


class Place:
    """A directory with what one mount needs: `root` (shown), `mnt` (where), `run` (the runtime directory)."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in ("root", "mnt", "run", "upper", "work"):
            (base / name).mkdir()
        (base / "run").chmod(0o700)
        (base / "root" / "file").write_text("content")
        self.mnt = base / "mnt"
        self.registry = Registry(os.fsencode(base / "run"))
        self._started: list[subprocess.Popen[str]] = []

    def spec(self, **changes: Any) -> str:
        given = {"root": str(self.base / "root"), "mountpoint": str(self.mnt), "runtime": str(self.base / "run")}
        return json.dumps({**given, **{key: str(v) if isinstance(v, Path) else v for key, v in changes.items()}})

    def start(self, inherit: int | None = None, **changes: Any) -> subprocess.Popen[str]:
        """The program, running, with the descriptor `inherit`. Its parent ends when the mount is in the background."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.mounts_program", self.spec(**changes)],
            cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)}, pass_fds=[] if inherit is None else [inherit],
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, **changes: Any) -> subprocess.CompletedProcess[str]:
        """The program in the background mode, until its parent has ended and its stdout and stderr are closed."""
        process = self.start(**changes)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def mount(self, **changes: Any) -> int:
        """Mount in the background; the daemon's pid."""
        done = self.run(**changes)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    @property
    def is_mounted(self) -> bool:
        return any(row.mountpoint == os.fsencode(self.mnt) for row in mountinfo())

    def until_unmounted(self) -> None:
        """Wait until nothing is mounted on `mnt` any more, in PATIENCE seconds (proc(5): mountinfo can be polled)."""
        with open("/proc/self/mountinfo", "rb") as changes:
            poll = select.poll()
            poll.register(changes, select.POLLPRI)
            while changes.read() and self.is_mounted:
                assert poll.poll(PATIENCE * 1000), f"{self.mnt} is still mounted"
                changes.seek(0)

    def kill(self, pid: int) -> None:
        """Kill a daemon of this place, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError), ended(pid):
            os.kill(pid, signal.SIGKILL)

    def clean(self) -> None:
        pids = [record.pid for record in self.registry.records()]
        for row in reversed(mountinfo()):
            if row.mountpoint.startswith(os.fsencode(self.base) + b"/"):
                subprocess.run(["umount", "-l", os.fsdecode(row.mountpoint)], check=False, capture_output=True)
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for pid in pids:
            self.kill(pid)


@contextlib.contextmanager
def ended(pid: int) -> Iterator[None]:
    """The block must make process `pid` end, in PATIENCE seconds."""
    fd = os.pidfd_open(pid)
    try:
        yield
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"process {pid} is still there"
    finally:
        os.close(fd)
