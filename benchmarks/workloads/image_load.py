"""How long does an image of 1 GiB take into the image store, and out of it? docker's archive with one layer of 20,000
files, plain and compressed, beside `skopeo copy` between the same forms.

Both sync what they write. Ours keeps layers as they come and makes them ready to be mounted (hashed, indexed, and if
they are compressed unpacked); skopeo 1.9 compresses what it writes into an OCI layout, and reads no compressed archive,
so that it has `gzip -d` before it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from benchmarks.arena import Arena, expect
from benchmarks.peers import SKOPEO, command_line
from benchmarks.processes import Runner, Step
from benchmarks.trees import Tree
from benchmarks.workloads import Metric, Target, Workload

NAME = "bench.example/big:1"


class Store:
    """Our command line with an image store and a layer cache below `directory`, which are gone at the end."""

    def __init__(self, directory: Path, runner: Runner, environment: Mapping[str, str]) -> None:
        self.directory = directory
        places = {"UNIONFS_STORE": str(directory / "store"), "UNIONFS_CACHE": str(directory / "cache")}
        self._runner = replace(runner, environment={**runner.environment, **environment, **places})

    def __enter__(self) -> Store:
        self.directory.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        shutil.rmtree(self.directory)

    def __call__(self, *argv: str) -> Step:
        return self._runner.run([*(command_line() or ()), *argv], words_expected=True)

    def blob(self, digest: str) -> Path:
        return self.directory / "store/blobs" / digest.replace(":", "/")


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.images()
    archive, id = docker_archive(tree, arena.scratch.parent)
    compressed = archive.with_suffix(".tar.gz")
    arena.backing.cool()
    if arena.peer.name == SKOPEO.name:
        return _skopeo(arena, archive, compressed, id)
    steps: dict[str, Step] = {}
    for metric, source in (("image-load-gzip", compressed), ("image-load", archive)):
        with Store(arena.scratch / "images", arena.runner, arena.peer.environment) as store:
            steps[metric] = store("image", "load", "-q", "-i", str(source))
            shown = json.loads(store("image", "inspect", NAME).stdout)[0]
            expect("the image's ID", shown["Id"], id)
            if metric == "image-load":
                arena.backing.cool()
                target = arena.scratch / "saved.tar"
                steps["image-save"] = store("image", "save", "-o", str(target), NAME)
                expect("the layer in the archive", _layer_of(target), shown["RootFS"]["Layers"][0])
                target.unlink()
    return steps


def _skopeo(arena: Arena, archive: Path, compressed: Path, id: str) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    place = arena.scratch / "skopeo"
    for metric, source in (("image-load-gzip", compressed), ("image-load", archive)):
        place.mkdir()
        layout = f"oci:{place}/layout:{NAME}"
        script = 'skopeo copy -q docker-archive:"$0" "$1"'
        if source == compressed:
            script = 'gzip -dc "$0" >"$2" && skopeo copy -q docker-archive:"$2" "$1"'
        steps[metric] = arena.runner.run(["sh", "-c", script, str(source), layout, str(place / "plain.tar")])
        told = json.loads(arena.runner.run(["skopeo", "inspect", "--raw", layout]).stdout)
        expect("the image's ID", told["config"]["digest"], id)
        if metric == "image-load":
            arena.backing.cool()
            target = place / "saved.tar"
            copy = ["skopeo", "copy", "-q", layout, f"docker-archive:{target}:{NAME}"]
            steps["image-save"] = arena.runner.run(copy)
        shutil.rmtree(place)
    return steps


def docker_archive(tree: Tree, place: Path) -> tuple[Path, str]:
    """An image of one layer, as docker saves it, made once beside the trees; and beside it the same gzipped. Its path
    and the image's ID."""
    archive, id_file = place / f"image-{tree.files}.tar", place / f"image-{tree.files}.id"
    if not id_file.exists():
        work = place / "image.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        fixed = ["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]
        subprocess.run(["tar", *fixed, "-cf", work / "layer.tar", "-C", tree.path, "."], check=True)
        with open(work / "layer.tar", "rb") as file:
            diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        # As Go writes it: skopeo writes it anew, and the ID shall stay the same.
        config = {
            "created": "2024-05-06T07:08:09Z", "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "bench"}],
        }  # fmt: skip
        data = json.dumps(config, separators=(",", ":")).encode()
        id = hashlib.sha256(data).hexdigest()
        (work / f"{id}.json").write_bytes(data)
        manifest = [{"Config": f"{id}.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
        (work / "manifest.json").write_text(json.dumps(manifest))
        names = [f"{id}.json", "layer.tar", "manifest.json"]
        subprocess.run(["tar", *fixed, "-cf", archive, "-C", work, *names], check=True)
        with open(archive.with_suffix(".tar.gz"), "wb") as out:
            subprocess.run(["gzip", "-1nc", archive], check=True, stdout=out)
        shutil.rmtree(work)
        id_file.write_text(f"sha256:{id}")
    return archive, id_file.read_text()


def _layer_of(archive: Path) -> str:
    """The diff_id of the layer that an archive holds."""
    manifest = json.loads(
        subprocess.run(["tar", "-xOf", archive, "manifest.json"], capture_output=True, check=True).stdout
    )
    layer = subprocess.Popen(["tar", "-xOf", archive, manifest[0]["Layers"][0]], stdout=subprocess.PIPE)
    assert layer.stdout is not None
    digest = hashlib.sha256()
    while data := layer.stdout.read(1 << 20):
        digest.update(data)
    expect("the end of tar", layer.wait(), 0)
    return f"sha256:{digest.hexdigest()}"


WORKLOAD = Workload(
    "image_load",
    "How long does an image take into the store and out of it?",
    (
        Metric("image-load", "load an image, 1 GiB", targets=(Target(SKOPEO.name, 1.3, 1.3),)),
        Metric("image-load-gzip", "load it compressed", targets=(Target(SKOPEO.name, 1.3, 1.3),)),
        Metric("image-save", "save it", targets=(Target(SKOPEO.name, 1.3, 1.3),)),
    ),
    run,
    only=frozenset({SKOPEO.name, "ours-devfuse"}),
)
