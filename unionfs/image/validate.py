"""`verify`: everything recomputed. Every blob is hashed, every layer unpacked and hashed again, every size and count
compared, and all that is wrong listed; nothing is changed, and nothing is believed because it was right once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from unionfs.changeset.tar_indexer import TarIndexer
from unionfs.changeset.tar_reader import TarReader
from unionfs.errors import ImageError, TarError
from unionfs.image.blobs import CHUNK, Blobs
from unionfs.image.catalog import Catalog
from unionfs.image.digest import Digest, Verifier
from unionfs.image.image import Image
from unionfs.image.layout import Entry, Layout
from unionfs.image.lazy.notes import note_of
from unionfs.image.models import Descriptor
from unionfs.image.results import Fault


def verify(catalog: Catalog, entries: Iterable[Entry], *, everything: bool) -> Iterator[Fault]:
    """The faults of these entries; `everything`: of all other blobs, too. Hold `Layout.reading`."""
    blobs = catalog.layout.blobs
    seen: set[Digest] = set()
    told = ""
    for descriptor in {entry.descriptor.digest: entry.descriptor for entry in entries}.values():
        try:
            found = catalog.found(descriptor)
        except ImageError as error:
            yield Fault(str(descriptor.digest), str(error))
            told += str(error)
            continue
        if descriptor.digest not in found.digests:
            yield Fault(str(descriptor.digest), "it is missing, and index.json names it")
        seen |= set(found.documents)
        for image in found.images:
            yield from _image(catalog.layout, image, seen)
        for blob in found.blobs.values():
            if blob.digest not in seen:
                seen.add(blob.digest)
                yield from _blob(blobs, blob.digest, blob.size)
    for digest in sorted(set(blobs) - seen) if everything else ():
        if digest not in told:
            yield from _blob(blobs, digest, None)


def _image(layout: Layout, image: Image, seen: set[Digest]) -> Iterator[Fault]:
    steps = sum(not step.empty_layer for step in image.config.history)
    if image.config.history and steps != len(image.diff_ids):
        yield Fault(str(image.id), f"its history tells of {steps} layers, and it has {len(image.diff_ids)}")
    for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
        if layer.digest not in seen:
            seen.add(layer.digest)
            note = note_of(layout, layer.digest)
            if note is not None:
                message = f"not fetched yet: its data comes from {note.origin.name} when it is read"
                yield Fault(str(layer.digest), message, absent=True)
            else:
                yield from _layer(layout.blobs, layer, diff_id)


def _layer(blobs: Blobs, layer: Descriptor, diff_id: Digest) -> Iterator[Fault]:
    """A layer, read once: its own digest, and that of the tar in it."""
    size = blobs.size(layer.digest)
    if size is None:
        yield Fault(str(layer.digest), "the layer is missing")
        return
    if size != layer.size:
        yield Fault(str(layer.digest), f"the layer has {size} bytes, not {layer.size}")
        return
    with blobs.open(layer.digest) as file:
        try:
            reader, indexer = TarReader(file, marked=False), TarIndexer()
            for entry in reader:
                indexer.add(entry)
        except TarError as error:
            yield Fault(str(layer.digest), f"the layer cannot be read: {error}")
            return
    if layer.digest.algorithm != "sha256":
        yield from _blob(blobs, layer.digest, None)
    elif reader.digest != layer.digest:
        yield Fault(str(layer.digest), f"the layer is damaged: its digest is {reader.digest}")
    elif reader.diff_id != diff_id:
        yield Fault(str(layer.digest), f"the layer's diff_id is {reader.diff_id}, the config says {diff_id}")


def _blob(blobs: Blobs, digest: Digest, size: int | None) -> Iterator[Fault]:
    if blobs.size(digest) is None:
        yield Fault(str(digest), "the blob is missing")
        return
    verifier = Verifier(digest.algorithm)
    with blobs.open(digest) as file:
        while data := file.read(CHUNK):
            verifier.feed(data)
    try:
        verifier.check("the blob", digest, size)
    except ImageError as error:
        yield Fault(str(digest), str(error))


def stray(root: bytes) -> Iterator[Fault]:
    """Files in `blobs` that no digest could be the name of."""
    for directory, _, names in os.walk(root):
        algorithm = os.path.relpath(directory, root)
        for name in names:
            text = os.fsdecode(algorithm) + ":" + os.fsdecode(name)
            try:
                Digest(text)
            except ImageError:
                yield Fault(os.fsdecode(os.path.join(directory, name)), "it is no blob")
