"""`trace`: what a live mount is asked, answers and does for it, while it does.

    with trace(mountpoint, paths=["etc"]) as listening:
        for told in listening:          an Event, or Dropped: so many came while nobody read
            …                           until listening.stop(), or the mount ends

    with record(mountpoint, "file") as recording:
        for told in recording: …        as above; the file is there when it ends
    replay("file")                      the same operations once more, on layers in memory

The mount tells it to whoever is allowed to ask it anything (its own user, and root). While nobody listens it does
nothing for that; however slowly somebody does, nobody else waits for him.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from unionfs.api.layers import LayerSpec
from unionfs.api.mounting import live_record
from unionfs.errors import MountError, ProtocolError
from unionfs.explain.replay import Recording, Replay, Replayed, load
from unionfs.explain.trace import OPS, Event, choose
from unionfs.mounts.control import Streamed
from unionfs.overlay.step import Step
from unionfs.overlay.trace import Found

__all__ = [
    "OPS",
    "Dropped",
    "Event",
    "Found",
    "Listening",
    "Recording",
    "RecordingListener",
    "Replay",
    "Replayed",
    "Step",
    "record",
    "replay",
    "trace",
]


class Dropped(NamedTuple):
    """So many events are missing here, since the listener was too slow."""

    missing: int


class Listening:
    """`layers`: what the mount's are called, as numbered in the events: the upper, or None, first. `events` and
    `dropped`: how many in all, known at the end."""

    def __init__(self, streamed: Streamed) -> None:
        names = streamed.answer.get("layers")
        self.layers = tuple(names) if isinstance(names, list) else ()
        self.events = self.dropped = 0
        self._streamed = streamed

    def __iter__(self) -> Iterator[Event | Dropped]:
        for told in self._streamed:
            self._note(told)
            if isinstance(told.get("event"), dict):
                yield Event.from_json(told["event"])
            elif isinstance(told.get("dropped"), int):
                yield Dropped(told["dropped"])
            elif isinstance(told.get("end"), dict):
                self.events, self.dropped = (int(told["end"].get(name, 0)) for name in ("events", "dropped"))
            elif not isinstance(told.get("scene"), dict):
                raise ProtocolError("the mount's daemon told something of no known form")

    def _note(self, told: dict[str, Any]) -> None:
        """Of each line, before it is understood."""

    def stop(self) -> None:
        """The iteration ends after what has come so far. May be called from anywhere."""
        self._streamed.stop()

    def close(self) -> None:
        self._streamed.close()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def trace(
    mountpoint: LayerSpec,
    *,
    paths: Iterable[str] = (),
    ops: Iterable[str] = (),
    errors: bool = False,
    copy_ups: bool = False,
) -> Listening:
    """Listen to the live mount on `mountpoint`: what comes from now on.

    `paths`: only what is about these or below them; globs. `ops`: only these of FUSE's opcodes; else all but those by
    which the kernel keeps its books (FORGET). `errors`: only what fails. `copy_ups`: only what copies something up.
    MountError where there is no such mount, OptionError for an operation that there is not.
    """
    wanted = choose(paths, ops, errors=errors, copy_ups=copy_ups)
    for fd, what in ((1, "standard output"), (2, "standard error")):
        try:
            _check_outside(mountpoint, os.fstat(fd).st_dev, what)
        except OSError:
            continue  # closed
    return Listening(_stream(mountpoint, wanted.to_json()))


def _check_outside(mountpoint: LayerSpec, device: int, what: str) -> None:
    """What is told of a mount must not be written to it: each write would be told of in turn."""
    live_record(os.fsencode(mountpoint))
    if device == os.stat(mountpoint).st_dev:
        raise MountError(f"{what} lies in the mount that is traced", hint="write it to a place outside")


def _stream(mountpoint: LayerSpec, params: dict[str, object]) -> Streamed:
    record = live_record(os.fsencode(mountpoint))
    if record.control is None:
        raise MountError(f"the mount on {os.fsdecode(mountpoint)} has no control socket", hint="mount it again")
    return Streamed(record.control, "trace", params)


# recordings -----------------------------------------------------------------------------------------------------------
class RecordingListener(Listening):
    """Writes what it hears. The file has its name once all is in it: until then, and where it fails, there is what was
    there before. A recording that is not complete is none: MountError."""

    def __init__(self, streamed: Streamed, path: bytes) -> None:
        super().__init__(streamed)
        self._path = path
        self._temporary = path + b".%d.part" % os.getpid()
        self._ended = False
        # It has what was in the files: it is for nobody else.
        fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = open(fd, "wb")  # noqa: SIM115  # closed by `close`
        self._note(streamed.answer)

    def _note(self, told: dict[str, Any]) -> None:
        self._file.write(json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n")
        self._ended = self._ended or "end" in told

    def __exit__(self, *exc_info: object) -> None:
        try:
            if exc_info[0] is None:
                self._finish()
        finally:
            self.close()

    def _finish(self) -> None:
        if not self._ended:
            raise MountError("the recording is not complete: the mount's daemon has gone", hint="record it again")
        if self.dropped:
            raise MountError(
                f"the recording is not complete: {self.dropped} events came faster than they were written",
                hint="record less, or to a faster disk",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        os.rename(self._temporary, self._path)

    def close(self) -> None:
        super().close()
        self._file.close()
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            pass


def record(mountpoint: LayerSpec, file: LayerSpec) -> RecordingListener:
    """Listen to a mount, and write to `file` what it is asked, with the data, and what of the layers that touches."""
    directory = os.path.dirname(os.path.abspath(os.fsencode(file)))
    _check_outside(mountpoint, os.stat(directory).st_dev, os.fsdecode(file))
    streamed = _stream(mountpoint, {**choose((), ()).to_json(), "record": True})
    try:
        return RecordingListener(streamed, os.fsencode(file))
    except BaseException:
        streamed.close()
        raise


def replay(file: LayerSpec) -> Replay:
    """A recording, to be done once more. ScriptError for what is none."""
    with open(file, "rb") as lines:
        return Replay(load(lines))
