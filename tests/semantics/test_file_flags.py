"""lsattr(1) and chattr(1) through the mount: flags of the files stored, beside the kernel's overlayfs.

Not append-only and immutable, which a FUSE file system cannot have the kernel obey: those are refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

import pytest

from tests.posix.tools import expect, opened
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union", "file_flags"), pytest.mark.needs_root]

GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820
IMMUTABLE, APPEND, NODUMP, NOATIME = 0x10, 0x20, 0x40, 0x80
XFLAG_NODUMP = 0x80


#: Others a file system sets by itself.
OURS = IMMUTABLE | APPEND | NODUMP | NOATIME


def all_flags(fd: int) -> int:
    return int(struct.unpack("=I", fcntl.ioctl(fd, GETFLAGS, bytes(4)))[0])


def flags(path: Path) -> int:
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        return all_flags(fd) & OURS


def set_flags(path: Path, value: int) -> None:
    with opened(path, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, SETFLAGS, struct.pack("=I", all_flags(fd) & ~OURS | value))


def layers(union: Union) -> Path:
    base = union.lower()
    (base / "d").mkdir()
    for name in ("file", "d/file", "large"):
        (base / name).write_bytes(b"lower" * (500_000 if name == "large" else 1))
    return base


def test_flags_of_a_lower_file_are_seen(union: Union) -> None:
    base = layers(union)
    set_flags(base / "file", NODUMP)
    set_flags(base / "d", NOATIME | NODUMP)
    mnt = union.mount()
    assert (flags(mnt / "file"), flags(mnt / "d"), flags(mnt / "d" / "file")) == (NODUMP, NOATIME | NODUMP, 0)
    assert os.listdir(union.upper) == []


@pytest.mark.parametrize("name", ["file", "large", "d", "d/file", "new"])
def test_flags_are_set_on_the_copy_and_stay(union: Union, name: str) -> None:
    base = layers(union)
    mnt = union.mount()
    if name == "new":
        (mnt / "new").write_bytes(b"upper")
    set_flags(mnt / name, NODUMP)
    assert flags(mnt / name) == flags(union.upper / name) == NODUMP
    assert name == "new" or flags(base / name) == 0
    set_flags(mnt / name, NODUMP | NOATIME)
    union.remount()
    assert flags(mnt / name) == NODUMP | NOATIME
    set_flags(mnt / name, 0)
    assert flags(mnt / name) == flags(union.upper / name) == 0
    assert stat.S_ISDIR(os.stat(mnt / name).st_mode) or (mnt / name).read_bytes()[:5] in (b"lower", b"upper")


def test_flags_as_they_are_copy_nothing_up(union: Union) -> None:
    set_flags(layers(union) / "file", NODUMP)
    mnt = union.mount()
    set_flags(mnt / "file", NODUMP)
    assert os.listdir(union.upper) == []


def test_the_longer_form(union: Union) -> None:
    layers(union)
    mnt = union.mount()
    with opened(mnt / "file", os.O_RDONLY) as fd:
        before = bytearray(fcntl.ioctl(fd, FSGETXATTR, bytes(28)))
        before[0] |= XFLAG_NODUMP
        fcntl.ioctl(fd, FSSETXATTR, bytes(before))
        after = fcntl.ioctl(fd, FSGETXATTR, bytes(28))
    assert struct.unpack_from("=I", after)[0] & XFLAG_NODUMP
    assert flags(union.upper / "file") == NODUMP


@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND])
def test_what_would_protect_nothing_is_refused(union: Union, flag: int) -> None:
    base = layers(union)
    mnt = union.mount()
    with expect(errno.EOPNOTSUPP):
        set_flags(mnt / "file", flag)
    assert os.listdir(union.upper) == []
    (mnt / "file").write_bytes(b"changed")
    # Of a lower layer's own nothing is shown that does not hold.
    set_flags(base / "d" / "file", flag)
    try:
        assert flags(mnt / "d" / "file") == 0
        (mnt / "d" / "file").write_bytes(b"changed")
    finally:
        set_flags(base / "d" / "file", 0)


def test_links_and_special_files_have_none(union: Union) -> None:
    layers(union)
    mnt = union.mount()
    os.mkfifo(mnt / "fifo")
    with expect(errno.ENOTTY):
        flags(mnt / "fifo")
