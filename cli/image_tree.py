"""`unionfs image import` and `export`: the root file system of an image as one tar."""

from __future__ import annotations

import os
from typing import Annotated, BinaryIO

import typer

from unionfs import api

from .image_archive import from_stdin, to_stdout
from .options import Changes, ImageName, Message, PlatformOption, open_store, source_date_epoch
from .output import progress, text


def import_(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A tar, compressed or not; - is standard input.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME[:TAG]", help="What to call it.", show_default=False)
    ] = None,
    changes: Changes = None,
    message: Message = None,
    platform: PlatformOption = None,
) -> None:
    """Make an image of one layer, the tar of a root file system, and print its ID.

    SOURCE_DATE_EPOCH is the time that it says it was made at: then the same tar gives the same image.
    """
    if file.startswith(("http://", "https://")):
        raise api.ImageError(f"{file} is not fetched", hint=f"curl -sSf {file} | unionfs image import -")
    if os.path.isdir(file):
        raise api.ImageError(f"{file} is a directory", hint=f"tar -C {file} -c . | unionfs image import - NAME")
    epoch = source_date_epoch(os.environ)
    source: str | BinaryIO = from_stdin("import", "pipe a tar in, or give its name") if file == "-" else file
    total = None if file == "-" else os.stat(file).st_size
    with progress("import", total) as report:
        image = api.import_image(
            open_store(context),
            source,
            name,
            changes=changes or (),
            message=message,
            platform=platform,
            epoch=epoch,
            progress=report,
        )
    text(image)


def export(
    context: typer.Context,
    name: ImageName,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", show_default=False)
    ] = None,
    platform: PlatformOption = None,
) -> None:
    """Write the root file system of an image as one tar, all layers merged."""
    target: str | BinaryIO = to_stdout() if output is None else output
    with progress("export") as report:
        open_store(context).export(name, target, platform=platform, progress=report)
