"""`image_store`: the store of images, with what only this layer knows, which mounts use what is in it.

All operations on images that need no mount and no union are the store's own. `unionfs.api.image_import`, `image_commit`
and `image_diff` make and compare images, `image_mounts` mounts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unionfs.image.locks import Waiting
from unionfs.image.place import AnyPath, store_directory
from unionfs.image.results import Pruned, Use
from unionfs.image.store import Store

if TYPE_CHECKING:
    from unionfs.image.lazy.notes import Note


def image_store(directory: AnyPath | None = None, waiting: Waiting | None = None) -> Store:
    """The store in `directory`; None is $UNIONFS_STORE, or the user's own. It need not exist. `waiting` is called, by
    another thread, when an operation waits for another one's lock for longer than a second."""
    root = store_directory(directory)
    return Store(root, in_use=lambda: in_use(root), fetch=_fetch, waiting=waiting)


def _fetch(store: Store, notes: Sequence[Note]) -> None:
    """What a lazy pull has left out, when it is needed whole."""
    from unionfs.api.registries import fetch_layers  # whose client takes its time

    fetch_layers(store, notes)


def in_use(root: bytes) -> Mapping[str, Use]:
    """The IDs of images in the store that mounts or containers are made of, or that changes are kept of, each with
    words for who and for what to do about it."""
    # Here, since few commands remove anything, and the rest would have to wait for all that mounts need.
    from unionfs.api.image_mounts import kept_in
    from unionfs.api.layers import parts_of, remove_temporary
    from unionfs.containers.store import Containers
    from unionfs.mounts.registry import Registry

    used = {
        kept.image: Use(f"what is kept as {kept.name}", f"remove it first: unionfs image changes --rm {kept.name}")
        for kept in kept_in(root)
    }
    for one in Containers(root, remove_temporary).all():
        used[one.image] = Use(f"container {one.short_id}", f"remove it first: unionfs rm {one.short_id}")
    for record in Registry().records():
        for part in parts_of(record.options):
            if os.path.realpath(part.store) == os.path.realpath(root):
                used[part.id] = Use(f"the mount on {os.fsdecode(record.mountpoint)}", "unmount it first")
    return used


def prune_images(store: Store, filters: Iterable[str] = (), *, all: bool = False) -> Pruned:
    """`Store.prune`, and what was unpacked of archives, unless a mount uses it."""
    from unionfs.api.image_archives import remove_unused

    size = remove_unused()  # first, since what the cache has unpacked of them goes with the store's
    pruned = store.prune(filters=filters, all=all)
    return replace(pruned, reclaimed=pruned.reclaimed + size)
