"""`unionfs show`: the table, JSON, files, stacks of every kind, errors. In a browser: compat/test_show_browser.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cli import show_schemas as schemas
from tests.unit.cli_runner import PROJECT, Ran, call, refused
from tests.unit.overlay_rig import tree
from unionfs import api
from unionfs.api import Stack

Capture = pytest.CaptureFixture[bytes]

SCRIPT = """\
layer base
write etc/motd "Welcome."
write etc/passwd "root:x:0:0"
write srv/site/index.html "hello"
write var/cache/old "x"
layer program
write bin/app "#!program"
write etc/motd "Hello."
mount -o metacopy
append etc/motd "Changed."
rm etc/passwd
mv srv/site srv/www
rm -r var/cache
mkdir var/cache
chmod 0700 bin/app
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "site.union").write_text(SCRIPT)
    return tmp_path


@pytest.fixture
def changed(script: Path) -> Path:
    tree(script / "base", etc__motd="base", etc__passwd="root", srv__x="x")
    tree(script / "top", etc__motd="the top")
    with Stack(["top", "base"], "upper") as stack:
        stack.unlink("etc/passwd")
        stack.write_text("etc/motd", "changed")
    return script


def told(ran: Ran) -> schemas.LayerTree:
    assert (ran.status, ran.err) == (0, b""), ran
    return schemas.LayerTree.model_validate_json(ran.out)


def states(ran: Ran) -> dict[str, str]:
    return {row.path: row.state for row in told(ran).rows}


# the table ------------------------------------------------------------------------------------------------------------
def test_the_table_shows_what_hides_what(capsysbinary: Capture, script: Path) -> None:
    ran = call(capsysbinary, "show", "site.union")
    assert ran.err == b""
    assert (
        ran.out.decode()
        == """\
                    seen       upper                   program    base
  /                 dir        dir                     dir        dir
    bin/            dir        dir                     dir
      app           10B        metacopy 10B ← program  10B
    etc/            dir        dir                     dir        dir
      motd          16B        16B ← program           (7B)       (9B)
      passwd        –          ✗                                  (11B)
    srv/            dir        dir                                dir
      site/         –          ✗                                  (dir)
        index.html  –                                             (6B)
      www/          dir        dir → site                         dir
        index.html  6B                                            6B
    var/            dir        dir                                dir
      cache/        dir        opaque dir                         (dir)
        old         –                                             (2B)
"""
    )


def test_colour_says_nothing_that_text_does_not(capsysbinary: Capture, script: Path) -> None:
    plain, coloured = (
        call(capsysbinary, "show", "site.union", "--color", when).out.decode() for when in ("never", "always")
    )
    assert "\x1b[31m✗\x1b[0m" in coloured
    for code in (1, 2, 31, 32, 33):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured.replace("\x1b[0m", "") == plain


def test_of_what_is_left_out_the_directory_says_how_much(capsysbinary: Capture, script: Path) -> None:
    lines = call(capsysbinary, "show", "site.union", "--max-rows", "5").lines
    assert len(lines) == 6
    assert any("more" in line for line in lines)
    assert len(call(capsysbinary, "show", "site.union", "--max-rows", "0").lines) == 15


def test_a_narrow_window_has_the_topmost_layers_and_the_base(
    capsysbinary: Capture, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        tree(script / f"layer{number}", **{f"file{number}": "x"})
    monkeypatch.setenv("COLUMNS", "60")
    ran = call(capsysbinary, "show", *(word for number in range(8) for word in ("-l", f"layer{number}")))
    assert ran.lines[0].split() == ["seen", "layer0", "layer1", "layer7"]
    assert [line.split() for line in ran.lines[-2:]] == [
        ["not", "shown,", "above", "layer7:", "layer2,", "layer3,", "layer4,", "layer5,"],
        ["layer6"],
    ]


@pytest.mark.needs_root
def test_names_cannot_speak_to_the_terminal(capsysbinary: Capture, script: Path) -> None:
    tree(script / "base", **{"a\x1b[31mred": "", "b\nc": "", "d\u202eexe": ""})
    (script / os.fsdecode(b"base/e\xff")).touch()
    out = call(capsysbinary, "show", "-l", "base").out.decode()
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["a\\x1b[31mred", "b\\x0ac", "d\\u202eexe", "e\\xff"]


# what is shown --------------------------------------------------------------------------------------------------------
@pytest.mark.needs_root
def test_layers_and_an_upper(capsysbinary: Capture, changed: Path) -> None:
    ran = told(call(capsysbinary, "show", "-l", "top", "-l", "base", "-u", "upper", "--json"))
    assert [(layer.number, layer.name, layer.path) for layer in ran.layers] == [
        (0, "upper", str(changed / "upper")),
        (1, "top", str(changed / "top")),
        (2, "base", str(changed / "base")),
    ]
    rows = {row.path: row for row in ran.rows}
    assert {path: row.state for path, row in rows.items()} == {
        "": "merged",
        "etc": "merged",
        "etc/motd": "changed",
        "etc/passwd": "deleted",
        "srv": "single",
        "srv/x": "single",
    }
    motd = rows["etc/motd"]
    assert motd.data is not None and motd.data.file == str(changed / "upper/etc/motd")
    assert [(part.size, part.mode) for part in motd.parts] == [(7, "0644"), (7, "0644"), (4, "0644")]
    assert rows[""].below == 5


def test_layers_of_one_name_are_told_apart(capsysbinary: Capture, script: Path) -> None:
    for name in ("one", "two"):
        (script / name).mkdir()
        tree(script / name / "root", x=name)
    layers = told(call(capsysbinary, "show", "-l", "one/root", "-l", "two/root", "--json")).layers
    assert [layer.name for layer in layers] == ["one/root", "two/root"]


def test_an_image_has_the_steps_that_made_its_layers(capsysbinary: Capture, script: Path) -> None:
    tree(script / "base", etc__motd="base")
    with tarfile.open("base.tar", "w") as tar:
        tar.add("base", ".")
    api.import_image(api.image_store("store"), "base.tar", "app", message="the base")
    ran = told(call(capsysbinary, "--store", "store", "show", "app", "--json"))
    (layer,) = ran.layers
    assert (ran.title, layer.number, len(layer.name), layer.about) == ("app", 1, 12, "the base")
    data = next(row.data for row in ran.rows if row.path == "etc/motd")
    assert data is not None and data.offset is not None
    with open(data.file, "rb") as file:
        file.seek(data.offset)
        assert file.read(data.size) == b"base"


def test_a_script_and_a_lesson(capsysbinary: Capture, script: Path) -> None:
    found = states(call(capsysbinary, "show", "site.union", "--json"))
    assert {state: path for path, state in found.items()} == {
        "merged": "var",
        "changed": "var/cache",
        "deleted": "var/cache/old",
        "moved": "srv/www",
        "single": "srv/www/index.html",
    }
    assert "deleted" in states(call(capsysbinary, "show", "lesson:rename", "--json")).values()


@pytest.mark.parametrize("number", range(1, 13))
def test_every_lesson_can_be_shown(capsysbinary: Capture, number: int) -> None:
    assert call(capsysbinary, "show", f"lesson:{number}").status == 0


def test_a_part_of_the_tree(capsysbinary: Capture, script: Path) -> None:
    assert list(states(call(capsysbinary, "show", "site.union", "--path", "/etc", "--json"))) == [
        "etc",
        "etc/motd",
        "etc/passwd",
    ]
    rows = told(call(capsysbinary, "show", "site.union", "--depth", "1", "--json")).rows
    assert [(row.path, row.cut) for row in rows] == [
        ("", False),
        ("bin", True),
        ("etc", True),
        ("srv", True),
        ("var", True),
    ]
    assert call(capsysbinary, "show", "site.union", "--path", "..").lines[1].startswith("  / ")


def test_json_is_ascii_and_keeps_names_that_are_no_utf8(capsysbinary: Capture, script: Path) -> None:
    tree(script / "base")
    (script / os.fsdecode(b"base/e\xff")).touch()
    ran = call(capsysbinary, "show", "-l", "base", "--json")
    assert ran.out.isascii()
    assert os.fsencode(json.loads(ran.out)["rows"][1]["path"]) == b"e\xff"


# files ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("form", "end"), [("svg", b"</svg>\n"), ("html", b"</html>\n")])
def test_a_picture_goes_to_a_file_or_to_standard_output(
    capsysbinary: Capture, script: Path, form: str, end: bytes
) -> None:
    printed = call(capsysbinary, "show", "site.union", f"--{form}")
    assert printed.out.endswith(end)
    for words in ([f"--{form}", "-o", "there"], ["-o", f"there.{form}"]):
        assert call(capsysbinary, "show", "site.union", *words) == Ran(0, b"", b"")
        assert (script / words[-1]).read_bytes() == printed.out
    assert not [name for name in os.listdir(script) if name.startswith(".")]


@pytest.mark.parametrize("form", ["--svg", "--html"])
def test_a_picture_is_not_for_a_terminal(script: Path, form: str) -> None:
    leader, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "show", script / "site.union", form],
            stdout=terminal,
            stderr=subprocess.PIPE,
            cwd=PROJECT,
            timeout=60,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(leader)
    assert done.returncode == 2
    assert b"a picture is not for a terminal: give -o FILE" in done.stderr


def test_a_picture_that_cannot_be_written_leaves_what_was_there(capsysbinary: Capture, script: Path) -> None:
    (script / "there.svg").write_text("before")
    refused(call(capsysbinary, "show", "site.union", "-o", "no/there.svg"), 1, "No such file or directory")
    (script / "site.union").write_text("explode")
    refused(call(capsysbinary, "show", "site.union", "-o", "there.svg"), 1, "no such command: explode")
    assert (script / "there.svg").read_text() == "before"


def test_the_picture_in_the_readme_is_what_its_command_draws(
    capsysbinary: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    drawn = call(capsysbinary, "show", "share/pictures/layers.union", "--svg")
    assert drawn.out == (PROJECT / "share/pictures/layers.svg").read_bytes()
    assert "unionfs show share/pictures/layers.union --svg -o share/pictures/layers.svg" in (
        PROJECT / "README.md"
    ).read_text().replace("\n", " ")


# what is wrong --------------------------------------------------------------------------------------------------------
def test_what_is_no_stack_is_said(capsysbinary: Capture, script: Path) -> None:
    refused(call(capsysbinary, "show", "nothing"), 1, "layer nothing does not exist", "no image in the store")
    refused(call(capsysbinary, "show", "."), 1, ". is in no unionfs mount", "name the layers with -l")
    refused(call(capsysbinary, "show", "lesson:none"), 1, "no such lesson: none", "learn --list")
    (script / "x.tar").write_bytes(bytes(1024))
    refused(call(capsysbinary, "show", "x.tar"), 1, "x.tar is no script", "with -l")
    (script / "x.union").write_text("layer base\n")
    refused(call(capsysbinary, "show", "x.union"), 1, "x.union mounts nothing", "mount")
    (script / "y.union").write_text("")
    refused(call(capsysbinary, "show", "y.union"), 1, "y.union mounts nothing", "mount")
    (script / "z.union").write_text("layer base\nmount\nrm x\n")
    refused(call(capsysbinary, "show", "z.union"), 1, "line 3: rm x: ENOENT", "ls shows")
    refused(call(capsysbinary, "show", "site.union", "--path", "no"), 1, "no: no layer has it", "which --all")
    refused(call(capsysbinary, "show", "-l", "none"), 1, "layer none does not exist")
