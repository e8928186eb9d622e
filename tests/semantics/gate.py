"""A directory behind a gate: its reads of large files, or its flushes, wait until they are let through.

    with gated(root, mnt) as gate:          `root` seen on `mnt`, by a FUSE server of its own
        gate.shut("read")                   or "fsync", "fsyncdir"
        gate.reached()                      returns when a request stands before it
        gate.open()                         lets it, and all that come, through

So a slow disk is an order of events, and no matter of time. `python -m tests.semantics.gate ROOT MNT` is the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.rigs import PROJECT, START_TIMEOUT, python_path
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport import MountOptions, devfuse
from unionfs.vfs import FileHandle, NodeId, OpenResult

#: Files of at least this size are read through the gate.
LARGE: Final = 1 << 20


class Gated(LoopbackFilesystem):
    """Says "shut" on stdout when it is, and "waiting" for each request that has to."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._through = threading.Event()
        self._through.set()
        self._shut = ""

    def obey(self) -> None:
        """Commands from stdin, until its end, which opens the gate."""
        for line in sys.stdin:
            self._shut = line.strip()
            if self._shut:
                self._through.clear()
                say("shut")
            else:
                self._through.set()
        self._through.set()

    def _pass(self, kind: str) -> None:
        if kind == self._shut and not self._through.is_set():
            say("waiting")
            self._through.wait()

    def open(self, node: NodeId, flags: int) -> OpenResult:
        return super().open(node, flags)._replace(fd=-1)  # so that reads come to `read`

    def read(self, fh: FileHandle, offset: int, size: int) -> bytes:
        if os.fstat(self._handle(fh).fd).st_size >= LARGE:
            self._pass("read")
        return super().read(fh, offset, size)

    def fsync(self, fh: FileHandle, datasync: bool) -> None:
        self._pass("fsync")
        super().fsync(fh, datasync)

    def fsyncdir(self, fh: FileHandle, datasync: bool) -> None:
        self._pass("fsyncdir")
        super().fsyncdir(fh, datasync)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Gate:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _await(self, line: str) -> None:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], START_TIMEOUT)[0], f"the gate did not say {line!r}"
        said = os.read(self._process.stdout.fileno(), 4096).decode().split()
        assert set(said) == {line}, said

    def shut(self, kind: str) -> None:
        """From the return on requests of this kind wait."""
        self._command(kind)
        self._await("shut")

    def open(self) -> None:
        self._command("")

    def reached(self) -> None:
        self._await("waiting")


@contextlib.contextmanager
def gated(root: Path, mnt: Path) -> Iterator[Gate]:
    argv = [sys.executable, "-m", "tests.semantics.gate", str(root), str(mnt)]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with subprocess.Popen(argv, cwd=PROJECT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            gate = Gate(process)
            gate._await("ready")
            yield gate
        finally:
            assert process.stdin is not None
            process.stdin.close()
            subprocess.run(["umount", "-l", str(mnt)], check=True, timeout=20)
            process.wait(20)


def main() -> None:
    os.umask(0)
    fs = Gated(sys.argv[1])
    threading.Thread(target=fs.obey, daemon=True).start()
    devfuse.serve(fs, sys.argv[2], MountOptions(passthrough=False), lambda: say("ready"))


if __name__ == "__main__":
    main()
