"""Where the bytes of a file are: in which file of the host, and from where on.

Layers that are no directories and no tars (of the simulator) have their bytes nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from unionfs.explain.which import Place
from unionfs.layers.layer import LayerFile
from unionfs.layers.over import FileOver
from unionfs.overlay import UnionFilesystem


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a file's bytes are: the whole of the file `file`, or, where `offset` is not None, `size` bytes from there
    on in a tar; with `sparse` only the first of several pieces. The tar is the uncompressed one, so `file` is that in
    the cache where the layer is compressed."""

    file: bytes
    size: int
    offset: int | None = None
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Roots:
    """The paths of a stack's layers, the upper's first (None where there is none), and of its work directory."""

    layers: Sequence[bytes | None]
    work: bytes | None = None

    def of(self, place: Place) -> bytes | None:
        return self.work if place.in_work else self.layers[place.layer]


class Locator:
    """Answers for any number of files of one union."""

    def __init__(self, fs: UnionFilesystem, roots: Roots) -> None:
        self._fs, self._roots = fs, roots
        self._directories: dict[bytes, bool] = {}

    def find(self, data: Place | None) -> Stored | None:
        """None where there are no bytes, or nobody knows where."""
        root = None if data is None else self._roots.of(data)
        if data is None or root is None:
            return None
        stack = self._fs._union.stack  # its layers, as a walk numbers them
        layer = stack.work if data.in_work else stack.layer(data.layer)
        if root not in self._directories:
            self._directories[root] = os.path.isdir(root)
        if self._directories[root]:
            return Stored(os.path.join(root, data.path), layer.lstat(data.path).st_size)
        file = layer.open(data.path)
        try:
            return _extent(file)
        finally:
            file.close()


def _extent(file: LayerFile) -> Stored | None:
    """Where an open file of a tar lies."""
    if isinstance(file, FileOver):
        file = file.file
    size = file.fstat().st_size
    if file.fd >= 0:  # a hard link of a tar to what a directory below has
        return Stored(os.readlink(b"/proc/self/fd/%d" % file.fd), size)
    extent = getattr(file, "extent", None)
    if extent is None:
        return None
    sparse = not getattr(file, "in_one_piece", True)
    try:
        piece = extent(file.seek_data(0) if sparse else 0)
    except OSError:  # ENXIO: nothing but a hole
        piece = None
    if piece is None:
        return None
    fd, offset, length = piece
    return Stored(os.readlink(b"/proc/self/fd/%d" % fd), length, offset, sparse)
