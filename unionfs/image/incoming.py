"""What an archive or layout holds, before any of it is believed: the common form of both formats.

Incoming         one name or image of an archive: documents, images, and where their layers' bytes are
IncomingLayer    a layer that is to be taken in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unionfs.image.digest import Digest
from unionfs.image.members import Member
from unionfs.image.models import Descriptor, ImageConfig


@dataclass(frozen=True, slots=True)
class IncomingLayer:
    """`digest`: what the bytes must be as they are, where somebody said so. `media_type`: "" where nobody did."""

    member: Member
    diff_id: Digest
    digest: Digest | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class IncomingImage:
    """An image of one platform. `manifest` None: there is none, so it is to be made from config and layers."""

    config: ImageConfig
    config_bytes: bytes
    layers: Sequence[IncomingLayer]
    manifest: Descriptor | None = None

    @property
    def id(self) -> Digest:
        return Digest.of(self.config_bytes)


@dataclass(frozen=True, slots=True)
class Incoming:
    """`names` familiar. `descriptor`: of the manifest or index that the names mean, None where it is to be made, of the
    one image. `documents`: all indexes, manifests and configs below it. `others`: blobs of what is no image."""

    names: Sequence[str]
    images: Sequence[IncomingImage]
    descriptor: Descriptor | None = None
    documents: dict[Digest, bytes] = field(default_factory=dict)
    others: Sequence[tuple[Descriptor, Member]] = ()
