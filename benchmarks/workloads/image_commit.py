"""How long does it take to commit an image? An upper of 20,000 files and 1 GiB on a small base, beside `tar -cf - |
sha256sum`.

Nothing is mounted. Ours writes the layer into the image store, syncs it, and hashes it on the way; the measure only
hashes.
"""

from __future__ import annotations

import json
import re

from benchmarks.arena import Arena, expect
from benchmarks.peers import TAR
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload
from benchmarks.workloads.image_load import Store


def run(arena: Arena) -> dict[str, Step]:
    upper = arena.trees.images()
    if arena.peer.name == TAR.name:
        arena.backing.cool()
        script = 'tar -cf - -C "$0" . | sha256sum'
        step = arena.runner.run(["sh", "-c", script, str(upper.path)])
        expect("a digest", re.fullmatch(rb"[0-9a-f]{64}  -\n", step.stdout) is not None, True)
        return {"image-commit": step}
    with Store(arena.scratch / "images", arena.runner, arena.peer.environment) as store:
        archive, _ = arena.trees.archive()
        store("image", "import", str(archive), "base:1")
        arena.backing.cool()
        step = store("commit", "-l", "base:1", "-u", str(upper.path), "made:1")
        shown = json.loads(store("image", "inspect", "made:1").stdout)[0]
        expect("the image's ID", step.stdout.strip().decode(), shown["Id"])
        expect("layers", len(shown["RootFS"]["Layers"]), 2)
        layer = store.blob(shown["RootFS"]["Layers"][1])
        members = arena.runner.run(["tar", "-tf", str(layer)]).stdout.splitlines()
        expect("members of the layer", sum(not name.endswith(b"/") for name in members), upper.files)
    return {"image-commit": step}


WORKLOAD = Workload(
    "image_commit",
    "How long does committing an image take?",
    (Metric("image-commit", "commit an image, 20k files, 1 GiB", targets=(Target(TAR.name, 2.0, 2.0),)),),
    run,
    only=frozenset({TAR.name, "ours-devfuse"}),
)
