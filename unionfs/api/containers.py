"""Containers: an image run on a mount of its layers, under an upper of its own that stays until it is removed.

    create_container   of an image: its record and its place
    start_container    mount, run; its monitor goes on by itself
    containers         all of them, with what has become of them

`unionfs.containers` has everything else; here it gets its mounts, and images their users.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from unionfs.api.layers import LayerSpec, open_layer, remove_temporary
from unionfs.api.mounting import mount, umount
from unionfs.containers import (
    cgroups,
    client,
    executed,
    monitor,
    option_texts,
    recovery,
    runtime,
    spec,
    terminal,
    userns,
)
from unionfs.containers.changes import LOOK_SECONDS, Changes
from unionfs.containers.container import SHORT, Container, Place, Process
from unionfs.containers.container import State as ContainerState
from unionfs.containers.executed import Execution
from unionfs.containers.logs import Entry as LogEntry
from unionfs.containers.logs import LogReader, timestamp
from unionfs.containers.preparation import Host
from unionfs.containers.settings import Settings
from unionfs.containers.store import Containers, no_such
from unionfs.errors import ContainerError, LayerError, MountError
from unionfs.image import known, locks
from unionfs.image.layer_cache import user_cache
from unionfs.linux.process import in_user_namespace
from unionfs.mounts.registry import MountRecord, Registry, runtime_directory

__all__ = ["Container", "ContainerState", "Ended", "Execution", "FoundContainer", "LogEntry"]

Ended = terminal.Ended

#: How long a container has to end by itself (docker's).
STOP_SECONDS = 10.0
#: How long somebody else who has a container's lock is waited for: a monitor that puts everything away.
ENDING_SECONDS = 15.0
#: How long the daemon of a mount may write what it has, when a container is removed after its monitor was killed.
UNMOUNT_SECONDS = 5.0


class FoundContainer(NamedTuple):
    """A container, and what has become of it."""

    container: Container
    state: ContainerState


def container_store(store: LayerSpec | None = None) -> Containers:
    """The containers of the image store `store`; None is $UNIONFS_STORE, or the user's own."""
    from unionfs.image.place import store_directory

    return Containers(store_directory(store), _remove)


def _remove(directory: bytes) -> None:
    """Remove a tree, whoever of this user's IDs its files belong to."""
    if os.geteuid() == 0:
        remove_temporary(directory)
    else:
        userns.within(userns.mapping(), lambda: remove_temporary(directory))


def create_container(
    containers: Containers,
    image: str,
    settings: Settings,
    *,
    name: str | None = None,
    auto_remove: bool = False,
    platform: str | None = None,
) -> Container:
    """A container of an image in the store, with a place for its changes. Nobody removes the image from then on.

    ImageNotFound where it is not there, ContainerError where the name is taken.
    """
    root = os.path.dirname(containers.directory)
    with locks.reading(root):
        found = known.recall(root, _key(image, platform))
        if found is not None:
            return containers.create(_maker(found, image, settings, auto_remove), name)
    from unionfs.api.images import image_store

    with image_store(root).catalog() as catalog:
        resolved = catalog.resolve(image, platform)
        config = json.loads(resolved.config_bytes).get("config") or {}
        blobs = tuple(str(layer.digest) for layer in resolved.layers)
        found = known.KnownImage(str(resolved.id), config, tuple(map(str, resolved.diff_ids)), blobs)
        known.remember(root, _key(image, platform), found)
        return containers.create(_maker(found, image, settings, auto_remove), name)


def _key(image: str, platform: str | None) -> str:
    return image if platform is None else f"{image} {platform}"


def _maker(
    image: known.KnownImage, image_name: str, settings: Settings, auto_remove: bool
) -> Callable[[str, str], Container]:
    def make(id: str, name: str) -> Container:
        return Container(
            id=id,
            name=name,
            image=image.id,
            image_name=image_name,
            created=time.time(),
            hostname=settings.hostname or id[:SHORT],
            settings=settings,
            config=image.config,
            layers=tuple(image.layers),
            blobs=tuple(image.blobs),
            auto_remove=auto_remove,
        )

    return make


# looking --------------------------------------------------------------------------------------------------------------
def container_command(container: Container) -> list[str]:
    """What is executed in it."""
    return spec.arguments(container.settings, container.config)


def find_container(containers: Containers, name: str) -> FoundContainer:
    """The one of that name or ID. ContainerError where there is none."""
    container = containers.find(name)
    state = recovery.settle(containers, container, unmounted)
    if state is None:
        raise no_such(name)
    return FoundContainer(container, state)


def list_containers(containers: Containers) -> list[FoundContainer]:
    """All of them, newest first, with what is so now: what a crash has left is put right."""
    states = [(one, recovery.settle(containers, one, unmounted)) for one in containers.all()]
    return [FoundContainer(one, state) for one, state in states if state is not None]


def read_logs(
    containers: Containers,
    name: str,
    *,
    tail: int | None = None,
    since: int | None = None,
    until: int | None = None,
    follow: bool = False,
) -> Iterator[LogEntry]:
    """The output of a container, as it came. `tail`: the last so many lines; `since`, `until`: nanoseconds since the
    epoch; `follow`: goes on until the container has ended."""
    container, state = find_container(containers, name)
    place = containers.place(container.id)
    reader = LogReader(place.log)
    if tail is not None:
        reader.seek_tail(tail)
    begin = b"" if since is None else timestamp(since)
    end = None if until is None else timestamp(until)
    with Changes(place) as changes:
        while True:
            # Who is gone before the log is read has written all that it will.
            processes = state.processes if follow else []
            for entry in reader.entries():
                if end is not None and entry.time > end:
                    return
                if entry.time >= begin:
                    yield entry
            if not processes:
                return
            changes.wait(processes)
            try:
                state = containers.state(container)
            except ContainerError:
                state = ContainerState()  # it is gone: what it wrote last is still read


def inspect_container(containers: Containers, name: str) -> dict[str, Any]:
    """As `docker container inspect` shows it."""
    from unionfs.containers import inspection

    container, state = find_container(containers, name)
    if state.lives:
        starved = cgroups.killed_for_memory(cgroups.look(), container.id)
        state = state._replace(oom_killed=starved)
    lowers = [os.fsdecode(path) for path in container_layers(containers, container)]
    return inspection.inspect(container, state, containers.place(container.id), lowers)


# starting and stopping ------------------------------------------------------------------------------------------------
def run_container(containers: Containers, name: str, *, attach: bool, interactive: bool) -> Ended:
    """Start it, and until it ends, or is let go of, carry this process's streams and signals. Without `attach` until it
    runs. One that runs already is attached to."""
    container, state = find_container(containers, name)
    settings = container.settings
    if state.lives and not attach:
        return Ended(None)
    stdin = 0 if interactive and settings.interactive else None
    with contextlib.ExitStack() as held:
        signals = held.enter_context(terminal.catching(terminal=settings.terminal))
        if state.lives:
            ours = client.connect(containers.place(container.id), "attach")
            if ours is None:
                raise ContainerError(f"the monitor of container {name} does not answer", hint="see: unionfs logs -f")
            held.enter_context(ours)
        else:
            ours, theirs = socket.socketpair()
            held.enter_context(ours)
            with theirs:
                start_container(containers, container, theirs)
        return terminal.follow(ours, signals, attach=attach, stdin=stdin, terminal=settings.terminal)


def start_container(
    containers: Containers, container: Container, watcher: socket.socket | None, *, here: bool = False
) -> None:
    """Have a monitor start it, which tells `watcher` how that goes. `here`: see monitor.start. ContainerError where it
    runs already."""
    state = recovery.settle(containers, container, unmounted)
    if state is not None and state.lives:
        raise ContainerError(f"container {container.name} is running already")
    mapping = None if os.geteuid() == 0 else userns.mapping()
    groups = cgroups.look()
    host = Host(
        runtime=runtime.choose(groups, os.environ),
        runtime_root=os.path.join(runtime_directory(), b"runtime"),
        cgroups=groups,
        rootless=mapping is not None or in_user_namespace(),
        ids=userns.ids_here() if mapping is None else mapping.ids,
        console_size=terminal.window_size(),
    )
    try:
        lock = containers.lock(container, seconds=ENDING_SECONDS)
    except BlockingIOError:
        raise ContainerError(f"container {container.name} is running already") from None
    try:
        task = monitor.Task(containers, container, _mounts(containers, container), host, runtime_directory(), mapping)
        monitor.start(task, lock, watcher, here=here)
    finally:
        os.close(lock)


def _mounts(containers: Containers, container: Container) -> monitor.Mounts:
    def mounted(place: Place) -> int:
        layers = container_layers(containers, container)
        if layers and not os.listdir(place.upper):
            _take_root(layers[0], place.upper)
        options = ["suid", "dev", *(["volatile"] if container.auto_remove else [])]
        made = mount(place.root, layers, place.upper, place.work, options=options, log_file=place.monitor_log)
        return made.pid

    return monitor.Mounts(mounted, unmounted)


def mounted_root(containers: Containers, container: Container, function: Callable[[int], Any]) -> Any:
    """What `function` returns (JSON), called with the root of a container that does not run, mounted for the moment,
    where IDs are what they are in it. ContainerError where it is being started or removed."""
    place = containers.place(container.id)

    def look() -> Any:
        _mounts(containers, container).mount(place)
        try:
            root_fd = os.open(place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return function(root_fd)
            finally:
                os.close(root_fd)
        finally:
            unmounted(place)

    try:
        with containers.locked(container, seconds=ENDING_SECONDS):
            return look() if os.geteuid() == 0 else userns.within(userns.mapping(), look)
    except BlockingIOError:
        raise ContainerError(f'container "/{container.name}" is just being started or removed') from None


def _take_root(layer: bytes, upper: bytes) -> None:
    """Give a new upper, whose own directory is the root that will be seen, the mode and owner of the image's root."""
    with contextlib.closing(open_layer(layer)) as opened:
        found = opened.lstat(b"")
    os.chmod(upper, stat.S_IMODE(found.st_mode))
    with contextlib.suppress(OSError):  # EINVAL: an ID that an ordinary user has not
        os.chown(upper, found.st_uid, found.st_gid)


def unmounted(place: Place) -> None:
    """Take its root away, if it is there; what still holds it cannot keep it."""
    registry = Registry()
    elsewhere = next((one for one in registry.records() if one.upper == place.upper and one.elsewhere), None)
    if elsewhere is not None:
        _end_daemon(elsewhere)
    elif registry.find(place.root) is not None:
        try:
            umount(place.root)
        except MountError:
            umount(place.root, lazy=True)


def _end_daemon(record: MountRecord) -> None:
    """Of a mount in a namespace that we are not in: it unmounts when it is told to end."""
    daemon = Process(record.pid, record.start_time)
    for number, seconds in ((signal.SIGTERM, UNMOUNT_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, number)
        if client.gone(daemon, seconds):
            return


def container_layers(containers: Containers, container: Container) -> list[bytes]:
    """Its layers, topmost first, as layer specifications: tars, and blobs of those that are not ready, or not fetched.
    LayerError where one is lost."""
    cache, root = user_cache(), os.path.dirname(containers.directory)
    blobs = dict(zip(container.layers, container.blobs, strict=False))
    found = []
    for diff_id in reversed(container.layers):
        try:
            found.append(cache.path(diff_id))
        except LayerError:
            if diff_id not in blobs:
                raise
            found.append(os.path.join(root, b"blobs", *os.fsencode(blobs[diff_id]).split(b":")))
    return found


def stop_container(
    containers: Containers, name: str, *, seconds: float | None = None, signal_text: str | None = None
) -> None:
    """Have it end: by its stop signal, and after `seconds` (10; negative: never) by SIGKILL. One that does not run is
    as it should be. ContainerError where there is none of that name."""
    found = _started_or_ended(containers, name)
    if not found.state.lives:
        return
    wanted = signal_text or str(found.container.config.get("StopSignal") or "SIGTERM")
    limit = STOP_SECONDS if seconds is None else seconds
    send_signal(containers, found, option_texts.signal_number(wanted))
    if not _wait_for_end(containers, found, None if limit < 0 else limit):
        send_signal(containers, found, signal.SIGKILL)
        _wait_for_end(containers, found, None)


def kill_container(containers: Containers, name: str, signal_text: str = "SIGKILL") -> None:
    """Send a signal to its init. ContainerError where it does not run."""
    number = option_texts.signal_number(signal_text)
    found = find_container(containers, name)
    if not found.state.lives:
        raise ContainerError(
            f"cannot kill container: {name}: container {found.container.id} is not running", hint="unionfs ps -a"
        )
    send_signal(containers, found, number)


def send_signal(containers: Containers, found: FoundContainer, number: int) -> None:
    """To the init of one that runs; nothing where it has just ended."""
    state = found.state
    if state.watched and client.signalled(containers.place(found.container.id), number):
        return
    # Its monitor was killed: the init is any process of ours then.
    if state.process is not None and state.lives:
        pid = state.process.pid
        with contextlib.suppress(ProcessLookupError):
            if state.rootless and os.geteuid() != 0:
                userns.inside(pid, lambda: os.kill(pid, number), mounts=False)  # it may have another ID
            else:
                os.kill(pid, number)


def _wait_for_end(containers: Containers, found: FoundContainer, seconds: float | None) -> bool:
    """Until its monitor has put everything away; False where it has not in time."""
    state = found.state
    watched = state.monitor if state.watched else state.process
    if watched is None or client.gone(watched, seconds):
        recovery.settle(containers, found.container, unmounted)
        return True
    return False


def wait_container(containers: Containers, name: str) -> int:
    """Wait until it does not run; its exit status."""
    found = find_container(containers, name)
    if found.state.watched:
        status = client.exit_status(containers.place(found.container.id))
        if status is not None:
            return status
    _wait_for_end(containers, found, None)
    return find_container(containers, name).state.exit_code


def _started_or_ended(containers: Containers, name: str) -> FoundContainer:
    """One that is just being started, or put away, when that is done; for a while."""
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        found = find_container(containers, name)
        if found.state.lives or not found.state.watched or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_SECONDS)


def remove_container(containers: Containers, name: str, *, force: bool = False) -> None:
    """Remove a container with all it has changed. One that runs by `force` only, which kills it. ContainerError."""
    found = _started_or_ended(containers, name)
    container = found.container
    if found.state.lives or found.state.watched:
        if not force:
            raise ContainerError(
                f'cannot remove container "/{container.name}": container is running: stop the container before '
                "removing or force remove",
                hint=f"unionfs stop {name}, or: unionfs rm -f {name}",
            )
        send_signal(containers, found, signal.SIGKILL)
        _wait_for_end(containers, found, None)
    try:
        with containers.locked(container, seconds=ENDING_SECONDS):
            recovery.clean_locked(containers, container, containers.state(container), unmounted)
            containers.remove(container)
    except BlockingIOError:
        raise ContainerError(f'container "/{container.name}" is just being started or removed') from None
    except ContainerError:
        if not container.auto_remove:  # else its monitor was quicker
            raise


def execute(containers: Containers, name: str, asked: Execution) -> Ended:
    """A further process in a container that runs, with this process's streams. ContainerError where it does not run."""
    found = find_container(containers, name)
    if not found.state.lives:
        raise ContainerError(f"container {found.container.id} is not running", hint=f"unionfs start {name}")
    container, state = found
    assert state.process is not None
    place = containers.place(container.id)
    if not state.rootless or os.geteuid() == 0:
        return executed.execute(place, state, container.id, asked)
    with terminal.ignoring_keys():
        status = userns.inside(
            state.process.pid, lambda: executed.execute(place, state, container.id, asked).told(), mounts=False
        )
    return Ended.from_told(status)
