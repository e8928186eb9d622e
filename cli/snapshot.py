"""`unionfs snapshot`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unionfs import api

from .options import AsJson, Exclude, OnlyPaths, Pause, PauseLimit, store_directory
from .output import as_json, progress, warn_of_hold, warning


def snapshot(
    context: typer.Context,
    tree: Annotated[
        str,
        typer.Argument(
            metavar="TREE",
            help="A directory, live mount, layer tar, image, layer:PATH or upper:DIR.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", show_default=False),
    ] = None,
    paths: OnlyPaths = None,
    exclude: Exclude = None,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """Write down what a tree has, to compare with it later.

    Contents are there as digests. The file is an mtree(5), which mtree, gomtree and bsdtar read too.
    """
    if json and output is None:
        raise typer.BadParameter("--json says what was written to a file: give -o FILE")
    with progress("snapshot", wanted=output is not None) as report:
        made = api.write_snapshot(
            tree,
            sys.stdout.buffer if output is None else output,
            paths=tuple(paths or ()),
            exclude=tuple(exclude or ()),
            store=store_directory(context),
            pausing=api.Pausing(pause, pause_limit, warn_of_hold),
            on_warning=warning,
            progress=report,
        )
    if json:
        from . import diff_schemas as schemas

        as_json(schemas.Snapshot.of(made))
