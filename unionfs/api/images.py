"""Images: the store, with what only this layer knows (which mounts use what is in it), and what makes and compares
images.

    image_store      the `Store` of images, all of whose operations are at hand
    import_image     an image of a tar
    diff_images      what the topmost layer of an image changes, or what two images differ in

`unionfs.api.image_commit` makes an image of a mount, `unionfs.api.image_mounts` a mount of an image.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from unionfs.api.changes import Progress
from unionfs.api.image_mounts import kept_in, layer_paths
from unionfs.api.layers import LayerSpec, StackSpec, open_layer, parts_of
from unionfs.api.union import open_union
from unionfs.changeset.change import Change
from unionfs.changeset.diff import diff
from unionfs.image import commit
from unionfs.image.results import StoredLayer
from unionfs.image.store import Store, store_directory
from unionfs.mounts.registry import Registry
from unionfs.vfs import Filesystem

__all__ = ["Store", "diff_images", "image_store", "import_image"]


def image_store(directory: LayerSpec | None = None) -> Store:
    """The store in `directory`; None is $UNIONFS_STORE, or the user's own. It need not exist."""
    root = store_directory(directory)
    return Store(root, in_use=lambda: _in_use(root))


def _in_use(root: bytes) -> Mapping[str, str]:
    """The IDs of images in the store that mounts are made of, or have kept changes of, each with words for who."""
    used = {kept.image: f"the changes kept as {kept.name}" for kept in kept_in(root)}
    for record in Registry().records():
        for part in parts_of(record.options):
            if os.path.realpath(part.store) == os.path.realpath(root):
                used[part.id] = f"the mount on {os.fsdecode(record.mountpoint)}"
    return used


# making --------------------------------------------------------------------------------------------------------------
def import_image(
    store: Store,
    source: LayerSpec | BinaryIO,
    name: str | None = None,
    *,
    changes: Iterable[str] = (),
    message: str | None = None,
    platform: str | None = None,
    epoch: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Make an image of one layer, the tar (compressed or not) of a root file system, and return its ID.

    `name` None: it is dangling. `changes` as in `commit -c`; `epoch` (seconds) is the time it says it was made at, else
    now. ChangeError, TarError or ImageError, and then nothing has happened.
    """
    created = commit.now(epoch)
    shown = "-" if hasattr(source, "read") else os.fsdecode(source)
    # docker's words (daemon/containerd image_import.go).
    comment = message if message is not None else f"Imported from {shown}"

    def config(layer: StoredLayer | None) -> bytes:
        diff_id = "sha256:" + "0" * 64 if layer is None else layer.diff_id
        step = commit.Step(diff_id, "", comment)
        return commit.child(None, [step], created=created, changes=changes, platform=platform)

    config(None)  # what is wrong with the changes is said before gigabytes are read
    return store.import_(source, name, config=config, progress=progress).id


# comparing -----------------------------------------------------------------------------------------------------------
def diff_images(store: Store, name: str, other: str | None = None) -> list[Change]:
    """What the topmost layer of an image changes; with `other`, all in which `name` differs from that."""
    image = store.resolve(name)
    paths = layer_paths(store, image)
    if other is None:
        with view(paths[1:]) as before, view(paths) as after, ExitStack() as stack:
            if not paths:
                return []
            top = open_layer(paths[0])
            stack.callback(top.close)
            return list(diff(before, after, top))
    with view(layer_paths(store, store.resolve(other))) as before, view(paths) as after:
        return list(diff(before, after, None))


@contextmanager
def view(paths: tuple[bytes, ...]) -> Iterator[Filesystem]:
    """Layers as one tree; of none an empty one."""
    with ExitStack() as stack:
        if not paths:
            paths = (os.fsencode(stack.enter_context(tempfile.TemporaryDirectory(prefix="unionfs-"))),)
        fs = open_union(StackSpec(paths))
        stack.callback(fs.close)
        yield fs
