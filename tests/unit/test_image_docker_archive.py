"""docker's archives, of every generation, taken in: the same images with the same IDs, whoever wrote them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.requirements import need
from tests.unit.image_rig import (
    Made,
    as_json,
    files_tar,
    hex_of,
    layer,
    listing,
    made_image,
    names,
    new_docker,
    oci,
    old_docker,
    open_store,
    podman,
)
from unionfs.errors import ImageError, ImageFormatError
from unionfs.image.results import Loaded
from unionfs.image.store import Store

BASE, TOP = layer(etc__motd="hello\n", bin__sh="#!"), layer(etc__passwd="root")
IMAGE = made_image("busybox:1 example.com:5000/a/b:2", BASE, TOP, BASE)
OTHER = made_image("other:latest", BASE)

Writer = Callable[[Sequence[Made]], bytes]
WRITERS: dict[str, Writer] = {
    "docker before 25": old_docker,
    "podman": podman,
    "docker 25": new_docker,
    "docker with containerd": lambda images: new_docker(images, "gzip"),
    "oci": oci,
}
writers = pytest.mark.parametrize("writer", WRITERS.values(), ids=list(WRITERS))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@writers
def test_an_archive_of_any_generation_gives_the_same_images(store: Store, writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(writer([IMAGE, OTHER]))
    loaded = store.load(tmp_path / "a.tar")
    assert [(one.name, one.id, one.renamed) for one in loaded] == [
        ("busybox:1", IMAGE.id, None),
        ("example.com:5000/a/b:2", IMAGE.id, None),
        ("other:latest", OTHER.id, None),
    ]
    assert loaded[0].texts[0] == "Loaded image: busybox:1"
    image = store.resolve("busybox:1")
    assert (image.id, image.config_bytes, image.diff_ids) == (IMAGE.id, IMAGE.config, IMAGE.diff_ids)
    assert store.verify() == []
    assert names(store) == ["busybox:1", "example.com:5000/a/b:2", "other:latest"]


@writers
@pytest.mark.parametrize("how", ["file", "pipe", "memory"])
def test_a_compressed_archive_or_a_stream_is_the_same(store: Store, writer: Writer, how: str, tmp_path: Path) -> None:
    data = gzip.compress(writer([IMAGE]))
    if how == "file":
        (tmp_path / "a").write_bytes(data)
        loaded = store.load(str(tmp_path / "a"))
    elif how == "memory":
        loaded = store.load(io.BytesIO(data))
    else:
        loaded = load_from_a_pipe(store, data)
    assert {one.id for one in loaded} == {IMAGE.id}
    assert store.verify() == []


def load_from_a_pipe(store: Store, data: bytes) -> list[Loaded]:
    readable, writable = os.pipe()

    def write() -> None:
        with open(writable, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with open(readable, "rb", buffering=0) as stream:
            return store.load(stream)
    finally:
        thread.join()


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zstd(data: bytes) -> bytes:
    need("zstd")
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gz, zstd])
def test_layers_compressed_each_for_itself(store: Store, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    files = {
        "0.tar": compress(BASE),
        "1.tar": compress(TOP),
        "c.json": made_image("", BASE, TOP).config,
        "manifest.json": as_json([{"Config": "c.json", "RepoTags": None, "Layers": ["0.tar", "1.tar"]}]),
    }
    (tmp_path / "a.tar").write_bytes(files_tar(files))
    loaded = store.load(tmp_path / "a.tar")
    image = made_image("", BASE, TOP)
    assert [(one.id, one.name, one.texts) for one in loaded] == [
        (image.id, None, (f"Loaded image ID: {image.id}",)),
    ]
    assert store.verify() == []
    kept = {blob.digest for blob in store.resolve(image.id).layers}
    as_it_came = {f"sha256:{hex_of(compress(BASE))}", f"sha256:{hex_of(compress(TOP))}"}
    # OCI has no media type for the others.
    assert (kept == as_it_came) == (compress in (gz, zstd))


@pytest.mark.parametrize("writer", [old_docker, podman, new_docker])
def test_a_plain_archive_is_not_copied_before_it_is_read(store: Store, writer: Writer, tmp_path: Path) -> None:
    """Its layers go from where they lie into the store; only compressed ones are unpacked, in the cache."""
    (tmp_path / "a.tar").write_bytes(writer([IMAGE]))
    store.load(tmp_path / "a.tar")
    assert os.listdir(store.cache.root + b"/tars") == []
    opened = store.cache.open(IMAGE.diff_ids[0])
    assert opened.lstat(b"etc/motd").st_size == 6
    opened.close()


def test_a_name_that_another_image_has_is_taken_from_it(store: Store, tmp_path: Path) -> None:
    before = made_image("busybox:1", TOP)
    for image in (before, IMAGE):
        (tmp_path / "a.tar").write_bytes(old_docker([image]))
        loaded = store.load(tmp_path / "a.tar")
    assert loaded[0].renamed == before.id
    assert loaded[0].texts == (
        f"The image busybox:1 already exists, renaming the old one with ID {before.id} to empty string",
        "Loaded image: busybox:1",
    )
    assert [one.id for one in store.images(filters=["dangling=true"])] == [before.id]
    # Once more: nothing is renamed, nothing is added.
    listed = listing(store)
    assert [one.renamed for one in store.load(tmp_path / "a.tar")] == [None, None]
    assert listing(store) == listed


def test_layers_that_the_store_has_already_are_shared(store: Store, tmp_path: Path) -> None:
    (tmp_path / "oci.tar").write_bytes(oci([OTHER], "gzip"))
    store.load(tmp_path / "oci.tar")
    (tmp_path / "old.tar").write_bytes(old_docker([IMAGE]))
    store.load(tmp_path / "old.tar")
    assert store.resolve("busybox:1").layers[0] == store.resolve("other").layers[0]


def test_an_image_that_is_there_keeps_its_manifest(store: Store, tmp_path: Path) -> None:
    (tmp_path / "oci.tar").write_bytes(oci([IMAGE], "gzip"))
    store.load(tmp_path / "oci.tar")
    digest = store.resolve("busybox:1").descriptor.digest
    (tmp_path / "old.tar").write_bytes(old_docker([IMAGE]))
    store.load(tmp_path / "old.tar")
    assert store.resolve("busybox:1").descriptor.digest == digest
    assert [one.digests for one in store.images()] == [(digest,)]


def test_an_image_without_layers(store: Store, tmp_path: Path) -> None:
    scratch = made_image("scratch:1")
    (tmp_path / "a.tar").write_bytes(old_docker([scratch]))
    assert [one.id for one in store.load(tmp_path / "a.tar")] == [scratch.id]
    assert store.verify() == []


def test_a_tar_without_a_manifest_is_named_as_docker_names_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(BASE)
    with pytest.raises(ImageFormatError, match=r"^invalid archive: does not contain a manifest\.json$") as caught:
        store.load(tmp_path / "root.tar")
    assert caught.value.hint is not None and "imported" in caught.value.hint


def test_a_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: No such file or directory"):
        store.load(tmp_path / "absent")


def test_only_the_images_of_a_platform_are_taken(store: Store, tmp_path: Path) -> None:
    arm = made_image("arm:1", TOP, architecture="arm64")
    (tmp_path / "a.tar").write_bytes(old_docker([IMAGE, arm]))
    assert [one.name for one in store.load(tmp_path / "a.tar", platform="linux/arm64/v8")] == ["arm:1"]
    with pytest.raises(ImageError, match="the archive holds no image for windows/amd64"):
        store.load(tmp_path / "a.tar", platform="windows/amd64")


def test_progress_counts_what_is_read(store: Store, tmp_path: Path) -> None:
    data = old_docker([IMAGE])
    (tmp_path / "a.tar").write_bytes(data)
    told: list[int] = []
    store.load(tmp_path / "a.tar", progress=told.append)
    assert told == sorted(told) and told[-1] == len(BASE) + len(TOP)
    told.clear()
    store.load(io.BytesIO(gzip.compress(data)), progress=told.append)
    assert told == sorted(told) and told[-1] == len(gzip.compress(data))
