"""`unionfs mount`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from unionfs import api

from .options import Layers, PlatformOption, Upper, Work, store_directory
from .output import progress


class Transport(StrEnum):
    """How FUSE is spoken."""

    AUTO = "auto"
    DEVFUSE = "devfuse"
    FUSEPY = "fusepy"


class Passthrough(StrEnum):
    """Whether the kernel may read and write the files of the layers itself."""

    AUTO = "auto"
    OFF = "off"


Image = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="NAME[:TAG]", help="An image of the store, below all layers. Its changes are kept there."
    ),
]
ChangesName = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="Under which the changes of --image are kept. Default: from MOUNTPOINT."
    ),
]
MountOptions = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="OPTS", help="Mount options: lowerdir=A:B,upperdir=U,workdir=W,volatile,nosuid…"),
]
Force = Annotated[
    bool, typer.Option("--force", help="Use an upper that a volatile mount has left: a crash may have damaged it.")
]


def mount(
    context: typer.Context,
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="An empty directory.", show_default=False)],
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    image: Image = None,
    name: ChangesName = None,
    platform: PlatformOption = None,
    options: MountOptions = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse every change; an upper is shown, not written.")
    ] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep changes in a temporary directory, removed at unmount.")
    ] = False,
    transport: Annotated[
        Transport, typer.Option("--transport", help="How to speak FUSE. auto: devfuse where /dev/fuse is, else fusepy.")
    ] = Transport.AUTO,
    passthrough: Annotated[
        Passthrough, typer.Option("--passthrough", help="Let the kernel read and write layer files itself (root).")
    ] = Passthrough.AUTO,
    foreground: Annotated[
        bool, typer.Option("-f", "--foreground", help="Stay in the foreground until unmounted.")
    ] = False,
    nonempty: Annotated[bool, typer.Option("--nonempty", help="Mount over a directory that is not empty.")] = False,
    log_file: Annotated[
        str | None, typer.Option("--log-file", metavar="FILE", help="Where the daemon writes what goes wrong.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log every request; implies -f.")] = False,
    force: Force = False,
) -> None:
    """Mount layers as one tree.

    UPPER and WORK are made if only their last component is missing. The command returns once the mount is usable.
    """
    if image is None and (name is not None or platform is not None):
        raise typer.BadParameter("--name and --platform are about an --image")
    _read_tars(layers or ())
    others: dict[str, Any] = {
        "options": options or (),
        "transport": str(transport),
        "passthrough": passthrough is Passthrough.AUTO,
        "foreground": foreground or debug,
        "nonempty_ok": nonempty,
        "log_file": log_file,
        "debug": debug,
        "force": force,
        "read_only": read_only,
        "ephemeral": ephemeral,
        "store": store_directory(context),
    }
    if image is None:
        api.mount(mountpoint, layers or (), upper, work, **others)
    else:
        api.mount_image(
            mountpoint, image, layers=layers or (), upper=upper, work=work, name=name, platform=platform, **others
        )


def _read_tars(layers: Sequence[str]) -> None:
    """Before the mount, whose daemon is forked: a bar has a thread."""
    size = sum(os.path.getsize(layer) for layer in layers if os.path.isfile(layer))
    if size:
        with progress("read", size) as report:
            if report is not None:
                api.make_ready(layers, report)
