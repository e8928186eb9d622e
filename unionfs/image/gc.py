"""What index.json refers to, and how the rest goes: after a crash, and after something was removed.

INVARIANT: a blob goes only under the exclusive lock `content`, when no document that can be read refers to it. Where a
manifest that index.json leads to is damaged, nobody can tell what it refers to, and nothing is removed. A workspace
goes only when its process has died; whoever has one finds out by himself what has gone from `blobs` meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable

from unionfs.changeset.replacing import fsync_path
from unionfs.errors import ImageError
from unionfs.image.blobs import leftovers
from unionfs.image.catalog import Catalog
from unionfs.image.digest import Digest
from unionfs.image.layer_cache import LayerCache
from unionfs.image.layout import Layout


def referred(layout: Layout) -> set[Digest]:
    """All digests that index.json leads to. ImageError where a document on the way is damaged."""
    entries = layout.entries()
    catalog = Catalog(layout, entries)
    digests = {entry.descriptor.digest for entry in entries}
    for entry in entries:
        digests |= catalog.found(entry.descriptor).digests
    return digests


def sweep(layout: Layout) -> None:
    """Remove the workspaces of dead processes, with the blobs they published for nothing. Where somebody is at work,
    or the store is damaged, it waits for a better day."""
    if not layout.workspaces(alive=False):
        return
    with layout.removing(blocking=False) as alone:
        if alone:
            sweep_alone(layout)


def sweep_alone(layout: Layout) -> None:
    """`sweep`, for who holds `removing`."""
    dead = layout.workspaces(alive=False)
    lost = {digest for path in dead for digest in leftovers(path)}
    try:
        lost = lost and lost - referred(layout)
    except ImageError:
        return
    for digest in lost:
        layout.blobs.remove(digest)
    for path in dead:
        with contextlib.suppress(FileNotFoundError):  # one that lived a moment ago removes itself
            shutil.rmtree(path)


def remove_unreferred(layout: Layout, among: Iterable[Digest] | None = None) -> tuple[list[Digest], int]:
    """Remove the blobs (None: all there are) that nothing refers to; which, and how many bytes. Hold `removing`."""
    candidates = set(layout.blobs if among is None else among)
    kept = referred(layout) if candidates else set()
    gone = sorted(candidates - kept)
    size = sum(layout.blobs.remove(digest) for digest in gone)
    for algorithm in {digest.algorithm for digest in gone}:
        fsync_path(os.path.join(layout.blobs.root, algorithm.encode()))
    return gone, size


def remove_notes(layout: Layout, cache: LayerCache) -> None:
    """Forget layers that were not fetched and that nothing refers to, with what had come of them. Hold `removing`."""
    from unionfs.image.lazy import notes
    from unionfs.image.lazy.opening import lazy_cache

    there = set(notes.noted(layout))
    for digest in there - referred(layout) if there else ():
        note = notes.forget_note(layout, digest)
        if note is not None:
            lazy_cache(cache).remove(note.place)
