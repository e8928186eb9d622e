"""A `Step` of the simulator as lines: the command, what it printed, the layers, what has changed on their disks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .sim_table import table
from .style import Style, columns, fit, printable

if TYPE_CHECKING:
    from unionfs.api.simulation import Step, Verb

_SIGNS = {"+": "green", "-": "red", "~": "yellow"}
#: An indentation that is the same for all that belongs to a command.
_IN = "    "


def lines(step: Step, encoding: str, style: Style, *, echo: bool = True, brief: bool = False) -> Iterator[str]:
    """`echo`: begin with the command itself. `brief`: without the table."""
    if not step.command.words:
        yield style.paint(step.command.text, "dim")
        return
    if echo:
        yield style.paint(f"> {step.command.text}", "bold")
    for line in step.output:
        yield _IN + printable(line)
    if step.failure is not None:
        yield _IN + style.paint(f"fails: {step.failure}", "yellow")
        if step.hint:
            yield from textwrap.wrap(step.hint, style.width - 1, initial_indent=_IN, subsequent_indent=_IN)
    mounting = step.command.words[0] in ("mount", "push", "pop", "undo", "show", "remount")
    if step.drawn and not brief and (step.picture.merged is not None or mounting):
        yield ""
        yield from table(step.picture, encoding, style)
    roomy = step.picture.merged is not None and not brief
    if step.changes and step.command.words[0] not in ("push", "pop", "undo"):
        if roomy:
            yield ""
        yield from _changes(step, style)
    if step.drawn and roomy:
        yield ""


def _changes(step: Step, style: Style) -> Iterator[str]:
    layer = max(columns(change.layer) for change in step.changes)
    path = min(40, max(columns(printable(change.path)) for change in step.changes))
    for change in step.changes:
        sign = style.paint(change.sign, _SIGNS[change.sign])
        where = printable(change.path)
        yield f"  {fit(change.layer, layer)}  {sign} {where:<{path}}  {printable(change.text)}".rstrip()


def manual(verbs: Mapping[str, Verb], style: Style) -> Iterator[str]:
    """All commands, one a line."""
    width = max(len(f"{name} {verb.usage}") for name, verb in verbs.items())
    for name, verb in verbs.items():
        yield f"  {style.paint(fit(f'{name} {verb.usage}', width), 'bold')}  {verb.help}"
    yield f"  {style.paint(fit('fails COMMAND', width), 'bold')}  a command that is to fail"
    yield f"  {style.paint(fit('# TEXT', width), 'bold')}  a remark"
