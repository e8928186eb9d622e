"""`unionfs image ls`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from unionfs import api

from . import human, template
from .options import NoTrunc, Quiet, RowFormat, open_store
from .output import text, warning

NONE = "<none>"
HEADINGS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
TABLE = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
TABLE_WITH_DIGEST = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"


def ls(
    context: typer.Context,
    repository: Annotated[
        str | None, typer.Argument(metavar="REPOSITORY[:TAG]", help="Only these.", show_default=False)
    ] = None,
    all: Annotated[
        bool, typer.Option("-a", "--all", help="All images; here there are no intermediate ones to hide.")
    ] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Show the digests of the manifests.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--filter",
            metavar="FILTER",
            help="dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME, reference=PATTERN. "
            "Repeat it.",
        ),
    ] = None,
    fmt: RowFormat = "table",
    no_trunc: NoTrunc = False,
    quiet: Quiet = False,
) -> None:
    """List the images of the store, newest first, a line for each of their names, or of those that are asked for."""
    images = open_store(context).images(
        filters=filters or (), names=(repository,) if repository else (), damaged=_warn_of_damage
    )
    if quiet and fmt == "table":
        fmt = "{{.ID}}"
    now = datetime.now(UTC)
    rows = [row for image in images for row in _rows(image, now, no_trunc)]
    default = TABLE_WITH_DIGEST if digests else TABLE
    for line in template.render(rows, fmt, default=default, headings=HEADINGS):
        text(line)


def _warn_of_damage(name: str) -> None:
    warning(f"{name} is damaged, and is not listed", "unionfs image verify says how; load it again, or rm it")


def _rows(image: api.ImageSummary, now: datetime, no_trunc: bool) -> Iterator[dict[str, Any]]:
    digest = str(image.digests[0]) if image.digests else NONE
    for name in image.names or (None,):
        repository, tag = (NONE, NONE) if name is None else _split(name)
        yield {
            "ID": str(image.id) if no_trunc else image.id.short,
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "CreatedSince": human.since(image.created, now),
            "CreatedAt": "N/A" if image.created is None else go_time(image.created),
            "Size": human.size(image.size),
            "Containers": "N/A",
            "VirtualSize": human.size(image.size, 4),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
        }


def _split(name: str) -> tuple[str, str]:
    """A familiar reference with a tag, or what somebody else wrote there as a name."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, NONE)


def go_time(when: datetime) -> str:
    """Go's Time.String, in local time."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")
