"""`unionfs sim` and `unionfs learn`: what is printed, to the letter, in files below tests/golden/sim.

A golden file is what `COLUMNS=… unionfs sim OPTIONS tour.union > FILE` writes: when it is to be another, look at it in
a terminal of that width before it is written anew.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli import sim_schemas
from cli.sim_steps import manual
from cli.style import Style
from tests.unit.cli_runner import PROJECT, Ran, call, program, refused, typed
from unionfs.api.simulation import VERBS
from unionfs.explain.lesson import lessons

GOLDEN = PROJECT / "tests/golden/sim"
#: file -> (script, columns, options)
FILES = {
    "tour-80.txt": ("tour", 80, ()),
    "tour-120.txt": ("tour", 120, ()),
    "tour-50.txt": ("tour", 50, ()),
    "tour-colour.txt": ("tour", 80, ("--color", "always")),
    "tour-brief.txt": ("tour", 80, ("--brief",)),
    "rename-80.txt": ("rename", 80, ()),
    "rename-aufs.txt": ("rename", 80, ("--encoding", "aufs")),
    "rename-oci.txt": ("rename", 80, ("--encoding", "oci")),
    "refused-kernel.txt": ("refused", 80, ("--as", "kernel")),
    "refused-fuse-overlayfs.txt": ("refused", 80, ("--as", "fuse-overlayfs")),
}
COLOUR = re.compile("\x1b\\[[0-9;]*m")


def sim(capsysbinary: pytest.CaptureFixture[bytes], script: str, *options: str) -> Ran:
    return call(capsysbinary, "sim", *options, GOLDEN / f"{script}.union")


@pytest.mark.parametrize("name", FILES)
def test_a_script_prints_what_the_golden_file_says(
    name: str, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, columns, options = FILES[name]
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = sim(capsysbinary, script, *options)
    assert (ran.status, ran.err) == (0, b"")
    assert ran.out.decode() == (GOLDEN / name).read_text("utf-8")


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_no_table_is_wider_than_the_terminal(columns: int) -> None:
    text = (GOLDEN / f"tour-{columns}.txt").read_text("utf-8")
    tables = re.findall(r"(?<=\n\n)( +upper [^\n]*merged\n.*?)(?=\n\n)", text, re.DOTALL)
    assert len(tables) > 8
    for line in "\n".join(tables).splitlines():
        assert sum(2 if character in "世界" else 1 for character in line) <= columns, line


def test_text_is_the_same_without_colour() -> None:
    coloured = (GOLDEN / "tour-colour.txt").read_text("utf-8")
    assert COLOUR.sub("", coloured) == (GOLDEN / "tour-80.txt").read_text("utf-8") != coloured


def test_json_has_every_step(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    steps = json.loads(sim(capsysbinary, "rename", "--json").out)
    assert [step["command"] for step in steps][4:6] == ["mv srv/site srv/www", 'append srv/www/index.html "more"']
    assert all(list(step) == list(sim_schemas.SimulatedStep.model_fields) for step in steps)
    moved = steps[4]
    assert (moved["line"], moved["failure"], moved["layers"][0]["name"]) == (5, None, "upper")
    assert {"path": "srv/www", "kind": "dir", "text": "", "layers": ["upper"]} in moved["merged"]
    assert steps[0]["merged"] is None and steps[-1]["output"] == ["site", "www"]


def test_a_script_ends_at_the_line_that_fails(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    script = tmp_path / "a.union"
    script.write_text("layer base\nwrite a/b 1\nmount\nrmdir a\nls\n")
    ran = call(capsysbinary, "sim", "--brief", script)
    assert (ran.status, ran.lines[-1]) == (1, "> mount")
    assert ran.errors == [
        "error: line 4: rmdir a: ENOTEMPTY (Directory not empty)",
        "hint: rm -r removes a directory with what is in it",
    ]
    ran = call(capsysbinary, "sim", "--json", script)
    assert (ran.status, len(json.loads(ran.out))) == (1, 3)


def test_what_cannot_be_done_is_refused(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    refused(call(capsysbinary, "sim", tmp_path / "nothing"), 1, "No such file")
    refused(
        call(capsysbinary, "sim", "--as", "kernel", "--encoding", "aufs", GOLDEN / "rename.union"), 2, "AUFS", "oci"
    )
    refused(call(capsysbinary, "learn", "nothing"), 1, "no such lesson: nothing", "--list")


def test_a_script_can_come_through_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", "sim", "--brief"],
        input=b"layer base\nwrite a 1\nmount\ncat a\n",
        capture_output=True,
        cwd=PROJECT,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().splitlines()[-2:] == ["> cat a", "    1"]


# at a terminal --------------------------------------------------------------------------------------------------------
def test_the_prompt_goes_on_after_a_mistake() -> None:
    seen = typed("sim", lines=["layer base", "write a 1", "mount", "rm b", "help", "rm a", "quit"])
    assert "error: rm b: ENOENT (No such file or directory)\nhint: ls shows what there is" in seen
    assert "  push [NAME]" in seen and "upper  + a  whiteout: character device 0:0" in seen


def test_the_commands_fit_into_80_columns() -> None:
    lines = list(manual(VERBS, Style(colour=False, width=80)))
    assert len(lines) == len(VERBS) + 2 and max(len(line) for line in lines) < 80


def test_answers_are_asked_for_and_judged() -> None:
    seen = typed("learn", "hard-links", lines=["2", "elf, PATCHED", "gunzip", ""])
    assert re.findall(r"^(Right|Not so)\.$", seen, re.MULTILINE) == ["Right", "Right", "Not so", "Not so"]
    assert seen.rstrip().endswith("2 of 4 right.")
    questions = [seen.index(f"Question {number}.") for number in (1, 2, 3, 4)]
    assert questions == sorted(questions)


# lessons --------------------------------------------------------------------------------------------------------------
def test_a_lesson_in_a_pipe_is_printed_whole(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = call(capsysbinary, "learn", "5")
    assert (ran.status, ran.out.decode()) == (0, (GOLDEN / "lesson-rename.txt").read_text("utf-8"))


def test_the_lessons_are_listed(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    listed = call(capsysbinary, "learn")
    assert listed.lines == call(capsysbinary, "learn", "--list").lines
    assert [line.split()[1] for line in listed.lines] == [one.name for one in lessons()]
    shown = json.loads(call(capsysbinary, "learn", "--json").out)
    assert [list(one) for one in shown] == [list(sim_schemas.Lesson.model_fields)] * len(lessons())


def test_all_lessons_are_checked(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    ran = call(capsysbinary, "learn", "--check")
    assert (ran.status, len(ran.lines), ran.err) == (0, len(lessons()), b"")
    assert all(line.endswith(" questions, ok") for line in ran.lines)


#: A system that has nothing but what Python has everywhere: no libc at hand, no ioctl, no xattr, no owner.
ELSEWHERE = """
import sys, os
for name in ("fcntl", "ctypes", "readline", "pwd", "grp", "resource"):
    sys.modules[name] = None
for name in dir(os):
    if name.startswith(("O_", "SEEK_", "sched_", "pr", "get", "set", "list", "remove")) and name not in (
        "O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "SEEK_SET", "SEEK_CUR",
        "SEEK_END", "getpid", "getppid", "getcwd", "getcwdb", "getenv", "get_terminal_size", "listdir", "remove",
        "removedirs", "get_inheritable", "set_inheritable", "get_blocking", "set_blocking", "getlogin",
        "get_exec_path",
    ):
        delattr(os, name)
from unionfs.api import simulation
assert not [name for name in sys.modules if name.startswith("unionfs.linux.")], sys.modules
steps = list(simulation.simulate(open(sys.argv[1], encoding="utf-8")))
print(len(steps))
"""


def test_a_system_that_is_not_linux(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, GOLDEN / "tour.union"],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 20


def test_the_command_is_installed_with_its_lessons() -> None:
    assert program("learn", "--check", "layers").lines == ["  1  layers: 4 questions, ok"]
