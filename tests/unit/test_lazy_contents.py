"""Tables of contents of layers that are fetched in parts: what is read in them, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.image_rig import sha256
from tests.unit.lazy_rig import Member, estargz, zstd_chunked
from unionfs.errors import ImageFormatError, TarError
from unionfs.image.digest import Digest
from unionfs.image.lazy.contents import (
    DATA_START,
    FOOTER_SIZE,
    MAX_CHUNK,
    Chunk,
    Kind,
    TocPlace,
    Unsuitable,
    parse,
    toc_offset,
    toc_place,
)
from unionfs.image.lazy.fetcher import unpack
from unionfs.image.lazy.lazy_cache import LazyCache
from unionfs.image.models import Descriptor

LIMIT = 1 << 30
END = 10_000
HEX = "ab" * 32
DIFF_ID = "sha256:" + "0" * 64


def regular(**more: Any) -> dict[str, Any]:
    return {
        "name": "f", "type": "reg", "mode": 0o644, "size": 10, "offset": 100, "chunkDigest": f"sha256:{HEX}",
    } | more  # fmt: skip


def chunk(**more: Any) -> dict[str, Any]:
    return {"name": "f", "type": "chunk", "chunkDigest": f"sha256:{HEX}"} | more


def toc(*entries: Any, **more: Any) -> bytes:
    return json.dumps({"version": 1, "entries": entries} | more).encode()


def chunks(*entries: Any) -> list[Chunk]:
    return parse(toc(*entries), END, LIMIT).chunks


# what is read ---------------------------------------------------------------------------------------------------------
def test_a_chunk_ends_where_the_next_one_begins() -> None:
    found = chunks(regular(), regular(name="g", offset=300), regular(name="h", offset=200))
    assert [(one.offset, one.end) for one in found] == [(100, 200), (300, END), (200, 300)]
    assert [one.start for one in found] == [DATA_START, DATA_START + 4096, DATA_START + 8192]


def test_the_last_chunk_of_a_file_is_what_is_left_of_it() -> None:
    found = chunks(
        regular(chunkSize=4), chunk(chunkOffset=4, chunkSize=3, offset=200), chunk(chunkOffset=7, offset=300)
    )
    assert [(one.start - DATA_START, one.size) for one in found] == [(0, 4), (4, 3), (7, 3)]


def test_chunks_in_one_stream_begin_at_the_same_offset() -> None:
    found = chunks(regular(), regular(name="g", innerOffset=600))
    assert [(one.offset, one.end, one.inner) for one in found] == [(100, END, 0), (100, END, 600)]


def test_an_end_that_is_told_counts_where_it_is_nearer() -> None:
    assert [one.end for one in chunks(regular(endOffset=150))] == [150]
    assert [one.end for one in chunks(regular(endOffset=END + 1))] == [END]


def test_the_digest_of_a_file_in_one_piece_is_that_of_its_chunk() -> None:
    entry = regular(digest=f"sha256:{HEX}")
    del entry["chunkDigest"]
    assert chunks(entry)[0].digest.hex() == HEX


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2020-09-13T12:26:40Z", 1_600_000_000_000_000_000),
        ("2020-09-13T14:26:40.5+02:00", 1_600_000_000_500_000_000),
        ("1960-01-01T00:00:00.000000001Z", -315_619_199_999_999_999),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_times(text: str | None, ns: int) -> None:
    assert parse(toc(regular(modtime=text)), END, LIMIT).entries[0].mtime_ns == ns


# what is refused ------------------------------------------------------------------------------------------------------
HOSTILE: dict[str, tuple[Any, ...]] = {
    "no digest": (regular(chunkDigest=None),),
    "a digest of another kind": (regular(chunkDigest="sha512:" + HEX * 2),),
    "the digest of a file in several pieces": (
        regular(chunkDigest="", digest=f"sha256:{HEX}", chunkSize=5), chunk(chunkOffset=5, offset=200),
    ),
    "chunks that overlap": (regular(chunkSize=6), chunk(chunkOffset=5, offset=200)),
    "chunks with a gap": (regular(chunkSize=4), chunk(chunkOffset=5, offset=200)),
    "chunks that are too little": (regular(chunkSize=4), chunk(chunkOffset=4, chunkSize=2, offset=200)),
    "chunks that are too much": (regular(chunkSize=4), chunk(chunkOffset=4, chunkSize=7, offset=200)),
    "a chunk behind the end": (regular(), chunk(chunkOffset=10, chunkSize=1, offset=200)),
    "a chunk of nothing": (chunk(offset=1),),
    "a chunk of a directory": ({"name": "d", "type": "dir"}, chunk(offset=1)),
    "an offset outside of the blob": (regular(offset=END),),
    "an offset far outside of the blob": (regular(offset=1 << 62),),
    "a negative offset": (regular(offset=-1),),
    "an offset that is a text": (regular(offset="100"),),
    "an offset that is a fraction": (regular(offset=1.5),),
    "a size beyond all files": (regular(size=1 << 63),),
    "more than the layer may come to": (regular(size=LIMIT + 1),),
    "more than the layer may come to, in many": (*[regular(size=MAX_CHUNK, offset=at) for at in range(1, 18)],),
    "a chunk that is too large to be unpacked": (regular(size=MAX_CHUNK + 1),),
    "a chunk too far inside": (regular(innerOffset=MAX_CHUNK),),
    "a size that is true": (regular(size=True),),
    "an unknown type": (regular(type="socket"),),
    "no type": ({"name": "f"},),
    "a name that is no text": (regular(name=1),),
    "a time that is none": (regular(modtime="yesterday"),),
    "a thirteenth month": (regular(modtime="2020-13-01T00:00:00Z"),),
    "xattrs that are a list": (regular(xattrs=[]),),
    "an xattr that is no base64": (regular(xattrs={"user.a": "?"}),),
    "an xattr that is a number": (regular(xattrs={"user.a": 1}),),
    "an entry that is a list": ([],),
    "a name that was not UTF-8": (regular(name="caf�"),),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_toc_is_refused_for(what: str) -> None:
    with pytest.raises(Unsuitable):
        parse(toc(*HOSTILE[what]), END, LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":1}',
        b'{"version":2,"entries":[]}',
        b'{"version":1,"entries":{}}',
        b"\xff",
        b"[" * 999,
    ],
)
def test_a_document_is_refused_that_is_no_toc(text: bytes) -> None:
    with pytest.raises(ImageFormatError):
        parse(text, END, LIMIT)


#: Members that no layer can have: apply's rules.
MEMBERS: dict[str, tuple[Any, ...]] = {
    "a path that leads out": (regular(name="../f"),),
    "a link that leads out": ({"name": "l", "type": "hardlink", "linkName": "../../etc/passwd"},),
    "a name that is too long": (regular(name="n" * 256),),
    "a name with a NUL": (regular(name="a\0b"),),
    "an owner that there is not": (regular(uid=1 << 32),),
    "a device that there is not": ({"name": "d", "type": "char", "devMajor": 1 << 20},),
    "a link without a target": ({"name": "l", "type": "symlink"},),
    "a root that is a file": (regular(name="/"),),
    "a file below a file": (regular(), regular(name="f/g", offset=200)),
    "links without end": ({"name": "l", "type": "symlink", "linkName": "l"}, regular(name="l/f")),
    "a file below a whiteout": (regular(name=".wh.d/f"),),
}


def cache(tmp_path: Path) -> LazyCache:
    return LazyCache(str(tmp_path / "cache"), lambda stored: LIMIT)


@pytest.mark.parametrize("what", MEMBERS)
def test_a_layer_is_refused_that_no_tar_could_be(what: str, tmp_path: Path) -> None:
    data = toc(*MEMBERS[what])
    with pytest.raises(Unsuitable):
        cache(tmp_path).add(TocPlace("gzip", Digest(sha256(data))), data, END, END, DIFF_ID)


def test_of_two_members_of_one_name_the_last_is_shown(tmp_path: Path) -> None:
    data = toc(regular(), regular(size=20, offset=200))
    place = TocPlace("gzip", Digest(sha256(data)))
    cache(tmp_path).add(place, data, END, END, DIFF_ID)
    file, index = cache(tmp_path).open(place, END, END, DIFF_ID)
    opened = index()
    try:
        block = opened.block(opened.top().child(0))
        assert (block.names, int.from_bytes(block.record(0)[8:16], "little")) == ([b"f"], 20)
        assert file.chunk(file.span(block.place(0), block.place(0) + 1)[0]).offset == 200
    finally:
        opened.close()
        file.close()


def test_a_toc_that_is_another_is_not_looked_at(tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="not what the manifest says"):
        cache(tmp_path).add(TocPlace("gzip", Digest(sha256(b"other"))), b"{", END, END, DIFF_ID)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_but_its_own_error_comes_of_any_toc(data: st.DataObject) -> None:
    values = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 12_000),
        st.sampled_from([1 << 40, 1 << 63, "", "a/b", f"sha256:{HEX}", "zeros"]),
        st.lists(st.none(), max_size=1), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    )  # fmt: skip
    keys = ("name", "size", "offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest", "digest", "chunkType",
            "innerOffset", "modtime", "mode", "uid", "xattrs", "linkName", "devMajor")  # fmt: skip
    entries = []
    for base in data.draw(st.lists(st.sampled_from([regular(), chunk(), {"type": "dir", "name": "d"}]), max_size=5)):
        entries.append(base | data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=3)))
    try:
        found = parse(toc(*entries), END, LIMIT)
    except ImageFormatError:
        return
    before = DATA_START
    for one in found.chunks:
        assert (
            before <= one.start and one.start + one.size <= found.size and (not one.end or one.offset < one.end <= END)
        )
        before = one.start + one.size


# where it is ----------------------------------------------------------------------------------------------------------
def descriptor(media_type: str, size: int = 1000, **annotations: str) -> Descriptor:
    told = {key.replace("__", "/").replace("_", "."): value for key, value in annotations.items()}
    return Descriptor.model_validate({"mediaType": media_type, "digest": DIFF_ID, "size": size, "annotations": told})


GZIP, ZSTD = (f"application/vnd.oci.image.layer.v1.tar+{one}" for one in ("gzip", "zstd"))


@pytest.mark.parametrize(
    "position",
    ["", "1", "1:2:3", "1:2:3:2", "900:101:5:1", "1:0:5:1", "-1:2:3:1", "1:2:99999999999:1", "1:2:3:1x", "٣:2:3:1"],
)
def test_a_place_is_refused_that_makes_no_sense(position: str) -> None:
    key = "io.github.containers.zstd-chunked.manifest-"
    told = {key + "checksum": f"sha256:{HEX}", key + "position": position}
    made = Descriptor.model_validate({"mediaType": ZSTD, "digest": DIFF_ID, "size": 1000, "annotations": told})
    assert toc_place(made) is None


def test_annotations_count_for_their_own_compression_only() -> None:
    told = {"containerd.io/snapshot/stargz/toc.digest": f"sha256:{HEX}"}
    for media_type, there in ((GZIP, True), (ZSTD, False), (GZIP.removesuffix("+gzip"), False), ("text/plain", False)):
        made = Descriptor.model_validate(
            {"mediaType": media_type, "digest": DIFF_ID, "size": 1000, "annotations": told}
        )
        assert (toc_place(made) is not None) == there
    short = Descriptor.model_validate({"mediaType": GZIP, "digest": DIFF_ID, "size": FOOTER_SIZE, "annotations": told})
    assert toc_place(short) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda footer: footer[:-1],
        lambda footer: footer.replace(b"STARGZ", b"stargz"),
        lambda footer: footer[:16] + b"-" + footer[17:],
        lambda footer: footer[:16] + b"f" * 16 + footer[32:],
        lambda footer: bytes(FOOTER_SIZE),
    ],
)
def test_a_footer_is_refused_that_leads_nowhere(change: Callable[[bytes], bytes]) -> None:
    blob = estargz([Member("a", b"a")]).blob
    assert 0 < toc_offset(blob[-FOOTER_SIZE:], len(blob)) < len(blob)
    with pytest.raises(Unsuitable):
        toc_offset(change(blob[-FOOTER_SIZE:]), len(blob))


# chunks ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [estargz, zstd_chunked])
def test_chunks_are_what_the_tar_has(make: Callable[..., Any]) -> None:
    data = bytes(range(256)) * 1000
    made = make([Member("small", b"s"), Member("large", data)], chunk=70_000)
    contents = parse(json.dumps(made.toc).encode(), len(made.blob), LIMIT)
    kind: Kind = "gzip" if make is estargz else "zstd"
    plain = [unpack(made.blob[one.offset : one.end], one, kind) for one in contents.chunks]
    assert b"".join(plain).replace(b"\x0f", b"", 0).endswith(data) and b"s" in plain
    assert [hashlib.sha256(one).digest() for one in plain] == [one.digest for one in contents.chunks]


def test_a_chunk_is_refused_that_is_not_there() -> None:
    one = Chunk(DATA_START, 10, 0, 0, 0, bytes(32))
    for data in (b"", b"\x1f\x8b", b"plain text", estargz([]).blob[:20], b"BZh9", b"\x28\xb5\x2f\xfd" * 5):
        with pytest.raises(TarError):
            unpack(data, one, "gzip")


def test_a_chunk_is_no_bomb() -> None:
    import gzip

    bomb = gzip.compress(bytes(100 << 20), 9)
    assert unpack(bomb, Chunk(DATA_START, 5, 0, 0, 3, bytes(32)), "gzip") == bytes(5)
