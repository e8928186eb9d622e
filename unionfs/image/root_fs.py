"""The root file system of an image: its layers merged, as a mount shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from unionfs.changeset.tar_writer import write_tree
from unionfs.image.image import Image
from unionfs.image.layer_cache import LayerCache
from unionfs.overlay import UnionFilesystem, UnionOptions


def open_union(cache: LayerCache, image: Image) -> UnionFilesystem:
    """The merged tree of an image whose layers are in the cache. Close it."""
    layers = [cache.open(diff_id) for diff_id in reversed(image.diff_ids)]
    return UnionFilesystem(layers, None, None, UnionOptions()._replace(read_only=True))


def export(cache: LayerCache, image: Image, out: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
    """Write it as one tar."""
    union = open_union(cache, image)
    try:
        write_tree(union, out, progress=progress)
    finally:
        union.close()
