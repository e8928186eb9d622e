"""`unionfs image diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .options import AsJson, ImageName, open_store
from .output import as_json, text


def diff(
    context: typer.Context,
    name: ImageName,
    other: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", help="Default: what is below the topmost layer.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """List what an image changes, as podman diff: what its topmost layer does, or all that differs from another image.

    A added, C changed, D deleted.
    """
    changes = api.diff_images(open_store(context), name, other)
    if json:
        from . import schemas

        as_json([schemas.Change.of(change) for change in changes])
        return
    for change in changes:
        text(change.text())
