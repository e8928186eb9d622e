"""Taking names away, and images with their last one: `rmi` with moby's rules (daemon/images/image_delete.go).

    by name       the name goes; the image too, if that was its last (else `take_one_of_several`)
    by ID         the image goes with its name; with names in several repositories, or several tags, by force only
    in use        an image that a live mount shows keeps its layers: by name and force only the name goes

What goes is told in docker's order: names, then images, each with its layers, the topmost first.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from unionfs.errors import ImageError, ImageFormatError, ImageInUse, ImageNotFound
from unionfs.image import gc
from unionfs.image.catalog import Catalog, Group, repository
from unionfs.image.digest import Digest
from unionfs.image.image import Image
from unionfs.image.layer_cache import LayerCache
from unionfs.image.layout import Entry, Layout
from unionfs.image.results import Removed, Use
from unionfs.image.staging import without


class Removal:
    """One removal. Hold `Layout.removing`: nobody begins to use an image meanwhile."""

    def __init__(self, layout: Layout, cache: LayerCache, uses: Mapping[str, Use]) -> None:
        self.layout, self._cache, self.uses = layout, cache, uses
        self.reclaimed = 0

    def remove(self, name: str, force: bool) -> list[Removed]:
        """See `Store.remove`."""
        catalog = Catalog(self.layout, self.layout.entries())
        taken = take_one_of_several(catalog, name)  # it may have got another one while this was waited for
        if taken is not None:
            return taken
        named = catalog.named(name)
        entry, image = (named, None) if named else catalog.find(name)
        if image is not None and catalog.is_part(entry, image):
            whole = entry.name or str(entry.descriptor.digest)
            raise ImageInUse(
                f"conflict: unable to delete {image.id.short} (cannot be forced) - it is one of the images of {whole}",
                hint=f"all of them go with: unionfs image rm {whole}",
            )
        group = _group_of(catalog, entry)
        if group is None:
            return self._drop(catalog, [_Drop([entry], None)])
        user = self._user(_Held(catalog), group)
        if named is not None and named.name is not None:
            if user is not None:
                if not force:
                    raise ImageInUse(
                        f'conflict: unable to remove repository reference "{name}" (must force) - {user.who} is using '
                        f"its referenced image {group.id.short}",
                        hint=f"{user.first}; with force the name goes and the image stays",
                    )
                return untag(self.layout, group.entries)
        elif user is not None:
            raise ImageInUse(
                f"conflict: unable to delete {group.id.short} (cannot be forced) - image is being used by {user.who}",
                hint=user.first,
            )
        elif not force and len(group.names) > 1:
            several = len({repository(name) for name in group.names}) > 1
            raise ImageInUse(
                f"conflict: unable to delete {group.id.short} (must be forced) - image is referenced in "
                + ("multiple repositories" if several else "several tags"),
                hint="remove it by its names, or use force",
            )
        return self._drop(catalog, [_Drop(group.entries, group)])

    def drop(self, groups: Iterable[Group], *, named: bool) -> list[Removed]:
        """Remove images, but those in use: whole ones, or without `named` only what of them has no name."""
        catalog = Catalog(self.layout, self.layout.entries())
        held = _Held(catalog)
        drops: list[_Drop] = []
        for group in groups:
            entries = [entry for entry in group.entries if named or entry.name is None]
            if entries and self._user(held, group) is None:
                drop = _Drop(entries, group if len(entries) == len(group.entries) else None)
                held.let_go(drop.entries)
                drops.append(drop)
        return self._drop(catalog, drops)

    # ------------------------------------------------------------------------------------------------------------------
    def _user(self, held: _Held, group: Group) -> Use | None:
        """Who uses the image, or a layer that no other image has."""
        if not self.uses:
            return None
        return next((self.uses[digest] for digest in held.only_by(group) if digest in self.uses), None)

    def _drop(self, catalog: Catalog, drops: Sequence[_Drop]) -> list[Removed]:
        """Take entries out of index.json, and what they alone led to.

        First what was unpacked of them, which can be made anew; last the blobs, which `prune` finds after a crash."""
        if not drops:
            return []
        held = _Held(catalog)
        removed: list[Removed] = []
        unpacked: set[Digest] = set()
        for drop in drops:
            held.let_go(drop.entries)
            images = {image.id: image for entry in drop.entries for image in held.images(entry)}
            unpacked.update(digest for image in images.values() for digest in image.diff_ids)
            removed += _told(drop, images.values(), held)
        self._cache.remove(*(digest for digest in unpacked if not held.layers[digest]))
        entries = [entry for drop in drops for entry in drop.entries]
        candidates = {digest for entry in entries for digest in _digests(catalog, entry)}
        self.layout.update(lambda now: without(now, entries))
        # The images are gone. Where another one is damaged, nobody can tell what it needs: `prune` has the files later.
        with contextlib.suppress(ImageFormatError):
            self.reclaimed += gc.remove_unreferred(self.layout, candidates)[1]
            gc.remove_notes(self.layout, self._cache)
        return removed


class _Drop(NamedTuple):
    """Entries to be taken away, and the image that goes with them, if one does."""

    entries: Sequence[Entry]
    group: Group | None


class _Held:
    """How many entries lead to an image or chain of layers (`ids`), and to a layer (`layers`)."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.ids: Counter[str] = Counter()
        self.layers: Counter[str] = Counter()
        for entry in catalog.entries:
            self._count(entry, 1)

    def images(self, entry: Entry) -> Sequence[Image]:
        """None of what is damaged."""
        try:
            return self._catalog.found(entry.descriptor).images
        except ImageError:
            return ()

    def let_go(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._count(entry, -1)

    def only_by(self, group: Group) -> list[Digest]:
        """The IDs and layers of an image that only the manifests and indexes of `group` lead to."""
        mine = {entry.descriptor.digest for entry in group.entries}
        entries = [entry for entry in self._catalog.entries if entry.descriptor.digest in mine]
        own = Counter(digest for entry in entries for digest in self._layers(entry))
        images = {image.id: image for entry in group.entries for image in self.images(entry)}
        digests = (digest for image in images.values() for digest in (image.id, *image.diff_ids))
        return [digest for digest in digests if self.layers[digest] <= own[digest]]

    def _count(self, entry: Entry, by: int) -> None:
        for digest in {digest for image in self.images(entry) for digest in (image.id, *image.chain_ids)}:
            self.ids[digest] += by
        for digest in self._layers(entry):
            self.layers[digest] += by

    def _layers(self, entry: Entry) -> set[Digest]:
        return {digest for image in self.images(entry) for digest in image.diff_ids}


def _told(drop: _Drop, images: Iterable[Image], held: _Held) -> list[Removed]:
    """What a removal is told as, after `held` has let go of its entries."""
    removed = untagged(drop.entries)
    told: set[Digest] = set()
    lost = [image for image in images if not held.ids[image.id]]
    for image in lost:
        removed.append(Removed("deleted", str(image.id)))
        for chain_id in reversed(image.chain_ids):
            if not held.ids[chain_id] and chain_id not in told:
                told.add(chain_id)
                removed.append(Removed("deleted", str(chain_id)))
    if drop.group is None and not lost and not any(entry.name for entry in drop.entries):
        removed += [Removed("deleted", str(entry.descriptor.digest)) for entry in drop.entries]
    return removed


def take_one_of_several(catalog: Catalog, name: str) -> list[Removed] | None:
    """Remove a name whose image has others. None where that is not so, and more is to be done."""
    entry = catalog.named(name)
    group = None if entry is None or entry.name is None else _group_of(catalog, entry)
    if entry is None or group is None or len(group.names) < 2:
        return None
    # All entries of that name: another tool may have left a second one.
    return untag(catalog.layout, [one for one in group.entries if one.name == entry.name])


def untagged(entries: Iterable[Entry]) -> list[Removed]:
    names = dict.fromkeys(entry.name for entry in entries if entry.name is not None)
    return [Removed("untagged", name) for name in names]


def _group_of(catalog: Catalog, entry: Entry) -> Group | None:
    """None for what is no image, or damaged."""
    id = catalog.id_of(entry.descriptor)
    return next((group for group in catalog.groups() if group.id == id), None)


def _digests(catalog: Catalog, entry: Entry) -> set[Digest]:
    try:
        below = catalog.found(entry.descriptor).digests
    except ImageError:
        below = set()
    return {entry.descriptor.digest, *below}


def names_to_take(catalog: Catalog, name: str, names: Sequence[str]) -> list[Entry]:
    """The entries that `untag NAME [NAMES]` takes from the image. ImageNotFound for a name that it does not have."""
    entry, _ = catalog.find(name)
    group = _group_of(catalog, entry)
    mine = [one for one in (group.entries if group is not None else [entry]) if one.name is not None]
    for wanted in names:
        if wanted not in {one.name for one in mine}:
            there = ", ".join(group.names) if group is not None else ""
            raise ImageNotFound(f"{name} has no tag {wanted}", hint=f"it has {there or 'none'}")
    return [one for one in mine if not names or one.name in names]


def untag(layout: Layout, entries: Sequence[Entry]) -> list[Removed]:
    """Take these names; what loses its last one stays, dangling."""
    if entries:
        layout.update(lambda now: without(now, entries, keep=True))
    return untagged(entries)
