"""Owners shown as other ids: `uidmapping`, `gidmapping` and `squash_to_*` of fuse-overlayfs.

    uidmapping=A:B:N    id A+i on disk is shown as B+i, and B+i is stored as A+i, for i < N
    squash_to_uid=U     every owner is shown as U, whatever is stored; what is written goes by the mapping alone

An id that no range has is shown, or stored, as OVERFLOW. What is copied from one layer to another keeps the id that is
stored: an id that does not lead back to it is shown as a `ShownId`, which remembers it.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from unionfs.layers.layer import Layer, LayerFile, Path, WritableLayer
from unionfs.layers.over import FileOver, LayerOver, WritableOver, altered

#: /proc/sys/kernel/overflowuid of every system that was not told otherwise.
OVERFLOW: Final = 65534

#: include/uapi/linux/posix_acl_xattr.h: a version, then entries of tag, permissions, id.
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_HEADER: Final = struct.Struct("<I")
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_ACL_PREFIX: Final = b"system.posix_acl_"

#: What chown(2) says to who may not, and in a user namespace that does not have the id.
_NOT_ALLOWED: Final = (errno.EPERM, errno.EINVAL)


class ShownId(int):
    """An id as shown that would be stored as another than the one it stands for, `stored`."""

    stored: int


class IdMap(NamedTuple):
    """`ranges`: (on disk, shown, count), the first that has an id decides; none: ids are the same. `squash`: the one
    id shown for all."""

    ranges: tuple[tuple[int, int, int], ...] = ()
    squash: int | None = None

    def mapped(self, stored: int) -> int:
        """What a stored id is shown as, but for `squash`."""
        for disk, shown, number in self.ranges:
            if disk <= stored < disk + number:
                return stored - disk + shown
        return OVERFLOW if self.ranges else stored

    def shown(self, stored: int) -> int:
        id_ = self.mapped(stored) if self.squash is None else self.squash
        if self.stored(id_) == stored:
            return id_
        special = ShownId(id_)
        special.stored = stored
        return special

    def stored(self, shown: int) -> int:
        """-1, which leaves an owner as it is, stays."""
        if isinstance(shown, ShownId):
            return shown.stored
        for disk, first, number in self.ranges:
            if first <= shown < first + number:
                return shown - first + disk
        return OVERFLOW if self.ranges and shown != -1 else shown

    def own(self, stored: int) -> int:
        """The only shown id that means `stored`, or -1 where there is no such one."""
        shown = self.mapped(stored)
        ambiguous = self.squash is not None or self._overlap() or (bool(self.ranges) and shown == OVERFLOW)
        return -1 if ambiguous or stored < 0 or self.stored(shown) != stored else shown

    def _overlap(self) -> bool:
        ranges = sorted((shown, shown + number) for _, shown, number in self.ranges)
        return any(one[1] > other[0] for one, other in itertools.pairwise(ranges))


class IdMaps(NamedTuple):
    """The mapping of users and of groups."""

    uids: IdMap = IdMap()
    gids: IdMap = IdMap()

    @property
    def squashes(self) -> bool:
        return self.uids.squash is not None or self.gids.squash is not None

    def stat(self, st: os.stat_result) -> os.stat_result:
        """A stored object's attributes as shown."""
        return altered(st, uid=self.uids.shown(st.st_uid), gid=self.gids.shown(st.st_gid))

    def stored(self, uid: int, gid: int) -> tuple[int, int]:
        return self.uids.stored(uid), self.gids.stored(gid)

    def acl(self, value: bytes, *, shown: bool) -> bytes:
        """A POSIX ACL's named users and groups as shown, or as stored; of another form, as it is."""
        if (len(value) - _ACL_HEADER.size) % _ACL_ENTRY.size or len(value) < _ACL_HEADER.size:
            return value
        entries = [value[: _ACL_HEADER.size]]
        for tag, permissions, id_ in _ACL_ENTRY.iter_unpack(value[_ACL_HEADER.size :]):
            ids = {_ACL_USER: self.uids, _ACL_GROUP: self.gids}.get(tag)
            if ids is not None:
                id_ = ids.mapped(id_) if shown else ids.stored(id_)
            entries.append(_ACL_ENTRY.pack(tag, permissions, id_))
        return b"".join(entries)

    @contextmanager
    def chowning(self) -> Iterator[None]:
        """Squashed owners are seen by nobody, so who may not set them need not (do_chown() of fuse-overlayfs)."""
        try:
            yield
        except OSError as e:
            if not self.squashes or e.errno not in _NOT_ALLOWED:
                raise


class MappedFile(FileOver):
    __slots__ = ("_ids",)

    def __init__(self, file: LayerFile, ids: IdMaps) -> None:
        super().__init__(file)
        self._ids = ids

    def fstat(self) -> os.stat_result:
        return self._ids.stat(self.file.fstat())

    def stat_when_opened(self) -> os.stat_result:
        return self._ids.stat(self.file.stat_when_opened())

    def chown(self, uid: int, gid: int) -> None:
        with self._ids.chowning():
            self.file.chown(*self._ids.stored(uid, gid))

    def setxattr(self, name: bytes, value: bytes) -> None:
        self.file.setxattr(name, self._ids.acl(value, shown=False) if name.startswith(_ACL_PREFIX) else value)


class MappedLayer(LayerOver):
    """Implements `Layer`: another layer with its owners shown by `ids`."""

    def __init__(self, layer: Layer, ids: IdMaps) -> None:
        super().__init__(layer)
        self._ids = ids

    def lstat(self, path: Path) -> os.stat_result:
        return self._ids.stat(self._layer.lstat(path))

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        inner, shown = self._layer.stat_in(path), self._ids.stat
        return lambda name: shown(inner(name))

    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile:
        return MappedFile(self._layer.open(path, flags), self._ids)

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        value = self._layer.getxattr(path, name)
        return self._ids.acl(value, shown=True) if value and name.startswith(_ACL_PREFIX) else value


class MappedUpper(MappedLayer, WritableOver):
    """Implements `WritableLayer`: owners given are stored by `ids`."""

    def __init__(self, layer: WritableLayer, ids: IdMaps) -> None:
        WritableOver.__init__(self, layer)
        self._ids = ids

    @property
    def new_owner(self) -> tuple[int, int]:
        uid, gid = self._tree.new_owner
        return self._ids.uids.own(uid), self._ids.gids.own(gid)

    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> LayerFile:
        return MappedFile(self._tree.create(path, mode, flags), self._ids)

    def tmpfile(self, path: Path, mode: int) -> LayerFile:
        return MappedFile(self._tree.tmpfile(path, mode), self._ids)

    def chown(self, path: Path, uid: int, gid: int) -> None:
        with self._ids.chowning():
            self._tree.chown(path, *self._ids.stored(uid, gid))

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None:
        if name.startswith(_ACL_PREFIX):
            value = self._ids.acl(value, shown=False)
        self._tree.setxattr(path, name, value, flags)
