"""Images removed as docker removes them, what a mount uses kept, and what is left over pruned."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.image_rig import (
    Blobs,
    Made,
    layer,
    listing,
    made_image,
    named,
    oci,
    old_docker,
    open_store,
    write_files,
)
from unionfs.errors import ImageInUse, ImageNotFound, OptionError
from unionfs.image import platforms
from unionfs.image.digest import Digest, chain_ids
from unionfs.image.results import Use
from unionfs.image.store import Store

BASE, TOP = layer(base="base"), layer(top="top")
ONE = made_image("a:1 a:2 b:1", BASE)
TWO = made_image("two:1", BASE, TOP)
MOUNT = Use("the mount on /mnt", "unmount it first")


def load(store: Store, *images: Made) -> None:
    store.load(io.BytesIO(old_docker(images)))


def open_store_with(tmp_path: Path, *images: Made) -> Store:
    made = open_store(tmp_path)
    load(made, *images)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store_with(tmp_path, ONE, TWO)


def texts(store: Store, name: str, force: bool = False) -> list[str]:
    return [one.text for one in store.remove(name, force=force)]


def chains(image: Made) -> list[str]:
    return list(chain_ids(Digest(diff_id) for diff_id in image.diff_ids))


def blobs(store: Store) -> set[str]:
    return set(store.layout.blobs)


def test_a_name_goes_and_with_the_last_one_the_image(store: Store) -> None:
    assert texts(store, "a:1") == ["Untagged: a:1"]
    assert texts(store, "docker.io/library/b:1") == ["Untagged: b:1"]
    # Its layer is the other image's, too.
    assert texts(store, "a:2") == ["Untagged: a:2", f"Deleted: {ONE.id}"]
    assert texts(store, "two:1") == [
        "Untagged: two:1", f"Deleted: {TWO.id}", *(f"Deleted: {chain}" for chain in chains(TWO)[::-1]),
    ]  # fmt: skip
    assert (store.images(), blobs(store), os.listdir(store.cache.root + b"/indexes")) == ([], set(), [])


def test_an_image_with_several_names_is_removed_by_id_by_force_only(store: Store) -> None:
    before = listing(store)
    with pytest.raises(
        ImageInUse, match=r"unable to delete [0-9a-f]{12} \(must be forced\) - image is referenced in multiple"
    ):
        store.remove(ONE.id[7:20])
    store.untag("b:1", ["b:1"])
    with pytest.raises(ImageInUse, match="referenced in several tags"):
        store.remove(ONE.id)
    assert texts(store, ONE.id, force=True) == ["Untagged: a:1", "Untagged: a:2", f"Deleted: {ONE.id}"]
    assert set(listing(store)) < set(before)
    assert store.verify() == []


def test_an_image_with_one_name_is_removed_by_its_id(store: Store) -> None:
    assert texts(store, TWO.id[7:19])[:2] == ["Untagged: two:1", f"Deleted: {TWO.id}"]
    with pytest.raises(ImageNotFound):
        store.remove(TWO.id)


def test_an_image_of_several_in_an_index_does_not_go_alone_nor_with_all_of_them(tmp_path: Path) -> None:
    made = Blobs()
    mine = made_image("", layer(a="a"), architecture=platforms.host().architecture)
    theirs = made_image("", layer(b="b"), architecture="other")
    alone = made.image(theirs)
    index = made.index(made.image(mine), alone)
    write_files(tmp_path / "store", made.layout(named(alone, "alone:1"), named(index, "all:1")))
    store = open_store(tmp_path)
    # What stands for itself is meant rather than a part of something.
    assert texts(store, theirs.id)[0] == "Untagged: alone:1"
    for name in (theirs.id, theirs.id[7:19], alone["digest"]):
        with pytest.raises(ImageInUse, match="it is one of the images of all:1"):
            store.remove(name, force=True)
    assert store.resolve(theirs.id).id == theirs.id
    assert texts(store, mine.id)[:2] == ["Untagged: all:1", f"Deleted: {mine.id}"]
    assert blobs(store) == set()


def test_the_other_images_are_whole_afterwards(store: Store) -> None:
    store.remove("two:1")
    assert store.verify() == []
    with store.using("a:1") as image:
        store.cache.open(image.diff_ids[0]).close()


# in use ---------------------------------------------------------------------------------------------------------------
def test_an_image_that_a_mount_uses_keeps_its_last_name_and_its_layers(tmp_path: Path) -> None:
    uses = {TWO.id: MOUNT}
    store = open_store(tmp_path, in_use=lambda: uses)
    load(store, ONE, TWO)
    before = listing(store)
    with pytest.raises(
        ImageInUse, match=r'unable to remove repository reference "two:1" \(must force\) - the mount on /mnt'
    ):
        store.remove("two:1")
    for force in (False, True):
        with pytest.raises(ImageInUse, match=r"\(cannot be forced\) - image is being used by the mount on /mnt"):
            store.remove(TWO.id, force=force)
    assert listing(store) == before
    assert texts(store, "two:1", force=True) == ["Untagged: two:1"]
    assert [one.names for one in store.images() if one.id == TWO.id] == [()]
    assert store.prune(all=True).removed != ()
    assert [one.id for one in store.images()] == [TWO.id]
    assert store.verify() == []
    uses.clear()
    assert store.prune().removed[0].what == TWO.id
    assert blobs(store) == set()


def test_one_of_several_names_of_an_image_in_use_goes(tmp_path: Path) -> None:
    store = open_store(tmp_path, in_use=lambda: {ONE.id: MOUNT})
    load(store, ONE)
    assert texts(store, "a:1") == ["Untagged: a:1"]


def test_a_layer_in_use_that_another_image_has_as_well_is_in_nobodys_way(tmp_path: Path) -> None:
    store = open_store(tmp_path, in_use=lambda: {ONE.diff_ids[0]: MOUNT})
    load(store, ONE, TWO)
    assert texts(store, TWO.id)[0] == "Untagged: two:1"
    with pytest.raises(ImageInUse, match="is being used by the mount on /mnt"):
        store.remove(ONE.id, force=True)


# prune ----------------------------------------------------------------------------------------------------------------
def test_prune_takes_what_has_no_name(store: Store) -> None:
    load(store, made_image("two:1", TOP))
    size = os.stat(store.layout.blobs.path(Digest(TWO.id))).st_size
    pruned = store.prune()
    assert [one.text for one in pruned.removed] == [f"Deleted: {TWO.id}", f"Deleted: {chains(TWO)[1]}"]
    assert pruned.reclaimed > size
    assert store.prune().removed == ()
    assert store.verify() == []


def test_prune_takes_blobs_that_nothing_refers_to(store: Store) -> None:
    lost = Digest.of(b"lost")
    Path(os.fsdecode(store.layout.blobs.path(lost))).write_bytes(b"lost")
    pruned = store.prune()
    assert ([one.text for one in pruned.removed], pruned.reclaimed) == ([f"Deleted: {lost}"], 4)
    assert [one.id for one in store.images()] and store.verify() == []


def test_prune_takes_all_that_is_not_used(store: Store) -> None:
    store.prune(all=True)
    assert (store.images(), blobs(store)) == ([], set())
    assert os.listdir(store.cache.root + b"/indexes") == []


def test_a_layer_of_several_images_is_told_of_once_when_all_of_them_go(tmp_path: Path) -> None:
    pruned = open_store_with(tmp_path, ONE, TWO).prune(all=True)
    deleted = [one.text for one in pruned.removed if one.text.startswith("Deleted")]
    ids = {ONE.id, TWO.id, *chains(ONE), *chains(TWO)}
    assert sorted(deleted) == sorted(f"Deleted: {id}" for id in ids)


def test_prune_of_many_images_reads_each_document_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = 40
    store = open_store_with(tmp_path, *(made_image(f"many:{i}", layer(f=str(i))) for i in range(many)))
    read, reads = store.layout.blobs.read, Counter[Digest]()

    def counted(digest: Digest, limit: int, size: int | None = None) -> bytes:
        reads[digest] += 1
        return read(digest, limit, size)

    monkeypatch.setattr(store.layout.blobs, "read", counted)
    assert len(store.prune(all=True).removed) == 3 * many
    assert len(reads) == 2 * many and max(reads.values()) <= 5


def test_prune_by_label(store: Store) -> None:
    load(store, made_image("", layer(a="a"), config={"Labels": {"keep": "no"}}), made_image("", layer(b="b")))
    store.prune(filters=["label=keep=no"])
    assert len(store.images(filters=["dangling=true"])) == 1
    with pytest.raises(OptionError, match="invalid filter"):
        store.prune(filters=["dangling=true"])


def test_prune_of_all_but_a_label_and_of_what_is_old(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    made = [
        made_image("", layer(a="a"), config={"Labels": {"keep": "yes"}}, created="2020-01-01T00:00:00Z"),
        made_image("", layer(b="b"), config={"Labels": {"keep": "no"}}, created="2021-01-01T00:00:00Z"),
        made_image("", layer(c="c"), created="2022-01-01T00:00:00Z"),
        made_image("", layer(d="d"), created="0001-01-01T00:00:00Z"),
    ]
    load(store, *made)

    def left(*filters: str) -> set[str]:
        store.prune(filters=filters)
        return {one.id for one in store.images()}

    ids = [one.id for one in made]
    assert left("until=2019-01-01") == set(ids)
    assert left("until=2021-01-01T00:00:00Z", "label!=keep=yes") == {ids[0], *ids[2:]}
    assert left("label!=keep", "until=1h") == {ids[0], ids[3]}
    assert left("label!=keep", "label!=other") == {ids[0]}
    assert left("until=1h") == set()


def test_prune_of_a_damaged_store_removes_nothing_that_may_be_needed(store: Store) -> None:
    manifest = store.layout.blobs.path(store.resolve("two:1").descriptor.digest)
    Path(os.fsdecode(manifest)).write_bytes(b"damaged")
    before = listing(store)
    with pytest.raises(Exception, match="bytes, not"):
        store.prune()
    assert listing(store) == before
    # The damaged image can be removed, and then all is well.
    assert texts(store, "two:1") == ["Untagged: two:1"]
    assert store.verify() == []
    store.prune()
    assert set(store.layout.blobs) == {Digest(ONE.id), *ONE.diff_ids, store.resolve("a:1").descriptor.digest}


def test_what_is_no_image_is_removed_by_name_and_digest(tmp_path: Path) -> None:
    made = Blobs()
    signature = made.add(b'{"signed":true}', "application/vnd.example.signature+json")
    image = made.image(ONE)
    write_files(tmp_path / "store", made.layout(named(signature, "sig:1"), named(image, "a:1")))
    store = open_store(tmp_path)
    assert [one.names for one in store.images()] == [("a:1",)]
    assert texts(store, "sig:1") == ["Untagged: sig:1"]
    assert signature["digest"] not in blobs(store)
    assert store.verify() == []


def test_prune_takes_a_second_manifest_of_an_image_that_lost_its_name(tmp_path: Path) -> None:
    """The same image, compressed otherwise: its ID has a name, but this manifest has none."""
    store = open_store(tmp_path)
    store.load(io.BytesIO(oci([ONE], "")))
    plain = store.resolve("a:1").descriptor.digest
    store.load(io.BytesIO(oci([ONE], "gzip")))
    compressed = store.resolve("a:1").descriptor.digest
    assert [(one.names, set(one.digests)) for one in store.images()] == [(("a:1", "a:2", "b:1"), {plain, compressed})]
    assert store.prune().removed[0].text == f"Deleted: {plain}"
    assert [one.digests for one in store.images()] == [(compressed,)]
    assert plain not in blobs(store) and store.verify() == []
    with store.using("a:1") as image:
        store.cache.open(image.diff_ids[0]).close()


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_prune_forgets_what_was_unpacked_of_an_image_that_another_tool_removed(
    tmp_path: Path, compression: str
) -> None:
    store = open_store(tmp_path)
    store.load(io.BytesIO(oci([ONE, TWO], compression)))
    (tmp_path / "store/index.json").write_bytes(Blobs().layout()["index.json"])
    store.prune()
    assert blobs(store) == set()
    assert [os.listdir(store.cache.root + kind) for kind in (b"/tars", b"/indexes", b"/places", b"/files")] == [[]] * 4
