"""Archives of images that serve as layers: each is unpacked once, into a store of its own in the cache.

    CACHE/archives/IDENTITY/    an OCI image layout; IDENTITY is the archive's inode, size and times

What is there can be made anew as long as the archive lies where it lay; who removes it costs the next mount some time.
"""

from __future__ import annotations

import os

from unionfs.api.images import in_use
from unionfs.api.layers import remove_temporary
from unionfs.errors import ImageError, LayerError
from unionfs.image.cache_directory import cache_directory
from unionfs.image.layer_cache import file_identity
from unionfs.image.layout import Layout
from unionfs.image.store import Store


def unpacked(path: bytes) -> Store:
    """The images of an archive, as a store in the cache."""
    store = Store(os.path.join(_archives(), file_identity(os.stat(path)).encode()))
    try:
        if not store.images():
            store.load(path)
    except ImageError as e:
        remove_temporary(store.directory)
        hint = e.hint or "an archive is what docker save, podman save or skopeo copy have written"
        raise LayerError(f"layer {os.fsdecode(path)}: {e}", hint=hint) from e
    return store


def remove_unused() -> int:
    """Remove what no mount uses, and nobody is making; how many bytes that was."""
    try:
        names = os.listdir(_archives())
    except FileNotFoundError:
        return 0
    size = 0
    for name in names:
        layout = Layout(os.path.join(_archives(), name))
        with layout.removing(blocking=False) as alone:
            if alone and not layout.workspaces(alive=True) and not in_use(layout.directory):
                size += sum(layout.blobs.size(digest) or 0 for digest in layout.blobs)
                remove_temporary(layout.directory)
    return size


def _archives() -> bytes:
    return os.path.join(cache_directory(), b"archives")
