"""`unionfs sim`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from unionfs import api

from . import sim_steps
from .options import AsJson
from .output import as_json, failure, text
from .style import ColourOption, Style, When, style

if TYPE_CHECKING:
    from unionfs.api import simulation

_PROMPT = "union> "


class As(StrEnum):
    """Whose behaviour is shown."""

    UNIONFS = "unionfs"
    KERNEL = "kernel"
    DOCKER = "docker"
    FUSE_OVERLAYFS = "fuse-overlayfs"


class Encoding(StrEnum):
    """How marks are written."""

    KERNEL = "kernel"
    AUFS = "aufs"
    OCI = "oci"


AsOption = Annotated[As, typer.Option("--as", help="Behave as this one is known to.")]
EncodingOption = Annotated[
    Encoding, typer.Option("--encoding", help="How whiteouts look: a device, a .wh. file, or in a layer tar.")
]


def sim(
    script: Annotated[
        Path | None,
        typer.Argument(metavar="SCRIPT", help="Commands, one a line; - or nothing: as typed.", show_default=False),
    ] = None,
    as_: AsOption = As.UNIONFS,
    encoding: EncodingOption = Encoding.KERNEL,
    brief: Annotated[bool, typer.Option("--brief", help="Only what changes, without the tables.")] = False,
    json: AsJson = False,
    color: ColourOption = When.AUTO,
) -> None:
    """Try out a union: layers in memory, the real engine, no mount, no root.

    Give layers with `layer NAME` and fill them, `mount`, and change the tree as in a shell (`help` lists the commands);
    after each the layers are shown, the merged tree, and what has changed on disk.
    """
    from unionfs.api import simulation  # the engine, which no other command needs when it starts

    if script is None and sys.stdin.isatty() and not json:
        _converse(simulation.simulator(as_, encoding), encoding, style(color, os.environ), brief)
        return
    source = _lines(script)
    steps = simulation.simulate(source, as_, encoding)
    if json:
        _print_json(steps)
        return
    shown = style(color, os.environ)
    for step in steps:
        _print(step, encoding, shown, brief)


def _lines(script: Path | None) -> TextIO:
    """A script in UTF-8; other bytes stay what they are."""
    if script is not None and str(script) != "-":
        return script.open(encoding="utf-8", errors="surrogateescape")
    return open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", closefd=False)


def _print_json(steps: Iterator[simulation.Step]) -> None:
    """What was done before a failure is printed too; the failure goes the way of all."""
    from . import sim_schemas

    done: list[sim_schemas.SimulatedStep] = []
    try:
        for step in steps:
            if step.command.words:
                done.append(sim_schemas.SimulatedStep.of(step))
    finally:
        as_json(done)


def _print(step: simulation.Step, encoding: str, shown: Style, brief: bool, *, echo: bool = True) -> None:
    for line in sim_steps.lines(step, encoding, shown, echo=echo, brief=brief):
        text(line)


def _converse(simulator: simulation.Simulator, encoding: str, shown: Style, brief: bool) -> None:
    """The prompt. A failure is said, and the next line asked for."""
    try:
        import readline  # noqa: F401  # input() has history with it; not every system has it
    except ImportError:
        pass
    from unionfs.api import simulation

    text("help lists the commands; begin with: layer base")
    for line in _typed(sys.stdin):
        if line in ("quit", "exit"):
            return
        if line == "help":
            for one in sim_steps.manual(simulation.VERBS, shown):
                text(one)
            continue
        try:
            command = simulation.command(line)
            if command is not None:
                _print(simulator.run(command), encoding, shown, brief, echo=False)
        except api.UnionFSError as e:
            failure(e)


def _typed(stdin: TextIO) -> Iterator[str]:
    while True:
        try:
            yield input(_PROMPT).strip()
        except EOFError:
            text("")
            return
