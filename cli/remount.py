"""`unionfs remount`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from unionfs import api

from .options import AsJson
from .output import as_json, note, text


def remount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", show_default=False)],
    json: AsJson = False,
) -> None:
    """Notice what has changed in the layers of a live mount. What is open stays open.

    Through fusepy the kernel cannot be told, and goes on for a while with names that it knows.
    """
    result = api.remount(mountpoint)
    if json:
        from . import schemas

        as_json(schemas.Remount.of(result))
        return
    text(
        f"{os.fsdecode(result.mountpoint)}: {result.gone} names gone or replaced, {result.come} new, "
        f"{result.inodes} inodes read again"
    )
    if result.dropped is None:
        note("hint: the kernel may still show what it knew; unmount and mount again to be certain")
