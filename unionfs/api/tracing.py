"""`trace`: what a live mount is asked, answers and does for it, while it does.

    with trace(mountpoint, paths=["etc"]) as listening:
        for told in listening:          an Event, or Dropped: so many came while nobody read
            …                           until listening.stop(), or the mount ends

The mount tells it to whoever is allowed to ask it anything (its own user, and root). While nobody listens it does
nothing for that; however slowly somebody does, nobody else waits for him.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from unionfs.api.layers import LayerSpec
from unionfs.api.mounting import live_record
from unionfs.errors import MountError, ProtocolError
from unionfs.explain.trace import OPS, Event, choose
from unionfs.mounts.control import Streamed
from unionfs.overlay.step import Step
from unionfs.overlay.trace import Found

__all__ = ["OPS", "Dropped", "Event", "Found", "Listening", "Step", "trace"]


class Dropped(NamedTuple):
    """So many events are missing here, since the listener was too slow."""

    count: int


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
            if isinstance(told.get("event"), dict):
                yield Event.from_json(told["event"])
            elif isinstance(told.get("dropped"), int):
                yield Dropped(told["dropped"])
            elif isinstance(told.get("end"), dict):
                self.events, self.dropped = (int(told["end"].get(name, 0)) for name in ("events", "dropped"))
            else:
                raise ProtocolError("the mount's daemon told something of no known form")

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
    return Listening(_stream(mountpoint, wanted.to_json()))


def _stream(mountpoint: LayerSpec, params: dict[str, object]) -> Streamed:
    record = live_record(os.fsencode(mountpoint))
    if record.control is None:
        raise MountError(f"the mount on {os.fsdecode(mountpoint)} has no control socket", hint="mount it again")
    return Streamed(record.control, "trace", params)
