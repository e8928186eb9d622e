"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from unionfs import api

from .output import once_on_terminal

#: Of every group of commands.
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

Layers = Annotated[
    list[str] | None,
    typer.Option(
        "-l",
        "--layer",
        metavar="LAYER",
        help="A directory, a layer tar, an image, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE[:REF]. "
        "Repeat it, topmost first.",
    ),
]
Upper = Annotated[
    str | None, typer.Option("-u", "--upper", metavar="UPPER", help="The directory that holds the changes.")
]
Work = Annotated[
    str | None,
    typer.Option("-w", "--work", metavar="WORK", help="Work directory on the upper's file system. Default: UPPER.work"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; docs/reference.md describes it.")]
MaybeMountpoint = Annotated[
    str | None,
    typer.Argument(
        metavar="MOUNTPOINT", help="A live mount, or a container; instead of -l and -u.", show_default=False
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The image store. Default: $UNIONFS_STORE, or one of your own.",
        show_default=False,
    ),
]
ImageName = Annotated[str, typer.Argument(metavar="IMAGE", help="A name, or an ID.", show_default=False)]
ImageNames = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Names, or IDs.", show_default=False)]
RowFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table, json, 'table TEMPLATE' or a template as '{{.ID}}'.",
        show_default=False,
    ),
]
NoTrunc = Annotated[bool, typer.Option("--no-trunc", help="Cut nothing short.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show IDs only.")]
PlatformOption = Annotated[
    str | None,
    typer.Option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of a multi-platform one."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Accept any certificate, and HTTP. localhost may speak HTTP anyway.")
]
CertDir = Annotated[
    str | None,
    typer.Option(
        "--cert-dir",
        metavar="DIR",
        help="CAs (*.crt) and client certificates (*.cert, *.key) for the registry. Default: HOST[:PORT] in "
        "~/.config/containers/certs.d, /etc/containers/certs.d and /etc/docker/certs.d.",
        show_default=False,
    ),
]
AuthFile = Annotated[
    str | None,
    typer.Option(
        "--authfile",
        metavar="FILE",
        help="Where credentials are. Default: $REGISTRY_AUTH_FILE, or podman's and docker's files.",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--change",
        metavar="INSTRUCTION",
        help="""As in a Dockerfile: 'CMD ["httpd","-f"]', ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, """
        "STOPSIGNAL, USER, VOLUME, WORKDIR. Repeat it.",
    ),
]
Message = Annotated[
    str | None, typer.Option("-m", "--message", metavar="TEXT", help="Stands in the history.", show_default=False)
]


OnlyPaths = Annotated[
    list[str] | None,
    typer.Option(
        "--path",
        metavar="GLOB",
        help="Only these, and what is in them: '*.conf' is a name anywhere, '/etc/**/x' a path. Repeat it.",
    ),
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="But not these. Repeat it.")]


def choose_store(context: typer.Context, store: str | None) -> None:
    """Remember a --store; the one nearest to the verb counts."""
    if store is not None:
        context.ensure_object(dict)["store"] = store


def store_directory(context: typer.Context) -> str | None:
    """What --store said."""
    return context.ensure_object(dict).get("store")


def open_store(context: typer.Context) -> api.Store:
    waiting = once_on_terminal("waiting for another unionfs command that uses the store")
    return api.image_store(store_directory(context), waiting)


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """reproducible-builds.org/specs/source-date-epoch: seconds since the epoch, in ASCII digits."""
    value = environ.get("SOURCE_DATE_EPOCH")
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise typer.BadParameter(f"SOURCE_DATE_EPOCH is no number of seconds: {value!r}")
    return int(value)


Pause = Annotated[
    bool,
    typer.Option(
        "--pause/--no-pause", help="Hold the mount's changes while its upper is read: the result is of one moment."
    ),
]
PauseLimit = Annotated[
    float, typer.Option("--pause-limit", metavar="SECONDS", help="Fail where changes would be held for longer.")
]


def check_target(mountpoint: str | None, layers: list[str] | None, upper: str | None, work: str | None) -> None:
    """A command on a mount or on directories: exactly one of the two, the second complete."""
    if mountpoint is not None and (layers or upper or work):
        raise typer.BadParameter("give a MOUNTPOINT or -l and -u, not both")
    if mountpoint is None and not (layers and upper):
        raise typer.BadParameter("give a MOUNTPOINT, or the layers with -l and the upper with -u")


def check_stack(target: str | None, layers: list[str] | None, upper: str | None, work: str | None) -> None:
    """A command on an image, a mount or layers: exactly one of them."""
    if target is not None and (layers or upper or work):
        raise typer.BadParameter("give an IMAGE, a MOUNTPOINT, or layers with -l, not both")
    if target is None and not layers:
        raise typer.BadParameter("give an IMAGE or a MOUNTPOINT, or the layers with -l")
