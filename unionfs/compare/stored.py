"""`ChangesetView`: a layer or an upper as the changes that it says, whatever their encoding.

So an upper of the kernel's compares with the layer tar that was committed from it. A whiteout is an object of a type of
its own, that has nothing but its name; what a directory or a metacopy is marked with are attributes of these names,
which no file can have:

    overlay.opaque      hides all that layers below have in the directory
    overlay.redirect    where layers below have it
    overlay.metacopy    the data is in a layer below, so it is not compared

`.wh.NAME` beside NAME, which AUFS and layer tars may have, hides what is below NAME: that is an opaque directory, and
nothing where NAME is none.
"""

from __future__ import annotations

from typing import Final

from unionfs.changeset.content import LayerContent
from unionfs.changeset.difference import EVERY, Reason, Reasons
from unionfs.compare.view import Item, LayerView, join
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer
from unionfs.vfs import DT_WHT, Attr

_WHITEOUT: Final[Reasons] = frozenset({Reason.TYPE})
_METACOPY: Final[Reasons] = EVERY - {Reason.CONTENT}
OPAQUE: Final = b"overlay.opaque"
REDIRECT: Final = b"overlay.redirect"
METACOPY: Final = b"overlay.metacopy"
_METACOPY_XATTRS: Final = (b"trusted.overlay.metacopy", b"user.overlay.metacopy")


class ChangesetView:
    """`upper`: `.wh.` names are files of people's there, unless its root says that AUFS wrote it."""

    def __init__(self, layer: Layer, *, upper: bool = False) -> None:
        self._stored = LayerView(layer)
        self._layer = layer
        self._dotted = not upper or any(entry.name == whiteout.AUFS_MARKER for entry in layer.scan(b""))

    def root(self) -> Item:
        return self._stored.root()

    def children(self, ref: bytes) -> list[Item]:
        announced = self._announces(ref)
        found: dict[bytes, Item] = {}
        hidden: dict[bytes, Item] = {}
        for item in self._stored.children(ref):
            if self._dotted and whiteout.is_reserved(item.name):
                continue
            covered = whiteout.hidden_name(item.name) if self._dotted else None
            if covered is not None:
                hidden[covered] = _whiteout(covered, item)
            elif whiteout.is_whiteout_device(item.attr.mode, item.attr.rdev) or (announced and self._marked(item)):
                found[item.name] = _whiteout(item.name, item)
            else:
                found[item.name] = self._seen(item)
        return [item for _, item in sorted((hidden | found).items())]

    def find(self, path: bytes) -> Item | None:
        parent, _, name = path.rpartition(b"/")
        if not path:
            return self.root()
        try:
            return next((item for item in self.children(parent) if item.name == name), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _seen(self, item: Item) -> Item:
        if not item.attr.is_dir and self._first(item.ref, _METACOPY_XATTRS) is not None:
            return item._replace(known=item.known & _METACOPY)
        return item

    def _announces(self, path: bytes) -> bool:
        """Whether empty files in a directory may be whiteouts (ovl_path_check_xwhiteout_xattr())."""
        return self._opaque_value(path) == b"x" or self._first(path, whiteout.XWHITEOUTS_XATTRS) is not None

    def _marked(self, item: Item) -> bool:
        return (
            not item.attr.size and not item.attr.is_dir and self._first(item.ref, whiteout.WHITEOUT_XATTRS) is not None
        )

    def _opaque_value(self, path: bytes) -> bytes:
        return whiteout.opaque_value(lambda name: self._layer.getxattr(path, name))

    def _first(self, path: bytes, names: tuple[bytes, ...]) -> bytes | None:
        if not self._layer.listxattr(path):
            return None
        return next((value for name in names if (value := self._layer.getxattr(path, name)) is not None), None)

    def forget(self, ref: bytes) -> None:
        """Paths need no keeping."""

    def xattrs(self, ref: bytes) -> dict[bytes, bytes]:
        found = self._stored.xattrs(ref)
        if self._is_opaque(ref):
            found[OPAQUE] = b"y"
        redirect = self._first(ref, whiteout.REDIRECT_XATTRS)
        if redirect is not None:
            found[REDIRECT] = redirect
        metacopy = self._first(ref, _METACOPY_XATTRS)
        if metacopy is not None:
            found[METACOPY] = metacopy
        return found

    def _is_opaque(self, path: bytes) -> bool:
        if not Attr.from_stat(self._layer.lstat(path)).is_dir:
            return False
        if self._opaque_value(path) == b"y":
            return True
        if not self._dotted:
            return False
        # The layer says it beside or inside of the directory.
        parent, _, name = path.rpartition(b"/")
        beside = [join(parent, whiteout.PREFIX + name)] if path else []
        return any(self._stored.find(mark) is not None for mark in (join(path, whiteout.OPAQUE), *beside))

    def readlink(self, ref: bytes) -> bytes:
        return self._stored.readlink(ref)

    def content(self, ref: bytes) -> LayerContent:
        return self._stored.content(ref)

    def close(self) -> None:
        """The layer stays open."""


def _whiteout(name: bytes, item: Item) -> Item:
    attr = Attr(item.attr.ino, 0, 0, 0, 0, 0, DT_WHT << 12, 1, 0, 0, 0, 0)
    return Item(name, attr, item.ref, item.device, _WHITEOUT)
