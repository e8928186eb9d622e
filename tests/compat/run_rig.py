"""A machine of a test's own to run containers on: a store, a cache, and the commands as processes.

with Machine(tmp_path) as machine:
    machine.busybox("busybox")                       an image; machine.programs("redis", "redis-server") another
    machine.run("run", "-d", …)                      stdout, or AssertionError with what was said
    machine.port("web", "80/tcp")                    where it is published
    machine.terminal("exec", "-it", …, typed=[…])    what a terminal shows

At the end no container is left, nothing is mounted, and nobody runs who has to do with it, whatever happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.unit.cli_runner import PROJECT

PATIENCE = 30.0
_START = "import sys; from cli.main import main; sys.exit(main())"


class Machine:
    """`as_user`: what a command line begins with to be another user's; `directory` is his then."""

    def __init__(self, directory: Path, as_user: Sequence[str] = ()) -> None:
        self.directory = directory
        self._as_user = list(as_user)
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "UNIONFS_STORE": str(directory / "store"),
            "UNIONFS_CACHE": str(directory / "cache"),
            "XDG_RUNTIME_DIR": str(directory / "runtime"),
        }
        (directory / "runtime").mkdir(mode=0o700, exist_ok=True)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            ids = self.call("ps", "-aq", "--no-trunc").stdout.split()
            if ids:
                self.call("rm", "-f", *ids)
        finally:
            left = [row.split()[4] for row in Path("/proc/self/mountinfo").read_text().splitlines()]
            left = [path for path in left if path.startswith(f"{self.directory}/")]
            for path in reversed(left):
                subprocess.run(["umount", "-l", path], check=False, timeout=20)
            running = self._processes()
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert (left, running) == ([], []), "containers leave mounts or processes"

    def _processes(self) -> list[int]:
        """Those with the directory in their command line or environment, but for this one."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if os.fsencode(f"{self.directory}/") in told:
                        found.append(int(entry.name))
        return found

    # commands -------------------------------------------------------------------------------------------------------
    def argv(self, *argv: str | Path) -> list[str]:
        return [*self._as_user, sys.executable, "-c", _START, *map(str, argv)]

    def call(self, *argv: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*argv), env=self.env, input=stdin, capture_output=True, text=True, timeout=60, cwd=self.directory,
            errors="surrogateescape",
        )  # fmt: skip

    def run(self, *argv: str | Path, status: int = 0, stdin: str | None = None) -> str:
        done = self.call(*argv, stdin=stdin)
        assert done.returncode == status, f"unionfs {' '.join(map(str, argv))}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def terminal(self, *argv: str | Path, typed: Sequence[tuple[str, str]]) -> str:
        """Run a command on a terminal; all it showed. `typed`: what is waited for (a pattern), and then typed."""
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            words = self.argv(*argv)
            os.execvpe(words[0], words, self.env)
        shown = ""
        try:
            seen = 0
            for pattern, line in typed:
                while (found := re.compile(pattern).search(shown, seen)) is None:
                    assert select.select([master], [], [], PATIENCE)[0], f"no {pattern!r} in {shown!r}"
                    try:
                        shown += os.read(master, 4096).decode()
                    except OSError as error:  # EIO: the end
                        raise AssertionError(f"it ended without {pattern!r}: {shown!r}") from error
                seen = found.end()
                os.write(master, line.encode())
            with contextlib.suppress(OSError):  # EIO: the end
                while select.select([master], [], [], PATIENCE)[0] and (piece := os.read(master, 4096)):
                    shown += piece.decode()
        finally:
            os.close(master)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return shown

    def until(self, *argv: str, shows: str) -> str:
        """The output of a command once it shows something; it is asked again and again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.call(*argv)
            if shows in done.stdout + done.stderr:
                return done.stdout + done.stderr
            assert time.monotonic() < deadline, f"{argv} shows no {shows!r}: {done}"

    def port(self, container: str, port: str) -> int:
        told = json.loads(self.run("inspect", "--format", "{{json .NetworkSettings.Ports}}", container))
        return int(told[port][0]["HostPort"])

    # images ---------------------------------------------------------------------------------------------------------
    def busybox(self, name: str, *changes: str) -> None:
        root = self.directory / "busybox-root"
        (root / "bin").mkdir(parents=True)
        (root / "etc").mkdir()
        program = shutil.which("busybox")
        assert program is not None
        shutil.copy(program, root / "bin/busybox")
        for applet in (
            "sh",
            "ls",
            "cat",
            "ps",
            "id",
            "echo",
            "true",
            "false",
            "env",
            "sleep",
            "httpd",
            "wget",
            "hostname",
        ):
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
        self.image(root, name, *changes)

    def programs(self, name: str, *programs: str, changes: Sequence[str] = (), more: Sequence[str] = ()) -> None:
        """An image of the machine's own programs, their libraries, and whatever else (`more`), at their places."""
        root = self.directory / f"{name}-root"
        paths = {shutil.which(program) or "" for program in programs}
        for path in list(paths):
            told = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, timeout=20).stdout
            paths |= set(re.findall(r"(/\S+) \(0x", told))
        for path in (*sorted(paths), *more):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.isdir(path):
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)
        self.image(root, name, *changes)

    def image(self, root: Path, name: str, *changes: str) -> None:
        with tarfile.open(tar := self.directory / "import.tar", "w") as archive:
            archive.add(root, ".")
        self.run("image", "import", *(word for change in changes for word in ("-c", change)), tar, name)
        tar.unlink()


def fetched(port: int, path: str = "/") -> str:
    """A page of a web server on loopback. Waits until there is one, since a container that runs need not listen yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            if answer:
                return answer.decode().partition("\r\n\r\n")[2]
        except OSError:
            pass
        assert time.monotonic() < deadline, f"nobody answers on port {port}"
