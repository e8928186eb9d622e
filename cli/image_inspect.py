"""`unionfs image inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unionfs import api

from .inspection import show
from .options import ImageNames, PlatformOption, open_store
from .output import failure


def inspect(
    context: typer.Context,
    names: ImageNames,
    fmt: Annotated[
        str | None,
        typer.Option(
            "-f", "--format", metavar="FORMAT", help="json, or a template as '{{.Id}}' or '{{json .Config.Cmd}}'."
        ),
    ] = None,
    platform: PlatformOption = None,
) -> int:
    """Show all that is known of images, as a JSON array in docker's form."""
    store = open_store(context)
    found: list[dict[str, Any]] = []
    failures: list[api.ImageError] = []
    for name in names:
        try:
            found.append(store.inspect(name, platform))
        except api.ImageError as e:
            failures.append(e)
    show(found, fmt)
    for one in failures:
        failure(one)
    return 1 if failures else 0
