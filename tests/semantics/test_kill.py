"""The server is killed (SIGKILL) two hundred times while clients change the tree: nothing is lost, nothing half done.

After each kill the dead mount is cleared and the same upper is mounted again, now and then by the kernel's overlayfs
first. Each client then finds its files as they were before the call that failed, or as that call was to make them; the
work directory is empty, the engine's INVARIANTs hold, the kernel shows the same tree. Before the upper becomes a layer,
`unionfs check` has nothing to say.

KILL_SEED=17 pytest …      the choices of a run that failed (each prints its seed); the interleaving is chance's
KILLS=20                   in each of the two tests, in place of 100
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import select
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rigs
from tests.conftest import SLOW_TEST_TIMEOUT
from tests.golden.trees import describe
from tests.requirements import requires
from tests.rigs import PROJECT, RIGS, Backing, Mounted, Server, Watchdog, python_path
from tests.semantics.unions import same_text
from unionfs import api

KILLS = int(os.environ.get("KILLS", "100"))
CLIENTS = 2
#: After so many the upper becomes a layer, so that there is something to copy up.
ROTATION = 10
PATIENCE = 20.0


class Client:
    """A process of kill_client.py."""

    def __init__(self, root: Path, seed: int, tokens: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.semantics.kill_client", str(root), str(seed), str(tokens)],
            cwd=PROJECT, env={**os.environ, "PYTHONPATH": python_path()}, pass_fds=[tokens],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], "the client hangs"
        line = self.process.stdout.readline()
        assert line, "the client has ended"
        return dict(json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Victim:
    """The mount. `layers` are topmost first."""

    def __init__(self, directory: Path, options: tuple[str, ...], watchdog: Watchdog) -> None:
        self._options = options
        self._watchdog = watchdog
        self.mnt = directory / "mnt"
        self.mnt.mkdir()
        self.directory = directory
        self.layers = [directory / "layer0"]
        self._new_upper()

    def _new_upper(self) -> None:
        self.private = self.directory / f"generation{len(self.layers)}"
        for name in ("upper", "work"):
            (self.private / name).mkdir(parents=True)

    def rotate(self) -> None:
        self.layers.insert(0, self.private / "upper")
        self._new_upper()

    def _mounted(self, rig: str) -> Mounted:
        return Mounted(RIGS[rig], self.mnt, self.private, tuple(self.layers), self.private / "upper")

    def kernels_view(self) -> list[str]:
        with rigs._kernel(self._mounted("kernel")):
            return describe(self.mnt)

    @contextlib.contextmanager
    def living(self) -> Iterator[Server]:
        """The mount, until its server is killed, at the latest now; the dead mount is cleared."""
        mounted = self._mounted("union-devfuse")
        argv = [sys.executable, "-m", "unionfs.testing.serve", *rigs._server_arguments(mounted), *self._options]
        log = self.directory / "server.log"
        with open(log, "wb") as stderr:
            process = subprocess.Popen(
                [*argv, str(self.mnt)], cwd=PROJECT, env={**os.environ, "PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        try:
            rigs._await_ready(process, log)
            mounted.server = Server(process, log, rigs.connection_of(self.mnt))
            with self._watchdog.guard(mounted, SLOW_TEST_TIMEOUT):
                yield mounted.server
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            if rigs.mount_line(self.mnt) is not None:
                rigs.run("umount", "-l", str(self.mnt))


def fill(layer: Path) -> None:
    """What each client finds at first, in its own directory."""
    for me in range(CLIENTS):
        root = layer / f"client{me}"
        for directory in ("a/b", "c/d"):
            (root / directory).mkdir(parents=True)
        for path in ("a/a", "a/c", "a/b/a", "b", "c/a", "c/d/e"):
            (root / path).write_bytes(b"the first version".ljust(64, b".") * 10)
        (root / "d").write_bytes(b"large".ljust(64, b".") * 5000)
        os.link(root / "b", root / "c/b")
        os.link(root / "b", root / "e")
        (root / "f").symlink_to("a")


def wait_for(tokens: int, count: int) -> None:
    """Until clients have begun so many system calls."""
    while count > 0:
        assert select.select([tokens], [], [], PATIENCE)[0], "the clients hang"
        count -= len(os.read(tokens, min(count, 4096)))


def drain(tokens: int) -> None:
    while select.select([tokens], [], [], 0)[0]:
        os.read(tokens, 65536)


@contextlib.contextmanager
def checked(victim: Victim, clients: list[Client], command: str, kernel: bool = True) -> Iterator[tuple[Server, int]]:
    """Mount, and have what the last kill has left checked (or adopted). The server, and how many clients found done
    what they had been doing."""
    kernels = victim.kernels_view() if kernel else None
    with victim.living() as server:
        assert os.listdir(victim.private / "work/work") == []
        here = describe(victim.mnt)
        if kernels is not None:
            same_text(kernels, here, "the kernel's overlayfs", "ours")
        for client in clients:
            client.say(command)
        said = [client.answer() for client in clients]
        assert [one.get("wrong") for one in said] == [None] * len(clients), said
        server.statistics()  # and INVARIANTs
        yield server, sum(bool(one.get("done")) for one in said)


def faults(victim: Victim) -> set[str]:
    """What `unionfs check` says."""
    found = api.check(victim.private / "upper", layers=victim.layers, work=victim.private / "work").findings
    return {f"{one.rule} {one.path!r}" for one in found if one.rule != "whiteout-of-nothing"}


def one_life(victim: Victim, clients: list[Client], tokens: int, calls: int, command: str) -> Counter[str]:
    """Mount, check, work, be killed. What each client was doing then."""
    with checked(victim, clients, command, kernel=bool(calls % 2)) as (server, done):
        deaths: Counter[str] = Counter(done=done)
        drain(tokens)
        for client in clients:
            client.say("work")
        wait_for(tokens, calls)
        server.process.kill()
        server.process.wait()
        for client in clients:
            answer = client.answer()
            assert answer["error"] in ("ENOTCONN", "ECONNABORTED"), answer
            deaths[str(answer["last"])] += 1
        with pytest.raises(OSError) as dead:
            os.statvfs(victim.mnt)  # which asks the server
        assert dead.value.errno == errno.ENOTCONN
    return deaths


@pytest.mark.slow
@requires("root", "fuse", "overlayfs")
@pytest.mark.parametrize("options", [(), ("--passthrough", "off")], ids=["passthrough", "cached"])
def test_killed_a_hundred_times(backing: Backing, watchdog: Watchdog, options: tuple[str, ...]) -> None:
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"KILL_SEED={seed}")
    chance = random.Random(seed)
    directory = backing.directory("kill")
    fill(directory / "layer0")
    victim = Victim(directory, options, watchdog)
    below = describe(victim.layers[-1])
    reader, writer = os.pipe()
    clients: list[Client] = []
    deaths: Counter[str] = Counter()
    try:
        clients += [Client(victim.mnt / f"client{me}", seed * 100 + me, writer) for me in range(CLIENTS)]
        for life in range(KILLS):
            command = "adopt" if life % ROTATION == 0 else "check"
            if life and command == "adopt":
                with checked(victim, clients, "check"):
                    pass
                assert faults(victim) == set()
                victim.rotate()
            deaths += one_life(victim, clients, reader, chance.randrange(1, 120), command)
        with checked(victim, clients, "check"):
            pass
        assert faults(victim) == set()
    finally:
        for client in clients:
            client.close()
        os.close(reader)
        os.close(writer)
    print(dict(deaths))
    assert describe(victim.layers[-1]) == below, "a lower layer was changed"
    assert KILLS < 100 or len(deaths) > 8, "few kinds of operations were cut off"
    shutil.rmtree(directory)
