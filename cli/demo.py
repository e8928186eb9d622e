"""`unionfs demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .output import text


def demo(
    mounted: Annotated[bool, typer.Option("--mount/--no-mount", help="Without a mount: work in process.")] = True,
) -> None:
    """Show it all in a minute: three layers become one tree, are changed, and the changes become a layer tar.

    Everything happens in a temporary directory that is removed at the end.
    """
    for number, step in enumerate(api.demo(mounted=mounted), 1):
        text(f"{number}. {step.title}")
        for line in step.lines:
            text(f"     {line}")
