"""The simulator and the lessons: the real engine on layers in memory, with no mount and no privilege, on any system.

    for step in simulate(open("script.union")):
        print(step.command.text, step.output, step.changes)

    simulator("kernel").run(command("mv srv www"))   one at a time; ScriptError where it fails
    teaching = Teaching(lesson("whiteouts"))         a lesson: scene(), then ask() and reveal() of each question

unionfs.explain.simulator lists the commands, unionfs.explain.lesson has the format of a lesson.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unionfs.explain.lesson import Lesson, Question, Revealed, Teaching, check, is_right, lesson, lessons
from unionfs.explain.personality import PERSONALITIES
from unionfs.explain.picture import ENCODINGS, Change, Column, Picture, Shown, Stored
from unionfs.explain.script import Command, parse, parse_line
from unionfs.explain.simulator import VERBS, Simulator, Step, Verb, choose

__all__ = [
    "ENCODINGS",
    "PERSONALITIES",
    "VERBS",
    "Change",
    "Column",
    "Command",
    "Lesson",
    "Question",
    "Revealed",
    "Teaching",
    "check",
    "is_right",
    "lesson",
    "lessons",
    "Picture",
    "Shown",
    "Simulator",
    "Step",
    "Stored",
    "Verb",
    "command",
    "simulate",
    "simulator",
]


def simulator(as_: str = "unionfs", encoding: str = "kernel") -> Simulator:
    """A new simulator. `as_`: behave as unionfs, kernel, docker or fuse-overlayfs. `encoding` of marks: kernel, aufs or
    oci. OptionError for others, and for two that do not go together."""
    return Simulator(*choose(as_, encoding))


def command(text: str, line: int | None = None) -> Command | None:
    """One line of a script; None for an empty one. ScriptError for quotes that are not closed."""
    return parse_line(text, line)


def simulate(lines: Iterable[str], as_: str = "unionfs", encoding: str = "kernel") -> Iterator[Step]:
    """Run a script. Ends with a ScriptError, which has the line, at the first command that fails."""
    running = simulator(as_, encoding)
    for one in parse(lines):
        yield running.run(one)
