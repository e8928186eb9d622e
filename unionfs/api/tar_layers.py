"""Layers that are files: tars, compressed or not, made ready in the cache of layers (image.layer_cache) and opened.

Imported by `api.layers` when a layer is no directory, so that mounts of directories do not pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unionfs.errors import LayerError, TarError
from unionfs.image.layer_cache import user_cache
from unionfs.layers.tar import TarLayer


def make_ready(path: bytes, progress: Callable[[int], None] | None = None) -> None:
    """See that a tar can be opened at once. `progress` gets the bytes read so far, if it has to be read.

    LayerError for what is no layer tar, or can be none."""
    with _explained(path):
        user_cache().add(path, progress=progress)


def open_tar(path: bytes) -> TarLayer:
    """The same, and open it."""
    with _explained(path):
        return user_cache().open_file(path)


@contextmanager
def _explained(path: bytes) -> Iterator[None]:
    try:
        yield
    except TarError as error:
        raise LayerError(
            f"layer {os.fsdecode(path)} is not a layer tar: {error}",
            hint=error.hint or "a layer is a directory, or a tar: plain, gzip, zstd, bzip2 or xz",
        ) from error
