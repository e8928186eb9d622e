"""Layers that are files: tars, compressed or not, made ready in the cache of layers (image.layer_cache) and opened.

Imported by `api.layers` when a layer is no directory, so that mounts of directories do not pay for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unionfs.errors import LayerError, TarError
from unionfs.image.layer_cache import user_cache
from unionfs.image.merged import MAX_LAYERS
from unionfs.layers.layer import Layer
from unionfs.layers.tar import TarLayer

_log = logging.getLogger(__name__)


def make_ready(path: bytes, progress: Callable[[int], None] | None = None) -> None:
    """See that a tar can be opened at once. `progress` gets the bytes read so far, if it has to be read.

    LayerError for what is no layer tar, or can be none."""
    with _explained(path):
        user_cache().add(path, progress=progress)


def open_tar(path: bytes) -> TarLayer:
    """The same, and open it."""
    with _explained(path):
        return user_cache().open_file(path)


def make_noted_ready(path: bytes) -> bool:
    """The same for a layer that was not fetched, whose blob would be at `path`. False where there is none such."""
    from unionfs.image.lazy import opening  # few need it, and it takes as long as all else of a mount
    from unionfs.image.lazy.notes import note_at

    note = note_at(path)
    if note is not None:
        opening.make_noted_ready(note, opening.lazy_cache(user_cache()))
    return note is not None


def open_noted(path: bytes) -> TarLayer | None:
    """The same, and open it; None where there is none such."""
    from unionfs.image.lazy import opening
    from unionfs.image.lazy.notes import note_at

    note = note_at(path)
    return None if note is None else opening.open_noted(note, opening.lazy_cache(user_cache()), path)


@contextmanager
def _explained(path: bytes) -> Iterator[None]:
    try:
        yield
    except TarError as error:
        raise LayerError(
            f"layer {os.fsdecode(path)} is not a layer tar: {error}",
            hint=error.hint or "a layer is a directory, or a tar: plain, gzip, zstd, bzip2 or xz",
        ) from error


def merge_tars(lowers: list[Layer]) -> list[Layer]:
    """The lowers (topmost first) with the tars at their bottom as one layer, whose index is merged: a directory then
    costs one reading, in however many of them it is."""
    run: list[TarLayer] = []
    for layer in reversed(lowers):
        if not isinstance(layer, TarLayer) or layer.lower_links or layer.fetches or len(run) == MAX_LAYERS:
            break
        run.insert(0, layer)
    if len(run) < 2:
        return lowers
    try:
        return [*lowers[: -len(run)], user_cache().merge(run)]
    except (OSError, LayerError) as error:
        _log.warning("layers are not merged: %s", error)  # a full or read-only cache: they do it without
        return lowers
