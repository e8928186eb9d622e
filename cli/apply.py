"""`unionfs apply`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from unionfs import api

from .options import AsJson
from .output import as_json, note, progress


def apply(
    file: Annotated[str, typer.Argument(metavar="FILE.tar[.gz|.zst]", help="A layer tar.", show_default=False)],
    directory: Annotated[str, typer.Argument(metavar="DIRECTORY", help="The tree to change.", show_default=False)],
    no_owner: Annotated[
        bool, typer.Option("--no-owner", help="As root too: leave owners and privileged attributes out.")
    ] = False,
    skip_devices: Annotated[
        bool, typer.Option("--skip-devices", help="Leave out devices that may not be made, instead of failing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Apply a layer tar to a directory: whiteouts delete, the rest is added or replaced.

    Nothing outside of DIRECTORY is touched, whatever the tar says.
    """
    with progress("apply", _size(file)) as report:
        result = api.apply(
            file, directory, owner=False if no_owner else None, skip_devices=skip_devices, progress=report
        )
    for line in result.skipped:
        note(f"left out: {line}")
    if json:
        from . import schemas

        as_json(schemas.Apply.of(result))


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size
    except OSError:
        return None
