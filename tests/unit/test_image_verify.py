"""`verify` finds every fault that can be put into a store, names the blob, and says nothing of a store without."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.image_rig import Blobs, layer, listing, made_image, named, oci, open_store, write_files
from unionfs.errors import ImageFormatError
from unionfs.image.digest import Digest
from unionfs.image.store import Store

ONE = made_image("one:1", layer(a="a" * 3000), layer(b="b"))
TWO = made_image("two:1", layer(c="c"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    made.load(io.BytesIO(oci([ONE, TWO], "gzip")))
    assert made.verify() == []
    return made


def path(store: Store, digest: str) -> Path:
    return Path(os.fsdecode(store.layout.blobs.path(Digest(digest))))


def flip(file: Path, at: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


BLOBS: dict[str, Callable[[Store], str]] = {
    "layer": lambda store: store.resolve("one:1").layers[0].digest,
    "config": lambda store: store.resolve("one:1").id,
    "manifest": lambda store: store.resolve("one:1").descriptor.digest,
}
DAMAGE: dict[str, Callable[[Path], object]] = {"flipped": flip, "cut": cut, "gone": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", BLOBS)
def test_a_damaged_blob_is_named(store: Store, what: str, damage: str) -> None:
    digest = BLOBS[what](store)
    manifest = store.resolve("one:1").descriptor.digest
    DAMAGE[damage](path(store, digest))
    before = listing(store)
    faults = store.verify()
    assert faults and all(digest in str(fault) for fault in faults), faults
    assert {fault.what for fault in faults} <= {digest, manifest}
    assert listing(store) == before
    assert [str(fault) for fault in store.verify("one:1")] == [str(fault) for fault in faults]
    assert store.verify("two:1") == []


def test_all_faults_are_listed(store: Store) -> None:
    for name in ("one:1", "two:1"):
        flip(path(store, store.resolve(name).layers[0].digest))
    cut(path(store, store.resolve("one:1").layers[1].digest))
    assert len(store.verify()) == 3


def test_a_diff_id_and_a_history_that_do_not_fit(tmp_path: Path) -> None:
    wrong = made_image("", layer(a="a"), rootfs={"type": "layers", "diff_ids": [TWO.diff_ids[0]]})
    digest = Digest.of(wrong.layers[0])
    short = made_image("", *ONE.layers, history=[{}])
    blobs = Blobs()
    write_files(tmp_path / "store", blobs.layout(named(blobs.image(wrong), "w:1"), named(blobs.image(short), "s:1")))
    assert [str(fault) for fault in open_store(tmp_path).verify()] == [
        f"{digest}: the layer's diff_id is {digest}, the config says {TWO.diff_ids[0]}",
        f"{short.id}: its history tells of 1 layers, and it has 2",
    ]  # fmt: skip


def test_counts_that_do_not_fit(tmp_path: Path) -> None:
    many = made_image("", layer(a="a"), rootfs={"type": "layers", "diff_ids": []}, history=[])
    blobs = Blobs()
    write_files(tmp_path / "store", blobs.layout(named(blobs.image(many), "m:1")))
    assert [fault.message for fault in open_store(tmp_path).verify()] == [
        f"the image {many.id} has 1 layers, but 0 diff_ids"
    ]


def test_a_layer_that_is_none(tmp_path: Path) -> None:
    text = made_image("", b"no tar at all" * 100)
    blobs = Blobs()
    write_files(tmp_path / "store", blobs.layout(named(blobs.image(text), "t:1")))
    [fault] = open_store(tmp_path).verify()
    assert (fault.what, fault.message.partition(":")[0]) == (text.diff_ids[0], "the layer cannot be read")


def test_blobs_that_nothing_refers_to_are_compared_too(store: Store) -> None:
    path(store, Digest.of(b"kept")).write_bytes(b"kept")
    assert store.verify() == []
    path(store, Digest.of(b"lost")).write_bytes(b"changed")
    [fault] = store.verify()
    assert fault.what == Digest.of(b"lost")
    assert store.verify("one:1") == []


def test_files_among_the_blobs_that_are_none(store: Store) -> None:
    path(store, TWO.id).with_name("notes.txt").write_text("x")
    assert [fault.message for fault in store.verify()] == ["it is no blob"]


def test_an_index_json_that_cannot_be_read(store: Store) -> None:
    index = Path(os.fsdecode(store.directory), "index.json")
    index.unlink()
    with pytest.raises(ImageFormatError, match=r"there is no index\.json"):
        store.images()
    for content, why in ((b"{", "is not JSON"), (b"[]", "index.json"), (b'{"schemaVersion":2}', "manifests")):
        index.write_bytes(content)
        [fault] = store.verify()
        assert why in fault.message


def test_an_entry_that_leads_nowhere(store: Store) -> None:
    index = Path(os.fsdecode(store.directory), "index.json")
    document = json.loads(index.read_bytes())
    document["manifests"].append(document["manifests"][0] | {"digest": Digest.of(b"nowhere")})
    index.write_text(json.dumps(document))
    [fault] = store.verify()
    assert (fault.what, fault.message) == (Digest.of(b"nowhere"), "it is missing, and index.json names it")


def test_gzip_of_other_bytes(store: Store) -> None:
    """The right size and a sound archive, but not the one."""
    layer_path = path(store, store.resolve("two:1").layers[0].digest)
    size = len(layer_path.read_bytes())
    other = gzip.compress(layer(c="d"), mtime=0)
    layer_path.write_bytes(other + bytes(size - len(other)))
    [fault] = store.verify()
    assert "damaged: its digest is" in fault.message
