"""Whiteouts and opaque directories in every encoding: names, modes and xattrs in, verdict out. No I/O.

A *whiteout* says that a name does not exist although a lower layer has it; an *opaque* directory hides everything
that lower layers have in it. Three encodings are in use:

    kernel      char device 0:0; xattr `<ns>.overlay.opaque` = "y"           fs/overlayfs/util.c
    xattr       empty regular file with xattr `<ns>.overlay.whiteout`, only
                in a directory whose `opaque` is "x" (or that carries the
                older `whiteouts`)                                           ovl_path_is_whiteout()
    AUFS / OCI  empty file `.wh.NAME`; file `.wh..wh..opq` in the directory  image-spec layer.md

where <ns> is "trusted" or, for mounts made without privilege, "user". fuse-overlayfs 1.x adds
`user.fuseoverlayfs.opaque`. Names beginning `.wh..wh.` are AUFS's own and never files of a user.

An AUFS-encoded whiteout hides a name of *lower* layers only; the same layer may hold the name anew.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

PREFIX = b".wh."
META = b".wh..wh."
OPAQUE = b".wh..wh..opq"
#: What would hide nothing, the directory itself, the one above it.
NO_WHITEOUTS = (b".wh.", b".wh..", b".wh...")
#: Root marker of a tree whose `.wh.` names are whiteouts although it is an upper (AUFS wrote the same name).
AUFS_MARKER = b".wh..wh.aufs"

_NAMESPACES = (b"trusted.overlay.", b"user.overlay.")
OPAQUE_XATTRS = (*(ns + b"opaque" for ns in _NAMESPACES), b"user.fuseoverlayfs.opaque")
REDIRECT_XATTRS = tuple(ns + b"redirect" for ns in _NAMESPACES)
WHITEOUT_XATTRS = tuple(ns + b"whiteout" for ns in _NAMESPACES)
#: Directory xattrs that announce xattr-encoded whiteouts inside (6.7 wrote `whiteouts`, later kernels opaque = "x").
XWHITEOUTS_XATTRS = tuple(ns + b"whiteouts" for ns in _NAMESPACES)
#: Prefixes of what layers keep for themselves; a changeset never carries them.
PRIVATE_XATTRS = (*_NAMESPACES, b"user.fuseoverlayfs.")

GetXattr = Callable[[bytes], bytes | None]


def is_whiteout_device(mode: int, rdev: int) -> bool:
    """The kernel's encoding (IS_WHITEOUT of include/linux/fs.h): a character device 0:0, whatever its mode."""
    return rdev == 0 and stat.S_ISCHR(mode)


def hidden_name(name: bytes) -> bytes | None:
    """The name that the AUFS whiteout `name` hides, or None if `name` is no AUFS whiteout.

    `.wh.` alone hides nothing and is no whiteout, nor are `.wh..` and `.wh...`: a directory and what is above it are
    no names in it. `.wh..wh.*` are AUFS's own files, not whiteouts.
    """
    if name.startswith(PREFIX) and not name.startswith(META) and name not in NO_WHITEOUTS:
        return name[len(PREFIX) :]
    return None


def is_reserved(name: bytes) -> bool:
    """AUFS's own names, which are never shown."""
    return name.startswith(META)


def opaque_value(getxattr: GetXattr, xattrs: tuple[bytes, ...] = OPAQUE_XATTRS) -> bytes:
    """The first opaque xattr's value: b"y" opaque, b"x" may hold xattr whiteouts, b"" neither."""
    for name in xattrs:
        value = getxattr(name)
        if value is not None and value[:1] in (b"y", b"x"):
            return value[:1]
    return b""


def redirect_target(value: bytes) -> bytes | None:
    """The checked value of a redirect xattr, or None if invalid (ovl_check_redirect() of fs/overlayfs/namei.c).

    Absolute: "/" and names separated by single slashes, from the root of the overlay. Relative: one name, in the same
    parent. Unlike the kernel, "." and ".." are invalid as names in either form: the kernel's lookup would refuse
    them one step later.
    """
    parts = value[1:].split(b"/") if value[:1] == b"/" else [value]
    if any(part in (b"", b".", b"..") or b"/" in part or b"\0" in part for part in parts):
        return None
    return value
