"""Taking in images: recognise what it is, read what it says, take its layers, publish all of it at once.

Every layer is hashed on its way in, so what ends up in the store is what configs and manifests say, or nothing does.
A layer whose diff_id the store has already (with a manifest: the very blob) is not read: the store's own is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from unionfs.errors import ImageError, ImageFormatError
from unionfs.image import docker_archive, oci_layout, platforms
from unionfs.image.blobs import CHUNK
from unionfs.image.catalog import Catalog
from unionfs.image.digest import Digest
from unionfs.image.incoming import Incoming, IncomingImage, IncomingLayer
from unionfs.image.members import Member, Members, open_members, shown
from unionfs.image.models import Descriptor
from unionfs.image.results import Loaded
from unionfs.image.staging import Staging

Progress = Callable[[int], None]


def load(
    staging: Staging, source: bytes | BinaryIO, platform: platforms.Wanted | None, progress: Progress | None
) -> list[Loaded]:
    """See `Store.load`."""
    with open_members(source, staging.space, progress) as members:
        incoming = _read(members, platform)
        taken = _taken(staging, incoming, progress)
    names = {name: descriptor for one, descriptor in taken for name in one.names}
    untagged = [descriptor for one, descriptor in taken if not one.names]
    renamed = staging.publish(names, untagged=untagged)
    catalog = Catalog(staging.layout, [])
    loaded: list[Loaded] = []
    for one, descriptor in taken:
        id = catalog.id_of(descriptor)
        loaded += [Loaded(id, name, renamed.get(name)) for name in one.names] or [Loaded(id)]
    return loaded


def _read(members: Members, platform: platforms.Wanted | None) -> list[Incoming]:
    if oci_layout.is_layout(members):
        return oci_layout.read(members, platform)
    incoming = docker_archive.read(members)
    if platform is None:
        return incoming
    suitable = [one for one in incoming if platforms.rank(platform, one.images[0].config.platform) is not None]
    if not suitable:
        raise ImageError(f"the archive holds no image for {platform}")
    return suitable


def _taken(
    staging: Staging, incoming: Sequence[Incoming], progress: Progress | None
) -> list[tuple[Incoming, Descriptor]]:
    """All of them taken in, and the staging area held. Nobody waits for a slow archive: if somebody removes what it was
    not to be read for, it is read for that, too, while the store is held."""
    taker = _Taker(staging, progress)
    try:
        taken = [(one, taker.take(one)) for one in incoming]
    except ImageError:
        if not taker.lost():
            raise
    else:
        staging.hold()
        if not taker.lost():
            return taken
    staging.hold()
    taker = _Taker(staging, progress)
    return [(one, taker.take(one)) for one in incoming]


class _Taker:
    """Brings what is incoming into a staging area."""

    def __init__(self, staging: Staging, progress: Progress | None) -> None:
        self._staging, self._progress = staging, progress
        self._done = 0
        self._blobs: dict[Digest, Digest] = {}  # diff_ids of layers that are there, by their own digest
        self._layers: dict[Digest, Descriptor] = {}  # one of them for each diff_id
        self._images: dict[Digest, Descriptor] = {}  # manifests by image ID
        self._whole: dict[Digest, dict[Digest, int]] = {}  # what those of the store consist of, with sizes
        self._counted_on: dict[Digest, int] = {}  # of the store, with sizes: what is not taken from the archive
        self._look()

    def _look(self) -> None:
        """What the store has already, as far as it is whole."""
        layout = self._staging.layout
        catalog = Catalog(layout, layout.entries())
        for group in catalog.groups():
            for image in catalog.found(group.entries[0].descriptor).images:
                pairs = list(zip(image.layers, image.diff_ids, strict=True))
                whole = [pair for pair in pairs if layout.blobs.size(pair[0].digest) == pair[0].size]
                for layer, diff_id in whole:
                    self._layers.setdefault(diff_id, layer)
                    self._blobs[layer.digest] = diff_id
                if len(whole) == len(pairs) and image.id not in self._images:
                    self._images[image.id] = image.descriptor
                    blobs = (image.descriptor, image.manifest.config, *image.layers)
                    self._whole[image.id] = {blob.digest: blob.size for blob in blobs}

    def lost(self) -> bool:
        """Has somebody removed what is not taken from the archive? See `Staging.lost`."""
        return bool(self._staging.lost(self._counted_on))

    def take(self, incoming: Incoming) -> Descriptor:
        """The descriptor that its names shall mean."""
        if incoming.descriptor is None:
            return self._made(incoming.images[0])
        for image in incoming.images:
            for layer in image.layers:
                if layer.digest is None or self._blobs.get(layer.digest) != layer.diff_id:
                    self._take_layer(layer)
                else:
                    self._counted_on[layer.digest] = layer.member.size
        for descriptor, member in incoming.others:
            self._other(descriptor, member)
        for digest, data in incoming.documents.items():
            self._staging.space.add_as(digest, data)
        return incoming.descriptor

    def _made(self, image: IncomingImage) -> Descriptor:
        """An image that comes without a manifest: the store's own, if it has that image, or a new one."""
        known = self._images.get(image.id)
        if known is None:
            layers = [self._layers.get(layer.diff_id) or self._take_layer(layer) for layer in image.layers]
            self._counted_on |= {layer.digest: layer.size for layer in layers}
            known = self._images[image.id] = self._staging.add_image(image.config_bytes, layers)
        self._counted_on |= self._whole.get(image.id, {})
        return known

    def _take_layer(self, layer: IncomingLayer) -> Descriptor:
        with layer.member.open() as stream:
            stored = self._staging.add_layer(
                stream,
                diff_id=layer.diff_id,
                digest=layer.digest,
                what=f"the layer {shown(layer.member.name)}",
                count=None if layer.member.path is not None else self._count,
                path=layer.member.path,
            )
        self._layers.setdefault(layer.diff_id, stored.descriptor)
        self._blobs[stored.descriptor.digest] = layer.diff_id
        return stored.descriptor

    def _other(self, descriptor: Descriptor, member: Member) -> None:
        """A blob of an artifact: compared, and not looked into."""
        what = f"the blob {descriptor.digest}"
        if member.size != descriptor.size:
            raise ImageFormatError(f"{what} has {member.size} bytes, not {descriptor.size}")
        space = self._staging.space
        with member.open() as stream, space.writer(descriptor.digest.algorithm) as writer:
            while data := stream.read(CHUNK):
                writer.write(data)
                if member.path is None:
                    self._count(len(data))
            found = space.finished(writer)
        if found != descriptor.digest:
            raise ImageFormatError(f"{what} is damaged: its digest is {found}")

    def _count(self, size: int) -> None:
        self._done += size
        if self._progress:
            self._progress(self._done)


class Counted:
    """A stream, counted as it is read."""

    def __init__(self, stream: BinaryIO, progress: Progress | None) -> None:
        self._stream, self._progress, self._done = stream, progress, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._progress:
            self._progress(self._done)
        return data
