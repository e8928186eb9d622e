"""Files that were listed and no more: a directory reply gave the kernel their nodes and attributes, and nobody has
named one of them since.

READDIRPLUS makes the kernel an inode of every name, and a walk asks for nothing else. A `FileInode` for each would cost
more than all the rest of the reply, in time as in memory. So the files of one reply are a `Batch`: names, records and
lookup counts side by side, and NodeIds in a row. The first request for one of them *takes* it from its batch: from then
on it is a `FileInode`, as if it had been looked up.

Only files of which the listing and their stat tell everything are put into a batch (`readdir.py` decides).

INVARIANT: a name with lookups in a batch is visible in the batch's directory, its `Listed.batch` is that batch, and
           it is not among the directory's children.
INVARIANT: `directory.batched` is the number of such names in all batches of the directory.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from unionfs.overlay.inode import DirInode, FileInode, InodeTable, Listed, looked_up
from unionfs.overlay.stack import UPPER
from unionfs.vfs import ATTR_RECORD, AttrRecord, NodeId, record_ino

_SIZE: Final = ATTR_RECORD.size
_MOST_LOOKUPS: Final = 255


class Batch:
    """`names`, `layers`, `records` (one after the other) and `lookups` are parallel; no lookups: it was forgotten, or
    taken. `first` is the NodeId of the first file."""

    __slots__ = ("directory", "first", "layers", "live", "lookups", "names", "records")

    def __init__(
        self,
        directory: DirInode,
        first: NodeId,
        names: list[bytes],
        layers: Sequence[int],
        records: Sequence[AttrRecord],
    ) -> None:
        """The files of one reply to be, each looked up once."""
        self.directory = directory
        self.first = first
        self.names = names
        self.layers = array("H", layers)
        self.records = b"".join(records)
        self.lookups = bytearray(b"\1") * len(names)
        self.live = len(names)

    def record(self, name: bytes) -> AttrRecord:
        return self._record(self.names.index(name))

    def _record(self, index: int) -> AttrRecord:
        return self.records[index * _SIZE : (index + 1) * _SIZE]

    def again(self, table: InodeTable, name: bytes) -> tuple[NodeId, AttrRecord]:
        """List a file another time."""
        index = self.names.index(name)
        if self.lookups[index] == _MOST_LOOKUPS:
            self.take(table, index).nlookup += 1
        else:
            self.lookups[index] += 1
        return self.first + index, self._record(index)

    def take_name(self, table: InodeTable, name: bytes) -> FileInode:
        return self.take(table, self.names.index(name))

    def take(self, table: InodeTable, index: int) -> FileInode:
        """Make an inode of a file that has lookups; they are its own from now on."""
        directory, name, layer = self.directory, self.names[index], self.layers[index]
        record = self._record(index)
        base = None if layer == UPPER else next(lower for lower in directory.lowers if lower[0] == layer)
        inode = FileInode(self.first + index, record_ino(record)[0], record[61] >> 4, directory, name, base)
        inode.nlookup, inode.attr = self.lookups[index], record
        self._drop(table, index)
        directory.children[name] = inode
        table.nodes[inode.node] = inode
        return inode

    def forget(self, table: InodeTable, index: int, count: int) -> None:
        """Take lookups back."""
        left = self.lookups[index] - count
        if left > 0:
            self.lookups[index] = left
        elif self.lookups[index]:
            self._drop(table, index)

    def _drop(self, table: InodeTable, index: int) -> None:
        self.lookups[index] = 0
        listing = self.directory.listing
        assert listing is not None  # as long as there is a batch
        listing.names[self.names[index]] = looked_up(self.layers[index], self.records[index * _SIZE + 61] >> 4)
        table.left_batch(self)


class Gathering:
    """The files of a reply in the making. Nothing is known of them until `finish`."""

    def __init__(self, table: InodeTable, directory: DirInode) -> None:
        self._table = table
        self._directory = directory
        self._next = self._first = table.allocate_batch()
        self._names: list[bytes] = []
        self._layers: list[int] = []
        self._records: list[AttrRecord] = []

    def add(self, name: bytes, layer: int, record: AttrRecord) -> NodeId:
        node = self._next
        self._next += 1
        self._names.append(name)
        self._layers.append(layer)
        self._records.append(record)
        return node

    def finish(self, names: dict[bytes, Listed]) -> None:
        """Enter them in the table, and in the `names` of their directory's listing."""
        if not self._names:
            return
        batch = Batch(self._directory, self._first, self._names, self._layers, self._records)
        self._table.add_batch(batch)
        shared: dict[tuple[int, int], Listed] = {}
        for name, layer, record in zip(self._names, self._layers, self._records, strict=True):
            kind = layer, record[61] >> 4
            listed = shared.get(kind)
            if listed is None:
                listed = shared[kind] = Listed(*kind, 0, (), batch)
            names[name] = listed
