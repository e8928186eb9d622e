"""unionfs.linux.data: copies, holes, reflinks."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import need
from unionfs.linux import data as linux_data
from unionfs.linux import mount as linux_mount

MIB = 1 << 20


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A source of 3 MiB and some, and an empty target."""
    source = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.pwrite(source, bytes(range(256)) * (3 * MIB // 256) + b"tail", 0)
    yield source, target
    os.close(source)
    os.close(target)


def copy_all(source: int, target: int, size: int) -> None:
    done = 0
    while done < size:
        step = linux_data.copy_range(source, done, target, done, size - done)
        assert step > 0
        done += step


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_copy_range_in_the_kernel_and_by_hand(
    pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    if code is not None:

        def refuse(*_args: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", refuse)
    source, target = pair
    copy_all(source, target, 3 * MIB + 4)
    assert content(target) == content(source)
    assert linux_data.copy_range(source, 3 * MIB + 4, target, 0, 10) == 0
    assert linux_data.copy_range(source, 0, target, 0, 0) == 0


def test_copy_range_between_offsets(pair: tuple[int, int]) -> None:
    source, target = pair
    assert linux_data.copy_range(source, 3 * MIB, target, 5, 100) == 4
    assert content(target) == b"\0" * 5 + b"tail"


def test_copy_range_to_another_file_system(pair: tuple[int, int]) -> None:
    source, _ = pair
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        copy_all(source, file.fileno(), 3 * MIB + 4)
        assert content(file.fileno()) == content(source)


def test_copy_range_from_a_file_without_a_true_size(pair: tuple[int, int]) -> None:
    _, target = pair
    with open("/proc/version", "rb") as file:
        assert os.fstat(file.fileno()).st_size == 0
        assert linux_data.copy_range(file.fileno(), 0, target, 0, 4096) > 0
    assert content(target).startswith(b"Linux version")


def test_copy_range_reports_real_failures(pair: tuple[int, int], tmp_path: Path) -> None:
    source, _ = pair
    reader = os.open(tmp_path / "target", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            linux_data.copy_range(source, 0, reader, 0, 10)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(reader)


def test_fallocate_grows_keeps_and_punches(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        linux_data.fallocate(fd, 0, 0, 3 * MIB)
        assert os.fstat(fd).st_size == 3 * MIB
        linux_data.fallocate(fd, linux_data.FALLOC_FL_KEEP_SIZE, 3 * MIB, MIB)
        assert os.fstat(fd).st_size == 3 * MIB
        os.pwrite(fd, b"x" * (3 * MIB), 0)
        linux_data.fallocate(fd, linux_data.FALLOC_FL_PUNCH_HOLE | linux_data.FALLOC_FL_KEEP_SIZE, MIB, MIB)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == MIB
        assert os.lseek(fd, MIB, os.SEEK_DATA) == 2 * MIB
        assert os.pread(fd, 4, MIB - 2) == b"xx\0\0"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("mode", "offset", "length", "code"),
    [(0, 0, 0, errno.EINVAL), (0, -1, 1, errno.EINVAL), (linux_data.FALLOC_FL_PUNCH_HOLE, 0, 1, errno.EOPNOTSUPP)],
)
def test_fallocate_errors(tmp_path: Path, mode: int, offset: int, length: int, code: int) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(OSError) as caught:
            linux_data.fallocate(fd, mode, offset, length)
        assert caught.value.errno == code
    finally:
        os.close(fd)


def test_fallocate_beyond_4_gib(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        linux_data.fallocate(fd, 0, 5 << 30, 4096)
        assert os.fstat(fd).st_size == (5 << 30) + 4096
    finally:
        os.close(fd)


@pytest.fixture
def loop_btrfs(tmp_path: Path) -> Iterator[Path]:
    need("root", "mkfs.btrfs")
    image, mountpoint = tmp_path / "image", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(120 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    mountpoint.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(mountpoint)], capture_output=True).returncode:
        pytest.skip("missing: btrfs in the kernel, or loop devices")
    try:
        yield mountpoint
    finally:
        linux_mount.umount2(os.fsencode(mountpoint))


def test_ficlone_shares_the_data(loop_btrfs: Path) -> None:
    source = os.open(loop_btrfs / "source", os.O_RDWR | os.O_CREAT)
    target = os.open(loop_btrfs / "target", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(source, b"shared" * 10000, 0)
        linux_data.ficlone(target, source)
        assert content(target) == content(source)
        os.pwrite(target, b"S", 0)
        assert os.pread(source, 1, 0) == b"s"
    finally:
        os.close(source)
        os.close(target)


def test_ficlone_where_it_cannot(pair: tuple[int, int]) -> None:
    _, target = pair
    with open("/proc/version", "rb") as file, pytest.raises(OSError) as caught:
        linux_data.ficlone(target, file.fileno())
    assert caught.value.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL)


def test_syncfs(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    linux_data.syncfs(fd)
    os.close(fd)
    handle = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError) as caught:
            linux_data.syncfs(handle)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(handle)
