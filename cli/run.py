"""`unionfs run`: a container of an image. Options, output and exit statuses are docker's."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import Annotated, Any

import typer

from unionfs import api

from .options import PlatformOption, open_store, store_directory
from .output import ContainerStatus, Trouble, failure, note, text

#: docker's exit status for a failure of its own.
FAILED = 125
#: Of who writes to a pipe that nobody reads, as a shell has it.
PIPE_BROKEN = 128 + signal.SIGPIPE
PULL = ("missing", "always", "never")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Environment = Annotated[
    list[str] | None,
    typer.Option("-e", "--env", metavar="KEY[=VALUE]", help="A variable; without a value, this environment's."),
]
EnvironmentFiles = Annotated[
    list[str] | None, typer.Option("--env-file", metavar="FILE", help="Variables, one on a line.")
]
Interactive = Annotated[bool, typer.Option("-i", "--interactive", help="Pass standard input on.")]
Terminal = Annotated[bool, typer.Option("-t", "--tty", help="Give it a terminal; ctrl-p ctrl-q lets go of it.")]
User = Annotated[
    str | None,
    typer.Option("-u", "--user", metavar="USER[:GROUP]", help="Names of the image, or numbers.", show_default=False),
]
WorkingDirectory = Annotated[
    str | None, typer.Option("-w", "--workdir", metavar="DIR", help="Where it begins.", show_default=False)
]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="A name, or an ID.", show_default=False)]
Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND [ARG]", help="In place of the image's.", show_default=False),
]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Leave it running, and print its ID.")]
Rm = Annotated[bool, typer.Option("--rm", help="Remove it when it has ended.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Default: one made up.", show_default=False)]
Volume = Annotated[
    list[str] | None,
    typer.Option(
        "-v",
        "--volume",
        metavar="[SOURCE:]TARGET[:ro]",
        help="A directory or file of the host in the container; without SOURCE one of the container's own.",
    ),
]
Publish = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--publish",
        metavar="[[ADDRESS:]PORT:]PORT[/udp]",
        help="A port of the container; by 8000-8010:80 on the first of a range that is free.",
    ),
]
Network = Annotated[
    str,
    typer.Option(
        "--network", metavar="private|host|none", help="Its own behind the host's, the host's, or loopback alone."
    ),
]
Entrypoint = Annotated[
    str | None,
    typer.Option("--entrypoint", metavar="PROGRAM", help="In place of the image's.", show_default=False),
]
Hostname = Annotated[
    str | None, typer.Option("--hostname", metavar="NAME", help="Default: its short ID.", show_default=False)
]
Memory = Annotated[
    str | None, typer.Option("-m", "--memory", metavar="BYTES", help="A limit: 64m, 1g.", show_default=False)
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nothing is written to the root.")]
SecurityOpt = Annotated[list[str] | None, typer.Option("--security-opt", metavar="OPTION", help="no-new-privileges")]
Pull = Annotated[
    str, typer.Option("--pull", metavar="missing|always|never", help="When the image is fetched from its registry.")
]


@app.command("run", context_settings={"allow_interspersed_args": False})
def run(
    context: typer.Context,
    image: Image,
    command: Command = None,
    detach: Detach = False,
    interactive: Interactive = False,
    tty: Terminal = False,
    rm: Rm = False,
    name: Name = None,
    env: Environment = None,
    env_file: EnvironmentFiles = None,
    volume: Volume = None,
    publish: Publish = None,
    network: Network = "private",
    workdir: WorkingDirectory = None,
    user: User = None,
    entrypoint: Entrypoint = None,
    hostname: Hostname = None,
    memory: Memory = None,
    read_only: ReadOnly = False,
    security_opt: SecurityOpt = None,
    pull: Pull = "missing",
    platform: PlatformOption = None,
) -> ContainerStatus:
    """Run a command in a new container of an image, which is fetched where it is not here.

    What the container writes is kept until it is removed. The exit status is the command's; 125: it was not run, 126:
    it cannot be executed, 127: it is not there, 128+N: a signal ended it.
    """
    try:
        if tty and interactive and not detach and not sys.stdin.isatty():
            raise api.OptionError("the input device is not a TTY", hint="leave out -t, or -i")
        if pull not in PULL:
            raise api.OptionError(f"invalid pull option: '{pull}'", hint=f"one of {', '.join(PULL)}")
        settings: dict[str, Any] = {
            "command": command or (),
            "entrypoint": entrypoint,
            "environment": env or (),
            "environment_files": env_file or (),
            "volumes": volume or (),
            "ports": publish or (),
            "network": network,
            "memory": memory,
            "working_directory": workdir,
            "user": user,
            "hostname": hostname,
            "read_only": read_only,
            "terminal": tty,
            "interactive": interactive,
            "no_new_privileges": _no_new_privileges(security_opt or ()),
        }
        if pull == "always":
            api.container_settings(**settings)  # which may refuse them
            _pull(context, image, platform)
        store = store_directory(context)
        run = partial(api.run_image, image, settings, store=store, name=name or None, auto_remove=rm, platform=platform)
        try:
            id, ended = run(attach=not detach)
        except api.ImageNotFound:
            if pull == "never":
                raise
            note(f"Unable to find image '{image}' locally")
            _pull(context, image, platform)
            id, ended = run(attach=not detach)
    except BrokenPipeError as e:
        raise Trouble(e, PIPE_BROKEN) from e
    except (api.UnionFSError, OSError) as e:
        failure(e)
        return ContainerStatus(FAILED)
    if ended.error is not None:
        failure(ended.error)
        return ContainerStatus(FAILED if ended.status is None else ended.status)
    if detach and ended.status is None:
        text(id)
    return ContainerStatus(ended.status or 0)


def _no_new_privileges(options: list[str] | tuple[str, ...]) -> bool:
    for option in options:
        if option not in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            raise api.OptionError(f"invalid --security-opt: {option!r}", hint="no-new-privileges is known here")
    return bool(options)


def _pull(context: typer.Context, image: str, platform: str | None) -> None:
    from .image_transfer import reporter

    with reporter(quiet=not sys.stderr.isatty()) as report:
        api.pull_image(open_store(context), image, platform=platform, report=report)
