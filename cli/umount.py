"""`unionfs umount`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api


def umount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", show_default=False)],
    lazy: Annotated[bool, typer.Option("--lazy", help="Detach now, finish when the last open file is closed.")] = False,
) -> None:
    """Unmount, and return once the daemon has written everything. Removes dead mounts too."""
    api.umount(mountpoint, lazy=lazy)
