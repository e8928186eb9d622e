"""Extended attributes as people see them (fs/overlayfs/xattrs.c).

The union's own attributes are hidden; a user's attribute of such a name is stored with one more `overlay.` and shown
without it, so that a union can be nested in a union.
"""

from __future__ import annotations

import errno

from unionfs.overlay.copy_up import copy_up
from unionfs.overlay.inode import DirInode, FileInode, Inode, path_of
from unionfs.overlay.union import Union, fail

_NAMESPACES = (b"user.", b"trusted.", b"security.")
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
#: Marks of another program that we read, and hide, wherever they stand: nobody makes them by hand (as there).
_OF_FUSE_OVERLAYFS = b"user.fuseoverlayfs."
#: What the union says of a file itself (`Union.describer`): read-only, never listed, and in the way of a stored
#: attribute of such a name.
ABOUT = b"user.unionfs."
_RESERVED = (_OF_FUSE_OVERLAYFS, ABOUT)
#: Names that the kernel asks for by itself, before every write(2) and at every check of permissions.
_ASKED = dict.fromkeys((*_ACLS, b"security.capability", b"security.selinux", b"security.ima"), errno.ENODATA)
NAME_MAX, SIZE_MAX = 255, 65536


def getxattr(union: Union, inode: Inode, name: bytes) -> bytes:
    """Lock held. ENODATA where there is none, EOPNOTSUPP for a namespace that Linux does not know."""
    number = refusal(union, inode, name)
    if number:
        fail(number)
    if name.startswith(_RESERVED):
        if name.startswith(_OF_FUSE_OVERLAYFS):
            fail(errno.ENODATA)
        if union.describer is not None:
            return _described(union, inode, name)
    layer, path = union.place(inode)
    value = layer.getxattr(path, union.stack.stored_xattr(name))
    if value is None:
        fail(_absence(name))
    return value


def refusal(union: Union, inode: Inode, name: bytes) -> int:
    """The errno for an inode without any xattrs, else 0. Lock held.

    Most have none, and the kernel asks for ACLs and capabilities again and again: so ask for all names the first
    time. Whatever can give an inode its first xattr passes `setxattr`, which says so."""
    if inode.bare is None:
        inode.bare = not listxattr(union, inode)
    if not inode.bare:
        return 0
    return _ASKED.get(name) or (0 if union.describer is not None and name.startswith(ABOUT) else _absence(name))


def _described(union: Union, inode: Inode, name: bytes) -> bytes:
    assert union.describer is not None
    path = path_of(inode)
    value = None if path is None else union.describer(path, name[len(ABOUT) :])
    if value is None:
        fail(errno.ENODATA)
    return value


def _absence(name: bytes) -> int:
    return errno.ENODATA if name.startswith(_NAMESPACES) or name in _ACLS else errno.EOPNOTSUPP


def listxattr(union: Union, inode: Inode) -> list[bytes]:
    """Lock held."""
    layer, path = union.place(inode)
    shown = (union.stack.shown_xattr(name) for name in layer.listxattr(path))
    names = [name for name in shown if name is not None]
    if union.describer is not None:
        names = [name for name in names if not name.startswith(ABOUT)]
    return names


def setxattr(union: Union, inode: Inode, name: bytes, value: bytes, flags: int) -> None:
    if len(value) > SIZE_MAX:
        fail(errno.E2BIG)
    _check_own(union, name)
    _prepare(union, inode)
    with union.lock:
        tree, path = union.upper_place(inode)
        union.work.set_apart(name)
        tree.setxattr(path, union.stack.stored_xattr(name), value, flags)
        _changed(inode, name)


def _check_own(union: Union, name: bytes) -> None:
    """EPERM for what people may not set."""
    if name.startswith(_RESERVED) and (name.startswith(_OF_FUSE_OVERLAYFS) or union.describer is not None):
        fail(errno.EPERM)


def removexattr(union: Union, inode: Inode, name: bytes) -> None:
    if name.startswith(ABOUT):
        _check_own(union, name)
    with union.lock:
        # Do not copy up a file to remove what it has not (ovl_xattr_set()).
        if name not in _ACLS:
            getxattr(union, inode, name)
    _prepare(union, inode)
    with union.lock:
        tree, path = union.upper_place(inode)
        tree.removexattr(path, union.stack.stored_xattr(name))
        _changed(inode, name)


def _prepare(union: Union, inode: Inode) -> None:
    if isinstance(inode, DirInode) and inode.removed:
        fail(errno.ENOENT)
    if isinstance(inode, FileInode) or not inode.is_dir or isinstance(inode, DirInode):
        copy_up(union, inode, data=False)


def _changed(inode: Inode, name: bytes) -> None:
    inode.bare = None
    inode.attr = None  # ctime; an access ACL also changes the mode
    if isinstance(inode, DirInode) and name in _ACLS:
        inode.default_acl = inode.handed_down = None
