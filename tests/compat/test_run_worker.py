"""`unionfs run` by a process that was forked ahead, and without one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.compat.run_rig import Box, box, filled
from tests.requirements import requires

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc"),
]

__all__ = ["box", "filled"]  # fixtures

_RUN = ("run", "--rm", "--network", "none")
#: What `run` does, up to a point.
_AHEAD = """
import os, signal, sys
from unionfs.api import container_worker
container_worker.begin()
worker = container_worker.taken()
def create():
    settings = {"command": ["true"], "network": "none"}
    return worker.create({"store": os.environ["UNIONFS_STORE"], "image": "box", "settings": settings, "name": "early",
                          "auto_remove": False, "platform": None})
"""


def _python(box: Box, code: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-c", _AHEAD + code]
    return subprocess.run(argv, env=box.environment, cwd=box.directory, capture_output=True, timeout=60, check=False)


def test_a_container_runs_without_a_worker(box: Box) -> None:
    argv = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())"]
    ran = subprocess.run(
        [*argv, *_RUN, "box", "sh", "-c", "echo said; exit 3"], env=box.environment, capture_output=True, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"said\n", b"")


def test_more_than_a_worker_is_told_runs_without_it(box: Box) -> None:
    much = [word for number in range(12) for word in ("-e", f"MUCH{number}={'x' * 100_000}")]
    assert box.run(*_RUN, *much, "box", "sh", "-c", "echo ${#MUCH11}") == "100000"


def test_who_goes_before_the_start_leaves_no_container(box: Box) -> None:
    ran = _python(box, "print(len(create()))")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"64\n", b"")
    box.until_none_is_left()


def test_who_goes_before_the_request_leaves_no_worker(box: Box) -> None:
    """The worker has the pipes that this waits for the end of."""
    assert _python(box, "print('over')").stdout == b"over\n"


def test_a_worker_that_was_killed_is_told_of(box: Box) -> None:
    ran = _python(
        box,
        """
child = int(open(f"/proc/self/task/{os.getpid()}/children").read())
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
create()
""",
    )
    assert ran.stderr.splitlines()[-1].startswith(b"unionfs.errors.ContainerError: the process that was to run")
    assert "early" not in box.run("ps", "-a", "--format", "{{.Names}}").split()


def test_what_is_refused_by_the_worker_has_its_hint(box: Box) -> None:
    ran = box.call(*_RUN, "--pull", "never", "nonsuch", "true")
    assert ran.status == 125 and b"nonsuch" in ran.err and ran.err.startswith(b"error: ") and b"\nhint: " in ran.err
    ran = box.call(*_RUN, "-v", "relative/a:b", "box", "true")
    assert ran.status == 125 and ran.err.startswith(b"error: ")


@pytest.mark.parametrize("options", [(), ("-d",)], ids=["attached", "detached"])
def test_a_start_that_fails_is_told_by_the_worker(box: Box, options: tuple[str, ...]) -> None:
    ran = box.call("run", "--network", "none", *options, "--name", "failing", "box", "/nonsuch")
    assert ran.status == 127 and ran.err.startswith(b"error: ")
    assert box.status("failing") == "created"
