"""Names in one layer: what a stored directory's own attributes say, and paths that redirects lead to.

    marks           opaque, redirect, … of one stored directory
    single          one name in one directory of a layer, for what is being merged
    find_in_layer   an absolute path, as a redirect gives it, in one layer (ovl_lookup_layer() of fs/overlayfs/namei.c)
    find_file       the same for a file

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import errno
import stat
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path
from unionfs.overlay.inode import join
from unionfs.overlay.stack import IMPURE, UPPER
from unionfs.overlay.union import NAME_MAX, Union


class Marks(NamedTuple):
    """What the xattrs of one stored directory say. `impure`: files in it may have been copied up."""

    opaque: bool
    xwhiteouts: bool
    redirect: bytes | None
    impure: bool


_NO_MARKS = Marks(False, False, None, False)


def marks(union: Union, number: int, path: Path) -> Marks:
    layer = union.stack.layer(number)
    names = layer.listxattr(path)
    if number == UPPER and union.stack.aufs and holds(layer, join(path, whiteout.OPAQUE)):
        # Known now, not when the directory is read: a directory without lowers is renamed without a redirect.
        return Marks(True, False, None, union.stack.private(IMPURE) in names)
    if not names:
        return _NO_MARKS
    opaque = b""
    known = union.stack.marks_of(number)
    for name in known.opaque:
        if name in names and not opaque:
            opaque = whiteout.opaque_value(lambda x: layer.getxattr(path, x), (name,))
    redirect = None
    for name in known.redirect:
        if name in names and redirect is None:
            redirect = whiteout.redirect_target(layer.getxattr(path, name) or b"")
    xwhiteouts = opaque == b"x" or any(name in names for name in known.whiteouts)
    impure = any(name in names for name in known.impure)
    return Marks(opaque == b"y", xwhiteouts, redirect, impure)


def single(union: Union, number: int, base: Path, name: bytes) -> tuple[Path | None, bool, bool]:
    """One name in one layer, for a directory being merged: (path or None, there was something, stop)."""
    layer = union.stack.layer(number)
    path = join(base, name)
    try:
        st = layer.lstat(path)
    except OSError as e:
        # ENAMETOOLONG: of a redirect (ovl_lookup_single()).
        if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        return None, False, hidden_by_aufs(layer, base, name)
    if not stat.S_ISDIR(st.st_mode):
        return None, True, True
    return path, True, hidden_by_aufs(layer, base, name) or holds(layer, join(path, whiteout.OPAQUE))


def holds(layer: Layer, path: Path) -> bool:
    try:
        layer.lstat(path)
    except OSError:
        return False
    return True


def hidden_by_aufs(layer: Layer, base: Path, name: bytes) -> bool:
    return len(name) + len(whiteout.PREFIX) <= NAME_MAX and holds(layer, join(base, whiteout.PREFIX + name))


def find_file(union: Union, number: int, path: Path) -> tuple[Path | None, Path, bool]:
    """`find_in_layer` for the path of a file, which need not be there: where it would be."""
    directory, slash, name = path.rpartition(b"/")
    if not slash:
        return name, name, False
    base, on, stop = find_in_layer(union, number, directory, is_way=True)
    return None if base is None else join(base, name), join(on, name), stop


def find_in_layer(union: Union, number: int, path: Path, *, is_way: bool = False) -> tuple[Path | None, Path, bool]:
    """Walk an absolute path in one lower layer (ovl_lookup_layer()).

    Returns (where it is in the layer or None, the path to go on with in the layers below, whether to stop there):
    redirects met on the way change the path; an opaque or hidden ancestor stops, unless a later absolute redirect
    resumes. `is_way`: the path's last directory is on the way too.
    """
    base, stop = b"", False
    rest = path.split(b"/")
    done: list[bytes] = []
    while rest:
        name = rest.pop(0)
        found, _, ended = single(union, number, base, name)
        stop = stop or ended
        if found is None:
            return None, b"/".join([*done, name, *rest]), stop
        base = found
        done.append(name)
        mark = marks(union, number, found)
        if not rest and not is_way:
            # Its own marks are read by the merge, but that an absolute redirect resumes (ovl_check_redirect()).
            stop = stop and (ended or mark.opaque or (mark.redirect or b"")[:1] != b"/")
        elif mark.opaque:
            stop = True
        elif mark.redirect is not None and mark.redirect[:1] == b"/":
            done, stop = mark.redirect[1:].split(b"/"), False
        elif mark.redirect is not None:
            done[-1] = mark.redirect
    return base, b"/".join(done), stop
