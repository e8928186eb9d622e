"""Images given out: the same bytes each time, in a form that others and we ourselves take in."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.image_rig import Made, layer, made_image, names, new_docker, oci, old_docker, open_store
from unionfs.errors import ImageError, ImageNotFound, OptionError
from unionfs.image.save import Format
from unionfs.image.store import Store

BASE = layer(base="base" * 1000)
ONE = made_image("a:1 a:2 example.com/x:1", BASE)
TWO = made_image("b:latest", BASE, layer(two="2"))
formats = pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])


@pytest.fixture(params=["plain", "gzip"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    made.load(io.BytesIO(oci([ONE, TWO], "gzip") if request.param == "gzip" else old_docker([ONE, TWO])))
    return made


@formats
def test_what_was_saved_loads_as_the_same_images(store: Store, format: Format, tmp_path: Path) -> None:
    store.save(["a:1", "a:2", "example.com/x:1", "b"], tmp_path / "out", format=format)
    other = open_store(tmp_path, "other")
    loaded = other.load(tmp_path / "out")
    assert [(one.name, one.id) for one in loaded] == [
        ("a:1", ONE.id), ("a:2", ONE.id), ("example.com/x:1", ONE.id), ("b:latest", TWO.id),
    ]  # fmt: skip
    assert other.verify() == []
    assert [one.digests for one in other.images()] == [one.digests for one in store.images()]


@formats
def test_the_same_images_give_the_same_bytes(store: Store, format: Format, tmp_path: Path) -> None:
    for name in ("one", "two"):
        store.save(["b", "a"], tmp_path / name, format=format)
        store.tag("a:1", "later")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def contents(path: Path) -> Any:
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_dockers_archive_has_all_that_readers_of_any_age_look_for(store: Store) -> None:
    out = io.BytesIO()
    store.save(["a", TWO.id], out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        members = {member.name: member for member in tar}
        files = {name: tar.extractfile(member).read() for name, member in members.items() if member.isfile()}  # type: ignore[union-attr]
    assert list(members) == sorted(members)
    assert {member.mtime for member in members.values()} == {0}
    manifest = json.loads(files["manifest.json"])
    assert [entry["RepoTags"] for entry in manifest] == [["a:1", "a:2"], None]
    for entry, image in zip(manifest, (ONE, TWO), strict=True):
        assert files[entry["Config"]] == image.config
        assert [path in files for path in entry["Layers"]] == [True] * len(image.layers)
        assert list(entry["LayerSources"]) == image.diff_ids
    index = json.loads(files["index.json"])
    assert [one.get("annotations") for one in index["manifests"]] == [
        {"io.containerd.image.name": "docker.io/library/a:1", "org.opencontainers.image.ref.name": "1"},
        {"io.containerd.image.name": "docker.io/library/a:2", "org.opencontainers.image.ref.name": "2"},
        None,
    ]
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_one_tag_or_all_of_a_repository(store: Store, tmp_path: Path) -> None:
    for given, saved in (("a:2", ["a:2"]), ("a", ["a:1", "a:2"]), ("docker.io/library/a", ["a:1", "a:2"])):
        store.save([given], tmp_path / "out.tar")
        assert [one.name for one in store.load(tmp_path / "out.tar")] == saved
    store.save([ONE.id, "a:1"], tmp_path / "out.tar")
    assert [one.name for one in store.load(tmp_path / "out.tar")] == ["a:1"]
    store.save([ONE.id[7:20]], tmp_path / "out.tar")
    assert [one.texts for one in store.load(tmp_path / "out.tar")] == [(f"Loaded image ID: {ONE.id}",)]


def test_an_image_that_is_not_there_leaves_the_file_as_it_was(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out.tar").write_text("older")
    with pytest.raises(ImageNotFound):
        store.save(["a:1", "absent"], tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_text() == "older"


def test_a_layer_that_is_missing_is_named_and_no_file_is_left(store: Store, tmp_path: Path) -> None:
    digest = store.resolve("b").layers[1].digest
    os.unlink(store.layout.blobs.path(digest))
    for format in ("docker-archive", "oci-archive", "oci-dir"):
        with pytest.raises(ImageError, match=f"the blob {digest} is missing"):
            store.save(["b"], tmp_path / "out", format=format)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.cache"]


def test_a_directory_that_is_there_is_not_written_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(ImageError, match="exists and is not empty"):
        store.save(["a"], tmp_path / "out", format="oci-dir")
    assert contents(tmp_path / "out") == {"mine": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store", "store.cache"]


def test_places_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written: No such file or directory"):
        store.save(["a"], tmp_path / "absent/out.tar")
    with pytest.raises(ImageError, match="cannot be written"):
        store.save(["a"], tmp_path)
    with pytest.raises(OptionError, match="a directory cannot be written to a stream"):
        store.save(["a"], io.BytesIO(), format="oci-dir")
    with pytest.raises(OptionError, match="unknown format 'tar'"):
        store.save(["a"], io.BytesIO(), format="tar")  # type: ignore[arg-type]


def test_progress_counts_what_was_written(store: Store) -> None:
    told: list[int] = []
    out = io.BytesIO()
    store.save(["a"], out, progress=told.append)
    assert told == sorted(told) and told[-1] == len(out.getvalue())


def test_a_round_trip_through_dockers_own_writer(tmp_path: Path) -> None:
    """What docker >= 25 writes with its containerd store, and what we write, are one format: the same blobs."""
    image: Made = made_image("c:1", BASE)
    store = open_store(tmp_path)
    theirs = new_docker([image], "gzip")
    store.load(io.BytesIO(theirs))
    out = io.BytesIO()
    store.save(["c:1"], out)

    def files(data: bytes) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]

    ours, other = files(out.getvalue()), files(theirs)
    assert {name: data for name, data in ours.items() if name.startswith("blobs/")} == {
        name: data for name, data in other.items() if name.startswith("blobs/")
    }
    assert json.loads(ours["index.json"])["manifests"] == json.loads(other["index.json"])["manifests"]
    assert names(store) == ["c:1"]
