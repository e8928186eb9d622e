"""Eight processes do everything at once in the same few directories; afterwards everything agrees.

STRESS_SEED=17 pytest …      the choices of a run that failed (each prints its seed); the interleaving is chance's
STRESS_OPERATIONS=500        of each client, in place of a minute's worth
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.rigs import PROJECT, python_path
from tests.semantics.stress_client import DIRECTORIES, EXPECTED
from tests.semantics.unions import Union, same_text

pytestmark = [pytest.mark.needs("union", "rename_flags", "tmpfile"), pytest.mark.needs_root]

CLIENTS = 8
ROUNDS = 10
OPERATIONS = int(os.environ.get("STRESS_OPERATIONS", "12000")) // ROUNDS


def layers(union: Union) -> None:
    """Files small and large, hard links, directories to be merged, a whiteout between the layers."""
    base = union.lower()
    for directory in DIRECTORIES[:3]:
        (base / directory).mkdir(parents=True)
        (base / directory / "a").write_bytes(b"old" * 10)
        (base / directory / "b").write_bytes(b"large" * 400_000)
        os.link(base / directory / "b", base / directory / "c")
        (base / directory / "d").mkdir()
        (base / directory / "d" / "a").write_bytes(b"inner")
        (base / directory / "e").symlink_to("a")
    above = union.lower()
    (above / "merged" / "d").mkdir(parents=True)
    (above / "merged" / "d" / "b").write_bytes(b"above")
    (above / "merged" / "f").write_bytes(b"above" * 50_000)
    os.mknod(above / "merged" / "a", 0o020000, 0)


def together(mnt: Path, seed: int) -> Counter[str]:
    """What succeeded, by operation. AssertionError for what must not happen to any client."""
    argv = [sys.executable, "-m", "tests.semantics.stress_client", str(mnt), str(seed)]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    clients: list[subprocess.Popen[bytes]] = []
    try:
        for me in range(CLIENTS):
            command = [*argv, str(me), str(OPERATIONS)]
            clients.append(subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE))
        said = [json.loads(client.communicate(timeout=280)[0]) for client in clients]
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.wait()
    assert [one["wrong"] for one in said] == [[]] * CLIENTS
    assert [one["unexpected"][:10] for one in said] == [[]] * CLIENTS
    return sum((Counter(one["done"]) for one in said), Counter())


def check(union: Union, live: list[str]) -> None:
    """The tree as it was seen through the mount is what a fresh mount shows, and what the kernel's overlayfs shows."""
    ours = union.rig.name != "kernel"
    if ours:
        # One handle serves all who list a directory, as long as the kernel knows it.
        directories = sum(line.startswith("dir ") for line in live)
        assert union.statistics()["handles"] <= directories, "files nobody has open are open"
    union.unmount()
    assert not ours or union.debris() == []
    same_text(live, describe(union.mount()), "the live mount", "a fresh one")
    union.unmount()
    with union.kernel() as kernel:
        same_text(live, describe(kernel), "the live mount", "the kernel's overlayfs")


@pytest.mark.slow
def test_eight_clients_in_the_same_directories(union: Union) -> None:
    """In rounds: after each, what was written becomes a lower layer, so that there is something to copy up."""
    seed = int(os.environ.get("STRESS_SEED", random.randrange(10**6)))
    print(f"STRESS_SEED={seed}")
    layers(union)
    done: Counter[str] = Counter()
    for i in range(ROUNDS):
        lowers = [describe(layer) for layer in union.layers]
        mnt = union.mount()
        (mnt / "new").mkdir(exist_ok=True)
        done += together(mnt, seed + i)
        check(union, describe(mnt))
        assert [describe(layer) for layer in union.layers] == lowers, "a lower layer was changed"
        union.rotate()
        union.unmount()
    print(dict(done))
    assert set(done) == set(EXPECTED), "an operation that never succeeded tests nothing"
