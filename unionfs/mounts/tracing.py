"""Who listens to a mount: each gets the events that he wants, from a buffer of his own.

    listeners.listen(wanted)    a `Listener`, to be read by one thread; with the first one the union is watched
    listener.take(seconds)      lines that have come, b"" where none have in that time, None at the end
    listener.finish()           with the last one the union is no longer watched
    listeners.end()             the mount is about to go

Format: a line of JSON each: {"event": {…}}, as Event.to_json; {"dropped": N}: so many events came while the buffer was
full; {"scene": {…}}: what was there before, of a recording; last {"end": {"events": N, "dropped": N}}.

INVARIANT: who answers requests never waits for a listener: what does not fit in a buffer is counted, and gone.
INVARIANT: with no listener nothing is watched: the transport and the engine run the functions that they began with.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from unionfs.errors import MountError
from unionfs.overlay import UnionFilesystem

if TYPE_CHECKING:
    from unionfs.explain.recording import Scene
    from unionfs.explain.trace import Event, Filter, Tracer
    from unionfs.vfs import Asked

#: Bytes of lines that wait for a listener.
BUFFER: Final = 4 << 20
#: Of a recording, which is of no use without all of it.
RECORDING_BUFFER: Final = 64 << 20
#: How long the end of a mount waits for who has not read all yet.
_LAST_SECONDS: Final = 0.3


class Listener:
    """Filled by the threads that answer requests, emptied by one other."""

    def __init__(self, owner: Listeners, wanted: Filter, limit: int, recording: bool) -> None:
        self.wanted = wanted
        self.recording = recording
        self._owner = owner
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._events = self._dropped = self._unsaid = 0
        self._ended = self._told = False
        self._changed = threading.Condition()

    def put(self, line: bytes) -> None:
        """One event, for which there may be no room."""
        with self._changed:
            if self._size + len(line) > self._limit:
                self._dropped += 1
                self._unsaid += 1
                return
            if self._unsaid:
                self._add_locked(_line({"dropped": self._unsaid}))
                self._unsaid = 0
            self._events += 1
            self._add_locked(line)
            self._changed.notify()

    def _add_locked(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)

    def take(self, seconds: float) -> bytes | None:
        with self._changed:
            if not self._lines and not self._ended:
                self._changed.wait(seconds)
            if not self._lines and self._ended:
                if self._told:
                    return None
                self._told = True
                return _line({"end": {"events": self._events, "dropped": self._dropped}})
            taken = b"".join(self._lines)
            self._lines.clear()
            self._size = 0
            return taken

    @property
    def is_done(self) -> bool:
        """Has all been taken?"""
        return self._told

    def finish(self) -> None:
        """Nothing comes any more; what has come may be taken."""
        self._owner.leave(self)
        with self._changed:
            if self._unsaid:
                self._add_locked(_line({"dropped": self._unsaid}))
                self._unsaid = 0
            self._ended = True
            self._changed.notify()


class Listeners:
    """Of one mount. `attach` it to the file system that is served; methods may be called from any thread."""

    def __init__(self) -> None:
        self._fs: UnionFilesystem | None = None
        self._lock = threading.Lock()
        self._all: tuple[Listener, ...] = ()
        self._tracer: Tracer | None = None
        self._scenes: dict[Listener, Scene] = {}
        self._ended = False

    def attach(self, fs: UnionFilesystem) -> None:
        self._fs = fs

    def layers(self) -> list[str | None]:
        """What the layers are called, the upper, or None, first."""
        assert self._fs is not None
        stack = self._fs._union.stack
        return [stack.upper.name if stack.has_upper else None, *(layer.name for layer in stack.lowers)]

    def statistics(self) -> dict[str, int]:
        """`listeners`: now."""
        with self._lock:  # not before they really listen
            return {"listeners": len(self._all)}

    def header(self) -> dict[str, Any]:
        """What a recording begins with."""
        from unionfs.explain.recording import header

        assert self._fs is not None
        return header(self._fs)

    def listen(self, wanted: Filter, *, recording: bool = False) -> Listener:
        """MountError where the mount's transport tells nothing, or the mount is ending."""
        listener = Listener(self, wanted, RECORDING_BUFFER if recording else BUFFER, recording)
        with self._lock:
            fs = self._fs
            if self._ended or fs is None:
                raise MountError("the mount is ending")
            if fs.watch is None:
                raise MountError("the mount's transport tells nothing of its requests", hint="mount it again")
            self._all = (*self._all, listener)
            if self._tracer is None:
                self._start_locked(fs)
            self._tell_tracer_locked()
            if recording:
                from unionfs.explain.recording import Scene

                self._scenes[listener] = Scene(
                    fs,
                    lambda told: listener.put(_line({"scene": told})),
                    lambda event: listener.put(_line({"event": event.to_json()})),
                )
        return listener

    def _start_locked(self, fs: UnionFilesystem) -> None:
        from unionfs.explain.trace import Tracer  # few mounts ever need it

        self._tracer = Tracer(fs, self._publish, self._before)
        fs.trace(self._tracer.report)
        assert fs.watch is not None
        fs.watch(self._tracer)

    def _tell_tracer_locked(self) -> None:
        if self._tracer is not None:
            self._tracer.keeps_data = any(listener.recording for listener in self._all)

    def leave(self, listener: Listener) -> None:
        with self._lock:
            self._all = tuple(one for one in self._all if one is not listener)
            scene = self._scenes.pop(listener, None)
            if scene is not None:
                scene.finish()
            self._tell_tracer_locked()
            if not self._all and self._tracer is not None:
                self._stop_locked()

    def _stop_locked(self) -> None:
        fs, self._tracer = self._fs, None
        if fs is not None:
            if fs.watch is not None:
                fs.watch(None)
            fs.trace(None)

    def end(self) -> None:
        """Idempotent. Who listens gets what is left, if he takes it soon."""
        with self._lock:
            self._ended = True
            listening = self._all
        for listener in listening:
            listener.finish()
        deadline = time.monotonic() + _LAST_SECONDS
        while not all(listener.is_done for listener in listening) and time.monotonic() < deadline:
            time.sleep(0.005)

    # what is told ---------------------------------------------------------------------------------------------------
    def _before(self, asked: Asked) -> object:
        """The recordings that know what there was before."""
        scenes = tuple(self._scenes.items())
        for _, scene in scenes:
            scene.before(asked)
        return frozenset(listener for listener, _ in scenes)

    def _publish(self, event: Event, recording: object) -> None:
        """`recording`: what `_before` has answered. What had begun before a recording did is no part of it."""
        assert isinstance(recording, frozenset)
        line = plain = b""
        for listener in self._all:
            if not listener.wanted.wants(event) or (listener.recording and listener not in recording):
                continue
            if listener.recording:
                scene = self._scenes.get(listener)
                if scene is not None:
                    scene.after(event)
                line = line or _line({"event": event.to_json()})
                listener.put(line)
            else:
                kept = event if event.op == "symlink" else event._replace(data=b"")
                plain = plain or _line({"event": kept.to_json()})
                listener.put(plain)


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"
