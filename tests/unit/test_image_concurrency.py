"""One store, and several commands at once: processes and threads."""

from __future__ import annotations

import io
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.image_rig import Made, layer, made_image, names, oci, old_docker, open_store
from unionfs.errors import ImageNotFound
from unionfs.image.store import Store

BASE = layer(base="b" * 5000)
WORKERS, ROUNDS = 6, 5


def image(worker: int, turn: int) -> Made:
    return made_image(f"w{worker}:{turn} shared:latest", BASE, layer(worker=str(worker), turn=str(turn)))


def work(store: Store, worker: int) -> None:
    """Load, tag, list, save, remove: all that others do too."""
    for turn in range(ROUNDS):
        mine = image(worker, turn)
        archive = old_docker([mine]) if turn % 2 else oci([mine], "gzip")
        assert store.load(io.BytesIO(archive))[0].id == mine.id
        store.tag(f"w{worker}:{turn}", f"w{worker}:last")
        assert store.resolve(f"w{worker}:last").id == mine.id
        assert mine.id in {one.id for one in store.images()}
        store.save([f"w{worker}:{turn}"], io.BytesIO())
        if turn:
            removed = [one.text for one in store.remove(f"w{worker}:{turn - 1}")]
            assert removed[0] == f"Untagged: w{worker}:{turn - 1}"
        if turn == 3:
            store.prune()


def check(store: Store) -> None:
    last = ROUNDS - 1
    wanted = [*(f"w{worker}:{last}" for worker in range(WORKERS)), *(f"w{worker}:last" for worker in range(WORKERS))]
    assert names(store) == sorted([*wanted, "shared:latest"])
    assert store.verify() == []
    store.prune()
    assert names(store) == sorted([*wanted, "shared:latest"])
    assert os.listdir(store.directory + b"/.unionfs/staging") == []
    images = [store.resolve(one.id) for one in store.images()]
    referred = {digest for one in images for digest in (one.id, one.descriptor.digest)}
    assert set(store.layout.blobs) == referred | {blob.digest for one in images for blob in one.layers}


def test_threads_of_one_process(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work, store, worker) for worker in range(WORKERS)]:
            done.result()
    check(store)


def test_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(open_store(tmp_path), worker)) for worker in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORKERS
    check(open_store(tmp_path))


def test_nothing_is_removed_while_it_is_being_used(tmp_path: Path) -> None:
    """`remove` waits for whoever reads; nobody begins to use an image that is being removed."""
    store = open_store(tmp_path)
    store.load(io.BytesIO(old_docker([image(0, 0)])))
    with ThreadPoolExecutor(1) as pool:
        with store.using("w0:0") as used:
            store.remove("w0:0")  # only a name: `shared` is left
            removing = pool.submit(store.remove, "shared")
            assert set(store.layout.blobs) >= {used.id, *(blob.digest for blob in used.layers)}
        assert removing.result()[0].text == "Untagged: shared:latest"
    with pytest.raises(ImageNotFound):
        store.resolve("shared")
    assert set(store.layout.blobs) == set()
