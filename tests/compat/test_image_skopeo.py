"""skopeo and our image store: what either writes the other reads, with the same image ID; and skopeo in our store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.image_peers import config_digest, inspect, real_image, skopeo
from tests.requirements import requires
from tests.unit.image_rig import names, open_store
from unionfs.image.image import Image
from unionfs.image.save import Format
from unionfs.image.store import Store

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "skopeo", "tar", "setfattr")]

NAME = "example.com/real:1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("skopeo")


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return open_store(place)


@pytest.fixture(scope="module")
def image(store: Store, place: Path) -> Image:
    return real_image(store, place, NAME)


def test_skopeo_reads_the_store_where_it_is(store: Store, image: Image, place: Path) -> None:
    source = f"oci:{place}/store:{NAME}"
    assert config_digest(source) == image.id
    assert inspect(source) == json.loads(image.config_bytes)
    skopeo("copy", source, f"oci:{place}/read:x")
    assert config_digest(f"oci:{place}/read:x") == image.id


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])
def test_skopeo_reads_what_we_save(store: Store, image: Image, format: Format, tmp_path: Path) -> None:
    store.save([NAME], tmp_path / "out", format=format)
    source = f"{'oci' if format == 'oci-dir' else format}:{tmp_path}/out:{NAME}"
    skopeo("copy", source, f"oci:{tmp_path}/copy:x")
    assert config_digest(f"oci:{tmp_path}/copy:x") == image.id
    assert inspect(source) == json.loads(image.config_bytes)


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_we_load_what_skopeo_writes(store: Store, image: Image, transport: str, tmp_path: Path) -> None:
    skopeo("copy", f"oci:{store.directory.decode()}:{NAME}", f"{transport}:{tmp_path}/written:{NAME}")
    other = open_store(tmp_path, "other")
    assert [(one.name, one.id) for one in other.load(tmp_path / "written")] == [(NAME, image.id)]
    assert other.verify() == []
    assert other.resolve(NAME).config_bytes == image.config_bytes


def test_skopeo_writes_into_the_store(store: Store, image: Image, place: Path, tmp_path: Path) -> None:
    store.save([NAME], tmp_path / "a.tar")
    skopeo("copy", f"docker-archive:{tmp_path}/a.tar", f"oci:{place}/store:written:2")
    written = store.resolve("written:2")
    assert written.id == image.id
    assert store.verify() == []
    with store.using("written:2") as used:
        assert [store.cache.has(diff_id) for diff_id in used.diff_ids] == [True] * 3
    # It takes a name from an image of ours, which then has none.
    store.tag(NAME, "moved:1")
    skopeo("copy", "--dest-compress-level", "1", f"docker-archive:{tmp_path}/a.tar", f"oci:{place}/store:moved:1")
    assert store.resolve("moved:1").id == image.id
    for name in ("written:2", "moved:1"):
        store.remove(name)
    store.prune()
    assert (names(store), store.verify()) == ([NAME], [])
    assert config_digest(f"oci:{place}/store:{NAME}") == image.id


def test_layers_of_every_compression(store: Store, image: Image, tmp_path: Path) -> None:
    for format in ("gzip", "zstd"):
        skopeo("copy", "--dest-compress-format", format, "--dest-compress", "--dest-oci-accept-uncompressed-layers",
               f"oci:{store.directory.decode()}:{NAME}", f"oci:{tmp_path}/{format}:x")  # fmt: skip
        other = open_store(tmp_path, f"store-{format}")
        assert other.load(tmp_path / format)[0].id == image.id
        assert other.verify() == []
