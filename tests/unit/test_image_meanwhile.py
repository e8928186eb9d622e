"""What others do in a store while something takes its time there: nobody waits for a pipe, and nothing breaks."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.cli_runner import PROJECT, process_of
from tests.unit.image_rig import Made, layer, made_image, names, oci, old_docker, open_store
from tests.unit.test_overlay_kill import in_a_process
from unionfs.api.image_archives import remove_unused
from unionfs.errors import ImageError
from unionfs.image import locks
from unionfs.image.store import Store

BASE, TOP = layer(base="base"), layer(top=os.urandom(300_000))
OLD, NEW, OTHER = made_image("old:1", BASE), made_image("new:1", BASE, TOP), made_image("other:1", layer(o="o"))
WRITERS: dict[str, Callable[[list[Made]], bytes]] = {"docker": old_docker, "oci": oci}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    made.load(io.BytesIO(old_docker([OLD, OTHER])))
    return made


def staging(store: Store) -> list[bytes]:
    return os.listdir(store.directory + b"/.unionfs/staging")


@contextmanager
def half_read(data: bytes, work: Callable[[io.FileIO], object]) -> Iterator[Future[object]]:
    """`work` in a thread, with a pipe of `data`, of which only half comes before the end of the block."""
    out, into = os.pipe()
    with ThreadPoolExecutor(1) as pool, open(out, "rb", buffering=0) as source, open(into, "wb", buffering=0) as pipe:
        running = pool.submit(work, source)
        try:
            pipe.write(data[: len(data) // 2])  # more than a pipe holds: when this is done, most was read
            yield running
            assert not running.done()
            pipe.write(data[len(data) // 2 :])
        finally:
            pipe.close()
        running.result(60)


WORK: dict[str, tuple[bytes, Callable[[Store, io.FileIO], object]]] = {
    "load": (old_docker([NEW]), lambda store, source: store.load(source)),
    "load of gzip": (oci([NEW]), lambda store, source: store.load(source)),
    "import": (TOP, lambda store, source: store.import_(source, "new:1")),
}


@pytest.mark.parametrize("work", WORK)
def test_nobody_waits_for_an_archive_that_comes_slowly(store: Store, work: str) -> None:
    data, run = WORK[work]
    with half_read(data, lambda source: run(store, source)):
        assert store.remove("other:1")[0].text == "Untagged: other:1"
        store.tag("old:1", "old:2")
        store.untag("old:1")
        store.prune(all=True)
        assert set(store.layout.blobs) == set()
        assert len(staging(store)) == 1
    assert names(store) == ["new:1"]
    assert (store.verify(), staging(store)) == ([], [])


@pytest.mark.parametrize("writer", WRITERS)
def test_layer_that_an_archive_need_not_bring_is_removed_while_it_comes(
    store: Store, writer: str, tmp_path: Path
) -> None:
    """It is taken from the archive after all."""
    store.load(io.BytesIO(WRITERS[writer]([OLD])))
    (tmp_path / "new.tar").write_bytes(WRITERS[writer]([OLD, NEW]))

    def removes(done: int, calls: list[int] = []) -> None:  # noqa: B006  # once
        if not calls:
            calls.append(done)
            store.prune(all=True)

    store.load(tmp_path / "new.tar", progress=removes)
    assert names(store) == ["new:1", "old:1"]
    assert store.verify() == []
    with store.using("new:1") as image:
        assert image.diff_ids == NEW.diff_ids


@pytest.mark.parametrize("verb", ["save", "export"])
def test_image_is_removed_while_it_goes_into_a_slow_pipe(store: Store, verb: str) -> None:
    store.load(io.BytesIO(old_docker([NEW])))
    wanted = io.BytesIO()
    work = store.save if verb == "save" else lambda name, out: store.export(name[0], out)
    work(["new:1"], wanted)
    out, into = os.pipe()
    with ThreadPoolExecutor(1) as pool, open(out, "rb", buffering=0) as source:

        def run() -> None:
            with open(into, "wb", buffering=0) as pipe:
                work(["new:1"], pipe)

        running = pool.submit(run)
        data = source.read(1000)  # it has begun, and a pipe does not hold the rest
        store.prune(all=True)
        assert not running.done() and set(store.layout.blobs) == set()
        assert data + source.readall() == wanted.getvalue()
        running.result(60)


def test_more_blobs_are_saved_than_there_are_descriptors(store: Store) -> None:
    many = made_image("many:1", *(layer(**{f"file{number}": "x"}) for number in range(80)))
    store.load(io.BytesIO(old_docker([many])))
    wanted = io.BytesIO()
    store.save(["many:1"], wanted)
    # A process of its own: nobody knows how many this one has open.
    save = [*process_of(), "--store", os.fsdecode(store.directory), "image", "save", "many:1"]
    done = subprocess.run(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *save], capture_output=True, cwd=PROJECT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == wanted.getvalue()


def test_what_was_unpacked_is_pruned_before_it_is_published(store: Store) -> None:
    """Nobody has it yet; then it is unpacked once more, and the image is ready all the same."""
    with store.staging() as staged:
        added = [staged.add_layer(io.BytesIO(data)) for data in (BASE, TOP)]
        assert store.cache.size(added[1].diff_id) is not None
        store.prune()
        assert store.cache.size(added[1].diff_id) is None
        staged.publish({"new:1": staged.add_image(NEW.config, [one.descriptor for one in added])})
    assert all(store.cache.has(diff_id) for diff_id in NEW.diff_ids)
    assert store.verify() == []


def test_layer_that_a_new_image_stands_on_is_removed_before_it_is_published(store: Store) -> None:
    layers = store.resolve("old:1").layers
    with store.staging() as staged:
        image = staged.add_image(NEW.config, [*layers, staged.add_layer(io.BytesIO(TOP)).descriptor])
        store.remove("old:1")
        with pytest.raises(ImageError, match=f"the layer {layers[0].digest} was removed from the store meanwhile"):
            staged.publish({"new:1": image})
    assert names(store) == ["other:1"] and store.verify() == []
    assert set(store.layout.blobs) == {OTHER.id, store.resolve("other:1").descriptor.digest, OTHER.diff_ids[0]}
    assert not any(store.cache.has(diff_id) for diff_id in NEW.diff_ids)


def test_who_holds_what_he_stands_on_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And told that he waits."""
    monkeypatch.setattr(locks, "PATIENCE", 0)
    told = threading.Event()
    waiting = Store(store.directory, cache=store.cache, waiting=told.set)
    with ThreadPoolExecutor(1) as pool:
        with store.staging() as staged:
            staged.hold()
            removing = pool.submit(waiting.remove, "old:1")
            assert told.wait(60)
            staged.publish({"new:1": staged.add_image(OLD.config, store.resolve("old:1").layers)})
        assert [one.text for one in removing.result(60)] == ["Untagged: old:1"]
    assert names(store) == ["new:1", "other:1"] and store.verify() == []


# workspaces -----------------------------------------------------------------------------------------------------------
def test_workspace_of_a_dead_process_is_swept_and_that_of_a_living_one_is_not(store: Store) -> None:
    def dies_with_a_layer() -> None:
        with store.staging() as staged:
            staged.add_layer(io.BytesIO(TOP))
            os._exit(3)

    with store.staging() as staged:
        added = staged.add_layer(io.BytesIO(TOP))
        (mine,) = staging(store)
        for command in ("prune", "tag"):
            assert in_a_process(dies_with_a_layer)
            assert len(staging(store)) == 2
            store.prune() if command == "prune" else store.tag("old:1", "old:2")
            assert staging(store) == [mine]
        image = staged.add_image(made_image("", TOP).config, [added.descriptor])
        staged.publish({"top:1": image})
    assert staging(store) == [] and store.verify() == []
    assert "top:1" in names(store)


def test_dead_workspace_is_swept_by_a_prune_that_has_to_wait(store: Store) -> None:
    def dies() -> None:
        with store.staging():
            os._exit(3)

    assert in_a_process(dies)
    with ThreadPoolExecutor(1) as pool:
        with store.catalog():
            pruning = pool.submit(store.prune)
        pruning.result(60)
    assert staging(store) == []


def test_archive_that_is_being_unpacked_is_not_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UNIONFS_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(0o700)
    unpacking = Store(tmp_path / "cache/archives/1-2-3")
    with half_read(old_docker([NEW]), unpacking.load):
        assert remove_unused() == 0
    assert names(unpacking) == ["new:1"] and unpacking.verify() == []
    assert remove_unused() > len(TOP)
    assert not os.path.exists(unpacking.directory)
