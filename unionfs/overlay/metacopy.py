"""Metacopies: files of which a layer has the metadata, and a layer further down the data (the kernel's `metacopy=on`).

`overlay.metacopy` on a regular file says so; it is a hole of the right size. Its data is in the file that its name
leads to in the layers below, or `overlay.redirect`: a name in the same directory, or a path from the root. That file
may be a metacopy again. A redirect leads to lower layers only, so there are no loops; nor does it hold "..", or leave
its layer.

Here is how they are found and named; copy_up.py makes them, and gives them their data.

Read are those of `trusted.` attributes, and those of `user.` ones where the union's own are of that kind, whether or
not `metacopy` is asked for (unlike the kernel, which then answers EPERM). They are looked for in all files if it is,
else in directories that are marked impure: whoever copies a file up marks its directory (ovl_set_impure()), and layers
nobody copied up to are spared the question. (Not marked, with the kernel's `index=off`, is a directory that a metacopy
of a hard-linked file was moved to.) An fs-verity digest in the value is read and not verified (`verity=off`).

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import contextlib
import errno
import stat

from unionfs.layers import whiteout
from unionfs.layers.layer import Changeable, Layer, LayerFile, Path
from unionfs.overlay.inode import Data, DirInode, FileInode, join
from unionfs.overlay.redirect import find_file, hidden_by_aufs
from unionfs.overlay.stack import METACOPY, NUMBER, ORIGIN, REDIRECT, SLOT, UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union, fail
from unionfs.vfs import DT_REG, Attr, SetAttr, record_size

#: struct ovl_metacopy of fs/overlayfs/overlayfs.h: version, length, flags, digest algorithm; then the digest.
_HEADER = 4
#: Errors that say that the upper cannot hold this one redirect.
_NO_ROOM = (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE)


# finding --------------------------------------------------------------------------------------------------------------
def may_be_in(union: Union, parent: DirInode, number: int) -> bool:
    """Are files to be asked that layer `number` has in the directory?"""
    return union.options.metacopy or (parent.impure if number == UPPER else number in parent.impure_lowers)


def note(union: Union, inode: FileInode, parent: DirInode, name: bytes, number: int, path: Path) -> None:
    """Find the data of a regular file that layer `number` has at `path`, if it is a metacopy. EIO where it has none."""
    if not is_metacopy(union, number, path):
        return
    redirect = _redirect_of(union, number, path)
    links = inode.linked()
    links.data = _find(union, parent, name, number, redirect)
    if number == UPPER:
        links.redirect = redirect
        links.lower_path = _Way(parent.lower_path, name, redirect).path


def note_group(union: Union, inode: FileInode, parent: DirInode, name: bytes, number: int) -> None:
    """The same for a group of hard links that was found by the index, from a lower name of it."""
    entry = inode.index
    if number == UPPER or entry is None or inode.type != DT_REG or inode.opens or not inode.nameless or inode.data:
        return
    try:
        if union.stack.work.getxattr(entry, union.stack.private(METACOPY)) is None:
            return
        lower = next(path for layer, path in parent.lowers if layer == number)
        links = inode.linked()
        links.redirect = _valid(union.stack.work.getxattr(entry, union.stack.private(REDIRECT)))
        links.lower_path = join(parent.lower_path, name)
        links.data = _data_at(union, parent, name, number, join(lower, name))
    except BaseException:
        union.release_unused(inode)
        raise


def is_metacopy(union: Union, number: int, path: Path) -> bool:
    """ovl_check_metacopy_xattr(): EIO for a value of no known form."""
    layer = union.stack.layer(number)
    for mark in union.stack.marks_of(number).metacopy:
        value = layer.getxattr(path, mark)
        if value is not None:
            if value and (len(value) < _HEADER or value[:2] != bytes((0, len(value) & 0xFF))):
                fail(errno.EIO)
            return True
    return False


def _redirect_of(union: Union, number: int, path: Path) -> bytes | None:
    layer = union.stack.layer(number)
    for mark in union.stack.marks_of(number).redirect:
        value = layer.getxattr(path, mark)
        if value is not None:
            return _valid(value)
    return None


def _valid(value: bytes | None) -> bytes | None:
    """EIO for a redirect that is no path: what it was to say is not known."""
    redirect = None if value is None else whiteout.redirect_target(value)
    if value is not None and redirect is None:
        fail(errno.EIO)
    return redirect


class _Way:
    """Where a file goes on in the layers below: by name in its directory, or at an absolute path, once an absolute
    redirect was met (struct ovl_lookup_data)."""

    def __init__(self, directory: Path, name: bytes, redirect: bytes | None) -> None:
        self._directory = directory
        self.name = name
        self.absolute: bytes | None = None
        self.follow(redirect)

    def follow(self, redirect: bytes | None) -> None:
        if redirect is None:
            return
        if redirect[:1] == b"/":
            self.absolute = redirect[1:]
        elif self.absolute is not None:
            self.absolute = join(self.absolute.rpartition(b"/")[0], redirect)
        else:
            self.name = redirect

    @property
    def path(self) -> bytes:
        return join(self._directory, self.name) if self.absolute is None else self.absolute


def _find(union: Union, parent: DirInode, name: bytes, number: int, redirect: bytes | None) -> Data:
    """Go down from a metacopy in layer `number` (ovl_lookup())."""
    way, paths = _Way(parent.lower_path, name, redirect), dict(parent.lowers)
    for below in range(number + 1, len(union.stack.lowers) + 1):
        stop = False
        if way.absolute is not None:
            path, way.absolute, stop = find_file(union, below, way.absolute)
        elif below in paths:
            path = join(paths[below], way.name)
        else:
            continue
        if path is not None:
            data, goes_on = _look(union, below, path, way)
            if data is not None:
                return data
            directory, _, last = path.rpartition(b"/")
            # A metacopy goes on below even an opaque directory, by its redirect (ovl_lookup_single()).
            stop = not goes_on and (stop or hidden_by_aufs(union.stack.layer(below), directory, last))
        if stop:
            break
    fail(errno.EIO)  # "metacopy with no lower data found - abort lookup"


def _look(union: Union, number: int, path: Path, way: _Way) -> tuple[Data | None, bool]:
    """(the data if it is there, whether a metacopy is, which `way` then follows). EIO for what is no regular file."""
    try:
        st = union.stack.layer(number).lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, False
    if not stat.S_ISREG(st.st_mode):
        fail(errno.EIO)
    if not is_metacopy(union, number, path):
        if not st.st_size and _is_whiteout(union, number, path):
            fail(errno.EIO)
        return Data(number, path, st.st_blocks), False
    way.follow(_redirect_of(union, number, path))
    return None, True


def _is_whiteout(union: Union, number: int, path: Path) -> bool:
    """Is an empty file one that hides what is below (ovl_path_check_xwhiteout_xattr())?"""
    layer = union.stack.layer(number)
    return any(layer.getxattr(path, name) is not None for name in union.stack.marks_of(number).whiteout)


def _data_at(union: Union, parent: DirInode, name: bytes, number: int, path: Path) -> Data:
    """Where the data of the lower file `name` of `parent` is, which layer `number` has at `path`."""
    if is_metacopy(union, number, path):
        return _find(union, parent, name, number, _redirect_of(union, number, path))
    return Data(number, path, union.stack.layer(number).lstat(path).st_blocks)


def look_again(union: Union, inode: FileInode) -> None:
    """Layers have changed: find the data where it is now. Where it is not to be found, what was known stays."""
    if inode.data is None or inode.nameless:
        return
    with contextlib.suppress(OSError):
        known = inode.stored_name()
        if known is not None:
            note(union, inode, known[0], known[1], UPPER, join(known[0].path, known[1]))
        elif inode.lower is not None and not inode.upper:
            note(union, inode, inode.names[0][0], inode.names[0][1], *inode.lower)


# making ---------------------------------------------------------------------------------------------------------------
def wanted(union: Union, inode: FileInode) -> bool:
    """Is a copy-up of the inode for the sake of its metadata to make a metacopy (ovl_need_meta_copy_up())? Unlike the
    kernel, not of a file that is empty, or has lost its name: nothing is gained."""
    return (
        union.metacopy
        and inode.type == DT_REG
        and not inode.nameless
        and bool(inode.names[0][0].lowers)
        and record_size(union.attributes(inode))[0] > 0
    )


def mark(union: Union, inode: FileInode) -> Data:
    """Note that the inode is about to become a metacopy in the upper; where its data is."""
    assert inode.lower is not None
    number, path = inode.lower
    parent, name, _ = inode.names[0]
    links = inode.linked()
    links.lower_path = join(parent.lower_path, name)
    return links.data or Data(number, path, union.stack.layer(number).lstat(path).st_blocks)


def set_redirect(union: Union, inode: FileInode, within: DirInode | None) -> bool:
    """Before an inode of the upper gets a name that the lowers do not have it under: if it is a metacopy, say where
    they have it (ovl_set_redirect()), by name if it stays `within` a directory, else from the root. False where the
    upper cannot hold that; then its data has to be copied up."""
    links = inode.links
    if links is None or links.data is None or (links.redirect or b"")[:1] == b"/":
        return True
    parent, _, base = links.lower_path.rpartition(b"/")
    # "For non-dir hardlinked files, we need absolute redirects" (ovl_need_absolute_redirect()).
    by_name = within is not None and bool(within.lowers) and parent == within.lower_path
    redirect = base if by_name and not _is_linked(union, inode) else b"/" + links.lower_path
    if redirect != links.redirect:
        tree, path = union.upper_place(inode)
        try:
            tree.setxattr(path, union.stack.private(REDIRECT), redirect)
        except OSError as e:
            if e.errno not in _NO_ROOM:
                raise
            return False
        links.redirect = redirect
        if union.stack.trace is not None:
            union.stack.trace(Step("redirect", path=path, other=redirect))
    return True


def _is_linked(union: Union, inode: FileInode) -> bool:
    return Attr.unpack(union.attributes(inode)).nlink > 1


def copy_origin(union: Union, layer: Layer, source: Path, copy: Changeable) -> None:
    """Give the copy of a metacopy of the upper that has its data what says where both come from, and how the kernel
    protects it."""
    for key in (ORIGIN, SLOT, NUMBER, b"protattr"):
        value = layer.getxattr(source, union.stack.private(key))
        if value is not None:
            copy.setxattr(union.stack.private(key), value)


def times_set(union: Union, inode: FileInode, changes: SetAttr) -> None:
    """Times were set on a metacopy whose data is being copied to it: those are to show, and to stay."""
    links = inode.links
    if links is not None and links.times is not None and (changes.atime_ns, changes.mtime_ns) != (None, None):
        tree, path = union.upper_place(inode)
        st = tree.lstat(path)
        links.times = st.st_atime_ns, st.st_mtime_ns


def completed(inode: FileInode) -> None:
    """The data is where the file is."""
    links = inode.linked()
    links.data = links.times = links.redirect = None
    links.lower_path = b""


# open files -----------------------------------------------------------------------------------------------------------
def attach(inode: FileInode, file: LayerFile) -> bool:
    """Count a file opened on a metacopy's data. False where the inode is none."""
    if inode.data is None:
        return False
    inode.linked().readers.append(file)
    return True


def detach(inode: FileInode, file: LayerFile) -> bool:
    """The reverse. False where the file is not among them."""
    readers = inode.links.readers if inode.links is not None else []
    if file not in readers:
        return False
    readers.remove(file)
    return True


def opened(inode: FileInode) -> list[LayerFile]:
    """All files open on the inode, wherever its data is."""
    readers = inode.links.readers if inode.links is not None else []
    return [*(inode.handles or ()), *readers]


def regroup(inode: FileInode) -> None:
    """The inode has become a metacopy or ceased to be one: its open files are its readers or its handles."""
    files, links = opened(inode), inode.linked()
    if links.data is not None:
        links.readers, inode.handles = files, None
    else:
        links.readers, inode.handles = [], files or None
