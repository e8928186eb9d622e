"""`unionfs logs`: what a container has written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from unionfs import api
from unionfs.api.text import moment as parsed_moment

from .options import store_directory
from .output import INTERRUPTED


def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="CONTAINER", help="A name, or an ID.", show_default=False)],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it has ended.")] = False,
    tail: Annotated[
        str, typer.Option("-n", "--tail", metavar="N", help="The last lines alone, or all.", show_default=False)
    ] = "all",
    timestamps: Annotated[bool, typer.Option("-t", "--timestamps", help="With the time of each line.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="2026-11-26T12:00:00Z, or how long ago: 10m."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="As --since.")] = None,
) -> None:
    """Print the output of a container: what it wrote to stdout on stdout, and what it wrote to stderr on stderr."""
    now = time.time()
    entries = api.read_logs(
        api.container_store(store_directory(context)),
        name,
        tail=_count(tail),
        since=None if since is None else moment(since, now),
        until=None if until is None else moment(until, now),
        follow=follow,
    )
    try:
        _write(entries, timestamps)
    except KeyboardInterrupt:
        if follow:  # it is how one ends that
            raise typer.Exit(INTERRUPTED) from None
        raise


def _write(entries: Iterable[api.LogEntry], timestamps: bool) -> None:
    at_begin = {1: True, 2: True}
    for entry in entries:
        data = entry.data
        if timestamps and at_begin[entry.stream]:
            data = entry.time + b" " + data
        at_begin[entry.stream] = data.endswith(b"\n")
        stream = (sys.stdout if entry.stream == 1 else sys.stderr).buffer
        stream.write(data)
        stream.flush()


def _count(tail: str) -> int | None:
    if tail == "all" or tail.startswith("-"):
        return None
    if not tail.isdecimal():
        raise typer.BadParameter(f"invalid value for --tail: {tail}: a number, or all")
    return int(tail)


def moment(text: str, now: float) -> int:
    """Nanoseconds since the epoch, of docker's ways to say it. Without a zone the time is local."""
    try:
        return parsed_moment(text, now)
    except ValueError:
        raise typer.BadParameter(f"invalid value for a time: {text!r}: as 2026-11-26T12:00:00Z, or 10m") from None
