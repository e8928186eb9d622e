"""What `ls`, `inspect` and `history` tell of images, in docker's shapes (moby api/types/image, daemon/images).

A layer's size is that of its tar, uncompressed, as docker counts it. It is known of what was loaded, made or mounted
here; of what another tool has put into the layout and nobody has mounted yet, the size of the blob stands in for it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from unionfs.image.catalog import Catalog, Group, repository
from unionfs.image.image import Image
from unionfs.image.layer_cache import LayerCache
from unionfs.image.models import timestamp
from unionfs.image.results import HistoryRow, ImageSummary

_OLDEST = datetime.min.replace(tzinfo=UTC)


def summaries(catalog: Catalog, cache: LayerCache) -> list[ImageSummary]:
    """All images, newest first; of equally old ones the later in index.json first."""
    found = [summary(group, catalog, cache) for group in reversed(catalog.groups())]
    return sorted(found, key=lambda one: one.created or _OLDEST, reverse=True)


def summary(group: Group, catalog: Catalog, cache: LayerCache) -> ImageSummary:
    image = group.image
    images = [one for entry in group.entries for one in catalog.found(entry.descriptor).images]
    blobs = {layer.digest: layer.size for one in images for layer in (*one.layers, one.manifest.config)}
    return ImageSummary(
        group.id,
        group.names,
        group.digests,
        timestamp(image.config.created),
        sum(layer_sizes(image, cache)),
        sum(size for digest, size in blobs.items() if catalog.layout.blobs.size(digest) is not None),
        tuple(dict.fromkeys(str(one.platform) for one in images)),
        image.config.config.labels,
    )


def layer_sizes(image: Image, cache: LayerCache) -> list[int]:
    """Bytes of each layer's tar, base first, as far as they are known."""
    pairs = zip(image.layers, image.diff_ids, strict=True)
    return [layer.size if layer.digest == diff_id else cache.size(diff_id) or layer.size for layer, diff_id in pairs]


def history(image: Image, cache: LayerCache) -> list[HistoryRow]:
    """Newest first. Layers that the config's history does not tell of stand below, as docker shows them."""
    sizes = layer_sizes(image, cache)
    rows: list[HistoryRow] = []
    steps = image.config.history
    told = sum(not step.empty_layer for step in steps)
    rows += [HistoryRow(None, None, "", size, "", False) for size in sizes[: len(sizes) - told]]
    left = iter(sizes[len(sizes) - told :])
    for step in steps:
        size = 0 if step.empty_layer else next(left)
        rows.append(HistoryRow(None, timestamp(step.created), step.created_by, size, step.comment, step.empty_layer))
    if not rows:
        return [HistoryRow(image.id, timestamp(image.config.created), "", 0, "", True)]
    top = rows.pop()
    rows.append(HistoryRow(image.id, top.created, top.created_by, top.size, top.comment, top.empty_layer))
    return rows[::-1]


def inspect(image: Image, group: Group | None, cache: LayerCache) -> dict[str, Any]:
    """As `docker image inspect`. What the config has and docker does not show is left out."""
    names = group.names if group is not None else image.names
    digests = group.digests if group is not None else (image.descriptor.digest,)
    config = image.config
    shown: dict[str, Any] = {
        "Id": str(image.id),
        "RepoTags": list(names),
        "RepoDigests": sorted({f"{repository(name)}@{digest}" for name in names for digest in digests}),
        "Parent": "",
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "Created": config.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": json.loads(image.config_bytes).get("config"),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": sum(layer_sizes(image, cache)),
        "RootFS": {"Type": config.rootfs.type, "Layers": [str(diff_id) for diff_id in image.diff_ids]},
        "Descriptor": image.descriptor.bare(),
    }
    if config.variant:
        shown["Variant"] = config.variant
    if config.os_version:
        shown["OsVersion"] = config.os_version
    return shown
