"""Running the command line in tests: in process where it only reads and writes, else as the program it is."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """A finished command line. `out` and `err` are the bytes it wrote."""

    status: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[str]:
        return os.fsdecode(self.out).splitlines()

    @property
    def errors(self) -> list[str]:
        return os.fsdecode(self.err).splitlines()


def call(capture: pytest.CaptureFixture[bytes], *argv: str | bytes | Path) -> Ran:
    """Run it in this process. `capture` is the fixture capsysbinary."""
    capture.readouterr()
    status = main([os.fsdecode(argument) for argument in argv])
    return Ran(status, *capture.readouterr())


def program(*argv: str | bytes | Path, module: str = "cli", env: dict[str, str] | None = None) -> Ran:
    """Run it as a process of its own, from the source tree. `module` "unionfs.api.mount_helper" is the mount helper."""
    done = subprocess.run(
        [*process_of(module), *argv],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **(env or {})},
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def process_of(module: str = "cli") -> list[str]:
    """The beginning of the argv of `program`."""
    if module == "cli":
        return [sys.executable, "-c", "from cli.program import program; program()"]
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


def refused(ran: Ran, status: int, error: str, hint: str = "") -> None:
    """Assert that a command failed as the contract says: status, `error: what`, `hint: what to do`, and no data."""
    assert (ran.status, ran.out) == (status, b""), ran
    assert ran.errors[0].startswith("error: ") and error in ran.errors[0], ran
    if hint:
        assert len(ran.errors) == 2 and ran.errors[1].startswith("hint: ") and hint in ran.errors[1], ran


def typed(*argv: str, lines: list[str]) -> str:
    """What a person sees who types these lines, each when asked; without colour."""
    pid, fd = pty.fork()
    if not pid:
        os.chdir(PROJECT)
        os.environ.update(NO_COLOR="1", COLUMNS="80", TERM="dumb")
        os.execv(sys.executable, [sys.executable, "-c", "from cli.program import program; program()", *argv])
    seen, left = "", list(lines)
    try:
        while select.select([fd], [], [], 30)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            seen += data.decode()
            if left and seen.endswith((": ", "> ")):
                os.write(fd, left.pop(0).encode() + b"\n")
    finally:
        os.close(fd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not left
    return seen.replace("\r\n", "\n")
