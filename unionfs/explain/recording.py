"""What there was before a recording began: each object of each layer that an operation is about to touch.

    Scene.before(asked)     an operation is about to be done: tell what it may touch and has not been told yet
    Scene.after(event)      it is done
    Scene.finish()          what the kernel wrote by itself to files that are open still

Layers do not change while they are mounted, so of them anything may be told at any time. Of the upper what is told is
what was there before: an object is told before the first operation that could change it. What is not there is noted
(`_new`): whatever stands at or below that path later was made since. So is a directory that is about to be moved, after
all below it was told.

Files that the kernel writes by itself (passthrough) are told with their contents when they are released: an event
`contents`.

INVARIANT: nothing of the layers is changed by looking, not even a time of access that a mount shows: what is told of a
file's data was read through the layer as the engine reads it.

All with `union.lock`, which is taken here.
"""

from __future__ import annotations

import base64
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from unionfs.explain.trace import Event
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.file import Handle
from unionfs.overlay.inode import DirInode, Inode, join
from unionfs.overlay.stack import UPPER
from unionfs.overlay.trace import place_of
from unionfs.vfs import DT_DIR, Asked, NodeId

VERSION: Final = 1
#: Of larger files a recording has the size alone.
DATA_LIMIT: Final = 1 << 20
#: Operations that do nothing with a file's data, and are not a reason to look at it. All others are: whoever unlinks a
#: file may have it open, and what is seen in a replay should be what was there.
_LOOKING: Final = frozenset(("lookup", "getattr", "readlink", "getxattr", "listxattr", "access", "statfs", "statx"))
#: Operations that need all names of a directory.
_LISTING: Final = frozenset(("readdir", "readdirplus", "opendir", "rmdir", "rename"))


def header(fs: UnionFilesystem) -> dict[str, Any]:
    """What a recording of a union begins with: the names of the layers, the upper's or None first, and what of the
    mount's options decides how an operation is done. `namespace`: of the marks."""
    union = fs._union
    stack, options = union.stack, union.options
    kept = {"metacopy": union.metacopy, "index": options.index, "redirect_dir": options.redirect_dir}
    return {
        "recording": VERSION,
        "layers": [stack.upper.name if stack.has_upper else None, *(layer.name for layer in stack.lowers)],
        "namespace": "user" if stack.private(b"").startswith(b"user.") else "trusted",
        "options": kept,
    }


class Scene:
    """Of one recording. `tell` gets an object, `tell_event` an event that is no request."""

    def __init__(
        self, fs: UnionFilesystem, tell: Callable[[dict[str, Any]], None], tell_event: Callable[[Event], None]
    ) -> None:
        self._fs = fs
        self._union = fs._union
        self._tell = tell
        self._tell_event = tell_event
        self._told: set[tuple[int, Path]] = set()
        self._told_data: set[tuple[int, Path]] = set()
        self._new: set[Path] = set()  # of the upper: what is there, or below, was not at the beginning
        self._cached: set[int] = set()  # handles whose writes are seen
        with self._union.lock:
            for number in self._numbers():
                self._object(number, b"", data=False)

    def _numbers(self) -> Iterator[int]:
        stack = self._union.stack
        yield from range(UPPER if stack.has_upper else 1, len(stack.lowers) + 1)

    # operations ---------------------------------------------------------------------------------------------------
    def before(self, asked: Asked) -> None:
        with self._union.lock:
            for path in self._paths(asked):
                self._touch(path, data=asked.op not in _LOOKING)
                if asked.op in _LISTING:
                    self._names(path)
            if asked.op == "rename":
                for path in self._paths(asked):
                    self._move(path)
            if asked.op == "release":
                self._contents(asked.fields.get("fh", 0))

    def after(self, event: Event) -> None:
        if event.op in ("open", "create", "tmpfile") and event.fh is not None and event.way == "cached":
            self._cached.add(event.fh)
        elif event.op == "release" and event.fh is not None:
            self._cached.discard(event.fh)

    def finish(self) -> None:
        with self._union.lock:
            for fh in list(self._union.handles):
                self._contents(fh)

    def _paths(self, asked: Asked) -> Iterator[Path]:
        if asked.path is not None:
            yield asked.path
            if asked.to_path is not None:
                yield asked.to_path
            return
        for node, name in ((asked.node, asked.name), (asked.to, asked.to_name)):
            path = place_of(self._union, node) if node else None
            if path is not None:
                yield path if name is None else join(path, name)

    def _contents(self, fh: int) -> None:
        """Of what was open for writing, and may have been written by the kernel itself."""
        opened = self._union.handles.get(fh)
        if not isinstance(opened, Handle) or not opened.writable or opened.file is None or fh in self._cached:
            return
        size = opened.file.fstat().st_size
        node: NodeId = opened.inode.node
        known = size <= DATA_LIMIT
        data = opened.file.pread(size, 0) if known and size else b""
        fields = {"size": size} if known else {"size": size, "missing": 1}
        path = place_of(self._union, node)
        if path is not None:
            self._touch(path, data=True)
        self._tell_event(Event(time.time(), "contents", path, node=node, fh=fh, fields=fields, data=data))

    # paths --------------------------------------------------------------------------------------------------------
    def _places(self, path: Path) -> dict[int, Path]:
        """Where each layer has, or would have, a path; as far as directories are in use by what they are made of."""
        places = dict.fromkeys(self._numbers(), path)
        directory: Inode | None = self._union.root
        head, _, _name = path.rpartition(b"/")
        for at, name in enumerate(head.split(b"/") if head else ()):
            directory = directory.children.get(name) if isinstance(directory, DirInode) else None
            if not isinstance(directory, DirInode):
                break
            rest = b"/".join(path.split(b"/")[at + 1 :])
            for number, base in directory.lowers:
                places[number] = join(base, rest)
        inode = directory.children.get(_name) if isinstance(directory, DirInode) and path else None
        if isinstance(inode, DirInode):
            places.update(inode.lowers)
        return places

    def _touch(self, path: Path, *, data: bool) -> None:
        """Each layer where it has the path, by whatever redirects; and all layers there, so that what is hidden at
        such a place, or seen there, is so in the replay."""
        for place in {path, *self._places(path).values()}:
            for number in self._numbers():
                self._with_marks(number, place, data=data)

    def _with_marks(self, number: int, path: Path, *, data: bool) -> None:
        self._object(number, path, data=data)
        directory, _, name = path.rpartition(b"/")
        for mark in (whiteout.PREFIX + name, whiteout.OPAQUE):
            if name:
                self._object(number, join(directory, mark), data=False)

    def _names(self, path: Path) -> None:
        """All that a directory holds in each layer."""
        for number, place in self._places(path).items():
            if number == UPPER and self._is_new(place):
                continue
            try:
                entries = self._union.stack.layer(number).scan(place)
            except OSError:
                continue
            for entry in entries:
                self._object(number, join(place, entry.name), data=False)

    def _move(self, path: Path) -> None:
        """What is about to have another path: all of it, and then nothing of it is what it was."""
        stack = self._union.stack
        if stack.has_upper and not self._is_new(path):
            self._below(UPPER, path)
            self._new.add(path)
        follows = self._union.options.redirect_dir and self._union.workdir is not None and self._union.workdir.xattrs
        if not follows:
            for number, place in self._places(path).items():
                if number != UPPER:
                    self._below(number, place)

    def _below(self, number: int, path: Path) -> None:
        layer = self._union.stack.layer(number)
        todo = [path]
        while todo:
            here = todo.pop()
            self._object(number, here, data=True)
            try:
                entries = layer.scan(here)
            except OSError:
                continue
            for entry in entries:
                below = join(here, entry.name)
                if entry.type == DT_DIR:
                    todo.append(below)
                else:
                    self._object(number, below, data=True)

    def _is_new(self, path: Path) -> bool:
        """Was it made, or moved there, since the beginning?"""
        if not self._new:
            return False
        while path:
            if path in self._new:
                return True
            path = path.rpartition(b"/")[0]
        return False

    # objects ------------------------------------------------------------------------------------------------------
    def _object(self, number: int, path: Path, *, data: bool) -> None:
        """Tell of an object, those it lies in first."""
        key = number, path
        if key in self._told and (not data or key in self._told_data):
            return
        if number == UPPER and self._is_new(path):
            return
        if path:
            self._with_marks(number, path.rpartition(b"/")[0], data=False)
        self._told.add(key)
        layer = self._union.stack.layer(number)
        try:
            st = layer.lstat(path)
        except OSError:
            if number == UPPER:
                self._new.add(path)
            self._told_data.add(key)
            return
        if data or not stat.S_ISREG(st.st_mode):
            self._told_data.add(key)
        self._tell(_object(layer, number, path, st, data))


def _object(layer: Layer, number: int, path: Path, st: os.stat_result, data: bool) -> dict[str, Any]:
    xattrs = {}
    for name in layer.listxattr(path):
        value = layer.getxattr(path, name)
        if value is not None:
            xattrs[os.fsdecode(name)] = base64.b64encode(value).decode("ascii")
    told: dict[str, Any] = {
        "layer": number,
        "path": os.fsdecode(path),
        "mode": st.st_mode,
        "uid": st.st_uid,
        "gid": st.st_gid,
        "size": st.st_size,
        "rdev": st.st_rdev,
        "links": 1 if stat.S_ISDIR(st.st_mode) else st.st_nlink,
        "id": f"{st.st_dev}:{st.st_ino}",
        "atime_ns": st.st_atime_ns,
        "mtime_ns": st.st_mtime_ns,
        "xattrs": xattrs,
        "target": None,
        "data": None,
    }
    if stat.S_ISLNK(st.st_mode):
        told["target"] = os.fsdecode(layer.readlink(path))
    elif stat.S_ISREG(st.st_mode) and data and st.st_size <= DATA_LIMIT:
        file = layer.open(path)
        try:
            told["data"] = base64.b64encode(file.pread(st.st_size, 0)).decode("ascii")
        finally:
            file.close()
    return told
