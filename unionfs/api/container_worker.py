"""A process that is forked before it is known what for, and then is the monitor of a container.

Most of the time that `unionfs run` takes goes by importing: what reads a command line, and what mounts and runs. Here
that is done at once, by two processes. `begin` forks the worker, first of all; while it imports the one half, its
parent imports the other and reads the command line. What is to be run then goes to the worker:

    RUN → CREATED (or FAILED) → START → what a monitor tells (frames)

INVARIANT: no container stays without somebody who knows of it. A parent that goes away before START takes the container
with it; one that goes away before RUN, the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from unionfs.containers import frames
from unionfs.errors import ContainerError, UnionFSError

if TYPE_CHECKING:
    from unionfs.containers.container import Container
    from unionfs.containers.store import Containers

#: What a worker needs for a container's root, and would import when it mounts that.
_NEEDED_LATER: Final = ("unionfs.api.tar_layers", "unionfs.image.merged", "unionfs.transport.devfuse")

_waiting: Worker | None = None


def begin() -> None:
    """Fork this process's worker, which waits for `taken().create`. To be called before there are threads. OSError
    where no process can be had."""
    global _waiting
    ours, theirs = socket.socketpair()
    with theirs:
        if os.fork() == 0:
            ours.close()
            _serve(theirs)
    _waiting = Worker(ours)


def taken() -> Worker | None:
    """The worker, if there is one that has nothing to do yet. It is the caller's then."""
    global _waiting
    worker, _waiting = _waiting, None
    return worker


class Worker:
    """The near end. A worker runs one container."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def create(self, asked: Mapping[str, Any]) -> str | None:
        """Have it make a container; its ID. None, and the worker is gone, where it cannot be told so much.

        `asked`: "settings" (arguments of `container_settings`), "store", "image", "name", "auto_remove", "platform".
        Raises what `container_settings` and `create_container` do.
        """
        told = json.dumps(asked).encode()
        if len(told) > frames.LIMIT:
            self._connection.close()
            return None
        try:
            self._connection.sendall(frames.frame(frames.RUN, told))
            from unionfs.mounts.control import error_from_json  # while it works

            answer = frames.receive(self._connection)
        except ConnectionError:
            answer = None
        if answer is None:
            raise ContainerError("the process that was to run the container has ended")
        kind, content = answer
        if kind == frames.FAILED:
            raise error_from_json(json.loads(content))
        return content.decode()

    def start(self) -> socket.socket:
        """Have it start that container; the connection to its monitor. Errors come by that."""
        try:
            self._connection.sendall(frames.frame(frames.START))
        except ConnectionError:
            pass  # read from, it says so
        return self._connection


# the far end ----------------------------------------------------------------------------------------------------------
def _serve(connection: socket.socket) -> NoReturn:
    try:
        os.setsid()  # keys are for the parent
        _import()
        request = frames.receive(connection)
        if request is not None:
            _run(connection, json.loads(request[1]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _import() -> None:
    import importlib

    for name in ("unionfs.api.containers", "unionfs.api.container_settings", *_NEEDED_LATER):
        importlib.import_module(name)


def _run(connection: socket.socket, asked: Mapping[str, Any]) -> None:
    from unionfs.api import containers as running

    try:
        containers, container = created(asked)
    except (UnionFSError, OSError) as error:
        _tell_failure(connection, error)
        return
    if not _wanted(connection, container.id):
        running.remove_container(containers, container.id)
        return
    try:
        running.start_container(containers, container, connection, here=True)
    except (UnionFSError, OSError) as error:
        discard(containers, container)
        _tell_failure(connection, error)


def created(asked: Mapping[str, Any]) -> tuple[Containers, Container]:
    """A container as `asked` (see Worker.create), and the containers it is of."""
    from unionfs.api.container_settings import container_settings
    from unionfs.api.containers import container_store, create_container

    settings = container_settings(**asked["settings"])
    containers = container_store(asked["store"])
    container = create_container(
        containers,
        asked["image"],
        settings,
        name=asked["name"],
        auto_remove=asked["auto_remove"],
        platform=asked["platform"],
    )
    return containers, container


def discard(containers: Containers, container: Container) -> None:
    """Have a container that no monitor was there to start gone, if it is to be gone with its end (--rm)."""
    from unionfs.api.containers import find_container, remove_container

    with contextlib.suppress(UnionFSError, OSError):
        if container.auto_remove and find_container(containers, container.id).state.monitor is None:
            remove_container(containers, container.id)


def _wanted(connection: socket.socket, id: str) -> bool:
    try:
        connection.sendall(frames.frame(frames.CREATED, id.encode()))
        return frames.receive(connection) is not None
    except ConnectionError:
        return False


def _tell_failure(connection: socket.socket, error: UnionFSError | OSError) -> None:
    from unionfs.mounts.control import error_to_json

    try:
        connection.sendall(frames.frame(frames.FAILED, json.dumps(error_to_json(error)).encode()))
    except ConnectionError:
        pass  # nobody wants to know
