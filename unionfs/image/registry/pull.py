"""Pulling: what a name means at its registry, into a store.

A tag is looked up once; from then on all is by digest. Layers that the store has are not asked for. The others come
several at a time, each hashed, decompressed and indexed while it comes, so that the image can be mounted at once.
Of a multi-platform image one platform's comes, and the index says what else there is.

Nothing of it is seen before all of it is there (`Staging`). A lazy pull brings of a layer that has one only its table
of contents, and a note of where the rest is (image.lazy); a later pull that is not brings the rest.

INVARIANT: nobody waits for this network: the store is locked only when all has come, to see whether what was there
still is, and to publish. What others have removed meanwhile is then fetched, unlocked again. That comes to an end,
since what was fetched whole stays in the workspace, and after LAZY_ROUNDS nothing is left out any more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final, Literal, cast

from unionfs.errors import ImageError, ImageFormatError, ImageNotFound
from unionfs.image import mediatypes, platforms
from unionfs.image.blobs import CHUNK
from unionfs.image.digest import Digest
from unionfs.image.image import MAX_NESTING, Image, Reader, walk
from unionfs.image.layers import Count
from unionfs.image.lazy.notes import Note, Origin, note_of, write_note
from unionfs.image.lazy.opening import lazy_cache, settle
from unionfs.image.models import Descriptor, Index, Platform, parse_manifest
from unionfs.image.reference import DEFAULT_TAG, Reference
from unionfs.image.registry.client import Client
from unionfs.image.registry.lazy_pull import lazily
from unionfs.image.registry.repository import Repository
from unionfs.image.registry.transfer import Cancelled, Report, Transfer, all_of, one_at_a_time
from unionfs.image.staging import Staging
from unionfs.image.store import Store

#: How often a lazy pull begins anew with what others have removed.
LAZY_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Pulled:
    """`digest`: what the name means at the registry, a manifest or an index. `reference`: the name in full."""

    id: Digest
    digest: Digest
    reference: str
    familiar: str
    status: Literal["Downloaded newer image", "Image is up to date"]


#: A descriptor, and the platform that is told with it.
_Pair = tuple[Platform, Descriptor]
_UNTOLD: Final = Platform.model_validate({})
#: Documents from which on no more are fetched to learn a platform.
_LOOKED_AT: Final = 100


def pull(
    store: Store,
    client: Client,
    reference: Reference,
    platform: str | None = None,
    report: Report | None = None,
    *,
    unpack: bool = True,
    lazy: bool = False,
) -> Pulled:
    """Bring `reference` (canonical) into the store. `unpack` False leaves it to the first mount to unpack its layers.
    `lazy` leaves data to the moment it is read, of layers that can be fetched in parts.

    RegistryError, ImageFormatError, ImageNotFound for a platform that is not there; the store is then as it was.
    Idempotent."""
    tell = one_at_a_time(report)
    if reference.name_only:
        tell(Transfer("", f"Using default tag: {DEFAULT_TAG}"))
    reference = reference.with_default_tag()
    wanted = None if platform is None else platforms.parse(platform)
    puller = _Puller(store, Repository(client, reference, "pull"), wanted, tell, unpack, lazy)
    return puller.run()


def fetch_layers(store: Store, client: Client, reference: Reference, notes: Sequence[Note], report: Report) -> None:
    """Bring layers of a repository that were not fetched. RegistryError, ImageFormatError, ImageError where their image
    was removed meanwhile: nothing is changed then."""
    puller = _Puller(store, Repository(client, reference, "pull"), None, one_at_a_time(report), unpack=True)
    layout, layers = store.layout, [note.layer for note in notes]
    with store.staging() as staging:
        puller.fetch(staging, {note.layer.digest: (note.layer, note.diff_id) for note in notes})
        staging.hold()
        # A layer that an image needs is there, or noted.
        if any(layout.blobs.size(layer.digest) is None and note_of(layout, layer.digest) is None for layer in layers):
            raise ImageError(f"{reference.familiar()} was removed from the store while its layers were fetched")
        staging.publish({})
        settle(layout, store.cache, layers)


class _Puller:
    def __init__(
        self,
        store: Store,
        repository: Repository,
        wanted: platforms.Wanted | None,
        report: Report,
        unpack: bool,
        lazy: bool = False,
    ) -> None:
        self._store, self._repository, self._wanted = store, repository, wanted
        self._report, self._unpack, self._lazy = report, unpack, lazy
        self._reference = repository.reference
        #: What was fetched to see whether it belongs to the image, and what does.
        self._looked_at: dict[Digest, bytes] = {}
        self._documents: dict[Digest, bytes] = {}
        self._notes: dict[Digest, Note] = {}  # of layers that are not to be fetched

    def run(self) -> Pulled:
        reference = self._reference
        root, data = self._repository.resolve(reference.digest or cast(str, reference.tag))
        shown = str(reference) if reference.digest else reference.tag
        self._report(Transfer(cast(str, shown), f"Pulling from {reference.path}"))
        with self._store.staging() as staging:
            if data is not None:
                self._documents[root.digest] = data
            manifest = self._choose(staging, root, 0)
            image = self._image(staging, manifest)
            fetched = self._layers(staging, image)  # holds the lock from now on
            before = {entry.name: entry.descriptor.digest for entry in staging.layout.entries()}
            name = None if reference.digest else reference.familiar()
            there = before.get(name) == root.digest if name else root.digest in before.values()
            if fetched or not there:
                for digest, document in self._documents.items():
                    staging.space.add_as(digest, document)
                if name is None:
                    staging.publish({}, untagged=[root])
                else:
                    staging.publish({name: root})
            settle(self._store.layout, self._store.cache, image.layers)
        status: Literal["Downloaded newer image", "Image is up to date"]
        status = "Downloaded newer image" if fetched or not there else "Image is up to date"
        return Pulled(image.id, root.digest, str(reference), reference.familiar(), status)

    # documents ------------------------------------------------------------------------------------------------------
    def _document(self, staging: Staging, descriptor: Descriptor) -> bytes:
        """A manifest or index: of the store, or the registry's."""
        if descriptor.digest not in self._documents:
            self._documents[descriptor.digest] = self._seen(staging, descriptor, self._repository.manifest)
        return self._documents[descriptor.digest]

    def _seen(self, staging: Staging, descriptor: Descriptor, fetch: Callable[[Descriptor], bytes]) -> bytes:
        """Which need not belong to the image."""
        if descriptor.digest not in self._looked_at:
            self._looked_at[descriptor.digest] = self._held(staging, descriptor) or fetch(descriptor)
        return self._looked_at[descriptor.digest]

    def _held(self, staging: Staging, descriptor: Descriptor) -> bytes | None:
        """None where the store has not got it whole."""
        blobs = staging.layout.blobs
        if blobs.size(descriptor.digest) != descriptor.size:
            return None
        try:
            return blobs.read(descriptor.digest, descriptor.size, descriptor.size)
        except ImageError:
            return None

    def _choose(self, staging: Staging, descriptor: Descriptor, depth: int) -> Descriptor:
        """The manifest for the platform."""
        index = self._index(self._document(staging, descriptor), descriptor, depth)
        if index is None:
            return descriptor
        wanted = self._wanted or platforms.host()
        pairs = [(child.platform or _UNTOLD, child) for child in index.manifests]
        chosen = platforms.choose(wanted, pairs)
        if chosen is None and len(pairs) == 1 and not pairs[0][0].os:
            chosen = pairs[0][1]  # an index of one that does not say what for
        if chosen is None:
            pairs = self._looked_up(staging, pairs, depth)
            chosen = platforms.choose(wanted, pairs)
        if chosen is None:
            # What runs nowhere ("unknown/unknown") is attestations.
            there = sorted({str(platform) for platform, _ in pairs} - {"", "unknown/unknown"})
            raise ImageNotFound(
                f"no matching manifest for {wanted} in the manifest list entries of {self._reference.familiar()}",
                hint=f"there is {', '.join(there)}: choose with --platform" if there else None,
            )
        return self._choose(staging, chosen, depth + 1)

    def _index(self, data: bytes, descriptor: Descriptor, depth: int) -> Index | None:
        """None for a manifest."""
        if depth > MAX_NESTING:
            raise ImageFormatError(f"indexes are nested more than {MAX_NESTING} deep, at {descriptor.digest}")
        document = parse_manifest(data, f"the manifest {descriptor.digest}", descriptor.media_type)
        return document if isinstance(document, Index) else None

    def _looked_up(self, staging: Staging, pairs: Sequence[_Pair], depth: int) -> list[_Pair]:
        """The same with what is below indexes, and in the configs of manifests, of which no platform is told."""
        found: list[_Pair] = []
        for told, child in pairs:
            untold = not told.os and child.media_type in (*mediatypes.INDEXES, *mediatypes.MANIFESTS)
            if not untold or len(self._looked_at) > _LOOKED_AT:
                found.append((told, child))
                continue
            index = self._index(self._seen(staging, child, self._repository.manifest), child, depth + 1)
            if index is None:
                found += [
                    (image.platform, child) for image in walk(child, self._reader(staging, self._looked_at)).images
                ]
            else:
                below = [(one.platform or _UNTOLD, one) for one in index.manifests]
                found += [(platform, child) for platform, _ in self._looked_up(staging, below, depth + 1)]
        return found

    def _reader(self, staging: Staging, documents: dict[Digest, bytes]) -> Reader:
        """Of a manifest in `documents` and its config, which comes into them."""

        def read(one: Descriptor, limit: int) -> bytes:
            if one.digest not in documents:
                documents[one.digest] = self._seen(staging, one, lambda one: self._repository.document(one, limit))
            return documents[one.digest]

        return read

    def _image(self, staging: Staging, descriptor: Descriptor) -> Image:
        """The image of a manifest, its config fetched."""
        found = walk(descriptor, self._reader(staging, self._documents))
        if not found.images:
            raise ImageError(
                f"{self._reference.familiar()} is no image of a root file system",
                hint="it is an artifact of another kind",
            )
        image = found.images[0]
        if self._wanted is not None and image.platform.os and platforms.rank(self._wanted, image.platform) is None:
            raise ImageNotFound(
                f"image with reference {self._reference.familiar()} was found but its platform ({image.platform}) does "
                f"not match the specified platform ({self._wanted})"
            )
        return image

    # layers ---------------------------------------------------------------------------------------------------------
    def _layers(self, staging: Staging, image: Image) -> int:
        """Fetch what is missing; how many layers that was. At the end all is there, and `staging` holds its lock."""
        wanted: dict[Digest, tuple[Descriptor, Digest]] = {}
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
            wanted.setdefault(layer.digest, (layer, diff_id))
        fetched, lazily, unsettled = 0, LAZY_ROUNDS if self._lazy else 0, wanted
        while True:
            missing: dict[Digest, tuple[Descriptor, Digest]] = {}
            for layer, diff_id in unsettled.values():
                if staging.space.has(layer.digest, layer.size):
                    self._report(Transfer(layer.digest.short, "Already exists"))
                elif not (lazily and self._note(staging, layer, diff_id)):
                    missing[layer.digest] = layer, diff_id
                    self._report(Transfer(layer.digest.short, "Pulling fs layer", 0, layer.size))
            self.fetch(staging, missing)
            fetched, lazily = fetched + len(missing), max(lazily - 1, 0)
            staging.hold()
            unsettled = {digest: pair for digest, pair in wanted.items() if not self._settled(staging, pair[0])}
            if not unsettled:
                return fetched
            staging.let_go()

    def _settled(self, staging: Staging, layer: Descriptor) -> bool:
        """Is it there, or noted, so that an image of it may be published? Hold the lock."""
        if staging.space.has(layer.digest, layer.size):
            return True
        note = self._notes.get(layer.digest)
        if note is None or not lazy_cache(self._store.cache).has(note.place):
            return False
        return note_of(staging.layout, layer.digest) == note or write_note(staging.layout, note)

    def fetch(self, staging: Staging, missing: Mapping[Digest, tuple[Descriptor, Digest]]) -> None:
        """Layers with their diff_ids, whole."""
        several = len(missing) > 1
        tasks = [partial(self._layer, staging, layer, diff_id, several) for layer, diff_id in missing.values()]
        all_of(self._repository.client, tasks)

    def _note(self, staging: Staging, layer: Descriptor, diff_id: Digest) -> bool:
        """Leave the data of a layer where it is, if that can be done."""
        options, id = self._repository.client.options, layer.digest.short
        known = note_of(staging.layout, layer.digest)
        origin = Origin(
            str(self._reference), options.insecure, _absolute(options.cert_dir), _absolute(options.authfile)
        )
        self._notes.pop(layer.digest, None)
        cache = lazy_cache(self._store.cache)
        found = lazily(self._repository.client, staging.layout, cache, layer, diff_id, origin)
        if isinstance(found, str):
            self._report(Transfer(id, f"Not in parts: {found}"))
            return False
        self._notes[layer.digest] = found
        self._report(Transfer(id, "Already exists" if known is not None else "Ready to be read"))
        return True

    def _layer(self, staging: Staging, layer: Descriptor, diff_id: Digest, several: bool) -> None:
        what = f"the layer {layer.digest}"
        id = layer.digest.short
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._report(Transfer(id, "Downloading", done, layer.size))

        if not self._unpack:
            staging.space.adopt(self._compared(staging, layer, what, count, several), layer.digest)
        else:
            try:
                with self._repository.download(layer) as stream:
                    self._add(staging, cast(BinaryIO, stream), layer, diff_id, count)
            except ImageFormatError:
                # Damaged on its way, or there, or no layer: now its bytes are compared before they are looked at.
                done = 0
                with open(self._compared(staging, layer, what, count, several), "rb", buffering=0) as file:
                    self._add(staging, file, layer, diff_id, None)
        self._report(Transfer(id, "Pull complete", layer.size, layer.size))

    def _add(self, staging: Staging, stream: BinaryIO, layer: Descriptor, diff_id: Digest, count: Count | None) -> None:
        what = f"the layer {layer.digest}"
        staging.add_layer(stream, diff_id=diff_id, digest=layer.digest, what=what, count=count)

    def _compared(self, staging: Staging, layer: Descriptor, what: str, count: Count, several: bool) -> bytes:
        """The path of a layer's bytes. Asked for as often as a request."""
        retry, failed = self._repository.client.options.retry, 0
        while True:
            writer = staging.space.writer(layer.digest.algorithm, hash_aside=not several)
            with self._repository.download(layer) as stream, writer:
                while data := stream.read(CHUNK):
                    writer.write(data)
                    count(len(data))
                size, found = writer.size, writer.finish()
            if found == layer.digest and size == layer.size:
                return writer.path
            failed += 1
            if not retry.wait(failed, None, self._repository.client.cancelled):
                if self._repository.client.cancelled.is_set():
                    raise Cancelled(f"{what}: cancelled")
                raise ImageFormatError(
                    f"{what} came damaged: its digest is {found}",
                    hint="the registry, or something before it, is at fault",
                )


def _absolute(path: str | None) -> str | None:
    """A note outlives the directory that a command was run in."""
    return None if path is None else os.path.abspath(path)
