"""A running container's monitor, asked by another process."""

from __future__ import annotations

import json
import os
import select
import socket

from unionfs.containers import frames
from unionfs.containers.container import Place, Process
from unionfs.mounts.control import error_from_json

_READ = 1 << 16


def connect(place: Place, want: str | None = None) -> socket.socket | None:
    """A connection; None where nobody listens: the container has ended, or begins just now."""
    try:
        directory = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By way of a descriptor, since the name of a socket has 107 bytes at most (unix(7)).
        connection.connect(b"/proc/self/fd/%d/attach.sock" % directory)
        if want is not None:
            connection.sendall(frames.frame(frames.HELLO, json.dumps({"want": want}).encode()))
    except OSError:
        connection.close()
        return None
    finally:
        os.close(directory)
    return connection


def signalled(place: Place, number: int) -> bool:
    """Have it send a signal to its init; False where nobody answers. OSError as kill(2) has it."""
    connection = connect(place)
    if connection is None:
        return False
    with connection:
        try:
            connection.sendall(frames.frame(frames.SIGNAL, b"%d" % number))
        except OSError:
            return False
        for kind, content in _frames(connection):
            if kind == frames.DONE:
                return True
            if kind == frames.FAILED:
                raise error_from_json(json.loads(content))
    return True  # it has ended before it answered


def exit_status(place: Place) -> int | None:
    """Wait for the container's end, and everything put away; None where nobody tells."""
    connection = connect(place, "wait")
    if connection is None:
        return None
    with connection:
        for kind, content in _frames(connection):
            if kind == frames.EXIT:
                return int(json.loads(content)["status"])
    return None


def _frames(connection: socket.socket) -> frames.Stream:
    stream = frames.Frames()
    while True:
        try:
            data = connection.recv(_READ)
        except OSError:
            return
        if not data:
            return
        yield from stream.feed(data)


def gone(process: Process, seconds: float | None) -> bool:
    """Wait for the end of a process, for so many seconds (None: for ever)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.alive:  # another has the number
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))
    finally:
        os.close(fd)
