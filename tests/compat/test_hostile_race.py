"""Whoever may write in a layer puts a symbolic link in the place of a directory, and back, while the mount is used.

A daemon that looked first and followed then would act as root where the link leads. Canary: tests/canary.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import Canary
from tests.compat.real_mount import RealStack, each_transport
from tests.rigs import PROJECT, python_path
from tests.unit.cli_runner import program
from tests.unit.test_hostile_layers import ODD_NAMES
from tests.unit.test_hostile_xattrs import NAMES, NEARLY

COUNT = 800
ROUNDS = 3
PAIRS: tuple[str, ...] = (
    "d:to_canary",
    "d/sub:d/to_canary",
    "file:to_canary_file",
    "d/file:d/to_canary_file",
    "up:to_fifo",
)
#: What an operation may come to where a layer changes behind it. EIO is fs/fuse's word for an object that is of another
#: type, when its attributes are read, than was made just now (create_new_entry()); our own bugs are in the log.
EXPECTED = {
    "ENOENT", "ENOTDIR", "ELOOP", "EEXIST", "EISDIR", "ENOTEMPTY", "ESTALE", "EINVAL", "ENXIO", "ENODATA", "EPERM",
    "ENOTSUP", "EBUSY", "EXDEV", "EAGAIN", "ENODEV", "EIO",
}  # fmt: skip


def _command(*argv: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.compat.hostile_client", *map(str, argv)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": python_path()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def swapping(root: Path, *pairs: str) -> Iterator[None]:
    process = _command("swap", root, *pairs)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
        rounds, _ = process.communicate("", timeout=20)
        assert process.returncode == 0 and int(rounds) > 10
    finally:
        process.kill()
        process.communicate()


def fill(layer: Path, canary: Canary) -> None:
    for directory in ("d/sub", "up/sub"):
        (layer / directory).mkdir(parents=True)
    for directory in ("", "d", "d/sub", "up", "up/sub"):
        for name in ("file", "other"):
            (layer / directory / name).write_text("of the layer\n")
    for directory in ("", "d"):
        os.symlink(canary.root / "dir", layer / directory / "to_canary")
        os.symlink(canary.root / "file", layer / directory / "to_canary_file")
    os.mkfifo(layer / "to_fifo")


@each_transport("devfuse", "fusepy", slow=("fusepy",))
@pytest.mark.parametrize("where", ["lower", "upper", "work"])
def test_links_swapped_for_directories_while_in_use(stack: RealStack, where: str) -> None:
    canary = Canary(stack.directory, "mnt", "layer*", "upper", "upper.work", "daemon.log")
    lower = stack.lower()
    fill(lower, canary)
    stack.upper.mkdir()
    work, pairs = stack.directory / "upper.work", PAIRS
    if where == "upper":
        fill(stack.upper, canary)
    swapped = {"lower": lower, "upper": stack.upper, "work": work}[where]
    with stack.mounted() as mnt:
        if where == "work":
            for name in ("work", "index"):
                os.symlink(canary.root / "dir", work / f"{name}-link")
            pairs = ("work:work-link", "index:index-link")
        refused: Counter[str] = Counter()
        done: Counter[str] = Counter()
        with swapping(swapped, *pairs):
            for seed in range(ROUNDS):
                client = _command("use", mnt, seed, COUNT)
                out, _ = client.communicate(timeout=60)
                assert client.returncode == 0
                said = json.loads(out)
                assert said["secrets"] == []
                refused.update(said["refused"])
                done.update(said["done"])
                canary.check()
                # What is known is forgotten, so that the next round resolves names anew.
                assert program("remount", mnt).status == 0
        assert not set(refused) - EXPECTED, refused
        assert len(done) > 8, done
        canary.check()


@each_transport("devfuse", "fusepy", slow=("fusepy",))
def test_hostile_layers_through_a_mount(stack: RealStack) -> None:
    """Everything that the engine's own tests put into layers, at once, in a lower, the upper and the work directory."""
    canary = Canary(stack.directory, "mnt", "layer*", "upper", "upper.work", "daemon.log", "layer.tar")
    layers = [stack.lower(), stack.lower(), stack.upper]
    stack.upper.mkdir()
    chance = random.Random(1)
    for layer in layers:
        fill(layer, canary)
        canary.bait(layer / "up")
        for name in ODD_NAMES:
            (layer / "d" / name).write_text("")
            os.symlink(canary.root / "dir", layer / "up" / name)
        (layer / ("n" * 255)).write_text("long")
        for path in sorted(layer.rglob("*")):
            for name in chance.sample(NAMES, 4):
                with contextlib.suppress(OSError):
                    os.setxattr(path, f"trusted.overlay.{name}", chance.choice(NEARLY), follow_symlinks=False)
    (stack.directory / "upper.work" / "work").mkdir(parents=True)
    canary.bait(stack.directory / "upper.work" / "work")
    with stack.mounted() as mnt:
        for seed in range(ROUNDS):
            client = _command("use", mnt, seed, COUNT)
            out, _ = client.communicate(timeout=60)
            said = json.loads(out)
            assert client.returncode == 0 and said["secrets"] == []
            assert not set(said["refused"]) - EXPECTED, said["refused"]
            canary.check()
            assert program("remount", mnt).status == 0
        # Refused by name, in all likelihood; or a layer.
        for ran in (program("diff", mnt), program("commit", mnt, "-o", stack.directory / "layer.tar")):
            said = [line.partition(": ")[0] for line in ran.errors]
            assert ran.status in (0, 1) and said.count("error") == ran.status, ran
            assert set(said) <= {"error", "hint", "warning"}, ran  # a name that holds a newline begins no line
        canary.check()
