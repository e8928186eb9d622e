"""`unionfs image history`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from unionfs import api

from . import human, template
from .options import ImageName, NoTrunc, PlatformOption, Quiet, RowFormat, open_store
from .output import text

MISSING = "<missing>"
#: As docker cuts it.
CREATED_BY_WIDTH = 45
HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
TABLE = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
TABLE_OF_NUMBERS = TABLE.replace("CreatedSince", "CreatedAt")
#: Before it nobody made images: a time that was set for the sake of reproducibility says nothing (docker CLI).
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def history(
    context: typer.Context,
    name: ImageName,
    fmt: RowFormat = "table",
    human_readable: Annotated[
        bool,
        typer.Option("-H", "--human/--no-human", help="Sizes and dates for people, or as numbers.", show_default=False),
    ] = True,
    no_trunc: NoTrunc = False,
    platform: PlatformOption = None,
    quiet: Quiet = False,
) -> None:
    """Show how an image came to be, the newest step first."""
    steps = open_store(context).history(name, platform)
    if quiet and fmt == "table":
        fmt = "{{.ID}}"
    now = datetime.now(UTC)
    rows = [_row(step, now, no_trunc, human_readable) for step in steps]
    default = TABLE if human_readable else TABLE_OF_NUMBERS
    for line in template.render(rows, fmt, default=default, headings=HEADINGS):
        text(line)


def _row(step: api.HistoryRow, now: datetime, no_trunc: bool, human_readable: bool) -> dict[str, Any]:
    at = (step.created or datetime(1970, 1, 1, tzinfo=UTC)).astimezone().isoformat(timespec="seconds")
    at = at.replace("+00:00", "Z")
    known = step.created if step.created is not None and step.created > EPOCH else None
    created_by = step.created_by.replace("\t", " ")
    return {
        "ID": MISSING if step.id is None else str(step.id) if no_trunc else step.id.short,
        "CreatedSince": human.since(known, now) if human_readable else at,
        "CreatedAt": at,
        "CreatedBy": created_by if no_trunc else human.ellipsis(created_by, CREATED_BY_WIDTH),
        "Size": human.size(step.size) if human_readable else str(step.size),
        "Comment": step.comment,
    }
