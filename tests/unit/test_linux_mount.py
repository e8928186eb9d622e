"""unionfs.linux.mount: the parser on lines as the kernel writes them, mount and umount2 for real."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from unionfs.linux import mount as linux_mount
from unionfs.linux.mount import MountInfo, parse_mountinfo


def test_row_with_every_field() -> None:
    line = rb"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue" + b"\n"
    assert parse_mountinfo([line]) == [
        MountInfo(
            mount_id=36,
            parent_id=35,
            major=98,
            minor=0,
            root=b"/mnt1",
            mountpoint=b"/mnt2",
            options=(b"rw", b"noatime"),
            optional=(b"master:1", b"shared:7"),
            fstype=b"ext3",
            source=b"/dev/root",
            super_options=(b"rw", b"errors=continue"),
        )
    ]


def test_escapes_are_decoded_after_splitting() -> None:
    line = rb"1 2 0:40 / /a\040b\134c\011\012- rw - fuse.unionfs un\040ion\043 rw,lowerdir=/x\054y:/z"
    (row,) = parse_mountinfo([line])
    assert row.mountpoint == b"/a b\\c\t\n-"
    assert row.source == b"un ion#"
    assert row.super_options == (b"rw", b"lowerdir=/x,y:/z")
    assert row.optional == ()


def test_mountpoint_named_dash_and_empty_source() -> None:
    (row,) = parse_mountinfo([b"1 2 0:40 / - rw - tmpfs  rw"])
    assert (row.mountpoint, row.fstype, row.source) == (b"-", b"tmpfs", b"")


@pytest.mark.parametrize(
    "line", [b"", b"1 2 0:40 / /x rw - tmpfs", b"x 2 0:1 / / rw - a b c", b"1 2 01 / / rw - a b c"]
)
def test_another_form_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="mountinfo"):
        parse_mountinfo([line])


def test_own_mounts_hold_the_root_and_proc() -> None:
    rows = {row.mountpoint: row for row in linux_mount.mountinfo()}
    assert rows[b"/proc"].fstype == b"proc"
    st = os.stat("/proc")
    assert os.makedev(rows[b"/proc"].major, rows[b"/proc"].minor) == st.st_dev


@pytest.mark.needs_root
def test_mount_shows_in_mountinfo_and_goes(tmp_path: Path) -> None:
    target = tmp_path / "mo unt\\, é"
    target.mkdir()
    name = os.fsencode(target)
    linux_mount.mount(
        b"some source", name, b"tmpfs", linux_mount.MS_NOSUID | linux_mount.MS_NODEV, b"size=64k,mode=711"
    )
    try:
        (row,) = [row for row in linux_mount.mountinfo() if row.mountpoint == name]
        assert row.source == b"some source"
        assert {b"nosuid", b"nodev"} <= set(row.options)
        assert {b"size=64k", b"mode=711"} <= set(row.super_options)
        fd = os.open(target, os.O_RDONLY)
        try:
            with pytest.raises(OSError) as caught:
                linux_mount.umount2(name)
            assert caught.value.errno == errno.EBUSY
        finally:
            os.close(fd)
    finally:
        linux_mount.umount2(name, linux_mount.MNT_DETACH)
    assert name not in [row.mountpoint for row in linux_mount.mountinfo()]
    with pytest.raises(OSError) as caught:
        linux_mount.umount2(name)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.needs_root
def test_mount_errors_name_the_target(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        linux_mount.mount(b"x", missing, b"tmpfs")
    assert caught.value.filename == missing
    with pytest.raises(OSError) as unknown:
        linux_mount.mount(b"x", os.fsencode(tmp_path), b"no-such-type")
    assert unknown.value.errno == errno.ENODEV
    with pytest.raises(ValueError, match="null"):
        linux_mount.umount2(b"/x\0y")
