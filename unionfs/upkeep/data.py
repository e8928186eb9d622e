"""Metacopies of a tree get their data from the layers below it, so that it needs none of them for that any more.

What is seen does not change. Each is one change, complete or not done; what a crash leaves is gone on with by the next
call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from unionfs.changeset.tree import Tree
from unionfs.errors import LayerError
from unionfs.layers.layer import Layer, Path, WritableLayer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.upkeep.stored import TRUSTED, is_aufs, split_mark, walk


def metacopies(tree: Layer, *, upper: bool) -> dict[Path, bytes]:
    """The path of each metacopy, and the namespace of its mark."""
    return {
        child.path: own[0]
        for folder in walk(tree, aufs=is_aufs(tree, upper=upper))
        for child in folder.children.values()
        for own in filter(None, map(split_mark, child.marks))
        if own[1] == b"metacopy"
    }


def bring_up_data(tree: WritableLayer, work: WritableLayer, lowers: Sequence[Layer], *, upper: bool) -> int:
    """Copy it; how many files were metacopies. `work` is on the tree's file system. All layers are closed.

    LayerError where a layer below has no such file.
    """
    found = metacopies(tree, upper=upper)
    namespace = next(iter(found.values()), TRUSTED).removesuffix(b"overlay.")
    options = UnionOptions(xattr_prefix=namespace, metacopy=True)
    fs = UnionFilesystem(lowers, tree, work, options)
    try:
        for path in sorted(found):
            _bring_up(fs, path)
        fs.syncfs()
    finally:
        fs.close()
    return len(found)


def _bring_up(fs: UnionFilesystem, path: Path) -> None:
    with Tree(fs) as reading:
        try:
            node = reading.resolve(path)
            if node is not None:
                fs.release(fs.open(node.node, os.O_RDWR).fh)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            raise LayerError(
                f"/{os.fsdecode(path)}: a metacopy, whose data no layer given has",
                hint="give all the layers below with -l, topmost first; unionfs check -l … lists such files",
            ) from e
