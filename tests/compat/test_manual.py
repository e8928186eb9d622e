"""The manual pages are those that the commands make, correct roff, and complete."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cli import manual, manual_texts
from cli.commands import root
from tests.requirements import requires
from tests.unit.test_cli_complete import everything

PAGES = sorted(path.relative_to(manual.PAGES) for path in manual.PAGES.glob("*/*"))


def read(page: Path) -> str:
    """As a person has it, each word whole."""
    done = subprocess.run(
        ["man", "-l", "--nh", "--nj", str(manual.PAGES / page)],
        env={**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANROFFOPT": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)


def test_the_pages_are_what_python_m_cli_manual_writes(tmp_path: Path) -> None:
    assert manual.main([str(tmp_path)]) == 0
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.glob("*/*")}
    assert sorted(made) == PAGES
    assert {page for page in PAGES if (manual.PAGES / page).read_text() != made[page]} == set(), (
        "run: python -m cli.manual"
    )


@requires("mandoc", "man")
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_neither_groff_nor_mandoc_has_anything_to_say(page: Path) -> None:
    path = manual.PAGES / page
    lints: list[list[str | Path]] = [
        ["mandoc", "-T", "lint", "-W", "warning", path],
        ["groff", "-man", "-ww", "-z", "-Kutf8", path],
    ]
    for argv in lints:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@requires("man")
def test_every_verb_option_and_help_text_is_there() -> None:
    text = {1: read(Path("man1/unionfs.1")), 2: read(Path("man1/unionfs-image.1"))}
    for verb in everything(root()):
        page = text[2 if verb.path.startswith("unionfs image") else 1]
        if verb.is_group:
            continue
        section = re.split(r"\n(?: {3})?[a-zA-Z]", page.partition(f"\n       {verb.path} ")[2])[0]
        words = " ".join(section.split())
        for one in verb.options:
            assert one.usage in section or "--help" in one.spelled, (verb.path, one)
            assert one.help.replace("`", "") in words or "--help" in one.spelled, (verb.path, one)
        assert " ".join(verb.help.replace("`", "").split()) in words


@requires("man")
def test_the_mount_program_has_all_its_options() -> None:
    words = read(Path("man8/unionfs-mount.8"))
    assert [
        line for line in re.findall(r"^ {4}(\S+)", "\n".join(manual.usage_of_the_program()), re.M) if line not in words
    ] == []
    for option in ("redirect_dir=off", "userxattr", "xattr_permissions=1"):
        assert option in words


def test_every_variable_of_the_environment_that_is_read_is_described() -> None:
    read_from = re.compile(r"""environ(?:\.get\(|\[)\s*"([A-Z_]{4,})["]""")
    sources = [path for place in ("unionfs", "cli") for path in (manual.PROJECT / place).rglob("*.py")]
    used = {name for path in sources for name in read_from.findall(path.read_text())} - {"HOME", "PATH", "TERM"}
    described = {name for names, _ in manual_texts.ENVIRONMENT for name in names.split(", ")}
    assert "UNIONFS_STORE" in used and used - described == set()


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        (".so /etc/passwd", r"\&.so /etc/passwd"),
        ("'quoted'", r"\(aqquoted\(aq"),
        (r"a \n b", r"a \en b"),
        ("`.x` is hidden", r"\fB\&.x\fR is hidden"),
        ("see `-l`, and …", r"see \fB\-l\fR, and \[u2026]"),
        ("two\n.TH lines", "two .TH lines"),
    ],
)
def test_no_text_is_a_request(text: str, roff: str) -> None:
    assert manual.prose(text) == roff
