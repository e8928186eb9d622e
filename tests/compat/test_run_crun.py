"""Containers by crun, where control groups are of version 2 alone, and may not be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compat.namespace import Namespace
from tests.compat.run_rig import Box
from tests.requirements import requires
from tests.unit.cli_runner import PROJECT, process_of
from unionfs.containers import seccomp

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "crun"),
]

SETUP = """
if mountpoint -q /sys/fs/cgroup; then umount -R -l /sys/fs/cgroup; fi
mount -t cgroup2 -o ro unionfs-tests /sys/fs/cgroup
"""


def test_seccomp_filter_is_compiled_once_and_holds_each_time(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.fill()
    env = {**os.environ, **box.environment, "PYTHONPATH": str(PROJECT)}
    script = "grep Seccomp: /proc/self/status || cat /proc/self/status; mkdir /m; mount -t tmpfs m /m && echo mounted"
    with Namespace(tmp_path, SETUP, env) as host:
        shown = [
            host.call(*process_of(), "run", "--rm", "--network", "none", "box", "sh", "-c", script).stdout
            for _ in range(2)
        ]
    for text in shown:
        assert ("Seccomp:\t2" in text) is (seccomp.load_profile() is not None), shown
        assert "mounted" not in text
    filters = list(box.run_directory.glob("runtime/.filters/*"))
    assert len(filters) == (1 if seccomp.load_profile() is not None else 0)
    box.nothing_left()
