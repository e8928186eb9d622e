"""`unionfs convert`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from unionfs import api

from .options import AsJson, Layers, Work
from .output import as_json, text


def convert(
    directory: Annotated[str, typer.Argument(metavar="(UPPER | LAYER)", help="A directory.", show_default=False)],
    to: Annotated[
        Literal["kernel", "xattr", "aufs", "fuse-overlayfs"],
        typer.Option("--to", help="How whiteouts and opaque directories shall be stored.", show_default=False),
    ],
    xattrs: Annotated[
        Literal["trusted", "user"] | None,
        typer.Option("--xattrs", help="Namespace of the union's own attributes. Default: as they are."),
    ] = None,
    layers: Layers = None,
    work: Work = None,
    json: AsJson = False,
) -> None:
    """Change the encoding of whiteouts in place: character devices, attributes, AUFS/OCI .wh. files.

    What the encoding cannot hold is named, and then nothing is changed. With the layers below (-l), metacopies get
    their data first, where the encoding has none.
    """
    result = api.convert(directory, to, xattrs=xattrs, layers=layers or (), work=work)
    if json:
        from . import schemas

        as_json(schemas.Convert.of(result))
    else:
        text(f"{result.encoding}, {result.xattrs}: {result.steps} changes")
