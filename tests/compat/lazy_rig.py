"""Images that are pulled lazily, in a registry of the test's own, behind a proxy that counts."""

from __future__ import annotations

from pathlib import Path

from tests.compat.faulty_proxy import FaultyProxy
from tests.compat.image_peers import skopeo
from tests.compat.registry_rig import RegistryServer
from tests.unit.lazy_rig import LazyLayer, lazy_image


def serve_layers(registry: RegistryServer, directory: Path, *layers: LazyLayer, name: str = "a/b:1") -> None:
    """Put an image of these layers into the registry, the bytes as they are."""
    _, archive = lazy_image(f"x/{name}", *layers)
    path = directory / "lazy.tar"
    path.write_bytes(archive)
    skopeo(
        "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci-archive:{path}:x/{name}",
        f"docker://{registry.host}/{name}",
    )  # fmt: skip


def blob_bytes(proxy: FaultyProxy) -> int:
    """Bytes of blobs that were asked for, by their ranges."""
    total = 0
    for request in proxy.requests:
        told = request.headers.get("Range", "")
        if request.is_blob and told:
            first, _, last = told.removeprefix("bytes=").partition("-")
            total += int(last) - int(first) + 1
    return total
