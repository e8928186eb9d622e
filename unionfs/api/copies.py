"""Copies between a `Tree` and the host: files, links, directories with all below them, fifos and devices.

Type, mode, modification and access time, extended attributes and content are kept, and the owner where the process
may give files away (as root). Extended attributes that the other side refuses are left out; sockets are an error.
Symbolic links are copied, never followed. The target must not exist. A failure leaves what was copied so far.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat as _stat

from unionfs.api.paths import AnyPath, Tree, os_error
from unionfs.vfs import Attr

_REFUSED = (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)


def copy_in(tree: Tree, source: AnyPath, path: AnyPath) -> None:
    """Copy `source` of the host to `path` in the tree."""
    src, dst = os.fsencode(source), os.fsencode(path)
    st = os.lstat(src)
    kind = _stat.S_IFMT(st.st_mode)
    if kind == _stat.S_IFDIR:
        tree.mkdir(dst, 0o700)
        for child in sorted(os.listdir(src)):
            copy_in(tree, os.path.join(src, child), os.path.join(dst, child))
    elif kind == _stat.S_IFREG:
        with open(src, "rb") as reader, tree.open(dst, "xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    elif kind == _stat.S_IFLNK:
        tree.symlink(os.readlink(src), dst)
    elif kind == _stat.S_IFSOCK:
        raise os_error(errno.EOPNOTSUPP, source)
    else:
        tree.mknod(dst, kind | 0o600, st.st_rdev)
    if tree.caller.uid == 0:
        tree.lchown(dst, st.st_uid, st.st_gid)
    for name in os.listxattr(src, follow_symlinks=False):
        value = os.getxattr(src, name, follow_symlinks=False)
        try:
            tree.setxattr(dst, name, value, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _REFUSED:
                raise
    if kind != _stat.S_IFLNK:
        tree.chmod(dst, _stat.S_IMODE(st.st_mode))
    tree.utime(dst, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def copy_out(tree: Tree, path: AnyPath, target: AnyPath) -> None:
    """Copy `path` of the tree to `target` on the host."""
    src, dst = os.fsencode(path), os.fsencode(target)
    attr = tree.attr(src, follow_symlinks=False)
    kind = _stat.S_IFMT(attr.mode)
    if kind == _stat.S_IFDIR:
        os.mkdir(dst, 0o700)
        for name in sorted(tree.listdir(src)):
            copy_out(tree, os.path.join(src, name), os.path.join(dst, name))
    elif kind == _stat.S_IFREG:
        with tree.open(src, "rb") as reader, open(dst, "xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    elif kind == _stat.S_IFLNK:
        os.symlink(tree.readlink(src), dst)
    elif kind == _stat.S_IFSOCK:
        raise os_error(errno.EOPNOTSUPP, path)
    else:
        os.mknod(dst, kind | 0o600, attr.rdev)
    _set_metadata(tree, src, attr, dst)


def _set_metadata(tree: Tree, src: bytes, attr: Attr, dst: bytes) -> None:
    if os.geteuid() == 0:
        os.lchown(dst, attr.uid, attr.gid)
    for name in tree.listxattr(src, follow_symlinks=False):
        value = tree.getxattr(src, name, follow_symlinks=False)
        try:
            os.setxattr(dst, name, value, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _REFUSED:
                raise
    # After the owner, since chown(2) clears set-user-ID and set-group-ID.
    if not _stat.S_ISLNK(attr.mode):
        os.chmod(dst, _stat.S_IMODE(attr.mode))
    os.utime(dst, ns=(attr.atime_ns, attr.mtime_ns), follow_symlinks=False)
