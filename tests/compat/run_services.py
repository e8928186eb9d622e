"""Images of this machine's own programs, and what their servers answer: for tests of containers that serve."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.compat.real_mount import pack
from tests.compat.run_rig import Box

PATIENCE = 30.0


def program_image(box: Box, name: str, *programs: str, changes: Sequence[str] = (), more: Sequence[str] = ()) -> None:
    """An image of programs, their libraries, and whatever else (`more`), at their places."""
    root = box.directory / f"{name}-root"
    paths = {shutil.which(program) or program for program in programs}
    for path in list(paths):
        told = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, timeout=20).stdout
        paths |= set(re.findall(r"(/\S+) \(0x", told))
    for path in (*sorted(paths), *more):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    pack(root, box.directory / f"{name}.tar")
    shutil.rmtree(root)
    box.run(
        "image", "import", *(word for change in changes for word in ("-c", change)), box.directory / f"{name}.tar", name
    )


def port(box: Box, container: str, inside: str = "80/tcp") -> int:
    """Where on loopback a port of a container is published."""
    return int(box.inspect(container)["NetworkSettings"]["Ports"][inside][0]["HostPort"])


def free_range(count: int) -> int:
    """The first of so many ports of loopback that nobody has, none of which the kernel gives to who asks for any."""
    first = 20000 + os.getpid() % 5000
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for number in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", number)))
            return first
        first += count


def fetched(number: int, path: str = "/") -> str:
    """A page of a web server on loopback. Waits until there is one: a container that runs need not listen yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", number), timeout=PATIENCE) as connection:
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            if answer:
                return answer.decode().partition("\r\n\r\n")[2]
        except OSError:
            pass
        assert time.monotonic() < deadline, f"nobody answers on port {number}"


def page(directory: Path, text: str) -> Path:
    """A directory with one page."""
    directory.mkdir()
    (directory / "index.html").write_text(text)
    return directory
