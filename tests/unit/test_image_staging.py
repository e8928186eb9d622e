"""New images made layer by layer, and seen by nobody before they are published."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.image_rig import Made, layer, listing, made_image, oci, old_docker, open_store
from unionfs.changeset.tar_writer import write_tree
from unionfs.errors import ImageError, ImageFormatError
from unionfs.image import mediatypes
from unionfs.image.digest import Digest
from unionfs.image.models import parse_manifest
from unionfs.image.store import Store
from unionfs.testing.loopback import LoopbackFilesystem

BASE, TOP = layer(base="base"), layer(top="top")
OLD = made_image("a:1", BASE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    made.load(io.BytesIO(old_docker([OLD])))
    return made


def test_a_layer_upon_an_image(store: Store) -> None:
    new = made_image("", BASE, TOP)
    with store.staging() as staging:
        top = staging.add_layer(io.BytesIO(TOP))
        assert (top.diff_id, top.size) == (new.diff_ids[1], len(TOP))
        made = staging.add_image(new.config, [*store.resolve("a:1").layers, top.descriptor], annotations={"b": "1"})
        assert store.images()[0].id == OLD.id and len(store.images()) == 1
        assert staging.publish({"a:1": made}, untagged=[]) == {"a:1": OLD.id}
    image = store.resolve("a:1")
    assert (image.id, image.diff_ids, image.manifest.annotations) == (new.id, new.diff_ids, {"b": "1"})
    assert store.cache.has(new.diff_ids[1])
    assert store.verify() == []


def test_a_layer_that_was_just_written_is_not_read_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("text")
    fs = LoopbackFilesystem(str(tmp_path / "tree"))
    with store.staging() as staging:
        path = staging.new_file()
        with open(path, "xb") as out:
            written = write_tree(fs, out)
        fs.close()
        added = staging.add_layer_file(path, written)
        config = {"rootfs": {"type": "layers", "diff_ids": [written.diff_id]}}
        made = staging.add_image(json.dumps(config).encode(), [added.descriptor])
        staging.publish({"tree:1": made})
    with store.using("tree:1") as image:
        opened = store.cache.open(image.diff_ids[0])
        assert opened.lstat(b"file").st_size == 4
        opened.close()
    assert store.verify() == []


def test_the_same_again_gives_the_same_bytes(store: Store) -> None:
    for docker in (False, True):
        found = []
        for _ in range(2):
            with store.staging() as staging:
                found.append(staging.add_image(OLD.config, store.resolve("a:1").layers, docker=docker))
        assert found[0] == found[1]


def test_dockers_manifest(store: Store) -> None:
    with store.staging() as staging:
        made = staging.add_image(OLD.config, store.resolve("a:1").layers, docker=True, annotations={"not": "there"})
        staging.publish({"docker:1": made})
    image = store.resolve("docker:1")
    assert image.descriptor.media_type == image.manifest.media_type == mediatypes.DOCKER_MANIFEST
    assert image.manifest.config.media_type == mediatypes.DOCKER_CONFIG
    assert [blob.media_type for blob in image.layers] == [mediatypes.DOCKER_LAYER]
    assert image.manifest.annotations == {} and image.id == OLD.id
    parse_manifest(image.manifest_bytes, "it", mediatypes.DOCKER_MANIFEST)
    # An OCI image upon it has OCI's types for the same blobs.
    with store.staging() as staging:
        again = staging.add_image(OLD.config, image.layers)
    assert again.digest == store.resolve("a:1").descriptor.digest
    assert store.verify() == []


def test_what_is_not_published_is_gone(store: Store) -> None:
    before = listing(store)
    with store.staging() as staging:
        staging.add_layer(io.BytesIO(TOP))
        Path(os.fsdecode(staging.new_file())).write_text("unfinished")
    assert listing(store) == before
    with pytest.raises(ZeroDivisionError), store.staging() as staging:
        staging.add_layer(io.BytesIO(TOP))
        _ = 1 / 0
    assert listing(store) == before


def test_layers_and_configuration_that_do_not_fit(store: Store) -> None:
    before = listing(store)
    with store.staging() as staging:
        top = staging.add_layer(io.BytesIO(TOP))
        with pytest.raises(ImageFormatError, match="has 1 layers, but 2 diff_ids"):
            staging.add_image(made_image("", BASE, TOP).config, [top.descriptor])
        with pytest.raises(ImageFormatError, match="the new config"):
            staging.add_image(b"{}", [top.descriptor])
        with pytest.raises(ImageFormatError, match="is not the media type of a layer"):
            staging.add_image(OLD.config, [top.descriptor.model_copy(update={"media_type": "text/plain"})])
        absent = top.descriptor.model_copy(update={"digest": Digest("sha256:" + "0" * 64)})
        with pytest.raises(ImageError, match=r"the layer sha256:0* is not in the store"):
            staging.add_image(OLD.config, [absent])
    assert listing(store) == before


@pytest.mark.parametrize("writer", [old_docker, oci])
def test_a_loaded_layer_is_mounted_without_being_read_again(
    store: Store, writer: Callable[[list[Made]], bytes], tmp_path: Path
) -> None:
    """The cache knows the blob as it stands in the store, its time of change included."""
    (tmp_path / "a.tar").write_bytes(writer([made_image("b:1", BASE, TOP)]))
    for source in (tmp_path / "a.tar", io.BytesIO((tmp_path / "a.tar").read_bytes())):
        other = open_store(tmp_path, f"other-{type(source).__name__}")
        other.load(source)
        image = other.resolve("b:1")
        paths = [other.layout.blobs.path(blob.digest) for blob in image.layers]
        assert [other.cache.known_as(path) for path in paths] == image.diff_ids
        assert [other.cache.add(path).digest for path in paths] == [None, None]  # not read
