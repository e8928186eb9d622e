"""What the tests of tar layers share: a tar made ready in a cache of its own, and trees described to be compared."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from unionfs.image.layer_cache import LayerCache
from unionfs.layers.layer import Layer
from unionfs.layers.tar import TarLayer
from unionfs.vfs import DT_DIR

#: By path: what it is, and everything that people can see of it but its number.
Tree = dict[bytes, tuple[object, ...]]


def cache_of(directory: Path) -> LayerCache:
    return LayerCache(os.fsencode(directory / "cache"))


def layer_of(directory: Path, data: bytes, name: str = "layer.tar") -> TarLayer:
    """The layer that the bytes of a tar are, compressed or not. To be closed."""
    path = directory / name
    path.write_bytes(data)
    return cache_of(directory).open_file(os.fsencode(path))


def tree_of(layer: Layer) -> Tree:
    """Type, mode, owner, mtime, device, contents or target, xattrs and hard links (by their first name) of all."""
    tree: Tree = {}
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        st = layer.lstat(path)
        tree[path] = describe(layer, path, st)
        if stat.S_ISDIR(st.st_mode):
            for entry in sorted(layer.scan(path), reverse=True):
                child = path + b"/" + entry.name if path else entry.name
                found = layer.lstat(child)
                assert (entry.ino, entry.type) == (found.st_ino, found.st_mode >> 12), child
                todo.append(child)
        elif st.st_nlink > 1:
            tree[path] = ("link", first.setdefault(st.st_ino, path), st.st_nlink, *tree[path])
    return tree


def describe(layer: Layer, path: bytes, st: os.stat_result) -> tuple[object, ...]:
    content: object = None
    if stat.S_ISREG(st.st_mode):
        file = layer.open(path)
        content = file.pread(st.st_size + 1, 0)
        file.close()
    elif stat.S_ISLNK(st.st_mode):
        content = layer.readlink(path)
    xattrs = {name: layer.getxattr(path, name) for name in layer.listxattr(path)}
    size = 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return st.st_mode, st.st_uid, st.st_gid, size, st.st_mtime_ns, st.st_rdev, content, sorted(xattrs.items())


def names(layer: Layer, path: bytes = b"") -> list[bytes]:
    return sorted(entry.name for entry in layer.scan(path))


def directories(tree: Tree) -> set[bytes]:
    return {path for path, what in tree.items() if isinstance(what[0], int) and what[0] >> 12 == DT_DIR}
