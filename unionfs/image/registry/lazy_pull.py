"""Layers of which a pull brings the table of contents alone, where they have one that can be trusted.

What is trusted, and why not, is decided here: the manifest, which is known by its digest, must name the digest of the
TOC; the TOC must be that, be readable, and have a digest for every chunk; the registry must give parts of a blob. Where
one of these is not so, `lazily` says why, and the layer is fetched whole.

A layer says by a landmark (contents.PREFETCH) what of it is needed at once: that comes with the pull.
"""

from __future__ import annotations

from typing import Final

from unionfs.errors import TarError
from unionfs.image.digest import Digest
from unionfs.image.layout import Layout
from unionfs.image.lazy.contents import Unsuitable, toc_place
from unionfs.image.lazy.fetcher import Fetcher
from unionfs.image.lazy.lazy_cache import LazyCache
from unionfs.image.lazy.notes import Note, Origin, note_of
from unionfs.image.models import Descriptor
from unionfs.image.registry.client import Client
from unionfs.image.registry.download import NoParts
from unionfs.image.registry.parts import RegistryParts, fetch_contents

CONTRADICTED: Final = "another image says that it has another table of contents"


def lazily(
    client: Client, layout: Layout, cache: LazyCache, layer: Descriptor, diff_id: Digest, origin: Origin
) -> Note | str:
    """The note of a layer of which all is here that a mount needs to begin with; or why it has to be fetched whole.
    RegistryError where the registry does not give what it has promised. Idempotent."""
    place = toc_place(layer)
    if place is None:
        return "it has no table of contents that its manifest vouches for"
    if not all(path is None or _is_utf8(path) for path in (origin.cert_dir, origin.authfile)):
        return "the name of its auth file or certificates is no UTF-8"
    if diff_id.algorithm != "sha256":
        return "its diff_id is of another kind"
    known = note_of(layout, layer.digest)
    if known is not None and known.place.digest != place.digest:
        return CONTRADICTED
    if known is not None and known.diff_id == diff_id and cache.has(place):
        return known._replace(layer=layer, origin=origin)
    parts = RegistryParts(layer, origin, client)
    try:
        contents, end = fetch_contents(parts, layer, place, cache, diff_id)
        note = Note(layer, diff_id, place, end, origin)
        if contents.prefetch:
            _prefetch(note, cache, parts, contents.prefetch)
    except (Unsuitable, NoParts, TarError) as error:
        return str(error)
    return note


def _is_utf8(path: str) -> bool:
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def _prefetch(note: Note, cache: LazyCache, parts: RegistryParts, end: int) -> None:
    file, _ = cache.open(note.place, note.end, note.layer.size, note.diff_id)
    fetcher = Fetcher(file, note.place.kind, parts, str(note.layer.digest))
    try:
        fetcher.prefetch(end)
    finally:
        fetcher.close()
