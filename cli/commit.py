"""`unionfs commit`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

import typer

from unionfs import api

from .options import (
    AsJson,
    Changes,
    Layers,
    MaybeMountpoint,
    Message,
    PauseLimit,
    Upper,
    Work,
    check_target,
    open_store,
    source_date_epoch,
    store_directory,
)
from .output import as_json, note_on_terminal, progress, text, warn_of_hold


class Compression(StrEnum):
    """Of the layer tar. AUTO goes by the file's suffix."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


NewImage = Annotated[
    str | None,
    typer.Argument(metavar="NAME[:TAG]", help="The image to make, in the store.", show_default=False),
]
LayerFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE.tar[.gz|.zst]",
        help="The layer tar to write, in place of an image.",
        show_default=False,
    ),
]
Author = Annotated[str | None, typer.Option("-a", "--author", metavar="TEXT", help="Of the image.", show_default=False)]
CompressionOption = Annotated[
    Compression,
    typer.Option("--compression", help="auto: by the suffix of FILE; an image's layer is not compressed."),
]
SkipSockets = Annotated[
    bool, typer.Option("--skip-sockets", help="Leave sockets out, which a layer cannot hold, instead of failing.")
]


CommitPause = Annotated[
    bool,
    typer.Option(
        "--pause/--no-pause",
        "-p",  # docker's
        help="Hold the mount's changes while its upper is read: the result is of one moment.",
    ),
]


def commit(
    context: typer.Context,
    mountpoint: MaybeMountpoint = None,
    name: NewImage = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    output: LayerFile = None,
    author: Author = None,
    message: Message = None,
    changes: Changes = None,
    compression: CompressionOption = Compression.AUTO,
    skip_sockets: SkipSockets = False,
    pause: CommitPause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """Make an image of what the upper changes and print its ID; or, with -o, an OCI layer tar and print its diff_id.

    The image has the layers of the mount and one more. The same changes give the same bytes; SOURCE_DATE_EPOCH is the
    latest time stamp written, and when the image was made. All of it appears complete or not at all.
    Of a live mount it is one moment: changes wait meanwhile.
    """
    if output is None and name is None and (layers or upper):
        mountpoint, name = None, mountpoint  # then there is no MOUNTPOINT
    if (output is None) == (name is None):
        both = ", not both" if name else ""
        raise typer.BadParameter(f"give NAME[:TAG] for an image, or -o FILE for a layer tar{both}")
    check_target(mountpoint, layers, upper, work)
    target: dict[str, Any] = {
        "mountpoint": mountpoint,
        "layers": layers or (),
        "upper": upper,
        "work": work,
        "skip_sockets": skip_sockets,
        "pause": pause,
        "pause_limit": pause_limit,
        "on_hold": warn_of_hold,
    }
    epoch = source_date_epoch(os.environ)
    if name is not None:
        _commit_image(context, name, target, author, message, changes, compression, epoch, json)
        return
    assert output is not None  # one of the two is given
    if author or message or changes:
        raise typer.BadParameter("-a, -m and -c are about an image: give NAME[:TAG] in place of -o")
    with progress("commit") as report:
        result = api.commit(
            **target,
            output=output,
            compression=_compression(compression),
            clamp_mtime=epoch,
            progress=report,
            store=store_directory(context),
        )
    _note_pause(result.held_seconds)
    if json:
        from . import schemas

        as_json(schemas.Commit.of(result))
    else:
        text(result.diff_id)


def _commit_image(
    context: typer.Context,
    name: str,
    target: dict[str, Any],
    author: str | None,
    message: str | None,
    changes: list[str] | None,
    compression: Compression,
    epoch: int | None,
    json: bool,
) -> None:
    with progress("commit") as report:
        image = api.commit_image(
            open_store(context),
            name,
            **target,
            author=author or "",
            message=message or "",
            changes=changes or (),
            compression=_compression(compression) or "none",
            epoch=epoch,
            progress=report,
        )
    _note_pause(image.held_seconds)
    if json:
        from . import schemas

        as_json(schemas.CommittedImage.of(image))
    else:
        text(image.id)


def _note_pause(seconds: float | None) -> None:
    if seconds is not None:
        note_on_terminal(f"changes were held for {seconds:.2f} s")


def _compression(chosen: Compression) -> Literal["none", "gzip", "zstd"] | None:
    return None if chosen is Compression.AUTO else cast(Literal["none", "gzip", "zstd"], chosen.value)
