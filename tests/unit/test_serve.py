"""`python -m unionfs.testing.serve`: what a rig relies on when a mount cannot be made, and read-only mounts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.posix.tools import expect
from tests.requirements import need, requires
from tests.rigs import PROJECT, RIGS, Backing, Population, mount, python_path


@requires("fuse")
def test_missing_mountpoint_is_an_error_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    argv = [sys.executable, "-m", "unionfs.testing.serve", "--fs", "loopback", "--transport", "devfuse"]
    argv += ["--root", str(tmp_path / "r"), str(tmp_path / "no")]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run(argv, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("name", [rig.name for rig in RIGS.values() if rig.fs == "loopback"])
def test_read_only_mount_reads_and_refuses(name: str, backing: Backing) -> None:
    need(*RIGS[name].requirements)
    before = {"": Population(base=lambda d: (d / "f").write_bytes(b"data"))}
    with mount(RIGS[name], backing, before, options=["--ro"]) as mounted:
        assert (mounted.path / "f").read_bytes() == b"data"
        with expect(errno.EROFS):
            (mounted.path / "new").write_bytes(b"x")
        with expect(errno.EROFS):
            os.unlink(mounted.path / "f")
