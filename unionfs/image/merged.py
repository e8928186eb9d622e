"""The index of what a stack of tar layers shows: their union, made once and kept by the chain of their diff_ids.

A stack of N layers answers a directory from up to N indexes, and a walk from all of them: a directory that is in each
of 64 layers costs 64 readings. Merged, it costs one. The rules of merging are the engine's (overlay.lookup): it is
asked for the listing of each directory, and what it says is written down. Below a whole run of tars there is nothing,
so marks have done their work and are left out.

Inode numbers are (number of the layer, from the base) << _LAYER_BITS | (number there): they stay when layers are put on
top.

    ROOT/merged/HEX     HEX: sha256 of the layers' diff_ids, base first, one a line
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import BinaryIO, Final

from unionfs.layers.layer import Path
from unionfs.layers.tar import TarLayer
from unionfs.layers.tar_index import BlockRef, IndexHeader, IndexWriter, Item
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.inode import DirInode
from unionfs.overlay.listing import listing
from unionfs.overlay.lookup import existing
from unionfs.vfs import DT_DIR, AttrRecord

#: With 10 bits for the layer there is room for 2^38 objects in each, within the 48 bits of a layer's own numbers.
_LAYER_BITS: Final = 38
MAX_LAYERS: Final = 1 << 10


def chain_of(layers: Sequence[TarLayer]) -> bytes:
    """What identifies a stack (topmost first): 32 bytes."""
    return hashlib.sha256("\n".join(layer.diff_id for layer in reversed(layers)).encode()).digest()


def write_merged(layers: Sequence[TarLayer], file: BinaryIO) -> IndexHeader:
    """Write the index of what `layers` (topmost first, not closed) show together to `file`, which is empty and can
    seek."""
    return _Merger(layers, file).run()


class _Merger:
    def __init__(self, layers: Sequence[TarLayer], file: BinaryIO) -> None:
        self._layers = layers
        self._fs = UnionFilesystem(layers, None, None, UnionOptions(read_only=True))
        self._union = self._fs._union  # the engine's own tables: paths would not say which layers a directory has
        self._writer = IndexWriter(file)

    def run(self) -> IndexHeader:
        root = self._union.root
        ref, links = self._tree(root)
        item = self._item(root, b"", links, ref)
        return self._writer.finish(self._writer.block([item]), chain_of(self._layers), 0)

    def _tree(self, root: DirInode) -> tuple[BlockRef, int]:
        """Write a directory and all below it, children first."""
        done: dict[int, tuple[BlockRef, int]] = {}  # by node, until the parent has it
        todo: list[tuple[DirInode, list[DirInode] | None]] = [(root, None)]
        while todo:
            directory, children = todo.pop()
            names = listing(self._union, directory).names
            if children is None:
                children = self._children(directory)
                todo.append((directory, children))
                todo.extend((child, None) for child in children)
                continue
            places = dict(directory.lowers)
            by_name = {child.name: child for child in children}
            items = []
            for name in sorted(names):
                child = by_name.get(name)
                if child is not None:
                    ref, links = done.pop(child.node)
                    items.append(self._item(child, name, links, ref))
                else:
                    number = names[name].layer
                    item = self._layers[number - 1].item(places[number], name)
                    items.append(item._replace(record=self._numbered(item.record, number), source=self._slot(number)))
            done[directory.node] = self._writer.block(items), 2 + len(children)
            for child in children:
                self._union.release_unused(child)
            directory.listing = None
        return done[root.node]

    def _children(self, directory: DirInode) -> list[DirInode]:
        names = listing(self._union, directory).names
        found = [existing(self._union, directory, name) for name in sorted(names) if names[name].type == DT_DIR]
        return [child for child in found if isinstance(child, DirInode)]

    def _item(self, directory: DirInode, name: bytes, links: int, ref: BlockRef) -> Item:
        assert directory.described is not None
        number, path = directory.described
        layer = self._layers[number - 1]
        item = layer.item(*_split(path)) if path else layer.root_item()
        top = directory.lowers[0][0]
        own = self._layers[top - 1].lstat(directory.lowers[0][1]).st_ino
        record = self._record(item.record, top, own, links)
        return Item(name, record, 0, ref, item.extra)

    def _slot(self, number: int) -> int:
        return len(self._layers) - number

    def _numbered(self, record: AttrRecord, number: int) -> AttrRecord:
        return self._record(record, number, int.from_bytes(record[:8], "little"), None)

    def _record(self, record: AttrRecord, number: int, ino: int, links: int | None) -> AttrRecord:
        shown = self._slot(number) << _LAYER_BITS | ino
        nlink = record[64:68] if links is None else links.to_bytes(4, "little")
        return shown.to_bytes(8, "little") + record[8:64] + nlink + record[68:]


def _split(path: Path) -> tuple[Path, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent, name
