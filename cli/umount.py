"""`unionfs umount`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .output import warning


def umount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", show_default=False)],
    lazy: Annotated[bool, typer.Option("--lazy", help="Detach now, finish when the last open file is closed.")] = False,
) -> None:
    """Unmount, and return once the daemon has written everything. Removes dead mounts too."""
    held = api.umount(mountpoint, lazy=lazy)
    if held:
        names = ", ".join(f"{one.pid} ({one.name})" for one in held)
        warning(
            f"unmounted here; its daemon goes on for the copies in other mount namespaces, of process {names}",
            "it ends with the last of them",
        )
