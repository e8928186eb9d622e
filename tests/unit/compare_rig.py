"""Trees in memory to be compared: whoever runs the tests may make any owner, device and attribute."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable

from unionfs.changeset.content import Content
from unionfs.compare.view import LayerView
from unionfs.compare.walk import Difference, Side, differences
from unionfs.layers.memory import MemoryDisk, MemoryLayer

#: When everything was written, unless told otherwise.
THEN = 1_700_000_000_123_456_789


class Plot(MemoryLayer):
    """A tree with a few words to fill it."""

    def __init__(self, name: str = "tree", disk: MemoryDisk | None = None) -> None:
        super().__init__(disk or MemoryDisk(itertools.count(1).__next__), name)
        self.utime(b"", THEN, THEN)

    def dir(self, path: bytes, mode: int = 0o755) -> None:
        self.mkdir(path, mode)
        self._settle(path)

    def file(self, path: bytes, data: bytes = b"", mode: int = 0o644, mtime: int = THEN) -> None:
        for end in [at for at, byte in enumerate(path) if byte == ord("/")]:
            if path[:end] not in self:
                self.dir(path[:end])
        file = self.create(path, mode)
        file.pwrite(data, 0)
        file.close()
        self._settle(path, mtime)

    def to(self, path: bytes, target: bytes) -> None:
        self.symlink(path, target)
        self._settle(path)

    def device(self, path: bytes, major: int, minor: int) -> None:
        self.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
        self._settle(path)

    def join(self, path: bytes, other: bytes) -> None:
        """One more name."""
        self.link(path, self, other)
        self._settle(other)

    def _settle(self, path: bytes, mtime: int = THEN) -> None:
        self.utime(path, mtime, mtime)
        self.utime(path.rpartition(b"/")[0], THEN, THEN)

    def __contains__(self, path: bytes) -> bool:
        try:
            self.lstat(path)
        except OSError:
            return False
        return True


Fill = Callable[[Plot], object]


def plot(*fills: Fill) -> Plot:
    made = Plot()
    for fill in fills:
        fill(made)
    return made


def side(layer: MemoryLayer) -> Side:
    return Side(LayerView(layer))


def compared(one: MemoryLayer, other: MemoryLayer, **options: object) -> list[Difference]:
    return list(differences(side(one), side(other), **options))  # type: ignore[arg-type]


def lines(found: Iterable[Difference]) -> list[str]:
    """`C /path reason,reason` each."""
    return [f"{one.kind} /{os.fsdecode(one.path)} {','.join(one.reasons)}".rstrip() for one in found]


class Counted:
    """A view that counts the files it opens."""

    def __init__(self, layer: MemoryLayer) -> None:
        self._view = LayerView(layer)
        self.opened: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._view, name)

    def content(self, ref: bytes) -> Content:
        self.opened.append(ref)
        return self._view.content(ref)
