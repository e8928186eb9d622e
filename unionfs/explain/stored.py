"""What each layer of a union has stored, whatever the union shows of it.

Read with the functions that the engine itself reads a stored directory with; what is hidden or merged is not decided
here. All functions expect `union.lock` to be held.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from unionfs.layers.layer import Layer, Path
from unionfs.overlay.listing import read_stored
from unionfs.overlay.redirect import marks
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR

#: Directories that are kept after they were read.
_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class View:
    """A stored directory: its entries' types, the names it whites out, whether it ends the run by a file in it.
    `there`: it is one."""

    types: dict[bytes, int]
    hidden: frozenset[bytes]
    opaque: bool
    there: bool = True


_NOTHING: Final = View({}, frozenset(), False, there=False)


class Views:
    """The stored directories of a union, those read last at hand."""

    def __init__(self, union: Union, kept: int = _KEPT) -> None:
        self._union, self._kept = union, kept
        self._views: OrderedDict[tuple[int, Path], View] = OrderedDict()

    @property
    def numbers(self) -> range:
        """Of the layers, from the top."""
        stack = self._union.stack
        return range(UPPER if stack.has_upper else 1, len(stack.lowers) + 1)

    def of(self, number: int, path: Path) -> View:
        """Empty where the layer has no directory of that path."""
        known = self._views.get((number, path))
        if known is None:
            directory, _, name = path.rpartition(b"/")
            above = self._views.get((number, directory)) if path else None
            no_directory = above is not None and above.types.get(name) != DT_DIR
            known = self._views[number, path] = _NOTHING if no_directory else self._read(number, path)
            if len(self._views) > self._kept:
                self._views.popitem(last=False)
        return known

    def _read(self, number: int, path: Path) -> View:
        union = self._union
        stack = union.stack
        try:
            announced = marks(union, number, path).xwhiteouts if path else number in union.root.xwhiteouts
            stored = read_stored(
                stack.layer(number),
                path,
                aufs=stack.aufs if number == UPPER else True,
                xwhiteouts=stack.marks_of(number).whiteout if announced else (),
            )
        except (FileNotFoundError, NotADirectoryError):
            return _NOTHING
        return View({entry.name: entry.type for entry in stored.entries}, frozenset(stored.hidden), stored.opaque)


def link_below(layer: Layer, path: Path) -> Path | None:
    """What a hard link of a tar leads to, where only a layer below can have that."""
    if not getattr(layer, "lower_links", 0):
        return None
    directory, _, name = path.rpartition(b"/")
    link: Path | None = layer.item(directory, name).extra.lower_link  # type: ignore[attr-defined]  # a TarLayer
    return link
