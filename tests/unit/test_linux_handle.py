"""unionfs.linux.handle: handles that lead back to their inode, and UUIDs."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import need
from unionfs.linux import handle as linux_handle
from unionfs.linux import mount as linux_mount


@pytest.fixture
def shm() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


#: how to make each file system with a given UUID, and the least size in MiB
MKFS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-U", "UUID", "IMAGE"], 8),
    "xfs": (["mkfs.xfs", "-q", "-m", "uuid=UUID", "IMAGE"], 320),
    "btrfs": (["mkfs.btrfs", "-q", "-U", "UUID", "IMAGE"], 120),
}


@pytest.fixture(params=list(MKFS))
def loop_mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, uuid.UUID]]:
    """A fresh file system of known UUID, mounted from a file."""
    need("root", f"mkfs.{request.param}")
    command, mib = MKFS[request.param]
    wanted = uuid.uuid4()
    image, mountpoint = tmp_path / "image", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(mib << 20)
    subprocess.run([arg.replace("UUID", str(wanted)).replace("IMAGE", str(image)) for arg in command], check=True)
    mountpoint.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(mountpoint)], capture_output=True).returncode:
        pytest.skip(f"missing: {request.param} in the kernel, or loop devices")
    try:
        yield mountpoint, wanted
    finally:
        linux_mount.umount2(os.fsencode(mountpoint))


@pytest.mark.needs_root
def test_handle_leads_back_after_rename(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"same")
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        kind, handle, mount_id = linux_handle.name_to_handle_at(root, b"f")
        (tmp_path / "f").rename(tmp_path / "g")
        assert linux_handle.name_to_handle_at(root, b"g") == (kind, handle, mount_id)
        fd = linux_handle.open_by_handle_at(root, kind, handle, os.O_RDONLY)
        try:
            assert os.read(fd, 9) == b"same"
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)
        (tmp_path / "g").unlink()
        with pytest.raises(OSError) as caught:
            os.close(linux_handle.open_by_handle_at(root, kind, handle, os.O_RDONLY))
        assert caught.value.errno == errno.ESTALE
    finally:
        os.close(root)


def test_handle_is_of_the_link_and_of_the_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        names = (b"f", b"link", b".")
        handles = {linux_handle.name_to_handle_at(root, name).handle for name in names}
        assert len(handles) == 3
        with pytest.raises(FileNotFoundError):
            linux_handle.name_to_handle_at(root, b"none")
    finally:
        os.close(root)


def test_mount_id_is_that_of_mountinfo(shm: Path) -> None:
    root = os.open(shm, os.O_PATH | os.O_DIRECTORY)
    try:
        found = linux_handle.name_to_handle_at(root, b".")
    finally:
        os.close(root)
    row = next(row for row in linux_mount.mountinfo() if row.mount_id == found.mount_id)
    assert os.fsencode(shm).startswith(row.mountpoint)
    assert os.makedev(row.major, row.minor) == shm.stat().st_dev


def test_no_handles_on_proc() -> None:
    root = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            linux_handle.name_to_handle_at(root, b"version")
        assert caught.value.errno == errno.EOPNOTSUPP
    finally:
        os.close(root)


@pytest.mark.parametrize("kernel", ["this", "before 6.9"])
def test_uuid_is_the_one_it_was_made_with(
    loop_mount: tuple[Path, uuid.UUID], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountpoint, wanted = loop_mount
    if kernel == "before 6.9":
        monkeypatch.setattr(linux_handle, "_FS_IOC_GETFSUUID", 0x801115FF)  # no such ioctl: ENOTTY
    fd = os.open(mountpoint, os.O_RDONLY)
    try:
        assert linux_handle.fs_uuid(fd) == wanted.bytes
    finally:
        os.close(fd)


def test_uuid_of_tmpfs_is_stable_and_not_null(shm: Path) -> None:
    (shm / "f").touch()
    answers = set()
    for path in (shm, shm / "f"):
        fd = os.open(path, os.O_RDONLY)
        answers.add(linux_handle.fs_uuid(fd))
        os.close(fd)
    assert len(answers) == 1
    assert answers != {linux_handle.NO_UUID}


def test_uuid_of_proc_is_zeros() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert linux_handle.fs_uuid(fd) == bytes(16)
    finally:
        os.close(fd)
