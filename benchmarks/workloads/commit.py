"""How long does a commit take? An upper of 20,000 files and 1 GiB as a layer tar, beside `tar -cf - | sha256sum`.

Nothing is mounted: commit reads the upper. Ours writes the tar to a file as well as hashing it; the
measure only hashes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from benchmarks.arena import Arena, expect
from benchmarks.peers import TAR, command_line
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    upper = arena.trees.images()
    arena.backing.cool()
    if arena.peer.name == TAR.name:
        script = 'tar -cf - -C "$0" . | sha256sum'
        step = arena.runner.run(["sh", "-c", script, str(upper.path)])
        expect("a digest", re.fullmatch(rb"[0-9a-f]{64}  -\n", step.stdout) is not None, True)
        return {"commit": step}
    lower, output = arena.trees.big().path, arena.scratch / "layer.tar"
    runner = replace(arena.runner, environment={**arena.runner.environment, **arena.peer.environment})
    argv = [*(command_line() or ()), "commit", "-l", str(lower), "-u", str(upper.path), "-o", str(output)]
    try:
        step = runner.run(argv, words_expected=True)
        expect("members of the tar", _members(runner.run(["tar", "-tf", str(output)]).stdout), upper.files)
        expect("the diff_id", step.stdout.strip(), f"sha256:{_sha256(output)}".encode())
    finally:
        output.unlink(missing_ok=True)
    return {"commit": step}


def _members(listing: bytes) -> int:
    return sum(not line.endswith(b"/") for line in listing.splitlines())


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


WORKLOAD = Workload(
    "commit",
    "How long does committing an upper take?",
    (Metric("commit", "commit 20k files, 1 GiB", targets=(Target(TAR.name, 1.5, 1.5),)),),
    run,
    only=frozenset({TAR.name, "ours-devfuse"}),
)
