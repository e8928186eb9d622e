"""The root file system of an image: its layers merged, as a mount shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from unionfs.changeset.tar_format import TRAILER
from unionfs.changeset.tar_writer import write_tree
from unionfs.image.image import Image
from unionfs.image.layer_cache import LayerCache
from unionfs.layers.layer import Layer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.lower_links import bind_links


def open_union(cache: LayerCache, image: Image) -> UnionFilesystem:
    """The merged tree of an image, which has layers, and has them in the cache. Close it."""
    layers: list[Layer] = []
    try:
        for diff_id in reversed(image.diff_ids):
            layers.append(cache.open(diff_id))
        bind_links(layers)
        return UnionFilesystem(layers, None, None, UnionOptions(read_only=True))
    except BaseException:
        for layer in layers:
            layer.close()
        raise


def export(cache: LayerCache, image: Image, out: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
    """Write it as one tar."""
    if not image.layers:
        out.write(TRAILER)
        return
    union = open_union(cache, image)
    try:
        write_tree(union, out, progress=progress)
    finally:
        union.close()
