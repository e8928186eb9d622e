"""What may be mounted on, and how a mount goes away again."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.mounts_rig import Place, ended
from unionfs.errors import MountError, TransportUnavailable
from unionfs.mounts.mountpoint import check_dev_fuse, check_mountpoint, umount

needs_mount = requires("root", "fuse", "libfuse")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.clean()


def refusal(path: Path, nonempty_ok: bool = False) -> tuple[str, str | None]:
    with pytest.raises(MountError) as caught:
        check_mountpoint(os.fsencode(path), nonempty_ok)
    return str(caught.value), caught.value.hint


# before ---------------------------------------------------------------------------------------------------------------
def test_fit_mountpoint_becomes_canonical(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.base / "link").symlink_to("mnt")
    monkeypatch.chdir(place.base)
    assert check_mountpoint(b"./link/../mnt/") == check_mountpoint(b"link") == os.fsencode(place.mnt)


def test_missing_mountpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == (f"mountpoint {tmp_path}/no does not exist", f"mkdir -p {tmp_path}/no")


def test_mountpoint_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file")[0] == f"mountpoint {tmp_path}/file is not a directory"
    assert refusal(tmp_path / "file" / "x")[0] == f"mountpoint {tmp_path}/file/x is not a directory"


def test_mountpoint_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message, hint = refusal(tmp_path)
    assert message == f"mountpoint {tmp_path} is not empty" and "nonempty" in str(hint)
    assert check_mountpoint(os.fsencode(tmp_path), nonempty_ok=True) == os.fsencode(tmp_path)


@needs_mount
def test_mountpoint_of_a_live_unionfs_is_busy(place: Place) -> None:
    place.mount()
    assert refusal(place.mnt, nonempty_ok=True) == (
        f"mountpoint {place.mnt} is busy: a unionfs is mounted there",
        f"unionfs umount {place.mnt}",
    )


@needs_mount
def test_mountpoint_of_a_dead_mount_names_the_cure(place: Place) -> None:
    place.kill(place.mount())
    message, hint = refusal(place.mnt)
    assert message == f"a dead mount is on {place.mnt}: its daemon is gone"
    assert hint == f"unionfs umount {place.mnt}"


def test_missing_device(tmp_path: Path) -> None:
    with pytest.raises(TransportUnavailable, match="No such file") as caught:
        check_dev_fuse(os.fsencode(tmp_path / "fuse"))
    assert "modprobe fuse" in str(caught.value.hint)


@requires("root")
def test_device_that_may_not_be_opened(tmp_path: Path) -> None:
    device = tmp_path / "fuse"
    device.touch(mode=0o600)
    directory = os.open(tmp_path, os.O_PATH)
    tmp_path.chmod(0o755)

    def check() -> None:
        path = b"/proc/self/fd/%d/fuse" % directory
        with pytest.raises(TransportUnavailable, match="no permission to open") as caught:
            check_dev_fuse(path)
        assert caught.value.hint == f"run as root, or let root do: chmod 666 {path.decode()}"

    run_as_nobody(check)
    os.close(directory)


@requires("root")
def test_user_without_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_dev_fuse(b"/dev/null")  # root needs none

    def check() -> None:
        with pytest.raises(TransportUnavailable, match="fusermount3 not found") as caught:
            check_dev_fuse(b"/dev/null")
        assert caught.value.hint == "apt-get install fuse3"

    run_as_nobody(check)


# after ----------------------------------------------------------------------------------------------------------------
def test_umount_of_what_is_no_unionfs(place: Place) -> None:
    with pytest.raises(MountError, match="is not a unionfs mount"):
        umount(os.fsencode(place.mnt), registry=place.registry)
    with pytest.raises(MountError, match="is not a unionfs mount"):
        umount(b"/proc", registry=place.registry)


@needs_mount
def test_umount_returns_when_the_daemon_is_gone(place: Place) -> None:
    pid = place.mount()
    fd = os.pidfd_open(pid)
    with os.fdopen(fd):
        umount(os.fsencode(place.mnt), registry=place.registry)
        assert select.select([fd], [], [], 0)[0]  # ended, if only just
    assert not place.is_mounted
    assert place.registry.records() == []


@needs_mount
def test_umount_of_a_busy_mount_changes_nothing(place: Place) -> None:
    place.mount()
    with open(place.mnt / "file") as file:
        with pytest.raises(MountError, match="is busy") as caught:
            umount(os.fsencode(place.mnt), registry=place.registry)
        assert "--lazy" in str(caught.value.hint)
        assert place.is_mounted and file.read() == "content"
    umount(os.fsencode(place.mnt), registry=place.registry)


@needs_mount
def test_lazy_umount_does_not_wait_for_open_files(place: Place) -> None:
    pid = place.mount()
    with ended(pid), open(place.mnt / "file") as file:
        umount(os.fsencode(place.mnt), lazy=True, registry=place.registry)
        assert not place.is_mounted
        assert file.read() == "content"


@needs_mount
def test_umount_clears_a_dead_mount_and_its_record(place: Place) -> None:
    place.kill(place.mount())
    umount(os.fsencode(place.mnt), registry=place.registry)
    assert not place.is_mounted and os.listdir(place.base / "run") == []
    assert check_mountpoint(os.fsencode(place.mnt)) == os.fsencode(place.mnt)


@needs_mount
@requires("root", "unshare")
def test_umount_names_who_has_a_copy_of_the_mount_in_another_namespace(place: Place) -> None:
    pid = place.mount()
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo in; read line"]
    with ended(pid), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == b"in\n"
        held = umount(os.fsencode(place.mnt), registry=place.registry)
        assert (other.pid, "sh") in held and not place.is_mounted
        other.stdin.close()  # and with it the namespace goes, and the daemon


@needs_mount
def test_daemon_that_does_not_end_is_reported(place: Place) -> None:
    pid = place.mount()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(MountError, match=rf"the daemon \(pid {pid}\) has not ended after 0\.2 seconds"):
            umount(os.fsencode(place.mnt), timeout=0.2, registry=place.registry)
        assert not place.is_mounted
    finally:
        with ended(pid):
            os.kill(pid, signal.SIGCONT)
