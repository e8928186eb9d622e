"""The store, its process ending before every system call that changes a name or begins a file, and after the last one.

index.json is then the old or the new one, every image in it is whole, and what the dead process left the next command
sweeps, or `prune`.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.image_rig import in_memory, layer, made_image, oci, old_docker, open_store
from tests.unit.test_changeset_kill import dies
from unionfs.image.store import Store

BASE = layer(base="base")
OLD = made_image("a:1", BASE, layer(old="old"))
NEW = made_image("a:1 new:1", BASE, layer(new="new"))
OTHER = made_image("other:1", layer(other="other"))
IMPORTED = made_image("imported:1", layer(i="i"))

WORK: dict[str, Callable[[Store], object]] = {
    "load": lambda store: store.load(io.BytesIO(old_docker([NEW]))),
    "load of gzip": lambda store: store.load(io.BytesIO(oci([NEW], "gzip"))),
    "tag": lambda store: store.tag("other:1", "a:1"),
    "untag": lambda store: store.untag("a:1"),
    "remove": lambda store: store.remove("a:1"),
    "prune": lambda store: store.prune(all=True),
    "import": lambda store: store.import_(io.BytesIO(layer(i="i")), "imported:1", config=lambda _: IMPORTED.config),
}


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def state(store: Store) -> list[tuple[str, tuple[str, ...]]]:
    return sorted((one.id, one.names) for one in store.images())


@pytest.mark.parametrize("work", WORK)
def test_a_command_that_died_has_left_the_old_or_the_new(work: str, place: Path) -> None:
    states: list[list[tuple[str, tuple[str, ...]]]] = []
    store = open_store(place)
    store.load(io.BytesIO(old_docker([OLD, OTHER])))
    before = state(store)
    subprocess.run(["cp", "-a", "store", "store.cache", made(place / "good")], cwd=place, check=True)
    at, died = 0, True
    while died:
        subprocess.run("rm -r store store.cache; cp -a good/. .", cwd=place, check=True, shell=True)
        died = dies(at, lambda: WORK[work](store))  # called here and now
        assert store.verify() == []
        states.append(state(store))
        check_after_the_next_command(store)
        at += 1
    assert states[0] == before and states[-1] != before
    # The old ones, and from one moment on the new one.
    distinct = [one for one, previous in zip(states, [None, *states], strict=False) if one != previous]
    assert len(distinct) == 2
    assert at > 3


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def check_after_the_next_command(store: Store) -> None:
    """Nothing is left that does not belong to an image."""
    named = [one for one in state(store) if one[1]]
    with store.staging():
        pass
    assert os.listdir(store.directory + b"/.unionfs/staging") == []
    store.prune()
    assert state(store) == named
    images = [store.resolve(one.id) for one in store.images()]
    wanted = {blob for image in images for blob in (image.id, image.descriptor.digest)}
    wanted |= {blob.digest for image in images for blob in image.layers}
    assert set(store.layout.blobs) == wanted
    for kind in (b"/indexes", b"/tars", b"/places"):
        ready = {f"sha256:{name.decode()}" for name in os.listdir(store.cache.root + kind)}
        assert ready <= {diff_id for image in images for diff_id in image.diff_ids}


def test_the_next_command_sweeps_what_a_dead_load_has_published(tmp_path: Path) -> None:
    """Killed between the blobs and index.json: the blobs go, but not those that another tool has just put there."""
    store = open_store(tmp_path)
    store.load(io.BytesIO(old_docker([OLD])))
    mine = set(store.layout.blobs)
    (Path(os.fsdecode(store.layout.blobs.root)) / "sha256" / ("0" * 64)).write_bytes(b"skopeo is at work")
    at, published = 0, False
    while not published:
        assert dies(at, lambda: store.load(io.BytesIO(old_docker([NEW]))))
        published = len(set(store.layout.blobs)) == len(mine) + 1 + 3
        if not published:
            store.tag("a:1", "a:1")
        at += 1
    store.tag("a:1", "a:1")
    assert set(store.layout.blobs) == {*mine, "sha256:" + "0" * 64}
