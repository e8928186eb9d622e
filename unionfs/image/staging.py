"""`Staging`: new layers and images on their way into a store, which see the light all together or not at all.

What is added lies in a workspace of the layout. `publish` gives the blobs their names and then replaces index.json,
once; before that nothing of it can be seen, and after a failure or a kill nothing of it is left.

Until `publish` others may remove what they like, of blobs and of what is unpacked; nobody waits for what is on its way.
What new images count on in the store is looked for again then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

from unionfs.changeset.tar_writer import WrittenLayer
from unionfs.errors import ImageError, ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.blobs import Workspace
from unionfs.image.catalog import Catalog
from unionfs.image.digest import Digest
from unionfs.image.image import check
from unionfs.image.layer_cache import LayerCache
from unionfs.image.layers import Count, descriptor_of, take_layer
from unionfs.image.layout import Entry, Layout
from unionfs.image.models import MAX_CONFIG, MAX_MANIFEST, Descriptor, ImageConfig, Manifest, encode_json
from unionfs.image.place import REF_NAME
from unionfs.image.results import StoredLayer


class Staging:
    """Made by `Store.staging`; good until its block ends. `add_layer` may be called by several threads at once; all
    else by one, while none does."""

    def __init__(self, layout: Layout, space: Workspace, cache: LayerCache) -> None:
        self.layout, self.space, self.cache = layout, space, cache
        self._layers: dict[Digest, Digest] = {}  # diff_ids of what was added, by digest
        self._read: dict[Digest, StoredLayer] = {}  # of these what the cache was told of, by diff_id
        self._unpacked: set[Digest] = set()  # diff_ids that were brought into the cache
        self._counted_on: dict[Digest, int] = {}  # layers that images consist of, with their sizes
        self._lock = ExitStack()
        self._held = False

    def hold(self) -> None:
        """From now on nobody removes a blob, and who wants to waits: until the block ends, or `let_go`. Idempotent."""
        if not self._held:
            self.space.flush()  # which takes its time, and needs no lock
            self._hold()

    def _hold(self) -> None:
        if not self._held:
            self._lock.enter_context(self.layout.reading())
            self._held = True

    def let_go(self) -> None:
        """Idempotent. What was published before stays so."""
        self._lock.close()
        self._held = False

    def new_file(self) -> bytes:
        """A path that does not exist yet, where a file may be written that `add_layer_file` then takes."""
        return self.space.new_file()

    def add_layer(
        self,
        stream: BinaryIO,
        *,
        diff_id: Digest | None = None,
        digest: Digest | None = None,
        what: str = "the layer",
        count: Count | None = None,
        path: bytes | None = None,
    ) -> StoredLayer:
        """A layer tar, compressed or not, kept as it is; read once, and ready to be mounted. See `take_layer`."""
        known = diff_id is not None and self.cache.has(diff_id)
        layer = take_layer(stream, self.space, self.cache, what, diff_id=diff_id, digest=digest, count=count, path=path)
        if not known:
            self._unpacked.add(layer.diff_id)
        self._layers[layer.descriptor.digest] = layer.diff_id
        self._read[layer.diff_id] = layer
        return layer

    def add_layer_file(self, path: bytes, written: WrittenLayer) -> StoredLayer:
        """A layer that `write_layer` has just written to a `new_file`; it is not read again."""
        digest = Digest(written.digest)
        self.space.adopt(path, digest)
        descriptor = descriptor_of(written.media_type, digest, written.size)
        layer = StoredLayer(descriptor, Digest(written.diff_id), written.uncompressed_size)
        self._layers[layer.descriptor.digest] = layer.diff_id
        return layer

    def add_document(self, data: bytes, media_type: str) -> Descriptor:
        """Bytes that are a config, manifest or index already."""
        return descriptor_of(media_type, self.space.add(data), len(data))

    def add_image(
        self,
        config: bytes,
        layers: Sequence[Descriptor],
        *,
        docker: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """An image with this config (whose digest is its ID) of layers that are in the store or were added here.

        Returns the descriptor of its manifest: OCI's, or docker's schema 2, which has no annotations. The same
        arguments give the same bytes. ImageFormatError where the config's diff_ids or history do not fit the layers.
        """
        parsed = ImageConfig.parse(config, "the new config", MAX_CONFIG)
        for layer in layers:
            if not self.space.has(layer.digest, layer.size):
                raise ImageError(f"the layer {layer.digest} is not in the store")
            self._counted_on[layer.digest] = layer.size
        kind = mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST
        config_type = mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": _reference(config_type, self.space.add(config), len(config)),
            "layers": [_reference(_layer_type(layer, docker), layer.digest, layer.size) for layer in layers],
        }
        if annotations and not docker:
            document["annotations"] = dict(sorted(annotations.items()))
        data = encode_json(document)
        check(Manifest.parse(data, "the new manifest"), parsed)
        if len(data) > MAX_MANIFEST:
            raise ImageFormatError(f"a manifest of {len(data)} bytes: others refuse it")
        return self.add_document(data, kind)

    def publish(self, names: Mapping[str, Descriptor], *, untagged: Sequence[Descriptor] = ()) -> dict[str, Digest]:
        """Make everything that was added visible, at once. Only once.

        `names` (familiar) go to these images; the result tells, by name, the ID of the other image that had it. An
        image that loses its last name stays, dangling. `untagged`: images to be there without a name. `hold` is part of
        it. ImageError where a layer of an image that was made here has been removed since.
        """
        self.hold()
        for digest in self.lost(self._counted_on):
            raise ImageError(f"the layer {digest} was removed from the store meanwhile", hint="try again")
        self._unpack_again()
        self.space.publish()
        taken: dict[str, Digest] = {}

        def change(entries: list[Entry]) -> list[dict[str, Any]]:
            taken.update(_taken(Catalog(self.layout, entries), entries, names))
            return renamed(entries, names, untagged)

        self.layout.update(change)
        self._unpacked.clear()
        self.space.close()  # first, as a file is another to the cache when one of its names goes (st_ctime)
        for digest, diff_id in self._layers.items():
            self.cache.note(diff_id, self.layout.blobs.path(digest))
        return taken

    def lost(self, sizes: Mapping[Digest, int]) -> list[Digest]:
        """Which of these blobs, with their sizes, are neither in the store nor added here. Sure after `hold`."""
        return [digest for digest, size in sizes.items() if not self.space.has(digest, size)]

    def _unpack_again(self) -> None:
        """What somebody has removed from the cache meanwhile, for whom no image had it."""
        for diff_id, layer in self._read.items():
            path = self.space.find(layer.descriptor.digest)
            if path is not None and self.cache.size(diff_id) is None:
                with open(path, "rb", buffering=0) as file:
                    self.cache.add_held(file, diff_id)

    def close(self) -> None:
        """What was not published is forgotten by the cache, too, but for layers that an image has already."""
        try:
            if self._unpacked:
                self._hold()
                self.cache.remove(*self._unpacked - Catalog(self.layout, self.layout.entries()).diff_ids())
        except ImageError:
            pass  # a damaged store, which has been the failure
        finally:
            self.let_go()


def _taken(catalog: Catalog, entries: Sequence[Entry], names: Mapping[str, Descriptor]) -> dict[str, Digest]:
    """The IDs of other images that have the names now."""
    taken = {}
    for entry in entries:
        new = names.get(entry.name) if entry.name is not None else None
        if entry.name is not None and new is not None and new.digest != entry.descriptor.digest:
            before, after = catalog.id_of(entry.descriptor), catalog.id_of(new)
            if before != after:
                taken[entry.name] = before
    return taken


def renamed(
    entries: Sequence[Entry], names: Mapping[str, Descriptor], untagged: Sequence[Descriptor] = ()
) -> list[dict[str, Any]]:
    """The descriptors of index.json after `names` have gone to these images."""
    kept = [entry for entry in entries if entry.name is None or entry.name not in names]
    lost = [entry for entry in entries if entry.name in names]
    there = {entry.descriptor.digest for entry in kept if entry.name is not None}
    there |= {descriptor.digest for descriptor in names.values()}
    # What has a name needs no entry without one.
    result = [dict(entry.raw) for entry in kept if entry.name is not None or entry.descriptor.digest not in there]
    there |= {entry.descriptor.digest for entry in kept}
    for entry in lost:
        if entry.descriptor.digest not in there:
            there.add(entry.descriptor.digest)
            result.append(entry.renamed(None))
    for descriptor in untagged:
        if descriptor.digest not in there:
            there.add(descriptor.digest)
            result.append(_entry(descriptor, None))
    return result + [_entry(descriptor, name) for name, descriptor in names.items()]


def without(entries: Sequence[Entry], gone: Sequence[Entry], keep: bool = False) -> list[dict[str, Any]]:
    """The descriptors of index.json after `gone` have left it; with `keep`, what loses its last name stays without."""
    left = [entry for entry in entries if not any(entry.raw == one.raw for one in gone)]
    result = [dict(entry.raw) for entry in left]
    there = {entry.descriptor.digest for entry in left}
    for entry in gone if keep else ():
        if entry.descriptor.digest not in there:
            there.add(entry.descriptor.digest)
            result.append(entry.renamed(None))
    return result


def _entry(descriptor: Descriptor, name: str | None) -> dict[str, Any]:
    return descriptor.bare() | ({"annotations": {REF_NAME: name}} if name is not None else {})


def _reference(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _layer_type(layer: Descriptor, docker: bool) -> str:
    """The media type of a layer's bytes in a manifest of either kind."""
    compression = mediatypes.LAYERS.get(layer.media_type)
    if compression is None:
        raise ImageFormatError(f"{layer.media_type!r} is not the media type of a layer")
    if not docker:
        return mediatypes.oci_layer(compression)
    if compression == "zstd":
        raise ImageError("docker's manifests have no zstd layers", hint="use the OCI format")
    return mediatypes.DOCKER_LAYER + (".gzip" if compression == "gzip" else "")
