"""Containers of a test's own, run by the command line as people do: a store with one image, `box`, a busybox root.

At the end of each test all of its containers are removed by force, and nothing of them may be left: no mount, no
process, no directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.image_rig import Images
from tests.compat.real_mount import pack
from tests.unit.cli_runner import Ran, process_of
from unionfs import api
from unionfs.mounts.registry import start_time

#: What carries this process's streams, or forks: a process of its own.
_OWN_PROCESS = ("run", "exec", "start", "mount", "commit")
APPLETS = (
    "sh cat echo true false sleep env id ls kill stty tty touch test pwd mkdir rm chown chmod wc yes head httpd wget"
)


class Box(Images):
    """`Images` whose store has the image `box`, and containers of it."""

    def fill(self) -> None:
        root = self.directory / "root"
        for name in ("bin", "dev", "etc", "tmp", "proc", "sys", "srv"):
            (root / name).mkdir(parents=True)
        program = shutil.which("busybox")
        assert program is not None
        shutil.copy(program, root / "bin/busybox")
        for applet in APPLETS.split():
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ndaemon:x:7:8::/srv:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\ndaemon:x:8:\nextra:x:9:daemon\n")
        (root / "etc/motd").write_text("of the image\n")
        root.chmod(0o711)
        pack(root, self.directory / "box.tar")
        if self.user is not None:
            os.chown(self.directory / "box.tar", self.user, self.user)
        changes = ("-c", 'CMD ["echo","said by the image"]', "-c", "ENV FROM=image", "-c", "LABEL kind=box")
        self.run("image", "import", *changes, self.directory / "box.tar", "box")

    def call(self, *argv: str | Path, stdin: bytes | None = None) -> Ran:
        if self.user is not None or argv[0] in _OWN_PROCESS or "-f" in argv[:2]:
            done = subprocess.run(
                [*self.command(), *argv],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=60,
                env=self.environment,
                cwd=self.directory,
            )
            return Ran(done.returncode, done.stdout, done.stderr)
        return super().call(*argv, stdin=stdin)

    def command(self) -> list[str]:
        if self.user is None:
            return process_of()
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *process_of()]

    @contextlib.contextmanager
    def process(self, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """`unionfs ARGV`, going on beside the test; killed at the end if it still does."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*self.command(), *argv]
        process = subprocess.Popen(command, text=False, env=self.environment, cwd=self.directory, **given)
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def until_said(self, name: str, text: str) -> None:
        """Wait until the log of a container that runs has `text`."""
        deadline = time.monotonic() + 30
        while text.encode() not in (ran := self.call("logs", name)).out:
            assert time.monotonic() < deadline, f"{name} never said {text!r}: {ran}"

    def until_none_is_left(self) -> None:
        """Wait until the last container has gone by itself."""
        deadline = time.monotonic() + 30
        while left := self.directories():
            assert time.monotonic() < deadline, f"still there: {left}"

    def detached(self, name: str, script: str, *options: str) -> str:
        """The ID of a container that runs a shell script, and says "ready" first."""
        id = self.run(
            "run", "-d", "--network", "none", "--name", name, *options, "box", "sh", "-c", f"echo ready;{script}"
        )
        self.until_said(name, "ready")
        return id

    def created(self, name: str, *command: str, image: str = "box", volumes: tuple[str, ...] = ()) -> None:
        """A container that was never started."""
        settings = api.container_settings(command, network="none", volumes=volumes)
        api.create_container(api.container_store(self.store), image, settings, name=name)

    # what is there ------------------------------------------------------------------------------------------------
    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.run("inspect", name))
        return found[0]

    def status(self, name: str) -> str:
        return self.run("ps", "-a", "--format", "{{.State}}", "--filter", f"name={name}")

    def written_state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.state_file(name).read_text())
        return state

    def state_file(self, name: str) -> Path:
        id: str = self.inspect(name)["Id"]
        return self.store / "containers" / id / "state.json"

    def monitor(self, name: str) -> int:
        return int(self.written_state(name)["monitor"][0])

    def daemon(self, name: str) -> int:
        """The process that serves the root of a container."""
        merged = self.inspect(name)["GraphDriver"]["Data"]["MergedDir"]
        records = [json.loads(path.read_text()) for path in self.run_directory.glob("*.json")]
        return next(int(record["pid"]) for record in records if record["mountpoint"] == merged)

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        with self.ending(pid):
            os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def ending(self, pid: int) -> Iterator[None]:
        """The block has that process end, which is waited for. A monitor ends when all has been put away."""
        fd = os.pidfd_open(pid)
        try:
            yield
            assert select.select([fd], [], [], 30)[0]
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Remove all containers, and see that nothing of them is left."""
        ids = self.run("ps", "-aq", "--no-trunc").split()
        pids = [int(self.inspect(id)["State"]["Pid"]) for id in ids]
        if ids:
            removed = self.call("rm", "-f", *ids)
            assert removed.status == 0, removed
        self.nothing_left()
        assert [pid for pid in pids if pid and start_time(pid)] == []

    def directories(self) -> list[str]:
        """Of containers that are there, or just being made or removed."""
        place = self.store / "containers"
        return [name for name in (os.listdir(place) if place.exists() else ()) if name != ".lock"]

    def nothing_left(self) -> None:
        assert self.directories() == []
        assert str(self.store / "containers") not in Path("/proc/self/mountinfo").read_text()
        assert list(self.run_directory.glob("*.json")) == []


class Typist:
    """A command with a terminal of its own, and who sits there."""

    def __init__(self, box: Box, *argv: str, rows: int = 30, columns: int = 90) -> None:
        self.master, slave = pty.openpty()
        import termios

        termios.tcsetwinsize(self.master, (rows, columns))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *box.command(), *argv],
            stdin=slave, stdout=slave, stderr=slave, env=box.environment, cwd=box.directory,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def types(self, text: str) -> None:
        os.write(self.master, text.encode())

    def sees(self, text: str) -> None:
        """Wait until the screen has it, behind what was waited for before."""
        wanted = text.encode()
        while wanted not in self.seen:
            ready, _, _ = select.select([self.master], [], [], 30)
            assert ready, f"{text!r} did not come: {self.seen!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            assert data, f"{text!r} did not come: {self.seen!r}"
            self.seen += data
        self.seen = self.seen.partition(wanted)[2]

    def resize(self, rows: int, columns: int) -> None:
        import termios

        termios.tcsetwinsize(self.master, (rows, columns))

    def end(self) -> int:
        """The exit status, once it has ended by itself."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            self.seen += data
        return self.process.wait(timeout=30)

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Box:
    box = Box(tmp_path_factory.mktemp("box"))
    box.fill()
    return box


@pytest.fixture
def box(filled: Box) -> Iterator[Box]:
    """One for all tests of a module, in which each finds no containers, and leaves none."""
    yield filled
    filled.clear()
