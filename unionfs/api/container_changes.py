"""What a container changes, for `diff`, `commit` and `export`: its stack, running or not.

    find_target(name, …)   the stack and the mountpoint of the container that a name means
    export_container       its whole root file system as one tar

A running container is a live mount, whose changes can be held; one that has ended is its upper. Either way its lower
layers are those of its image, so a commit has that image's layers and one more, and the container's configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, BinaryIO, Final, NamedTuple

from unionfs.api.containers import container_layers
from unionfs.api.hold import held
from unionfs.api.layers import ImagePart, LayerSpec, StackSpec
from unionfs.api.union import open_union
from unionfs.changeset.change import Change, Kind
from unionfs.changeset.replacing import replacing
from unionfs.changeset.tar_writer import write_tree
from unionfs.containers.configuration import configuration
from unionfs.containers.container import Container, Place, State
from unionfs.containers.spec import arguments
from unionfs.containers.spec import volumes as volumes_of
from unionfs.containers.store import Containers
from unionfs.errors import ContainerError
from unionfs.overlay import UnionOptions

#: What a runtime makes in a root to mount on. podman leaves them out of a diff as well (libpod/diff.go); docker has
#: them in a layer below the upper.
MOUNTPOINTS: Final = frozenset(
    (b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"dev/pts", b"dev/shm", b"dev/mqueue")
)


class Target(NamedTuple):
    """`mountpoint` None: it is not mounted, and nobody changes it."""

    container: Container
    state: State
    spec: StackSpec
    mountpoint: bytes | None

    @property
    def command(self) -> str:
        """What it ran, as docker has it in an image's history."""
        return " ".join(arguments(self.container.settings, self.container.config))

    @property
    def configuration(self) -> dict[str, Any]:
        """What an image has that is made of it (moby daemon/commit.go: the container's, not its image's)."""
        return configuration(self.container.settings, self.container.config)

    def made_by_people(self, changes: Iterable[Change]) -> list[Change]:
        """Changes without what the runtime made to mount on."""
        volumes = (volume.target for volume in volumes_of(self.container.settings, self.container.config))
        made = MOUNTPOINTS | {os.fsencode(target).lstrip(b"/") for target in volumes}
        return [change for change in changes if not (change.kind is Kind.ADDED and change.path in made)]


def find_target(name: LayerSpec, store: LayerSpec | None) -> Target | None:
    """The container that `name` means; None where it means a path, as what exists as one does. ContainerError where it
    can be no path, and no container has it."""
    text = os.fsdecode(name)
    if "/" in text or os.path.lexists(text) or text in (".", ".."):
        return None
    from unionfs.image.store import store_directory

    # Nothing of a container is removed here, so there is no need of how that is done.
    containers = Containers(store_directory(store), _never)
    try:
        found = containers.find(text)
    except ContainerError as error:
        if not str(error).startswith("No such container"):
            raise
        raise ContainerError(
            f"{text} is neither a directory nor a container",
            hint="unionfs mounts and unionfs ps -a list those there are",
        ) from None
    return target_of(containers, found)


def target_of(containers: Containers, container: Container) -> Target:
    """A container's stack, to be looked at."""
    place = containers.place(container.id)
    lowers = tuple(container_layers(containers, container))
    store = os.path.dirname(containers.directory)
    spec = StackSpec(
        lowers,
        place.upper,
        place.work if os.path.isdir(place.work) else None,
        read_only=True,
        images=(ImagePart(0, len(lowers), container.image, store),) if lowers else (),
    )
    return Target(container, containers.state(container), spec, _mountpoint(place))


def _mountpoint(place: Place) -> bytes | None:
    from unionfs.mounts.registry import Registry

    record = Registry().find(place.root)
    return None if record is None else place.root


def export_container(
    containers: Containers,
    name: str,
    target: LayerSpec | BinaryIO,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the root file system of a container, without its volumes, as one tar; to a file that appears complete or
    not at all, or a stream. Of a running container it is one moment."""
    from unionfs.api.container_inside import call_inside, is_elsewhere

    found = target_of(containers, containers.find(name))
    if is_elsewhere(found):
        call_inside(found, lambda: export_container(containers, name, target))
        return
    with ExitStack() as stack:
        if isinstance(target, str | bytes | os.PathLike):
            target = stack.enter_context(replacing(os.path.abspath(os.fsencode(target))))
        if found.mountpoint is not None:
            stack.enter_context(held(found.mountpoint))
        _write(found.spec, target, progress)


def _write(spec: StackSpec, out: BinaryIO, progress: Callable[[int], None] | None) -> None:
    union = open_union(spec, UnionOptions(metacopy=True))
    try:
        write_tree(union, out, progress=progress)
    finally:
        union.close()


def _never(directory: bytes) -> None:
    raise AssertionError(f"{directory!r} is not to be removed")
