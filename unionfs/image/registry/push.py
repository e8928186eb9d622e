"""Pushing: an image of a store to a registry, blobs first, what names them after, the tag last.

What the registry has is not sent: it is asked for each blob, and where another repository of it is known to have one
(by the names in the store), that is mounted from there. An index of which the store has one platform only cannot be
pushed; that platform's image then is, as docker does.

INVARIANT: nobody waits for this network: what may have to be sent is opened while the store is locked, and read after
that. What is removed from the store meanwhile arrives all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from unionfs.errors import ImageError, ReferenceFormatError
from unionfs.image import reference as references
from unionfs.image.blobs import HeldBlobs
from unionfs.image.catalog import Catalog
from unionfs.image.digest import Digest
from unionfs.image.image import Found
from unionfs.image.models import Descriptor, Index, Manifest, parse_manifest
from unionfs.image.reference import DEFAULT_TAG, Reference
from unionfs.image.registry.client import Client
from unionfs.image.registry.repository import Repository
from unionfs.image.registry.transfer import Report, Transfer, all_of, one_at_a_time
from unionfs.image.registry.upload import Upload
from unionfs.image.store import Store


@dataclass(frozen=True, slots=True)
class Pushed:
    """`digest` and `size` (bytes) of the manifest or index that the tag now means. `partial`: it is one platform of the
    index `partial`, of which the store has no more."""

    digest: Digest
    size: int
    reference: str
    tag: str
    partial: Digest | None = None


def push(
    store: Store, client: Client, reference: Reference, platform: str | None = None, report: Report | None = None
) -> Pushed:
    """Give the image with the name `reference` (canonical, no digest alone) to its registry. Idempotent. What was sent
    before a failure stays there, and is not sent again; the tag changes last."""
    tell = one_at_a_time(report)
    if reference.name_only:
        tell(Transfer("", f"Using default tag: {DEFAULT_TAG}"))
    tell(Transfer("", f"The push refers to repository [{reference.name}]"))
    reference = reference.with_default_tag()
    repository = Repository(client, reference, "push")
    with store.catalog() as catalog:
        entry, image = catalog.find(reference.familiar())
        whole = entry.descriptor
        root = whole
        if platform is not None or image is not None:
            root = catalog.resolve(reference.familiar(), platform).descriptor
        found = catalog.found(root)
        if found.absent:
            if len(found.images) != 1:
                raise ImageError(
                    f"of the index {root.digest} of {reference.familiar()} some platforms are here, and some are not",
                    hint="push one of them with --platform: " + ", ".join(str(one.platform) for one in found.images),
                )
            root = found.images[0].descriptor
            found = catalog.found(root)
        pusher = _Pusher(catalog, repository, found, tell)
    tag = reference.tag or root.digest
    with pusher.blobs:
        pusher.run(root, tag)
    partial_of = whole.digest if platform is None and root.digest != whole.digest else None
    return Pushed(root.digest, root.size, str(reference), tag, partial_of)


class _Pusher:
    """Made while the store is read; `run` does not need it. `blobs` are to be closed."""

    def __init__(self, catalog: Catalog, repository: Repository, found: Found, report: Report) -> None:
        self._repository, self._found, self._report = repository, found, report
        self._configs = {image.manifest.config.digest: image.manifest.config for image in found.images}
        self._others = _elsewhere(catalog, repository.reference, {*found.blobs, *self._configs})
        self.blobs = HeldBlobs(catalog.layout.blobs, (*found.blobs, *self._configs))

    def run(self, root: Descriptor, tag: str) -> None:
        manifests = self._manifests(root)
        for digest in self._found.blobs:
            self._report(Transfer(digest.short, "Preparing"))
        blobs = {**self._found.blobs, **self._configs}
        tasks = [
            partial(self._blob, blob, self._others.get(digest, ()), digest in self._configs)
            for digest, blob in blobs.items()
        ]
        all_of(self._repository.client, tasks)
        # Children before what names them: a registry refuses what names nothing.
        for descriptor in manifests:
            if descriptor.digest != root.digest and not self._repository.has_manifest(descriptor.digest):
                self._put(descriptor, descriptor.digest)
        self._put(root, tag)

    def _put(self, descriptor: Descriptor, tag: str) -> None:
        data = self._found.documents[descriptor.digest]
        self._repository.put_manifest(data, self._parsed(descriptor).media_type or descriptor.media_type, tag)

    def _parsed(self, descriptor: Descriptor) -> Index | Manifest:
        data = self._found.documents[descriptor.digest]
        return parse_manifest(data, f"the manifest {descriptor.digest}", descriptor.media_type)

    def _manifests(self, root: Descriptor) -> list[Descriptor]:
        """Those below `root`, and it, children first, each once."""
        document = self._parsed(root)
        children = document.manifests if isinstance(document, Index) else []
        listed = [one for child in children if child.digest in self._found.documents for one in self._manifests(child)]
        return list({one.digest: one for one in (*listed, root)}.values())

    def _blob(self, blob: Descriptor, others: tuple[str, ...], quiet: bool) -> None:
        id = blob.digest.short

        def tell(status: str, done: int = 0) -> None:
            if not quiet:
                self._report(Transfer(id, status, done, blob.size))

        if self._repository.has_blob(blob.digest):
            tell("Layer already exists")
            return
        upload = Upload(self._repository, blob.digest, blob.size, others=others)
        mounted, place = upload.mount()
        if mounted:
            tell(f"Mounted from {mounted}")
            return
        with self.blobs.open(blob.digest) as file:
            upload.send(file, place, partial(tell, "Pushing"))
        tell("Pushed", blob.size)


def _elsewhere(catalog: Catalog, mine: Reference, digests: set[Digest]) -> Mapping[Digest, tuple[str, ...]]:
    """Other repositories of this registry that have a blob, as far as names in the store say."""
    found: dict[Digest, tuple[str, ...]] = {}
    for entry in catalog.entries:
        try:
            other = references.parse_normalized(entry.name or "")
            below = catalog.found(entry.descriptor)
        except (ReferenceFormatError, ImageError):
            continue
        if other.domain != mine.domain or other.path == mine.path:
            continue
        for digest in digests & {*below.digests}:
            found[digest] = tuple(dict.fromkeys((*found.get(digest, ()), other.path)))
    return found
