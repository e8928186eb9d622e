"""`prune`: dangling images, and everything that nothing refers to."""

from __future__ import annotations

from collections.abc import Iterable

from unionfs.errors import ImageError, ImageFormatError
from unionfs.image import gc, listing
from unionfs.image.catalog import Catalog, no_such
from unionfs.image.filters import PRUNING, filter_of
from unionfs.image.layer_cache import LayerCache
from unionfs.image.removal import Removal
from unionfs.image.results import ImageSummary, Pruned, Removed


def prune(removing: Removal, cache: LayerCache, filters: Iterable[str], *, all: bool) -> Pruned:
    """See `Store.prune`."""
    layout = removing.layout
    catalog = Catalog(layout, layout.entries())
    fits = filter_of(filters, _no_image, PRUNING)
    _check_all(catalog)
    # Of one that has a name, too: another manifest of the same image, which has lost its own.
    groups = [group for group in catalog.groups() if fits(listing.summary(group, catalog, cache)) is not None]
    removed = removing.drop(groups, named=all)
    kept = Catalog(layout, layout.entries()).diff_ids()
    if layout.exists():
        gc.sweep_alone(layout)
        # As long as they are there, the cache can tell which layers they are.
        known = {digest: cache.known_as(layout.blobs.path(digest)) for digest in layout.blobs}
        gone, size = gc.remove_unreferred(layout)
        gc.remove_notes(layout, cache)
        removing.reclaimed += size
        removed += [Removed("deleted", str(digest)) for digest in gone]
        unpacked = {diff_id for digest in gone if (diff_id := known[digest]) is not None} | cache.unattached()
        cache.remove(*unpacked - kept - set(removing.uses))
    return Pruned(tuple(removed), removing.reclaimed)


def _check_all(catalog: Catalog) -> None:
    """ImageError where a document is damaged, before anything is removed: nobody can tell what it refers to."""
    try:
        for entry in catalog.entries:
            catalog.found(entry.descriptor)
    except ImageFormatError as error:
        raise ImageError(
            f"nothing is removed: {error}", hint="unionfs image verify lists what is damaged: load it again, or rm it"
        ) from error


def _no_image(name: str) -> ImageSummary:
    """These ask for none."""
    raise no_such(name)
