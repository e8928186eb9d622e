"""Running the command line in tests: in process where it only reads and writes, else as the program it is."""

from __future__ import annotations

import os
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
    start = "import sys; from {} import main; sys.exit(main())".format(f"{module}.main" if module == "cli" else module)
    done = subprocess.run(
        [sys.executable, "-c", start, *argv],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **(env or {})},
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def refused(ran: Ran, status: int, error: str, hint: str = "") -> None:
    """Assert that a command failed as the contract says: status, `error: what`, `hint: what to do`, and no data."""
    assert (ran.status, ran.out) == (status, b""), ran
    assert ran.errors[0].startswith("error: ") and error in ran.errors[0], ran
    if hint:
        assert len(ran.errors) == 2 and ran.errors[1].startswith("hint: ") and hint in ran.errors[1], ran
