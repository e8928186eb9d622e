"""What cannot be written, at whatever place: an error of the system, and the store as it was."""

from __future__ import annotations

import errno
import gzip
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.image_rig import layer, listing, made_image, oci, old_docker, open_store
from unionfs.image.store import Store

BIG = layer(big=os.urandom(300_000))
OLD, NEW = made_image("a:1", layer(old="old")), made_image("a:1", layer(x="x"), BIG)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """EFBIG beyond (setrlimit(2); Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    made.load(io.BytesIO(old_docker([OLD])))
    return made


WORK: dict[str, Callable[[Store], object]] = {
    "load": lambda store: store.load(io.BytesIO(old_docker([NEW]))),
    "load of gzip": lambda store: store.load(io.BytesIO(oci([NEW], "gzip"))),
    "import": lambda store: store.import_(io.BytesIO(BIG), "a:1"),
}


@pytest.mark.parametrize("size", [0, 1000, 100_000])
@pytest.mark.parametrize("work", WORK)
def test_what_does_not_fit_leaves_the_store_as_it_was(store: Store, work: str, size: int) -> None:
    before = listing(store)
    with files_of_at_most(size), pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG) as e:
        WORK[work](store)
    # Which of both has to be made room in is no guess.
    assert os.fsencode(e.value.filename).startswith((store.directory, os.fsencode(store.cache.root)))
    assert listing(store) == before
    WORK[work](store)
    assert store.resolve("a:1").id != OLD.id and store.verify() == []


def test_a_cache_that_is_full_is_named(store: Store) -> None:
    with files_of_at_most(1000), pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG) as e:
        store.cache.add(io.BytesIO(gzip.compress(BIG)))
    assert os.fsencode(e.value.filename).startswith(os.fsencode(store.cache.root))


def test_an_index_json_that_cannot_be_written_stays(store: Store) -> None:
    before = listing(store)
    with files_of_at_most(10), pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG):
        store.tag("a:1", "b:1")
    assert listing(store) == before


def test_an_archive_that_does_not_fit_is_not_there(store: Store, tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG):
        store.save(["a:1"], tmp_path / "out.tar")
    with files_of_at_most(100), pytest.raises(OSError, check=lambda error: error.errno == errno.EFBIG):
        store.save(["a:1"], tmp_path / "out", format="oci-dir")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.cache"]


def test_a_root_file_system_of_an_image_without_layers_is_empty(store: Store, tmp_path: Path) -> None:
    store.load(io.BytesIO(old_docker([made_image("scratch:1")])))
    store.export("scratch:1", tmp_path / "root.tar")
    assert (tmp_path / "root.tar").read_bytes() == bytes(1024)


def test_a_store_of_ones_own_is_nobody_elses(tmp_path: Path) -> None:
    store = open_store(tmp_path, "deep/store")
    store.load(io.BytesIO(old_docker([OLD])))
    assert os.stat(store.directory).st_mode & 0o777 == 0o700
