"""A union whose listeners are asked in process: what a mount's daemon does, without a mount.

`Watched` is a `vfs.Filesystem` between its caller and the union that tells a watcher of each operation, as a transport
does; so operations made by the rig of the engine's tests are traced and recorded.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.overlay_rig import Rig
from unionfs.explain.trace import Event, Filter
from unionfs.mounts.tracing import Listener, Listeners
from unionfs.overlay import UnionFilesystem
from unionfs.vfs import NOW, Answered, Asked, Caller, Entry, OpenResult, SetAttr, Watcher


class Watched:
    """The operations that the rig makes. What is not here goes to the union unseen."""

    def __init__(self, fs: UnionFilesystem) -> None:
        self._fs = fs
        self.watcher: Watcher | None = None
        fs.attach(None, dict, None, self._watch)

    def _watch(self, watcher: Watcher | None) -> None:
        self.watcher = watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def _told(self, asked: Asked, *arguments: Any, method: str | None = None) -> Any:
        call = getattr(self._fs, method or asked.op)
        if self.watcher is None:
            return call(*arguments)
        token = self.watcher.asked(asked)
        try:
            result = call(*arguments)
        except OSError as e:
            self.watcher.answered(token, Answered(e.errno or errno.EIO))
            raise
        self.watcher.answered(token, _answered(result))
        return result

    def lookup(self, parent: int, name: bytes) -> Entry:
        found: Entry = self._told(Asked("lookup", parent, name), parent, name)
        return found

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Any:
        return self._told(
            Asked("mkdir", parent, name, caller=caller, fields={"mode": mode}), parent, name, mode, caller
        )

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Any:
        return self._told(Asked("symlink", parent, name, caller=caller, data=target), parent, name, target, caller)

    def link(self, node: int, parent: int, name: bytes, caller: Caller) -> Any:
        return self._told(Asked("link", node, to=parent, to_name=name, caller=caller), node, parent, name, caller)

    def unlink(self, parent: int, name: bytes) -> Any:
        return self._told(Asked("unlink", parent, name), parent, name)

    def rmdir(self, parent: int, name: bytes) -> Any:
        return self._told(Asked("rmdir", parent, name), parent, name)

    def rename(self, parent: int, name: bytes, to: int, to_name: bytes, flags: int) -> Any:
        asked = Asked("rename", parent, name, to=to, to_name=to_name, fields={"flags": flags})
        return self._told(asked, parent, name, to, to_name, flags)

    def setattr(self, node: int, changes: SetAttr, caller: Caller, fh: int | None = None) -> Any:
        fields = {
            key: -1 if value is NOW else int(value)
            for key, value in changes._asdict().items()
            if value is not None and value is not False
        }
        return self._told(Asked("setattr", node, caller=caller, fields=fields), node, changes, caller, fh)

    def setxattr(self, node: int, name: bytes, value: bytes, flags: int) -> Any:
        asked = Asked("setxattr", node, attribute=name, data=value, fields={"flags": flags})
        return self._told(asked, node, name, value, flags)

    def open(self, node: int, flags: int) -> Any:
        return self._told(Asked("open", node, fields={"flags": flags}), node, flags)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Any:
        asked = Asked("create", parent, name, caller=caller, fields={"mode": mode, "flags": flags})
        return self._told(asked, parent, name, mode, flags, caller)

    def write(self, fh: int, offset: int, data: bytes, kill_priv: bool = False) -> Any:
        fields = {"fh": fh, "offset": offset, "size": len(data)}
        return self._told(Asked("write", self._node(fh), fields=fields, data=data), fh, offset, data)

    def release(self, fh: int) -> Any:
        return self._told(Asked("release", self._node(fh), fields={"fh": fh}), fh)

    def _node(self, fh: int) -> int:
        opened: Any = self._fs._union.handles[fh]
        node: int = opened.inode.node
        return node


def _answered(result: Any) -> Answered:
    if isinstance(result, Entry):
        return Answered(node=result.node)
    if isinstance(result, OpenResult):
        return Answered(fh=result.fh, way="cached")
    if isinstance(result, tuple):
        entry, opened = result
        return Answered(node=entry.node, fh=opened.fh, way="cached")
    return Answered(amount=result if isinstance(result, int) else None)


class Traced:
    """A rig whose operations are told. `listen` gives a listener, `lines` what he has got."""

    def __init__(self, rig: Rig) -> None:
        self.fs = rig.fs
        self.rig = rig
        self.watched = Watched(rig.fs)
        rig.fs = self.watched  # type: ignore[assignment]  # as far as the rig goes
        self.listeners = Listeners()
        self.listeners.attach(self.fs)

    def listen(self, wanted: Filter | None = None, *, recording: bool = False) -> Listener:
        return self.listeners.listen(wanted or Filter(), recording=recording)

    @contextmanager
    def events(self, wanted: Filter | None = None) -> Iterator[list[Event]]:
        """What is told during the block, there after it."""
        listener = self.listen(wanted)
        told: list[Event] = []
        yield told
        listener.finish()
        told += [Event.from_json(line["event"]) for line in lines(listener) if "event" in line]

    @contextmanager
    def recorded(self) -> Iterator[list[bytes]]:
        """The recording of the block, there after it."""
        listener = self.listen(recording=True)
        recording: list[bytes] = [json.dumps(self.listeners.header()).encode() + b"\n"]
        yield recording
        listener.finish()
        while (taken := listener.take(0)) is not None:
            recording += taken.splitlines(keepends=True)


def lines(listener: Listener) -> list[dict[str, Any]]:
    """All that is left for a listener that has been finished."""
    taken = b""
    while (more := listener.take(0)) is not None:
        taken += more
    return [json.loads(line) for line in taken.splitlines()]


def stored_tree(root: str) -> dict[str, tuple[Any, ...]]:
    """What a directory on disk holds, by path: type, mode, owner, data or target, and the marks of a union."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            what: Any = None
            if os.path.islink(path):
                what = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    what = file.read()
            marks = tuple(sorted(mark for mark in os.listxattr(path, follow_symlinks=False) if mark.endswith(MARKS)))
            values = tuple(os.getxattr(path, mark, follow_symlinks=False) for mark in marks)
            found[os.path.relpath(path, root)] = (st.st_mode, st.st_uid, st.st_gid, st.st_rdev, what, marks, values)
    return found


MARKS = ("overlay.opaque", "overlay.redirect", "overlay.metacopy", "user.mine")
