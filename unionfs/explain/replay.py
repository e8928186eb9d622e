"""A recording, done once more: the same operations, by the same engine, on layers in memory.

    recording = load(lines)               ScriptError, with the line, for what is none
    replay = Replay(recording)
    replay.step()                         the next operation that changes something; None at the end
    replay.undo(); replay.go_to(n)

Format of a recording: lines of JSON: {"recording": 1, "layers": […], "namespace": …, …}, then {"scene": …} and
{"event": …} as `Scene` and `Event` make them, at last {"end": …}; one that was cut off lacks that.

What a layer had that nobody touched is not there, files of which the recording has no data (more than 1 MiB, or merely
listed) are zeros, and hard-link groups that were copied up before the recording began have parted. POSIX ACLs are left
out, as memory has none, and times are those of the replay, but where they were set.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from unionfs.errors import ProtocolError, ScriptError
from unionfs.explain.personality import UNIONFS
from unionfs.explain.picture import Change, Picture, changes
from unionfs.explain.recording import VERSION
from unionfs.explain.trace import Event, Tracer
from unionfs.explain.world import UPPER, World
from unionfs.layers.memory import MemoryLayer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import NOW, ROOT, Answered, Asked, Caller, NodeId, SetAttr

#: Operations that may change something, or open what is written to later.
CHANGING: Final = frozenset(
    "mknod mkdir symlink link unlink rmdir rename setattr setxattr removexattr open create tmpfile write release "
    "fallocate copy_file_range contents".split()
)
#: Marks that mean nothing on other disks than those where they were made.
_HANDLES: Final = ("overlay.origin", "overlay.nlink", "overlay.upper", "overlay.unionfs.slot", "overlay.unionfs.number")
_MOST_LAYERS: Final = 1000
#: Failures that are those of the machine, and not of the operation.
_PASSING: Final = frozenset(("EINTR", "EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ENOTCONN"))


class Object(NamedTuple):
    """One stored object of the scene. `data` None: not known, `size` zeros. `id`: of the stored object, whatever its
    name."""

    layer: int
    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    rdev: int
    links: int
    id: str
    atime_ns: int
    mtime_ns: int
    xattrs: Mapping[bytes, bytes]
    target: bytes
    data: bytes | None


class Recording(NamedTuple):
    """`layers`: what they are called, the upper, or None, first. `complete`: it was not cut off."""

    layers: tuple[str | None, ...]
    options: UnionOptions
    scene: tuple[Object, ...]
    events: tuple[Event, ...]
    complete: bool

    @property
    def changing(self) -> tuple[Event, ...]:
        """Those that can change something: not what was refused since the mount was read-only."""
        return tuple(event for event in self.events if event.op in CHANGING and event.error != "EROFS")


class Replayed(NamedTuple):
    """One operation. `number` counts from 1. `now`: what came of it this time, `differs` if that is not what was
    recorded. `changes`: of what the layers have stored."""

    number: int
    recorded: Event
    now: Event
    differs: bool
    changes: tuple[Change, ...]
    picture: Picture


# reading --------------------------------------------------------------------------------------------------------------
def load(lines: Iterable[bytes]) -> Recording:
    loader = _Loader()
    for number, line in enumerate(lines, 1):
        try:
            loader.add(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, ProtocolError, RecursionError) as e:
            if number > 1 and not line.endswith(b"\n"):
                break  # cut off
            what = str(e) if isinstance(e, ProtocolError) else f"{type(e).__name__}: {e}"
            raise ScriptError(
                f"no recording: {what}", line=number, hint="unionfs trace --record FILE MOUNTPOINT makes one"
            ) from None
    return loader.result()


class _Loader:
    def __init__(self) -> None:
        self._layers: tuple[str | None, ...] | None = None
        self._options = UnionOptions()
        self._scene: dict[tuple[int, bytes], Object] = {}
        self._events: list[Event] = []
        self._complete = False

    def add(self, told: Any) -> None:
        if self._layers is None:
            self._begin(told)
        elif "scene" in told:
            found = _object(told["scene"], len(self._layers))
            self._scene[found.layer, found.path] = found
        elif "event" in told:
            self._events.append(Event.from_json(told["event"]))
        elif "end" in told:
            self._complete = True
        else:
            raise ProtocolError("a line of no known form")

    def _begin(self, told: Any) -> None:
        if not isinstance(told, dict) or told.get("recording") != VERSION:
            raise ProtocolError("it does not begin as one")
        layers = told["layers"]
        if not isinstance(layers, list) or not 1 <= len(layers) <= _MOST_LAYERS:
            raise ProtocolError("it has no layers")
        self._layers = tuple(None if layer is None else str(layer) for layer in layers)
        options = told["options"]
        self._options = UnionOptions(
            xattr_prefix=b"user." if told["namespace"] == "user" else b"trusted.",
            index=bool(options["index"]),
            metacopy=bool(options["metacopy"]),
            redirect_dir=bool(options["redirect_dir"]),
        )

    def result(self) -> Recording:
        if self._layers is None:
            raise ScriptError("no recording: it is empty", hint="unionfs trace --record FILE MOUNTPOINT makes one")
        # An object of which there is more than one description: the last one has the data.
        return Recording(self._layers, self._options, tuple(self._scene.values()), tuple(self._events), self._complete)


def _object(told: Mapping[str, Any], layers: int) -> Object:
    path = os.fsencode(told["path"])
    if path and any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise ProtocolError(f"a path that leads elsewhere: {told['path']!r}")
    numbers = {name: int(told[name]) for name in ("layer", "mode", "uid", "gid", "size", "rdev", "links")}
    times = {name: int(told[name]) for name in ("atime_ns", "mtime_ns")}
    if not 0 <= numbers["layer"] < layers or any(not 0 <= value < 1 << 63 for value in numbers.values()):
        raise ProtocolError("a number that is none of a layer's")
    xattrs = {os.fsencode(name): base64.b64decode(value, validate=True) for name, value in told["xattrs"].items()}
    return Object(
        **numbers,
        **times,
        path=path,
        id=str(told["id"]),
        xattrs=xattrs,
        target=os.fsencode(told["target"] or ""),
        data=None if told["data"] is None else base64.b64decode(told["data"], validate=True),
    )


# the stage ------------------------------------------------------------------------------------------------------------
class _Stage:
    """Puts the scene into layers in memory."""

    def __init__(self, layer: MemoryLayer) -> None:
        self._layer = layer
        self._elsewhere = MemoryLayer(layer.disk, "elsewhere")  # where names are that nobody touched
        self._names: dict[str, bytes] = {}
        self._missing = 0

    def put(self, objects: Sequence[Object]) -> None:
        """ScriptError for objects that cannot be in one layer."""
        try:
            self._put_all(objects)
        except OSError as e:
            where = os.fsdecode(e.filename) if isinstance(e.filename, bytes) else "an object"
            raise ScriptError(f"{where} cannot be in {self._layer.name}: {e.strerror}", hint="record it again") from e

    def _put_all(self, objects: Sequence[Object]) -> None:
        wanted = sorted(objects, key=lambda one: one.path.count(b"/") + bool(one.path))
        counts: dict[str, int] = {}
        for one in wanted:
            self._put(one)
            counts[one.id] = counts.get(one.id, 0) + 1
        for one in wanted:
            while counts[one.id] < one.links and counts[one.id] < 1000:
                self._missing += 1
                self._layer.link(one.path, self._elsewhere, b"%d" % self._missing)
                counts[one.id] += 1
        for one in reversed(wanted):  # what is in a directory has touched it
            self._layer.utime(one.path, one.atime_ns, one.mtime_ns)

    def _put(self, one: Object) -> None:
        layer, path = self._layer, one.path
        if one.id in self._names and not stat.S_ISDIR(one.mode):
            layer.link(self._names[one.id], layer, path)
            return
        if path:
            self._names[one.id] = path
            self._make(one)
        layer.chown(path, one.uid, one.gid)
        if not stat.S_ISLNK(one.mode):
            layer.chmod(path, stat.S_IMODE(one.mode))
        for name, value in one.xattrs.items():
            if not os.fsdecode(name).endswith(_HANDLES) and not name.startswith(b"system."):
                layer.setxattr(path, name, value)

    def _make(self, one: Object) -> None:
        kind = stat.S_IFMT(one.mode)
        if kind == stat.S_IFDIR:
            self._layer.mkdir(one.path, stat.S_IMODE(one.mode))
        elif kind == stat.S_IFLNK:
            self._layer.symlink(one.path, one.target)
        elif kind == stat.S_IFREG:
            file = self._layer.create(one.path, stat.S_IMODE(one.mode))
            file.ftruncate(one.size)
            if one.data:
                file.pwrite(one.data, 0)
            file.close()
        else:
            self._layer.mknod(one.path, one.mode, one.rdev)


def _world(recording: Recording) -> World:
    world = World(UNIONFS, "kernel")
    names = _short_names(recording.layers)
    for number in range(len(names) - 1, 0, -1):
        layer = world.new_disk_layer(names[number])
        _Stage(layer).put([one for one in recording.scene if one.layer == number])
    writable = recording.layers[0] is not None
    world.mount_as_it_is(recording.options)
    if writable:
        assert world.upper is not None
        _Stage(world.upper).put([one for one in recording.scene if one.layer == 0])
    world.remount()
    return world


def _short_names(layers: Sequence[str | None]) -> list[str]:
    """What a layer is called in a table: the last part of its path, if no other is called so."""
    names: list[str] = []
    for number, layer in enumerate(layers):
        short = (layer or "").rstrip("/").rpartition("/")[2].replace(":", "-")[:20]
        taken = not short or short in names or short in (UPPER, "work")
        names.append(UPPER if number == 0 else f"layer {number}" if taken else short)
    return names


# the replay -----------------------------------------------------------------------------------------------------------
class Replay:
    """A recording in progress. The same recording always gives the same steps."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.events = recording.changing
        #: How many have been done.
        self.done = 0
        self._start()

    def _start(self) -> None:
        self._world = _world(self.recording)
        assert self._world.fs is not None
        self._actor = _Actor(self._world.fs)
        self.done = 0
        self.picture = self._world.picture()

    @property
    def fs(self) -> UnionFilesystem:
        """The union as it is now."""
        assert self._world.fs is not None
        return self._world.fs

    @property
    def next(self) -> Event | None:
        """What `step` would do."""
        return self.events[self.done] if self.done < len(self.events) else None

    def step(self) -> Replayed | None:
        event = self.next
        if event is None:
            return None
        self._world.tick()
        before = self.picture
        now = self._actor.act(event)
        self.done += 1
        self.picture = self._world.picture()
        differs = now.error != event.error and not {now.error, event.error} & _PASSING
        return Replayed(self.done, event, now, differs, changes(before, self.picture, "kernel"), self.picture)

    def go_to(self, number: int) -> None:
        """So that `number` operations are done."""
        if number < self.done:
            self._start()
        while self.done < min(number, len(self.events)):
            event = self.events[self.done]
            self._world.tick()
            self._actor.act(event)
            self.done += 1
        self.picture = self._world.picture()

    def undo(self) -> bool:
        """Take the last operation back: all but it are done once more. False where there is none."""
        if not self.done:
            return False
        self.go_to(self.done - 1)
        return True

    def run(self) -> Iterator[Replayed]:
        while (replayed := self.step()) is not None:
            yield replayed

    def close(self) -> None:
        if self._world.fs is not None:
            self._world.fs.close()


class _Actor:
    """Does recorded operations to a union, by path. What is open, and so may have no path, is found by its handle."""

    def __init__(self, fs: UnionFilesystem) -> None:
        self._fs = fs
        self._handles: dict[int, tuple[int, NodeId]] = {}  # recorded handle -> ours, and its node
        self._nodes: dict[int, list[NodeId]] = {}  # recorded node -> ours, as long as it is open
        self._told: list[Event] = []
        self._tracer = Tracer(fs, lambda event, _: self._told.append(event), lambda asked: None)

    def act(self, event: Event) -> Event:
        """What came of it."""
        caller = Caller(event.uid, event.gid, event.pid, event.umask)
        asked = Asked(
            event.op,
            path=event.path,
            to_path=event.to_path,
            attribute=event.attribute,
            caller=caller,
            fields=event.fields,
            data=event.data,
        )
        if event.path is None:
            asked = asked._replace(node=self._nodes.get(event.node, [0])[-1])
        method: Callable[[Event, Caller], None] = getattr(self, "_" + event.op)
        self._fs.trace(self._tracer.report)
        token = self._tracer.asked(asked)
        number = 0
        try:
            method(event, caller)
        except OSError as e:
            number = e.errno or errno.EIO
        finally:
            self._fs.trace(None)
        self._tracer.answered(token, Answered(number))
        (told,) = self._told
        self._told.clear()
        return told

    # paths --------------------------------------------------------------------------------------------------------
    @contextmanager
    def _node(self, event: Event, path: bytes | None) -> Iterator[NodeId]:
        if path is None:
            known = self._nodes.get(event.node)
            if not known:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            yield known[-1]
            return
        held: list[NodeId] = []
        try:
            node: NodeId = ROOT
            for name in path.split(b"/") if path else ():
                node = self._fs.lookup(node, name).node
                held.append(node)
            yield node
        finally:
            for node in held:
                self._fs.forget(node, 1)

    @contextmanager
    def _parent(self, event: Event, path: bytes | None) -> Iterator[tuple[NodeId, bytes]]:
        if path is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        head, _, name = path.rpartition(b"/")
        with self._node(event, head) as node:
            yield node, name

    def _handle(self, event: Event) -> int:
        return self._ours(event.fh)

    def _ours(self, fh: int | None) -> int:
        if fh not in self._handles:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return self._handles[fh][0]

    def _opened(self, event: Event, node: NodeId, fh: int) -> None:
        """INVARIANT: an open node has a lookup counted, so that it is there when its name is not."""
        if event.fh is None or event.fh in self._handles:
            self._fs.release(fh)  # it failed when it was recorded
            self._fs.forget(node, 1)
            return
        self._handles[event.fh] = fh, node
        self._nodes.setdefault(event.node, []).append(node)

    # operations ---------------------------------------------------------------------------------------------------
    def _mknod(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            made = self._fs.mknod(parent, name, event.fields["mode"], event.fields.get("rdev", 0), caller)
        self._fs.forget(made.node, 1)

    def _mkdir(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            made = self._fs.mkdir(parent, name, event.fields["mode"], caller)
        self._fs.forget(made.node, 1)

    def _symlink(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            made = self._fs.symlink(parent, name, event.data, caller)
        self._fs.forget(made.node, 1)

    def _link(self, event: Event, caller: Caller) -> None:
        with self._node(event, event.path) as node, self._parent(event, event.to_path) as (parent, name):
            made = self._fs.link(node, parent, name, caller)
        self._fs.forget(made.node, 1)

    def _unlink(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            self._fs.unlink(parent, name)

    def _rmdir(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            self._fs.rmdir(parent, name)

    def _rename(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (old, name), self._parent(event, event.to_path) as (new, new_name):
            self._fs.rename(old, name, new, new_name, event.fields.get("flags", 0))

    def _setattr(self, event: Event, caller: Caller) -> None:
        given: dict[str, Any] = {key: event.fields[key] for key in SetAttr._fields if key in event.fields}
        for key in ("atime_ns", "mtime_ns"):
            if given.get(key) == -1:
                given[key] = NOW
        given["kill_priv"] = bool(given.get("kill_priv"))
        fh = self._handles[event.fh][0] if event.fh in self._handles else None
        with self._node(event, event.path) as node:
            self._fs.setattr(node, SetAttr(**given), caller, fh)

    def _setxattr(self, event: Event, caller: Caller) -> None:
        with self._node(event, event.path) as node:
            self._fs.setxattr(node, event.attribute or b"", event.data, event.fields.get("flags", 0))

    def _removexattr(self, event: Event, caller: Caller) -> None:
        with self._node(event, event.path) as node:
            self._fs.removexattr(node, event.attribute or b"")

    def _open(self, event: Event, caller: Caller) -> None:
        flags = event.fields.get("flags", 0)
        with self._node(event, event.path) as node:
            opened = self._fs.open(node, flags)
            if event.fields.get("kill_priv"):
                self._fs.setattr(node, SetAttr(kill_priv=True), caller, opened.fh)
            self._fs.lookup(node, b".")
            self._opened(event, node, opened.fh)

    def _create(self, event: Event, caller: Caller) -> None:
        with self._parent(event, event.path) as (parent, name):
            entry, opened = self._fs.create(parent, name, event.fields["mode"], event.fields["flags"], caller)
        self._opened(event, entry.node, opened.fh)

    def _tmpfile(self, event: Event, caller: Caller) -> None:
        with self._node(event, event.path) as parent:
            entry, opened = self._fs.tmpfile(parent, event.fields["mode"], event.fields["flags"], caller)
        self._opened(event, entry.node, opened.fh)

    def _write(self, event: Event, caller: Caller) -> None:
        kill = bool(event.fields.get("kill_priv"))
        try:
            fh = self._handle(event)
        except OSError:
            # Opened before the recording began.
            with self._node(event, event.path) as node:
                opened = self._fs.open(node, os.O_WRONLY)
                try:
                    self._fs.write(opened.fh, event.fields["offset"], event.data, kill)
                finally:
                    self._fs.release(opened.fh)
            return
        self._fs.write(fh, event.fields["offset"], event.data, kill)

    def _release(self, event: Event, caller: Caller) -> None:
        if event.fh in self._handles:
            fh, node = self._handles.pop(event.fh)
            self._fs.release(fh)
            self._fs.forget(node, 1)
            for known, nodes in list(self._nodes.items()):
                if node in nodes:
                    nodes.remove(node)
                if not nodes:
                    del self._nodes[known]

    def _fallocate(self, event: Event, caller: Caller) -> None:
        fields = event.fields
        self._fs.fallocate(self._handle(event), fields["mode"], fields["offset"], fields["length"])

    def _copy_file_range(self, event: Event, caller: Caller) -> None:
        fields = event.fields
        done, length = 0, event.amount or 0
        source, target = self._ours(fields["fh_in"]), self._ours(fields["fh_out"])
        while done < length:
            count = self._fs.copy_file_range(
                source, fields["offset_in"] + done, target, fields["offset_out"] + done, length - done
            )
            if not count:
                return
            done += count

    def _contents(self, event: Event, caller: Caller) -> None:
        """The kernel has written the file by itself: it is to be what it was when it was released."""
        if event.fh in self._handles:
            self._set_contents(event, *self._handles[event.fh], caller)
            return
        with self._node(event, event.path) as node:
            fh = self._fs.open(node, os.O_WRONLY).fh
            try:
                self._set_contents(event, fh, node, caller)
            finally:
                self._fs.release(fh)

    def _set_contents(self, event: Event, fh: int, node: NodeId, caller: Caller) -> None:
        self._fs.setattr(node, SetAttr(size=event.fields.get("size", 0)), caller, fh)
        self._fs.write(fh, 0, event.data)
