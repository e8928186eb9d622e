"""The root file system of an image: its layers merged, as a mount shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def opened(cache: LayerCache, image: Image) -> Iterator[UnionFilesystem | None]:
    """`open_union`, and None of an image without layers. Whatever is removed then, it can be read."""
    union = open_union(cache, image) if image.layers else None
    try:
        yield union
    finally:
        if union is not None:
            union.close()


def export(union: UnionFilesystem | None, out: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
    """Write what was `opened` as one tar."""
    if union is None:
        out.write(TRAILER)
    else:
        write_tree(union, out, progress=progress)
