"""What is started with some of its standard streams closed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli_runner import PROJECT, Ran, process_of

_HELPER = "unionfs.api.mount_helper"
_ALL = "<&- >&- 2>&-"


def closed(which: str, *argv: str | Path, module: str = "cli") -> Ran:
    """`which`: redirections of the shell."""
    command = ["sh", "-c", f'exec "$@" {which}', "sh", *process_of(module), *argv]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_without_an_output_what_goes_there_is_an_error() -> None:
    assert closed(">&-", "--version") == Ran(1, b"", b"error: Bad file descriptor\n")


def test_without_an_output_what_says_nothing_succeeds(tmp_path: Path) -> None:
    assert closed(">&-", "--store", tmp_path, "image", "ls", "-q") == Ran(0, b"", b"")


def test_a_closed_input_is_empty(tmp_path: Path) -> None:
    ran = closed("<&-", "--store", tmp_path, "image", "load")
    assert (ran.status, ran.out) == (1, b"") and ran.errors[0].startswith("error: ")


@pytest.mark.parametrize("which", ["2>&-", "<&- 2>&-"])
def test_errors_have_nowhere_to_go_and_the_status_tells(which: str) -> None:
    assert closed(which, "explode") == Ran(2, b"", b"")
    assert closed(which, "--version").status == 0


def test_the_mount_program_too() -> None:
    assert closed("2>&-", module=_HELPER) == Ran(1, b"", b"")
    assert closed("<&-", "--version", module=_HELPER).status == 0


def test_nothing_is_opened_as_a_stream() -> None:
    code = (
        "import os\nfrom unionfs.api.streams import fill_standard_streams\nfill_standard_streams()\n"
        "import sys\nfd = os.open('/', os.O_RDONLY)\n"
        "print(fd, sys.stdin.read() == '', file=open(os.environ['TOLD'], 'w'))"
    )
    read, write = os.pipe()
    with open(read) as told:
        process = process_of()[0]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TOLD": f"/proc/{os.getpid()}/fd/{write}"}
        subprocess.run(["sh", "-c", f'exec "$@" {_ALL}', "sh", process, "-c", code], env=environment, check=True)
        os.close(write)
        assert told.read() == "3 True\n"
