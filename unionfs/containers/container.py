"""`Container` and `State`: what a container is, and what has become of it, as they are kept.

    CONTAINERS/ID/container.json   Container: written once, before anything else
    CONTAINERS/ID/state.json       State: replaced by whoever holds the container's lock

A process is known by its number and the time it started, so that another with that number is not taken for it; the
number of the boot tells whether either means anything. What a state says is therefore compared with the machine
(`State.status`): a monitor that was killed, or a machine that lost its power, writes nothing any more.

A state is not flushed to disk while the container runs: after a power failure the boot is another, whatever it says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from unionfs.containers.settings import Port, Settings, Volume
from unionfs.errors import ContainerError
from unionfs.mounts.registry import start_time

#: The exit status of a container whose end nobody saw, as docker has it after a restart of the machine.
UNSEEN_EXIT: Final = 255
SHORT: Final = 12

Status = Literal["created", "running", "exited"]


class Process(NamedTuple):
    """A process of this boot. `start_time` as `registry.start_time` has it."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, start_time(pid) or 0)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time


class Container(NamedTuple):
    """What a container was made of. It does not change.

    `image` the ID; `image_name` as it was named. `config`: the object of that name in the image's configuration.
    `layers`: diff_ids, base first, and `blobs` the digests of what they are stored as. `created` in seconds since the
    epoch. `auto_remove`: gone with its end (--rm).
    """

    id: str
    name: str
    image: str
    image_name: str
    created: float
    hostname: str
    settings: Settings
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    blobs: tuple[str, ...] = ()
    auto_remove: bool = False
    labels: Mapping[str, str] = {}

    @property
    def short_id(self) -> str:
        return self.id[:SHORT]

    def to_json(self) -> bytes:
        told = self._asdict() | {"settings": _settings_to_json(self.settings)}
        return json.dumps(told).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Container:
        """What `to_json` made; ContainerError for anything else."""
        try:
            told = json.loads(data)
            told["settings"] = _settings_from_json(told["settings"])
            told["layers"], told["blobs"] = tuple(told["layers"]), tuple(told["blobs"])
            return cls(**told)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ContainerError(f"not the record of a container: {type(error).__name__}: {error}") from None


class State(NamedTuple):
    """What has become of a container, as it was written.

    `running`: it was so, then, as `process`, its init, and below `monitor`; `boot` is of that time. `started` and
    `finished` in seconds since the epoch. `exit_code` as docker's. `error`: why it could not start, or ended.
    `runtime`: the arguments with which the runtime is called. `ports` as published. `oom_killed`: a process of it was
    killed for want of memory in the run that ended, which need not be why it ended.
    """

    running: bool = False
    process: Process | None = None
    monitor: Process | None = None
    boot: str = ""
    started: float | None = None
    finished: float | None = None
    exit_code: int = 0
    error: str = ""
    runtime: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    rootless: bool = False
    oom_killed: bool = False

    @property
    def status(self) -> Status:
        """What is so now."""
        if self.lives:
            return "running"
        return "created" if self.started is None else "exited"

    @property
    def lives(self) -> bool:
        """Does its init run?"""
        return self.running and self.process is not None and self.boot == boot_id() and self.process.alive

    @property
    def watched(self) -> bool:
        """Does its monitor run? From before its start to after its end."""
        return self.monitor is not None and self.boot == boot_id() and self.monitor.alive

    @property
    def processes(self) -> list[Process]:
        """Its monitor and its init, those of them that run."""
        found = (self.monitor if self.watched else None, self.process if self.lives else None)
        return [process for process in found if process is not None]

    @property
    def lost(self) -> bool:
        """Does it say what is not so, without anybody who would put it right? Its monitor was killed, before it ran or
        after."""
        return (self.running or self.monitor is not None) and not self.lives and not self.watched

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_json(cls, data: bytes) -> State:
        """What `to_json` made; ContainerError for anything else."""
        try:
            told = json.loads(data)
            for name in ("process", "monitor"):
                told[name] = None if told[name] is None else Process(*map(int, told[name]))
            told["runtime"] = tuple(map(str, told["runtime"]))
            told["ports"] = tuple(Port(*port) for port in told["ports"])
            return cls(**told)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ContainerError(f"not the state of a container: {type(error).__name__}: {error}") from None


class Place:
    """The directory of a container, and the names in it."""

    def __init__(self, directory: bytes) -> None:
        self.directory = directory

    def __getattr__(self, name: str) -> bytes:
        if name not in NAMES:
            raise AttributeError(name)
        return os.path.join(self.directory, NAMES[name])


#: What there is in a container's directory, but for what `spec` and `network` have there.
NAMES: Final = {
    "record": b"container.json",
    "state": b"state.json",
    "lock": b"lock",
    "upper": b"upper",
    "work": b"work",
    "root": b"root",
    "log": b"container.log",
    "bundle": b"config.json",
    "pid_file": b"pid",
    "console": b"console.sock",
    "attach": b"attach.sock",
    "runtime_log": b"runtime.log",
    "monitor_log": b"monitor.log",
}


def boot_id() -> str:
    """Of this boot of the machine (random(4)); "" where /proc does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _settings_to_json(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings._asdict().items() if value != Settings._field_defaults[name]}


def _settings_from_json(told: Mapping[str, Any]) -> Settings:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    given["volumes"] = tuple(Volume(*volume) for volume in given.get("volumes", ()))
    given["ports"] = tuple(Port(*port) for port in given.get("ports", ()))
    return Settings(**given)
