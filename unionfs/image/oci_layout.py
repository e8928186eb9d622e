"""OCI image layouts (image-spec image-layout.md) as they come: a directory, or an archive of one; and as they are
written.

`index.json` names images by annotation: `org.opencontainers.image.ref.name` is the tag, or the whole name as our own
store has it; `io.containerd.image.name`, which docker and containerd add, is the whole name. What is an index is taken
with all platforms that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from unionfs.errors import ImageFormatError
from unionfs.image import docker_archive, platforms
from unionfs.image.digest import Digest
from unionfs.image.image import Found, Image, walk
from unionfs.image.incoming import Incoming, IncomingImage, IncomingLayer
from unionfs.image.layout import CONTAINERD_NAME, check_version, familiar
from unionfs.image.members import Members
from unionfs.image.models import Descriptor, Index
from unionfs.image.place import MAX_INDEX, REF_NAME

LAYOUT_FILE: Final = "oci-layout"
INDEX: Final = "index.json"


def is_layout(members: Members) -> bool:
    return members.find(LAYOUT_FILE) is not None


def read(members: Members, platform: platforms.Wanted | None = None) -> list[Incoming]:
    """The images of a layout, in order; `platform`: of each index, only the image for that one.

    ImageFormatError where the layout is not whole, or not what it says.
    """
    check_version(members.get(LAYOUT_FILE).read(1 << 16), LAYOUT_FILE)
    index = Index.parse(members.get(INDEX).read(MAX_INDEX), INDEX, MAX_INDEX)
    tags = _repo_tags(members)
    merged: dict[Digest, tuple[Descriptor, Found, list[str]]] = {}
    for descriptor in index.manifests:
        if descriptor.digest not in merged:
            merged[descriptor.digest] = (descriptor, walk(descriptor, lambda d, limit: _read(members, d, limit)), [])
        _, found, names = merged[descriptor.digest]
        names += [name for name in _names(descriptor, found, tags) if name not in names]
    incoming = [_incoming(members, *parts, platform) for parts in merged.values()]
    return [one for one in incoming if one is not None]


def _read(members: Members, descriptor: Descriptor, limit: int) -> bytes | None:
    member = members.blob(descriptor.digest)
    return None if member is None else member.read(limit)


def _repo_tags(members: Members) -> Mapping[Digest, Sequence[str]]:
    """Of `manifest.json`, if it is docker's."""
    entries = docker_archive.entries(members)
    return docker_archive.repo_tags(entries, members) if entries else {}


def _names(descriptor: Descriptor, found: Found, tags: Mapping[Digest, Sequence[str]]) -> list[str]:
    full = descriptor.annotations.get(CONTAINERD_NAME)
    if full:
        return [familiar(full)]
    known = [name for image in found.images for name in tags.get(image.id, ())]
    if known:
        return known
    name = descriptor.annotations.get(REF_NAME)
    return [familiar(name)] if name else []


def _incoming(
    members: Members, descriptor: Descriptor, found: Found, names: list[str], platform: platforms.Wanted | None
) -> Incoming | None:
    """None where there is no image in it at all: a signature, an artifact."""
    if not found.images and not found.absent:
        return None
    images = found.images
    if platform is not None:
        chosen = platforms.choose(platform, [(image.platform, image) for image in images])
        images = [] if chosen is None else [chosen]
    if not images:
        absent = f" for {platform}" if platform else ""
        raise ImageFormatError(f"the archive holds no image{absent} of {names[0] if names else descriptor.digest}")
    incoming = [_image(members, image) for image in images]
    if platform is not None:
        documents = {image.descriptor.digest: image.manifest_bytes for image in images}
        documents |= {image.id: image.config_bytes for image in images}
        return Incoming(names, incoming, images[0].descriptor, documents)
    layers = {layer.digest for image in images for layer in image.layers}
    others = [
        (blob, member)
        for digest, blob in found.blobs.items()
        if digest not in layers and (member := members.blob(digest)) is not None
    ]
    return Incoming(names, incoming, descriptor, found.documents, others)


def _image(members: Members, image: Image) -> IncomingImage:
    layers = []
    for descriptor, diff_id in zip(image.layers, image.diff_ids, strict=True):
        member = members.blob(descriptor.digest)
        if member is None:
            raise ImageFormatError(f"the layer {descriptor.digest} is missing from the archive")
        if member.size != descriptor.size:
            raise ImageFormatError(f"the layer {descriptor.digest} has {member.size} bytes, not {descriptor.size}")
        layers.append(IncomingLayer(member, diff_id, descriptor.digest, descriptor.media_type))
    return IncomingImage(image.config, image.config_bytes, layers, image.descriptor)
