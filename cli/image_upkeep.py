"""`unionfs image prune`, `verify` and `changes`: what lies in a store, needed or not, whole or not."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unionfs import api

from . import human
from .options import AsJson, open_store
from .output import as_json, note, text

DANGLING = "WARNING! This will remove all dangling images."
UNUSED = "WARNING! This will remove all images that no mount uses."


def prune(
    context: typer.Context,
    all: Annotated[
        bool, typer.Option("-a", "--all", help="All images that no mount uses, not only those without a name.")
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="FILTER", help="label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME. Repeat it."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Do not ask.")] = False,
) -> None:
    """Remove images that have no name, and files that nothing needs."""
    store = open_store(context)
    if not force and not _confirmed(UNUSED if all else DANGLING):
        return
    pruned = api.prune_images(store, filters or (), all=all)
    if pruned.removed:
        text("Deleted Images:")
        for gone in pruned.removed:
            text(f"{gone.kind}: {gone.what}")
        text("")
    text(f"Total reclaimed space: {human.size(pruned.reclaimed, 4)}")


def _confirmed(warning: str) -> bool:
    sys.stdout.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin is not None and sys.stdin.readline().strip().lower() == "y"


def verify(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="Default: the whole store.", show_default=False)
    ] = None,
    json: AsJson = False,
) -> int:
    """Recompute every digest of an image or of the store, and list what is wrong. The exit status is then 1.

    Layers that a lazy pull has left out are listed too, and nothing wrong.
    """
    store = open_store(context)
    faults = store.verify(name)
    if json:
        from . import schemas

        as_json([schemas.Fault.of(fault) for fault in faults])
    else:
        for fault in faults:
            text(str(fault))
    whole = all(fault.absent for fault in faults)
    if not whole:
        blobs = os.fsdecode(os.path.join(store.directory, b"blobs"))
        note(f"hint: remove the damaged files in {blobs}, and load or pull their images again")
    return 0 if whole else 1


def changes(
    context: typer.Context,
    remove: Annotated[
        list[str] | None,
        typer.Option("--rm", metavar="NAME", help="Remove what is kept under this name. Repeat it."),
    ] = None,
    json: AsJson = False,
) -> None:
    """List what mounts of images (mount --image) keep of their changes: name, image, where it is mounted.

    Names come from the mountpoint, or from mount's --name.
    """
    store = open_store(context)
    if remove:
        for name in remove:
            api.remove_changes(store, name)
        return
    kept = api.kept_changes(store)
    if json:
        from . import schemas

        as_json([schemas.Kept.of(one) for one in kept])
        return
    for one in kept:
        mounted = "-" if one.mountpoint is None else os.fsdecode(one.mountpoint)
        text(f"{one.name}\t{one.image}\t{mounted}")
