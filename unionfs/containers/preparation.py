"""What a container needs before its runtime is called: users, volumes, files of /etc, network, and its config.json."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, NamedTuple

from unionfs.containers import cgroups, spec, volumes
from unionfs.containers import runtime as runtimes
from unionfs.containers.container import Container, Place
from unionfs.containers.settings import Port, Settings
from unionfs.containers.users import find_user
from unionfs.errors import ContainerError
from unionfs.image.blobs import replace_file

#: Where control groups of containers are, below those of the machine.
CGROUP_PARENT = "/unionfs/"


class Host(NamedTuple):
    """Where the container is to run. `runtime`: the program; `runtime_root`: where it keeps its own. `rootless`: in a
    user namespace, with `ids` IDs."""

    runtime: str
    runtime_root: bytes
    cgroups: cgroups.Cgroups
    rootless: bool = False
    ids: int | None = None

    @property
    def with_cgroups(self) -> bool:
        return self.cgroups.writable and not self.rootless

    def own(self, fd: int) -> None:
        """Nothing yet."""


class Prepared(NamedTuple):
    """`runtime`: what each of its calls begins with. `separate_start`: something is to be done between the making of
    the container and its start."""

    runtime: tuple[str, ...]
    separate_start: bool


class NetworkOf:
    """The network of one run, for as long as the block lasts."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self._settings = settings
        self._place = place
        self.ports: tuple[Port, ...] = ()

    @property
    def helped(self) -> bool:
        return False

    def connect(self, pid: int) -> None:
        """Nothing yet."""

    def __enter__(self) -> NetworkOf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        pass


def prepare(container: Container, place: Place, host: Host, network: NetworkOf) -> Prepared:
    """Write the config.json of a container whose root is mounted. ContainerError as the parts have it."""
    settings, config = container.settings, container.config
    if settings.memory is not None and not host.with_cgroups:
        raise ContainerError(
            "memory cannot be limited: there is no control group for it"
            + (" that an ordinary user may make" if host.rootless else ""),
            hint="run as root, or without --memory",
        )
    root_fd = os.open(place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        user = find_user(root_fd, settings.user if settings.user is not None else str(config.get("User") or ""))
        sources = volumes.prepare(spec.volumes(settings, config), root_fd, place.directory)
    finally:
        os.close(root_fd)
    _etc_files(container, place)
    given = spec.Surroundings(
        root=place.root,
        directory=place.directory,
        container_id=container.id,
        hostname=container.hostname,
        user=user,
        volumes=sources,
        rootless=host.rootless,
        ids=host.ids,
        cgroup=CGROUP_PARENT + container.id if host.with_cgroups else None,
        swap_limits=host.cgroups.swap,
    )
    made: dict[str, Any] = spec.runtime_spec(settings, config, given)
    replace_file(place.bundle, spec.encode(made), 0o600)
    runtime = runtimes.arguments(host.runtime, host.runtime_root, with_cgroups=host.with_cgroups)
    return Prepared(runtime, network.helped)


def _etc_files(container: Container, place: Place) -> None:
    for name in spec.ETC_FILES:
        path = os.path.join(place.directory, os.fsencode(name))
        if not os.path.exists(path):
            with open(path, "w") as file:
                file.write(container.hostname + "\n" if name == "hostname" else "")
