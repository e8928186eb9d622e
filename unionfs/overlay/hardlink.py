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

import contextlib
import os
import re
import stat
import struct
import sys

from unionfs.layers.layer import Layer, OriginHandle, Path
from unionfs.overlay.inode import FileInode, Links, join
from unionfs.overlay.stack import NLINK, ORIGIN, SLOT, UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union
from unionfs.overlay.workdir import INDEX, WORK, exists
from unionfs.vfs import DT_DIR, d_type

#: struct ovl_fb of fs/overlayfs/overlayfs.h: version, magic, len, flags, type, uuid; then the handle.
_FB = struct.Struct("<BBBBB16s")
_VERSION, _MAGIC, _BIG_ENDIAN, _ANY_ENDIAN = 0, 0xFB, 1, 2
#: A stored link count; the kernel's is an int (ovl_get_nlink()).
_NLINK = re.compile(rb"([UL])([+-][0-9]{1,10})")
_LINK_MAX = 0x7FFF_FFFF


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


def find_origin(union: Union, origin: OriginHandle, stored: Path) -> tuple[int, os.stat_result] | None:
    """(layer, stat) of the lower object that the upper's `stored` was copied up from, wherever its name is; None if
    its handle cannot be opened (CAP_DAC_READ_SEARCH) or is no lower's (ovl_decode_real_fh())."""
    slot = slot_of(union, union.stack.upper, stored)
    if (origin, slot) not in union.located:
        union.located[origin, slot] = _locate(union, origin, slot)
    return union.located[origin, slot]


def _locate(union: Union, origin: OriginHandle, slot: bytes | None) -> tuple[int, os.stat_result] | None:
    candidates = [
        (number, layer)
        for number, layer in enumerate(union.stack.lowers, 1)
        if slot in (None, b"%d" % union.stack.slot(number)) and getattr(layer.handle(b""), "uuid", None) == origin.uuid
    ]
    if not candidates:
        return None
    try:
        st = _stat_origin(candidates[0][1], origin)
    except OSError:
        return None
    if len(candidates) > 1:  # the kernel's origins have no slot mark, so look for the object
        candidates = [candidate for candidate in candidates if _holds(candidate[1], st.st_ino)]
    return (candidates[0][0], st) if candidates else None


def _holds(layer: Layer, ino: int) -> bool:
    """Does any directory of the layer list this inode number? Reads the whole layer."""
    todo = [b""]
    while todo:
        directory = todo.pop()
        for entry in layer.scan(directory):
            if entry.type == DT_DIR:
                todo.append(join(directory, entry.name))
            elif entry.ino == ino:
                return True
    return False


def _stat_origin(layer: Layer, origin: OriginHandle) -> os.stat_result:
    stat_handle = getattr(layer, "stat_handle", None)
    if stat_handle is not None:  # a layer that makes its handles itself
        st: os.stat_result = stat_handle(origin)
        return st
    from unionfs.linux.handle import open_by_handle_at  # only a layer of the host gets here, maybe not on Linux

    root_fd = getattr(layer, "root_fd", -1)
    mount_fd = os.open(f"/proc/self/fd/{root_fd}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = open_by_handle_at(mount_fd, origin.type, origin.handle, os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    finally:
        os.close(mount_fd)


# the index ----------------------------------------------------------------------------------------------------------
def _entry_of(origin: OriginHandle) -> Path:
    """ovl_get_index_name_fh()"""
    return join(INDEX, encode_origin(origin).hex().encode())


def slot_of(union: Union, layer: Layer, path: Path) -> bytes | None:
    return layer.getxattr(path, union.stack.private(SLOT))


def index_path(union: Union, number: int, path: Path, st: os.stat_result) -> Path:
    """Where the index has, or would have, the group of a lower file.

    One stored file that stands in two layers is two groups with one handle: the second is kept for the session.
    """
    if union.options.index and (union.workdir is None or union.workdir.xattrs):
        handle = union.stack.layer(number).handle(path)
        if handle is not None:
            entry = _entry_of(handle)
            slot = union.stack.slot_mark(number)
            if (
                slot is None
                or not exists(union.stack.work, entry)
                or slot_of(union, union.stack.work, entry) in (None, slot)
            ):
                return entry
    return b"%s/#i%x-%x-%x" % (WORK, number, st.st_dev, st.st_ino)


def by_index(union: Union, number: int, path: Path, st: os.stat_result) -> FileInode | None:
    """The inode of a lower file with several links whose group has been copied up by another of its names."""
    if not union.stack.has_work or stat.S_ISDIR(st.st_mode):
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
        links = known.linked()
        links.index, links.below = entry, st.st_nlink
        links.nlink = load_nlink(union, entry, stored, st.st_nlink)
        union.table.add(known)
        union.table.remember_real(key, known)
    union.table.remember_real((number, st.st_dev, st.st_ino), known)
    return known


def attach_index(union: Union, inode: FileInode, origin: OriginHandle | None, path: Path, st: os.stat_result) -> None:
    """An upper file with several links may be a group's copy: find its index entry and count."""
    entry = union.groups.get((st.st_dev, st.st_ino))
    if entry is None and origin is not None and union.options.index:
        entry = _entry_of(origin)
    if entry is None or not union.stack.has_work:
        return
    try:
        stored = union.stack.work.lstat(entry)
    except FileNotFoundError:
        return
    if (stored.st_dev, stored.st_ino) == (st.st_dev, st.st_ino):
        found = find_origin(union, origin, path) if origin is not None else None
        fallback = found[1].st_nlink if found else stored.st_nlink - 1
        links = inode.linked()
        links.index, links.below = entry, found[1].st_nlink if found else 0
        links.nlink = load_nlink(union, entry, stored, fallback)


# link counts --------------------------------------------------------------------------------------------------------
def load_nlink(union: Union, entry: Path, stored: os.stat_result, fallback: int) -> int:
    """The union's link count (ovl_get_nlink()): "U" counts from the stored file, "L" from the lower one."""
    if union.workdir is not None and not union.workdir.xattrs:
        return union.nlinks.get(entry, fallback)
    value = union.stack.work.getxattr(entry, union.stack.private(NLINK))
    match = _NLINK.fullmatch(value or b"")
    if match is None:
        return fallback
    count = (stored.st_nlink if match[1] == b"U" else fallback) + int(match[2])
    return count if 0 < count <= _LINK_MAX else fallback


def set_nlink(union: Union, links: Links, count: int) -> None:
    """The group's count has changed; where no xattr can hold it, it is kept for the session."""
    links.nlink = count
    if links.index is not None and not union.work.xattrs:
        union.nlinks[links.index] = count


def save_nlink(union: Union, inode: FileInode) -> None:
    """Record the count relative to the stored one, for an operation that changes both (ovl_nlink_start())."""
    links = inode.links
    if links is None or links.index is None or not union.work.xattrs:
        return
    stored = union.stack.work.lstat(links.index).st_nlink
    union.stack.work.setxattr(links.index, union.stack.private(NLINK), b"U%+d" % (links.nlink - stored))


def restore_nlink(union: Union, inode: FileInode) -> None:
    """The operation failed, or was one of the other kind. Takes no space: a value of this length is there."""
    with contextlib.suppress(OSError):
        save_nlink(union, inode)


def _hold_nlink(union: Union, links: Links) -> None:
    """Record the count relative to the lower file's, for an operation that changes only the stored one
    (ovl_set_nlink_lower()). Where that is not known, relative to what the stored one is going to be."""
    if links.index is None or not union.work.xattrs:
        return
    if links.below:
        value = b"L%+d" % (links.nlink - links.below)
    else:
        value = b"U%+d" % (links.nlink - union.stack.work.lstat(links.index).st_nlink - 1)
    union.stack.work.setxattr(links.index, union.stack.private(NLINK), value)


def add_to_index(union: Union, inode: FileInode, temporary: Path, entry: Path, nlink: int) -> None:
    """Make a staged copy the group's: `temporary` becomes the index entry, with the group's count."""
    links = inode.linked()
    if union.work.xattrs:
        union.stack.work.setxattr(temporary, union.stack.private(NLINK), b"U%+d" % (nlink - 1))
    union.stack.work.rename(temporary, union.stack.work, entry)
    if union.stack.trace is not None:
        union.stack.trace(Step("index", path=entry))
    links.index, links.below = entry, nlink
    set_nlink(union, links, nlink)
    if not entry.startswith(INDEX):
        stored = union.stack.work.lstat(entry)
        union.groups[stored.st_dev, stored.st_ino] = entry


def store_name(union: Union, inode: FileInode, parent_path: Path, name: bytes) -> None:
    """Give a group's copy a stored name in the upper, replacing nothing (ovl_link_up()).

    The union's count stays: the name was there.
    """
    assert inode.index is not None
    try:
        _hold_nlink(union, inode.linked())
        union.stack.work.link(inode.index, union.stack.upper, join(parent_path, name))
        if union.stack.trace is not None:
            union.stack.trace(Step("linked", path=join(parent_path, name), other=inode.index))
    finally:
        restore_nlink(union, inode)


def take_from_index(union: Union, inode: FileInode) -> None:
    """Undo `add_to_index`: no name led to it yet."""
    union.work.discard(_forget_entry(union, inode.linked()))


def _forget_entry(union: Union, links: Links) -> Path:
    entry, links.index = links.index, None
    assert entry is not None
    union.nlinks.pop(entry, None)
    union.groups = {key: path for key, path in union.groups.items() if path != entry}
    return entry


def drop_index(union: Union, inode: FileInode) -> None:
    """The last name of a group is gone: its index entry goes too, or keeps the data while the file is open."""
    links = inode.links
    if links is None or links.index is None or links.nlink > 0:
        return
    entry = _forget_entry(union, links)
    if inode.opens or inode.nlookup:
        orphan = union.work.temporary()
        try:
            union.stack.work.rename(entry, union.stack.work, orphan)
        except OSError:
            orphan = entry  # where no name leads any more: as good a place, but for a crash
        links.orphan = orphan
        if union.stack.trace is not None:
            union.stack.trace(Step("kept", path=orphan))
    elif exists(union.stack.work, entry):
        union.stack.work.unlink(entry)
