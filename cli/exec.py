"""`unionfs exec`: a further command in a container that runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unionfs import api

from .options import store_directory
from .output import ContainerStatus, failure
from .run import Environment, EnvironmentFiles, Interactive, Terminal, User, WorkingDirectory

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="CONTAINER", help="A name, or an ID.", show_default=False)],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARG]", show_default=False)],
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Do not wait for it.")] = False,
    interactive: Interactive = False,
    tty: Terminal = False,
    env: Environment = None,
    env_file: EnvironmentFiles = None,
    user: User = None,
    workdir: WorkingDirectory = None,
) -> int:
    """Run a command in a container that runs. The exit status is the command's; 126: it cannot be executed, 127: it is
    not there."""
    if tty and interactive and not detach and not sys.stdin.isatty():
        raise api.OptionError("the input device is not a TTY", hint="leave out -t, or -i")
    asked = api.execution(
        command,
        environment=env or (),
        environment_files=env_file or (),
        user=user,
        working_directory=workdir,
        terminal=tty,
        interactive=interactive,
        detach=detach,
    )
    ended = api.execute(api.container_store(store_directory(context)), name, asked)
    if ended.error is not None:
        failure(ended.error)
    return ContainerStatus(ended.status or 0)
