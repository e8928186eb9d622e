"""`unionfs ps`, `exec`, `logs`, `inspect`, `start`, `stop`, `kill`, `wait` and `rm`, as docker has them."""

from __future__ import annotations

import json
import os
import re
import signal
import tarfile
import time
from pathlib import Path

import pytest

from tests.compat.run_rig import Box, Typist, box, filled
from tests.requirements import requires
from tests.unit.cli_runner import Ran, refused

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc"),
]
__all__ = ["box", "filled"]  # fixtures

WAIT = "while :; do sleep 0.1; done"
ENDS = f"trap 'echo ends; exit 7' TERM; {WAIT}"


def test_ps_lists_what_runs_and_with_a_all(box: Box) -> None:
    id = box.detached("running", WAIT)
    assert box.call("run", "--network", "none", "--name", "ended", "box", "sh", "-c", "exit 3").status == 3
    heading, row = box.run("ps").splitlines()
    assert heading.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert re.fullmatch(rf'{id[:12]} +box +"sh -c \'echo ready;w…" +.* ago +Up .* +running', row)
    assert box.run("ps", "-q") == id[:12]
    assert box.run("ps", "-q", "--no-trunc") == id
    names = ("ps", "--format", "{{.Names}}")
    assert box.run(*names, "-a").splitlines() == ["ended", "running"]
    for option in ("-l", "-n1"):
        assert box.run(*names, option) == "ended"
    for text, found in (
        ("status=exited", "ended"), ("name=runn", "running"), (f"id={id[:6]}", "running"), ("exited=3", "ended"),
        ("exited=0", ""), ("since=running", "ended"), ("before=ended", "running"), ("label=kind=box", "ended\nrunning"),
        ("label=kind=other", ""), ("ancestor=box", "ended\nrunning"), ("ancestor=other", ""),
    ):  # fmt: skip
        assert box.run(*names, "-a", "-f", text) == found, text
    told = json.loads(box.run("ps", "--format", "json"))
    assert (told["ID"], told["State"], told["Names"]) == (id[:12], "running", "running")
    refused(box.call("ps", "-f", "color=red"), 2, "invalid filter 'color'")
    refused(box.call("ps", "-f", "status=dead"), 2, "invalid filter 'status=dead'")


def test_logs_have_streams_times_and_parts(box: Box) -> None:
    script = "echo b >&2; echo a; echo c; echo -n d"
    ran = box.call("run", "--network", "none", "--name", "main", "box", "sh", "-c", script)
    assert ran.status == 0
    ran = box.call("logs", "main")
    assert (ran.out, ran.err) == (b"a\nc\nd", b"b\n")
    assert box.call("logs", "-n", "1", "main").out == b"d"
    timed = box.call("logs", "-t", "main").lines
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", "", line) for line in timed] == ["a", "c", "d"]
    last = timed[-1].split()[0]
    assert box.call("logs", "--since", last, "main").out == b"d"
    assert box.call("logs", "--until", last, "main").out == b"a\nc\nd"
    assert box.call("logs", "--since", "1h", "main").out == b"a\nc\nd"
    assert box.call("logs", "--until", "1h", "main").out == b""
    refused(box.call("logs", "--since", "yesterday", "main"), 2, "invalid value for a time: 'yesterday'")
    refused(box.call("logs", "nobody"), 1, "No such container: nobody")


def test_logs_follow_until_the_end(box: Box) -> None:
    box.detached("main", ENDS)
    with box.process("logs", "-f", "main") as logs:
        assert logs.stdout is not None and logs.stdout.readline() == b"ready\n"
        until_it_sleeps(logs.pid)
        box.run("stop", "main")
        assert logs.stdout.read() == b"ends\n"
        assert logs.wait(timeout=30) == 0


def until_it_sleeps(pid: int) -> None:
    """Wait until a process waits in poll(2), for ever: the third argument is no timeout (proc_pid_syscall(5))."""
    without_end = {"x86_64": ["7", "0xffffffff"], "aarch64": ["73", "0x0"]}[os.uname().machine]  # there it is ppoll
    deadline = time.monotonic() + 30
    while [(words := Path(f"/proc/{pid}/syscall").read_text().split())[0], *words[3:4]] != without_end:
        assert time.monotonic() < deadline, words


def test_logs_follow_to_the_end_of_one_without_a_monitor(box: Box) -> None:
    box.detached("main", WAIT)
    monitor, pid = box.monitor("main"), int(box.inspect("main")["State"]["Pid"])
    with box.process("logs", "-f", "main") as logs:
        assert logs.stdout is not None and logs.stdout.readline() == b"ready\n"
        box.kill(monitor)
        until_it_sleeps(logs.pid)
        assert logs.poll() is None
        box.kill(pid)
        assert (logs.stdout.read(), logs.wait(timeout=30)) == (b"", 0)


def test_logs_that_are_followed_end_with_ctrl_c_without_a_word(box: Box) -> None:
    box.detached("main", WAIT)
    with box.process("logs", "-f", "main") as logs:
        assert logs.stdout is not None and logs.stdout.readline() == b"ready\n"
        logs.send_signal(signal.SIGINT)
        assert (logs.communicate(timeout=30), logs.returncode) == ((b"", b""), -signal.SIGINT)


def test_logs_follow_to_the_last_word_of_one_that_vanishes(box: Box) -> None:
    box.detached("main", "until test -e /tmp/go; do sleep 0.01; done; echo last", "--rm")
    with box.ending(box.monitor("main")), box.process("logs", "-f", "main") as logs:
        assert logs.stdout is not None and logs.stdout.readline() == b"ready\n"
        box.run("exec", "main", "touch", "/tmp/go")
        assert (logs.stdout.read(), logs.wait(timeout=30)) == (b"last\n", 0)


def test_stop_asks_first_and_kills_after_a_while(box: Box) -> None:
    box.detached("polite", ENDS)
    box.detached("stubborn", f"trap '' TERM; {WAIT}")
    assert box.run("stop", "-t", "1", "polite", "stubborn").splitlines() == ["polite", "stubborn"]
    assert [box.inspect(name)["State"]["ExitCode"] for name in ("polite", "stubborn")] == [7, 137]
    assert box.run("stop", "polite") == "polite"  # again
    refused(box.call("stop", "nobody"), 1, "No such container: nobody", "unionfs ps -a")


def test_start_has_the_changes_and_a_new_log_behind_the_old(box: Box) -> None:
    script = "cat /etc/motd; echo changed > /etc/motd"
    assert box.run("run", "--network", "none", "--name", "main", "box", "sh", "-c", script) == "of the image"
    assert box.run("start", "-a", "main") == "changed"
    assert box.run("logs", "main") == "of the image\nchanged"
    assert box.run("start", "main") == "main"
    box.run("wait", "main")
    refused(box.call("start", "nobody"), 1, "No such container: nobody")


def test_one_that_cannot_start_does_not_keep_the_next_from_it(box: Box, tmp_path: Path) -> None:
    (tmp_path / "lost").write_text("its layer is lost")
    with tarfile.open(tmp_path / "lost.tar", "w") as tar:
        tar.add(tmp_path / "lost", "lost")
    box.run("image", "import", tmp_path / "lost.tar", "lost")
    box.created("first", "true", image="lost")
    box.created("second", "true")
    layer = json.loads(box.run("image", "inspect", "lost"))[0]["RootFS"]["Layers"][0]
    (box.store / "blobs" / layer.replace(":", "/")).unlink()
    ran = box.call("start", "first", "second")
    assert (ran.status, ran.lines, len(ran.errors)) == (1, ["second"], 2), ran


def test_start_of_what_runs_is_nothing(box: Box) -> None:
    box.detached("main", WAIT)
    pid = box.inspect("main")["State"]["Pid"]
    assert box.run("start", "main") == "main"
    assert box.inspect("main")["State"]["Pid"] == pid


def test_kill_sends_a_signal_by_name_or_number(box: Box) -> None:
    box.detached("main", f"trap 'echo usr1' USR1; {ENDS}")
    assert box.run("kill", "-s", "USR1", "main") == "main"
    box.until_said("main", "usr1")
    box.run("kill", "-s", "15", "main")
    assert box.run("wait", "main") == "7"
    refused(box.call("kill", "main"), 1, "is not running")
    refused(box.call("kill", "-s", "SIGNONE", "main"), 2, "invalid signal: SIGNONE")


def test_rm_refuses_what_runs_but_by_force(box: Box) -> None:
    id = box.detached("main", WAIT)
    refused(box.call("rm", "main"), 1, 'cannot remove container "/main": container is running', "unionfs rm -f main")
    assert box.run("rm", "-f", id[:8]) == id[:8]
    box.nothing_left()
    refused(box.call("rm", "main"), 1, "No such container: main")
    assert box.call("rm", "-f", "main").status == 0


def test_exec_has_streams_status_user_and_environment(box: Box) -> None:
    box.detached("main", WAIT, "-e", "OUTER=1")
    ran = box.call("exec", "main", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (ran.status, ran.out, ran.err) == (5, b"out\n", b"err\n")
    assert box.call("exec", "-i", "main", "cat", stdin=b"in\n").out == b"in\n"
    assert box.run("exec", "-u", "daemon", "-w", "/srv", "main", "sh", "-c", "id -un; pwd; echo $HOME") == (
        "daemon\n/srv\n/srv"
    )
    shown = box.run("exec", "-e", "INNER=2", "-e", "FROM", "main", "env").splitlines()
    assert {"OUTER=1", "INNER=2"} <= set(shown) and "FROM=image" not in shown
    assert box.run("exec", "-d", "main", "sh", "-c", "echo detached > /tmp/there") == ""


def test_exec_of_what_cannot_be_executed(box: Box) -> None:
    box.detached("main", WAIT)
    for command, status, message in (("nothing", 127, b"not found"), ("/etc/motd", 126, b"ermission denied")):
        ran = box.call("exec", "main", command)
        assert ran.status == status and message in ran.err
        assert len(ran.errors) == 1
    box.run("kill", "main")
    box.run("wait", "main")
    refused(box.call("exec", "main", "true"), 1, "is not running", "unionfs start main")
    directory = box.state_file("main").parent
    assert [path.name for path in directory.iterdir() if path.name.startswith("exec-")] == []


def test_exec_on_a_terminal(box: Box) -> None:
    box.detached("main", WAIT)
    with Typist(box, "exec", "-it", "main", "sh") as typist:
        typist.types("stty size; tty\n")
        typist.sees("30 90")
        typist.sees("/dev/pts/0")
        typist.resize(50, 60)
        typist.types("stty size\n")
        typist.sees("50 60")
        typist.types("exit 4\n")
        assert typist.end() == 4
    with Typist(box, "exec", "-it", "main", "nothing") as typist:
        assert typist.end() == 127
        assert b"not found" in typist.seen
    # One that is left alone: nobody sees what it writes, and it goes on without who began it.
    script = "tty > /tmp/tty; yes | head -c 100000; echo over > /tmp/over; read line"
    assert box.call("exec", "-itd", "main", "sh", "-c", script) == Ran(0, b"", b"")
    waits = "until test -s /tmp/over; do sleep 0.01; done; cat /tmp/tty"
    assert box.run("exec", "main", "sh", "-c", waits).startswith("/dev/pts/")


def test_inspect_is_dockers(box: Box, tmp_path: Path) -> None:
    options = ("-e", "PATH=/bin", "-v", f"{tmp_path}:/data:ro", "-m", "64m", "-u", "daemon", "--hostname", "here")
    id = box.detached("main", WAIT, *options)
    found = box.inspect("main")
    assert found["Id"] == id and found["Name"] == "/main" and found["Driver"] == "unionfs"
    assert (found["Path"], found["Args"][:1]) == ("sh", ["-c"])
    assert found["State"]["Running"] is True and found["State"]["Pid"] > 0
    assert found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert found["Image"] == "sha256:" + json.loads(box.run("image", "inspect", "box"))[0]["Id"].split(":")[1]
    config, host = found["Config"], found["HostConfig"]
    assert (config["Hostname"], config["User"], config["Image"]) == ("here", "daemon", "box")
    assert config["Env"] == ["FROM=image", "PATH=/bin"] and config["Labels"] == {"kind": "box"}
    assert (host["Memory"], host["NetworkMode"], host["Binds"]) == (64 << 20, "none", [f"{tmp_path}:/data:ro"])
    assert found["Mounts"][0]["Destination"] == "/data" and found["Mounts"][0]["RW"] is False
    assert Path(found["LogPath"]).read_bytes().endswith(b" stdout F ready\n")
    assert box.run("inspect", "-f", "{{.State.Status}}", "main") == "running"
    assert json.loads(box.run("inspect", "box"))[0]["RepoTags"] == ["box:latest"]
    ran = box.call("inspect", "nobody")
    assert (ran.status, ran.out) == (1, b"[]\n") and "No such object: nobody" in ran.errors[0]


def test_memory_is_limited(box: Box) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    said = box.run("run", "--rm", "--network", "none", "-m", "64m", "box", "sh", "-c", script)
    assert said == str(64 << 20)
