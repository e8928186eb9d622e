"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Layers = Annotated[
    list[str] | None,
    typer.Option("-l", "--layer", metavar="LAYER", help="A layer, a directory. Repeat it, topmost first."),
]
Upper = Annotated[
    str | None, typer.Option("-u", "--upper", metavar="UPPER", help="The directory that holds the changes.")
]
Work = Annotated[
    str | None,
    typer.Option("-w", "--work", metavar="WORK", help="Work directory on the upper's file system. Default: UPPER.work"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; the README documents the schema.")]
MaybeMountpoint = Annotated[
    str | None, typer.Argument(metavar="[MOUNTPOINT]", help="A live mount; instead of -l and -u.", show_default=False)
]


def check_target(mountpoint: str | None, layers: list[str] | None, upper: str | None, work: str | None) -> None:
    """A command on a mount or on directories: exactly one of the two, the second complete."""
    if mountpoint is not None and (layers or upper or work):
        raise typer.BadParameter("give a MOUNTPOINT or -l and -u, not both")
    if mountpoint is None and not (layers and upper):
        raise typer.BadParameter("give a MOUNTPOINT, or the layers with -l and the upper with -u")
