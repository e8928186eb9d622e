"""unionfs.linux.fuse_dev against a real connection, whose only message is INIT."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from unionfs.linux import fuse_dev
from unionfs.linux import mount as linux_mount

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_INIT_EXT, _PASSTHROUGH_HIGH = 1 << 30, 1 << 5


def handshake(dev: int, flags: int, flags2: int) -> None:
    """Answer FUSE_INIT with these flags, protocol 7.40 and a stack depth of 1."""
    request = os.read(dev, 1 << 17)
    _length, opcode, unique = struct.unpack_from("<IIQ", request)
    assert opcode == 26
    body = struct.pack("<IIIIHHIIHHIIH22x", 7, 40, 0, flags, 0, 0, 4096, 1, 0, 0, flags2, 1, 0)
    os.write(dev, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)


@pytest.fixture
def dev(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """/dev/fuse, mounted; INIT answered with the flags the test's parameter gives."""
    flags, flags2 = getattr(request, "param", (_INIT_EXT, _PASSTHROUGH_HIGH))
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
        linux_mount.mount(b"test", os.fsencode(mountpoint), b"fuse", linux_mount.MS_NOSUID, options)
        try:
            handshake(fd, flags, flags2)
            yield fd
        finally:
            linux_mount.umount2(os.fsencode(mountpoint), linux_mount.MNT_DETACH)
    finally:
        os.close(fd)


@requires("passthrough")
def test_backing_ids_are_distinct_and_die_once(dev: int, tmp_path: Path) -> None:
    path = tmp_path / "backing"
    path.write_bytes(b"x")
    file = os.open(path, os.O_RDWR)
    one, two = fuse_dev.passthrough_open(dev, file), fuse_dev.passthrough_open(dev, file)
    os.close(file)
    assert one > 0
    assert two > 0
    assert one != two
    fuse_dev.passthrough_close(dev, one)
    fuse_dev.passthrough_close(dev, two)
    with pytest.raises(OSError) as caught:
        fuse_dev.passthrough_close(dev, one)
    assert caught.value.errno == errno.ENOENT


@requires("passthrough")
def test_backing_of_what_is_no_open_file(dev: int, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            fuse_dev.passthrough_open(dev, directory)
        assert caught.value.errno in (errno.EISDIR, errno.EOPNOTSUPP)
    finally:
        os.close(directory)
    with pytest.raises(OSError) as caught:
        fuse_dev.passthrough_open(dev, directory)
    assert caught.value.errno == errno.EBADF


@requires("passthrough")
@pytest.mark.parametrize("dev", [(0, 0)], indirect=True)
def test_backing_where_not_negotiated(dev: int, tmp_path: Path) -> None:
    with (tmp_path / "backing").open("wb") as file, pytest.raises(OSError) as caught:
        fuse_dev.passthrough_open(dev, file.fileno())
    assert caught.value.errno in (errno.EPERM, errno.EOPNOTSUPP)


@requires("passthrough")
def test_clone_belongs_to_the_same_connection(dev: int, tmp_path: Path) -> None:
    clone = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        fuse_dev.dev_clone(clone, dev)
        with (tmp_path / "backing").open("wb") as file:
            backing = fuse_dev.passthrough_open(clone, file.fileno())
        fuse_dev.passthrough_close(dev, backing)
        with pytest.raises(OSError) as caught:
            fuse_dev.dev_clone(clone, dev)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(clone)
