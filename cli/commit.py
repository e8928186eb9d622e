"""`unionfs commit`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Literal, cast

import typer

from unionfs import api

from . import schemas
from .options import AsJson, Layers, MaybeMountpoint, Upper, Work, check_target
from .output import as_json, progress, text


class Compression(StrEnum):
    """Of the layer tar. AUTO goes by the file's suffix."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


def commit(
    mountpoint: MaybeMountpoint = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE.tar[.gz|.zst]", help="The layer to write.", show_default=False),
    ] = ...,  # type: ignore[assignment]  # typer's way to say "required" behind arguments that are not
    compression: Annotated[
        Compression, typer.Option("--compression", help="auto: by the suffix of FILE.")
    ] = Compression.AUTO,
    skip_sockets: Annotated[
        bool, typer.Option("--skip-sockets", help="Leave sockets out, which a layer cannot hold, instead of failing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write what the upper changes as an OCI layer tar and print its diff_id.

    The same changes give the same bytes; SOURCE_DATE_EPOCH is the latest time stamp written. FILE appears complete or
    not at all.
    """
    check_target(mountpoint, layers, upper, work)
    clamp = _source_date_epoch(os.environ.get("SOURCE_DATE_EPOCH"))
    with progress("commit") as report:
        result = api.commit(
            mountpoint,
            layers=layers or (),
            upper=upper,
            work=work,
            output=output,
            compression=_compression(compression),
            clamp_mtime=clamp,
            skip_sockets=skip_sockets,
            progress=report,
        )
    if json:
        as_json(schemas.Commit.of(result))
    else:
        text(result.diff_id)


def _compression(chosen: Compression) -> Literal["none", "gzip", "zstd"] | None:
    return None if chosen is Compression.AUTO else cast(Literal["none", "gzip", "zstd"], chosen.value)


def _source_date_epoch(value: str | None) -> int | None:
    """reproducible-builds.org/specs/source-date-epoch: seconds since the epoch, in ASCII digits."""
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise typer.BadParameter(f"SOURCE_DATE_EPOCH is no number of seconds: {value!r}")
    return int(value)
