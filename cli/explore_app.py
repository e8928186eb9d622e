"""The application of `unionfs explore`: the layers on the left, the tree of the chosen one on the right.

A directory is read when it is opened. Everything is read by the one thread of the application, since an Explorer is for
one at a time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer, Input, OptionList, Static, Tree
from textual.widgets.option_list import Option
from textual.widgets.tree import TreeNode

from unionfs import api

from . import human
from .explore_screens import TEXT_BYTES, FileScreen, HelpScreen, QuestionScreen, WasteScreen
from .style import printable
from .waste import told
from .which import layer_name

_COLOURS = {"added": "green", "changed": "yellow", "removed": "red", "kept": ""}
_MARKS = {"added": "+", "changed": "~", "removed": "-", "kept": " "}
#: What is known of a node of the tree: its path, and what stands there. None of the root.
_Data = tuple[bytes, api.Entry]


class ExploreApp(App[None]):
    TITLE = "unionfs explore"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #layers { width: 36; border: round $primary; }
    #right { width: 1fr; }
    #tree { border: round $primary; }
    #layers:focus, #tree:focus { border: round $accent; }
    #about { height: auto; max-height: 6; padding: 0 1; }
    #filter { display: none; }
    #filter.shown { display: block; }
    ModalScreen { align: center middle; }
    .box { width: 90%; height: auto; max-height: 90%; border: round $accent; background: $surface; padding: 0 1; }
    .tall { height: 90%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "changes", "Changes/all"),
        Binding("slash", "filter", "Filter"),
        Binding("v", "view", "View"),
        Binding("x", "extract", "Extract"),
        Binding("X", "extract_layer", "Layer to tar"),
        Binding("w", "waste", "Waste"),
        Binding("question_mark", "help", "Help"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "unfilter", show=False),
    ]

    def __init__(self, explorer: api.Explorer) -> None:
        super().__init__()
        self._explorer = explorer
        self._layer = explorer.layers[0].number
        self._changes = False
        self._filter = ""

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield OptionList(*map(_option, self._explorer.layers), id="layers")
            with Vertical(id="right"):
                yield Tree[_Data]("/", id="tree")
                yield Input(placeholder="a part of a name", id="filter")
        yield Static(id="about")
        yield Footer()

    def on_mount(self) -> None:
        layers = self.query_one("#layers", OptionList)
        layers.border_title = "Layers"
        layers.highlighted = 0
        layers.focus()

    @property
    def _tree(self) -> Tree[_Data]:
        return self.query_one("#tree", Tree)

    # the tree -------------------------------------------------------------------------------------------------------
    def _show(self) -> None:
        """The tree anew: of another layer, or of other names in it."""
        tree = self._tree
        tree.border_title = f"{'Changes of' if self._changes else 'Tree at'} {layer_name(self._layer)}"
        tree.border_subtitle = f"filter: {self._filter}" if self._filter else None
        tree.clear()
        if self._filter:
            found = self._explorer.find(self._layer, self._filter, changes=self._changes)
            for path, entry in found:
                tree.root.add_leaf(_label(entry, os.fsdecode(path)), (path, entry))
            if not found:
                self.notify(f"no name with {self._filter!r} in it")
        else:
            self._fill(tree.root, b"")
        tree.root.expand()

    def _fill(self, node: TreeNode[_Data], path: bytes) -> None:
        try:
            entries = self._explorer.entries(self._layer, path, changes=self._changes)
        except OSError as e:
            self.notify(f"/{printable(os.fsdecode(path))}: {e.strerror}", severity="error")
            return
        for entry in _sorted(entries):
            data = (path + b"/" + entry.name if path else entry.name), entry
            if entry.kind == "dir" and entry.state != "removed":
                node.add(_label(entry), data)
            else:
                node.add_leaf(_label(entry), data)

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[_Data]) -> None:
        if event.node.data is not None and event.node.data[1].kind == "dir" and not event.node.children:
            self._fill(event.node, event.node.data[0])

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[_Data]) -> None:
        if event.node.data is not None:
            self.query_one("#about", Static).update(_about(*event.node.data))

    def on_tree_node_selected(self, event: Tree.NodeSelected[_Data]) -> None:
        if event.node.data is not None and event.node.data[1].kind == "file":
            self.action_view()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        info = self._explorer.layers[event.option_index]
        self._layer = info.number
        about = Text(f"{layer_name(info.number)}  {printable(os.fsdecode(info.path))}\n")
        about.append(printable(" ".join(info.created_by.split())))
        self.query_one("#about", Static).update(about)
        self._show()

    # keys -----------------------------------------------------------------------------------------------------------
    def _chosen(self) -> _Data | None:
        node = self._tree.cursor_node
        return None if node is None else node.data

    def action_changes(self) -> None:
        self._changes = not self._changes
        self._show()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("shown")
        box.focus()

    def action_unfilter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("shown")
        if self._filter:
            self._filter = ""
            self._show()
        self._tree.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._filter = event.value
        self.query_one("#filter", Input).remove_class("shown")
        self._show()
        self._tree.focus()

    def action_view(self) -> None:
        chosen = self._chosen()
        if chosen is None or chosen[1].kind != "file" or chosen[1].state == "removed":
            self.notify("choose a file that is there")
            return
        path, entry = chosen
        try:
            data = self._explorer.read(self._layer, path, TEXT_BYTES)
        except OSError as e:
            self.notify(f"/{printable(os.fsdecode(path))}: {e.strerror}", severity="error")
            return
        self.push_screen(FileScreen("/" + printable(os.fsdecode(path)), data, entry.attr.size))

    def action_extract(self) -> None:
        chosen = self._chosen()
        if chosen is None or chosen[1].state == "removed":
            self.notify("choose what is there")
            return
        path, entry = chosen

        def extract(target: str | None) -> None:
            if target is not None:
                self._done(f"copied to {target}", lambda: self._explorer.extract(self._layer, path, target))

        self.push_screen(QuestionScreen("Copy to the new name:", os.fsdecode(entry.name)), extract)

    def action_extract_layer(self) -> None:
        layer = self._layer

        def extract(target: str | None) -> None:
            if target is not None:
                self._done(f"written to {target}", lambda: self._explorer.extract_layer(layer, target))

        name = layer_name(layer).replace(" ", "-") + ".tar"
        question = f"Write what {layer_name(layer)} changes to (.tar, .tar.gz, .tar.zst):"
        self.push_screen(QuestionScreen(question, name), extract)

    def action_waste(self) -> None:
        try:
            self.push_screen(WasteScreen(self._explorer.waste))
        except OSError as e:
            self.notify(str(e), severity="error")

    def action_help(self) -> None:
        self.push_screen(HelpScreen())

    def _done(self, what: str, do: Callable[[], object]) -> None:
        """Do something that may fail, and say which it was."""
        try:
            do()
        except OSError as e:
            self.notify(printable(f"{e.filename or ''}: {e.strerror}".removeprefix(": ")), severity="error")
        except api.UnionFSError as e:
            self.notify(printable(str(e)), severity="error")
        else:
            self.notify(printable(what))


def _option(info: api.LayerInfo) -> Option:
    text = Text(layer_name(info.number), style="bold")
    text.append("\n" + printable(told(info)), style="not bold dim")
    return Option(text)


def _sorted(entries: Iterable[api.Entry]) -> list[api.Entry]:
    """Directories first, as people look for them."""
    return sorted(entries, key=lambda entry: (entry.kind != "dir", entry.name))


def _label(entry: api.Entry, name: str | None = None) -> Text:
    text = Text(f"{_MARKS[entry.state]} ", style=_COLOURS[entry.state])
    text.append(printable(name if name is not None else os.fsdecode(entry.name)))
    if entry.kind == "dir":
        text.append("/")
    elif entry.kind == "symlink":
        text.append(f" → {printable(os.fsdecode(entry.target))}", style="dim")
    elif entry.kind == "file":
        text.append(f"  {human.size(entry.attr.size)}", style="dim")
    else:
        text.append(f"  {entry.kind}", style="dim")
    return text


def _about(path: bytes, entry: api.Entry) -> Text:
    attr = entry.attr
    text = Text("/" + printable(os.fsdecode(path)) + "\n", style="bold")
    text.append(
        f"{entry.state} {entry.kind}  {stat.filemode(attr.mode)}  {attr.uid}:{attr.gid}  {human.size(attr.size)}",
        style="not bold",
    )
    return text
