"""umoci in our store: it unpacks our images to the tree that our layers and our mount show, and changes them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.compat.image_peers import applied, real_image
from tests.compat.real_mount import run
from tests.golden.trees import describe
from tests.requirements import need, requires
from tests.unit.image_rig import names, open_store
from unionfs import api
from unionfs.image.image import Image
from unionfs.image.store import Store

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "umoci", "tar", "setfattr")]

NAME = "example.com/real:1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("umoci")


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return open_store(place)


@pytest.fixture(scope="module")
def image(store: Store, place: Path) -> Image:
    return real_image(store, place, NAME)


@pytest.fixture(scope="module")
def unpacked(image: Image, place: Path) -> list[str]:
    """The image's tree as umoci unpacks it."""
    run("umoci", "unpack", "--image", f"{place}/store:{NAME}", str(place / "bundle"), timeout=120)
    return describe(place / "bundle/rootfs")


def test_umoci_unpacks_what_our_layers_give(store: Store, image: Image, unpacked: list[str], tmp_path: Path) -> None:
    assert describe(applied(store, image, tmp_path / "applied")) == unpacked


def test_umoci_unpacks_what_export_writes(store: Store, unpacked: list[str], tmp_path: Path) -> None:
    store.export(NAME, tmp_path / "root.tar")
    root = tmp_path / "root"
    root.mkdir()
    run("tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore",
        "-C", str(root), "-f", str(tmp_path / "root.tar"))  # fmt: skip
    assert describe(root)[1:] == unpacked[1:]  # a tar of a root file system has no entry for the root
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert not any("/.wh." in f"/{name}" for name in tar.getnames())


@pytest.mark.needs_fuse
def test_umoci_unpacks_what_a_mount_shows(store: Store, image: Image, unpacked: list[str], tmp_path: Path) -> None:
    need("fuse")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    blobs = [store.layout.blobs.path(blob.digest) for blob in reversed(image.layers)]
    os.environ["UNIONFS_CACHE"] = os.fsdecode(store.cache.root)
    try:
        api.mount(mountpoint, blobs)
        assert describe(mountpoint) == unpacked
    finally:
        del os.environ["UNIONFS_CACHE"]
        api.umount(mountpoint)


def test_umoci_changes_an_image_of_the_store(store: Store, image: Image, place: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new\n")
    target = f"{place}/store:{NAME}"
    run("umoci", "tag", "--image", target, "by-umoci")
    run("umoci", "insert", "--image", f"{place}/store:by-umoci", str(tmp_path / "new"), "/etc/new", timeout=120)
    run("umoci", "config", "--image", f"{place}/store:by-umoci", "--config.label", "who=umoci")
    changed = store.resolve("by-umoci")
    assert (len(changed.layers), changed.config.config.labels["who"]) == (4, "umoci")
    assert changed.layers[:3] == image.layers
    assert store.verify() == []
    # Its layer ends without an end marker, amid a block; since its digest says that it is whole, we read it.
    store.export("by-umoci", tmp_path / "root.tar")
    with tarfile.open(tmp_path / "root.tar") as tar:
        member = tar.extractfile("etc/new")
        assert member is not None and member.read() == b"new\n"
    run("umoci", "gc", "--layout", f"{place}/store")  # it leaves what is ours alone
    assert names(store) == ["by-umoci:latest", NAME]
    store.remove("by-umoci")
    assert store.verify() == []
