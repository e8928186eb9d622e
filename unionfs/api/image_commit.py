"""`commit_image`: what a mount changes, as one more layer of the image that it is made of, in a store.

The stack of the mount becomes the stack of the image. Layers of images stay what they are; a layer tar is taken in as
it is; a directory is written as a layer of its own, the lowest complete. So a mount of directories has an image too.
The configuration is that of the lowest image, if the stack stands on one.

Nothing can be seen before all is complete; a failure, or a kill, leaves the store as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unionfs.api import HOLD_SECONDS
from unionfs.api.changes import CommitResult, Holding, OnHold, Progress, changed, commit_spec
from unionfs.api.container_inside import call_inside, is_elsewhere
from unionfs.api.image_diff import view
from unionfs.api.images import image_store
from unionfs.api.layers import ImagePart, LayerSpec, StackSpec, open_layer
from unionfs.changeset.compression import Compression
from unionfs.changeset.tar_writer import WrittenLayer, write_layer
from unionfs.errors import ImageError
from unionfs.image import commit, reference
from unionfs.image.digest import Digest
from unionfs.image.image import Image
from unionfs.image.models import Descriptor
from unionfs.image.results import StoredLayer
from unionfs.image.staging import Staging
from unionfs.image.store import Store

#: Of the history: there is no command that a mount ran. A container has one.
CREATED_BY = "unionfs commit"


@dataclass(frozen=True, slots=True)
class CommittedImage:
    """An image that was made. `name` in familiar form. `diff_id`, `digest` and `size` (bytes as stored) are of the new
    layer; None, None and 0 where nothing had changed. The last three as in CommitResult."""

    id: str
    name: str
    diff_id: str | None
    digest: str | None
    size: int
    held_seconds: float | None = None
    unfrozen: tuple[int, ...] = ()
    unseen: int = 0


@dataclass(slots=True)
class _Base:
    """What the new layer goes on: configuration and layers of an image, and steps that it does not tell of yet."""

    config: Mapping[str, Any] | None = None
    layers: list[Descriptor] = field(default_factory=list)
    steps: list[commit.Step] = field(default_factory=list)


def commit_image(
    store: Store,
    name: str,
    mountpoint: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    author: str = "",
    message: str = "",
    changes: Iterable[str] = (),
    compression: Compression = "none",
    epoch: int | None = None,
    skip_sockets: bool = False,
    progress: Progress | None = None,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: OnHold | None = None,
) -> CommittedImage:
    """Make an image `name` (NAME[:TAG]) of a mount, or of layers and an upper; these, and the pause, as in `diff`.

    `changes` as `docker commit -c` has them; the image of a container has what `run` was told, as there. `epoch`:
    SOURCE_DATE_EPOCH, in seconds, is the time the image was made at and the latest in the layer; the same changes then
    give the same image. ChangesetError names what a layer cannot hold, ChangeError what is no change.
    """
    familiar, created, changes = reference.new_name(name), commit.now(epoch), tuple(changes)
    spec, place, container = changed(mountpoint, layers, upper, work, store.directory)
    if container is not None and is_elsewhere(container):
        told = call_inside(
            container,
            lambda: asdict(
                commit_image(
                    store, name, mountpoint, author=author, message=message, changes=changes, compression=compression,
                    epoch=epoch, skip_sockets=skip_sockets, pause=pause, pause_limit=pause_limit, on_hold=on_hold,
                )
            ),
        )  # fmt: skip
        return CommittedImage(**{**told, "unfrozen": tuple(told["unfrozen"])})
    below = _lowest(store, spec)
    if below is not None and container is not None:
        below = {**below, "config": container.configuration}
    commit.child(below, (), created=created, changes=changes)  # what is wrong with them is said before much is read
    for part in spec.images:  # no image is made of layers that are not there
        below_it, source = _image_of(part, store)
        source.complete([below_it])
    with store.staging() as staging:
        if place is None and container is None:  # which keep the images that they show; layers and an upper do not
            staging.hold()
        base = _Base(below)
        _add_lowers(base, store, staging, spec, compression, epoch)
        path = staging.new_file()
        result = commit_spec(
            spec,
            path,
            Holding(place, pause, pause_limit, on_hold),
            compression=compression,
            clamp_mtime=epoch,
            skip_sockets=skip_sockets,
            progress=progress,
        )
        layer = _take(staging, path, _written(result))
        if layer is not None:
            base.layers.append(layer.descriptor)
        by = CREATED_BY if container is None else container.command
        base.steps.append(commit.Step(layer.diff_id if layer else None, by, message, author))
        config = commit.child(base.config, base.steps, created=created, author=author, changes=changes)
        image = staging.add_image(config, base.layers)
        staging.publish({familiar: image})
    waited = (result.held_seconds, result.unfrozen, result.unseen)
    made = CommittedImage(Digest.of(config), familiar, None, None, 0, *waited)
    if layer is None:
        return made
    return replace(made, diff_id=layer.diff_id, digest=layer.descriptor.digest, size=layer.descriptor.size)


def _written(result: CommitResult) -> WrittenLayer:
    return WrittenLayer(
        result.diff_id, result.digest, result.size, result.uncompressed_size, result.media_type, result.entries
    )


def _take(staging: Staging, path: bytes, written: WrittenLayer) -> StoredLayer | None:
    """A layer that was written to a file of the staging area; None, and it is gone, where nothing is in it."""
    if written.entries:
        return staging.add_layer_file(path, written)
    os.unlink(path)
    return None


def _lowest(store: Store, spec: StackSpec) -> Mapping[str, Any] | None:
    """The configuration of the image that the stack stands on; None where that is no image."""
    for part in spec.images:
        if part.at + part.length == len(spec.lowers):
            config: Mapping[str, Any] = json.loads(_image_of(part, store)[0].config_bytes)
            return config
    return None


def _add_lowers(
    base: _Base, store: Store, staging: Staging, spec: StackSpec, compression: Compression, epoch: int | None
) -> None:
    parts = {part.at + part.length: part for part in spec.images}
    end = len(spec.lowers)  # of what is not done yet; from the lowest to the topmost
    while end:
        part = parts.get(end)
        if part is None:
            end -= 1
            _add_other(base, staging, spec, end, compression, epoch)
        else:
            _add_image(base, store, staging, part, lowest=end == len(spec.lowers))
            end = part.at


def _add_image(base: _Base, store: Store, staging: Staging, part: ImagePart, *, lowest: bool) -> None:
    image, source = _image_of(part, store)
    for descriptor, diff_id in zip(image.layers, image.diff_ids, strict=True):
        if source is store:
            base.layers.append(descriptor)
        else:
            with open(source.layout.blobs.existing(descriptor.digest), "rb") as blob:
                base.layers.append(staging.add_layer(blob).descriptor)
        if not lowest:
            base.steps.append(commit.Step(diff_id, f"layer of {part.id}"))


def _image_of(part: ImagePart, store: Store) -> tuple[Image, Store]:
    source = store if os.path.realpath(part.store) == os.path.realpath(store.directory) else image_store(part.store)
    try:
        return source.resolve(part.id), source
    except ImageError as e:
        raise ImageError(
            f"{part.id}, the image that this is made of, is not in {os.fsdecode(part.store)} any more: {e}",
            hint="load it again, or commit to a layer with -o",
        ) from e


def _add_other(
    base: _Base, staging: Staging, spec: StackSpec, at: int, compression: Compression, epoch: int | None
) -> None:
    """A layer that is a tar or a directory."""
    path = spec.lowers[at]
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            stored = staging.add_layer(file)
    else:
        new = staging.new_file()
        below = spec.lowers[at + 1 :]
        with view(below) as before, view((path, *below)) as after:
            layer = open_layer(path)
            try:
                written = write_layer(before, after, layer, new, compression, clamp_mtime=epoch)
            finally:
                layer.close()
        taken = _take(staging, new, written)
        if taken is None:
            return
        stored = taken
    base.layers.append(stored.descriptor)
    base.steps.append(commit.Step(stored.diff_id, f"layer {os.fsdecode(os.path.basename(path.rstrip(b'/')))}"))
