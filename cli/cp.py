"""`unionfs cp` and `export`: files into a container and out of it."""

from __future__ import annotations

from typing import Annotated, BinaryIO

import typer

from unionfs import api

from .image_archive import from_stdin, to_stdout
from .options import store_directory
from .output import progress


def cp(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="[CONTAINER:]SOURCE|-", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="[CONTAINER:]TARGET|-", show_default=False)],
    archive: Annotated[bool, typer.Option("-a", "--archive", help="Keep owners.")] = False,
    follow_link: Annotated[
        bool, typer.Option("-L", "--follow-link", help="Copy what SOURCE leads to, if it is a symbolic link.")
    ] = False,
) -> None:
    """Copy files between a container and the host; - is a tar on standard input or output.

    The rules are those of docker cp: a directory that is there is copied into; SOURCE/. is what is in it. The
    container need not run. A path of the host with a colon in it is written ./PATH.
    """
    here, there = _container_and_path(source), _container_and_path(target)
    if here is not None and there is not None:
        raise typer.BadParameter("copying between containers is not supported")
    containers = api.container_store(store_directory(context))
    if here is not None:
        out: str | BinaryIO = to_stdout() if target == "-" else target
        api.copy_from_container(containers, *here, out, archive=archive, follow_link=follow_link)
    elif there is not None:
        stream: str | BinaryIO = from_stdin("copy", "pipe a tar in") if source == "-" else source
        api.copy_to_container(containers, there[0], stream, there[1], archive=archive, follow_link=follow_link)
    else:
        raise typer.BadParameter("must specify at least one container source: CONTAINER:PATH")


def _container_and_path(text: str) -> tuple[str, str] | None:
    """docker's splitCpArg: what begins with / or . is of the host, whatever colons it has."""
    if text.startswith(("/", ".")):
        return None
    container, colon, path = text.partition(":")
    if not colon:
        return None
    if not container or not path:
        raise typer.BadParameter(f"{text}: give CONTAINER:PATH")
    return container, path


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="CONTAINER", help="A name, or an ID.", show_default=False)],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", show_default=False)
    ] = None,
) -> None:
    """Write the root file system of a container as one tar, without its volumes. It need not run."""
    target: str | BinaryIO = to_stdout() if output is None else output
    with progress("export") as report:
        api.export_container(api.container_store(store_directory(context)), name, target, progress=report)
