"""The command line as a whole: version, help, usage errors, exit statuses, streams."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.image import VERBS as IMAGE_VERBS
from cli.main import VERBS
from tests.unit.cli_runner import PROJECT, call, process_of, program, refused
from unionfs import __version__

Capture = pytest.CaptureFixture[bytes]


def test_version(capsysbinary: Capture) -> None:
    ran = call(capsysbinary, "--version")
    assert (ran.status, ran.out, ran.err) == (0, f"unionfs {__version__}\n".encode(), b"")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_verb(capsysbinary: Capture, flag: str) -> None:
    ran = call(capsysbinary, flag)
    assert ran.status == 0 and ran.err == b""
    assert [line.split()[0] for line in ran.lines[-len(VERBS) :]] == list(VERBS)


def test_help_on_images_names_every_verb(capsysbinary: Capture) -> None:
    ran = call(capsysbinary, "image", "--help")
    assert [line.split()[0] for line in ran.lines[-len(IMAGE_VERBS) :]] == list(IMAGE_VERBS)


@pytest.mark.parametrize("group", [(), ("image",)])
def test_what_the_list_says_of_a_verb_is_whole(capsysbinary: Capture, group: tuple[str, ...]) -> None:
    listed = call(capsysbinary, *group, "--help").out.partition(b"Commands:")[2].decode()
    assert "..." not in listed and all(re.match(r"  \w+ +\S", line) for line in listed.splitlines()[1:])


def section(document: str, title: str) -> str:
    return (PROJECT / document).read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_readme_names_every_verb() -> None:
    named = set(re.findall(r"`(\S+?)(?: …)?`", section("README.md", "Commands")))
    assert {*VERBS, *IMAGE_VERBS} - named == set()


@pytest.mark.parametrize(
    "verb", [*(verb for verb in VERBS if verb != "image"), *(f"image {verb}" for verb in IMAGE_VERBS)]
)
def test_every_option_in_a_verbs_help_stands_in_the_reference(capsysbinary: Capture, verb: str) -> None:
    table = section("docs/reference.md", "Commands")
    ran = call(capsysbinary, *verb.split(), "--help")
    assert ran.status == 0
    options = {word.strip(",") for line in ran.lines for word in line.split()[:3] if word.startswith("--")}
    options -= {"--help"}
    starts = (f"| `unionfs {verb} ", f"| `unionfs {verb}`")
    row = next(line for line in table.splitlines() if line.startswith(starts))
    assert {option for option in options if option not in row} == set()


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        ((), "missing command", "unionfs --help"),
        (("explode",), "no such command 'explode'", "unionfs --help"),
        (("mount",), "missing argument 'MOUNTPOINT'", "unionfs mount --help"),
        (("umount", "--bang", "x"), "no such option: --bang", "unionfs umount --help"),
        (("mount", "-l"), "option '-l' requires an argument", "--help"),
        (("mount", "--transport", "pigeon", "x"), "pigeon", "unionfs mount --help"),
        (("diff",), "give a MOUNTPOINT, or the layers with -l and the upper with -u", "unionfs diff --help"),
        (("diff", "-l", "a"), "give a MOUNTPOINT, or the layers", "unionfs diff --help"),
        (("diff", "m", "-l", "a", "-u", "b"), "not both", "unionfs diff --help"),
        (("show",), "give a STACK, or the layers with -l", "unionfs show --help"),
        (("show", "m", "-l", "a"), "not both", "unionfs show --help"),
        (("show", "m", "--svg", "--html"), "one of --svg, --html and --json", "unionfs show --help"),
        (("show", "m", "-o", "x.png"), "-o is about a picture", "unionfs show --help"),
        (("show", "m", "--json", "-o", "x.svg"), "-o is about a picture", "unionfs show --help"),
        (("show", "m", "--json", "--max-rows", "3"), "JSON has all rows", "unionfs show --help"),
        (("show", "m", "--depth", "-1"), "depth", "unionfs show --help"),
        (("commit", "m"), "give NAME[:TAG] for an image, or -o FILE for a layer tar", "unionfs commit --help"),
        (("commit", "m", "x:1", "-o", "x.tar"), "not both", "unionfs commit --help"),
        (("commit", "m", "x:1", "-l", "a", "-u", "b"), "not both", "unionfs commit --help"),
        (("commit", "m", "-o", "x.tar", "-m", "text"), "-a, -m and -c are about an image", "unionfs commit --help"),
        (("mount", "--name", "x", "m"), "--name and --platform are about an --image", "unionfs mount --help"),
        (("image",), "missing command", "unionfs image --help"),
        (("image", "explode"), "no such command 'explode'", "unionfs image --help"),
        (("image", "rm"), "missing argument 'IMAGE'", "unionfs image rm --help"),
        (("image", "tag", "x"), "missing argument 'TARGET[:TAG]'", "unionfs image tag --help"),
        (("image", "ls", "--format", "{{.Bogus}}"), "there is no field Bogus", "unionfs image ls --help"),
        (("commit", "m", "-o", "x.tar", "--compression", "arj"), "arj", "unionfs commit --help"),
        (("doctor", "--bang"), "no such option: --bang", "unionfs doctor --help"),
        (("apply", "x.tar"), "missing argument 'DIRECTORY'", "unionfs apply --help"),
    ],
)
def test_usage_errors_are_status_2_with_a_hint(
    capsysbinary: Capture, argv: tuple[str, ...], error: str, hint: str
) -> None:
    refused(call(capsysbinary, *argv), 2, error, hint)


def test_a_value_for_an_option_that_takes_none_is_an_error_of_its_command(capsysbinary: Capture) -> None:
    """typer does not say of which."""
    refused(call(capsysbinary, "ps", "--all=1"), 2, "option '--all' does not take a value", "unionfs ps --help")
    refused(call(capsysbinary, "image", "ls", "--all=1"), 2, "does not take", "unionfs image ls --help")
    refused(call(capsysbinary, "image", "--store", "ls", "rm", "-f", "--format"), 2, "", "unionfs image rm --help")
    refused(call(capsysbinary, "--store=x", "run", "--rm=true", "box"), 125, "does not take", "unionfs run --help")


@pytest.mark.parametrize("argv", [("--version",), ("explode",), ("diff", "/nonexistent")])
def test_a_process_of_its_own_says_and_returns_the_same(capsysbinary: Capture, argv: tuple[str, ...]) -> None:
    assert program(*argv) == call(capsysbinary, *argv)


def test_what_is_wrong_with_several_options_is_said_without_ado(capsysbinary: Capture) -> None:
    assert call(capsysbinary, "commit", "m").err.startswith(b"error: give NAME[:TAG]")


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--version"], capture_output=True, timeout=60, cwd=PROJECT, check=True
    )
    assert done.stdout == f"unionfs {__version__}\n".encode()


def test_a_reader_who_had_enough_is_no_traceback(tmp_path: Path) -> None:
    layer, upper = tmp_path / "layer", tmp_path / "upper"
    layer.mkdir()
    upper.mkdir()
    for n in range(500):  # more than a pipe holds
        (upper / f"{n:05}-{'x' * 200}").touch()
    with subprocess.Popen(
        [*process_of(), "diff", "-l", layer, "-u", upper],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"A /00000")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_the_first_import_of_the_mount_helper_is_light() -> None:
    """150 ms from exec to a usable mount leave no room for typer, rich or pydantic."""
    code = (
        "import sys, unionfs.api.mount_helper, unionfs.transport.devfuse\n"
        "heavy = {'typer', 'click', 'rich', 'pydantic', 'fuse', 'tarfile', 'tempfile', 'asyncio', 'backports'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    # -S: what an editable install puts into site-packages is not ours.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, timeout=60, cwd=PROJECT, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")
