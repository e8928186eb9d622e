"""Layers as tars: each layer directory packed once, beside it, and the engines that read such a tar where it lies.

    ours-tars     unionfs over layer tars                  ratarmount    a union mount of tars through SQLite indexes

Their indexes are made before anything is timed, as a user's are by the first mount. What they are asked is what the
others answer of the same layers unpacked; workloads with `packed` set have them take part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import Launch, Peer, Stack, _device_missing, _ours, _version_of

#: Of a tar file and of the layer that it packs.
SUFFIX = ".tar"


def packed(layer: Path) -> Path:
    """The tar of a layer directory, made if it is not there."""
    tar = layer.with_name(layer.name + SUFFIX)
    if not tar.exists():
        making = tar.with_name(f"{tar.name}.new")
        subprocess.run(
            ["tar", "-c", "--sort=name", "--format=pax", "--numeric-owner", "-C", layer, "-f", making, "."], check=True
        )
        making.rename(tar)
    return tar


def _cache(stack: Stack) -> Path:
    return stack.base / "indexes"


def our_tars() -> Peer:
    """`ours-devfuse` with the layers packed."""
    plain = _ours("ours-tars", "ours, layers as tars", "devfuse")

    def over(launch: Callable[[Stack, Path], Launch]) -> Callable[[Stack, Path], Launch]:
        def launch_packed(stack: Stack, mountpoint: Path) -> Launch:
            tars = [packed(lower) for lower in stack.lowers]
            environment = {"UNIONFS_CACHE": str(_cache(stack))}
            _make_ready(tars, environment)
            made = launch(replace(stack, lowers=tars), mountpoint)
            assignments = [f"{name}={value}" for name, value in environment.items()]
            return Launch(["env", *assignments, *made.argv], made.stays, made.cwd)

        return launch_packed

    return replace(plain, launch=over(plain.launch), ready_launch=over(plain.ready_launch), packed=True)


def _make_ready(tars: list[Path], environment: dict[str, str]) -> None:
    from unionfs.image.layer_cache import LayerCache

    cache = LayerCache(environment["UNIONFS_CACHE"])
    for tar in tars:
        cache.add(str(tar))


def ratarmount(program: str) -> Peer:
    def missing() -> str | None:
        return (
            f"no program {program} (pip install ratarmount)"
            if shutil.which(program) is None
            else _device_missing(False)
        )

    def launch(stack: Stack, mountpoint: Path, *, stays: bool = True) -> Launch:
        tars = [str(packed(lower)) for lower in reversed(stack.lowers)]
        indexes = _cache(stack) / "ratarmount"
        indexes.mkdir(parents=True, exist_ok=True)
        words = [program, "--index-folders", str(indexes), "--index-minimum-file-count", "0"]
        if not all((indexes / f"{tar.replace('/', '_')}.index.sqlite").exists() for tar in tars):
            subprocess.run([*words, *tars, str(mountpoint)], check=True, capture_output=True, timeout=600)
            subprocess.run(["umount", str(mountpoint)], check=True)
        return Launch([*words, *(["-f"] if stays else []), *tars, str(mountpoint)], stays)

    return Peer(
        "ratarmount",
        "ratarmount",
        frozenset({"fuse", "fuse.ratarmount"}),
        _version_of(program, "--version", pattern=r"ratarmount \S+"),
        missing,
        launch,
        lambda stack, mountpoint: launch(stack, mountpoint, stays=False),
        environment={"HOME": os.environ.get("HOME", "/")},
        packed=True,
    )
