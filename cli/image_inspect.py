"""`unionfs image inspect`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from unionfs import api

from . import template
from .options import ImageNames, PlatformOption, open_store
from .output import failure, text


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
    if fmt is None:
        text(json.dumps(found, indent=4, ensure_ascii=False))
    elif fmt == "json":
        text(template.go_json(found))
    else:
        pieces = template.parse(fmt)
        for image in found:
            text(template.fill(pieces, image))
    for one in failures:
        failure(one)
    return 1 if failures else 0
