"""The typer application and `main`, where every failure becomes an `error:` line, a `hint:` line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from unionfs import __version__
from unionfs.api import OptionError, UnionFSError

from .options import SETTINGS, StoreOption, choose_store
from .output import INTERRUPTED, ContainerStatus, Interrupted, Trouble, error, failure, flush, text
from .program import verb
from .verbs import group

#: What typer raises for wrong arguments. Its class is public only as the base of BadParameter.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

#: docker's exit status of `run` for whatever is not the container's own.
RUN_FAILED = 125

VERBS = {
    "mount": "mount:mount",
    "umount": "umount:umount",
    "remount": "remount:remount",
    "mounts": "mounts:mounts",
    "which": "which:which",
    "trace": "trace:trace",
    "replay": "replay:replay",
    "blame": "blame:blame",
    "waste": "waste:waste",
    "explore": "explore:explore",
    "show": "show:show",
    "diff": "diff:diff",
    "snapshot": "snapshot:snapshot",
    "commit": "commit:commit",
    "apply": "apply:apply",
    "check": "check:check",
    "convert": "convert:convert",
    "run": "run:app",
    "ps": "ps:ps",
    "exec": "exec:app",
    "logs": "logs:logs",
    "inspect": "inspect:inspect",
    "start": "container_verbs:start",
    "stop": "container_verbs:stop",
    "kill": "container_verbs:kill",
    "wait": "container_verbs:wait",
    "rm": "container_verbs:rm",
    "cp": "cp:cp",
    "export": "cp:export",
    "doctor": "doctor:doctor",
    "info": "info:info",
    "demo": "demo:demo",
    "sim": "sim:sim",
    "learn": "learn:learn",
    "login": "login:login",
    "logout": "login:logout",
    "search": "search:search",
    "image": "image:app",
    "completion": "completion:completion",
}

app = typer.Typer(
    name="unionfs",
    cls=group(VERBS),
    help="Stack read-only layers under a writable upper, mount the result, commit the changes as an OCI layer.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        text(f"unionfs {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    store: StoreOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    choose_store(context, store)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; default: the process's) and return the exit status: an
    `Interrupted` after Ctrl-C, of which whoever started this process is to learn (`program`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["__complete"]:  # what the shells' completion asks
        from . import complete

        return complete.main(arguments[1:])
    try:
        status = app(arguments, prog_name="unionfs", standalone_mode=False)
        flush()
    except KeyboardInterrupt:
        return _interrupted()
    except (typer.Abort, UsageError, UnionFSError, OSError, Trouble) as e:
        return _report(e, arguments)
    if isinstance(status, ContainerStatus | Interrupted):
        return status
    if status == INTERRUPTED:
        return _interrupted()
    return status if isinstance(status, int) else 0


def _report(e: Exception, arguments: Sequence[str]) -> int:
    if isinstance(e, UsageError):
        context = getattr(e, "ctx", None)
        if context is not None:
            command = context.command_path
        else:  # typer does not say of which command, where an option has a value that takes none
            command = _command_of(arguments)
        error(_usage_message(e), f"{command} --help")
        return RUN_FAILED if command == "unionfs run" else 2
    if isinstance(e, Trouble):
        assert isinstance(e.cause, Exception)
        _report(e.cause, arguments)
        return e.status
    if isinstance(e, BrokenPipeError):
        return 1  # whoever read our output has had enough
    if isinstance(e, UnionFSError | OSError):
        failure(e)
        return 2 if isinstance(e, OptionError) else 1
    status = _interrupted()  # typer.Abort: at a prompt, by Ctrl-C or Ctrl-D
    return status if isinstance(e.__context__, KeyboardInterrupt) else 1


def _command_of(arguments: Sequence[str]) -> str:
    word = verb(arguments)
    if word not in VERBS:
        return "unionfs"
    if word == "image":
        from .image import VERBS as VERBS_OF_IMAGE

        second = verb(arguments[arguments.index("image") + 1 :])
        return f"unionfs image {second}" if second in VERBS_OF_IMAGE else "unionfs image"
    return f"unionfs {word}"


def _interrupted() -> Interrupted:
    error("interrupted")
    return INTERRUPTED


def _usage_message(e: Exception) -> str:
    format_message = getattr(e, "format_message", None)
    message = " ".join(str(format_message() if format_message is not None else e).split())  # choices come one a line
    if message.startswith("Invalid value: "):  # what we raise, of no one option
        return message.removeprefix("Invalid value: ")
    return message[:1].lower() + message[1:].rstrip(".")
