"""`unionfs blame` on images and layers: text, JSON, lines, directories, errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import blame_schemas as schemas
from tests.unit.cli_images import Cli
from tests.unit.cli_runner import refused
from tests.unit.image_rig import layer, made_image, old_docker

BASE = layer(etc__conf="one\ntwo\n", var__cache="c", binary=b"\0\1")
MIDDLE = layer(etc__conf="one\n2\nthree", **{"var__.wh.cache": ""})
TOP = layer(var__cache="new")


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    made = Cli(capsysbinary, monkeypatch, tmp_path)
    Path("docker.tar").write_bytes(old_docker([made_image("app:1", BASE, MIDDLE, TOP)]))
    made.image("load", "-i", "docker.tar")
    return made


def test_each_layer_that_touched_a_file_is_told_with_how_it_came_to_be(cli: Cli) -> None:
    assert (
        cli.run("blame", "-l", "app:1", "/var/cache")
        == """\
/var/cache: file, last touched by layer 1

  layer 1  added    file               ADD 2
  layer 2  deleted  by /var/.wh.cache  ADD 1
  layer 3  added    file               ADD 0"""
    )


def test_what_is_not_there_any_more_is_told_with_who_deleted_it(cli: Cli) -> None:
    Path("upper/var").mkdir(parents=True)
    for mark in (".wh..wh.aufs", "var/.wh.cache"):
        Path("upper", mark).touch()
    gone = cli.run("blame", "-l", "app:1", "-u", "upper", "/var/cache").splitlines()
    assert gone[0] == "/var/cache: not there, deleted by upper"
    assert gone[2].split()[:4] == ["upper", "deleted", "by", "/var/.wh.cache"]


def test_lines_and_what_they_came_with(cli: Cli) -> None:
    assert cli.run("blame", "-l", "app:1", "etc/conf", "--lines").splitlines() == [
        "layer 3  (ADD 0)  1) one",
        "layer 2  (ADD 1)  2) 2",
        "layer 2  (ADD 1)  3) three",
    ]
    told = schemas.BlamedLines.model_validate_json(cli.run("blame", "-l", "app:1", "etc/conf", "--lines", "--json"))
    assert [(line.layer, line.text) for line in told.lines] == [(3, "one"), (2, "2"), (2, "three")]
    refused(
        cli.call("blame", "-l", "app:1", "binary", "--lines"), 1, "its version of layer 3 is binary", "leave --lines"
    )


def test_a_directory_is_its_files_with_who_touched_them_last(cli: Cli) -> None:
    ran = cli.run("blame", "-l", "app:1", "/")
    assert [line.split() for line in ran.splitlines()] == [
        ["layer", "3", "(ADD", "0)", "1970-01-01", "00:00:00", "2B", "/binary"],
        ["layer", "2", "(ADD", "1)", "1970-01-01", "00:00:00", "11B", "/etc/conf"],
        ["layer", "1", "(ADD", "2)", "1970-01-01", "00:00:00", "3B", "/var/cache"],
    ]
    told = schemas.BlamedTree.model_validate_json(cli.run("blame", "-l", "app:1", "var", "--json"))
    assert [(one.path, one.layer, one.size) for one in told.files] == [("var/cache", 1, 3)]
    assert cli.run("blame", "-l", "app:1", "var", "-d").startswith("/var: dir, last touched by")


def test_json_of_a_path(cli: Cli) -> None:
    told = schemas.Blame.model_validate_json(cli.run("blame", "-l", "app:1", "etc/conf", "--json"))
    assert [(touch.layer, touch.action, touch.what) for touch in told.touches] == [
        (2, "changed", ["content"]),
        (3, "added", []),
    ]
    assert [info.created_by for info in told.layers] == ["ADD 2", "ADD 1", "ADD 0"]
    assert told.layers[0].diff_id.startswith("sha256:")


def test_names_that_are_no_text_and_times_that_no_calendar_has(cli: Cli) -> None:
    os.mkdir("odd")
    Path(os.fsdecode(b"odd/\xff")).write_text("x")
    ran = cli.call("blame", "-l", "odd", "/")
    assert ran.status == 0 and ran.out.endswith(b"/\xff\n")


def test_wrong_usage(cli: Cli) -> None:
    refused(cli.call("blame", "-u", "x", "y"), 2, "give the layers with -l too", "unionfs blame --help")
    refused(cli.call("blame", "-l", "app:1", "etc", "--lines", "-d"), 2, "a directory has no lines")
    refused(cli.call("blame", "-l", "app:1", "etc", "--lines"), 1, "/etc is no file but a dir", "leave --lines out")
    refused(cli.call("blame", "-l", "app:1", "nothing"), 1, "nothing: no layer has it")
    refused(cli.call("blame", "nothing"), 1, "nothing is in no unionfs mount", "-l")
