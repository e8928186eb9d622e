"""docker's image archives: `manifest.json` in a tar (moby image/tarexport), of every generation.

    read     docker < 25    <v1id>/{layer.tar,json,VERSION}, repeated layers as symbolic links, <config>.json
             podman/skopeo  <diffid>.tar, <v1id>/layer.tar as a symbolic link to it, <config>.json
             docker >= 25   blobs/sha256/…, with index.json and oci-layout beside manifest.json
    write    the last one, which dockers of any age since 1.10, podman and skopeo load

`manifest.json` is `[{"Config": path, "RepoTags": [name, …] | null, "Layers": [path, …]}, …]`, base layer first. Layers
may be compressed, each for itself. Paths within the archive may lead through links of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Final

from unionfs.errors import ImageFormatError, ReferenceFormatError
from unionfs.image.digest import Digest
from unionfs.image.image import check_history
from unionfs.image.incoming import Incoming, IncomingImage, IncomingLayer
from unionfs.image.members import Members, checked_name, shown
from unionfs.image.models import MAX_CONFIG, MAX_MANIFEST, ArchiveEntry, ImageConfig, parse_json
from unionfs.image.reference import new_name

MANIFEST: Final = "manifest.json"

_hash_name = re.compile(
    r"(?:blobs/(?P<algorithm>sha256|sha384|sha512)/)?(?P<hex>[0-9a-f]{64,128})(?:\.json)?"
).fullmatch


def entries(members: Members) -> list[ArchiveEntry] | None:
    """`manifest.json`, or None where there is none."""
    member = members.find(MANIFEST)
    if member is None:
        return None
    value = parse_json(member.read(MAX_MANIFEST), MANIFEST)
    if not isinstance(value, list):
        raise ImageFormatError(
            f"{MANIFEST} is not a list of images", hint="what `skopeo copy … dir:` writes is another format: use oci:"
        )
    return [ArchiveEntry.of(item, f"{MANIFEST}, image {at}") for at, item in enumerate(value)]


def read(members: Members) -> list[Incoming]:
    """The images of an archive, in order. ImageFormatError where they are not as `manifest.json` says."""
    found = entries(members)
    if found is None:
        raise ImageFormatError(
            f"invalid archive: does not contain a {MANIFEST}",
            hint="a tar of a root file system is imported, not loaded",
        )
    return [Incoming(_names(entry), [_image(members, entry)]) for entry in found]


def _image(members: Members, entry: ArchiveEntry) -> IncomingImage:
    data = members.get(entry.config).read(MAX_CONFIG)
    digest = Digest.of(data)
    _check_name(entry.config, digest)
    what = f"the config {shown(entry.config)}"
    config = ImageConfig.parse(data, what, MAX_CONFIG)
    diff_ids = config.rootfs.diff_ids
    if len(entry.layers) != len(diff_ids):
        raise ImageFormatError(
            f"the image {digest} has {len(entry.layers)} layers in {MANIFEST}, but {len(diff_ids)} diff_ids"
        )
    check_history(config, f"the image {digest}")
    return IncomingImage(config, data, [_layer(members, *pair) for pair in zip(entry.layers, diff_ids, strict=True)])


def _names(entry: ArchiveEntry) -> list[str]:
    """In familiar form. Such an archive holds names of docker's kind alone, as its `load` sees to as well."""
    try:
        return [new_name(name) for name in entry.repo_tags]
    except ReferenceFormatError as error:
        raise ImageFormatError(
            f"{MANIFEST} has a name that is none: {error}: {shown(', '.join(entry.repo_tags))}"
        ) from error


def _layer(members: Members, path: str, diff_id: Digest) -> IncomingLayer:
    named = _hash_name(checked_name(path))
    digest = Digest(f"{named['algorithm']}:{named['hex']}") if named and named["algorithm"] else None
    return IncomingLayer(members.get(path), diff_id, digest)


def _check_name(path: str, digest: Digest) -> None:
    """A config is called by its own digest; one that is not was changed, or damaged."""
    named = _hash_name(posixpath.normpath(path))
    if named and len(named["hex"]) == 64 and named["hex"] != digest.hex:
        raise ImageFormatError(f"the config {shown(path)} is damaged: its digest is {digest}")


def repo_tags(found: Sequence[ArchiveEntry], members: Members) -> dict[Digest, list[str]]:
    """The names by image ID, for an archive whose index.json has none."""
    tags: dict[Digest, list[str]] = {}
    for entry in found:
        if entry.repo_tags:
            config = members.get(entry.config).read(MAX_CONFIG)
            tags.setdefault(Digest.of(config), []).extend(_names(entry))
    return tags
