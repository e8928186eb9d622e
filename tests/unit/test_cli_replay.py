"""`unionfs replay`: a recording in words, in JSON, and step by step at a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.replay_schemas import ReplayStep
from tests.unit.cli_runner import call, refused, typed
from tests.unit.overlay_rig import tree, union
from tests.unit.trace_rig import Traced


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Path]:
    """A whiteout, a copy-up, a rename of a directory."""
    base = tree(tmp_path / "base", etc__motd="hello", etc__passwd="root", srv__x="x")
    with union(tmp_path, [base]) as rig:
        traced = Traced(rig)
        with traced.recorded() as lines:
            rig.unlink("etc/motd")
            rig.setattr("etc/passwd", mode=0o600)
            rig.rename("srv", "www")
    path = tmp_path / "recording"
    path.write_bytes(b"".join(lines))
    yield path


def test_all_of_it_in_words(recording: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    ran = call(capsysbinary, "replay", recording)
    assert ran.status == 0 and ran.err == b""
    first, second, third = [line.partition(" = ok: ")[::2] for line in ran.lines if line[:4].strip().isdigit()]
    assert (first[0], second[0], third[0]) == (
        "   1 unlink     /etc/motd",
        "   2 setattr    /etc/passwd mode=0600",
        "   3 rename     /srv -> /www",
    )
    assert first[1].split("; ") == [
        "directory /etc read in 1 layer",
        "/ marked impure",
        "copy-up of directory /etc from layer 1",
        "/etc renamed into place",
        "whiteout in upper",
    ]
    assert second[1].split("; ")[1:] == ["copy-up 4 bytes from layer 1", "/etc marked impure", "renamed into place"]
    assert third[1].split("; ")[2:] == ["/srv redirect to srv", "renamed in upper", "/srv whiteout in upper"]
    assert "       upper  + etc/motd  whiteout: character device 0:0" in ran.lines
    assert ran.lines[0].split() == ["upper", "base", "merged"]
    brief = call(capsysbinary, "replay", "--brief", recording)
    assert brief.lines[-1] == "       upper  + www  dir, trusted.overlay.redirect=srv"


def test_json_has_what_was_recorded_and_what_came_out(
    recording: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    steps = [
        ReplayStep.model_validate(step) for step in json.loads(call(capsysbinary, "replay", "--json", recording).out)
    ]
    assert [(step.number, step.recorded.op, step.differs) for step in steps] == [
        (1, "unlink", False),
        (2, "setattr", False),
        (3, "rename", False),
    ]
    assert [step.kind for step in steps[0].replayed.steps][-1] == "whiteout"
    assert [(change.sign, change.path) for change in steps[2].changes] == [("+", "srv"), ("+", "www")]


def test_what_comes_out_otherwise_is_warned_of_and_status_1(
    recording: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    recording.write_bytes(recording.read_bytes().replace(b'"error":null', b'"error":"EBUSY"'))
    ran = call(capsysbinary, "replay", "--brief", recording)
    assert ran.status == 1 and ran.errors[0] == "warning: 1: no failure, where the recording has EBUSY"


def test_one_that_was_cut_off_is_warned_of(recording: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    recording.write_bytes(recording.read_bytes()[:-80])
    ran = call(capsysbinary, "replay", "--brief", recording)
    assert ran.status == 0 and ran.errors == ["warning: the recording was cut off: its end is missing"]


def test_what_is_no_recording(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "text").write_text("hello\n")
    refused(call(capsysbinary, "replay", tmp_path / "text"), 1, "line 1: no recording", "--record")
    refused(call(capsysbinary, "replay", tmp_path / "nothing"), 1, "No such file")


def test_step_by_step(recording: Path) -> None:
    """What comes next is shown before it is done."""
    lines = ["", "undo", "next", "goto 3", "next", "run", "goto x", "list", "goto 0", "run", "show", "help", "quit"]
    seen = typed("replay", str(recording), lines=lines)
    assert seen.index("   1 unlink     /etc/motd …") < seen.index("   1 unlink     /etc/motd = ok: ")
    assert seen.count("   1 unlink     /etc/motd = ok: ") == 3  # first, after undo, run
    assert "no operation is left" in seen
    assert "error: no such command: goto x\nhint: help lists them" in seen
    assert ">   1" not in seen and "    3 rename     /srv -> /www" in seen
    assert "  undo              take the last one back" in seen
