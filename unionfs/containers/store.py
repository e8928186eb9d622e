"""`Containers`: all containers of one image store, by ID and by name.

    STORE/containers/.lock     held by who makes a container, or lists names to make one
    STORE/containers/ID/       container.Place has what is in it
    STORE/containers/ID/lock   held by who changes the container: its monitor, from before its start to after its end,
                               and whoever removes it, or puts right what a crash has left

A container is there as long as its container.json: it comes first, and goes first. A directory without one is what a
crash has left, and is removed by who makes the next container. A lock (flock(2)) goes with its holder, however that
ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final

from unionfs.changeset.replacing import fsync_path, replace_file
from unionfs.containers import names
from unionfs.containers.container import UNSEEN_EXIT, Container, Place, State
from unionfs.errors import ContainerError
from unionfs.linux.process import flock_exclusive

#: Where in an image store they lie.
CONTAINERS: Final = b"containers"
#: How a directory is called while it is removed.
_DYING: Final = b"dying-"

Remove = Callable[[bytes], None]


class Containers:
    """The containers of the image store in `root`. `remove`: how a directory tree is removed, whatever is in it."""

    def __init__(self, root: bytes, remove: Remove) -> None:
        self.directory = os.path.join(root, CONTAINERS)
        self._remove = remove

    def place(self, id: str) -> Place:
        return Place(os.path.join(self.directory, os.fsencode(id)))

    # what is there ------------------------------------------------------------------------------------------------
    def all(self) -> list[Container]:
        """Newest first."""
        try:
            found = [self._read(os.fsdecode(name)) for name in os.listdir(self.directory)]
        except FileNotFoundError:
            return []
        return sorted((one for one in found if one is not None), key=lambda one: (-one.created, one.id))

    def find(self, name: str) -> Container:
        """By ID, name, or a beginning of an ID that only one has, in this order, as docker looks."""
        if len(name) == 64 and (exact := self._read(name)) is not None:
            return exact
        everything = self.all()
        for one in everything:
            if one.name == name.removeprefix("/"):
                return one
        begin = [one for one in everything if name and one.id.startswith(name)]
        if len(begin) > 1:
            raise ContainerError(
                f"multiple IDs found with provided prefix: {name}", hint="give more of it, or the container's name"
            )
        if not begin:
            raise no_such(name)
        return begin[0]

    def state(self, container: Container) -> State:
        """As it was written. ContainerError where the container is gone."""
        place = self.place(container.id)
        try:
            with open(place.state, "rb") as file:
                return State.from_json(file.read())
        except FileNotFoundError:
            if os.path.exists(place.record):
                return State()
            raise no_such(container.name) from None
        except ContainerError:
            # Half of it, of a power failure.
            return State(started=container.created, finished=container.created, exit_code=UNSEEN_EXIT)

    def write_state(self, container: Container, state: State, *, flush: bool = False) -> None:
        """Hold its lock. Atomic for readers; with `flush`, after a power failure too."""
        place = self.place(container.id)
        if flush:
            replace_file(place.state, state.to_json(), 0o600)
            return
        new = place.state + b".new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(state.to_json())
        os.replace(new, place.state)

    def _read(self, id: str) -> Container | None:
        try:
            with open(self.place(id).record, "rb") as file:
                return Container.from_json(file.read())
        except (FileNotFoundError, NotADirectoryError, ContainerError):
            return None

    # making and removing ------------------------------------------------------------------------------------------
    def create(self, make: Callable[[str, str], Container], name: str | None) -> Container:
        """Make a container: `make(id, name)`. `name` None: one that nobody has."""
        if name is not None:
            names.check(name)
        os.makedirs(self.directory, 0o700, exist_ok=True)
        with self._locked():
            self._sweep()
            taken = {one.name: one for one in self.all()}
            if name in taken:
                raise ContainerError(
                    f'Conflict. The container name "/{name}" is already in use by container "{taken[name].id}".',
                    hint="remove or rename that container, or take another name",
                )
            container = make(secrets.token_hex(32), name or names.choose(taken))
            try:
                self._write(container)
            except BaseException:
                with contextlib.suppress(OSError):  # else by who makes the next one
                    self._remove(self.place(container.id).directory)
                raise
        return container

    def _write(self, container: Container) -> None:
        place = self.place(container.id)
        os.mkdir(place.directory, 0o700)
        for path in (place.upper, place.work, place.root):
            os.mkdir(path)
            os.chmod(path, 0o755)  # the upper's is that of the container's root, whatever the umask
        if container.auto_remove:
            # Nobody wants it after a crash.
            with open(place.record, "xb") as file:
                file.write(container.to_json())
        else:
            replace_file(place.record, container.to_json(), 0o600)
            fsync_path(self.directory)

    def remove(self, container: Container) -> None:
        """Remove a container that does not run, nor is mounted. Hold its lock. Idempotent."""
        place = self.place(container.id)
        for path in (place.record, place.state):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        dying = os.path.join(self.directory, _DYING + os.fsencode(container.id))
        with contextlib.suppress(FileNotFoundError):
            os.rename(place.directory, dying)
        while os.path.lexists(dying):
            with contextlib.suppress(FileNotFoundError):  # of who sweeps at this moment
                self._remove(dying)

    @contextlib.contextmanager
    def locked(self, container: Container, *, seconds: float = 0) -> Iterator[int]:
        """Hold its lock, a descriptor; BlockingIOError where somebody has it for longer than `seconds`."""
        fd = self.lock(container, seconds=seconds)
        try:
            yield fd
        finally:
            os.close(fd)

    def lock(self, container: Container, *, seconds: float = 0) -> int:
        """The same, to be closed by the caller, and all that it is handed on to."""
        place = self.place(container.id)
        try:
            fd = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise no_such(container.name) from None
        try:
            _wait_for(fd, seconds)
            if not os.path.exists(place.record):
                raise no_such(container.name)  # removed while we waited
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(os.path.join(self.directory, b".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock_exclusive(fd, blocking=True)
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove what a crash left of containers that were being made or removed. Hold the lock of all."""
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if name == b".lock" or os.path.exists(Place(path).record):
                continue
            with contextlib.suppress(OSError):
                if _is_free(Place(path).lock):
                    self._remove(path)


def _wait_for(fd: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return flock_exclusive(fd)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _is_free(lock: bytes) -> bool:
    """Nobody removes the directory with this lock at this moment."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.ENOENT
    try:
        flock_exclusive(fd)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def no_such(name: str) -> ContainerError:
    return ContainerError(f"No such container: {name}", hint="unionfs ps -a lists those there are")
