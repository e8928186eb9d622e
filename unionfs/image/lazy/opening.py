"""A layer that was not fetched, opened: its index is in the cache, its data comes from the store or its registry."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from unionfs.errors import LayerError, UnionFSError
from unionfs.image.layer_cache import LayerCache
from unionfs.image.layout import Layout
from unionfs.image.lazy.contents import toc_place
from unionfs.image.lazy.fetcher import Fetcher
from unionfs.image.lazy.lazy_cache import LazyCache
from unionfs.image.lazy.notes import Note, forget_note
from unionfs.image.models import Descriptor
from unionfs.layers.lazy_tar import LazyTarLayer

if TYPE_CHECKING:
    from unionfs.image.registry.parts import RegistryParts


def lazy_cache(cache: LayerCache) -> LazyCache:
    """What is kept of such layers beside those of `cache`."""
    return LazyCache(cache.root, cache.allowed)


def settle(layout: Layout, cache: LayerCache, layers: Iterable[Descriptor]) -> None:
    """Of layers that have been fetched by now, forget what was noted and what had come. Mounts go on."""
    for layer in layers:
        if layout.blobs.size(layer.digest) == layer.size:
            note, place = forget_note(layout, layer.digest), toc_place(layer)
            for one in (place, note and note.place):
                if one is not None:
                    lazy_cache(cache).remove(one)


def open_noted(note: Note, cache: LazyCache, blob: bytes) -> LazyTarLayer:
    """A layer by its note. `blob`: where its blob will be. LayerError where its TOC is not in the cache."""
    file, index = cache.open(note.place, note.end, note.layer.size, note.diff_id)
    parts = BlobParts(note, blob)
    name = os.fsdecode(blob)
    fetcher = Fetcher(file, note.place.kind, parts, name)
    opened = None
    try:
        opened = index()
        rebuild = lambda: cache.rebuild(note.place, note.end, note.layer.size, note.diff_id)  # noqa: E731
        return LazyTarLayer(fetcher, opened, name, rebuild)
    except BaseException:
        if opened is not None:
            opened.close()
        fetcher.close()
        raise


def make_noted_ready(note: Note, cache: LazyCache) -> None:
    """See that a layer can be opened without a network. LayerError where its TOC cannot be had."""
    if cache.has(note.place):
        return
    from unionfs.image.registry.parts import RegistryParts, fetch_contents

    try:
        with RegistryParts(note.layer, note.origin) as parts:
            fetch_contents(parts, note.layer, note.place, cache, note.diff_id)
    except UnionFSError as error:
        raise LayerError(f"the layer {note.layer.digest} was not fetched yet: {error}", hint=error.hint) from error


class BlobParts:
    """Implements `fetcher.Parts`: the blob, once it is in the store, or else its registry."""

    def __init__(self, note: Note, blob: bytes) -> None:
        self._note, self._blob = note, blob
        self._registry: RegistryParts | None = None

    def read(self, offset: int, size: int, again: bool) -> bytes:
        if not again:
            try:
                with open(self._blob, "rb", buffering=0) as file:
                    data = os.pread(file.fileno(), size, offset)
                if len(data) == size:
                    return data
            except FileNotFoundError:
                pass
        from unionfs.image.registry.parts import RegistryParts

        if self._registry is None:
            self._registry = RegistryParts(self._note.layer, self._note.origin)
        return self._registry.read(offset, size, again)

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()
