"""File handles: names of inodes that survive rename and remount, and the UUID of the file system that gave them.

The format of a handle is the file system's own; overlayfs stores it in its `origin` attribute beside the UUID
(fs/overlayfs/overlayfs.h, struct ovl_fb).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from typing import Final, NamedTuple

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_bytes, c_int, c_void_p, call, checked

MAX_HANDLE_SZ: Final = 128
NO_UUID: Final = bytes(16)

_HEADER: Final = struct.Struct("=Ii")  # handle_bytes, handle_type: struct file_handle
_INT: Final = struct.Struct("=i")
#: struct file_handle with the largest handle, then the mount id
_ROOM: Final = _HEADER.size + MAX_HANDLE_SZ + _INT.size
_thread = threading.local()
_FS_IOC_GETFSUUID: Final = 0x80111500  # _IOR(0x15, 0, struct fsuuid2 { u8 len; u8 uuid[16]; }), <linux/fs.h>
#: Kernels before 6.9 have an ioctl per file system: number, size of the structure, its first bytes, where the UUID is.
_OLDER_IOCTLS: Final = (
    (0x8008662C, 24, struct.pack("=II", 16, 0), 8),  # EXT4_IOC_GETFSUUID (6.0), struct fsuuid
    (0x80705864, 112, b"", 64),  # XFS_IOC_FSGEOMETRY_V1, struct xfs_fsop_geom_v1
    (0x8400941F, 1024, b"", 16),  # BTRFS_IOC_FS_INFO, struct btrfs_ioctl_fs_info_args
)
_NOT_HERE: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})

_name_to_handle_at = syscalls.declare("name_to_handle_at", c_int, c_bytes, c_void_p, c_void_p, c_int)
_open_by_handle_at = syscalls.declare("open_by_handle_at", c_int, c_bytes, c_int)


class FileHandle(NamedTuple):
    """name_to_handle_at(2): the type and bytes of the handle, and the id of the mount as in /proc/self/mountinfo."""

    type: int
    handle: bytes
    mount_id: int


def name_to_handle_at(dir_fd: int, name: bytes) -> FileHandle:
    """The handle of `name` itself (b"." for the directory). EOPNOTSUPP where the file system gives none."""
    try:
        memory, address, mount_address = _thread.buffers
    except AttributeError:
        memory = syscalls.buffer(_ROOM, b"")
        address = syscalls.address_of(memory)
        mount_address = address + _ROOM - _INT.size
        _thread.buffers = memory, address, mount_address
    _HEADER.pack_into(memory, 0, MAX_HANDLE_SZ, 0)
    call(_name_to_handle_at, dir_fd, checked(name), address, mount_address, 0, name=name)
    raw = memory.raw
    size, kind = _HEADER.unpack_from(raw)
    return FileHandle(kind, raw[_HEADER.size : _HEADER.size + size], _INT.unpack_from(raw, _ROOM - _INT.size)[0])


def open_by_handle_at(mount_fd: int, kind: int, handle: bytes, flags: int) -> int:
    """Open the inode that a handle of type `kind` names on the file system of `mount_fd` (which may not be O_PATH).

    Returns a new close-on-exec descriptor. ESTALE where that inode is gone, EPERM without CAP_DAC_READ_SEARCH.
    """
    return call(_open_by_handle_at, mount_fd, _HEADER.pack(len(handle), kind) + handle, flags | os.O_CLOEXEC)


def fs_uuid(fd: int) -> bytes:
    """The 16 bytes the kernel holds as `sb->s_uuid`; zeros where the file system has none, or where the kernel is
    older than 6.9 and the file system neither ext4, xfs nor btrfs. `fd` may not be O_PATH (EBADF)."""
    answer = bytearray(17)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, answer, True)
    except OSError as e:
        if e.errno not in _NOT_HERE:
            raise
        return _fs_uuid_before_6_9(fd)
    length = min(answer[0], 16)
    # Shorter ones (vfat, 4 bytes) stand at the front of s_uuid, the rest is zero (fs/super.c, super_set_uuid).
    return bytes(answer[1 : 1 + length]).ljust(16, b"\0")


def _fs_uuid_before_6_9(fd: int) -> bytes:
    for request, size, start, offset in _OLDER_IOCTLS:
        answer = bytearray(start.ljust(size, b"\0"))
        try:
            fcntl.ioctl(fd, request, answer, True)
        except OSError as e:
            if e.errno not in _NOT_HERE:
                raise
        else:
            return bytes(answer[offset : offset + 16])
    return NO_UUID
