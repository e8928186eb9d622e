"""OCI layouts: directories and archives, images of several platforms in one index, and what is no image among them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.image_rig import (
    OCI,
    Blobs,
    as_json,
    files_tar,
    layer,
    made_image,
    named,
    names,
    oci_files,
    open_store,
    sha256,
    write_files,
)
from unionfs.errors import ImageFormatError, ImageNotFound
from unionfs.image.store import Store

AMD = made_image("", layer(arch="amd64"))
ARM = made_image("", layer(arch="arm64"), architecture="arm64", variant="v8")
ARM7 = made_image("", layer(arch="arm"), architecture="arm", variant="v7")
DOCKER = "application/vnd.docker."


def platform(descriptor: Mapping[str, Any], text: str) -> dict[str, Any]:
    os, architecture, *variant = text.split("/")
    told = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    return {**descriptor, "platform": told}


def attestation(blobs: Blobs) -> dict[str, Any]:
    """As BuildKit adds one for each platform."""
    statement = blobs.add(b'{"_type":"statement"}', "application/vnd.in-toto+json")
    config = blobs.add(b'{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}',
                       f"{OCI}config.v1+json")  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": config, "layers": [statement],
    }  # fmt: skip
    return platform(blobs.add(as_json(manifest), f"{OCI}manifest.v1+json"), "unknown/unknown")


def multi(blobs: Blobs) -> dict[str, Any]:
    return blobs.index(
        platform(blobs.image(ARM, "gzip"), "linux/arm64/v8"),
        platform(blobs.image(AMD, "gzip"), "linux/amd64"),
        platform(blobs.image(ARM7, "gzip"), "linux/arm/v7"),
        attestation(blobs),
    )


@pytest.fixture
def files() -> dict[str, bytes]:
    blobs = Blobs()
    return blobs.layout(named(multi(blobs), "multi:1"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def archive(store: Store, files: dict[str, bytes], platform: str | None = None) -> list[tuple[str | None, str]]:
    return [(one.name, one.id) for one in store.load(io.BytesIO(files_tar(files)), platform=platform)]


def this_machine() -> str:
    return {"x86_64": AMD.id, "aarch64": ARM.id, "armv7l": ARM7.id}.get(os.uname().machine, ARM.id)


@pytest.mark.parametrize("how", ["directory", "archive"])
def test_an_index_of_several_platforms_is_one_name(
    store: Store, files: dict[str, bytes], how: str, tmp_path: Path
) -> None:
    if how == "directory":
        loaded = store.load(write_files(tmp_path / "layout", files))
    else:
        loaded = store.load(io.BytesIO(files_tar(files)))
    assert [(one.name, one.id) for one in loaded] == [("multi:1", this_machine())]
    for wanted, image in (("linux/amd64", AMD), ("linux/arm64", ARM), ("linux/arm", ARM7), ("linux/aarch64", ARM)):
        assert store.resolve("multi:1", wanted).id == image.id
    assert [one.platforms for one in store.images()] == [("linux/arm64/v8", "linux/amd64", "linux/arm/v7")]
    assert store.verify() == []
    with store.using("multi:1", "linux/arm/v7") as used:
        assert used.id == ARM7.id and store.cache.has(ARM7.diff_ids[0])


def test_a_platform_that_is_not_there_is_named_as_docker_names_it(store: Store, files: dict[str, bytes]) -> None:
    archive(store, files)
    with pytest.raises(
        ImageNotFound,
        match=r"^image with reference multi:1 was found but does not provide the specified platform \(linux/s390x\)$",
    ) as caught:
        store.resolve("multi:1", "linux/s390x")
    assert caught.value.hint == "there is linux/arm64/v8, linux/amd64, linux/arm/v7"


def test_an_image_of_an_index_by_its_own_id(store: Store, files: dict[str, bytes]) -> None:
    archive(store, files)
    for image in (AMD, ARM, ARM7):
        assert store.resolve(image.id).id == store.resolve(image.id[7:19]).id == image.id
    store.tag(ARM7.id, "seven")
    assert store.resolve("seven").id == ARM7.id
    with pytest.raises(ImageNotFound):
        store.resolve("seven", "linux/amd64")


def test_one_platform_of_an_index(store: Store, files: dict[str, bytes]) -> None:
    assert archive(store, files, "linux/arm/v7") == [("multi:1", ARM7.id)]
    assert set(store.layout.blobs) == {ARM7.id, store.resolve("multi:1").descriptor.digest, *blob_digests(store)}
    with pytest.raises(ImageFormatError, match="holds no image for linux/s390x of multi:1"):
        archive(store, files, "linux/s390x")
    assert store.verify() == []


def blob_digests(store: Store) -> list[str]:
    return [blob.digest for blob in store.resolve("multi:1").layers]


def test_platforms_that_were_left_out_of_an_archive(store: Store, files: dict[str, bytes]) -> None:
    """As docker saves an index of which it has pulled one platform."""
    blobs = Blobs()
    blobs.image(ARM, "gzip")
    for name in blobs.files:
        del files[name]
    archive(store, files)
    assert store.resolve("multi:1", "linux/amd64").id == AMD.id
    with pytest.raises(ImageNotFound):
        store.resolve("multi:1", "linux/arm64")
    assert store.verify() == []
    out = io.BytesIO()
    store.save(["multi:1"], out)
    assert [one.name for one in store.load(io.BytesIO(out.getvalue()))] == ["multi:1"]


def test_all_platforms_go_out_and_come_in_again(store: Store, files: dict[str, bytes], tmp_path: Path) -> None:
    archive(store, files)
    for format in ("docker-archive", "oci-archive", "oci-dir"):
        store.save(["multi:1"], tmp_path / format, format=format)
        other = open_store(tmp_path, f"from-{format}")
        other.load(tmp_path / format)
        assert set(other.layout.blobs) == set(store.layout.blobs)
        assert other.verify() == []
    store.save(["multi:1"], tmp_path / "arm.tar", platform="linux/arm64")
    assert [(one.name, one.id) for one in open_store(tmp_path, "arm").load(tmp_path / "arm.tar")] == [
        ("multi:1", ARM.id)
    ]


def test_removing_an_index_removes_all_of_it(store: Store, files: dict[str, bytes]) -> None:
    archive(store, files)
    deleted = {one.what for one in store.remove("multi:1")}
    assert {AMD.id, ARM.id, ARM7.id} <= deleted
    assert set(store.layout.blobs) == set()


def test_indexes_within_an_index(store: Store) -> None:
    blobs = Blobs()
    inner = blobs.index(blobs.image(ARM), blobs.image(AMD))
    archive(store, blobs.layout(named(blobs.index(inner), "deep:1"), inner))
    assert store.resolve("deep:1", "linux/arm64").id == ARM.id
    assert store.verify() == []


def test_signatures_and_artifacts_are_kept_beside_the_images(store: Store) -> None:
    blobs = Blobs()
    image = blobs.image(AMD)
    empty = blobs.add(b"{}", f"{OCI[:-6]}empty.v1+json".replace("vnd.oci.", "vnd.oci."))
    artifact = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "artifactType": "application/vnd.example+json",
        "config": empty,
        "layers": [blobs.add(b"any bytes", "text/plain")],
        "subject": image,
    }
    signature = blobs.add(as_json(artifact), f"{OCI}manifest.v1+json")
    archive(store, blobs.layout(named(blobs.index(image, signature), "signed:1"), named(signature, "alone:1")))
    assert names(store) == ["signed:1"]
    assert sha256(b"any bytes") in set(store.layout.blobs)
    assert store.verify() == []


def test_dockers_media_types_in_a_layout(store: Store) -> None:
    blobs = Blobs()
    config = blobs.add(AMD.config, f"{DOCKER}container.image.v1+json")
    tar = blobs.add(AMD.layers[0], f"{DOCKER}image.rootfs.diff.tar")
    kind = f"{DOCKER}distribution.manifest.v2+json"
    manifest = blobs.add(as_json({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [tar]}), kind)
    kind = f"{DOCKER}distribution.manifest.list.v2+json"
    listed = {"schemaVersion": 2, "mediaType": kind, "manifests": [platform(manifest, "linux/amd64")]}
    archive(store, blobs.layout(named(blobs.add(as_json(listed), kind), "docker:1"), named(manifest, "docker:2")))
    assert (store.resolve("docker:1").id, store.resolve("docker:2").id) == (AMD.id, AMD.id)
    assert store.verify() == []


def test_other_digest_algorithms(store: Store) -> None:
    blobs = Blobs()
    described: dict[str, dict[str, Any]] = {}
    for what, data in (("config", AMD.config), ("layer", gzip.compress(AMD.layers[0], mtime=0))):
        digits = hashlib.sha512(data).hexdigest()
        blobs.files[f"blobs/sha512/{digits}"] = data
        described[what] = {"digest": f"sha512:{digits}", "size": len(data)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": {"mediaType": f"{OCI}config.v1+json", **described["config"]},
        "layers": [{"mediaType": f"{OCI}layer.v1.tar+gzip", **described["layer"]}],
    }
    descriptor = blobs.add(as_json(manifest), f"{OCI}manifest.v1+json")
    files = blobs.layout(named(descriptor, "strong:1"))
    archive(store, files)
    assert store.resolve("strong:1").id == described["config"]["digest"]
    assert store.verify() == []
    path = f"blobs/sha512/{described['layer']['digest'][7:]}"
    other = open_store(Path(os.fsdecode(store.directory)).parent, "other")
    changed = bytearray(files[path])
    changed[4] ^= 1  # the time in gzip's header, which changes nothing of what is in it
    with pytest.raises(ImageFormatError, match="is damaged: its digest is sha512:"):
        archive(other, {**files, path: bytes(changed)})


def test_names_of_a_layout_come_from_where_they_stand(store: Store) -> None:
    blobs = Blobs()
    image = blobs.image(AMD)
    full = {"io.containerd.image.name": "docker.io/library/full:3", "org.opencontainers.image.ref.name": "3"}
    files = blobs.layout({**image, "annotations": full}, named(image, "docker.io/library/ref:1"), image)
    assert archive(store, files) == [("full:3", AMD.id), ("ref:1", AMD.id)]
    # As docker before 25 wrote it through skopeo: names in manifest.json alone.
    blobs = Blobs()
    image = blobs.image(ARM)
    files = blobs.layout(image)
    entry = {"Config": f"blobs/sha256/{ARM.id[7:]}", "RepoTags": ["only:here"], "Layers": []}
    files["manifest.json"] = as_json([entry])
    assert archive(store, files) == [("only:here", ARM.id)]


def test_an_index_json_without_images_loads_nothing(store: Store) -> None:
    assert archive(store, Blobs().layout()) == []
    assert store.images() == []


def test_what_a_layout_has_besides_is_left(store: Store) -> None:
    files = oci_files([made_image("x:1", layer(a="a"))]) | {"README": b"hello", "blobs/sha256/README": b"x"}
    assert archive(store, files)[0][0] == "x:1"
    assert json.loads(Path(os.fsdecode(store.directory), "index.json").read_bytes())["schemaVersion"] == 2
