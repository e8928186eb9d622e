"""The same content stored in several layers of a union, hidden or not: found by size, then by digest.

Reads every file whose size another one has too. Memory: a few words for each stored file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from unionfs.explain.stored import Views, link_below
from unionfs.explain.which import Place
from unionfs.layers.layer import Layer, Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import join
from unionfs.overlay.metacopy import is_metacopy
from unionfs.overlay.union import Union
from unionfs.vfs import DT_DIR, DT_REG

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One content of `size` bytes, stored at `places` of at least two layers, from the top."""

    size: int
    places: tuple[Place, ...]

    @property
    def extra(self) -> int:
        """Bytes that one copy alone would save."""
        return self.size * (len(self.places) - 1)


def duplicates(fs: UnionFilesystem) -> tuple[Duplicate, ...]:
    """By the bytes that could be saved, most first. Of a union that nobody changes meanwhile."""
    union = fs._union
    with union.lock:
        by_size: dict[int, list[Place]] = {}
        for place, size in _files(union):
            by_size.setdefault(size, []).append(place)
        found = [one for size, places in by_size.items() if _several(places) for one in _equal(union, size, places)]
    return tuple(sorted(found, key=lambda one: (-one.extra, one.places[0].path)))


def _several(places: list[Place]) -> bool:
    return len({place.layer for place in places}) > 1


def _equal(union: Union, size: int, places: list[Place]) -> Iterator[Duplicate]:
    by_digest: dict[bytes, list[Place]] = {}
    for place in places:
        by_digest.setdefault(_digest(union.stack.layer(place.layer), place.path, size), []).append(place)
    for equal in by_digest.values():
        if _several(equal):
            yield Duplicate(size, tuple(equal))


def _digest(layer: Layer, path: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    file = layer.open(path)
    try:
        for offset in range(0, size, _PIECE):
            digest.update(file.pread(_PIECE, offset))
    finally:
        file.close()
    return digest.digest()


def _files(union: Union) -> Iterator[tuple[Place, int]]:
    """Each stored file that has bytes, once."""
    views = Views(union, kept=1)
    for number in views.numbers:
        layer, linked, todo = union.stack.layer(number), set(), [b""]
        while todo:
            path = todo.pop()
            for name, type_ in views.of(number, path).types.items():
                if type_ == DT_DIR:
                    todo.append(join(path, name))
                if type_ != DT_REG:
                    continue
                place = Place(number, join(path, name))
                if link_below(layer, place.path) is not None:
                    continue
                st = layer.lstat(place.path)
                if not st.st_size or (st.st_dev, st.st_ino) in linked:
                    continue
                if not hasattr(layer, "lower_links") and is_metacopy(union, number, place.path):
                    continue
                if st.st_nlink > 1:
                    linked.add((st.st_dev, st.st_ino))
                yield place, st.st_size
