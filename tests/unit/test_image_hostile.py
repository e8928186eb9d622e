"""Archives that lie, are broken, or mean harm: an error that names the fault, and a store in which nothing changed.

Made, not stored: one line says each. Every one raises ImageFormatError and no other error.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.golden.hostile_tars import archive, entry, patched
from tests.unit.image_rig import (
    OCI,
    Blobs,
    as_json,
    files_tar,
    hex_of,
    index_json,
    layer,
    listing,
    made_image,
    named,
    new_docker,
    oci,
    old_docker,
    open_store,
    podman,
    sha256,
    write_files,
)
from unionfs.changeset.tar_format import CHR, FIFO, LINK, REG, SYMLINK
from unionfs.errors import ImageFormatError
from unionfs.image.store import Store

TAR = layer(a="1", b="2")
IMAGE = made_image("victim:1", TAR)
GOOD = made_image("good:1", layer(good="good"))


def docker(config: bytes = IMAGE.config, tar: bytes = TAR, **entry: Any) -> bytes:
    """The smallest archive; `entry` replaces fields of its manifest.json."""
    told = {"Config": "c.json", "RepoTags": ["victim:1"], "Layers": ["l.tar"]} | entry
    return files_tar({"c.json": config, "l.tar": tar, "manifest.json": as_json([told])})


def with_manifest(manifest: bytes) -> bytes:
    return files_tar({"c.json": IMAGE.config, "l.tar": TAR, "manifest.json": manifest})


def with_member(*members: bytes) -> bytes:
    return archive(
        *members,
        entry(b"c.json", data=IMAGE.config),
        entry(b"l.tar", data=TAR),
        entry(b"manifest.json", data=as_json([{"Config": "c.json", "RepoTags": [], "Layers": ["l.tar"]}])),
    )


def config_with(**fields: Any) -> bytes:
    return as_json(json.loads(IMAGE.config) | fields)


def with_layer(tar: bytes) -> bytes:
    return old_docker([made_image("victim:1", tar)])


def hybrid(**replaced: bytes) -> bytes:
    """docker's newest, with some files replaced ("index", "layout", "layer", "config", "manifest")."""
    blobs = Blobs()
    descriptor = blobs.image(IMAGE)
    files = blobs.layout(named(descriptor, "victim:1"))
    names = {
        "index": "index.json",
        "layout": "oci-layout",
        "layer": f"blobs/sha256/{hex_of(TAR)}",
        "config": f"blobs/sha256/{hex_of(IMAGE.config)}",
        "manifest": f"blobs/sha256/{descriptor['digest'][7:]}",
    }
    for what, data in replaced.items():
        if data:
            files[names[what]] = data
        else:
            del files[names[what]]
    return files_tar(files)


def oci_of(make: Callable[[Blobs], list[Mapping[str, Any]]]) -> bytes:
    blobs = Blobs()
    descriptors = make(blobs)
    return files_tar(blobs.layout(*descriptors))


def cyclic(blobs: Blobs) -> list[Mapping[str, Any]]:
    """An index that names itself: its bytes cannot have the digest that they say."""
    digest = sha256(b"round and round")
    me = {"mediaType": f"{OCI}index.v1+json", "digest": digest, "size": 0}
    data = index_json(me)
    for _ in range(3):  # until the size is its own
        me["size"] = len(data)
        data = index_json(me)
    blobs.files[f"blobs/sha256/{digest[7:]}"] = data
    return [me]


def deep(blobs: Blobs) -> list[Mapping[str, Any]]:
    descriptor: Mapping[str, Any] = blobs.image(IMAGE)
    for _ in range(10):
        descriptor = blobs.index(descriptor)
    return [descriptor]


def manifest_with(**fields: Any) -> Callable[[Blobs], list[Mapping[str, Any]]]:
    def make(blobs: Blobs) -> list[Mapping[str, Any]]:
        made = blobs.image(IMAGE)
        manifest = json.loads(blobs.files[f"blobs/sha256/{made['digest'][7:]}"])
        return [blobs.add(as_json(manifest | fields), f"{OCI}manifest.v1+json")]

    return make


def zeros(size: int) -> bytes:
    """gzip of so many zeros, a multiple of 64 MiB. (Members of a gzip file are one stream.)"""
    return gzip.compress(bytes(1 << 26), 9) * (size >> 26)


def big_member(size: int) -> bytes:
    """gzip of a tar header, to be followed by that of its data."""
    return gzip.compress(patched(entry(b"l.tar")[:512], 124, b"%011o\0" % size))


FAULTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    # no archive, or half of one
    "nothing": ("the archive is empty", lambda: b""),
    "text": ("this is no image archive: a header's checksum", lambda: b"hello" * 200),
    "half a member": ("ends inside a file", lambda: old_docker([IMAGE])[: 3 * 512 + 700]),
    "no end": ("ends without its end marker", lambda: old_docker([IMAGE])[:-1024]),
    "half, compressed": ("gzip data ends early", lambda: gzip.compress(old_docker([IMAGE]))[:-20]),
    "damaged, compressed": ("corrupt gzip data", lambda: _flip(gzip.compress(old_docker([IMAGE])), 60)),
    "no manifest.json": (r"invalid archive: does not contain a manifest\.json", lambda: files_tar({"a": b"b"})),
    # manifest.json
    "manifest of nothing": ("manifest.json is not JSON", lambda: with_manifest(b"")),
    "manifest no list": (r"manifest.json is not a list of images", lambda: with_manifest(b"{}")),
    "manifest of numbers": ("manifest.json, image 0", lambda: with_manifest(b"[1]")),
    "manifest without config": ("manifest.json, image 0: Config", lambda: with_manifest(b'[{"Layers":[]}]')),
    "a key twice": (
        "the key 'Config' stands twice",
        lambda: with_manifest(b'[{"Config":"c.json","Config":"c.json","Layers":["l.tar"]}]'),
    ),
    "deep JSON": ("nested more than 64 deep", lambda: with_manifest(b"[" * 1_000_000)),
    "oversized manifest": ("more than 4194304 are refused", lambda: with_manifest(b" " * (5 << 20))),
    "oversized config": ("more than 16777216 are refused", lambda: docker(config=b" " * (17 << 20))),
    "config absent": ("the archive has no 'd.json'", lambda: docker(Config="d.json")),
    "layer absent": ("the archive has no 'm.tar'", lambda: docker(Layers=["m.tar"])),
    "config outside": ("'../../etc/passwd', which leads out of it", lambda: docker(Config="../../etc/passwd")),
    "layer outside": ("'/etc/passwd', which leads out of it", lambda: docker(Layers=["/etc/passwd"])),
    "name with a NUL": ("which leads out of it", lambda: docker(Layers=["l.tar\0"])),
    "a name in capitals": ("a name that is none: .*lowercase: 'UPPER:1'", lambda: docker(RepoTags=["UPPER:1"])),
    "a name with an escape": ("invalid reference format: 'a:.x1b", lambda: docker(RepoTags=["a:\x1b[31m"])),
    "a name with a digest": ("a tag with a digest", lambda: docker(RepoTags=[f"a@{IMAGE.id}"])),
    "a digest as a name": ("digest algorithm as name", lambda: docker(RepoTags=["victim:1", IMAGE.id])),
    # the image
    "too few layers": ("has 0 layers in manifest.json, but 1 diff_ids", lambda: docker(Layers=[])),
    "too many layers": ("has 2 layers in manifest.json, but 1 diff_ids", lambda: docker(Layers=["l.tar"] * 2)),
    "wrong layer": ("the layer 'l.tar' is not the one it should be: its diff_id", lambda: docker(tar=layer(a="x"))),
    "layer is text": ("the layer 'l.tar': a header's checksum", lambda: docker(tar=b"text" * 300)),
    "layer cut": ("the layer 'l.tar': .*(ends|cut)", lambda: docker(tar=TAR[:700])),
    "config is a list": ("the config 'c.json'", lambda: docker(config=b"[]")),
    "config without rootfs": ("the config 'c.json': rootfs", lambda: docker(config=b"{}")),
    "no diff_id": ("the config 'c.json': rootfs.diff_ids.0", lambda: docker(config=config_with(
        rootfs={"type": "layers", "diff_ids": ["sha256:../../../etc"]}))),
    "history too long": ("1 layers, but 3 in its history", lambda: docker(config=config_with(history=[{}] * 3))),
    "config of another digest": (
        "is damaged: its digest is",
        lambda: files_tar({f"{'0' * 64}.json": IMAGE.config, "l.tar": TAR, "manifest.json": as_json(
            [{"Config": f"{'0' * 64}.json", "Layers": ["l.tar"]}])}),
    ),
    # members
    "member outside": ("leads out of it", lambda: with_member(entry(b"../evil", data=b"x"))),
    "member inside out": ("leads out of it", lambda: with_member(entry(b"a/../../evil", data=b"x"))),
    "absolute member": ("leads out of it", lambda: with_member(entry(b"/etc/cron.d/evil", data=b"x"))),
    "symlink outside": ("leads out of it", lambda: with_member(entry(b"s", SYMLINK, linkname=b"../../etc/passwd"))),
    "absolute symlink": ("leads out of it", lambda: with_member(entry(b"s", SYMLINK, linkname=b"/etc/passwd"))),
    "hard link outside": ("leads out of it", lambda: with_member(entry(b"h", LINK, linkname=b"../etc/shadow"))),
    "device": ("a device or fifo", lambda: with_member(entry(b"d", CHR))),
    "fifo": ("a device or fifo", lambda: with_member(entry(b"f", FIFO))),
    "a file twice": ("has 'l.tar' twice", lambda: with_member(entry(b"l.tar", data=b"x"))),
    "a file and a link": ("has 'l.tar' twice", lambda: with_member(entry(b"l.tar", SYMLINK, linkname=b"c.json"))),
    "links in a circle": (
        "leads back to itself",
        lambda: archive(
            entry(b"manifest.json", SYMLINK, linkname=b"m"), entry(b"m", SYMLINK, linkname=b"manifest.json")
        ),
    ),
    # layers that would write elsewhere when unpacked
    "layer leads out": (r"the layer .*\.\.", lambda: with_layer(archive(entry(b"../../evil", data=b"x")))),
    "layer links out": (r"the layer .*\.\.", lambda: with_layer(archive(entry(b"h", LINK, linkname=b"../../evil")))),
    "layer hides nothing": ("a whiteout of nothing", lambda: with_layer(archive(entry(b".wh.")))),
    "root is a file": ("only a directory can be the root", lambda: with_layer(archive(entry(b"./", REG, b"x")))),
    # OCI
    "layout version": ("layout version '9' is not known", lambda: hybrid(layout=b'{"imageLayoutVersion":"9"}')),
    "layout no JSON": ("oci-layout is not JSON", lambda: hybrid(layout=b"1.0.0")),
    "index absent": ("the archive has no 'index.json'", lambda: hybrid(index=b"")),
    "index no index": ("index.json", lambda: hybrid(index=b"[]")),
    "index of version 1": ("schemaVersion", lambda: hybrid(index=b'{"schemaVersion":1,"manifests":[]}')),
    "layer damaged": ("is not the one it should be: its diff_id is", lambda: hybrid(layer=_flip(TAR, 520))),
    "layer of another size": ("bytes, not", lambda: hybrid(layer=TAR + bytes(512))),
    "layer absent, OCI": ("the layer sha256:.* is missing from the archive", lambda: hybrid(layer=b"")),
    "config damaged": ("is damaged: its digest is", lambda: hybrid(config=_flip(IMAGE.config, 20))),
    "config absent, OCI": ("the config sha256:.* is missing", lambda: hybrid(config=b"")),
    "manifest damaged": ("is damaged: its digest is", lambda: hybrid(manifest=b"x" * 397)),
    "manifest of another size": ("bytes, not", lambda: hybrid(manifest=b"x")),
    "manifest absent": ("the archive holds no image of victim:1", lambda: hybrid(manifest=b"")),
    "index of itself": ("is damaged: its digest is", lambda: oci_of(cyclic)),
    "indexes in indexes": ("nested more than 8 deep", lambda: oci_of(deep)),
    "OCI layers and diff_ids": ("has 0 layers, but 1 diff_ids", lambda: oci_of(manifest_with(layers=[]))),
    "manifest and index": ("both a manifest and an index", lambda: oci_of(manifest_with(manifests=[]))),
    "huge size": ("more than 4194304 are refused", lambda: files_tar(Blobs().layout(
        {"mediaType": f"{OCI}manifest.v1+json", "digest": IMAGE.id, "size": 1 << 40}))),
}  # fmt: skip


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One that holds an image already."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    made = open_store(tmp_path)
    (tmp_path / "good.tar").write_bytes(old_docker([GOOD]))
    made.load(tmp_path / "good.tar")
    return made


@pytest.mark.parametrize("how", ["file", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_archive_that_is_not_honest_changes_nothing(store: Store, fault: str, how: str, tmp_path: Path) -> None:
    why, make = FAULTS[fault]
    data = make()
    before = listing(store)
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ImageFormatError, match=why):
        store.load(tmp_path / "a.tar" if how == "file" else io.BytesIO(data))
    assert listing(store) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("writer", [old_docker, podman, new_docker, oci])
def test_an_archive_cut_anywhere_is_refused(store: Store, writer: Callable[[list[Any]], bytes], tmp_path: Path) -> None:
    whole = writer([IMAGE])
    before = listing(store)
    cuts = [*range(0, len(whole) - 1024, 512), 100, len(whole) - 1025]
    for cut in cuts:
        with pytest.raises(ImageFormatError):
            store.load(io.BytesIO(whole[:cut]))
    assert listing(store) == before


@pytest.mark.parametrize("writer", [old_docker, podman, new_docker, oci])
def test_any_bytes_changed_are_found_out_or_do_not_matter(
    writer: Callable[[list[Any]], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(tmp_path_factory.mktemp("fuzz"))
    whole = writer([IMAGE, GOOD])
    empty = listing(store)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=3))
    def load(changes: list[tuple[int, int]]) -> None:
        data = bytearray(whole)
        for at, byte in changes:
            data[at] = byte
        try:
            loaded = store.load(io.BytesIO(data))
        except ImageFormatError:
            assert [one.id for one in store.images()] == []
            return
        # A name, a time of a member, or what no reader looks at: the images are the same.
        assert {one.id for one in loaded} <= {IMAGE.id, GOOD.id}
        assert store.verify() == []
        store.prune(all=True)

    load()
    assert {name for name in listing(store) if "/blobs/sha256/" in name} == set()
    assert empty == {}


def test_the_second_image_of_an_archive_is_bad_and_the_first_does_not_come_in(store: Store, tmp_path: Path) -> None:
    bad = made_image("bad:1", layer(bad="bad"), history=[{}, {}])
    before = listing(store)
    with pytest.raises(ImageFormatError, match="in its history"):
        store.load(io.BytesIO(old_docker([IMAGE, bad])))
    damaged = old_docker([IMAGE, made_image("bad:1", layer(bad="bad"))]).replace(
        b"bad" + bytes(509), b"mad" + bytes(509)
    )
    with pytest.raises(ImageFormatError, match="is not the one it should be: its diff_id"):
        store.load(io.BytesIO(damaged))
    assert listing(store) == before


def test_a_layout_directory_with_links_is_refused(store: Store, tmp_path: Path) -> None:
    blobs = Blobs()
    files = blobs.layout(named(blobs.image(IMAGE), "victim:1"))
    layout = write_files(tmp_path / "layout", files)
    (layout / f"blobs/sha256/{hex_of(TAR)}").rename(tmp_path / "elsewhere")
    (layout / f"blobs/sha256/{hex_of(TAR)}").symlink_to(tmp_path / "elsewhere")
    before = listing(store)
    with pytest.raises(ImageFormatError, match="is a symbolic link, or lies behind one"):
        store.load(layout)
    assert listing(store) == before


def test_a_directory_where_a_file_should_be(store: Store, tmp_path: Path) -> None:
    (tmp_path / "layout" / "oci-layout").mkdir(parents=True)
    with pytest.raises(ImageFormatError, match="'oci-layout' is not a file"):
        store.load(tmp_path / "layout")
    with pytest.raises(ImageFormatError, match=r"does not contain a manifest\.json"):
        store.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the archive", "a layer"])
def test_ten_gigabytes_of_zeros_in_ten_megabytes(store: Store, where: str, tmp_path: Path) -> None:
    size = 10 << 30
    bomb = big_member(size) + zeros(size)
    assert len(bomb) < 11 << 20
    before = listing(store)
    with pytest.raises(
        ImageFormatError, match="times its size" if where == "the archive" else "decompresses to more than"
    ) as caught:
        if where == "the archive":
            store.load(io.BytesIO(bomb))
        else:
            store.load(io.BytesIO(docker(tar=bomb)))
    assert caught.value.hint
    assert listing(store) == before
