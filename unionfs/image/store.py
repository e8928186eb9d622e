"""`Store`: the images of one user or machine, in a directory that is an OCI image layout.

    ROOT/oci-layout  index.json  blobs/sha256/…      the layout: skopeo, umoci and podman read it in place
    ROOT/.unionfs/                                   ours: locks, and what is on its way in
    the layer cache                                  layers unpacked and indexed (layer_cache.py); may be shared

A name stands in index.json as the annotation org.opencontainers.image.ref.name of a descriptor, in familiar form, so
that `skopeo copy oci:ROOT:busybox:latest …` finds what `ls` shows. A descriptor without it is a dangling image.

What changes the store stages its files first and publishes them together (`Staging`): a failure or a kill leaves
index.json as it was, or as it is to be, and nothing else that the next command would not sweep.

The operations are modules of their own; here they get their locks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from unionfs.errors import ImageError, ImageNotFound, OptionError
from unionfs.image import listing, platforms, reference
from unionfs.image.blobs import HeldBlobs
from unionfs.image.catalog import Catalog, Group
from unionfs.image.digest import Digest
from unionfs.image.filters import filter_of, named
from unionfs.image.image import Image
from unionfs.image.layer_cache import LayerCache, user_cache
from unionfs.image.layout import Layout, familiar
from unionfs.image.locks import Waiting
from unionfs.image.place import AnyPath as AnyPath
from unionfs.image.place import store_directory as store_directory
from unionfs.image.results import Fault, HistoryRow, ImageSummary, InUse, Loaded, Pruned, Removed, StoredLayer

# What adds, writes and removes images is imported where it is done: it needs all that reads and writes tars, and to
# list images takes a quarter of a second as it is.
if TYPE_CHECKING:
    from unionfs.image import removal, save
    from unionfs.image.lazy.notes import Note
    from unionfs.image.staging import Staging

#: Called now and then with the bytes taken in, or given out, so far.
Progress = Callable[[int], None]


class Store:
    """An image store. Safe to use from several processes and threads at once; holds no file open between calls.

    The directory is made by the first operation that adds something; an absent store is an empty one. ImageError where
    it is something else. `in_use`: see results.InUse. `cache`: where layers are made ready to be read.
    `fetch` brings layers that were not fetched when their image was pulled, where they are needed whole; without it
    that is an ImageError. `waiting` is called, by another thread, when a lock of the store is waited for.
    """

    def __init__(
        self,
        directory: AnyPath | None = None,
        *,
        cache: LayerCache | None = None,
        in_use: InUse = dict,
        fetch: Callable[[Store, Sequence[Note]], None] | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self.layout = Layout(store_directory(directory), waiting)
        self.cache = user_cache() if cache is None else cache
        self._in_use, self._fetch = in_use, fetch

    @property
    def directory(self) -> bytes:
        return self.layout.directory

    # what is there ------------------------------------------------------------------------------------------------
    def images(
        self,
        *,
        all: bool = True,
        filters: Iterable[str] = (),
        names: Iterable[str] = (),
        damaged: Callable[[str], None] | None = None,
    ) -> list[ImageSummary]:
        """All images, newest first. `all` False: tagged ones only. `filters`: "dangling=true", "label=KEY[=VALUE]",
        "before=IMAGE", "since=IMAGE", "until=TIME", "reference=PATTERN". `names`: only with a tag that fits one of
        these, as in `docker image ls REPOSITORY[:TAG]`. Of their names, those are told that fit. `damaged` is
        called with the name (or digest) of each that cannot be read, and is left out."""
        with self.catalog() as catalog:
            fits = filter_of(filters, lambda name: self._summary(catalog, name))
            among = named(list(names))
            fitting = map(fits, listing.summaries(catalog, self.cache))
            shown = [among(one) for one in fitting if one is not None]
            if damaged is not None:
                for entry in catalog.damaged():
                    damaged(entry.name or str(entry.descriptor.digest))
            return [one for one in shown if one is not None and (all or one.names)]

    def resolve(self, name: str, platform: str | None = None) -> Image:
        """The image called `name`: a reference, an ID or unique beginning of one, or a digest.

        `platform` ("os/arch[/variant]") chooses from an index; None is this machine's, or the first there is.
        ImageNotFound, or ImageError where a short ID is ambiguous.
        """
        with self.catalog() as catalog:
            return catalog.resolve(name, platform)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """All there is at this moment; nobody removes any of it while the block lasts, so let it wait for nobody."""
        with self.layout.reading():
            yield Catalog(self.layout, self.layout.entries())

    @contextmanager
    def using(self, name: str, platform: str | None = None) -> Iterator[Image]:
        """`resolve`, with all layers fetched and made ready in the cache. Nobody removes the image while the block
        lasts: by its end, whoever goes on using it must be seen by `in_use`."""
        self.complete([self.resolve(name, platform)])
        with self.catalog() as catalog:
            image = catalog.resolve(name, platform)
            for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
                if not self.cache.has(diff_id):
                    self.cache.add(catalog.layout.blobs.existing(layer.digest), diff_id)
            yield image

    # what was not fetched -------------------------------------------------------------------------------------------
    def layer_path(self, digest: Digest) -> bytes:
        """Where a layer's blob is, or will be if it was not fetched. ImageError where it is missing."""
        from unionfs.image.lazy.notes import note_of

        blobs = self.layout.blobs
        if blobs.size(digest) is None and note_of(self.layout, digest) is not None:
            return blobs.path(digest)
        return blobs.existing(digest)

    def not_fetched(self, images: Iterable[Image]) -> list[Note]:
        """The layers of images that were not fetched, each once."""
        from unionfs.image.lazy.notes import note_of

        digests = dict.fromkeys(layer.digest for image in images for layer in image.layers)
        return [note for digest in digests if (note := note_of(self.layout, digest)) is not None]

    def complete(self, images: Iterable[Image]) -> None:
        """Fetch what of these was not fetched. Not while blobs are read. ImageError where that cannot be done."""
        from unionfs.image.lazy.notes import not_fetched

        notes = self.not_fetched(images)
        if notes and self._fetch is None:
            raise not_fetched(notes[0].layer.digest, notes[0])
        if notes and self._fetch is not None:
            self._fetch(self, notes)

    def inspect(self, name: str, platform: str | None = None) -> dict[str, Any]:
        """As `docker image inspect` shows it."""
        with self.catalog() as catalog:
            image = catalog.resolve(name, platform)
            return listing.inspect(image, self._group(catalog, image), self.cache)

    def history(self, name: str, platform: str | None = None) -> list[HistoryRow]:
        """The steps that made the image, newest first."""
        with self.catalog() as catalog:
            return listing.history(catalog.resolve(name, platform), self.cache)

    # names --------------------------------------------------------------------------------------------------------
    def tag(self, name: str, new: str) -> Digest | None:
        """Give the image the further name `new`. Idempotent. The ID of the image that had it, which stays."""
        name_of_new = reference.new_name(new)
        with self.staging() as staging:
            staging.hold()
            catalog = Catalog(self.layout, self.layout.entries())
            entry, image = catalog.find(name)
            descriptor = entry.descriptor if image is None else image.descriptor
            return staging.publish({name_of_new: descriptor}).get(name_of_new)

    def untag(self, name: str, names: Sequence[str] = ()) -> list[Removed]:
        """Take `names` (none: all) from the image, which stays, as podman does it."""
        from unionfs.image import removal

        with self.catalog() as catalog:
            return removal.untag(self.layout, removal.names_to_take(catalog, name, [familiar(one) for one in names]))

    def remove(self, name: str, *, force: bool = False) -> list[Removed]:
        """As `docker rmi`: takes the name, and the image with its last one. ImageInUse where a mount uses it, or
        where it has several names and is named by ID, without `force`. Waits for whoever holds `Layout.reading`, unless
        only a name goes."""
        from unionfs.image import removal

        with self.catalog() as catalog:
            removed = removal.take_one_of_several(catalog, name)
        if removed is not None:
            return removed
        with self._removing() as removing:
            return removing.remove(name, force)

    # in and out ---------------------------------------------------------------------------------------------------
    def load(
        self, source: AnyPath | BinaryIO, *, platform: str | None = None, progress: Progress | None = None
    ) -> list[Loaded]:
        """Take in the images of a docker archive, an OCI archive or an OCI layout directory, told by its content, and
        compressed or not. ImageFormatError names what is wrong with it; the store is then as it was."""
        from unionfs.image import load as loading

        wanted = None if platform is None else platforms.parse(platform)
        with self.staging() as staging:
            return loading.load(staging, _source(source), wanted, progress)

    def save(
        self,
        names: Iterable[str],
        target: AnyPath | BinaryIO,
        *,
        format: save.Format = "docker-archive",
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write images to a file (atomically), a stream, or a new directory. A name without a tag is all tags of the
        repository. The same images give the same bytes."""
        from unionfs.image import save

        if format not in save.FORMATS:
            raise OptionError(f"unknown format {format!r}", hint=f"choose {', '.join(save.FORMATS)}")
        names = list(names)
        with self.catalog() as catalog:
            wanted = [image for one in save.select(catalog, names, platform) for image in one.images]
        self.complete(wanted)
        with self.catalog() as catalog:
            files = save.contents(save.select(catalog, names, platform), format, self.layout.blobs)
            held = HeldBlobs(self.layout.blobs, save.digests(files))
        with held:
            place = _source(target)
            if format == "oci-dir":
                if not isinstance(place, bytes):
                    raise OptionError("a directory cannot be written to a stream", hint="name a new directory")
                save.write_directory(files, held, place)
                return
            with save.archive_target(place) as out:
                save.write_archive(files, held, out, progress)

    def import_(
        self,
        source: AnyPath | BinaryIO,
        name: str | None = None,
        *,
        config: Callable[[StoredLayer], bytes] | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer, the tar of a root file system, compressed or not. `config` makes the image's
        configuration for that layer; None: one that says nothing but the layer and this machine's platform."""
        from unionfs.image.load import Counted

        names = () if name is None else (reference.new_name(name),)
        with self.staging() as staging, _opened(_source(source)) as stream:
            counted = Counted(stream, progress)
            layer = staging.add_layer(counted, what="the root file system")  # type: ignore[arg-type]  # read() is used
            descriptor = staging.add_image((config or plain_config)(layer), [layer.descriptor])
            staging.publish(dict.fromkeys(names, descriptor), untagged=() if names else (descriptor,))
        return self.resolve(descriptor.digest)

    def export(
        self,
        name: str,
        target: AnyPath | BinaryIO,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write the root file system of an image as one tar, its layers merged."""
        from unionfs.image import root_fs, save

        with ExitStack() as stack:
            with self.using(name, platform) as image:
                union = stack.enter_context(root_fs.opened(self.cache, image))
            out = stack.enter_context(save.archive_target(_source(target)))
            root_fs.export(union, out, progress)

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Make new images: add layers and images to the `Staging`, then `publish` it once; without, nothing happened.
        Nobody waits for the block, unless it begins with `staging.hold()`, so that nothing it counts on is removed.

        with store.staging() as staging:
            path = staging.new_file()                                                # write_layer(…, path)
            layer = staging.add_layer_file(path, written)                            # or add_layer(stream)
            image = staging.add_image(config_bytes, [*base.layers, layer.descriptor])
            staging.publish({"name:tag": image})
        """
        from unionfs.image import gc
        from unionfs.image.staging import Staging

        gc.sweep(self.layout)
        with self.layout.workspace() as space:
            staging = Staging(self.layout, space, self.cache)
            try:
                yield staging
            finally:
                staging.close()

    # upkeep -------------------------------------------------------------------------------------------------------
    def prune(self, *, all: bool = False, filters: Iterable[str] = ()) -> Pruned:
        """Remove dangling images (`all`: all that no mount uses), blobs that nothing refers to, what dead processes
        left, and layers unpacked for images that are gone. `filters` say of which images: "label=KEY[=VALUE]",
        "label!=KEY[=VALUE]", "until=TIME"."""
        from unionfs.image import prune as pruning

        with self._removing() as removing:
            return pruning.prune(removing, self.cache, filters, all=all)

    def verify(self, name: str | None = None) -> list[Fault]:
        """Recompute every digest, diff_id, size and count of the store, or of one image; list all that is wrong."""
        from unionfs.image import validate

        try:
            with self.catalog() as catalog:
                if name is not None:
                    return list(validate.verify(catalog, [catalog.find(name)[0]], everything=False))
                faults = list(validate.verify(catalog, catalog.entries, everything=True))
                return faults + list(validate.stray(self.layout.blobs.root))
        except ImageNotFound:
            raise
        except ImageError as error:
            return [Fault(os.fsdecode(self.directory), str(error))]

    # ----------------------------------------------------------------------------------------------------------------
    @contextmanager
    def _removing(self) -> Iterator[removal.Removal]:
        from unionfs.image import removal

        if not self.layout.exists():
            yield removal.Removal(self.layout, self.cache, {})
            return
        with self.layout.removing():
            yield removal.Removal(self.layout, self.cache, self._in_use())

    def _group(self, catalog: Catalog, image: Image) -> Group | None:
        return next((group for group in catalog.groups() if group.id == image.id), None)

    def _summary(self, catalog: Catalog, name: str) -> ImageSummary:
        image = catalog.resolve(name)
        group = self._group(catalog, image) or Group(image.id, image, ())
        return listing.summary(group, catalog, self.cache)


def _source(source: AnyPath | BinaryIO) -> bytes | BinaryIO:
    return os.fsencode(source) if isinstance(source, str | bytes | os.PathLike) else source


@contextmanager
def _opened(source: bytes | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(source, bytes):
        yield source
        return
    try:
        file = open(source, "rb", buffering=0)  # noqa: SIM115  # closed below
    except OSError as error:
        raise ImageError(f"{os.fsdecode(source)} cannot be read: {error.strerror}") from error
    with file:
        yield file


def plain_config(layer: StoredLayer) -> bytes:
    """The configuration of an image that was imported and of which nothing else is known."""
    here = platforms.host()
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    config = {
        "created": now,
        "architecture": here.architecture,
        "os": here.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]},
        "history": [{"created": now, "comment": "Imported from -"}],
    }
    return json.dumps(config, separators=(",", ":")).encode()
