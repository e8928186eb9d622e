"""mknod(2): fifos, sockets, devices, regular files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, expect, ids, mode, names


def lower_specials(d: Path) -> None:
    os.mkfifo(d / "fifo", 0o640)
    os.mknod(d / "sock", stat.S_IFSOCK | 0o600)


def lower_devices(d: Path) -> None:
    os.mknod(d / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(d / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG])
def test_type_mode_and_size(mnt: Path, kind: int) -> None:
    os.mknod(mnt / "x", kind | 0o651)
    st = os.lstat(mnt / "x")
    assert stat.S_IFMT(st.st_mode) == kind
    assert mode(mnt / "x") == 0o651 & ~0o022
    assert (st.st_size, st.st_nlink, st.st_rdev) == (0, 1, 0)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize("device", [(1, 3), (0, 1), (254, 255), (4095, 1048575)])
def test_device_numbers_are_kept(mnt: Path, kind: int, device: tuple[int, int]) -> None:
    os.mknod(mnt / "dev", kind | 0o600, os.makedev(*device))
    st = os.lstat(mnt / "dev")
    assert stat.S_IFMT(st.st_mode) == kind
    assert (os.major(st.st_rdev), os.minor(st.st_rdev)) == device


@pytest.mark.needs_root
def test_char_device_0_0_is_a_device(mnt: Path) -> None:
    """It is a whiteout to an overlayfs whose upper this is (vfs_whiteout() of fs/namei.c)."""
    os.mknod(mnt / "whiteout", stat.S_IFCHR | 0o600, 0)
    st = os.lstat(mnt / "whiteout")
    assert (stat.S_IFMT(st.st_mode), st.st_rdev, st.st_size, st.st_nlink) == (stat.S_IFCHR, 0, 0, 1)
    with expect(errno.EEXIST):
        os.mknod(mnt / "whiteout", stat.S_IFCHR | 0o600, 0)
    os.link(mnt / "whiteout", mnt / "linked")
    assert os.lstat(mnt / "linked").st_ino == st.st_ino and os.lstat(mnt / "linked").st_nlink == 2
    os.mkdir(mnt / "d")
    os.rename(mnt / "linked", mnt / "d" / "moved")
    assert [(entry.name, entry.is_file()) for entry in os.scandir(mnt / "d")] == [("moved", False)]
    assert stat.S_ISCHR(os.lstat(mnt / "d" / "moved").st_mode)
    os.unlink(mnt / "whiteout")
    assert names(mnt) == {"d"}
    (mnt / "whiteout").write_bytes(b"the name is free, and the directory intact")
    assert names(mnt) == {"whiteout", "d"}


@pytest.mark.needs_root
def test_block_device_0_0_is_a_device(mnt: Path) -> None:
    os.mknod(mnt / "blk", stat.S_IFBLK | 0o600, 0)
    assert names(mnt) == {"blk"}


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_devices)
def test_old_devices_work_and_change_owner(mnt: Path) -> None:
    with open(mnt / "null", "wb", buffering=0) as null:
        assert null.write(b"x") == 1
    os.chown(mnt / "disk", 3, 4)
    st = os.lstat(mnt / "disk")
    assert stat.S_ISBLK(st.st_mode)
    assert (os.major(st.st_rdev), os.minor(st.st_rdev)) == (7, 200)
    assert ids(mnt / "disk") == (3, 4)


@pytest.mark.needs_root
def test_devices_are_root_s(mnt: Path) -> None:
    mnt.chmod(0o777)
    with expect(errno.EPERM):
        as_user(lambda: os.mknod(mnt / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3)))
    as_user(lambda: os.mkfifo(mnt / "fifo"))
    assert ids(mnt / "fifo") == (NOBODY, NOBODY)


@pytest.mark.populate(base=lower_specials)
def test_data_flows_through_a_fifo(mnt: Path) -> None:
    reader = os.open(mnt / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(mnt / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 20) == b"through"
    os.close(writer)
    os.close(reader)


@pytest.mark.populate(base=lower_specials)
def test_open_of_a_socket_is_enxio(mnt: Path) -> None:
    with expect(errno.ENXIO):
        os.open(mnt / "sock", os.O_RDONLY)


def test_clients_connect_through_a_socket(mnt: Path) -> None:
    directory = os.open(mnt, os.O_RDONLY | os.O_DIRECTORY)
    name = f"/proc/self/fd/{directory}/s"  # sun_path holds 108 bytes
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(name)
        server.listen(1)
        client.connect(name)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")
            assert client.recv(10) == b"hello"
    os.close(directory)
    assert stat.S_ISSOCK(os.lstat(mnt / "s").st_mode)


@pytest.mark.populate(base=lower_specials)
def test_mknod_over_anything_is_eexist(mnt: Path) -> None:
    for name in ("fifo", "sock"):
        with expect(errno.EEXIST):
            os.mkfifo(mnt / name)


@pytest.mark.populate(base=lower_specials)
def test_chmod_and_rename_of_old_specials_keep_the_type(mnt: Path) -> None:
    os.chmod(mnt / "fifo", 0o600)
    os.rename(mnt / "fifo", mnt / "fifo2")
    os.chmod(mnt / "sock", 0o644)
    assert stat.S_ISFIFO(os.lstat(mnt / "fifo2").st_mode)
    assert mode(mnt / "fifo2") == 0o600
    assert stat.S_ISSOCK(os.lstat(mnt / "sock").st_mode)
