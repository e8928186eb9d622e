"""What `unionfs explore` shows over its panes: a file, a question, what is wasted, the keys."""

from __future__ import annotations

import os
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Label, Static

from unionfs import api

from . import human
from .style import printable

#: How many bytes of a file are shown.
TEXT_BYTES = 1 << 20
HEX_BYTES = 1 << 16
#: Where git looks for a NUL to tell binary files.
_FIRST_BYTES = 8000
#: How many paths the table of what is wasted has.
PATHS = 1000

HELP = """\
[b]Panes[/b]       tab goes to the other one; arrows move; enter opens a directory or a file

[b]Layers[/b]      The tree is what the chosen layer and those below show together:
            [green]green added[/green] by this layer, [yellow]yellow changed[/yellow], [red]red removed[/red]

[b]c[/b]           only what this layer changed, or everything
[b]/[/b]           only names with a text in them (esc: all again)
[b]v[/b], [b]enter[/b]    the file: text, or bytes in hexadecimal
[b]x[/b]           copy the file or directory out of the layers
[b]X[/b]           write what the layer changes as a layer tar
[b]w[/b]           bytes that upper layers hide
[b]q[/b]           quit"""


class Closable(ModalScreen[None]):
    """A modal screen that any of these keys closes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss", "Close")]

    async def action_dismiss(self, result: None = None) -> None:
        self.dismiss(result)


class HelpScreen(Closable):
    def compose(self) -> ComposeResult:
        yield Vertical(Static(HELP), classes="box")


class FileScreen(Closable):
    """The beginning of a file."""

    def __init__(self, title: str, data: bytes, size: int) -> None:
        super().__init__()
        self._shown, self._data, self._length = title, data, size

    def compose(self) -> ComposeResult:
        shown = contents(self._data)
        cut = "" if len(self._data) >= self._length else f", the first {human.size(len(self._data))}"
        with Vertical(classes="box tall"):
            yield Label(Text(f"{self._shown}  {human.size(self._length)}{cut}", style="bold"))
            yield VerticalScroll(Static(Text(shown), id="contents"))

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()


class QuestionScreen(ModalScreen[str | None]):
    """One line of text, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, question: str, value: str) -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        yield Vertical(Label(Text(self._question)), Input(self._value), classes="box")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()  # or the application's own line would have it too
        self.dismiss(event.value or None)

    def action_cancel(self) -> None:
        self.dismiss(None)


class WasteScreen(Closable):
    """What upper layers hide, most bytes first."""

    def __init__(self, waste: api.Waste) -> None:
        super().__init__()
        self._waste = waste

    def compose(self) -> ComposeResult:
        waste = self._waste
        with Vertical(classes="box tall"):
            yield Label(
                f"{human.size(waste.wasted)} wasted ({waste.fraction:.2%}) of {human.size(waste.stored)}; "
                f"efficiency {waste.score.efficiency:.2%}"
            )
            yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("Wasted", "Files", "In layer", "Why", "Path")
        for path in self._waste.paths[:PATHS]:
            numbers = ",".join(str(number) if number else "upper" for number in path.layers)
            why = "removed" if path.removed else "overwritten"
            name = Text("/" + printable(os.fsdecode(path.path)))
            table.add_row(human.size(path.wasted), str(path.files), numbers, why, name)
        table.focus()


def contents(data: bytes) -> str:
    """A file as it may stand on a terminal: text, or the first bytes in hexadecimal."""
    if b"\0" in data[:_FIRST_BYTES]:
        return dump(data[:HEX_BYTES])
    lines = data.decode("utf-8", "replace").expandtabs(8).split("\n")
    return "\n".join("".join(char if char.isprintable() else "·" for char in line) for line in lines)


def dump(data: bytes) -> str:
    """As `hexdump -C`: offset, sixteen bytes, and those of them that are ASCII."""
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        ascii_ = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{offset:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{ascii_}|")
    return "\n".join(lines)
