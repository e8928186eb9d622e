"""A mount namespace of its own, held by a process, in which commands are run and into which we can look."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

PATIENCE = 20.0


class Namespace:
    """Made, after the shell commands of `setup`, by `with`. At its end nothing of ours below `directory` is mounted in
    it and no process is left, whatever happened."""

    def __init__(self, directory: Path, setup: str, env: Mapping[str, str]) -> None:
        self.directory, self._setup, self.env = directory, setup, dict(env)

    def __enter__(self) -> Namespace:
        self._holder = subprocess.Popen(
            [
                "unshare",
                "-m",
                "--propagation",
                "private",
                "bash",
                "-c",
                f"set -e\n{self._setup}\necho ready; read -r end",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for mountpoint in reversed(self.mounts()):
                self.call("umount", "-l", mountpoint)
        finally:
            namespace = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
            for process in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if process.name.isdigit() and os.readlink(process / "ns/mnt") == namespace:
                        os.kill(int(process.name), signal.SIGKILL)
            self._holder.communicate()

    @property
    def _mountinfo(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/mountinfo")

    def mount_rows(self) -> list[list[str]]:
        """The fields of proc_pid_mountinfo(5) of what is ours, below the directory, the topmost last."""
        rows = [line.split() for line in self._mountinfo.read_text().splitlines() if " - fuse.unionfs " in line]
        return [row for row in rows if row[4].startswith(f"{self.directory}/")]

    def mounts(self) -> list[str]:
        return [row[4].replace(r"\040", " ") for row in self.mount_rows()]

    def until_unmounted(self) -> None:
        """Wait until nothing of ours is mounted, in PATIENCE seconds."""
        with self._mountinfo.open("rb") as changes:
            poll = select.poll()
            poll.register(changes, select.POLLPRI)
            while changes.read() and self.mounts():
                assert poll.poll(PATIENCE * 1000), f"still mounted: {self.mounts()}"
                changes.seek(0)

    def path(self, there: str | Path) -> Path:
        """An absolute path in the namespace, seen from outside."""
        assert str(there).startswith("/"), there
        return Path(f"/proc/{self._holder.pid}/root{there}")

    def call(self, *argv: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace, and in a session of its own: if it hangs, what it started ends with it."""
        process = subprocess.Popen(
            ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *argv],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def run(self, *argv: str | Path, status: int = 0) -> str:
        """`call`; the stdout without the newline at the end, if the exit status is `status`."""
        done = self.call(*argv)
        assert done.returncode == status, (
            f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout.rstrip("\n")
