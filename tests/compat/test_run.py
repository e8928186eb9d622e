"""`unionfs run` in the foreground: output, status, signals, terminals, and what is wrong, as docker has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.run_rig import Box, Typist, box, filled
from tests.requirements import requires
from tests.unit.cli_runner import refused

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc"),
]

__all__ = ["box", "filled"]  # fixtures


def test_output_of_both_streams_and_status(box: Box) -> None:
    ran = box.call("run", "--rm", "--network", "none", "box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.status, ran.out, ran.err) == (3, b"out\n", b"err\n")


def test_the_images_command_and_environment(box: Box) -> None:
    assert box.run("run", "--rm", "--network", "none", "box") == "said by the image"
    shown = box.run("run", "--rm", "--network", "none", "-e", "MINE=1", "--hostname", "here", "box", "env").splitlines()
    assert {"FROM=image", "MINE=1", "HOSTNAME=here", "HOME=/root"} <= set(shown)


def test_input_is_passed_on_with_i_only(box: Box) -> None:
    run = ("run", "--rm", "--network", "none")
    assert box.call(*run, "-i", "box", "cat", stdin=b"line\0\xff\n").out == b"line\0\xff\n"
    assert box.call(*run, "box", "cat", stdin=b"unread").out == b""


def test_who_has_closed_his_streams_runs_what_needs_none_of_them(box: Box) -> None:
    shell = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *box.command(), "run", "--rm", "-i", "--network", "none", "box"]
    ran = subprocess.run([*shell, "sh", "-c", "cat; echo said"], env=box.environment, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, b"said\n")
    shell[2] = 'exec "$@" >&-'
    shell[-1:] = ["box", "echo", "lost"]
    ran = subprocess.run(shell, env=box.environment, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (125, b"error: Bad file descriptor\n")
    box.until_none_is_left()


def test_a_megabyte_goes_through_unchanged(box: Box) -> None:
    data = os.urandom(1 << 20)
    ran = box.call("run", "--rm", "-i", "--network", "none", "box", "cat", stdin=data)
    assert ran.status == 0 and ran.out == data


def test_rm_leaves_nothing(box: Box) -> None:
    box.run("run", "--rm", "--network", "none", "box", "true")
    box.nothing_left()


def test_changes_are_kept_without_rm(box: Box) -> None:
    box.run("run", "--network", "none", "--name", "kept", "box", "sh", "-c", "echo changed > /etc/motd; rm /etc/group")
    upper = Path(box.inspect("kept")["GraphDriver"]["Data"]["UpperDir"])
    assert (upper / "etc/motd").read_text() == "changed\n"
    assert box.status("kept") == "exited"


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (("box", "nothing"), 127, "not found"),
        (("box", "/bin/nothing"), 127, "o such file or directory"),
        (("box", "/etc/motd"), 126, "ermission denied"),
        (("box", "/etc"), 126, "exec"),
        (("-u", "nobody-there", "box", "true"), 125, "unable to find user nobody-there"),
        (("-w", "relative", "box", "true"), 125, "needs to be an absolute path"),
        (("--network", "bridge", "box", "true"), 125, "network bridge not found"),
        (("--name", "-x", "box", "true"), 125, "Invalid container name (-x)"),
        (("--pull", "never", "missing", "true"), 125, "No such image: missing:latest"),
        (("--pull", "sometimes", "box", "true"), 125, "invalid pull option"),
        (("-p", "nonsense", "box", "true"), 125, "invalid containerPort: nonsense"),
        (("-v", "relative:/x", "box", "true"), 125, "named volume"),
        (("--security-opt", "seccomp=x", "box", "true"), 125, "invalid --security-opt"),
        (("-it", "box", "true"), 125, "the input device is not a TTY"),
        (("--no-such-option", "box"), 125, "no such option: --no-such-option"),
    ],
)
def test_what_is_wrong_has_dockers_status(box: Box, argv: tuple[str, ...], status: int, message: str) -> None:
    ran = box.call("run", "--rm", *(() if "--network" in argv or "-p" in argv else ("--network", "none")), *argv)
    assert (ran.status, ran.out) == (status, b"")
    assert message in ran.errors[0] and ran.errors[0].startswith("error: "), ran
    box.nothing_left()


def test_rm_leaves_nothing_of_one_that_nobody_could_start(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIONFS_RUNTIME", "nonsuch")
    for command in (box.command(), [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())"]):
        argv = [*command, "run", "--rm", "--name", "", "--network", "none", "box", "true"]
        done = subprocess.run(argv, env=box.environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 125 and b"there is no runtime nonsuch" in done.stderr
        box.nothing_left()
    assert box.call("run", "--name", "kept", "--network", "none", "box", "true").status == 125
    assert box.status("kept") == "created"


def test_a_command_that_was_not_found_leaves_a_created_container(box: Box) -> None:
    assert box.call("run", "--network", "none", "--name", "never", "box", "nothing").status == 127
    assert box.status("never") == "created"
    state = box.inspect("never")["State"]
    assert state["ExitCode"] == 127 and "not found" in state["Error"]


def test_a_name_is_taken_once(box: Box) -> None:
    box.run("run", "--network", "none", "--name", "one", "box", "true")
    ran = box.call("run", "--network", "none", "--name", "one", "box", "true")
    refused(ran, 125, 'Conflict. The container name "/one" is already in use by container', "take another name")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(box: Box, number: signal.Signals) -> None:
    script = f"trap 'echo caught; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.01; done"
    with box.process("run", "--rm", "--network", "none", "box", "sh", "-c", script) as run:
        assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        assert run.stdout.read() == b"caught\n"
        assert run.wait(timeout=30) == 9


def test_a_signal_that_ends_it_is_its_status(box: Box) -> None:
    with box.process("run", "--name", "killed", "--network", "none", "box", "sh", "-c", "echo ready; sleep 60") as run:
        assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        box.run("kill", "killed")
        assert run.wait(timeout=30) == 137


def test_it_goes_on_when_who_ran_it_is_killed(box: Box) -> None:
    with box.process("run", "--name", "alone", "--network", "none", "box", "sh", "-c", "echo ready; sleep 60") as run:
        assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        run.kill()
        run.wait()
    assert box.status("alone") == "running"
    assert box.run("exec", "alone", "sh", "-c", "cat /etc/motd") == "of the image"


def test_who_has_read_enough_is_told_nothing(box: Box) -> None:
    """As with docker and podman the container goes on."""
    with box.process("run", "--name", "main", "--network", "none", "box", "yes") as run:
        assert run.stdout is not None and run.stderr is not None and run.stdout.readline() == b"y\n"
        run.stdout.close()
        assert (run.wait(timeout=30), run.stderr.read()) == (128 + signal.SIGPIPE, b"")
    assert box.status("main") == "running"


def test_who_does_not_read_does_not_lose_output(box: Box) -> None:
    with box.process("run", "--rm", "--network", "none", "box", "sh", "-c", "yes line | head -n 1000000") as run:
        assert run.stdout is not None
        first = run.stdout.read(5)  # and then nothing, while pipes and buffers fill
        rest = run.stdout.read()
        assert first + rest == b"line\n" * 1000000
        assert run.wait(timeout=30) == 0


def test_options_of_the_root_and_the_user(box: Box) -> None:
    ran = box.call("run", "--rm", "--network", "none", "--read-only", "box", "touch", "/srv/x")
    assert ran.status == 1 and b"Read-only file system" in ran.err
    assert box.run("run", "--rm", "--network", "none", "-u", "daemon", "-w", "/srv", "box", "sh", "-c", "id; pwd") == (
        "uid=7(daemon) gid=8(daemon) groups=8(daemon),9(extra)\n/srv"
    )
    assert box.run("run", "--rm", "--network", "none", "--entrypoint", "echo", "box", "a", "b") == "a b"


def test_the_umask_of_who_runs_it_is_not_the_containers(box: Box) -> None:
    argv = ["sh", "-c", 'umask 077; exec "$@"', "sh", *box.command(), "run", "--rm", "--network", "none"]
    script = "cat /etc/motd /etc/hosts >/dev/null; ls -d /made; umask"
    done = subprocess.run(
        [*argv, "-u", "daemon", "-v", "/made", "box", "sh", "-c", script],
        env=box.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/made\n0022\n", b"")


def test_the_root_has_the_images_mode(box: Box) -> None:
    said = box.run("run", "--rm", "--network", "none", "-u", "daemon", "box", "sh", "-c", "ls -ld /")
    assert said.split()[0] == "drwx--x--x", said


def test_a_volume_is_the_hosts(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    script = "cat /data/in; echo back > /data/out"
    assert box.run("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/data", "box", "sh", "-c", script) == (
        "from the host"
    )
    assert (tmp_path / "out").read_text() == "back\n"
    ran = box.call("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/data:ro", "box", "touch", "/data/x")
    assert ran.status == 1 and b"Read-only" in ran.err


def test_a_directory_on_a_file(box: Box, tmp_path: Path) -> None:
    """Which is which comes before what the runtime says."""
    (tmp_path / "file").touch()
    run = ("run", "--network", "none", "--name", "main", "-v")
    ran = box.call(*run, f"{tmp_path}:/etc/motd", "box", "true")
    refused(ran, 125, f"error: cannot mount the directory {tmp_path} on /etc/motd, which is a file in the container: ")
    assert "not a directory" in ran.errors[0] and ran.err.endswith(b"mount a file there, or the directory elsewhere\n")
    assert box.inspect("main")["State"]["Error"].startswith(f"cannot mount the directory {tmp_path} on /etc/motd")
    again = box.call("start", "main")
    refused(again, 1, "which is a file in the container", "hint: mount a file there")


def test_a_terminal_with_its_size_and_keys(box: Box) -> None:
    with Typist(box, "run", "-it", "--rm", "--network", "none", "box", "sh") as typist:
        typist.types("stty size; tty\n")
        typist.sees("30 90")
        typist.sees("/dev/pts/0")
        typist.resize(41, 77)
        typist.types("stty size\n")
        typist.sees("41 77")
        typist.types("sh -c 'echo go''ing; exec sleep 60'\n")
        typist.sees("going")
        typist.types("\x03")  # ctrl-C is for what runs in it
        typist.types("exit 5\n")
        assert typist.end() == 5
    box.nothing_left()


def test_the_users_terminal_is_as_it_was(box: Box) -> None:
    with Typist(box, "run", "-it", "--rm", "--network", "none", "box", "true") as typist:
        import termios

        before = termios.tcgetattr(typist.master)
        assert typist.end() == 0
        assert termios.tcgetattr(typist.master) == before


def test_a_terminal_is_let_go_of_and_taken_again(box: Box) -> None:
    with Typist(box, "run", "-it", "--name", "long", "--network", "none", "box", "sh") as typist:
        typist.types("echo here''s\n")
        typist.sees("heres")
        typist.types("\x10\x11")  # ctrl-p ctrl-q
        assert typist.end() == 0
    assert box.status("long") == "running"
    with Typist(box, "start", "-ai", "long") as typist:
        typist.types("echo ag''ain; exit 6\n")
        typist.sees("again")
        assert typist.end() == 6


def test_ten_at_once(box: Box) -> None:
    argv = [*box.command(), "run", "--rm", "--network", "none", "box", "sh", "-c", "echo $HOSTNAME; exit 4"]
    runs = [
        subprocess.Popen(argv, env=box.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(10)
    ]
    try:
        said = [run.communicate(timeout=120)[0] for run in runs]
    finally:
        for run in runs:
            if run.poll() is None:
                run.kill()
    assert [run.returncode for run in runs] == [4] * 10
    assert len(set(said)) == 10
    box.nothing_left()


def test_an_image_that_a_container_has_is_not_removed(box: Box) -> None:
    box.run("run", "--name", "user", "--network", "none", "box", "true")
    id = box.inspect("user")["Id"]
    refused(
        box.call("image", "rm", "box"), 1, f"container {id[:12]} is using its referenced image", f"unionfs rm {id[:12]}"
    )
    box.run("image", "prune", "-af")
    assert [line.split()[0] for line in box.names()] == ["box:latest"]
