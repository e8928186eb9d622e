"""`unionfs replay`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unionfs import api

from . import trace_lines
from .options import AsJson
from .output import as_json, failure, text, warning
from .sim_table import table
from .style import ColourOption, Style, When, fit, printable, style

if TYPE_CHECKING:
    from unionfs.api.tracing import Replay, Replayed

_PROMPT = "replay> "
_SIGNS = {"+": "green", "-": "red", "~": "yellow"}
_MANUAL = (
    ("next, or nothing", "the next operation"),
    ("undo", "take the last one back"),
    ("run", "all that are left"),
    ("goto N", "to where N operations are done"),
    ("list", "all operations"),
    ("show", "the layers as they are now"),
    ("quit", "the end"),
)


def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recording of unionfs trace --record.", show_default=False)
    ],
    brief: Annotated[bool, typer.Option("--brief", help="Only what changes, without the tables.")] = False,
    json: AsJson = False,
    color: ColourOption = When.AUTO,
) -> None:
    """Do a recording once more, by the same engine on layers in memory: what each operation did to which layer.

    On a terminal step by step, forwards and backwards; else all of it. Exit status 1 if something came out otherwise.
    """
    from unionfs.api import tracing  # the engine, which no other command needs when it starts

    replaying = tracing.replay(file)
    try:
        if not replaying.recording.complete:
            warning("the recording was cut off: its end is missing")
        shown = style(color, os.environ)
        if json:
            wrong = _print_json(replaying)
        elif sys.stdin.isatty() and sys.stdout.isatty():
            _Prompt(replaying, shown, brief).converse()
            return
        else:
            wrong = _print_all(replaying, shown, brief)
        if wrong:
            raise typer.Exit(1)
    finally:
        replaying.close()


def _print_json(replaying: Replay) -> int:
    from .replay_schemas import ReplayStep

    steps = [ReplayStep.of(replayed) for replayed in replaying.run()]
    as_json(steps)
    return sum(step.differs for step in steps)


def _print_all(replaying: Replay, shown: Style, brief: bool) -> int:
    _print_table(replaying, shown)
    wrong = 0
    for replayed in replaying.run():
        wrong += replayed.differs
        _print(replayed, shown, brief)
    if not brief:
        text("")
        _print_table(replaying, shown)
    return wrong


def _print(replayed: Replayed, shown: Style, brief: bool) -> None:
    for line in lines(replayed, shown):
        text(line)
    if replayed.differs:
        was = replayed.recorded.error or "no failure"
        warning(f"{replayed.number}: {replayed.now.error or 'no failure'}, where the recording has {was}")


def lines(replayed: Replayed, shown: Style) -> Iterator[str]:
    yield f"{replayed.number:>4} {trace_lines.line(replayed.now._replace(data=replayed.recorded.data), shown)}"
    width = max((len(change.layer) for change in replayed.changes), default=0)
    for change in replayed.changes:
        sign = shown.paint(change.sign, _SIGNS[change.sign])
        yield f"       {fit(change.layer, width)}  {sign} {printable(change.path)}  {printable(change.text)}".rstrip()


def _print_table(replaying: Replay, shown: Style) -> None:
    for line in table(replaying.picture, "kernel", shown):
        text(line)
    text("")


class _Prompt:
    def __init__(self, replaying: Replay, shown: Style, brief: bool) -> None:
        self._replaying = replaying
        self._style = shown
        self._brief = brief

    def converse(self) -> None:
        """A failure is said, and the next line asked for."""
        try:
            import readline  # noqa: F401  # input() has history with it; not every system has it
        except ImportError:
            pass
        _print_table(self._replaying, self._style)
        text(f"{len(self._replaying.events)} operations; help lists the commands")
        while True:
            self._announce()
            try:
                words = input(_PROMPT).split()
            except EOFError:
                text("")
                return
            if words[:1] in (["quit"], ["exit"]):
                return
            try:
                self._do(*(words or ["next"]))
            except api.UnionFSError as e:
                failure(e)

    def _announce(self) -> None:
        """What comes next, so that one may guess what it will do."""
        event = self._replaying.next
        if event is None:
            text("no operation is left")
            return
        asked = trace_lines.line(event._replace(steps=(), found=None, error=None, way=None, amount=None), self._style)
        text(f"{self._replaying.done + 1:>4} {asked.removesuffix(' = ok')} …")

    def _do(self, verb: str, *arguments: str) -> None:
        replaying = self._replaying
        if verb == "goto" and len(arguments) == 1 and arguments[0].isascii() and arguments[0].isdigit():
            replaying.go_to(int(arguments[0]))
            _print_table(replaying, self._style)
        elif arguments or verb not in ("next", "undo", "run", "list", "show", "help"):
            raise api.OptionError(f"no such command: {' '.join([verb, *arguments])}", hint="help lists them")
        elif verb == "help":
            for usage, what in _MANUAL:
                text(f"  {self._style.paint(f'{usage:<18}', 'bold')}{what}")
        elif verb == "list":
            for number, event in enumerate(replaying.events, 1):
                mark = ">" if number == replaying.done + 1 else " "
                text(f"{mark}{number:>4} {trace_lines.line(event._replace(steps=()), self._style)}")
        elif verb == "undo" and not replaying.undo():
            raise api.OptionError("nothing has been done yet", hint="next does the first operation")
        elif verb == "run":
            for replayed in replaying.run():
                _print(replayed, self._style, self._brief)
        elif verb == "next":
            done = replaying.step()
            if done is not None:
                _print(done, self._style, self._brief)
        if verb in ("undo", "show") or (verb in ("next", "run") and not self._brief):
            _print_table(replaying, self._style)
