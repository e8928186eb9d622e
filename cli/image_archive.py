"""`unionfs image save` and `load`: images as files that docker, podman and others exchange."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer

from unionfs import api

from .options import ImageNames, PlatformOption, open_store
from .output import flush, progress, text


class ArchiveFormat(StrEnum):
    """Of what is saved."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_ARCHIVE = "oci-archive"
    OCI_DIR = "oci-dir"


def save(
    context: typer.Context,
    names: ImageNames,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", show_default=False)
    ] = None,
    fmt: Annotated[
        ArchiveFormat,
        typer.Option("--format", help="docker-archive holds an OCI layout too, as docker's has since version 25."),
    ] = ArchiveFormat.DOCKER_ARCHIVE,
    platform: PlatformOption = None,
) -> None:
    """Save images to a tar archive. A name without a tag is all tags of the repository.

    The same images give the same bytes. FILE appears complete or not at all.
    """
    store = open_store(context)
    target: str | BinaryIO = to_stdout(fmt is ArchiveFormat.OCI_DIR) if output is None else output
    with progress("save") as report:
        store.save(
            names,
            target,
            format=fmt.value,
            platform=platform,
            progress=report,
        )


def load(
    context: typer.Context,
    input: Annotated[
        str | None,
        typer.Option("-i", "--input", metavar="FILE", help="Default: standard input.", show_default=False),
    ] = None,
    platform: PlatformOption = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Load images from an archive of docker, podman or OCI, or an OCI layout; compressed or not.

    Every digest is checked first. Says which names came, as docker does.
    """
    store = open_store(context)
    source: str | BinaryIO
    if input is None:
        source, total = from_stdin("load", "give -i FILE, or pipe an archive in"), None
    else:
        source, total = input, os.stat(input).st_size
    with progress("load", total, wanted=not quiet) as report:
        loaded = store.load(source, platform=platform, progress=report)
    for image in loaded:
        for line in image.texts:
            text(line)


def from_stdin(what: str, hint: str) -> BinaryIO:
    """Standard input as an archive. ImageError where it is a terminal, or closed."""
    if sys.stdin is None or sys.stdin.isatty():
        raise api.ImageError(f"requested {what} from stdin, but stdin is empty", hint=hint)
    return sys.stdin.buffer


def to_stdout(directory: bool = False) -> BinaryIO:
    """Standard output for an archive. ImageError where it is a terminal."""
    if directory:
        raise api.ImageError("a directory cannot be written to standard output", hint="give -o DIRECTORY")
    if sys.stdout.isatty():
        raise api.ImageError("cowardly refusing to save to a terminal. Use the -o flag or redirect", hint="-o FILE")
    flush()
    return sys.stdout.buffer
