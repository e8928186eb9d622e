"""`explorer`: a stack opened to be walked through, layer by layer, by a program that shows it to people.

One thread uses it at a time. The changes of a live mount do not wait: what is seen of its upper is of several moments.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property

from unionfs.api.copies import copy_out
from unionfs.api.image_diff import view
from unionfs.api.layers import LayerSpec, StackSpec, open_layer
from unionfs.api.paths import Tree
from unionfs.api.sources import looking
from unionfs.api.stack import current_caller
from unionfs.api.stacks import LayerInfo, layer_infos, stack_of
from unionfs.changeset.tar_writer import WrittenLayer, write_layer
from unionfs.explain.browse import Browser, Entry
from unionfs.explain.waste import Waste
from unionfs.explain.waste import waste as _waste
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.stack import UPPER

__all__ = ["Entry", "Explorer", "explorer"]


class Explorer:
    """`layers` from the top, numbered as in `which`. Paths are relative to the root of the tree."""

    def __init__(self, fs: UnionFilesystem, spec: StackSpec) -> None:
        self._fs, self._spec = fs, spec
        self._browser = Browser(fs)
        self.layers: tuple[LayerInfo, ...] = layer_infos(spec)

    def entries(self, layer: int, path: bytes = b"", *, changes: bool = False) -> list[Entry]:
        """The names in a directory as a layer and those below show it, with what the layer did; `changes`: only those
        that it touched."""
        return [one for one in self._browser.entries(layer, path) if not changes or one.state != "kept"]

    def find(self, layer: int, text: str, *, changes: bool = False, limit: int = 1000) -> list[tuple[bytes, Entry]]:
        """Up to `limit` paths in whose last name `text` stands, in whatever case, in order."""
        wanted, found, todo = text.casefold(), list[tuple[bytes, Entry]](), [b""]
        while todo:
            directory = todo.pop()
            below = []
            for entry in self.entries(layer, directory, changes=changes):
                path = directory + b"/" + entry.name if directory else entry.name
                if wanted in os.fsdecode(entry.name).casefold():
                    found.append((path, entry))
                    if len(found) == limit:
                        return found
                if entry.kind == "dir" and entry.state != "removed":
                    below.append(path)
            todo += reversed(below)
        return found

    def read(self, layer: int, path: bytes, size: int) -> bytes:
        """The first bytes of a regular file, as a layer and those below show it. OSError where it is none."""
        return self._browser.read(layer, path, size)

    @cached_property
    def waste(self) -> Waste:
        """Read at the first use, from all layers."""
        return _waste(self._fs)

    def extract(self, layer: int, path: bytes, target: LayerSpec) -> None:
        """Copy what a layer and those below show at a path, a directory with all in it, to the new name `target`.
        FileExistsError where there is something."""
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))
        copy_out(Tree(self._browser.versions.at(layer), current_caller()), path, target)

    def extract_layer(self, layer: int, target: LayerSpec) -> WrittenLayer:
        """Write what a layer changes as an OCI layer tar, compressed by the suffix of `target`, which is replaced."""
        versions = self._browser.versions
        below = versions.before(layer)
        path = self._spec.upper if layer == UPPER else self._spec.lowers[layer - 1]
        assert path is not None
        stored = open_layer(path)
        try:
            with nullcontext(below) if below is not None else view(()) as before:
                return write_layer(before, versions.at(layer), stored, os.fsencode(target))
        finally:
            stored.close()


@contextmanager
def explorer(
    target: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> Iterator[Explorer]:
    """Of an image or a live mount, `target`, or of layers. LayerError and MountError where there is no such stack."""
    spec, _ = stack_of(target, layers, upper, work, store)
    with looking(spec) as fs:
        yield Explorer(fs, spec)
