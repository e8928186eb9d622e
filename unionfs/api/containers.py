"""Containers: an image run on a mount of its layers, under an upper of its own that stays until it is removed.

    create_container   of an image: its record and its place
    start_container    mount, run; its monitor goes on by itself
    containers         all of them, with what has become of them

`unionfs.containers` has everything else; here it gets its mounts, and images their users.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from unionfs.api.layers import LayerSpec, remove_temporary
from unionfs.api.mounting import mount, umount
from unionfs.containers import cgroups, monitor, runtime, terminal
from unionfs.containers.container import SHORT, Container, Place, State
from unionfs.containers.preparation import Host
from unionfs.containers.settings import Settings
from unionfs.containers.store import Containers
from unionfs.errors import ContainerError, MountError
from unionfs.image.layer_cache import LayerCache, user_cache
from unionfs.mounts.registry import Registry, runtime_directory

__all__ = ["Ended", "container_store", "create_container", "run_container"]

Ended = terminal.Ended


class Found(NamedTuple):
    """A container, and what has become of it."""

    container: Container
    state: State


def container_store(store: LayerSpec | None = None) -> Containers:
    """The containers of the image store `store`; None is $UNIONFS_STORE, or the user's own."""
    from unionfs.image.store import store_directory

    return Containers(store_directory(store), remove_temporary)


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
    from unionfs.api.images import image_store

    store = image_store(os.path.dirname(containers.directory))
    with store.using(image, platform) as found:

        def make(id: str, chosen: str) -> Container:
            return Container(
                id=id,
                name=chosen,
                image=str(found.id),
                image_name=image,
                created=time.time(),
                hostname=settings.hostname or id[:SHORT],
                settings=settings,
                config=_config_of(found.config_bytes),
                layers=tuple(map(str, found.diff_ids)),
                auto_remove=auto_remove,
            )

        return containers.create(make, name)


def _config_of(data: bytes) -> Mapping[str, Any]:
    import json

    return json.loads(data).get("config") or {}


def run_container(containers: Containers, container: Container, *, attach: bool, interactive: bool) -> Ended:
    """Start it, and until it ends, or is let go of, carry this process's streams and signals. Without `attach` until it
    runs."""
    settings = container.settings
    ours, theirs = socket.socketpair()
    with ours, terminal.catching(terminal=settings.terminal) as signals:
        with theirs:
            start_container(containers, container, theirs)
        if not attach:
            return terminal.until_started(ours)
        stdin = 0 if interactive else None
        return terminal.Relay(ours, signals, stdin=stdin, terminal=settings.terminal).run()


def start_container(containers: Containers, container: Container, watcher: socket.socket | None) -> None:
    """Have a monitor start it, which tells `watcher` how that goes. ContainerError where it runs already."""
    groups = cgroups.look()
    host = Host(
        runtime=runtime.choose(groups, os.environ),
        runtime_root=os.path.join(runtime_directory(), b"runtime"),
        cgroups=groups,
    )
    try:
        lock = containers.lock(container)
    except BlockingIOError:
        raise ContainerError(f"container {container.name} is running already") from None
    try:
        task = monitor.Task(containers, container, _mounts(container), host)
        monitor.start(task, lock, watcher)
    finally:
        os.close(lock)


def _mounts(container: Container) -> monitor.Mounts:
    def mounted(place: Place) -> int:
        layers = _layers(user_cache(), container)
        options = ["suid", "dev", *(["volatile"] if container.auto_remove else [])]
        made = mount(place.root, layers, place.upper, place.work, options=options, log_file=place.monitor_log)
        return made.pid

    return monitor.Mounts(mounted, unmounted)


def unmounted(place: Place) -> None:
    """Take its root away, if it is there; what still holds it cannot keep it."""
    if Registry().find(place.root) is None:
        return
    try:
        umount(place.root)
    except MountError:
        umount(place.root, lazy=True)


def _layers(cache: LayerCache, container: Container) -> list[bytes]:
    """Its layer tars, topmost first."""
    return [cache.path(diff_id) for diff_id in reversed(container.layers)]
