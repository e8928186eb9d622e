"""The media types of images: OCI's and docker's (image-spec media-types.md; distribution, manifest v2 schema 2).

One table; everything else asks it. A layer's compression is told from its bytes where there are any; what the media
type says counts for writing only.
"""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES: Final = frozenset((OCI_INDEX, DOCKER_LIST))
MANIFESTS: Final = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
#: What docker wrote until 1.10 (distribution, manifest v2 schema 1): no image of this kind is read.
SCHEMA_1: Final = frozenset(f"application/vnd.docker.distribution.manifest.v1+{kind}" for kind in ("json", "prettyjws"))
CONFIGS: Final = frozenset((OCI_CONFIG, DOCKER_CONFIG))

#: The layer types whose bytes are a layer tar, with the compression they say.
LAYERS: Final[dict[str, str]] = {
    OCI_LAYER: "none",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    # Until image-spec 1.1: layers that may not be passed on. The bytes are the same.
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "none",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def oci_layer(compression: str) -> str:
    """The type of a layer compressed by "none", "gzip" or "zstd". OCI has none for others: KeyError."""
    return OCI_LAYER + {"none": "", "gzip": "+gzip", "zstd": "+zstd"}[compression]
