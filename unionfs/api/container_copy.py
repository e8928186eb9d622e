"""`copy_from_container`, `copy_to_container`: `docker cp`, by its rules (docs/reference/commandline/container_cp).

    a file        to nothing: by that name, which must not end with `/`; to a file: in its place; to a directory: in it
    a directory   to nothing: as that directory; to a directory: in it, or, given as `DIR/.`, its contents
    -             in place of a path of the host: a tar

A link that SOURCE names is copied as one, but by `LINK/`, `LINK/.` and -L what it leads to is, by the link's name
(docker's archive.GetRebaseName).

Paths in a container are resolved as it would itself, links and all, and begin at its root. One that runs is seen as it
sees itself, with its volumes; of one that does not its root alone, which is mounted for the moment. A path in a volume
is refused then: unlike docker's, it is not mounted, and what was copied to its place would not be seen later.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple

from unionfs.api.containers import find_container, mounted_root
from unionfs.containers import spec, userns
from unionfs.containers.copying import Copy
from unionfs.containers.root_path import Place, resolve
from unionfs.containers.store import Containers
from unionfs.errors import ContainerError
from unionfs.linux.path import openat2


def copy_from_container(
    containers: Containers,
    name: str,
    path: str,
    target: str | BinaryIO,
    *,
    archive: bool = False,
    follow_link: bool = False,
) -> None:
    """Copy `path` of a container to `target`, a path of the host, or a stream for a tar.

    `archive`: keep owners. `follow_link`: what `path` names, if it is a link, not the link. OSError, or ContainerError.
    """

    def copy(root_fd: int, volumes: Volumes) -> None:
        with resolve(root_fd, os.fsencode(path), follow=follow_link) as source:
            volumes.refuse(root_fd, source)
            if source.mode is None:
                raise ContainerError(f"Could not find the file {path} in container {name}")
            contents = _means_contents(path) or source.name == b"."
            asked = _asked_name(path, source)
            if not isinstance(target, str):
                _to_stream(source, b"." if contents else source.name if follow_link else asked, target)
                return
            with _host_target(target, source, asked, contents) as (target_fd, new):
                _copy(source, target_fd, new, None if archive else (os.getuid(), os.getgid()))

    _with_root(containers, name, copy)


def copy_to_container(
    containers: Containers,
    name: str,
    source: str | BinaryIO,
    path: str,
    *,
    archive: bool = False,
    follow_link: bool = False,
) -> None:
    """Copy `source`, a path of the host, or a stream with a tar, to `path` of a container. All is root's there, unless
    `archive` keeps owners."""
    owner = None if archive else (0, 0)

    def copy(root_fd: int, volumes: Volumes) -> None:
        with resolve(root_fd, os.fsencode(path)) as there:
            volumes.refuse(root_fd, there)
            if not isinstance(source, str):
                _from_stream(source, root_fd, name, path, there, owner)
                return
            with _host_source(source, follow_link) as found:
                contents = _means_contents(source) or found.name == b"."
                _check(there.mode, there.is_directory, path, found, source)
                inside = there.is_directory and not contents
                with _opened(there, there.is_directory) as target_fd:
                    new = _asked_name(source, found) if inside else None if there.is_directory else there.name
                    _copy(found, target_fd, new, owner)

    _with_root(containers, name, copy)


def _means_contents(path: str) -> bool:
    """`DIR/.`, and `.` alone (docker's specifiesCurrentDir)."""
    return os.path.basename(path.rstrip("/")) == "."


def _asked_name(path: str, found: Place) -> bytes:
    """What `path` calls its last component, whatever link that is."""
    name = os.path.basename(path.rstrip("/"))
    return found.name if name in ("", ".", "..") else os.fsencode(name)


def _copy(source: Place, target_fd: int, new: bytes | None, owner: tuple[int, int] | None) -> None:
    """As `new`; None: the contents."""
    made = Copy(target_fd, owner)
    if new is not None:
        made.tree(source.parent_fd, source.name, new)
        return
    inside = openat2(source.parent_fd, source.name, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made.contents(inside)
    finally:
        os.close(inside)


def _check(mode: int | None, is_directory: bool, path: str, source: Place, shown: str) -> None:
    """What docker refuses before it copies."""
    if mode is None and (path.endswith("/") or _means_contents(path)) and not source.is_directory:
        raise ContainerError("destination directory must exist", hint=f"leave out the / behind {path}")
    if mode is not None and not is_directory and source.is_directory:
        raise ContainerError(f"cannot copy directory: {shown} is one, and {path} is not")
    if mode is not None and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise ContainerError(f"{path} is a device, which a copy would take the place of", hint="for a tar: -")


# the host's side ------------------------------------------------------------------------------------------------------
@contextmanager
def _host_source(path: str, follow: bool) -> Iterator[Place]:
    """A path of the host, resolved by the kernel as any."""
    if path.endswith("/") or _means_contents(path):
        follow = True
        os.stat(path)  # ENOTDIR
    directory, name = os.path.split(os.path.realpath(path) if follow else os.path.abspath(path))
    parent_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            mode = os.stat(name or ".", dir_fd=parent_fd, follow_symlinks=False).st_mode
        except FileNotFoundError as error:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        yield Place(parent_fd, os.fsencode(name or "."), os.fsencode(path), mode)
    finally:
        os.close(parent_fd)


@contextmanager
def _host_target(target: str, source: Place, asked: bytes, contents: bool) -> Iterator[tuple[int, bytes | None]]:
    """The directory of the host to copy into, and as what; None: the contents."""
    found = os.stat(target).st_mode if os.path.exists(target) else None
    is_directory = os.path.isdir(target)
    _check(found, is_directory, target, source, os.fsdecode(source.path))
    new: bytes | None
    if is_directory:
        directory, new = target, None if contents and source.is_directory else asked
    else:
        directory, name = os.path.split(os.path.realpath(target))
        new = os.fsencode(name)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ContainerError(f"directory {directory} does not exist", hint="make it first") from None
    try:
        yield fd, new
    finally:
        os.close(fd)


# the container's side -------------------------------------------------------------------------------------------------
@contextmanager
def _opened(place: Place, itself: bool) -> Iterator[int]:
    """The directory at a place, or the one that it is in."""
    fd = openat2(place.parent_fd, place.name if itself else b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _to_stream(source: Place, member: bytes, out: BinaryIO) -> None:
    import tarfile

    from unionfs.containers.tar_copying import TarOut

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        TarOut(tar).add(source.parent_fd, source.name, os.fsdecode(member))
    out.flush()


def _from_stream(
    stream: BinaryIO, root_fd: int, name: str, path: str, there: Place, owner: tuple[int, int] | None
) -> None:
    from unionfs.containers.tar_copying import extract

    if not there.is_directory:
        raise ContainerError(f'destination "{name}:{path}" must be a directory')
    extract(stream, root_fd, there.path, owner)


class Volumes(NamedTuple):
    """Those of container `name` that are not mounted, by `targets`."""

    name: str
    targets: tuple[str, ...] = ()

    def refuse(self, root_fd: int, place: Place) -> None:
        """ContainerError for a place in one of them."""
        for target in self.targets:
            with suppress(OSError), resolve(root_fd, os.fsencode(target)) as volume:
                if (place.path + b"/").startswith(volume.path + b"/"):
                    raise ContainerError(
                        f"{target} is a volume, which is there only while container {self.name} runs",
                        hint=f"unionfs start {self.name}, or copy to what the volume is made of: unionfs inspect",
                    )


def _with_root(containers: Containers, name: str, function: Callable[[int, Volumes], None]) -> None:
    """Call it with the root of a container, where the container's IDs are what they are for it."""
    container, state = find_container(containers, name)
    if not state.lives or state.process is None:
        targets = tuple(volume.target for volume in spec.volumes(container.settings, container.config))
        mounted_root(containers, container, lambda root_fd: function(root_fd, Volumes(name, targets)))
        return
    pid = state.process.pid

    def opened() -> Any:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            function(root_fd, Volumes(name))
        finally:
            os.close(root_fd)

    if state.rootless and os.geteuid() != 0:
        userns.inside(pid, opened, mounts=False)
    else:
        opened()
