"""`unionfs learn`."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson
from .output import as_json, error, text
from .sim_table import table
from .style import ColourOption, Style, When, style

if TYPE_CHECKING:
    from unionfs.api import simulation

_PROMPT = "your answer: "


def learn(
    name: Annotated[
        str | None,
        typer.Argument(metavar="LESSON", help="Its number, or how its name begins.", show_default=False),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Which lessons there are; so it is without LESSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Run all, and compare the answers with what happens.")] = False,
    json: AsJson = False,
    color: ColourOption = When.AUTO,
) -> None:
    """Learn how a union works: a scene, a question, and the answer from a real run.

    On a terminal answers are asked for; else the whole lesson is printed.
    """
    from unionfs.api import simulation  # the engine, which no other command needs when it starts

    if check:
        _check(name)
    elif name is None or list_ or json:
        _list(style(color, os.environ), json)
    else:
        _Classroom(simulation.lesson(name), style(color, os.environ)).give()


def _list(shown: Style, json: bool) -> None:
    from unionfs.api import simulation

    known = simulation.lessons()
    if json:
        from . import sim_schemas

        as_json([sim_schemas.Lesson.of(one) for one in known])
        return
    width = max(len(one.name) for one in known)
    for one in known:
        text(f"{one.number:>3}  {shown.paint(f'{one.name:<{width}}', 'bold')}  {one.title}")


def _check(name: str | None) -> None:
    from unionfs.api import simulation

    wrong = 0
    for one in simulation.lessons() if name is None else [simulation.lesson(name)]:
        faults = list(simulation.check(one))
        text(f"{one.number:>3}  {one.name}: {len(one.questions)} questions, {'ok' if not faults else 'WRONG'}")
        for fault in faults:
            error(f"lesson {one.name}: {fault}")
        wrong += len(faults)
    if wrong:
        raise typer.Exit(1)


class _Classroom:
    """One lesson, given to somebody at a terminal or written out."""

    def __init__(self, lesson: simulation.Lesson, shown: Style) -> None:
        from unionfs.api import simulation

        self._lesson = lesson
        self._style = shown
        self._teaching = simulation.Teaching(lesson)
        self._drawn: simulation.Picture | None = None
        self._asks = sys.stdin.isatty() and sys.stdout.isatty()

    def give(self) -> None:
        lesson, paint = self._lesson, self._style.paint
        text(paint(f"{lesson.number}. {lesson.title}", "bold"))
        text("")
        self._paragraph(lesson.about)
        text("")
        steps = self._teaching.scene()
        for step in steps:
            text("  " + paint(step.command.text, "dim"))
        # What people see is what is asked about.
        self._table(steps[-1].picture._replace(merged=None))
        picture, right = steps[-1].picture, 0
        for number, question in enumerate(lesson.questions, 1):
            if number > 1 and (question.run or question.as_ != lesson.questions[number - 2].as_):
                self._table(picture)
            answered, picture = self._question(number, question)
            right += answered
        self._table(picture)
        if self._asks:
            text(f"{right} of {len(lesson.questions)} right.")

    def _question(self, number: int, question: simulation.Question) -> tuple[bool, simulation.Picture]:
        for step in self._teaching.ask(question):
            text(f"  {self._style.paint('> ' + step.command.text, 'bold')}")
        if question.run:
            text("")
        self._paragraph(f"Question {number}. {question.ask}", "bold")
        from unionfs.api import simulation

        given = self._typed() if self._asks else None
        revealed = self._teaching.reveal(question)
        right = given is not None and simulation.is_right(given, question, revealed)
        if given is not None:
            text(self._style.paint("Right." if right else "Not so.", "green" if right else "yellow"))
        if question.pick is None:
            text(f"  {self._style.paint('> ' + question.look, 'bold')}")
        for line in revealed.answer or ("(nothing)",):
            text(f"    {self._style.paint(line, 'green')}")
        self._paragraph(question.because)
        text("")
        return right, revealed.step.picture

    def _typed(self) -> str:
        try:
            return input(_PROMPT)
        except EOFError:
            text("")
            return ""

    def _paragraph(self, words: str, *colours: str) -> None:
        for line in textwrap.wrap(" ".join(words.split()), min(self._style.width, 100) - 1):
            text(self._style.paint(line, *colours))

    def _table(self, picture: simulation.Picture) -> None:
        """Unless nothing has changed since the last one. Never before all questions about it have been asked."""
        if picture == self._drawn:
            return
        if self._drawn is None:
            text("")
        self._drawn = picture
        for line in table(picture, self._lesson.encoding, self._style):
            text(line)
        text("")
