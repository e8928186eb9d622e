"""What can be wrong in a tree with regard to the layers below it: whiteouts of nothing, redirects and metacopies to
nothing.

`Below` opens the layers as a union of their own, and follows a walk from the root down: for each directory it knows
its *place*, the path of the directory that it merges with in that union, or None where it merges with nothing.

What is missing below may be there in other layers, so only whiteouts are mended: a name that no layer given has in any
encoding.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from unionfs.changeset.tree import Tree
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.upkeep.rules import Fault, View, is_opaque, whiteouts_of
from unionfs.upkeep.steps import Unlink
from unionfs.upkeep.stored import Folder, Stored, join, opaque_value

_OTHER_LAYERS = "none: other layers may have it"


class Below:
    """Owns the layers from now on."""

    def __init__(self, lowers: Sequence[Layer]) -> None:
        self._lowers = lowers
        self._union = UnionFilesystem(lowers, None, None, UnionOptions(read_only=True, metacopy=True))
        self._tree = Tree(self._union)
        self._places: dict[Path, Path | None] = {b"": b""}

    def close(self) -> None:
        self._tree.close()
        self._union.close()

    def judge(self, folder: Folder, view: View) -> Iterator[Fault]:
        """To be called for each directory of a walk, and read to the end."""
        place = self._places.pop(folder.path, None)
        if is_opaque(folder, view):
            place = None
        else:
            yield from self._whiteouts(folder, view, place)
        for name, child in sorted(folder.children.items()):
            if child.is_dir:
                yield from self._directory(folder, name, child, view, place)
            elif child.own(b"metacopy", view.namespace) is not None:
                yield from self._metacopy(name, child, view, place)

    def _whiteouts(self, folder: Folder, view: View, place: Path | None) -> Iterator[Fault]:
        for name, child in sorted(whiteouts_of(folder, view)):
            if name in folder.children and child.path != join(folder.path, name):
                continue  # beside what it hides: another rule's
            if not (child.is_empty_file or child.is_device_whiteout):
                continue
            # Names beginning .wh. are data for the kernel, and hidden by the union that is asked here.
            if name.startswith(whiteout.PREFIX) or (place is not None and self._has(place, name)):
                continue
            message = f"whiteout of {name.decode('utf-8', 'surrogateescape')}, which no layer below has"
            yield Fault(child.path, "whiteout-of-nothing", message, "remove the whiteout", (Unlink(child.path),))

    def _has(self, place: Path, name: bytes) -> bool:
        path = join(place, name)
        if self._mode(path) is not None:
            return True
        # Hidden from this union, but perhaps not from other readers of the same layers.
        for layer in self._lowers:
            try:
                st = layer.lstat(path)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                    continue
                raise
            if not whiteout.is_whiteout_device(st.st_mode, st.st_rdev):
                return True
        return False

    def _directory(self, folder: Folder, name: bytes, child: Stored, view: View, place: Path | None) -> Iterator[Fault]:
        found = self._place(name, child, view, place)
        hidden = view.aufs and whiteout.PREFIX + name in folder.children
        if opaque_value(child, view.namespace) == b"y" or hidden:
            found = None
        redirect = child.own(b"redirect", view.namespace)
        target = whiteout.redirect_target(redirect) if redirect is not None else None
        if target is not None and opaque_value(child, view.namespace) != b"y" and found is None:
            message = f"redirected to {os.fsdecode(target)}, where no layer below has a directory"
            yield Fault(child.path, "redirect-to-nothing", message, _OTHER_LAYERS)
        self._places[child.path] = found

    def _place(self, name: bytes, child: Stored, view: View, place: Path | None) -> Path | None:
        path = _followed(name, child, view, place)
        mode = self._mode(path) if path is not None else None
        return path if mode is not None and stat.S_ISDIR(mode) else None

    def _metacopy(self, name: bytes, child: Stored, view: View, place: Path | None) -> Iterator[Fault]:
        path = _followed(name, child, view, place)
        mode = self._mode(path) if path is not None else None
        if mode is None or not stat.S_ISREG(mode):
            message = "a metacopy, whose data no layer below has"
            yield Fault(child.path, "metacopy-without-data", message, _OTHER_LAYERS)

    def _mode(self, path: Path) -> int | None:
        """The mode of what the union of the layers has at a path, or None."""
        try:
            node = self._tree.resolve(path)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            return None  # a metacopy there, without data
        if node is None:
            return None
        self._tree.forget(node.node)
        return node.attr.mode


def _followed(name: bytes, child: Stored, view: View, place: Path | None) -> Path | None:
    """Where the object goes on below: by its redirect, or under its own name in its directory's place."""
    redirect = child.own(b"redirect", view.namespace)
    target = whiteout.redirect_target(redirect) if redirect is not None else None
    if target is not None and target.startswith(b"/"):
        return target[1:]
    if place is None:
        return None
    return join(place, target or name)
