"""`unionfs inspect`: a container, else an image."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unionfs import api

from .inspection import show
from .options import open_store, store_directory
from .output import failure

KINDS = ("container", "image")


def inspect(
    context: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Names, or IDs, of containers or images.", show_default=False)
    ],
    fmt: Annotated[
        str | None,
        typer.Option("-f", "--format", metavar="FORMAT", help="json, or a template as '{{.State.Status}}'."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="container|image", help="Look for these only.", show_default=False)
    ] = None,
) -> int:
    """Show all that is known of containers, or images where there is no such container, in docker's form."""
    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"unknown type {kind!r}; there are {', '.join(KINDS)}")
    found: list[dict[str, Any]] = []
    failed = False
    for name in names:
        try:
            found.append(_look(context, name, kind))
        except (api.ContainerError, api.ImageError) as e:
            failure(e)
            failed = True
    show(found, fmt)
    return 1 if failed else 0


def _look(context: typer.Context, name: str, kind: str | None) -> dict[str, Any]:
    if kind != "image":
        try:
            return api.inspect_container(api.container_store(store_directory(context)), name)
        except api.ContainerError:
            if kind == "container":
                raise
    try:
        return open_store(context).inspect(name)
    except api.ImageNotFound:
        if kind == "image":
            raise
        raise api.ContainerError(
            f"No such object: {name}", hint="unionfs ps -a and unionfs image ls list those there are"
        ) from None
