"""mount(2), umount2(2) and what /proc/self/mountinfo says (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_bytes, c_int, c_ulong, call, checked

# mount(2), <sys/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
MS_MANDLOCK, MS_DIRSYNC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 0x40, 0x80, 0x100, 0x400, 0x800
MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 0x1000, 0x2000, 0x4000, 0x8000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
# umount2(2)
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

_mount = syscalls.declare("mount", c_bytes, c_bytes, c_bytes, c_ulong, c_bytes)
_umount2 = syscalls.declare("umount2", c_bytes, c_int)
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


def mount(source: bytes, target: bytes, fstype: bytes | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2). `fstype` and `data` may be None where the kind of call (MS_BIND, MS_MOVE …) ignores them."""
    call(_mount, checked(source), checked(target), fstype, flags, data, name=target)


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2). EBUSY while in use (not with MNT_DETACH), EINVAL where `target` is no mount."""
    call(_umount2, checked(target), flags, name=target)


class MountInfo(NamedTuple):
    """One row of mountinfo. `options` are the mount's own, `optional` the propagation fields (shared:N …),
    `super_options` the file system's; octal escapes are decoded, after splitting at commas."""

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: bytes
    mountpoint: bytes
    options: tuple[bytes, ...]
    optional: tuple[bytes, ...]
    fstype: bytes
    source: bytes
    super_options: tuple[bytes, ...]


def mountinfo() -> list[MountInfo]:
    """The mounts of this process's namespace, in mount order: of two on one mountpoint the later one is on top."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse_mountinfo(file)


def parse_mountinfo(lines: Iterable[bytes]) -> list[MountInfo]:
    """Rows from lines as in /proc/<pid>/mountinfo. ValueError for a line of another form."""
    return [_parse_row(line.rstrip(b"\n")) for line in lines]


def _parse_row(line: bytes) -> MountInfo:
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    # Split at single blanks: the source may be empty (two blanks in a row).
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        mount_id, parent_id, device, root, mountpoint, options = fields[:6]
        fstype, source, super_options = fields[dash + 1 : dash + 4]
        major, minor = device.split(b":")
        numbers = int(mount_id), int(parent_id), int(major), int(minor)
    except ValueError:
        raise ValueError(f"not a line of mountinfo: {line!r}") from None
    return MountInfo(
        *numbers,
        root=_decode(root),
        mountpoint=_decode(mountpoint),
        options=_decode_list(options),
        optional=tuple(fields[6:dash]),
        fstype=_decode(fstype),
        source=_decode(source),
        super_options=_decode_list(super_options),
    )


def _decode_list(field: bytes) -> tuple[bytes, ...]:
    return tuple(_decode(option) for option in field.split(b","))


def _decode(field: bytes) -> bytes:
    """Undo the kernel's mangle_path and seq_escape: a byte as a backslash and three octal digits."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
