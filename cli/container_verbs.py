"""`unionfs start`, `stop`, `kill`, `rm` and `wait`: what is done to containers by name. What is said is docker's: each
name when it is done, and on stderr each failure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from unionfs import api

from .options import store_directory
from .output import ContainerStatus, failure, text

Names = Annotated[list[str], typer.Argument(metavar="CONTAINER", help="Names, or IDs.", show_default=False)]
Signal = Annotated[
    str | None, typer.Option("-s", "--signal", metavar="SIGNAL", help="By name or number.", show_default=False)
]


def start(
    context: typer.Context,
    names: Names,
    attach: Annotated[bool, typer.Option("-a", "--attach", help="Show its output, and pass signals on.")] = False,
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Pass standard input on.")] = False,
) -> int:
    """Start containers again. What they have changed is there."""
    containers = api.container_store(store_directory(context))
    if attach or interactive:
        if len(names) != 1:
            raise typer.BadParameter("you cannot start and attach multiple containers at once")
        ended = api.run_container(containers, names[0], attach=True, interactive=interactive)
        if ended.error is not None:
            failure(ended.error)
            return ContainerStatus(1 if ended.status is None else ended.status)
        return ContainerStatus(ended.status or 0)

    def begin(name: str) -> None:
        ended = api.run_container(containers, name, attach=False, interactive=False)
        if ended.error is not None:
            raise ended.error

    return _each(names, begin)


def stop(
    context: typer.Context,
    names: Names,
    seconds: Annotated[
        float | None,
        typer.Option(
            "-t",
            "--time",
            "--timeout",
            metavar="SECONDS",
            help="Then SIGKILL; -1: never. Default: 10",
            show_default=False,
        ),
    ] = None,
    signal: Signal = None,
) -> int:
    """Have containers end: by SIGTERM, or the image's STOPSIGNAL, and by SIGKILL if that does not do."""
    containers = api.container_store(store_directory(context))
    return _each(names, lambda name: api.stop_container(containers, name, seconds=seconds, signal_text=signal))


def kill(context: typer.Context, names: Names, signal: Signal = None) -> int:
    """Send containers a signal: SIGKILL, or another."""
    containers = api.container_store(store_directory(context))
    return _each(names, lambda name: api.kill_container(containers, name, signal or "SIGKILL"))


def rm(
    context: typer.Context,
    names: Names,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Kill what runs; do not mind what is not there.")
    ] = False,
    volumes: Annotated[
        bool, typer.Option("-v", "--volumes", help="Its own volumes too, which go with it here in any case.")
    ] = False,
) -> int:
    """Remove containers, with all that they have changed."""
    containers = api.container_store(store_directory(context))
    return _each(names, lambda name: api.remove_container(containers, name, force=force), missing_ok=force)


def wait(context: typer.Context, names: Names) -> int:
    """Wait until containers have ended, and print their exit statuses."""
    containers = api.container_store(store_directory(context))
    return _each(names, lambda name: api.wait_container(containers, name))


def _each(names: Iterable[str], do: Callable[[str], int | None], *, missing_ok: bool = False) -> int:
    failed = False
    for name in names:
        try:
            result = do(name)
        except api.OptionError:
            raise  # of all of them
        except (api.UnionFSError, OSError) as e:
            failure(e)
            failed = failed or not (missing_ok and str(e).startswith("No such container"))
        else:
            text(name if result is None else str(result))
            sys.stdout.flush()
    return 1 if failed else 0
