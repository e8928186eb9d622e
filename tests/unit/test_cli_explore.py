"""`unionfs explore`: the application driven by textual's pilot, on layers and an image; and what it needs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.requirements import requires
from tests.unit.cli_runner import PROJECT, call, refused
from tests.unit.overlay_rig import tree
from unionfs import api

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from cli.explore_app import ExploreApp

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topmost first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    tree(tmp_path / "base", etc__conf="old\n", etc__passwd="root\n", var__cache="c" * 2000, bin__tool="\0\1\2")
    tree(tmp_path / "top", etc__conf="new\n", etc__motd="[b]hello[/b]\n")
    (tmp_path / "top/var").mkdir()
    (tmp_path / "top/var/.wh.cache").touch()
    (tmp_path / "top" / os.fsdecode(b"odd\xff\x1b[31m")).touch()
    return ["top", "base"]


def drive(layers: list[str], act: Callable[[ExploreApp, Pilot[None]], Awaitable[None]]) -> None:
    """Run the application on them, and `act(app, pilot)` in it."""
    from cli.explore_app import ExploreApp

    async def run() -> None:
        with api.explorer(layers=layers) as explorer:
            app = ExploreApp(explorer)
            async with app.run_test(size=(110, 32)) as pilot:
                await pilot.pause()
                await act(app, pilot)

    asyncio.run(run())


def lines(app: ExploreApp) -> list[str]:
    """The rows of the tree that is shown, without the root's."""
    from textual.widgets import Tree

    shown = app.query_one("#tree", Tree)
    found, todo = [], list(reversed(shown.root.children))
    while todo:
        node = todo.pop()
        found.append(str(node.label))
        if node.is_expanded:
            todo += reversed(node.children)
    return found


async def open_all(app: ExploreApp, pilot: Pilot[None]) -> None:
    """Open the directories of the first level."""
    from textual.widgets import Tree

    for node in app.query_one("#tree", Tree).root.children:
        node.expand()
    await pilot.pause()


@requires("textual")
def test_each_layer_shows_what_it_changed_in_what_lies_below(layers: list[str]) -> None:
    async def act(app: ExploreApp, pilot: Pilot[None]) -> None:
        await open_all(app, pilot)
        assert lines(app) == [
            "  bin/", "  tool  3B", "~ etc/", "~ conf  4B", "+ motd  13B", "  passwd  5B", "~ var/", "- cache  2kB",
            "+ odd�·[31m  0B",
        ]  # fmt: skip
        await pilot.press("c")
        await open_all(app, pilot)
        assert lines(app) == ["~ etc/", "~ conf  4B", "+ motd  13B", "~ var/", "- cache  2kB", "+ odd�·[31m  0B"]
        await pilot.press("down")
        await open_all(app, pilot)
        assert lines(app) == ["+ bin/", "+ tool  3B", "+ etc/", "+ conf  4B", "+ passwd  5B", "+ var/", "+ cache  2kB"]

    drive(layers, act)


@requires("textual")
def test_a_filter_finds_names_in_all_directories_until_it_is_taken_away(layers: list[str]) -> None:
    async def act(app: ExploreApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"CO", "enter")
        assert lines(app) == ["~ etc/conf  4B"]
        await pilot.press("escape")
        assert lines(app)[0] == "  bin/"

    drive(layers, act)


@requires("textual")
def test_a_file_is_shown_as_text_or_in_hexadecimal_and_markup_is_no_markup(layers: list[str]) -> None:
    from textual.widgets import Static

    async def view(app: ExploreApp, pilot: Pilot[None], name: str) -> str:
        await pilot.press("slash", *name, "enter", "down", "v")
        await pilot.pause()
        shown = str(app.screen.query_one("#contents", Static).content)
        await pilot.press("escape")
        await pilot.press("escape")
        return shown

    async def act(app: ExploreApp, pilot: Pilot[None]) -> None:
        assert await view(app, pilot, "motd") == "[b]hello[/b]\n"
        assert await view(app, pilot, "tool") == f"00000000  {'00 01 02':<23}  {'':<23}  |...|"

    drive(layers, act)


@requires("textual")
def test_what_is_chosen_is_copied_out_and_a_layer_is_written_as_a_tar(layers: list[str], tmp_path: Path) -> None:
    async def act(app: ExploreApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"etc", "enter", "down", "x")
        await pilot.press("ctrl+u", *"out", "enter")
        assert {path.name: path.read_text() for path in Path("out").iterdir()} == {
            "conf": "new\n", "motd": "[b]hello[/b]\n", "passwd": "root\n",
        }  # fmt: skip
        # Nothing that is there is written over.
        await pilot.press("x", "ctrl+u", *"out", "enter")
        await pilot.pause()
        assert [notice.severity for notice in app._notifications] == ["information", "error"]

    drive(layers, act)
    os.unlink(tmp_path / "top" / os.fsdecode(b"odd\xff\x1b[31m"))

    async def write(app: ExploreApp, pilot: Pilot[None]) -> None:
        await pilot.press("X", "ctrl+u", *"layer.tar", "enter")

    drive(layers, write)
    with tarfile.open("layer.tar") as tar:
        names = [member.name.rstrip("/") for member in tar]
    assert {"etc/conf", "etc/motd", "var/.wh.cache"} <= set(names) and "etc/passwd" not in names


@requires("textual")
def test_what_is_wasted_and_the_keys_are_shown_and_closed_again(layers: list[str]) -> None:
    from textual.widgets import DataTable

    async def act(app: ExploreApp, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await pilot.pause()
        table = app.screen.query_one(DataTable)
        rows = [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]
        assert rows == [
            ["2kB", "1", "2", "removed", "/var/cache"],
            ["4B", "1", "2", "overwritten", "/etc/conf"],
        ]
        await pilot.press("escape", "question_mark")
        assert type(app.screen).__name__ == "HelpScreen"
        await pilot.press("q")
        assert lines(app)[0] == "  bin/"

    drive(layers, act)


@pytest.mark.needs_root
def test_what_an_upper_changes_is_a_layer_of_its_own(layers: list[str]) -> None:
    with api.Stack(layers, "upper") as stack:
        stack.unlink("etc/passwd")
        stack.rename("bin", "tools")
    with api.explorer(layers=layers, upper="upper") as explorer:
        assert [(info.number, os.fsdecode(os.path.basename(info.path))) for info in explorer.layers] == [
            (0, "upper"), (1, "top"), (2, "base"),
        ]  # fmt: skip
        states = {entry.name: entry.state for entry in explorer.entries(0, changes=True)}
        assert states == {b"bin": "removed", b"tools": "added", b"etc": "changed"}
        assert [(entry.name, entry.state) for entry in explorer.entries(0, b"etc", changes=True)] == [
            (b"passwd", "removed")
        ]
        assert [path for path, _ in explorer.find(0, "TOOL")] == [b"tools", b"tools/tool"]
        assert len(explorer.find(0, "", limit=3)) == 3
        assert explorer.entries(0, b"nothing") == explorer.entries(0, b"etc/conf") == []
        explorer.extract_layer(0, "upper.tar.gz")
        with pytest.raises(OSError):
            explorer.read(0, b"etc", 1)
    with tarfile.open("upper.tar.gz") as tar:
        names = {member.name.rstrip("/") for member in tar}
    assert {".wh.bin", "tools/tool", "etc/.wh.passwd"} <= names and "etc/conf" not in names


@requires("textual")
def test_without_a_terminal_it_says_what_else_there_is(capsysbinary: Capture, layers: list[str]) -> None:
    refused(call(capsysbinary, "explore", "-l", "top"), 1, "explore needs a terminal", "unionfs show")
    refused(call(capsysbinary, "explore"), 2, "give an IMAGE or a MOUNTPOINT", "unionfs explore --help")


def test_without_textual_it_says_how_to_get_it(layers: list[str]) -> None:
    without = (
        "import sys; sys.modules['textual'] = None; from cli.main import main; sys.exit(main(['explore', '-l', 'top']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", without],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode().splitlines()) == (
        1,
        ["error: explore needs the Python package textual", "hint: pip install 'unionfs[explore]'"],
    )
