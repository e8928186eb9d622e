"""What a live union is asked, what it answers, and what it does for it: an `Event` for each request.

    Tracer(fs, publish)    a vfs.Watcher; `publish` gets each event, in the thread that has answered
    Event                  a value; `to_json` and `from_json` are each other's reverse
    Filter                 which events somebody wants

Nothing is decided here. What was asked and answered comes from the transport; the steps are those that the engine
reports while it takes them (overlay/step.py), or finds in the layers by its own reading of them (overlay/trace.py).

Layer 0 is the upper, 1… are the lowers, topmost first. Paths are relative to a root.
"""

from __future__ import annotations

import base64
import errno
import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from unionfs.errors import OptionError, ProtocolError
from unionfs.layers.layer import Path
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import DirInode, Inode, join
from unionfs.overlay.step import Step
from unionfs.overlay.trace import Found, found, in_use, looked, place_of
from unionfs.vfs import TYPES, Answered, Asked

log = logging.getLogger(__name__)

#: Operations whose answer concerns nobody but the kernel's own bookkeeping: told only to who asks for them.
QUIET = frozenset(("forget", "batch_forget", "interrupt", "destroy", "init", "notify_reply"))
#: Those of a name, after which that name is what counts.
_NAMED = frozenset(("lookup", "mknod", "mkdir", "symlink", "create"))
#: All that can be asked for: FUSE's opcodes in lower case.
OPS = frozenset(
    "lookup forget getattr setattr readlink symlink mknod mkdir unlink rmdir rename link open read write statfs "
    "release fsync setxattr getxattr listxattr removexattr flush init opendir readdir releasedir fsyncdir getlk "
    "setlk setlkw access create interrupt bmap destroy ioctl poll notify_reply batch_forget fallocate readdirplus "
    "lseek copy_file_range syncfs tmpfile statx".split()
)


class Event(NamedTuple):
    """One request.

    `time`: when it came, in seconds since the epoch; `seconds`: how long it took. `path`: of what it is about, or of
    the name; None for what has none (any more). `to_path`: where a rename or link leads. `error`: the name of an errno,
    None where it succeeded. `found`: where the object is after it. `node` and `fh` tell open files apart: `fh` is the
    one given, or the one that was opened. `fields`, `attribute`, `data`: the arguments, as in vfs.Asked; `data` is kept
    for recordings alone, but for a link's target. `way`, `amount`: as in vfs.Answered.
    """

    time: float
    op: str
    path: Path | None
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    to_path: Path | None = None
    error: str | None = None
    found: Found | None = None
    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0
    node: int = 0
    fh: int | None = None
    way: str | None = None
    amount: int | None = None
    attribute: bytes | None = None
    fields: Mapping[str, int] = {}
    data: bytes = b""

    @property
    def copied(self) -> bool:
        """Was anything copied up?"""
        return any(step.kind == "copied-up" for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        place = self.found
        return {
            "time": self.time,
            "op": self.op,
            "path": _text(self.path),
            "to_path": _text(self.to_path),
            "attribute": _text(self.attribute),
            "fields": dict(self.fields),
            "error": self.error,
            "found": None if place is None else _found_to_json(place),
            "way": self.way,
            "amount": self.amount,
            "steps": [_step_to_json(step) for step in self.steps],
            "microseconds": round(self.seconds * 1e6),
            "pid": self.pid,
            "uid": self.uid,
            "gid": self.gid,
            "umask": self.umask,
            "node": self.node,
            "fh": self.fh,
            "data": base64.b64encode(self.data).decode("ascii") if self.data else None,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Event:
        """ProtocolError for what is none."""
        try:
            return cls(
                time=float(told["time"]),
                op=str(told["op"]),
                path=_bytes(told["path"]),
                steps=tuple(_step_from_json(step) for step in told["steps"]),
                seconds=int(told["microseconds"]) / 1e6,
                to_path=_bytes(told["to_path"]),
                error=None if told["error"] is None else str(told["error"]),
                found=None if told["found"] is None else _found_from_json(told["found"]),
                uid=int(told["uid"]),
                gid=int(told["gid"]),
                pid=int(told["pid"]),
                umask=int(told["umask"]),
                node=int(told["node"]),
                fh=_number(told["fh"]),
                way=None if told["way"] is None else str(told["way"]),
                amount=_number(told["amount"]),
                attribute=_bytes(told["attribute"]),
                fields={str(name): int(value) for name, value in told["fields"].items()},
                data=base64.b64decode(told["data"] or b"", validate=True),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
            raise ProtocolError(f"no event of a trace: {type(e).__name__}: {e}") from None


def _text(path: bytes | None) -> str | None:
    return None if path is None else os.fsdecode(path)


def _bytes(text: Any) -> bytes | None:
    if text is not None and not isinstance(text, str):
        raise TypeError("a path is text")
    return None if text is None else os.fsencode(text)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "layer": step.layer,
        "path": os.fsdecode(step.path),
        "what": step.what,
        "size": step.size,
        "other": _text(step.other),
    }


def _step_from_json(told: Mapping[str, Any]) -> Step:
    path = _bytes(told["path"])
    assert path is not None
    kind: Any = str(told["kind"])
    return Step(kind, int(told["layer"]), path, str(told["what"]), int(told["size"]), _bytes(told["other"]))


def _found_to_json(place: Found) -> dict[str, Any]:
    return {
        "layer": place.layer,
        "path": os.fsdecode(place.path),
        "kind": TYPES.get(place.kind, "unknown"),
        "layers": list(place.layers),
        "data": place.data,
    }


def _found_from_json(told: Mapping[str, Any]) -> Found:
    path = _bytes(told["path"])
    assert path is not None
    kind = next((number for number, name in TYPES.items() if name == told["kind"]), 0)
    return Found(int(told["layer"]), path, kind, tuple(map(int, told["layers"])), _number(told["data"]))


# which are wanted -----------------------------------------------------------------------------------------------------
class Filter(NamedTuple):
    """`paths`: globs as of fnmatch, whose `*` matches a slash too, without a leading slash; one without a wildcard
    stands for all that is below it as well. `ops`: FUSE's opcodes in lower case. Without either: all, but QUIET ones.
    `errors`: only what failed. `copy_ups`: only what copied something up."""

    paths: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    errors: bool = False
    copy_ups: bool = False

    def wants(self, event: Event) -> bool:
        if self.ops:
            if event.op not in self.ops:
                return False
        elif event.op in QUIET:
            return False
        if (self.errors and event.error is None) or (self.copy_ups and not event.copied):
            return False
        return not self.paths or any(_matches(self.paths, path) for path in (event.path, event.to_path))

    def to_json(self) -> dict[str, Any]:
        return {"paths": list(self.paths), "ops": list(self.ops), "errors": self.errors, "copy_ups": self.copy_ups}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Filter:
        """ProtocolError for what is none."""
        paths, ops = told.get("paths", []), told.get("ops", [])
        for words in (paths, ops):
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ProtocolError("paths and ops are lists of strings")
        return cls(tuple(paths), tuple(ops), bool(told.get("errors")), bool(told.get("copy_ups")))


def choose(paths: Iterable[str], ops: Iterable[str], *, errors: bool = False, copy_ups: bool = False) -> Filter:
    """OptionError for an operation that there is not."""
    ops = tuple(op.lower() for op in ops)
    for op in ops:
        if op not in OPS:
            near = next((known for known in sorted(OPS) if known.startswith(op[:3])), "lookup")
            raise OptionError(f"unknown operation {op!r}", hint=f"FUSE's opcodes, as {near}")
    return Filter(tuple(path.strip("/") for path in paths), ops, errors, copy_ups)


def _matches(patterns: Iterable[str], path: Path | None) -> bool:
    if path is None:
        return False
    shown = os.fsdecode(path)
    for pattern in patterns:
        if not any(character in pattern for character in "*?["):
            if not pattern or shown == pattern or shown.startswith(pattern + "/"):
                return True
        elif fnmatch.fnmatchcase(shown, pattern):
            return True
    return False


# who watches ----------------------------------------------------------------------------------------------------------
class _Current:
    """A request in progress."""

    __slots__ = ("asked", "before", "key", "path", "scene", "started", "steps", "to_path")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.started = time.time()
        self.before = time.perf_counter()
        self.steps: list[Step] = []
        self.path: Path | None = None
        self.to_path: Path | None = None
        self.key: tuple[DirInode, bytes] | None = None
        self.scene: object = frozenset()


class Tracer:
    """A vfs.Watcher of one union. `start` and `stop` have the engine report to it; both only with its listeners' lock
    held, as said there. INVARIANT: nothing that goes wrong here comes out: an operation is not to fail for it."""

    def __init__(
        self, fs: UnionFilesystem, publish: Callable[[Event, object], None], scene: Callable[[Asked], object]
    ) -> None:
        """`scene`: is told what is about to be asked, before anything is done for it; what it answers is given back
        with the event."""
        self._fs = fs
        self._union = fs._union
        self._publish = publish
        self._scene = scene
        self._local = threading.local()
        #: Is `data` of events wanted?
        self.keeps_data = False

    def report(self, step: Step) -> None:
        """See UnionFilesystem.trace."""
        current: _Current | None = getattr(self._local, "current", None)
        if current is not None:
            current.steps.append(step)

    def asked(self, asked: Asked) -> _Current:
        current = _Current(asked)
        try:
            with self._union.lock:
                self._locate(current)
            current.scene = self._scene(asked)
        except Exception:
            log.exception("a request could not be traced: %s", asked.op)
        self._local.current = current  # from here on steps are those of the operation itself
        return current

    def answered(self, token: object, answered: Answered | None) -> None:
        self._local.current = None
        if answered is None or not isinstance(token, _Current):
            return
        try:
            seconds = time.perf_counter() - token.before
            with self._union.lock:
                place = self._found(token, answered)
            self._publish(self._event(token, answered, place, seconds), token.scene)
        except Exception:
            log.exception("a request could not be traced: %s", token.asked.op)

    # before -------------------------------------------------------------------------------------------------------
    def _locate(self, current: _Current) -> None:
        """Paths before the operation changes them. Lock held."""
        asked = current.asked
        if asked.path is not None:
            current.path, current.to_path = asked.path, asked.to_path
            head, _, name = (asked.path if asked.to_path is None else asked.to_path).rpartition(b"/")
            parent = in_use(self._union, head)
            if isinstance(parent, DirInode) and name:
                current.key = parent, name
        else:
            current.path = place_of(self._union, asked.node) if asked.node else None
            if asked.name is not None and current.path is not None:
                current.path = join(current.path, asked.name)
                current.key = self._key(asked.node, asked.name)
            if asked.to_name is not None:
                to = place_of(self._union, asked.to)
                current.to_path = None if to is None else join(to, asked.to_name)
                current.key = self._key(asked.to, asked.to_name)
        # A transport that speaks paths asks for attributes where the kernel looked a name up.
        is_lookup = asked.path is not None and asked.op == "getattr" and in_use(self._union, asked.path) is None
        if (asked.op == "lookup" or is_lookup) and current.key is not None:
            current.steps += self._looked(*current.key)

    def _key(self, node: int, name: bytes) -> tuple[DirInode, bytes] | None:
        directory = self._union.table.nodes.get(node)
        return (directory, name) if isinstance(directory, DirInode) else None

    def _looked(self, directory: DirInode, name: bytes) -> list[Step]:
        known = directory.children.get(name)
        if known is None and directory.listing is not None:
            listed = directory.listing.names.get(name)
            known = None if listed is None else listed.batch  # type: ignore[assignment]  # only: is there any
        steps = looked(self._union, directory, name)
        return [*steps, Step("memory")] if known is not None else steps

    # after --------------------------------------------------------------------------------------------------------
    def _inode(self, token: _Current, answered: Answered) -> Inode | None:
        asked = token.asked
        nodes = self._union.table.nodes
        if answered.node:
            return nodes.get(answered.node)
        if token.key is not None and (asked.path is None or asked.op in _NAMED or asked.to_path is not None):
            return token.key[0].children.get(token.key[1]) if asked.op not in ("unlink", "rmdir") else None
        if asked.path is not None:
            return in_use(self._union, asked.path)
        return nodes.get(asked.node)

    def _found(self, token: _Current, answered: Answered) -> Found | None:
        inode = None if answered.errno else self._inode(token, answered)
        if inode is None:
            return None
        if isinstance(inode, DirInode) and token.asked.op == "lookup":
            token.steps += [Step("merged", layer, path) for layer, path in inode.lowers[not inode.upper :]]
        return found(self._union, inode)

    def _event(self, token: _Current, answered: Answered, place: Found | None, seconds: float) -> Event:
        asked, caller = token.asked, token.asked.caller
        fields = dict(asked.fields)
        fh = fields.pop("fh", None)
        data = bytes(asked.data) if self.keeps_data else b""
        if asked.op == "symlink":
            data = bytes(asked.data)
        elif asked.op == "readlink":
            data = answered.data
        return Event(
            time=token.started,
            op=asked.op,
            path=token.path,
            steps=tuple(token.steps),
            seconds=seconds,
            to_path=token.to_path,
            error=errno.errorcode.get(answered.errno, str(answered.errno)) if answered.errno else None,
            found=place,
            uid=caller.uid if caller is not None else 0,
            gid=caller.gid if caller is not None else 0,
            pid=caller.pid if caller is not None else 0,
            umask=caller.umask if caller is not None else 0,
            node=answered.node or asked.node,
            fh=answered.fh if answered.fh is not None else fh,
            way=answered.way,
            amount=answered.amount,
            attribute=asked.attribute,
            fields=fields,
            data=data,
        )
