"""`diff_images`: what the topmost layer of an image changes, or what two images differ in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from unionfs.api.image_layers import layer_paths
from unionfs.api.layers import StackSpec, open_layer
from unionfs.api.union import open_union
from unionfs.changeset.change import Change
from unionfs.changeset.diff import diff
from unionfs.compare.changes import as_change
from unionfs.compare.view import FilesystemView
from unionfs.compare.walk import Side, differences
from unionfs.image.store import Store
from unionfs.vfs import Filesystem


def diff_images(store: Store, name: str, other: str | None = None) -> list[Change]:
    """What the topmost layer of an image changes; with `other`, all in which `name` differs from that."""
    image = store.resolve(name)
    paths = layer_paths(store, image)
    if other is None:
        with view(paths[1:]) as before, view(paths) as after, ExitStack() as stack:
            if not paths:
                return []
            top = open_layer(paths[0])
            stack.callback(top.close)
            return list(diff(before, after, top))
    with view(layer_paths(store, store.resolve(other))) as before, view(paths) as after:
        sides = Side(FilesystemView(before)), Side(FilesystemView(after))
        try:
            return [as_change(found) for found in differences(*sides, exact=True, parents=True) if found.path]
        finally:
            for side in sides:
                side.view.close()


@contextmanager
def view(paths: tuple[bytes, ...]) -> Iterator[Filesystem]:
    """Layers as one tree; of none an empty one."""
    with ExitStack() as stack:
        if not paths:
            paths = (os.fsencode(stack.enter_context(tempfile.TemporaryDirectory(prefix="unionfs-"))),)
        fs = open_union(StackSpec(paths))
        stack.callback(fs.close)
        yield fs
