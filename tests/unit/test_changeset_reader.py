"""The tar reader: every format in the wild, and nothing but TarError for what is none."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.hostile_tars import CORPUS, MALFORMED, ODD_BUT_GOOD, UNSAFE, archive, entry, patched, pax
from tests.requirements import need, requires
from unionfs.changeset.compression import compressor
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.errors import TarError


def read(data: bytes) -> list[tuple[TarEntry, bytes]]:
    """Entries with their contents, sparse files unfolded."""
    reader = TarReader(io.BytesIO(data))
    found = []
    for item in reader:
        stored = b"".join(reader.data())
        assert len(stored) == item.stored
        if item.extents is not None:
            content = bytearray(item.size)
            for offset, length in item.extents:
                content[offset : offset + length], stored = stored[:length], stored[length:]
            stored = bytes(content)
        found.append((item, stored))
    return found


@pytest.mark.parametrize("data", list(ODD_BUT_GOOD.values()), ids=ODD_BUT_GOOD)
def test_odd_archives_are_read(data: bytes) -> None:
    assert read(data)[-1][0].name.strip(b"/") == b"a"


def test_digests_are_of_the_whole_stream() -> None:
    data = archive(entry(b"a", data=b"x" * 5000)) + b"padding"
    stored = gzip.compress(data)
    reader = TarReader(io.BytesIO(stored))
    assert len(list(reader)) == 1
    assert reader.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert reader.digest == "sha256:" + hashlib.sha256(stored).hexdigest()
    assert reader.size == len(stored)


def test_offsets_name_the_bytes() -> None:
    data = archive(entry(b"a", data=b"first"), pax((b"x", b"y")) + entry(b"b", data=b"second"))
    for item, content in read(data):
        assert data[item.data_offset : item.data_offset + item.stored] == content
    assert [item.offset for item, _ in read(data)] == [0, 1024]


def test_data_not_read_is_skipped() -> None:
    data = archive(entry(b"a", data=b"x" * 3_000_001), entry(b"b"))
    assert [item.name for item in TarReader(io.BytesIO(data))] == [b"a", b"b"]


GOOD = archive(entry(b"a", data=random.Random(1).randbytes(3_000_000)), entry(b"b"))


def _zstd(data: bytes) -> bytes:
    frame = compressor("zstd")
    assert frame is not None
    return frame.feed(memoryview(data)) + frame.finish()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip members": lambda data: gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:]),
    "gzip padded": lambda data: gzip.compress(data) + bytes(100),
    "bzip2": bz2.compress,
    "bzip2 streams": lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
    "xz": lzma.compress,
    "xz streams": lambda data: lzma.compress(data[:1000]) + lzma.compress(data[1000:]),
    "zstd": _zstd,
    "zstd frames": lambda data: _zstd(data[:1000]) + _zstd(data[1000:]),
    "zstd skippable first": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0skip" + _zstd(data),
}


class _Dribble(io.RawIOBase):
    """A pipe that gives few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int = -1) -> bytes:
        size = min(size, 1 + self._at % 7 if self._at < 3000 else 4099)
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED)
def test_compression_is_told_from_the_content(compress: Callable[[bytes], bytes]) -> None:
    stored = compress(GOOD)
    assert read(stored) == read(GOOD)
    reader = TarReader(_Dribble(stored))  # type: ignore[arg-type]
    assert [item.name for item in reader] == [b"a", b"b"]
    assert reader.diff_id == "sha256:" + hashlib.sha256(GOOD).hexdigest()


@pytest.fixture(params=["isal", "zlib"])
def inflating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either of the two that read gzip."""
    if request.param == "isal":
        need("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)


@pytest.mark.usefixtures("inflating")
@pytest.mark.parametrize("at", [-8, -5, -4, -1])
def test_the_check_value_and_length_of_gzip_are_compared(at: int) -> None:
    damaged = bytearray(gzip.compress(GOOD))
    damaged[at] ^= 1
    with pytest.raises(TarError, match="corrupt gzip data"):
        read(bytes(damaged))


@pytest.mark.usefixtures("inflating")
@pytest.mark.parametrize("kind", [kind for kind in COMPRESSED if "gzip" in kind])
def test_gzip_read_by_either_library(kind: str) -> None:
    stored = COMPRESSED[kind](GOOD)
    assert read(stored) == read(GOOD)
    cut, damaged = stored[:-9] if kind != "gzip padded" else stored[:60], bytearray(stored)
    damaged[20] ^= 0xFF
    for wrong, told in ((cut, "ends early"), (bytes(damaged), "corrupt gzip data|trailer|not a tar|checksum")):
        with pytest.raises(TarError, match=told):
            read(wrong)


def test_a_bomb_is_read_in_bounded_pieces(inflating: None) -> None:
    huge = gzip.compress(archive(entry(b"a", data=bytes(64 << 20))))
    reader = TarReader(io.BytesIO(huge))
    for _ in reader:
        assert max(len(piece) for piece in reader.data()) <= 1 << 20


@requires("tar")
@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix", "ustar", "v7"])
def test_formats_of_gnu_tar(form: str, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(b"data")
    os.symlink("d/f", source / "l")
    os.link(source / "d/f", source / "z")
    if form in ("gnu", "oldgnu", "posix"):
        (source / ("n" * 120)).write_bytes(b"long")
        os.symlink("t" * 150, source / "longlink")
        os.utime(source / "l", ns=(0, -1_500_000_000), follow_symlinks=False)
    data = subprocess.run(
        ["tar", "-c", f"--format={form}", "--sort=name", "."], cwd=source, stdout=subprocess.PIPE, check=True
    ).stdout
    found = {item.name.strip(b"./"): (item, content) for item, content in read(data)}
    assert found[b"d/f"][1] == b"data"
    assert found[b"l"][0].linkname == b"d/f"
    assert found[b"z"][0].type == b"1"
    if b"n" * 120 in found:
        assert found[b"n" * 120][1] == b"long"
        assert found[b"longlink"][0].linkname == b"t" * 150
        seconds = -1_500_000_000 if form == "posix" else -2_000_000_000
        assert found[b"l"][0].mtime_ns == seconds


@requires("tar")
@pytest.mark.parametrize("form", ["gnu", "posix 0.0", "posix 0.1", "posix 1.0"])
@pytest.mark.parametrize("extents", [0, 1, 3, 40, 400])
def test_sparse_files_of_gnu_tar(form: str, extents: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse-file-with-a-rather-long-name"
    with open(path, "wb") as f:
        for n in range(extents):
            f.seek((2 * n + 1) * 65536)
            f.write(b"%d" % n * 4096)
        f.truncate(extents * 131072 + 500_001)
    kind, _, version = form.partition(" ")
    options = [f"--sparse-version={version}"] if version else []
    data = subprocess.run(
        ["tar", "-cS", f"--format={kind}", *options, path.name], cwd=tmp_path, stdout=subprocess.PIPE, check=True
    ).stdout
    ((item, content),) = read(data)
    assert item.extents is not None
    assert item.name == os.fsencode(path.name)
    assert content == path.read_bytes()
    assert item.stored < item.size


@requires("bsdtar")
def test_xattrs_of_bsdtar(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    os.setxattr(path, "user.bin", b"\0\xff=\n")
    data = subprocess.run(
        ["bsdtar", "--xattrs", "-cf", "-", "--format=pax", "f"], cwd=tmp_path, stdout=subprocess.PIPE, check=True
    ).stdout
    assert read(data)[0][0].xattrs == {b"user.bin": b"\0\xff=\n"}


def test_libarchive_xattrs_are_base64_and_url_encoded() -> None:
    data = archive(pax((b"LIBARCHIVE.xattr.user.a%3Db", b"AAH/")) + entry(b"f"))
    assert read(data)[0][0].xattrs == {b"user.a=b": b"\0\1\xff"}


def test_global_records_hold_until_overridden_and_empty_ones_take_back() -> None:
    data = archive(
        pax((b"uid", b"7"), type=b"g"), entry(b"a"), pax((b"uid", b"8")) + entry(b"b"), pax((b"uid", b"")) + entry(b"c")
    )
    assert [item.uid for item, _ in read(data)] == [7, 8, 0]


def test_links_have_no_data_whatever_their_size_says() -> None:
    link = patched(entry(b"l", b"1", linkname=b"a"), 124, b"00000001000\0")
    assert [item.name for item, _ in read(archive(entry(b"a"), link, entry(b"b")))] == [b"a", b"l", b"b"]


def test_tarfile_and_we_read_the_same(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for n, name in enumerate(["a", "b" * 101, "dir/" + "c" * 200, "ü" * 80]):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = n, n + 0.5, 3_000_000 * n
            made.addfile(info, io.BytesIO(b"x" * n))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as theirs:
        expected = [(os.fsencode(i.name), i.size, int(i.mtime * 10**9), i.uid) for i in theirs]
    assert [(i.name, i.size, i.mtime_ns, i.uid) for i, _ in read(out.getvalue())] == expected


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_archives_are_refused(name: str) -> None:
    with pytest.raises(TarError):
        read(MALFORMED[name])


@pytest.mark.parametrize("name", UNSAFE)
def test_the_reader_judges_no_names(name: str) -> None:
    assert read(UNSAFE[name])


def test_errors_carry_the_offset() -> None:
    with pytest.raises(TarError, match="at byte 512") as raised:
        read(MALFORMED["wrong checksum"])
    assert raised.value.offset == 512


SEEDS = [*(d for d in CORPUS.values() if 512 < len(d) < 20000), *ODD_BUT_GOOD.values()]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    st.integers(0, 9),
)
def test_any_bytes_raise_nothing_but_tar_errors(seed: bytes, edits: list[tuple[int, int]], fix: int) -> None:
    data = bytearray(seed)
    for at, value in edits:
        data[at % len(data)] = value
    if fix % 2 and len(data) >= 512:  # get past the checksum
        data[:512] = patched(bytes(data[:512]), 500, b"")
    with contextlib.suppress(TarError):
        read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_raise_nothing_but_tar_errors(data: bytes) -> None:
    for magic in (b"", b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        with contextlib.suppress(TarError):
            read(magic + data)


@pytest.mark.parametrize("cut", [1024, 1024 + 500, 1024 + 512])
def test_an_archive_without_an_end_is_read_where_a_digest_says_that_it_is_whole(cut: int) -> None:
    """umoci's `insert` ends its layers amid the padding of the last file."""
    whole = archive(entry(b"a", data=b"12345"), entry(b"b", data=b"x" * 12))
    data = whole[:-cut]
    with pytest.raises(TarError):
        list(TarReader(io.BytesIO(data)))
    if cut == 1024 + 512:
        with pytest.raises(TarError, match="ends inside a file"):
            list(TarReader(io.BytesIO(data), marked=False))
        return
    reader = TarReader(io.BytesIO(data), marked=False)
    assert [entry.name for entry in reader] == [b"a", b"b"]
    assert reader.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    with pytest.raises(TarError, match="is empty"):
        list(TarReader(io.BytesIO(b""), marked=False))


def test_only_the_data_that_is_asked_for_is_read(tmp_path: Path) -> None:
    big = b"x" * (8 << 20)
    (tmp_path / "a.tar").write_bytes(archive(entry(b"big", data=big), entry(b"small", data=b"12345"), entry(b"c")))
    with open(tmp_path / "a.tar", "rb", buffering=0) as file:
        reader = TarReader(file, digests=False)
        found = [
            (one.name, one.data_offset, b"".join(reader.data()) if one.name == b"small" else None) for one in reader
        ]
        position = file.tell()
    assert [(name, data) for name, _, data in found] == [(b"big", None), (b"small", b"12345"), (b"c", None)]
    assert found[1][1] == 512 + len(big) + 512
    assert reader.size == position == (tmp_path / "a.tar").stat().st_size
    read: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    with Counting(str(tmp_path / "a.tar")) as counting:
        assert len(list(TarReader(counting, digests=False))) == 3
    assert sum(read) < 4 << 20


def test_a_member_that_ends_beyond_the_archive_is_found_without_reading_it(tmp_path: Path) -> None:
    whole = archive(entry(b"big", data=b"x" * (3 << 20)), entry(b"c"))
    (tmp_path / "a.tar").write_bytes(whole[: 2 << 20])
    with open(tmp_path / "a.tar", "rb", buffering=0) as file, pytest.raises(TarError, match="ends inside a file"):
        list(TarReader(file, digests=False))


def test_a_scan_begins_where_the_stream_stands(tmp_path: Path) -> None:
    whole = archive(entry(b"big", data=b"x" * (3 << 20)), entry(b"c"))
    (tmp_path / "a.tar").write_bytes(b"before" + whole)
    with open(tmp_path / "a.tar", "rb", buffering=0) as file:
        file.seek(6)
        assert [one.name for one in TarReader(file, digests=False)] == [b"big", b"c"]
