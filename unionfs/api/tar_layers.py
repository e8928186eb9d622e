"""Layers that are files: tars, compressed or not, made ready in the cache of layers (image.layer_cache) and opened.

Imported by `api.layers` when a layer is no directory, so that mounts of directories do not pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from unionfs.errors import LayerError, OptionError, TarError
from unionfs.image.layer_cache import LayerCache, cache_directory
from unionfs.layers.layer import Layer, Path
from unionfs.layers.tar import TarLayer
from unionfs.vfs import ROOT


def layer_cache() -> LayerCache:
    """The cache of this process's user, as the environment has it: UNIONFS_CACHE, UNIONFS_LAYER_LIMIT (bytes)."""
    limit = os.environ.get("UNIONFS_LAYER_LIMIT")
    if limit is not None and not (limit.isascii() and limit.isdigit()):
        raise OptionError(f"UNIONFS_LAYER_LIMIT={limit}: not a number of bytes")
    return LayerCache(cache_directory(), limit=None if limit is None else int(limit))


def make_ready(path: bytes, progress: Callable[[int], None] | None = None) -> None:
    """See that a tar can be opened at once. `progress` gets the bytes read so far, if it has to be read.

    LayerError for what is no layer tar, or can be none."""
    with _explained(path):
        layer_cache().add(path, progress=progress)


def open_tar(path: bytes) -> TarLayer:
    """The same, and open it."""
    with _explained(path):
        return layer_cache().open_file(path)


@contextmanager
def _explained(path: bytes) -> Iterator[None]:
    try:
        yield
    except TarError as error:
        raise LayerError(
            f"layer {os.fsdecode(path)} is not a layer tar: {error}",
            hint=error.hint or "a layer is a directory, or a tar: plain, gzip, zstd, bzip2 or xz",
        ) from error


def bind_links(lowers: Sequence[Layer]) -> None:
    """Tell tar layers with hard links to what only layers below them have where that is (topmost first)."""
    for position, layer in enumerate(lowers):
        if isinstance(layer, TarLayer) and layer.lower_links and lowers[position + 1 :]:
            layer.bind(_finder(lowers[position + 1 :]))


def _finder(layers: Sequence[Layer]) -> Callable[[Path], tuple[Layer, Path] | None]:
    """Finds paths in the union of some layers, which it does not close."""
    from unionfs.overlay import UnionFilesystem, UnionOptions

    union = UnionFilesystem(layers, None, None, UnionOptions(read_only=True))

    def find(path: Path) -> tuple[Layer, Path] | None:
        node = ROOT
        try:
            for name in path.split(b"/"):
                node = union.lookup(node, name).node
            return union.stored(node)
        except OSError:
            return None

    return find
