"""`TarLayer`: a layer that is a tar, read in place. Names and attributes come from its index, data from the tar.

What the tar says is shown, whoever reads: owners, modes and devices need no privilege. `.wh.` names stand there as they
do in a directory that a tar was unpacked into, for the union to judge. A hard link to what only a layer below can have
is a file of its own here, with the attributes and data of that one, once `bind` has found it; else it is not there.

The blocks of the directories looked at last are kept, up to a bound, and nothing else. A damaged index is made anew
where `rebuild` is given, which gives the same one, since it depends on the tar alone; where that fails it is EIO.

The tar must be the one the index was made of, and must not change: who opens the two checks that.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn, TypeVar

from unionfs.errors import UnionFSError
from unionfs.layers.layer import Layer, LayerFile, OriginHandle, Path, ScanEntry
from unionfs.layers.over import altered
from unionfs.layers.tar_file import SparseTarFile, TarFile
from unionfs.layers.tar_index import RECORD_SIZE, Block, Extra, IndexDamaged, Item, TarIndex
from unionfs.vfs import ATTR_RECORD, DT_DIR, AttrRecord, StatFs, d_type

#: Names in the blocks that are kept, for each directory that a layer may keep at hand.
_NAMES_A_DIRECTORY: Final = 10
_KEPT_DIRECTORIES: Final = 2048
_OPEN_REFUSAL: Final = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}
_INOS: Final = struct.Struct("<Q80x")
_RECORDS: Final = struct.Struct(f"{RECORD_SIZE}s")
#: A type of handles that no file system of the kernel has, and what is in one: inode number, link count, mode.
_HANDLE_TYPE: Final = 0xD7
_HANDLE: Final = struct.Struct("<QII")

_T = TypeVar("_T")
_NO_XATTRS: Final[dict[bytes, bytes]] = {}


class Linked(NamedTuple):
    """An object of another layer."""

    layer: Layer
    path: Path
    stat: os.stat_result


_log = logging.getLogger(__name__)


class TarLayer:
    """Implements `Layer` over the uncompressed tar `fd` and its index. Both are closed with it.

    `rebuild` makes the index anew and opens it; an OSError or UnionFSError where it cannot.
    """

    #: May data still have to come?
    fetches = False

    def __init__(self, fd: int, index: TarIndex, name: str, rebuild: Callable[[], TarIndex] | None = None) -> None:
        self.name = name
        self._fd, self._index, self._rebuild = fd, index, rebuild
        self._device = os.fstat(fd).st_dev
        self._blocks: OrderedDict[Path, Block] = OrderedDict()
        self._names = 0  # in all of them
        self._kept_names = _KEPT_DIRECTORIES * _NAMES_A_DIRECTORY
        self._links: dict[int, Linked] = {}  # by inode number
        self._recorded: tuple[Path, int, dict[bytes, AttrRecord]] = (b"", -1, {})  # what `records` gave last
        self._top = self._read(lambda index: index.top())

    @property
    def diff_id(self) -> str:
        return "sha256:" + self._index.header.diff_id.hex()

    @property
    def lower_links(self) -> int:
        """How many hard links lead to what only a layer below can have."""
        return self._index.header.lower_links

    def bind(self, find: Callable[[Path], tuple[Layer, Path] | None]) -> None:
        """`find` says where in the layers below a path is that a hard link leads to, or that it is nowhere. Reads the
        whole index."""
        self._links.clear()
        todo = [self._top]
        while todo:
            block = todo.pop()
            for at in range(len(block.names)):
                if block.type(at) == DT_DIR:
                    todo.append(self._child(block, at))
                elif not block.type(at):
                    target = self._extra(block, at).lower_link
                    found = find(target) if target is not None else None
                    if found is not None:
                        own = block.ino(at), self._device, 1
                        st = found[0].lstat(found[1])
                        shown = altered(st, uid=st.st_uid, gid=st.st_gid, identity=own)
                        self._links[block.ino(at)] = Linked(*found, shown)

    def another_fd(self) -> int:
        """A descriptor of the tar, which is the caller's."""
        return os.dup(self._fd)

    # the index ------------------------------------------------------------------------------------------------------
    def _read(self, read: Callable[[TarIndex], _T]) -> _T:
        try:
            return read(self._index)
        except IndexDamaged as damage:
            try:
                self._repair(damage)
                return read(self._index)
            except (OSError, UnionFSError) as error:
                _log.error("layer %s: its index cannot be used: %s", self.name, error)
                raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    def _repair(self, damage: IndexDamaged) -> None:
        if self._rebuild is None:
            raise damage
        _log.warning("layer %s: %s; its index is made anew", self.name, damage)
        old, self._index = self._index, self._rebuild()
        old.close()

    def _block(self, path: Path) -> Block:
        """The block of a directory: ENOENT, ENOTDIR."""
        blocks = self._blocks
        block = blocks.get(path)
        if block is not None:
            blocks.move_to_end(path)
            return block
        todo = [path]
        while path:  # up to what is at hand, which mostly is the parent
            path = path.rpartition(b"/")[0]
            block = blocks.get(path)
            if block is not None:
                break
            todo.append(path)
        else:
            block = self._top
        for known in reversed(todo):
            at = block.position(known.rpartition(b"/")[2])
            if at < 0:
                _fail(errno.ENOENT, known)
            if block.type(at) != DT_DIR:
                _fail(errno.ENOTDIR, known)
            block = self._child(block, at)
            self._keep(known, block)
        return block

    def _child(self, block: Block, at: int) -> Block:
        ref = block.child(at)
        try:
            return self._index.block(ref)
        except IndexDamaged:
            return self._read(lambda index: index.block(ref))

    def _keep(self, path: Path, block: Block) -> None:
        blocks = self._blocks
        blocks[path] = block
        self._names += len(block.names) + 1
        while self._names > self._kept_names and len(blocks) > 1:
            self._names -= len(blocks.popitem(last=False)[1].names) + 1

    def _find(self, path: Path) -> tuple[Block, int]:
        """The block that lists an object, and its position there: ENOENT, ENOTDIR."""
        if not path:
            return self._top, 0
        parent, _, name = path.rpartition(b"/")
        block = self._block(parent)
        at = block.position(name)
        if at < 0:
            _fail(errno.ENOENT, path)
        return block, at

    def _extra(self, block: Block, at: int) -> Extra:
        return self._read(lambda index: index.extra(block, at))

    def _linked(self, block: Block, at: int) -> Linked | None:
        """What a hard link to a layer below leads to; None for all others. ENOENT where it leads to nothing."""
        if not self._index.header.lower_links or block.type(at):
            return None
        found = self._links.get(block.ino(at))
        if found is None:
            _fail(errno.ENOENT, block.names[at])
        return found

    # attributes -----------------------------------------------------------------------------------------------------
    def lstat(self, path: Path) -> os.stat_result:
        return self._stat(*self._find(path))

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        block = self._block(path)

        def lstat(name: bytes) -> os.stat_result:
            at = block.position(name)
            if at < 0:
                _fail(errno.ENOENT, name)
            return self._stat(block, at)

        return lstat

    def _stat(self, block: Block, at: int) -> os.stat_result:
        linked = self._linked(block, at)
        return self._stat_of(block.record(at)) if linked is None else linked.stat

    def _stat_of(self, record: AttrRecord) -> os.stat_result:
        ino, size, blocks, at, mt, ct, atn, mtn, ctn, mode, nlink, uid, gid, rdev, blksize, _ = ATTR_RECORD.unpack(
            record
        )
        return os.stat_result(
            (mode, ino, self._device, nlink, uid, gid, size, at, mt, ct),
            {
                "st_atime": at + atn / 1e9,
                "st_mtime": mt + mtn / 1e9,
                "st_ctime": ct + ctn / 1e9,
                "st_atime_ns": at * 1_000_000_000 + atn,
                "st_mtime_ns": mt * 1_000_000_000 + mtn,
                "st_ctime_ns": ct * 1_000_000_000 + ctn,
                "st_blksize": blksize,
                "st_blocks": blocks,
                "st_rdev": rdev,
            },
        )

    def records(self, path: Path, base: int) -> dict[bytes, AttrRecord] | None:
        """The attributes of all that a directory holds, by name, with `base` (a multiple of 2^48) added to the inode
        numbers. None where some are not known here (hard links to layers below)."""
        if self._index.header.lower_links:
            return None
        if self._recorded[:2] == (path, base):
            return self._recorded[2]  # a large directory is read in many parts
        block = self._block(path)
        records = block.records
        if base:
            shifted, count = bytearray(records), len(block.names)
            shifted[6::RECORD_SIZE] = bytes((base >> 48 & 0xFF,)) * count
            shifted[7::RECORD_SIZE] = bytes((base >> 56,)) * count
            records = bytes(shifted)
        found = dict(zip(block.names, [record for (record,) in _RECORDS.iter_unpack(records)], strict=True))
        self._recorded = path, base, found
        return found

    def scan(self, path: Path) -> list[ScanEntry]:
        block = self._block(path)
        records = block.records
        types = [mode >> 4 for mode in records[61::RECORD_SIZE]]
        inos = [ino for (ino,) in _INOS.iter_unpack(records)]
        entries = list(map(ScanEntry._make, zip(block.names, types, inos, strict=True)))
        if not self._index.header.lower_links:
            return entries
        links = self._links
        return [
            entry if entry.type else entry._replace(type=d_type(links[entry.ino].stat.st_mode))
            for entry in entries
            if entry.type or entry.ino in links
        ]

    def is_implied(self, path: Path) -> bool:
        """Does the tar not describe this directory, which it needs?"""
        block, at = self._find(path)
        return bool(block.extra_place(at)[1]) and self._extra(block, at).implied

    def readlink(self, path: Path) -> bytes:
        block, at = self._find(path)
        linked = self._linked(block, at)
        if linked is not None:
            return linked.layer.readlink(linked.path)
        target = self._extra(block, at).target
        if not target:
            _fail(errno.EINVAL, path)
        return target

    def _xattrs(self, path: Path) -> dict[bytes, bytes]:
        block, at = self._find(path)
        if not block.extra_place(at)[1]:
            return _NO_XATTRS
        linked = self._linked(block, at)
        if linked is None:
            return self._extra(block, at).xattrs
        layer, there, _ = linked
        values = {name: layer.getxattr(there, name) for name in layer.listxattr(there)}
        return {name: value for name, value in values.items() if value is not None}

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        return self._xattrs(path).get(name)

    def listxattr(self, path: Path) -> list[bytes]:
        return list(self._xattrs(path))

    # data -----------------------------------------------------------------------------------------------------------
    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile:
        """Open a regular file. Others are refused: EISDIR, ELOOP (symbolic link), ENXIO (fifo, device)."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            _fail(errno.EROFS, path)
        block, at = self._find(path)
        linked = self._linked(block, at)
        if linked is not None:
            return linked.layer.open(linked.path, flags)
        st = self._stat_of(block.record(at))
        kind = stat.S_IFMT(st.st_mode)
        if kind != stat.S_IFREG:
            _fail(_OPEN_REFUSAL.get(kind, errno.ENXIO), path)
        extents = self._extra(block, at).extents
        fd = self._source(block, at)
        if extents is not None:
            return SparseTarFile(fd, block.place(at), st, extents)
        return TarFile(fd, block.place(at), st)

    def _source(self, block: Block, at: int) -> int:
        """The descriptor of the tar that has a file's data."""
        return self._fd

    def item(self, directory: Path, name: bytes) -> Item:
        """All that the index has of a name but its number's place: for an index that is made of several."""
        block = self._block(directory)
        at = block.position(name)
        if at < 0:
            _fail(errno.ENOENT, name)
        extra = self._extra(block, at)
        return Item(name, block.record(at), 0 if block.type(at) == DT_DIR else block.place(at), None, extra)

    def root_item(self) -> Item:
        """The same of the root."""
        return Item(b"", self._top.record(0), 0, None, self._extra(self._top, 0))

    # handles --------------------------------------------------------------------------------------------------------
    def handle(self, path: Path) -> OriginHandle | None:
        """Good for every index of the same tar, wherever that lies: its UUID is the beginning of the diff_id."""
        block, at = self._find(path)
        st = self._stat(block, at)
        return OriginHandle(
            _HANDLE_TYPE, _HANDLE.pack(st.st_ino, st.st_nlink, st.st_mode), self._index.header.diff_id[:16]
        )

    def stat_handle(self, handle: OriginHandle) -> os.stat_result:
        """What one of our handles says by itself of its object: number, link count and type; ESTALE for others."""
        if handle.type != _HANDLE_TYPE or len(handle.handle) != _HANDLE.size:
            _fail(errno.ESTALE)
        ino, nlink, mode = _HANDLE.unpack(handle.handle)
        return os.stat_result((mode, ino, self._device, nlink, 0, 0, 0, 0, 0, 0))

    def limit_dir_fds(self, bound: int) -> None:
        """Keep about so many directories at hand from now on, as a layer that is a directory does."""
        self._kept_names = bound * _NAMES_A_DIRECTORY

    # the whole ------------------------------------------------------------------------------------------------------
    def invalidate(self, path: Path = b"") -> None:
        """Let go of what is kept only to be faster."""
        self._blocks.clear()
        self._names = 0

    def statfs(self) -> StatFs:
        st = os.fstatvfs(self._fd)
        return StatFs(
            st.f_bsize, st.f_frsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_namemax
        )

    def close(self) -> None:
        """Idempotent. Files opened from the layer end with it."""
        self.invalidate()
        self._index.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class MergedTarLayer(TarLayer):
    """Several tar layers as one, by the index of what they show together. `fds` are the tars', the base's first, and
    are closed with it."""

    def __init__(self, fds: Sequence[int], index: TarIndex, name: str, rebuild: Callable[[], TarIndex]) -> None:
        super().__init__(fds[0], index, name, rebuild)
        self._fds = tuple(fds)

    def _source(self, block: Block, at: int) -> int:
        return self._fds[block.source(at)]

    def close(self) -> None:
        for fd in self._fds[1:] if self._fd >= 0 else ():
            os.close(fd)
        super().close()


def _fail(number: int, path: bytes = b"") -> NoReturn:
    raise OSError(number, os.strerror(number), path)
