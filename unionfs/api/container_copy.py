"""`copy_from_container`, `copy_to_container`: `docker cp`, by its rules (docs/reference/commandline/container_cp).

    a file        to nothing: by that name, which must not end with `/`; to a file: in its place; to a directory: in it
    a directory   to nothing: as that directory; to a directory: in it, or, given as `DIR/.`, its contents
    -             in place of a path of the host: a tar

Paths in a container are resolved as it would itself, links and all, and begin at its root. One that runs is seen as it
sees itself, with its volumes; of one that does not its root alone, which is mounted for the moment.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from unionfs.api.containers import find_container, mounted_root
from unionfs.containers import userns
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

    def copy(root_fd: int) -> None:
        with resolve(root_fd, os.fsencode(path), follow=follow_link) as source:
            if source.mode is None:
                raise ContainerError(f"Could not find the file {path} in container {name}")
            contents = path.endswith("/.") or source.name == b"."
            if not isinstance(target, str):
                _to_stream(source, contents, target)
                return
            with _host_target(target, source, contents) as (target_fd, new):
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

    def copy(root_fd: int) -> None:
        if not isinstance(source, str):
            _from_stream(source, root_fd, name, path, owner)
            return
        with _host_source(source, follow_link) as found:
            contents = source.endswith("/.") or found.name == b"."
            with resolve(root_fd, os.fsencode(path)) as there:
                _check(there.mode, there.is_directory, path, found, source)
                inside = there.is_directory and not contents
                with _opened(there, inside or (contents and there.is_directory)) as target_fd:
                    new = None if contents and there.is_directory else found.name if inside else there.name
                    _copy(found, target_fd, new, owner)

    _with_root(containers, name, copy)


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
    if mode is None and path.endswith("/") and not source.is_directory:
        raise ContainerError("destination directory must exist", hint=f"leave out the / behind {path}")
    if mode is not None and not is_directory and source.is_directory:
        raise ContainerError(f"cannot copy directory: {shown} is one, and {path} is not")


# the host's side ------------------------------------------------------------------------------------------------------
@contextmanager
def _host_source(path: str, follow: bool) -> Iterator[Place]:
    """A path of the host, resolved by the kernel as any."""
    if follow:
        path = os.path.realpath(path) + ("/." if path.endswith("/.") else "")
    directory, name = os.path.split(os.path.abspath(path))
    parent_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = os.stat(name or ".", dir_fd=parent_fd, follow_symlinks=path.endswith("/")).st_mode
        yield Place(parent_fd, os.fsencode(name or "."), os.fsencode(path), mode)
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    finally:
        os.close(parent_fd)


@contextmanager
def _host_target(target: str, source: Place, contents: bool) -> Iterator[tuple[int, bytes | None]]:
    """The directory of the host to copy into, and as what; None: the contents."""
    found = os.stat(target).st_mode if os.path.exists(target) else None
    is_directory = os.path.isdir(target)
    _check(found, is_directory, target, source, os.fsdecode(source.path))
    new: bytes | None
    if is_directory:
        directory, new = target, None if contents and source.is_directory else source.name
    else:
        directory, name = os.path.split(os.path.realpath(target))
        new = os.fsencode(name)
        if contents:
            os.mkdir(os.path.join(directory, name), 0o755)
            directory, new = os.path.join(directory, name), None
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


def _to_stream(source: Place, contents: bool, out: BinaryIO) -> None:
    import tarfile

    from unionfs.containers.tar_copying import TarOut

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        TarOut(tar).add(source.parent_fd, source.name, "." if contents else os.fsdecode(source.name))
    out.flush()


def _from_stream(stream: BinaryIO, root_fd: int, name: str, path: str, owner: tuple[int, int] | None) -> None:
    from unionfs.containers.tar_copying import extract

    with resolve(root_fd, os.fsencode(path)) as there:
        if not there.is_directory:
            raise ContainerError(f'destination "{name}:{path}" must be a directory')
        extract(stream, root_fd, there.path, owner)


def _with_root(containers: Containers, name: str, function: Callable[[int], None]) -> None:
    """Call it with the root of a container, where the container's IDs are what they are for it."""
    container, state = find_container(containers, name)
    if not state.lives or state.process is None:
        mounted_root(containers, container, function)
        return
    pid = state.process.pid

    def opened() -> Any:
        root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            function(root_fd)
        finally:
            os.close(root_fd)

    if state.rootless and os.geteuid() != 0:
        userns.inside(pid, opened, mounts=False)
    else:
        opened()
