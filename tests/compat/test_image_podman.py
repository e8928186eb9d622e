"""podman and our image store: its archives load here and ours there, with equal image IDs and names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.image_peers import Podman, real_image
from tests.requirements import requires
from tests.unit.image_rig import names, open_store
from unionfs.image.image import Image
from unionfs.image.save import Format
from unionfs.image.store import Store

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "podman", "tar", "setfattr")]

NAMES = ("real:1", "example.com:5000/team/real:2")
#: Short names in a docker archive, ours or docker's own, are podman's own business.
FULL = {"localhost/real:1", "example.com:5000/team/real:2"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def image(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Image:
    made = real_image(store, tmp_path_factory.mktemp("layers"), NAMES[0])
    store.tag(NAMES[0], NAMES[1])
    return made


@pytest.fixture
def podman() -> Iterator[Podman]:
    made = Podman()
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(store: Store, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with our image."""
    directory = tmp_path_factory.mktemp("podman")
    store.save(NAMES, directory / "a.tar")
    made = Podman()
    told = made("load", "-i", str(directory / "a.tar")).splitlines()
    assert sorted(told) == sorted(f"Loaded image: {name}" for name in FULL)
    yield made
    made.close()


def test_podman_loads_our_docker_archive(loaded: Podman, image: Image) -> None:
    assert loaded.images() == dict.fromkeys(FULL, image.id)
    assert loaded("run", "--help")  # it is a podman that works
    assert loaded("image", "inspect", "-f", "{{.Labels.a}} {{len .RootFS.Layers}}", "real:1").split() == ["ü", "3"]


def test_podman_loads_our_oci_archive(store: Store, image: Image, podman: Podman, tmp_path: Path) -> None:
    store.save([NAMES[1]], tmp_path / "o.tar", format="oci-archive")
    podman("load", "-i", str(tmp_path / "o.tar"))
    assert podman.images() == {NAMES[1]: image.id}


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])
def test_we_load_what_podman_saves(loaded: Podman, image: Image, format: Format, tmp_path: Path) -> None:
    loaded("save", "--format", format, "-o", str(tmp_path / "saved"), NAMES[1])
    other = open_store(tmp_path)
    assert [one.id for one in other.load(tmp_path / "saved")] == [image.id]
    assert other.resolve(NAMES[1]).config_bytes == image.config_bytes
    assert other.verify() == []


def test_we_load_several_images_of_one_archive(loaded: Podman, image: Image, tmp_path: Path) -> None:
    loaded("save", "-m", "-o", str(tmp_path / "saved.tar"), *sorted(FULL))
    other = open_store(tmp_path)
    other.load(tmp_path / "saved.tar")
    assert names(other) == sorted(FULL)
    assert {one.id for one in other.images()} == {image.id}


def test_podman_pulls_from_the_store_where_it_is(store: Store, image: Image, podman: Podman) -> None:
    podman("pull", "-q", f"oci:{store.directory.decode()}:{NAMES[0]}")
    assert set(podman.images().values()) == {image.id}
