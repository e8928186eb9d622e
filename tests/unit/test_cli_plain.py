"""The quick reading of command lines: the same as typer's, or none."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cli import main, plain
from cli.verbs import _command
from tests.unit.cli_runner import call, refused

LINES = [
    ("run", "box"),
    ("run", "--rm", "-it", "box", "sh", "-c", "x --rm -y"),
    ("run", "-eA=1", "-e", "B=2", "--env=C", "--name", "n", "-p", "80:80", "box", "--", "-x"),
    ("run", "-dit", "-w/srv", "-m64m", "--network=none", "box", "true"),
    ("run", "-v", "/a:/b:ro", "--volume=/c:/d", "-u", "1:2", "--entrypoint", "", "box"),
    ("run", "--", "box", "-x"),
    ("exec", "-it", "-u", "root", "one", "sh", "-l"),
    ("ps",),
    ("ps", "-aq", "--no-trunc", "-f", "name=x", "--filter=status=exited", "--format", "{{.ID}}", "-n", "5"),
    ("ps", "-n3", "--last=4"),
    ("logs", "-f", "one", "-n5"),
    ("logs", "one", "--follow", "--tail=all", "--since", "1h"),
    ("start", "-ai", "one"),
    ("stop", "-t", "1.5", "one", "two"),
    ("stop", "one", "--time=-1"),
    ("kill", "one", "-s", "HUP"),
    ("rm", "-fv", "one", "two"),
    ("wait", "--", "-one"),
]


def by_typer(line: tuple[str, ...]) -> dict[str, Any]:
    """What typer calls the verb with, the defaults left out."""
    command = _command(line[0], main.VERBS[line[0]])
    context = command.make_context(line[0], list(line[1:]))
    return dict(context.params)


def by_plain(line: tuple[str, ...]) -> dict[str, Any] | None:
    function: Callable[..., Any] = plain._function(main.VERBS[line[0]])
    try:
        return plain.parse(function, line[1:], interspersed=plain.VERBS[line[0]])
    except plain.NotPlainError:
        return None


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_it_reads_what_typer_reads(line: tuple[str, ...]) -> None:
    wanted, found = by_typer(line), by_plain(line)
    assert found is not None
    assert {name: wanted[name] for name in found} == found
    parameters = inspect.signature(plain._function(main.VERBS[line[0]])).parameters
    for name in wanted.keys() & parameters.keys() - found.keys():  # not said
        assert (wanted[name] or None) == (parameters[name].default or None), name


@pytest.mark.parametrize(
    "line",
    [
        ("run",), ("run", "--help"), ("run", "-h", "box"), ("run", "--bang", "box"), ("run", "-x", "box"),
        ("run", "--name"), ("run", "--rm=yes", "box"), ("run", "--na", "x", "box"), ("ps", "-n", "many"),
        ("ps", "too", "many"), ("exec", "one"), ("logs",), ("logs", "a", "b"), ("stop", "-t"), ("rm", "-fz", "x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_wrong_or_not_plain_is_typers(line: tuple[str, ...]) -> None:
    assert by_plain(line) is None


def test_every_verb_can_be_read_so() -> None:
    for verb in plain.VERBS:
        function = plain._function(main.VERBS[verb])
        try:
            plain.parse(function, ["a", "b"] if verb == "exec" else [] if verb == "ps" else ["a"], interspersed=True)
        except plain.NotPlainError:
            raise AssertionError(f"{verb} has an option that is not plain") from None


def test_other_verbs_are_typers() -> None:
    assert plain.call(["mounts"], main.VERBS) is None
    assert plain.call([], main.VERBS) is None
    assert plain.call(["--store", "x", "image", "ls"], main.VERBS) is None


def test_a_usage_error_of_a_verb_names_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    refused(call(capsysbinary, "ps", "-f", "color=red"), 2, "invalid filter 'color'", "unionfs ps --help")


def test_pydantic_is_not_needed_to_read_it() -> None:
    program = (
        "import sys; from cli import main, plain; assert plain.call(sys.argv[1:], main.VERBS); "
        "print([name for name in sys.modules if name.startswith(('pydantic', 'rich'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "--rm", "box", "true"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
