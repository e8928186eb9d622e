"""What a tree stores: objects with their marks, directories, and a walk over all of them.

A *mark* is an extended attribute that an overlay file system keeps for itself (`whiteout.PRIVATE_XATTRS`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path

TRUSTED, USER = b"trusted.overlay.", b"user.overlay."
NAMESPACES = (TRUSTED, USER)
FUSE_OVERLAYFS = b"user.fuseoverlayfs."
#: A mark of a mark: the attribute of an overlay inside the overlay (ovl_xattr_escape_name()). Somebody's data.
_ESCAPED = b"overlay."


class Stored(NamedTuple):
    """One stored object, as it was when it was read."""

    path: Path
    st: os.stat_result
    marks: Mapping[bytes, bytes]

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.st.st_mode)

    @property
    def is_empty_file(self) -> bool:
        return stat.S_ISREG(self.st.st_mode) and self.st.st_size == 0

    @property
    def is_device_whiteout(self) -> bool:
        return whiteout.is_whiteout_device(self.st.st_mode, self.st.st_rdev)

    def own(self, key: bytes, namespace: bytes = b"") -> bytes | None:
        """The value of the union's own attribute `key`, in that namespace, b"" in whichever."""
        for one in (namespace,) if namespace else NAMESPACES:
            if one + key in self.marks:
                return self.marks[one + key]
        return None


class Folder(NamedTuple):
    """One stored directory and what is in it, by name."""

    itself: Stored
    children: Mapping[bytes, Stored]

    @property
    def path(self) -> Path:
        return self.itself.path


def split_mark(name: bytes) -> tuple[bytes, bytes] | None:
    """(namespace, key) of an attribute of the union's own; None for other marks, and for escaped ones."""
    for namespace in NAMESPACES:
        if name.startswith(namespace):
            key = name[len(namespace) :]
            return None if key.startswith(_ESCAPED) else (namespace, key)
    return None


def is_escaped(name: bytes) -> bool:
    return name.startswith(tuple(namespace + _ESCAPED for namespace in NAMESPACES))


def opaque_value(itself: Stored, namespace: bytes = b"") -> bytes:
    """b"y", b"x" or b"", by fuse-overlayfs's attribute or the union's own in that namespace, b"" in whichever."""
    names = (namespace + b"opaque", FUSE_OVERLAYFS + b"opaque") if namespace else whiteout.OPAQUE_XATTRS
    return whiteout.opaque_value(itself.marks.get, names)


def announces_xattr_whiteouts(itself: Stored, namespace: bytes = b"") -> bool:
    return opaque_value(itself, namespace) == b"x" or itself.own(b"whiteouts", namespace) is not None


def has_whiteout_mark(child: Stored) -> bool:
    """An xattr whiteout, if its directory announces such (ovl_path_check_xwhiteout_xattr())."""
    return child.is_empty_file and any(name in child.marks for name in whiteout.WHITEOUT_XATTRS)


def is_debris(name: bytes, child: Stored) -> bool:
    """What fuse-overlayfs leaves when it whites out its own opaque marker."""
    return name in (b".wh..opq", b".wh..wh.opq") and child.is_device_whiteout


def join(parent: Path, name: bytes) -> Path:
    return parent + b"/" + name if parent else name


def read_object(layer: Layer, path: Path) -> Stored:
    st = layer.lstat(path)
    marks: dict[bytes, bytes] = {}
    for name in layer.listxattr(path):
        if name.startswith(whiteout.PRIVATE_XATTRS):
            value = layer.getxattr(path, name)
            if value is not None:
                marks[name] = value
    return Stored(path, st, marks)


def read_folder(layer: Layer, path: Path) -> Folder:
    children = {entry.name: read_object(layer, join(path, entry.name)) for entry in layer.scan(path)}
    return Folder(read_object(layer, path), children)


def is_aufs(layer: Layer, *, upper: bool) -> bool:
    """Whether a tree's `.wh.` names are whiteouts: always in a layer, in an upper only if its root says so."""
    return not upper or whiteout.AUFS_MARKER in (entry.name for entry in layer.scan(b""))


def walk(layer: Layer, *, aufs: bool) -> Iterator[Folder]:
    """Every directory from the root down, each read when its turn comes, so that what is done to one before the next
    is asked for is seen there. In order of names. With `aufs`, not inside AUFS's own directories."""
    todo: list[Path] = [b""]
    while todo:
        path = todo.pop()
        try:
            folder = read_folder(layer, path)
        except (FileNotFoundError, NotADirectoryError):
            if not path:
                raise
            continue  # removed as a repair of its parent
        names = sorted((name for name, child in folder.children.items() if child.is_dir), reverse=True)
        todo.extend(join(path, name) for name in names if not (aufs and whiteout.is_reserved(name)))
        yield folder
