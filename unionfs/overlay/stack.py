"""The layers of a union in order, and how this union writes its marks.

Layer 0 is the upper; layers 1…n are the lowers, topmost first. `Stack` knows which xattr namespace the union's own
attributes live in, hides them from view, and numbers inodes so that each stored object of each layer has its own
`st_ino`. It decides nothing about names.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path, WritableLayer
from unionfs.overlay.step import Report
from unionfs.vfs import AttrRecord

#: See layers.layer.Layer.
Records = Callable[[Path, int], Mapping[bytes, AttrRecord] | None]

UPPER = 0
#: Inode numbers are (slot of the layer) << SLOT_BITS | (number there); the base layer is slot 0 and keeps its numbers.
SLOT_BITS = 48
_DYNAMIC_SLOT = 0x7FFF
#: Directory descriptors that all lowers together may keep.
_DIR_FDS = 2048

# Names of the union's own attributes, after the namespace; the last four are ours, the others the kernel's.
IMPURE, OPAQUE, ORIGIN, REDIRECT, NLINK = b"impure", b"opaque", b"origin", b"redirect", b"nlink"
METACOPY = b"metacopy"
INNER_WHITEOUT, SLOT, NUMBER, ALONE = b"unionfs.whiteout", b"unionfs.slot", b"unionfs.number", b"unionfs.alone"
_TRUSTED, _USER = b"trusted.overlay.", b"user.overlay."


class UnionOptions(NamedTuple):
    """How a union behaves.

    `xattr_prefix`: namespace of the union's own attributes, b"trusted." or b"user."; None takes trusted where
    permitted. `index`: keep hard-link groups across copy-up and remount (the kernel's `index=on`). `volatile`: skip
    every fsync; a crash may lose the upper, which is marked therefore, and refused from then on; `force`: not so, and
    the mark goes. `read_only`: change nothing, not even what a crash left behind, so that an upper in use by somebody
    else can be looked at. `metacopy`: copy up no data for a change of metadata, where the upper holds `trusted.`
    attributes (the kernel's `metacopy=on`). `redirect_dir`: a renamed directory may say by a redirect where the lowers
    have it; else it is copied up.
    """

    xattr_prefix: bytes | None = None
    index: bool = True  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    volatile: bool = False
    read_only: bool = False
    force: bool = False
    metacopy: bool = False
    redirect_dir: bool = True


class MarkNames(NamedTuple):
    """Under which attribute names one layer is asked for each mark, in order."""

    opaque: tuple[bytes, ...]
    redirect: tuple[bytes, ...]
    whiteout: tuple[bytes, ...]
    whiteouts: tuple[bytes, ...]
    impure: tuple[bytes, ...]
    metacopy: tuple[bytes, ...]


def _mark_names(namespaces: Sequence[bytes], followed: Sequence[bytes]) -> MarkNames:
    """`followed`: of those the ones whose marks may lead elsewhere."""

    def named(key: bytes) -> tuple[bytes, ...]:
        return tuple(namespace + key for namespace in namespaces)

    return MarkNames(
        opaque=(*named(OPAQUE), b"user.fuseoverlayfs.opaque"),
        redirect=tuple(namespace + REDIRECT for namespace in followed),
        whiteout=named(b"whiteout"),
        whiteouts=named(b"whiteouts"),
        impure=named(IMPURE),
        metacopy=tuple(namespace + METACOPY for namespace in followed),
    )


class Stack:
    """`work` is the directory that holds `work/` and `index/`.

    `aufs`: the upper's `.wh.` names are whiteouts, as its root says."""

    def __init__(
        self,
        lowers: Sequence[Layer],
        upper: WritableLayer | None,
        work: WritableLayer | None,
    ) -> None:
        if not lowers and upper is None:
            raise ValueError("a union needs at least one layer")
        self.lowers = tuple(lowers)
        self.share_dir_fds()
        self._upper = upper
        self._work = work
        #: Who is told what is done to the layers, while somebody wants to know.
        self.trace: Report | None = None
        self._prefix = _TRUSTED
        self._alone: dict[int, bytes] = {}
        self._marks: list[MarkNames] = []
        self._name_marks()
        self._devices = [self._device(upper)] + [self._device(layer) for layer in self.lowers]
        self._bases = [self.slot(layer) << SLOT_BITS for layer in range(len(self.lowers) + 1)]
        self._records: list[Records | None] = [getattr(layer, "records", None) for layer in self.lowers]
        self._implied: list[Callable[[Path], bool] | None] = [getattr(it, "is_implied", None) for it in self.lowers]
        #: Has some layer data that may still have to come from a network?
        self.fetches = any(getattr(layer, "fetches", False) for layer in self.lowers)
        self._foreign: dict[tuple[int, int, int], int] = {}
        self.aufs = upper is not None and whiteout.AUFS_MARKER in (entry.name for entry in upper.scan(b""))

    def share_dir_fds(self) -> None:
        """Each lower may keep its part of the descriptors that all of them may."""
        for layer in self.lowers:
            limit = getattr(layer, "limit_dir_fds", None)
            if limit is not None:
                limit(max(8, _DIR_FDS // len(self.lowers)))

    @staticmethod
    def _device(layer: Layer | None) -> int:
        return layer.lstat(b"").st_dev if layer is not None else -1

    # layers ---------------------------------------------------------------------------------------------------
    @property
    def has_upper(self) -> bool:
        return self._upper is not None

    @property
    def has_work(self) -> bool:
        return self._work is not None

    @property
    def upper(self) -> WritableLayer:
        if self._upper is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return self._upper

    @property
    def work(self) -> WritableLayer:
        if self._work is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return self._work

    def layer(self, number: int) -> Layer:
        return self.upper if number == UPPER else self.lowers[number - 1]

    @property
    def topmost(self) -> Layer:
        return self._upper if self._upper is not None else self.lowers[0]

    def trim(self) -> None:
        """Let go of what layers keep only to be faster. What `stat_in` gave is no good after it."""
        for layer in (self._upper, self._work, *self.lowers):
            invalidate = getattr(layer, "invalidate", None)
            if invalidate is not None:
                invalidate()

    def close(self) -> None:
        for layer in (self._upper, self._work, *self.lowers):
            if layer is not None:
                layer.close()

    # inode numbers ---------------------------------------------------------------------------------------------
    def number(self, layer: int, ino: int, device: int | None = None) -> int:
        """The st_ino to show for the object `ino` of `layer`.

        Each layer has its own range, since one stored file may stand in two layers (hard-linked layer directories)
        and is then two files. Objects out of range, or on a file system mounted inside a layer, get a number for the
        session.
        """
        if ino >> SLOT_BITS or (device is not None and device != self._devices[layer]):
            key = (layer, device or 0, ino)
            return self._foreign.setdefault(key, _DYNAMIC_SLOT << SLOT_BITS | (len(self._foreign) + 1))
        return self._bases[layer] | ino

    def records(self, layer: int, path: Path) -> Mapping[bytes, AttrRecord] | None:
        """The attribute records, as they are to be shown, of what a lower layer has in a directory, by name; None where
        it has to be asked for each."""
        records = self._records[layer - 1]
        return None if records is None else records(path, self._bases[layer])

    def described(self, lowers: Sequence[tuple[int, Path]]) -> tuple[int, Path] | None:
        """Which of a directory's (layer, path there) has its attributes: the first that is not merely implied."""
        for lower in lowers:
            implied = self._implied[lower[0] - 1]
            if implied is None or not implied(lower[1]):
                return lower
        return lowers[0] if lowers else None

    def slot(self, layer: int) -> int:
        """A layer's place counted from the base, which stays when layers are added on top."""
        return len(self.lowers) - layer

    def slot_mark(self, layer: int) -> bytes | None:
        """What an origin in `layer` must say beside its handle: the slot, where the handle alone may mean several
        layers, since they share a file system."""
        if self._devices[1:].count(self._devices[layer]) < 2:
            return None
        return b"%d" % self.slot(layer)

    def number_mark(self, layer: int, st: os.stat_result) -> bytes | None:
        """The number to show after a remount, where handles cannot be opened to find it out (CAP_DAC_READ_SEARCH,
        which who writes `trusted.` attributes has); "+" behind it: of a file with several links."""
        if self._prefix.startswith(b"trusted."):
            return None
        return b"%d%s" % (self.number(layer, st.st_ino, st.st_dev), b"+" if st.st_nlink > 1 else b"")

    # xattrs -----------------------------------------------------------------------------------------------------
    def use_namespace(self, namespace: bytes) -> None:
        self._prefix = namespace + b"overlay."
        self._name_marks()

    def read_root(self, layer: int, names: Sequence[bytes]) -> None:
        """Note what a lower's root, which has these attributes, says of all of the layer."""
        for namespace in (_TRUSTED, _USER):
            if namespace + ALONE in names:
                self._alone[layer] = namespace
                self._name_marks()

    def _name_marks(self) -> None:
        """Lowers are read in both namespaces, since any may have been written by anybody, unless their root says that
        one is somebody's data (`Workdir.set_apart`). The upper in its own: a union mounted on top of this one keeps the
        others there.

        A redirect or metacopy in a lower gives its owner what is in any directory or file that it names, so `user.`
        ones are followed only where the union's own are of that kind (unlike opaque marks and whiteouts, which take
        away); who writes `trusted.` ones may read everything anyway."""
        self._marks = [_mark_names((self._prefix,), (self._prefix,))]
        for layer in range(1, len(self.lowers) + 1):
            alone = self._alone.get(layer)
            namespaces = (_TRUSTED, _USER) if alone is None else (alone,)
            followed = [one for one in namespaces if one in (_TRUSTED, self._prefix)]
            self._marks.append(_mark_names(namespaces, followed))

    def marks_of(self, layer: int) -> MarkNames:
        return self._marks[layer]

    def is_foreign(self, name: bytes) -> bool:
        """Would a stored xattr of this name, which is data here, be a mark for who does not know that?"""
        return name.startswith((_TRUSTED, _USER)) and not name.startswith(self._prefix)

    def private(self, name: bytes) -> bytes:
        """The stored name of one of the union's own attributes."""
        return self._prefix + name

    def stored_xattr(self, name: bytes) -> bytes:
        """The name under which a user's xattr is stored: what looks like ours gains one `overlay.`
        (ovl_xattr_escape_name() of fs/overlayfs/xattrs.c)."""
        if name.startswith(self._prefix):
            return self._prefix + b"overlay." + name[len(self._prefix) :]
        return name

    def shown_xattr(self, name: bytes) -> bytes | None:
        """The name under which a stored xattr is shown, or None if it is the union's own."""
        if not name.startswith(self._prefix):
            return None if name.startswith(b"user.fuseoverlayfs.") else name
        inner = name[len(self._prefix) :]
        if inner.startswith(b"overlay."):
            return self._prefix + inner[len(b"overlay.") :]
        return None
