"""`Image`: one image of one platform, as an immutable view; and `walk`, which finds those below a descriptor.

`walk` is the same over a store and over an archive of unknown origin: it asks for bytes by descriptor, compares them
with digest and size, and follows indexes to a bounded depth. A digest cannot lead to itself, so a cycle is a document
that is not what its digest says, and is reported as that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from unionfs.errors import ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.digest import Digest, Verifier, chain_ids
from unionfs.image.models import MAX_CONFIG, MAX_MANIFEST, Descriptor, ImageConfig, Index, Manifest, Platform
from unionfs.image.models import parse_manifest as _parse_manifest

MAX_NESTING: Final = 8
MAX_MANIFESTS: Final = 4096

#: The bytes that a descriptor names, or None where they are not there. Refuses what is larger than the second
#: argument; whether they are the right bytes is for the caller to see.
Reader = Callable[[Descriptor, int], bytes | None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    `descriptor`: of its manifest, whose bytes are `manifest_bytes`; `config_bytes`: the config's, whose digest is the
    image's ID. `names`: its tags in the store, in familiar form.
    """

    descriptor: Descriptor
    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig
    config_bytes: bytes
    names: tuple[str, ...] = ()

    @property
    def id(self) -> Digest:
        return self.manifest.config.digest

    @property
    def layers(self) -> list[Descriptor]:
        """The blobs of its layers, base first."""
        return list(self.manifest.layers)

    @property
    def diff_ids(self) -> list[Digest]:
        """The digests of its layers uncompressed, base first."""
        return list(self.config.rootfs.diff_ids)

    @property
    def steps(self) -> list[str]:
        """What its history says of each layer's making (`created_by`), base first; "" of those that it does not tell
        of, which are the lowest, as docker shows them."""
        told = [step.created_by for step in self.config.history if not step.empty_layer]
        return [""] * (len(self.manifest.layers) - len(told)) + told

    @property
    def chain_ids(self) -> list[Digest]:
        return chain_ids(self.config.rootfs.diff_ids)

    @property
    def platform(self) -> Platform:
        return self.config.platform

    def named(self, names: tuple[str, ...]) -> Image:
        return replace(self, names=names)


@dataclass(slots=True)
class Found:
    """What is below one descriptor.

    `documents`: the bytes of every index, manifest and config, by digest. `blobs`: all else that manifests name, by
    digest. `images`: in order. `absent`: descriptors whose manifest is not there, as of other platforms.
    """

    documents: dict[Digest, bytes] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    absent: list[Descriptor] = field(default_factory=list)

    @property
    def digests(self) -> set[Digest]:
        return {*self.documents, *self.blobs}


def walk(descriptor: Descriptor, read: Reader) -> Found:
    """Everything below `descriptor`. ImageFormatError, naming the blob, for a document that is damaged, malformed or
    contradicts another."""
    found = Found()
    _walk(descriptor, read, found, 0)
    return found


def _walk(descriptor: Descriptor, read: Reader, found: Found, depth: int) -> None:
    if depth > MAX_NESTING:
        raise ImageFormatError(f"indexes are nested more than {MAX_NESTING} deep, at {descriptor.digest}")
    if descriptor.digest in found.documents:
        return
    if descriptor.media_type not in (*mediatypes.INDEXES, *mediatypes.MANIFESTS, ""):
        # An artifact of some other kind: bytes to be kept, which nobody here reads.
        found.blobs.setdefault(descriptor.digest, descriptor)
        return
    data = _document(descriptor, read, MAX_MANIFEST, found)
    if data is None:
        found.absent.append(descriptor)
        return
    if len(found.documents) > MAX_MANIFESTS:
        raise ImageFormatError(f"an index of more than {MAX_MANIFESTS} manifests")
    document = _parse_manifest(data, f"the manifest {descriptor.digest}", descriptor.media_type)
    if isinstance(document, Index):
        for child in document.manifests:
            _walk(child, read, found, depth + 1)
        return
    found.blobs |= {layer.digest: layer for layer in document.layers}
    if not _is_image(document):
        found.blobs[document.config.digest] = document.config
        return
    config = _document(document.config, read, MAX_CONFIG, found)
    if config is None:
        raise ImageFormatError(f"the config {document.config.digest} is missing")
    parsed = ImageConfig.parse(config, f"the config {document.config.digest}", MAX_CONFIG)
    check(document, parsed)
    found.images.append(Image(descriptor, document, data, parsed, config))


def _document(descriptor: Descriptor, read: Reader, limit: int, found: Found) -> bytes | None:
    """Read, compared, and noted."""
    data = found.documents.get(descriptor.digest)
    if data is None:
        what = f"the blob {descriptor.digest}"
        if descriptor.size > limit:
            raise ImageFormatError(f"{what} has {descriptor.size} bytes; more than {limit} are refused")
        data = read(descriptor, limit)
        if data is None:
            return None
        verifier = Verifier(descriptor.digest.algorithm)
        verifier.feed(data)
        verifier.check(what, descriptor.digest, descriptor.size)
        found.documents[descriptor.digest] = data
    return data


def _is_image(manifest: Manifest) -> bool:
    """Not so: attestations, signatures, and whatever else is stored as an image manifest nowadays."""
    return (
        manifest.config.media_type in mediatypes.CONFIGS
        and not manifest.artifact_type
        and all(layer.media_type in mediatypes.LAYERS for layer in manifest.layers)
    )


def check(manifest: Manifest, config: ImageConfig) -> None:
    """ImageFormatError where manifest and config are not of one image: their counts of layers differ."""
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    what = f"the image {manifest.config.digest}"
    if layers != diff_ids:
        raise ImageFormatError(f"{what} has {layers} layers, but {diff_ids} diff_ids")
    check_history(config, what)


def check_history(config: ImageConfig, what: str) -> None:
    """As moby's image store: no more steps with a layer than layers. Fewer are met with, and harmless."""
    steps = sum(not step.empty_layer for step in config.history)
    if steps > len(config.rootfs.diff_ids):
        raise ImageFormatError(f"{what} has {len(config.rootfs.diff_ids)} layers, but {steps} in its history")
