"""`unionfs image tag`, `untag` and `rm`: what images are called, and when they are called nothing any more."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .options import ImageName, ImageNames, open_store
from .output import failure, text


def tag(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE[:TAG]", help="An image.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET[:TAG]", help="Its further name.", show_default=False)],
) -> None:
    """Give an image a further name. Another image that had it keeps its other names, or none."""
    open_store(context).tag(source, target)


def untag(
    context: typer.Context,
    name: ImageName,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME[:TAG]", help="Default: all.", show_default=False)
    ] = None,
) -> None:
    """Take names from an image, which stays, as podman does. To remove it with its last name there is rm."""
    open_store(context).untag(name, names or ())


def rm(
    context: typer.Context,
    names: ImageNames,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Even if a mount uses it, or it has several names and is named by ID.")
    ] = False,
) -> int:
    """Remove names, and images with their last one. Says what went, as docker does."""
    store = open_store(context)
    status = 0
    for name in names:
        try:
            removed = store.remove(name, force=force)
        except api.ImageNotFound as e:
            failure(e)
            status = status if force else 1
        except api.ImageError as e:
            failure(e)
            status = 1
        else:
            for gone in removed:
                text(gone.text)
    return status
