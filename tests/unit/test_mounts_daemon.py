"""The life of a daemon, with real processes and real mounts."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.mounts_rig import PATIENCE, Place, ended
from unionfs.mounts import control
from unionfs.mounts.mountpoint import umount

pytestmark = requires("root", "fuse", "libfuse")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.clean()


def ask(place: Place) -> dict[str, object]:
    found = place.registry.find(os.fsencode(place.mnt))
    assert found is not None and found.record is not None and found.record.control is not None
    return control.request(found.record.control, "ping")


# ready --------------------------------------------------------------------------------------------------------------
def test_mount_is_usable_when_the_command_returns(place: Place) -> None:
    done = place.run()
    # communicate() has seen the end of stdout and stderr: the daemon, which lives, holds neither.
    assert done.returncode == 0 and done.stderr == ""
    assert (place.mnt / "file").read_text() == "content"
    os.kill(int(done.stdout), 0)


def test_daemon_leaves_the_session_directory_umask_and_descriptors_of_its_caller(place: Place) -> None:
    pid = place.mount()
    assert os.getsid(pid) == pid
    answer = ask(place)
    assert (answer["pid"], answer["cwd"], answer["umask"]) == (pid, "/", 0)
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    assert not [
        name for fd in os.listdir(f"/proc/{pid}/fd") if "pipe:" in (name := os.readlink(f"/proc/{pid}/fd/{fd}"))
    ]


def test_daemon_keeps_no_descriptor_of_its_caller(place: Place) -> None:
    # As a shell does with `exec 9>lock; flock 9; unionfs mount …`, or `3> >(tee log)`.
    reader, writer = os.pipe()
    place.mount(inherit=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert select.select([pipe], [], [], PATIENCE)[0] and pipe.read() == b""
    assert (place.mnt / "file").exists()


def test_daemon_raises_its_descriptor_limit(place: Place) -> None:
    pid = place.mount()
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard


# signals ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_unmounts(place: Place, number: signal.Signals) -> None:
    pid = place.mount()
    with ended(pid):
        os.kill(pid, number)
    assert not place.is_mounted
    assert os.listdir(place.base / "run") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_in_the_foreground_unmounts_and_exits_with_0(place: Place, number: signal.Signals) -> None:
    process = place.start(foreground=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert (place.mnt / "file").read_text() == "content"
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert not place.is_mounted


def test_foreground_ends_with_0_when_somebody_else_unmounts(place: Place) -> None:
    process = place.start(foreground=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    subprocess.run(["umount", place.mnt], check=True)
    assert process.wait(PATIENCE) == 0


def test_busy_mount_is_detached_and_serves_its_open_files_to_the_end(place: Place) -> None:
    pid = place.mount()
    with open(place.mnt / "file", "r+") as file:
        os.kill(pid, signal.SIGTERM)
        place.until_unmounted()
        file.write("changed")
        file.flush()
        assert (place.base / "root" / "file").read_text() == "changed"
        # Mounted nowhere, but its daemon lives: its upper is still in use.
        assert [mount.state for mount in place.registry.list_mounts() if mount.record is not None] == ["detached"]
        daemon = os.pidfd_open(pid)
    with os.fdopen(daemon):
        assert select.select([daemon], [], [], PATIENCE)[0]


def test_second_signal_ends_a_detached_daemon_at_once(place: Place) -> None:
    pid = place.mount()
    fd = os.open(place.mnt / "file", os.O_RDONLY)
    with ended(pid):
        os.kill(pid, signal.SIGTERM)
        place.until_unmounted()
        os.kill(pid, signal.SIGTERM)
    with pytest.raises(OSError) as caught:
        os.close(fd)
    assert caught.value.errno == errno.ENOTCONN


# what goes wrong before the mount is ready ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fault, message",
    [
        ("layer error", "error: layer /nowhere does not exist\nhint: mkdir /nowhere\n"),
        ("os error", "error: [Errno 2] No such file or directory: '/does/not/exist'\n"),
        ("bug", "error: ZeroDivisionError: a bug\nhint: this is a bug in unionfs\n"),
        ("exit", "error: the daemon exited with 7 before the mount was ready\nhint: run it with -f to see more\n"),
        ("killed", "error: the daemon was killed by SIGKILL before the mount was ready\n"),
    ],
)
def test_failure_before_ready_is_the_commands_failure(place: Place, fault: str, message: str) -> None:
    done = place.run(fault=fault)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr
    # Until it is ready the daemon's own stderr is the caller's: a bug's traceback is seen.
    assert done.stderr.startswith("on the way to a fault\n")
    assert ("Traceback" in done.stderr) == (fault == "bug")
    assert not place.is_mounted


def test_daemon_that_is_signalled_before_ready_goes(place: Place) -> None:
    process = place.start(fault="terminated")
    assert process.stderr is not None and process.stderr.readline() == "on the way to a fault\n"
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "error: the daemon exited with 143 before the mount was ready" in err
    assert not place.is_mounted


def test_command_that_is_interrupted_takes_its_daemon_along(place: Place) -> None:
    process = place.start(fault="terminated")
    assert process.stderr is not None and process.stderr.readline() == "on the way to a fault\n"
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    with ended(int(child)):
        process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) != 0


def test_foreground_failure_is_raised_as_it_is(place: Place) -> None:
    done = place.run(foreground=True, fault="layer error")
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (
        1,
        ["error: layer /nowhere does not exist", "hint: mkdir /nowhere"],
    )


# the log ------------------------------------------------------------------------------------------------------------
def test_log_file_is_appended_to_and_private(place: Place) -> None:
    log = place.base / "log"
    for _ in range(2):
        pid = place.mount(log=log)
        assert os.readlink(f"/proc/{pid}/fd/2") == str(log)
        with ended(pid), open(place.mnt / "file"):
            os.kill(pid, signal.SIGTERM)
            place.until_unmounted()
    assert log.read_text().count("detached") == 2
    assert f"unionfs.daemon[{pid}] WARNING: SIGTERM: {place.mnt} is busy" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_log_of_a_foreground_mount_leaves_stderr_alone(place: Place) -> None:
    process = place.start(foreground=True, log=place.base / "log")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    with open(place.mnt / "file"):
        process.terminate()
        place.until_unmounted()
    assert process.communicate(timeout=PATIENCE)[1] == "" and process.returncode == 0
    assert "is busy" in (place.base / "log").read_text()


def test_log_file_that_cannot_be_opened_is_said_before_anything_else(place: Place) -> None:
    done = place.run(log=place.base / "none" / "log")
    assert done.returncode == 1
    assert done.stderr == f"error: cannot open the log file {place.base}/none/log: No such file or directory\n"
    assert not place.is_mounted


def test_umount_waits_for_the_daemon(place: Place) -> None:
    pid = place.mount()
    umount(os.fsencode(place.mnt), registry=place.registry)
    assert (
        not os.path.exists(f"/proc/{pid}") or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )
    assert os.listdir(place.base / "run") == []
