"""`World`: layers in memory and the union that is mounted over them, by the real engine.

Life: layers are made and filled one after another (each as the upper of a union of its own), then some are mounted
below a new upper. `push` makes the upper a layer and gives a new one, `pop` takes that back. Nothing else is kept but
what would be on a disk, and what the mount remembers.

The clock stands still while a command runs, and is moved by `tick`: so the same commands give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unionfs.changeset.change import Change as Diff
from unionfs.changeset.change import Kind
from unionfs.changeset.diff import diff
from unionfs.changeset.member import member_of
from unionfs.changeset.tar_format import DIR, LINK, SYMLINK
from unionfs.changeset.tar_reader import TarEntry
from unionfs.changeset.tar_writer import WrittenLayer, write_layer_stream
from unionfs.changeset.tree import Node, Tree
from unionfs.errors import ScriptError
from unionfs.explain import personality as other
from unionfs.explain.picture import Column, Encoding, Picture, Shown, column, members, merged, tar_column
from unionfs.explain.shell import ROOT_USER, Shell
from unionfs.layers import whiteout
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.hardlink import decode_origin
from unionfs.overlay.inode import join
from unionfs.overlay.workdir import remove_tree
from unionfs.vfs import DT_DIR, Attr, SetAttr

#: 2024-01-01 00:00:00 UTC, when every world begins.
_START = 1_704_067_200
_NS = 1_000_000_000
UPPER = "upper"
_ORIGIN = b"trusted.overlay.origin"


class _Pushed(NamedTuple):
    """What `pop` brings back."""

    lowers: tuple[str, ...]
    upper: MemoryLayer
    layer: str


class World:
    def __init__(self, personality: other.Personality, encoding: Encoding) -> None:
        self.personality = personality
        self.encoding = encoding
        self.seconds = _START
        #: In the order in which they were made: the first is the base.
        self.layers: dict[str, MemoryLayer] = {}
        self.filling: str | None = None
        self.lowers: tuple[str, ...] = ()
        self.upper: MemoryLayer | None = None
        self.pushed: list[_Pushed] = []
        self.fs: UnionFilesystem | None = None
        self._options = UnionOptions()
        self._work: MemoryLayer | None = None
        self._devices = 0
        self._numbers: dict[object, int] = {}

    # time and numbers -------------------------------------------------------------------------------------------
    def tick(self) -> None:
        self.seconds += 1

    def clock(self) -> int:
        return self.seconds * _NS

    def seen(self, node: Node) -> Attr:
        """A file's attributes as they are shown: small inode numbers, and the personality's link counts."""
        attr = node.attr
        identity: object = attr.ino
        if self.personality.links == "never" and not attr.is_dir and self.upper is not None:
            attr, identity = self._parted(node)
        return attr._replace(ino=self._numbers.setdefault(identity, len(self._numbers) + 1))

    def _parted(self, node: Node) -> tuple[Attr, object]:
        """Without an index the link count is that of the layer, and "we cannot use the lower origin st_ino" for the
        copy of one of several names (ovl_getattr())."""
        assert self.fs is not None and self.upper is not None
        (number, path), *_ = self.fs.sources(node.node)
        layer = self.upper if number == 0 else self.layers[self.lowers[number - 1]]
        attr = node.attr._replace(nlink=layer.lstat(path).st_nlink)
        origin = decode_origin(layer.getxattr(path, _ORIGIN) or b"") if number == 0 else None
        for name in self.lowers if origin is not None else ():
            with contextlib.suppress(OSError):
                assert origin is not None
                if self.layers[name].stat_handle(origin).st_nlink > 1:
                    return attr, (UPPER, layer.lstat(path).st_ino)
        return attr, attr.ino

    # layers -------------------------------------------------------------------------------------------------------
    @property
    def shell(self) -> Shell:
        """ScriptError before there is anything to act on."""
        if self.fs is None:
            raise ScriptError("there is no layer yet", hint="begin with: layer base")
        return Shell(self.fs, self.seen)

    @property
    def mounted(self) -> bool:
        return self.upper is not None

    def _disk(self, *, marks: bool = True) -> MemoryDisk:
        self._devices += 1
        return MemoryDisk(self.clock, self._devices, xattrs=marks, devices=marks)

    def new_layer(self, name: str) -> None:
        """A new empty layer, to be filled."""
        if self.mounted:
            raise ScriptError("layers come before the mount", hint="push makes the upper a layer")
        self._check_name(name)
        self._close()
        self.layers[name] = MemoryLayer(self._disk(), name)
        self.filling = name
        self.fill()

    def _check_name(self, name: str) -> None:
        if name in (UPPER, "work") or name in self.layers or not name or any(mark in name for mark in "/:="):
            why = "there is one already" if name in self.layers else "it means something else"
            raise ScriptError(f"no layer can be called {name!r}: {why}", hint="choose another name")

    def fill(self) -> None:
        """What is done from now on is done to the layer itself, seen anew."""
        assert self.filling is not None
        layer = self.layers[self.filling]
        self._close()
        self.fs = UnionFilesystem([], layer, MemoryLayer(layer.disk, "work"))

    def hide(self, path: str) -> None:
        """Put a whiteout into the layer that is being filled."""
        layer, raw = self._marked(path)
        directory, _, name = raw.rpartition(b"/")
        if self.encoding == "aufs":
            layer.create(join(directory, whiteout.PREFIX + name), 0o600).close()
        else:
            layer.mknod(raw, stat.S_IFCHR, 0)
        self.fill()

    def hide_all(self, path: str) -> None:
        """Make a directory of the layer that is being filled opaque."""
        layer, raw = self._marked(path)
        if self.encoding == "aufs":
            layer.create(join(raw, whiteout.OPAQUE), 0o600).close()
        else:
            layer.setxattr(raw, other.OPAQUE_XATTR, b"y")
        self.fill()

    def _marked(self, path: str) -> tuple[MemoryLayer, bytes]:
        if self.filling is None or self.mounted:
            raise ScriptError("marks are put into a layer by hand only before the mount", hint="rm leaves whiteouts")
        return self.layers[self.filling], os.fsencode(path.strip("/"))

    # the mount ----------------------------------------------------------------------------------------------------
    def mount(self, names: Sequence[str], options: Iterable[str]) -> None:
        """The named layers, topmost first (none: all, the last one made on top), below a new upper."""
        if self.mounted:
            raise ScriptError("it is mounted already", hint="push and pop change the layers; undo takes a mount back")
        if not self.layers:
            raise ScriptError("there is no layer yet", hint="begin with: layer base")
        for name in names:
            if name not in self.layers:
                raise ScriptError(f"no such layer: {name}", hint=f"there are {', '.join(self.layers)}")
        self._options = self._understand(options)
        self.lowers = tuple(names) or tuple(reversed(self.layers))
        self.filling = None
        self._new_upper()
        self.remount()

    def new_disk_layer(self, name: str) -> MemoryLayer:
        """A new empty layer, above those there are, to be filled by hand."""
        self.layers[name] = MemoryLayer(self._disk(), name)
        return self.layers[name]

    def mount_as_it_is(self, options: UnionOptions) -> None:
        """All layers, the last one made on top, below an upper to be filled by hand; `remount` then mounts them."""
        self._options = options
        self.lowers = tuple(reversed(self.layers))
        self._new_upper()

    def _understand(self, options: Iterable[str]) -> UnionOptions:
        settings = UnionOptions(index=self.personality.links == "always")
        for option in options:
            if option == "metacopy":
                settings = settings._replace(metacopy=True)
            elif option == "redirect_dir=off":
                settings = settings._replace(redirect_dir=False)
            elif option == "index=off":
                settings = settings._replace(index=False)
            else:
                raise ScriptError(f"no such mount option: {option}", hint="metacopy, redirect_dir=off, index=off")
        return settings

    def _new_upper(self) -> None:
        disk = self._disk(marks=self.encoding != "aufs")
        self.upper, self._work = MemoryLayer(disk, UPPER), MemoryLayer(disk, "work")

    def remount(self) -> None:
        """Unmount, and mount the same again: what only the mount knew is gone."""
        if self.upper is None:
            raise ScriptError("nothing is mounted", hint="mount")
        self._close()
        self.fs = UnionFilesystem(self._below(), self.upper, self._work, self._options)

    def _below(self) -> list[MemoryLayer]:
        layers = [self.layers[name] for name in self.lowers]
        return [other.SeparateNames(layer) for layer in layers] if self.personality.links == "never" else layers

    def _close(self) -> None:
        if self.fs is not None:
            self.fs.close()
            self.fs = None

    def push(self, name: str) -> None:
        """The upper becomes the topmost layer. In the encoding oci: what its changeset makes of it."""
        upper = self._mounted_upper()
        self._check_name(name)
        layer = upper
        if self.encoding == "oci":
            layer = MemoryLayer(self._disk(), name)
            _unpack(layer, self.tar()[0])
        self._complete_links()
        self._clear_work()
        layer.name = name
        self.pushed.append(_Pushed(self.lowers, upper, name))
        self.layers[name] = layer
        self.lowers = (name, *self.lowers)
        self._new_upper()
        self.remount()

    def pop(self) -> None:
        """The layer pushed last is the upper again; what has been changed since is gone."""
        self._mounted_upper()
        if not self.pushed:
            raise ScriptError("nothing has been pushed", hint="push makes the upper a layer")
        before = self.pushed.pop()
        del self.layers[before.layer]
        self.lowers, self.upper = before.lowers, before.upper
        self.upper.name = UPPER
        self._work = MemoryLayer(self.upper.disk, "work")
        self.remount()

    def _mounted_upper(self) -> MemoryLayer:
        if self.upper is None:
            raise ScriptError("nothing is mounted", hint="mount puts an upper over the layers")
        return self.upper

    def _clear_work(self) -> None:
        """The index is no part of a layer, and what is in it would go on counting as links."""
        self._close()
        assert self._work is not None
        for entry in self._work.scan(b""):
            remove_tree(self._work, entry.name)

    def _complete_links(self) -> None:
        """Have all names of each copied-up file in the upper: the index, which knows of the others, is no part of a
        layer."""
        assert self.fs is not None and self.upper is not None
        with Tree(self.fs) as tree:
            self._complete_below(tree, tree.root(), b"")

    def _complete_below(self, tree: Tree, directory: Node, path: bytes) -> None:
        assert self.fs is not None and self.upper is not None
        fs = self.fs
        for name, child in list(tree.children(directory.node)):
            below = join(path, name)
            if child.attr.is_dir:
                self._complete_below(tree, child, below)
            elif fs.sources(child.node)[0][0] == 0 and not _exists(self.upper, below):
                before = tree.resolve(path)
                assert before is not None
                temporary = b".push-" + name
                entry = fs.link(child.node, directory.node, temporary, ROOT_USER)
                fs.forget(entry.node, 1)
                fs.unlink(directory.node, name)
                fs.rename(directory.node, temporary, directory.node, name, 0)
                times = SetAttr(atime_ns=before.attr.atime_ns, mtime_ns=before.attr.mtime_ns)
                fs.setattr(directory.node, times, ROOT_USER)

    # what there is ------------------------------------------------------------------------------------------------
    def tar(self) -> tuple[bytes, WrittenLayer]:
        """The upper as a layer tar. ChangesetError for what that cannot hold."""
        upper = self._mounted_upper()
        assert self.fs is not None
        before, out = UnionFilesystem(self._below()), io.BytesIO()
        try:
            written = write_layer_stream(before, self.fs, upper, out)
        finally:
            before.close()
        return out.getvalue(), written

    def diff(self) -> list[Diff]:
        upper = self._mounted_upper()
        assert self.fs is not None
        before = UnionFilesystem(self._below())
        try:
            found = list(diff(before, self.fs, upper))
            if self.personality.diff_without_times:
                found = _without_times(before, found)
        finally:
            before.close()
        return found

    def picture(self) -> Picture:
        columns: list[Column] = []
        if self.upper is not None:
            if self.encoding == "oci":
                columns.append(tar_column(UPPER, self.tar()[0]))
            else:
                columns.append(column(self.upper, "upper", self.encoding))
        names = self.lowers if self.mounted else tuple(reversed(self.layers))
        columns += [column(self.layers[name], "layer", self.encoding) for name in names]
        return Picture(tuple(columns), self._merged())

    def _merged(self) -> dict[str, Shown] | None:
        if not self.mounted:
            return None
        assert self.fs is not None
        return merged(self.fs, (self._mounted_upper(), *(self.layers[name] for name in self.lowers)))

    def stored(self, name: str) -> MemoryLayer:
        """A layer, the upper or the work directory, as it is on its disk."""
        if name == "work" and self._work is not None:
            return self._work
        layer = self.upper if name == UPPER else self.layers.get(name)
        if layer is None:
            there = [*((UPPER,) if self.mounted else ()), *self.layers]
            raise ScriptError(f"no such layer: {name}", hint=f"there are {', '.join(there)}" if there else "layer base")
        return layer


def _exists(layer: MemoryLayer, path: bytes) -> bool:
    try:
        layer.lstat(path)
    except OSError:
        return False
    return True


def _unpack(layer: MemoryLayer, tar: bytes) -> None:
    """A layer tar as a layer of the kernel's: whiteout devices, opaque marks."""
    for entry, data in members(tar):
        member = member_of(entry)
        if member is None:
            continue
        directory = b"/".join(member.parents)
        path = join(directory, member.hidden or member.name)
        if member.kind == "opaque":
            layer.setxattr(directory, other.OPAQUE_XATTR, b"y")
        elif member.kind == "whiteout":
            layer.mknod(path, stat.S_IFCHR, 0)
        elif entry.type == LINK:
            layer.link(entry.linkname, layer, path)
        else:
            if member.kind == "object":
                _make(layer, path, entry, data)
            _dress(layer, path, entry)
    for entry, _ in members(tar):  # what was made later has touched the directory
        member = member_of(entry)
        if member is not None and entry.type == DIR:
            layer.utime(b"/".join((*member.parents, member.name)).strip(b"/"), entry.mtime_ns, entry.mtime_ns)


def _make(layer: MemoryLayer, path: bytes, entry: TarEntry, data: bytes) -> None:
    if entry.type == DIR:
        layer.mkdir(path, entry.mode)
    elif entry.type == SYMLINK:
        layer.symlink(path, entry.linkname)
    else:  # the simulator makes nothing else
        file = layer.create(path, entry.mode)
        file.pwrite(data, 0)
        file.close()


def _dress(layer: MemoryLayer, path: bytes, entry: TarEntry) -> None:
    layer.chown(path, entry.uid, entry.gid)
    if entry.type != SYMLINK:
        layer.chmod(path, entry.mode)
    layer.utime(path, entry.mtime_ns, entry.mtime_ns)


def _without_times(before: UnionFilesystem, found: list[Diff]) -> list[Diff]:
    """Directories of which only the time is another are left out, unless something below changed."""
    kept = []
    with Tree(before) as tree:
        for change in found:
            if change.kind is Kind.CHANGED and change.type == DT_DIR and change.attr is not None:
                old = tree.resolve(change.path)
                above = change.path + b"/"
                same = old is not None and old.attr[6:7] + old.attr[8:10] == change.attr[6:7] + change.attr[8:10]
                if same and not any(other.path.startswith(above) for other in found):
                    continue
            kept.append(change)
    return kept
