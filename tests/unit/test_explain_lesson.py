"""Lessons: what they claim is what happens, and answers are compared with sense."""

from __future__ import annotations

import pytest

from unionfs.errors import ScriptError
from unionfs.explain import lesson as lessons_module
from unionfs.explain.lesson import Lesson, Question, Teaching, check, is_right, lesson, lessons

TOPICS = set("layers copy-up whiteouts opaque rename hard-links open-files commit images metacopy".split())


def taught(*questions: Question, scene: str = "layer base\nwrite etc/a one\nwrite etc/b two\nmount") -> Lesson:
    return Lesson(1, "test", "Test", "", tuple(scene.splitlines()), questions)


def asked(look: str, run: str = "", pick: str | None = None, accept: tuple[str, ...] = ()) -> Question:
    return Question("?", look, "", "", tuple(run.splitlines()), pick, accept)


def right(question: Question, given: str) -> bool:
    teaching = Teaching(taught(question))
    teaching.scene()
    teaching.ask(question)
    return is_right(given, question, teaching.reveal(question))


@pytest.mark.parametrize("one", lessons(), ids=[one.name for one in lessons()])
def test_every_answer_is_what_happens(one: Lesson) -> None:
    assert list(check(one)) == []
    assert len(one.questions) >= 3 and all(question.ask and question.because for question in one.questions)


def test_the_lessons_are_numbered_without_a_gap() -> None:
    known = lessons()
    assert [one.number for one in known] == list(range(1, len(known) + 1))
    assert {one.name for one in known} >= TOPICS


@pytest.mark.parametrize("given", ["a b", "b a", "a, b", "a and b", "`a`, `b`", "A\nB", "a/ b"])
def test_a_listing_is_right_in_any_order(given: str) -> None:
    assert right(asked("ls etc"), given)


@pytest.mark.parametrize("given", ["a", "a b c", "", "nothing", "ab"])
def test_a_listing_is_wrong_with_a_name_too_many_or_too_few(given: str) -> None:
    assert not right(asked("ls etc"), given)


def test_the_lines_of_a_file_have_an_order() -> None:
    question = asked("cat etc/a", "append etc/a more")
    assert right(question, "one more") and right(question, "One\nmore.") and not right(question, "more one")


@pytest.mark.parametrize("given", ["", "nothing", "None", "empty", "-"])
def test_nothing_can_be_said_in_many_ways(given: str) -> None:
    assert right(asked("ls upper:"), given)
    assert not right(asked("ls upper:"), "etc")


@pytest.mark.parametrize("given", ["ENOTEMPTY", "enotempty", "Directory not empty", "ENOTEMPTY (Directory not empty)"])
def test_a_failure_is_known_by_its_name_or_by_its_words(given: str) -> None:
    assert right(asked("fails rmdir etc"), given) and not right(asked("fails rmdir etc"), "EXDEV")


def test_only_what_is_picked_is_the_answer_and_other_words_may_do() -> None:
    question = asked("stat etc/a", pick=r"links (\d+)", accept=("one",))
    assert right(question, "1") and right(question, "one") and not right(question, "2")


def test_a_question_about_another_file_system_is_put_to_that_one() -> None:
    question = Question("?", "fails mv etc cfg", "EXDEV", "", as_="kernel")
    teaching = Teaching(taught(asked("ls", "mv etc cfg\nmv cfg etc"), question))
    teaching.scene()
    teaching.ask(teaching.lesson.questions[0])
    teaching.ask(question)
    assert teaching.reveal(question).answer == ("EXDEV (Invalid cross-device link)",)


def test_a_wrong_lesson_is_found() -> None:
    wrong = taught(asked("ls etc"), asked("stat etc/a", pick="inode (x)"))
    assert list(check(wrong)) == [
        "question 1: the answer is said to be '', and is 'a b'",
        "stat etc/a: nothing to pick in 'mode -rw-r--r--  owner 0:0  size 4  links 1  inode 1'",
    ]
    assert list(check(taught(scene="layer base\nmuont"))) == ["no such command: muont"]


@pytest.mark.parametrize(("wanted", "name"), [("3", "whiteouts"), ("white", "whiteouts"), ("Layers", "layers")])
def test_a_lesson_goes_by_number_and_by_how_its_name_begins(wanted: str, name: str) -> None:
    assert lesson(wanted).name == name


@pytest.mark.parametrize(("wanted", "message"), [("99", "no such lesson"), ("co", "copy-up or commit"), ("", " or ")])
def test_what_is_no_lesson_or_several_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        lesson(wanted)


@pytest.mark.parametrize(
    "text",
    ["title = ", "title = 'a'", "title = 'a'\nabout = 'b'\nscene = 'c'\nquestion = [{ask = 'd'}]",
     "title = 'a'\nabout = 'b'\nscene = 'c'\nquestion = []\ncolour = 'red'"],
    ids=["no TOML", "fields missing", "a field of a question missing", "a field too many"],
)  # fmt: skip
def test_a_file_that_is_no_lesson_is_refused(text: str) -> None:
    with pytest.raises(ScriptError, match=r"lesson 01-x\.toml"):
        lessons_module._load("01-x.toml", text)
