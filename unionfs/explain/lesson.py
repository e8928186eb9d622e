"""Lessons: a scene, questions about it, and answers that come out of a real run of the simulator.

A lesson is a file `lessons/NN-NAME.toml`, in the order of NN:

    title, about        what it is called, and a paragraph to begin with
    scene               lines of a simulator's script: layers and a mount
    as, encoding        whose behaviour, and how marks look; left out: ours, the kernel's

    [[question]]
    run                 commands that are given before the question is asked; may be left out
    ask                 the question
    look                the command whose output is the answer, or that is to fail
    pick                a regular expression: only its group is the answer; may be left out
    answer              what the author says it is, which `check` compares with what it really is
    accept              other ways to say it
    because             why
    as                  ask it of another file system, which has been given all the same commands

Nothing that is shown as an answer stands in a lesson's file: `answer` is there to be checked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, NamedTuple

from unionfs.errors import ScriptError, UnionFSError
from unionfs.explain.script import Command, parse
from unionfs.explain.simulator import Simulator, Step, choose

#: What people say for no output at all.
_NOTHING = {"", "nothing", "none", "empty", "no", "-", "–"}
_BETWEEN = re.compile(r"[\s,;`'\"]+")
#: Words that say nothing.
_FILLING = {"and", "the", "a", "it", "is"}


class Question(NamedTuple):
    """See the module. `run` and `look` are script lines."""

    ask: str
    look: str
    answer: str
    because: str
    run: tuple[str, ...] = ()
    pick: str | None = None
    accept: tuple[str, ...] = ()
    as_: str | None = None


class Lesson(NamedTuple):
    number: int
    name: str
    title: str
    about: str
    scene: tuple[str, ...]
    questions: tuple[Question, ...]
    as_: str = "unionfs"
    encoding: str = "kernel"


class Revealed(NamedTuple):
    """`answer` is the whole truth, line by line; `step` the command that was looked with."""

    answer: tuple[str, ...]
    step: Step


def lessons() -> list[Lesson]:
    """All of them, in order."""
    files = (resources.files("unionfs.explain") / "lessons").iterdir()
    return sorted(_load(file.name, file.read_text("utf-8")) for file in files if file.name.endswith(".toml"))


def lesson(wanted: str) -> Lesson:
    """By number, by name, or by how its name begins. ScriptError where that is none, or several."""
    known = lessons()
    found = [one for one in known if wanted in (str(one.number), one.name)]
    found = found or [one for one in known if one.name.startswith(wanted.lower())]
    if len(found) != 1:
        what = "no such lesson" if not found else f"{' or '.join(one.name for one in found)}"
        raise ScriptError(f"{what}: {wanted}", hint="unionfs learn --list")
    return found[0]


def _load(file: str, text: str) -> Lesson:
    """ScriptError for a file that is no lesson."""
    number, _, name = file.removesuffix(".toml").partition("-")
    try:
        data = tomllib.loads(text)
        questions = tuple(_question(one) for one in data.pop("question"))
        about, scene = data.pop("about").strip(), tuple(data.pop("scene").splitlines())
        title, as_, encoding = data.pop("title"), data.pop("as", "unionfs"), data.pop("encoding", "kernel")
        found = Lesson(int(number), name, title, about, scene, questions, as_, encoding)
    except (KeyError, ValueError, TypeError) as e:
        raise ScriptError(f"lesson {file}: {e!r}", hint="the docstring of unionfs.explain.lesson has the format") from e
    if data:
        raise ScriptError(f"lesson {file}: unknown {', '.join(data)}", hint="check the spelling")
    return found


def _question(data: dict[str, Any]) -> Question:
    values = dict(data)
    values["run"] = tuple(values.get("run", "").splitlines())
    values["accept"] = tuple(values.get("accept", ()))
    values["as_"] = values.pop("as", None)
    values["because"] = values["because"].strip()
    return Question(**values)


class Teaching:
    """A lesson being given: `scene` once, then `ask` and `reveal` for each question, in order."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self._as = lesson.as_
        self._given: list[Command] = []
        self._simulator = Simulator(*choose(lesson.as_, lesson.encoding))

    @property
    def simulator(self) -> Simulator:
        return self._simulator

    def scene(self) -> list[Step]:
        return self._run(self.lesson.scene)

    def ask(self, question: Question) -> list[Step]:
        """What is done before the question is asked."""
        wanted = question.as_ or self.lesson.as_
        if wanted != self._as:
            self._as = wanted
            self._simulator = Simulator(*choose(wanted, self.lesson.encoding))
            for command in self._given:
                try:
                    self._simulator.run(command)
                except UnionFSError:
                    pass  # another file system, which may refuse
        return self._run(question.run)

    def reveal(self, question: Question) -> Revealed:
        (step,) = self._run([question.look])
        lines = (step.failure,) if step.failure is not None else step.output
        if question.pick is not None:
            found = re.search(question.pick, "\n".join(lines))
            if found is None:
                raise ScriptError(f"{question.look}: nothing to pick in {' '.join(lines)!r}", hint=question.pick)
            lines = tuple(group for group in found.groups() if group is not None)
        return Revealed(lines, step)

    def _run(self, lines: Iterable[str]) -> list[Step]:
        steps = []
        for command in parse(lines):
            self._given.append(command)
            steps.append(self._simulator.run(command._replace(line=None)))
        return steps


def is_right(given: str, question: Question, revealed: Revealed) -> bool:
    """Does an answer say the same? Order counts only in what a file holds; case, quotes and commas never do."""
    ordered = question.look.split()[0] in ("cat", "read")
    wanted = [_words("\n".join(revealed.answer), ordered), *(_words(one, ordered) for one in question.accept)]
    if revealed.step.failure is not None:
        wanted += [_words(part, ordered) for part in re.split(r"[()]", revealed.answer[0]) if part.strip()]
    return _words(given, ordered) in wanted


def _words(text: str, ordered: bool) -> list[str]:
    if text.strip().lower() in _NOTHING:
        return []
    words = [word.rstrip("/.") or word for word in _BETWEEN.split(text.lower()) if word]
    kept = [word for word in words if word not in _FILLING] or words
    return kept if ordered else sorted(kept)


def check(lesson: Lesson) -> Iterator[str]:
    """What is wrong with a lesson, a line each: commands that fail, answers that are not what really comes out."""
    teaching = Teaching(lesson)
    try:
        teaching.scene()
        for number, question in enumerate(lesson.questions, 1):
            teaching.ask(question)
            revealed = teaching.reveal(question)
            if not is_right(question.answer, question._replace(accept=()), revealed):
                real = " ".join(revealed.answer) or "nothing"
                yield f"question {number}: the answer is said to be {question.answer!r}, and is {real!r}"
    except UnionFSError as e:
        yield str(e)
