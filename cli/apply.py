"""`unionfs apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .output import progress


def apply(
    file: Annotated[str, typer.Argument(metavar="FILE.tar[.gz|.zst]", help="A layer tar.", show_default=False)],
    directory: Annotated[str, typer.Argument(metavar="DIRECTORY", help="The tree to change.", show_default=False)],
) -> None:
    """Apply a layer tar to a directory: whiteouts delete, the rest is added or replaced.

    Nothing outside of DIRECTORY is touched, whatever the tar says.
    """
    with progress("apply") as report:
        api.apply(file, directory, progress=report)
