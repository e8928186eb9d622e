"""The root file system of an image as one tar, and images made of one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden.hostile_tars import archive, entry
from tests.unit.image_rig import layer, listing, made_image, names, oci, old_docker, open_store
from unionfs.changeset.tar_format import DIR, LINK, REG, SYMLINK
from unionfs.errors import ImageError, ImageFormatError, ReferenceFormatError
from unionfs.image.results import StoredLayer
from unionfs.image.store import Store

BASE = archive(
    entry(b"etc", DIR, mode=0o755),
    entry(b"etc/one", data=b"1", mode=0o4755, uid=7),
    entry(b"etc/two", data=b"2"),
    entry(b"hidden", DIR, mode=0o700),
    entry(b"hidden/x", data=b"x"),
    entry(b"link", SYMLINK, linkname=b"etc/one"),
)
TOP = archive(
    entry(b"etc/.wh.two"),
    entry(b"hidden/.wh..wh..opq"),
    entry(b"hidden/y", data=b"y"),
    entry(b"again", LINK, linkname=b"etc/one"),  # to what the layer below has
    entry(b"new", DIR, mode=0o711),
    entry(b"new/own", REG, b"own"),
    entry(b"new/own2", LINK, linkname=b"new/own"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_layers_are_merged(store: Store, compression: str) -> None:
    store.load(io.BytesIO(oci([made_image("a:1", BASE, TOP)], compression)))
    out = io.BytesIO()
    told: list[int] = []
    store.export("a:1", out, progress=told.append)
    found = members(out.getvalue())
    assert sorted(found) == ["again", "etc", "etc/one", "hidden", "hidden/y", "link", "new", "new/own", "new/own2"]
    assert (found["etc/one"].mode, found["etc/one"].uid, found["new"].mode) == (0o4755, 7, 0o711)
    assert (found["link"].linkname, found["new/own2"].linkname) == ("etc/one", "new/own")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        again = tar.extractfile("again")
        assert again is not None and again.read() == b"1"
    assert told and told[-1] <= len(out.getvalue())


def test_an_export_imported_shows_the_same(store: Store, tmp_path: Path) -> None:
    store.load(io.BytesIO(old_docker([made_image("a:1", BASE, TOP)])))
    store.export("a:1", tmp_path / "root.tar")
    image = store.import_(tmp_path / "root.tar", "flat:1")
    assert len(image.layers) == 1 and image.names == ("flat:1",)
    out = io.BytesIO()
    store.export("flat:1", out)
    assert out.getvalue() == (tmp_path / "root.tar").read_bytes()
    assert store.verify() == []


@pytest.mark.parametrize("data", [layer(a="a"), gzip.compress(layer(a="a"), mtime=0)], ids=["plain", "gzip"])
def test_an_image_of_a_tar(store: Store, data: bytes) -> None:
    told: list[int] = []
    image = store.import_(io.BytesIO(data), progress=told.append)
    assert told[-1] == len(data)
    assert (image.names, len(image.layers), image.config.history[0].comment) == ((), 1, "Imported from -")
    assert store.resolve(image.id).id == image.id
    assert store.verify() == []


def test_a_configuration_of_ones_own(store: Store) -> None:
    def config(made: StoredLayer) -> bytes:
        told: dict[str, Any] = {"architecture": "s390x", "os": "linux", "config": {"Cmd": ["x"]}}
        return json.dumps(told | {"rootfs": {"type": "layers", "diff_ids": [made.diff_id]}}).encode()

    image = store.import_(io.BytesIO(layer(a="a")), "own", config=config)
    assert (str(image.platform), image.config.config.cmd) == ("linux/s390x", ["x"])


@pytest.mark.parametrize(
    ("data", "name", "error"),
    [
        (b"text" * 200, "a:1", ImageFormatError),
        (layer(a="a")[:600], "a:1", ImageFormatError),
        (archive(entry(b"../a")), "a:1", ImageFormatError),
        (layer(a="a"), "A", ReferenceFormatError),
        (layer(a="a"), "a@sha256:" + "0" * 64, ImageError),
    ],
    ids=["text", "cut", "outside", "no name", "a digest"],
)
def test_what_is_no_root_file_system_or_no_name(store: Store, data: bytes, name: str, error: type[Exception]) -> None:
    store.import_(io.BytesIO(layer(there="there")), "there:1")
    before = listing(store)
    with pytest.raises(error):
        store.import_(io.BytesIO(data), name)
    assert listing(store) == before


def test_a_configuration_that_does_not_fit(store: Store) -> None:
    store.import_(io.BytesIO(layer(there="there")), "there:1")
    before = listing(store)
    with pytest.raises(ImageFormatError, match="has 1 layers, but 0 diff_ids"):
        store.import_(io.BytesIO(layer(a="a")), "a", config=lambda _: made_image("").config)
    assert listing(store) == before
    assert names(store) == ["there:1"]


def test_a_failure_with_a_layer_that_an_image_has_leaves_it_ready(store: Store) -> None:
    image = store.import_(io.BytesIO(layer(there="there")), "there:1")
    before = listing(store)
    with pytest.raises(ImageFormatError):
        store.import_(io.BytesIO(layer(there="there")), "a", config=lambda _: b"{}")
    assert listing(store) == before
    assert store.cache.has(image.diff_ids[0])
