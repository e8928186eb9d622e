"""`unionfs trace`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import trace_lines
from .options import AsJson
from .output import as_json_line, flush, note, text, warning
from .style import ColourOption, Style, When, style

if TYPE_CHECKING:
    from unionfs.api.tracing import Event, Listening


def trace(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="A live mount.", show_default=False)],
    paths: Annotated[
        list[str] | None,
        typer.Option(
            "--path",
            metavar="GLOB",
            help="Only what is about this path of the mount, or below it. * matches slashes too. Repeat it.",
            show_default=False,
        ),
    ] = None,
    ops: Annotated[
        list[str] | None,
        typer.Option(
            "--op", metavar="OP", help="Only this of FUSE's opcodes: lookup, open, … Repeat it.", show_default=False
        ),
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only what fails.")] = False,
    copy_ups: Annotated[bool, typer.Option("--copy-ups", help="Only what copies something up.")] = False,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write a recording, for unionfs replay.", show_default=False),
    ] = None,
    json: AsJson = False,
    color: ColourOption = When.AUTO,
) -> None:
    """Show what a mount is asked, what it answers, and what it does for it in which layer; until Ctrl-C.

    A line for each request. Reads and writes of a file that is open with passthrough are the kernel's own, and not
    seen.
    """
    from unionfs.api import tracing  # the engine's values, which no other command needs when it starts

    if record is not None:
        if paths or ops or errors or copy_ups or json:
            raise typer.BadParameter("a recording has everything: leave --path, --op, --errors, --copy-ups, --json out")
        _record(mountpoint, record)
        return
    with _until_interrupted() as ends:
        wanted = tracing.trace(mountpoint, paths=paths or (), ops=ops or (), errors=errors, copy_ups=copy_ups)
        with wanted as listening:
            ends(listening)
            _show(listening, json, style(color, os.environ))
    missing = f", and {listening.dropped} that are missing" if listening.dropped else ""
    note(f"{listening.events} events{missing}")


def _record(mountpoint: str, file: Path) -> None:
    from unionfs.api import tracing

    with _until_interrupted() as ends, tracing.record(mountpoint, file) as recording:
        ends(recording)
        note(f"recording {mountpoint} to {file}; end it with Ctrl-C")
        for _ in recording:
            pass
    note(f"{recording.events} events")


def _show(listening: Listening, json: bool, shown: Style) -> None:
    from unionfs.api import tracing

    passed_by, dropped = False, 0
    for told in listening:
        if isinstance(told, tracing.Dropped):
            dropped = told.missing
            if not json:
                warning(f"{dropped} events are missing here: they came faster than they were read")
            continue
        if told.way == "passthrough" and not passed_by:
            passed_by = True
            note("note: what is opened with passthrough the kernel reads and writes by itself; that is not seen here")
        _print(told, dropped, json, shown)
        dropped = 0


def _print(event: Event, dropped: int, json: bool, shown: Style) -> None:
    if json:
        from .trace_schemas import TraceEvent

        as_json_line(TraceEvent.of(event, dropped))
    else:
        text(trace_lines.line(event, shown))
        flush()


@contextmanager
def _until_interrupted() -> Iterator[Callable[[Listening], None]]:
    """Ctrl-C, or SIGTERM, ends what the function is given after what has come so far; a second one ends all at once.
    One that comes before is not lost: the mount has told of what happened since it was asked."""
    given: list[Listening] = []
    interrupted = False

    def stop(number: int, frame: object) -> None:
        nonlocal interrupted
        signal.signal(number, before[number])
        interrupted = True
        for listening in given:
            listening.stop()

    def ends(listening: Listening) -> None:
        given.append(listening)
        if interrupted:
            listening.stop()

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield ends
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
