"""`unionfs image pull` and `push`: images from registries, and to them. What is said is docker's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from unionfs import api

from .options import AuthFile, CertDir, ImageName, Insecure, PlatformOption, open_store
from .output import note, text

#: What is said while bytes move; a bar shows it, if there is one.
MOVING = ("Downloading", "Pushing")
TransferQuiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say the name only, in full.")]


def pull(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:TAG|@DIGEST]", help="[REGISTRY/]REPOSITORY, else docker.io's.", show_default=False
        ),
    ],
    platform: PlatformOption = None,
    quiet: TransferQuiet = False,
    unpack: Annotated[
        bool,
        typer.Option("--unpack/--no-unpack", help="Have it ready to be mounted, or leave that to the first mount."),
    ] = True,
    lazy: Annotated[
        bool,
        typer.Option(
            "--lazy", help="Leave data to the moment it is read, of eStargz and zstd:chunked layers; others come whole."
        ),
    ] = False,
    insecure: Insecure = False,
    cert_dir: CertDir = None,
    authfile: AuthFile = None,
) -> None:
    """Fetch an image from a registry. Layers that are here already are not fetched.

    Everything is compared with its digest, and unpacked while it comes. What --lazy has left out comes
    with a later pull without it, or with image fetch.
    """
    options = api.RegistryOptions(insecure, cert_dir, authfile)
    with reporter(quiet) as report:
        pulled = api.pull_image(
            open_store(context), name, platform=platform, options=options, report=report, unpack=unpack, lazy=lazy
        )
    if not quiet:
        text(f"Digest: {pulled.digest}")
        text(f"Status: {pulled.status} for {pulled.familiar}")
    text(pulled.reference)


def fetch(
    context: typer.Context,
    name: ImageName,
    platform: PlatformOption = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing.")] = False,
) -> None:
    """Fetch what a lazy pull has left out of an image, from where it was pulled.

    It may be mounted meanwhile.
    """
    with reporter(quiet) as report:
        count = api.fetch_image(open_store(context), name, platform=platform, report=report)
    if not quiet:
        text(f"Status: {'Fetched the rest of' if count else 'Nothing is missing of'} {name}")


def push(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME[:TAG]", help="An image of the store, named for its registry.", show_default=False),
    ],
    platform: PlatformOption = None,
    quiet: TransferQuiet = False,
    insecure: Insecure = False,
    cert_dir: CertDir = None,
    authfile: AuthFile = None,
) -> None:
    """Give an image to the registry in its name. Layers that are there already are not sent.

    To send it elsewhere, name it so first: unionfs image tag NAME REGISTRY/NAME.
    """
    options = api.RegistryOptions(insecure, cert_dir, authfile)
    with reporter(quiet) as report:
        pushed = api.push_image(open_store(context), name, platform=platform, options=options, report=report)
    if quiet:
        text(pushed.reference)
        return
    text(f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}")
    if pushed.partial is not None:
        note("Not all multiplatform-content is present and only the available single-platform image was pushed")
        note(f"{pushed.partial} -> {pushed.digest}")


@contextmanager
def reporter(quiet: bool) -> Iterator[Callable[[api.Transfer], None] | None]:
    """Says on stdout what becomes of each blob; if stderr is a terminal, with bars there for those that move."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda transfer: None if transfer.status in MOVING else text(_line(transfer))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False, markup=False), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(transfer: api.Transfer) -> None:
            if transfer.status in MOVING:
                if transfer.id not in tasks:
                    tasks[transfer.id] = bar.add_task(f"{transfer.id}: {transfer.status}", total=transfer.total)
                bar.update(tasks[transfer.id], completed=transfer.done)
                return
            if transfer.id in tasks:
                bar.remove_task(tasks.pop(transfer.id))
            if sys.stdout.isatty():
                bar.console.print(_line(transfer))  # above the bars, which a line on stdout would run into
            else:
                text(_line(transfer))

        yield show


def _line(transfer: api.Transfer) -> str:
    return f"{transfer.id}: {transfer.status}" if transfer.id else transfer.status
