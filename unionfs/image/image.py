"""`Image`: one image of one platform, as an immutable view of blobs in a store."""

from __future__ import annotations

from dataclasses import dataclass

from unionfs.image.digest import Digest
from unionfs.image.models import Descriptor, ImageConfig, Manifest


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
        return list(self.config.rootfs.diff_ids)
