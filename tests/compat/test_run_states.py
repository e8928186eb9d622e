"""What becomes of containers when something is killed, or the machine goes down: what `ps` says, what can be done."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from pathlib import Path

import pytest

from tests.compat.run_rig import Box, box, filled
from tests.requirements import requires
from tests.unit.cli_runner import refused
from unionfs.mounts.registry import start_time

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc"),
]
__all__ = ["box", "filled"]  # fixtures

WAIT = "while :; do sleep 0.1; done"


def test_a_killed_init_is_seen_with_its_status(box: Box) -> None:
    box.detached("main", WAIT)
    with box.process("wait", "main") as wait:
        box.kill(int(box.inspect("main")["State"]["Pid"]))
        assert wait.communicate(timeout=30)[0] == b"137\n"
    assert box.status("main") == "exited"
    assert oom_killed(box, "main") == (137, False)


def oom_killed(box: Box, name: str) -> tuple[int, bool]:
    state = box.inspect(name)["State"]
    return state["ExitCode"], state["OOMKilled"]


STARVES = "exec busybox dd if=/dev/zero of=/dev/null bs=60000000 count=1"


def test_one_that_was_killed_for_want_of_memory_says_so_until_it_runs_again(box: Box) -> None:
    script = f"cat /tmp/ran || {{ echo again > /tmp/ran; {STARVES}; }}"
    ran = box.call("run", "--network", "none", "-m", "24m", "--name", "main", "box", "sh", "-c", script)
    assert ran.status == 137
    assert oom_killed(box, "main") == (137, True)
    assert box.run("start", "-a", "main") == "again"
    assert oom_killed(box, "main") == (0, False)


def test_one_whose_child_was_killed_for_want_of_memory_says_so_while_it_runs_and_after(box: Box) -> None:
    box.detached("main", f"({STARVES}); echo child: $?; {WAIT}", "-m", "24m")
    box.until_said("main", "child: 137")
    assert oom_killed(box, "main") == (0, True)
    monitor, pid = box.monitor("main"), int(box.inspect("main")["State"]["Pid"])
    box.kill(monitor)
    box.kill(pid)
    assert oom_killed(box, "main") == (255, True)  # which the group still says


def test_without_its_monitor_a_container_runs_on(box: Box) -> None:
    box.detached("main", f"echo kept > /etc/motd; echo told; {WAIT}")
    box.until_said("main", "told")
    pid = int(box.inspect("main")["State"]["Pid"])
    box.kill(box.monitor("main"))
    assert box.status("main") == "running"
    assert box.run("exec", "main", "cat", "/etc/motd") == "kept"
    refused(box.call("rm", "main"), 1, "container is running", "rm -f")
    assert box.run("stop", "-t", "0", "main") == "main"
    assert start_time(pid) is None
    state = box.inspect("main")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    assert "nobody saw it end" in state["Error"]
    # Its root is gone, and comes again with what it had changed.
    assert box.run("start", "main") == "main"
    assert box.run("exec", "main", "cat", "/etc/motd") == "kept"


def test_a_container_whose_monitor_and_init_were_killed_is_removed(box: Box) -> None:
    box.detached("main", WAIT)
    monitor, pid = box.monitor("main"), int(box.inspect("main")["State"]["Pid"])
    box.kill(monitor)
    box.kill(pid)
    row = box.run("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}")
    assert row.startswith("main exited Exited (255) ")
    assert box.run("wait", "main") == "255"
    assert box.run("rm", "main") == "main"


def test_rm_of_a_container_that_is_to_vanish_after_its_monitor_was_killed(box: Box) -> None:
    box.run("run", "-d", "--rm", "--network", "none", "--name", "main", "box", "sleep", "60")
    monitor, pid = box.monitor("main"), int(box.inspect("main")["State"]["Pid"])
    box.kill(monitor)
    box.kill(pid)
    assert box.run("ps", "-aq") == ""
    box.nothing_left()


def test_without_the_daemon_of_its_root_a_container_ends(box: Box) -> None:
    box.detached("main", f"{WAIT}")
    with box.process("wait", "main") as wait:
        box.kill(box.daemon("main"))
        assert wait.communicate(timeout=30)[0] == b"137\n"
    state = box.inspect("main")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert "the daemon of the mount has ended" in state["Error"]
    assert box.run("start", "main") == "main"


def test_a_monitor_that_is_killed_at_once_leaves_no_process(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the runtime, as soon as the container runs, before anybody has written that down."""
    program = shutil.which("runc")
    (tmp_path / "runc").write_text(
        f'#!/bin/sh\n{program} "$@"; status=$?\n'
        f'case "$*" in *" run "*) cat pid > {tmp_path}/init; kill -9 $PPID;; esac; exit $status\n'
    )
    (tmp_path / "runc").chmod(0o755)
    monkeypatch.setenv("UNIONFS_RUNTIME", str(tmp_path / "runc"))
    assert box.call("run", "--network", "none", "--name", "main", "box", "sleep", "1000").status == 125
    init = int((tmp_path / "init").read_text())
    assert start_time(init) is not None
    assert box.status("main") == "created"
    assert start_time(init) is None


def test_after_a_restart_of_the_machine(box: Box) -> None:
    """The state of another boot: its processes are none, even where their numbers are used again."""
    box.detached("main", f"echo kept > /etc/motd; echo told; {WAIT}")
    box.until_said("main", "told")
    file = box.state_file("main")
    before = json.loads(file.read_text())
    monitor = os.pidfd_open(box.monitor("main"))
    box.run("kill", "main")
    assert select.select([monitor], [], [], 30)[0]  # until then it has the lock that `ps` needs to put the state right
    os.close(monitor)
    own = [os.getpid(), start_time(os.getpid())]
    file.write_text(json.dumps(before | {"boot": "of another boot", "process": own, "monitor": own}))
    row = box.run("ps", "-a", "--format", "{{.Names}} {{.Status}}")
    assert row.startswith("main Exited (255) ")
    assert box.run("start", "main") == "main"
    assert box.run("exec", "main", "cat", "/etc/motd") == "kept"


def test_a_reused_number_is_another_process(box: Box) -> None:
    box.run("run", "--network", "none", "--name", "main", "box", "true")
    file = box.state_file("main")
    state = json.loads(file.read_text())
    other = [os.getpid(), (start_time(os.getpid()) or 0) + 1]
    file.write_text(json.dumps(state | {"running": True, "process": other, "monitor": other}))
    assert box.status("main") == "exited"
    assert box.run("rm", "main") == "main"
    assert start_time(os.getpid())


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b'{"running": 1}'])
def test_a_state_that_is_no_state_is_an_unseen_end(box: Box, written: bytes) -> None:
    box.run("run", "--network", "none", "--name", "main", "box", "true")
    box.state_file("main").write_bytes(written)
    assert box.run("ps", "-a", "--format", "{{.State}} {{.Status}}").startswith("exited Exited (255)")


def test_what_a_crash_left_of_a_removal_goes_with_the_next_container(box: Box) -> None:
    box.run("run", "--network", "none", "--name", "main", "box", "true")
    directory = box.state_file("main").parent
    (directory / "container.json").unlink()
    assert box.run("ps", "-aq") == ""
    box.run("run", "--rm", "--network", "none", "box", "true")
    assert not directory.exists()


def test_a_cache_that_was_removed_is_made_anew(box: Box) -> None:
    script = "cat /etc/motd; echo changed > /etc/motd"
    box.run("run", "--network", "none", "--name", "main", "box", "sh", "-c", script)
    shutil.rmtree(box.directory / "cache")
    assert box.run("start", "-a", "main") == "changed"
    shutil.rmtree(box.directory / "cache")
    assert box.run("run", "--rm", "--network", "none", "box") == "said by the image"


def test_a_monitor_that_is_asked_to_end_ends_its_container(box: Box) -> None:
    box.detached("main", f"trap 'exit 6' TERM; {WAIT}")
    with box.process("wait", "main") as wait:
        os.kill(box.monitor("main"), signal.SIGTERM)
        assert wait.communicate(timeout=30)[0] == b"6\n"


def test_the_mount_lives_as_long_as_the_container(box: Box) -> None:
    box.detached("main", WAIT)
    merged = Path(box.inspect("main")["GraphDriver"]["Data"]["MergedDir"])
    assert (merged / "etc/motd").read_text() == "of the image\n"
    daemon = box.daemon("main")
    box.run("kill", "main")
    box.run("wait", "main")
    assert start_time(daemon) is None
    assert list(merged.iterdir()) == []
