"""Inodes of the union and the table of those in use.

An inode is what a person sees as one file or directory; where it lives changes (copy-up, rename) while it stays.
`node` is the handle a transport holds, `ino` the number shown as st_ino; they are unrelated.

    DirInode    identity: its place in the merged tree. Sources: the upper (at `path`) and any number of lowers.
    FileInode   everything else. Identity: the stored object, so that all hard links are one inode.

Life: an inode is in the table while its lookup count, open handles or (directories) known children need it.

INVARIANT: `parent.children[name] is inode` for each (parent, name) in an inode's names, and the reverse.
INVARIANT: a directory's `path` is its parent's `path` joined with its name; the upper, if it has the directory at
           all, has it at that very path.
INVARIANT: once `upper` is True it stays True.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from unionfs.layers.layer import LayerFile
from unionfs.vfs import AttrRecord, NodeId

if TYPE_CHECKING:
    from unionfs.overlay.batch import Batch

#: The NodeId of a file in a batch is _BATCHED | number of the batch << _INDEX_BITS | index; no other is that large.
_BATCHED: Final = 1 << 60
_INDEX_BITS: Final = 16
_LAST_INDEX: Final = (1 << _INDEX_BITS) - 1
#: Below so many inodes memory is not worth tidying up.
_MANY = 1024


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


class Listed(NamedTuple):
    """What a merged listing knows of a name: the layer that has it topmost (0 is the upper, 1… the lowers), its DT_*
    type and stored inode number there, and, for a directory, the lower layers in which it goes on.

    `ino` 0: not kept, since the name was looked up; its inode knows it, or looking up again tells it. `batch`: has the
    file, which is in use but has no inode of its own (batch.py)."""

    layer: int
    type: int
    ino: int
    more: tuple[int, ...] = ()
    batch: Batch | None = None


@functools.cache
def looked_up(layer: int, type_: int) -> Listed:
    """The one `Listed` of all such files whose own number need not be kept: it is a fifth of what a file costs."""
    return Listed(layer, type_, 0)


class Listing:
    """One directory's merged names.

    `names` is what is visible; changed by `put` and `drop` only once it is complete. `whiteouts` are the names the
    upper whites out. `covered` are names present or whited out in the upper that the lowers alone would show, so that
    removing them takes a whiteout.

    `order` gives each name a position that it keeps: a name that comes is appended, one that goes leaves a None. So
    a position is a directory offset that stays good while entries come and go, for every reader.
    """

    __slots__ = ("_order", "_positions", "covered", "half_read", "names", "whiteouts")

    def __init__(self) -> None:
        self.names: dict[bytes, Listed] = {}
        self.whiteouts: set[bytes] = set()
        self.covered: set[bytes] = set()
        self._order: list[bytes | None] | None = None
        self._positions: dict[bytes, int] | None = None
        #: Somebody has read a part, and may come back with an offset.
        self.half_read = False

    def order(self) -> list[bytes | None]:
        if self._order is None or (not self.half_read and len(self._order) > 2 * len(self.names) + 1024):
            self._order, self._positions = list(self.names), None
        return self._order

    def follow(self, old: Listing) -> None:
        """Be the directory's listing after `old`: names that stay keep their positions."""
        if old._order is None:
            return
        names = self.names
        order = [name if name in names else None for name in old._order]
        known = set(order)
        order.extend(name for name in names if name not in known)
        self._order, self.half_read = order, old.half_read

    def put(self, name: bytes, listed: Listed) -> None:
        if self._order is not None and name not in self.names:
            if self._positions is not None:
                self._positions[name] = len(self._order)
            self._order.append(name)
        self.names[name] = listed

    def drop(self, name: bytes) -> Listed:
        if self._order is not None:
            if self._positions is None:
                self._positions = {known: i for i, known in enumerate(self._order) if known is not None}
            self._order[self._positions.pop(name)] = None
        return self.names.pop(name)

    def lower_positive(self, name: bytes) -> bool:
        """Would the lowers alone show `name`? (ovl_lower_positive() of fs/overlayfs/namei.c)"""
        if name in self.covered:
            return True
        listed = self.names.get(name)
        return listed is not None and listed.layer > 0


class Inode:
    """`bare`: known to have no xattrs that people see; None: not known."""

    __slots__ = ("attr", "bare", "ino", "nlookup", "node", "opens")

    is_dir = False

    def __init__(self, node: NodeId, ino: int) -> None:
        self.node = node
        self.ino = ino
        self.nlookup = 0
        self.opens = 0
        self.attr: AttrRecord | None = None
        self.bare: bool | None = None


class DirInode(Inode):
    """`lowers`: (layer, path there), topmost first. `described`: the one of them, or of those that an opaque mark
    hides, which has the attributes (Layer.is_implied). `lower_path`: where the lowers alone would show the directory,
    which is what a redirect must say. `xwhiteouts`: the layers in which it may hold xattr-encoded whiteouts.
    `impure`, `impure_lowers`: does the upper, and which lowers, have it marked as holding what was copied up?
    `removed`: rmdir'ed but still referred to; it has no store any more, only its last attributes. `batched`: how many
    files in it are in use without being among `children` (batch.py)."""

    __slots__ = (
        "batched",
        "children",
        "default_acl",
        "described",
        "handed_down",
        "impure",
        "impure_lowers",
        "kept_times",
        "listing",
        "lower_path",
        "lowers",
        "name",
        "parent",
        "path",
        "redirect",
        "removed",
        "upper",
        "xwhiteouts",
    )

    is_dir = True

    def __init__(self, node: NodeId, ino: int, parent: DirInode | None, name: bytes) -> None:
        super().__init__(node, ino)
        self.parent = parent
        self.name = name
        self.path: bytes = join(parent.path, name) if parent is not None else b""
        self.upper = False
        self.lowers: tuple[tuple[int, bytes], ...] = ()
        self.described: tuple[int, bytes] | None = None
        self.lower_path = b""
        self.redirect: bytes | None = None
        self.xwhiteouts: tuple[int, ...] = ()
        self.impure = False
        self.impure_lowers: tuple[int, ...] = ()
        self.default_acl: bool | None = None
        #: The group that a set-group-ID directory gives to what is made in it; -1: none.
        self.handed_down: int | None = None
        #: (atime, mtime) of the upper's directory as copy-ups put them back, or None: to be asked.
        self.kept_times: tuple[int, int] | None = None
        self.removed = False
        self.children: dict[bytes, Inode] = {}
        self.batched = 0
        self.listing: Listing | None = None

    def changed(self, times: tuple[int, int] | None = None) -> None:
        """The stored directory is not what it was; its (atime, mtime) are `times` where they are known."""
        self.attr = None
        self.kept_times = times

    @property
    def merged(self) -> bool:
        return len(self.lowers) + self.upper > 1

    def rebase(self, parent: DirInode, name: bytes) -> None:
        """Move to another place in the tree: this and every known directory below get their new paths."""
        self.parent, self.name = parent, name
        todo: list[DirInode] = [self]
        while todo:
            directory = todo.pop()
            assert directory.parent is not None
            directory.path = join(directory.parent.path, directory.name)
            todo.extend(child for child in directory.children.values() if isinstance(child, DirInode))


class Data(NamedTuple):
    """Where the data of a metacopy is: a lower layer, the path there, and the blocks (of 512 bytes) it takes."""

    layer: int
    path: bytes
    blocks: int


#: One known name of a file: directory, name, stored. `stored`: the upper has the file under this very name. (A lower
#: hard link whose group was copied up by another name is shown, but not stored there.)
Name = tuple[DirInode, bytes, bool]


class Links:
    """What only few files have. `index`: the entry of a copied-up hard-link group; then `nlink` is the group's link
    count in the union, and `below` the lower file's (0: not known). `orphan`: the path in the work directory of a file
    that has no name but is still in use. `keys`: the stored objects it is entered under in `InodeTable.real`.
    `inner_whiteout`: shown as a whiteout device to a mount above ours, stored as a marked empty file. `lost`: its layer
    has it no more (refresh.py).

    Of a metacopy: `data`, where its data is; `readers`, the files open on that, which are not the inode's `handles`;
    in the upper, `lower_path`, where the lowers alone would show it, and `redirect`, its own; `times`, the (atime,
    mtime) to show while its data is being copied to it."""

    __slots__ = (
        "below",
        "data",
        "index",
        "inner_whiteout",
        "keys",
        "lost",
        "lower_path",
        "nlink",
        "orphan",
        "readers",
        "redirect",
        "times",
    )

    def __init__(self) -> None:
        self.index: bytes | None = None
        self.nlink = 0
        self.below = 0
        self.orphan: bytes | None = None
        self.keys: tuple[tuple[int, int, int], ...] = ()
        self.inner_whiteout = False
        self.lost = False
        self.data: Data | None = None
        self.readers: list[LayerFile] = []
        self.lower_path = b""
        self.redirect: bytes | None = None
        self.times: tuple[int, int] | None = None


class FileInode(Inode):
    """`names`: those looked up. `type` is its DT_*. `handles`: the open files of it, `writers` how many of them may
    change it.

    There may be millions, each with one name and unchanged. So the first name is kept as `_parent` and `_name` until
    somebody asks for the list, and where it is in the lower layers as `_base`, the (layer, path) that it shares with
    all of its directory, and the same `_name`, which is never changed as long as it is `_parent`'s.
    """

    __slots__ = ("_base", "_name", "_names", "_parent", "handles", "links", "type", "upper", "writers")

    def __init__(
        self,
        node: NodeId,
        ino: int,
        type_: int,
        parent: DirInode | None = None,
        name: bytes = b"",
        base: tuple[int, bytes] | None = None,
    ) -> None:
        """Known as `name` in `parent`, if it has a name yet; stored in the lower directory `base`, or in the upper."""
        self.node = node
        self.ino = ino
        self.nlookup = 0
        self.opens = 0
        self.attr = None
        self.bare = None
        self.type = type_
        self.upper = base is None
        self._base = base
        self._name = name
        self._parent = parent
        self._names: list[Name] | None = None if parent is not None else []
        self.links: Links | None = None
        self.writers = 0
        self.handles: list[LayerFile] | None = None

    @property
    def lower(self) -> tuple[int, bytes] | None:
        """(layer, path) of the object in the lower layers that it is, or was copied up from."""
        base = self._base
        return (base[0], join(base[1], self._name)) if base is not None else None

    @property
    def names(self) -> list[Name]:
        """To be changed in place; kept as a list from now on."""
        names = self._names
        if names is None:
            assert self._parent is not None  # one of the two always is
            # As long as nobody asked, nobody copied it up: it is stored under its name from the start or not at all.
            names = self._names = [(self._parent, self._name, self.upper)]
            self._parent = None
        return names

    @names.setter
    def names(self, names: list[Name]) -> None:
        self._names, self._parent = names, None

    @property
    def nameless(self) -> bool:
        """Are all names that were looked up gone?"""
        return self._parent is None and not self._names

    def linked(self) -> Links:
        if self.links is None:
            self.links = Links()
        return self.links

    @property
    def index(self) -> bytes | None:
        return self.links.index if self.links is not None else None

    @property
    def orphan(self) -> bytes | None:
        return self.links.orphan if self.links is not None else None

    @property
    def data(self) -> Data | None:
        """Where its data is, if not where the file is: then it is a metacopy."""
        return self.links.data if self.links is not None else None

    @property
    def lost(self) -> bool:
        return self.links is not None and self.links.lost

    def is_stored_as(self, parent: DirInode, name: bytes) -> bool:
        """Does the upper have it under this known name?"""
        return self.upper if self._parent is not None else (parent, name, True) in self.names

    def found_at(self, base: tuple[int, bytes], name: bytes) -> None:
        """Its object in the lower layers is known to be `name` in `base` now."""
        self._base = base
        if self._parent is None:
            self._name = name  # else it is that one

    def stored_name(self) -> Name | None:
        if self._parent is not None:
            return (self._parent, self._name, True) if self.upper else None
        for name in self.names:
            if name[2]:
                return name
        return None

    def a_name(self) -> tuple[DirInode, bytes] | None:
        """Any of those known. Nothing is kept for it."""
        if self._parent is not None:
            return self._parent, self._name
        return self._names[0][:2] if self._names else None

    def forget_name(self, parent: DirInode, name: bytes) -> Name:
        """Drop one name from both sides."""
        for i, known in enumerate(self.names):
            if known[0] is parent and known[1] == name:
                del self.names[i]
                del parent.children[name]
                return known
        raise KeyError(name)


def path_of(inode: Inode) -> bytes | None:
    """A path of the inode in the tree that people see; None where it has none (any more)."""
    if isinstance(inode, DirInode):
        return None if inode.removed else inode.path
    name = inode.a_name() if isinstance(inode, FileInode) else None
    return None if name is None else join(name[0].path, name[1])


class InodeTable:
    """Nodes in use: by NodeId, and hard-linked files by the stored object.

    `real` keys are (layer, st_dev, st_ino); only files that may be met by a second name are entered. Iteration is over
    inodes, and leaves out what is in batches: `take_all` first, to see them.
    """

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Inode] = {}
        self.real: dict[tuple[int, int, int], FileInode] = {}
        self._batches: dict[int, Batch] = {}
        self._last_batch = self._batched = 0
        self._superseded: dict[NodeId, int] = {}
        self._most = 0
        self._last: NodeId = 0

    def allocate(self) -> NodeId:
        """A NodeId is never used twice, so FUSE's `generation` may stay 0."""
        self._last += 1
        return self._last

    def allocate_batch(self) -> NodeId:
        """The first of NodeIds in a row, for as many files as a directory reply can hold."""
        self._last_batch += 1
        return _BATCHED | self._last_batch << _INDEX_BITS

    def add_batch(self, batch: Batch) -> None:
        self._batches[batch.first >> _INDEX_BITS] = batch
        batch.directory.batched += batch.live
        self._batched += batch.live
        self._most = max(self._most, len(self))

    def left_batch(self, batch: Batch) -> None:
        """One of its files is taken or forgotten."""
        batch.live -= 1
        batch.directory.batched -= 1
        self._batched -= 1
        if not batch.live:
            del self._batches[batch.first >> _INDEX_BITS]

    def take(self, node: NodeId) -> Inode | None:
        """The inode of a NodeId that is not in `nodes`: of a file in a batch, if it is one."""
        batch, index = self._batches.get(node >> _INDEX_BITS), node & _LAST_INDEX
        if batch is None or index >= len(batch.lookups) or not batch.lookups[index]:
            return None
        return batch.take(self, index)

    def listed(self, node: NodeId) -> tuple[DirInode, bytes] | None:
        """Directory and name of a file in a batch, which stays there."""
        batch, index = self._batches.get(node >> _INDEX_BITS), node & _LAST_INDEX
        if batch is None or index >= len(batch.lookups) or not batch.lookups[index]:
            return None
        return batch.directory, batch.names[index]

    def take_all(self) -> None:
        for batch in list(self._batches.values()):
            for index, lookups in enumerate(bytes(batch.lookups)):
                if lookups:
                    batch.take(self, index)

    def add(self, inode: Inode) -> None:
        self.nodes[inode.node] = inode

    def supersede(self, inode: Inode) -> None:
        """Give `inode` a new NodeId; the old one goes on naming it until forgotten."""
        self._superseded[inode.node] = inode.nlookup
        inode.nlookup = 0
        inode.node = self.allocate()
        self.nodes[inode.node] = inode

    def forget(self, node: NodeId, count: int) -> Inode | None:
        """Take lookups back; the inode if its current NodeId is concerned and may now be unused; for the last file in
        a batch, its directory."""
        inode = self.nodes.get(node)
        if inode is None:
            batch, index = self._batches.get(node >> _INDEX_BITS), node & _LAST_INDEX
            if batch is None or index >= len(batch.lookups):
                return None
            batch.forget(self, index, count)
            return None if batch.live else batch.directory
        if node in self._superseded:
            left = self._superseded[node] - count
            if left > 0:
                self._superseded[node] = left
                return None
            del self._superseded[node]
            del self.nodes[node]
            return inode
        inode.nlookup = max(0, inode.nlookup - count)
        return inode

    def is_superseded(self, inode: Inode) -> bool:
        return bool(self._superseded) and any(self.nodes.get(node) is inode for node in self._superseded)

    def remember_real(self, key: tuple[int, int, int], inode: FileInode) -> None:
        """Enter a stored object as this inode; a file copied up is found by its old object as well as by the new."""
        links = inode.linked()
        if key not in links.keys:
            links.keys += (key,)
        self.real[key] = inode

    def forget_real(self, key: tuple[int, int, int], inode: FileInode) -> None:
        """The inode is stored elsewhere now: its old object's number may become another file's."""
        links = inode.linked()
        if key in links.keys:
            links.keys = tuple(known for known in links.keys if known != key)
            if self.real.get(key) is inode:
                del self.real[key]

    def drop(self, inode: Inode) -> None:
        self._most = max(self._most, len(self))
        self.nodes.pop(inode.node, None)
        if isinstance(inode, FileInode) and inode.links is not None:
            for key in inode.links.keys:
                if self.real.get(key) is inode:
                    del self.real[key]

    def shrunk(self) -> bool:
        """Have most inodes gone since the table was largest, or since this was last true? Then it is made anew."""
        if len(self) * 4 >= self._most or self._most < _MANY:
            return False
        self._most = len(self)
        self.nodes = dict(self.nodes)  # a dict from which entries are only taken never gets smaller
        return True

    def __iter__(self) -> Iterator[Inode]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes) + self._batched
