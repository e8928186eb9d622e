"""Hard links that survive copy-up: origins, the index, and link counts.

When one name of a lower file with several links is copied up, the others must show the new content too. As the
kernel with `index=on` (fs/overlayfs/copy_up.c, namei.c, util.c), the copy is entered in the index under the hex of
the lower file's handle, `overlay.origin` of the copy holds that handle, and `overlay.nlink` the group's link count
relative to the stored one ("U+1"). A later lookup of any other lower name finds the copy through the index.

Where the file system has no handles, the index entry is named by layer and inode number and lives in `work/`: the
group then holds for the session only, as origins do.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import os
import stat
import struct
import sys

from unionfs.layers.layer import Layer, OriginHandle, Path
from unionfs.linux.handle import open_by_handle_at
from unionfs.overlay.inode import FileInode, join
from unionfs.overlay.stack import NLINK, ORIGIN, UPPER
from unionfs.overlay.union import Union
from unionfs.overlay.workdir import INDEX, WORK, exists
from unionfs.vfs import d_type

#: struct ovl_fb of fs/overlayfs/overlayfs.h: version, magic, len, flags, type, uuid; then the handle.
_FB = struct.Struct("<BBBBB16s")
_VERSION, _MAGIC, _BIG_ENDIAN, _ANY_ENDIAN = 0, 0xFB, 1, 2


def encode_origin(origin: OriginHandle) -> bytes:
    """The value of `overlay.origin` (ovl_encode_real_fh()), for this little-endian or big-endian machine."""
    flags = _BIG_ENDIAN if sys.byteorder == "big" else 0
    return _FB.pack(_VERSION, _MAGIC, _FB.size + len(origin.handle), flags, origin.type, origin.uuid) + origin.handle


def decode_origin(value: bytes) -> OriginHandle | None:
    """The handle in an `overlay.origin` value, or None: empty, foreign or malformed (ovl_check_fb_len())."""
    if len(value) < _FB.size:
        return None
    version, magic, length, flags, type_, uuid = _FB.unpack_from(value)
    if magic != _MAGIC or version > _VERSION or length != len(value):
        return None
    if not flags & _ANY_ENDIAN and bool(flags & _BIG_ENDIAN) != (sys.byteorder == "big"):
        return None
    return OriginHandle(type_, value[_FB.size :], uuid)


def origin_of(union: Union, layer: Layer, path: Path) -> OriginHandle | None:
    value = layer.getxattr(path, union.stack.private(ORIGIN))
    return decode_origin(value) if value else None


def find_origin(union: Union, origin: OriginHandle) -> tuple[int, os.stat_result] | None:
    """(layer, stat) of the lower object behind a handle, wherever its name is; None if it cannot be opened
    (CAP_DAC_READ_SEARCH) or belongs to no lower (ovl_decode_real_fh())."""
    for number, layer in enumerate(union.stack.lowers, 1):
        root_fd = getattr(layer, "root_fd", -1)
        root = layer.handle(b"")
        if root_fd < 0 or root is None or root.uuid != origin.uuid:
            continue
        try:
            found = _open_origin(root_fd, origin)
        except OSError:
            continue
        if found is not None:
            return number, found
    return None


def _open_origin(root_fd: int, origin: OriginHandle) -> os.stat_result | None:
    """The stat of the object if it stands below the layer's root."""
    mount_fd = os.open(f"/proc/self/fd/{root_fd}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = open_by_handle_at(mount_fd, origin.type, origin.handle, os.O_PATH)
        try:
            inside = os.readlink(f"/proc/self/fd/{fd}").startswith(os.readlink(f"/proc/self/fd/{mount_fd}") + "/")
            return os.fstat(fd) if inside else None
        finally:
            os.close(fd)
    finally:
        os.close(mount_fd)


# the index ----------------------------------------------------------------------------------------------------------
def index_path(union: Union, number: int, path: Path, st: os.stat_result) -> Path:
    """Where the index has, or would have, the group of a lower file."""
    if union.options.index and union.work.xattrs:
        handle = union.stack.layer(number).handle(path)
        if handle is not None:
            return join(INDEX, encode_origin(handle).hex().encode())
    return b"%s/#i%x-%x-%x" % (WORK, number, st.st_dev, st.st_ino)


def by_index(union: Union, number: int, path: Path, st: os.stat_result) -> FileInode | None:
    """The inode of a lower file with several links whose group has been copied up by another of its names."""
    if union.workdir is None or stat.S_ISDIR(st.st_mode):
        return None
    entry = index_path(union, number, path, st)
    try:
        stored = union.stack.work.lstat(entry)
    except FileNotFoundError:
        return None
    key = (UPPER, stored.st_dev, stored.st_ino)
    known = union.table.real.get(key)
    if known is None:
        known = FileInode(union.table.allocate(), union.stack.number(number, st.st_ino, st.st_dev), d_type(st.st_mode))
        known.upper, known.index = True, entry
        known.nlink = load_nlink(union, entry, stored, st.st_nlink)
        union.table.add(known)
        union.table.remember_real(key, known)
    union.table.remember_real((number, st.st_dev, st.st_ino), known)
    return known


def attach_index(union: Union, inode: FileInode, origin: OriginHandle, device: int, ino: int) -> None:
    """An upper file with an origin may be a group's copy: find its index entry and count."""
    if not union.options.index:
        return
    entry = join(INDEX, encode_origin(origin).hex().encode())
    try:
        stored = union.stack.work.lstat(entry)
    except FileNotFoundError:
        return
    if (stored.st_dev, stored.st_ino) == (device, ino):
        inode.index = entry
        found = find_origin(union, origin)
        inode.nlink = load_nlink(union, entry, stored, found[1].st_nlink if found else stored.st_nlink - 1)


# link counts --------------------------------------------------------------------------------------------------------
def load_nlink(union: Union, entry: Path, stored: os.stat_result, fallback: int) -> int:
    """The union's link count (ovl_get_nlink()): "U" counts from the stored file, "L" from the lower one."""
    value = union.stack.work.getxattr(entry, union.stack.private(NLINK))
    if not value or value[:1] not in b"UL" or value[1:2] not in b"+-":
        return fallback
    try:
        difference = int(value[1:])
    except ValueError:
        return fallback
    count = (stored.st_nlink if value[:1] == b"U" else fallback) + difference
    return count if count > 0 else fallback


def save_nlink(union: Union, inode: FileInode, *, stored_change: int = 0) -> None:
    """Record the count before an operation that changes the stored link count by `stored_change` along with the
    union's, so that the recorded difference is right before and after it (ovl_nlink_start())."""
    if inode.index is None or not union.work.xattrs:
        return
    stored = union.stack.work.lstat(inode.index).st_nlink
    union.stack.work.setxattr(inode.index, union.stack.private(NLINK), b"U%+d" % (inode.nlink - stored - stored_change))


def add_to_index(union: Union, inode: FileInode, temporary: Path, entry: Path, nlink: int) -> None:
    """Make a staged copy the group's: `temporary` becomes the index entry, with the group's count."""
    inode.index, inode.nlink = entry, nlink
    if union.work.xattrs:
        union.stack.work.setxattr(temporary, union.stack.private(NLINK), b"U%+d" % (nlink - 1))
    union.stack.work.rename(temporary, union.stack.work, entry)


def store_name(union: Union, inode: FileInode, parent_path: Path, name: bytes) -> None:
    """Give a group's copy a stored name in the upper, replacing nothing (ovl_link_up()).

    The union's count stays (the name was there), so the recorded difference shrinks by one.
    """
    assert inode.index is not None
    save_nlink(union, inode, stored_change=1)
    union.stack.work.link(inode.index, union.stack.upper, join(parent_path, name))


def drop_index(union: Union, inode: FileInode) -> None:
    """The last name of a group is gone: its index entry goes too, or keeps the data while the file is open."""
    if inode.index is None or inode.nlink > 0:
        return
    entry, inode.index = inode.index, None
    if inode.opens:
        inode.orphan = union.work.temporary()
        union.stack.work.rename(entry, union.stack.work, inode.orphan)
    elif exists(union.stack.work, entry):
        union.stack.work.unlink(entry)
