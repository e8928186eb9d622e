"""What a container needs before its runtime is called: users, volumes, files of /etc, network, and its config.json."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from unionfs.containers import cgroups, seccomp, spec, volumes
from unionfs.containers import runtime as runtimes
from unionfs.containers.compiled_filters import CompiledFilter
from unionfs.containers.container import Container, Place
from unionfs.containers.etc_files import write_etc_files
from unionfs.containers.settings import Port, Settings
from unionfs.containers.users import find_user
from unionfs.errors import ContainerError
from unionfs.linux.namespace import new_network_namespace

if TYPE_CHECKING:
    from unionfs.containers.network import Helper


class Host(NamedTuple):
    """Where the container is to run. `runtime`: the program; `runtime_root`: where it keeps its own. `rootless`: in a
    user namespace, with `ids` IDs. `console_size`: of the terminal of who starts it."""

    runtime: str
    runtime_root: bytes
    cgroups: cgroups.Cgroups
    rootless: bool = False
    ids: int | None = None
    console_size: tuple[int, int] | None = None

    @property
    def with_cgroups(self) -> bool:
        return self.cgroups.writable and not self.rootless


class NetworkOf:
    """The network of one run, for as long as the block lasts. `namespace`: the path of its namespace; None where the
    runtime makes it, or there is none. `ports`: as published.

    ContainerError at its begin where it cannot be had. It comes up while the root is mounted: see `connect`.
    """

    def __init__(self, settings: Settings, place: Place) -> None:
        self._settings = settings
        self._place = place
        self._until_end = ExitStack()
        self._until_connected = ExitStack()
        self._helper: Helper | None = None
        self.namespace: str | None = None
        self.ports: tuple[Port, ...] = ()

    def __enter__(self) -> NetworkOf:
        if self._settings.network == "private":
            try:
                self._begin()
            except BaseException:
                self._end()
                raise
        return self

    def _begin(self) -> None:
        from unionfs.containers import network  # here, since it takes as long to import as all else

        network.check()
        self.ports = self._until_connected.enter_context(network.published(self._settings.ports))
        fd = new_network_namespace()
        self._until_end.callback(os.close, fd)
        # By the number of this process: the runtime and the helper open it, wherever they are.
        self.namespace = f"/proc/{os.getpid()}/fd/{fd}"
        self._helper = network.start(self.namespace, self._place.directory)
        self._until_end.callback(self._helper.close)

    def connect(self) -> None:
        """Have it there, and its ports published."""
        if self._helper is not None:
            self._until_connected.close()  # the ports are the helper's from here on
            self._helper.connect(self.ports)
            self.ports = self._helper.ports

    def _end(self) -> None:
        self._until_connected.close()
        self._until_end.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end()


class Prepared(NamedTuple):
    """`runtime`: what each call of it begins with. `filter`: to be kept when the container is made."""

    runtime: tuple[str, ...]
    filter: CompiledFilter | None


def prepare(container: Container, place: Place, host: Host, connection: NetworkOf) -> Prepared:
    """Write the config.json of a container whose root is mounted, and have its network there.

    ContainerError as the parts have it.
    """
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
    write_etc_files(place.directory, container.hostname, settings.network)
    profile = seccomp.load_profile()
    resolved = None if profile is None else seccomp.resolve(profile, spec.CAPABILITIES, os.uname())
    compiled = None if resolved is None else CompiledFilter(host.runtime_root, host.runtime, resolved)
    given = spec.Surroundings(
        root=place.root,
        directory=place.directory,
        container_id=container.id,
        hostname=container.hostname,
        user=user,
        volumes=sources,
        rootless=host.rootless,
        ids=host.ids,
        network_namespace=connection.namespace,
        cgroup=cgroups.group_of(container.id) if host.with_cgroups else None,
        swap_limits=host.cgroups.swap,
        console_size=host.console_size,
        seccomp=resolved,
        annotations={} if compiled is None else compiled.annotations(),
    )
    made: dict[str, Any] = spec.runtime_spec(settings, config, given)
    with open(place.bundle, "wb") as file:  # made anew at each start
        file.write(spec.encode(made))
    connection.connect()
    return Prepared(runtimes.arguments(host.runtime, host.runtime_root, with_cgroups=host.with_cgroups), compiled)
