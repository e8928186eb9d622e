"""`unionfs check`: lines, JSON, exit status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_runner import call, refused
from tests.unit.upkeep_rig import store

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    store(tmp_path / "base", "data d/x below")
    store(tmp_path / "upper.work", "data work/#1 text")
    return store(tmp_path / "upper", "dir d opaque=y", "dev d/%ff", "dir e redirect=/no", "dev f")


def test_findings_are_lines_with_what_a_repair_would_do(capsysbinary: Capture, upper: Path) -> None:
    ran = call(capsysbinary, "check", upper)
    assert (ran.status, ran.err) == (1, b"")
    message = b"whiteout of \xff in an opaque directory, which hides all of it anyway"
    assert ran.out.splitlines() == [
        b"work: work/#1\twork-debris\tleft by a mount that ended early\trepair: remove it",
        b"/d/\xff\twhiteout-in-opaque\t%b\trepair: remove the whiteout" % message,
    ]


def test_the_layers_below_make_more_of_them(capsysbinary: Capture, upper: Path) -> None:
    ran = call(capsysbinary, "check", "-l", upper.parent / "base", upper)
    assert [line.split("\t")[:2] for line in ran.lines][1:] == [
        ["/f", "whiteout-of-nothing"],
        ["/e", "redirect-to-nothing"],
        ["/d/\udcff", "whiteout-in-opaque"],
    ]


def test_repair_says_what_it_left(capsysbinary: Capture, upper: Path) -> None:
    ran = call(capsysbinary, "check", "--repair", "-l", upper.parent / "base", upper)
    assert ran.status == 1
    assert [line.split("\t")[3].split(":")[0] for line in ran.lines] == ["repaired", "repaired", "left", "repaired"]
    assert sorted(os.listdir(upper)) == ["d", "e"] and os.listdir(upper / "d") == []
    assert call(capsysbinary, "check", "--repair", upper).status == 0


def test_all_repaired_is_success_and_nothing_found_is_silence(capsysbinary: Capture, upper: Path) -> None:
    assert call(capsysbinary, "check", "--repair", upper).status == 0
    ran = call(capsysbinary, "check", upper)
    assert (ran.status, ran.out, ran.err) == (0, b"", b"")
    assert call(capsysbinary, "check", "--json", upper).out == b"[]\n"


def test_json_follows_its_schema(capsysbinary: Capture, upper: Path) -> None:
    ran = call(capsysbinary, "check", "--json", upper)
    found = [schemas.Finding.model_validate(finding) for finding in json.loads(ran.out)]
    assert [(finding.where, os.fsencode(finding.path), finding.state) for finding in found] == [
        ("work", b"work/#1", "found"),
        ("tree", b"d/\xff", "found"),
    ]
    assert ran.status == 1 and ran.out.isascii()


def test_a_missing_directory_is_named(capsysbinary: Capture, tmp_path: Path) -> None:
    refused(call(capsysbinary, "check", tmp_path / "no"), 1, f"{tmp_path / 'no'} does not exist")
    refused(call(capsysbinary, "check"), 2, "missing argument", "check --help")
