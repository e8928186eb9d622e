"""docker and our image store: its archives load here and ours there, with equal image IDs, names and trees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.image_peers import Docker, real_image
from tests.requirements import requires
from tests.unit.image_rig import layer, made_image, names, old_docker, open_store
from unionfs.image.image import Image
from unionfs.image.store import Store

pytestmark = [
    pytest.mark.peer,
    pytest.mark.needs_root,
    requires("root", "docker", "dockerd", "unshare", "tar", "setfattr"),
]

NAMES = ("real:1", "example.com:5000/team/real:2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def image(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Image:
    made = real_image(store, tmp_path_factory.mktemp("layers"), NAMES[0])
    store.tag(NAMES[0], NAMES[1])
    return made


@pytest.fixture(scope="module")
def docker(store: Store, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """docker with our image."""
    archive = tmp_path_factory.mktemp("saved") / "a.tar"
    store.save(NAMES, archive)
    made = Docker()
    try:
        assert sorted(made("load", "-i", str(archive)).splitlines()) == sorted(
            f"Loaded image: {name}" for name in NAMES
        )
        yield made
    finally:
        made.close()


def test_docker_has_the_image_that_we_saved(docker: Docker, store: Store, image: Image) -> None:
    listed = docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").split("\n")[:-1]
    assert sorted(listed) == sorted(f"{name} {image.id}" for name in NAMES)
    theirs, ours = json.loads(docker("inspect", NAMES[0]))[0], store.inspect(NAMES[0])
    for key in ("Id", "RepoTags", "Created", "Architecture", "Os", "RootFS"):
        assert (key, sorted(theirs[key]) if key == "RepoTags" else theirs[key]) == (
            key, sorted(ours[key]) if key == "RepoTags" else ours[key],
        )  # fmt: skip
    told = docker("history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", NAMES[0]).splitlines()
    rows = store.history(NAMES[0])
    assert told == [f"{row.id or '<missing>'} {row.created_by}" for row in rows]


def test_we_load_what_docker_saves(docker: Docker, image: Image, tmp_path: Path) -> None:
    docker("save", "-o", str(tmp_path / "saved.tar"), *NAMES)
    other = open_store(tmp_path)
    assert {(one.name, one.id) for one in other.load(tmp_path / "saved.tar")} == {(name, image.id) for name in NAMES}
    assert other.resolve(NAMES[0]).config_bytes == image.config_bytes
    assert other.verify() == []


def test_what_we_made_of_an_archive_goes_on_to_docker(docker: Docker, tmp_path: Path) -> None:
    """Without layers, without names, and with the same layer twice."""
    tar = layer(a="a")
    images = [made_image("twice:1", tar, tar), made_image("scratch:1"), made_image("", tar)]
    other = open_store(tmp_path)
    (tmp_path / "old.tar").write_bytes(old_docker(images))
    other.load(tmp_path / "old.tar")
    other.save([*names(other), images[2].id], tmp_path / "new.tar")
    told = docker("load", "-i", str(tmp_path / "new.tar")).splitlines()
    assert {"Loaded image: scratch:1", "Loaded image: twice:1", f"Loaded image ID: {images[2].id}"} <= set(told)
    assert docker("inspect", "-f", "{{.Id}}", "twice:1").strip() == images[0].id
