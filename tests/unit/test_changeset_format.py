"""The tar headers we write, read back by tarfile, GNU tar, bsdtar and our own reader."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requirements import requires
from unionfs.changeset import tar_format as tar
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.errors import ChangesetError

NAMES = {
    "short": b"a/b",
    "100": b"d" * 49 + b"/" + b"f" * 50,
    "101": b"d" * 50 + b"/" + b"f" * 50,
    "prefix of 155": b"d" * 155 + b"/" + b"f" * 100,
    "prefix of 156": b"d" * 156 + b"/" + b"f" * 99,
    "one long component": b"d/" + b"f" * 200,
    "very long": b"/".join([b"0123456789" * 20] * 18),
    "utf-8": "ä/日本".encode(),
    "long utf-8": "日本".encode() * 40,
    "bytes": b"\xff\xfe/\x80",
    "long bytes": b"\xff" * 150,
    "newline and space": b" a\nb ",
}


def archive(*members: bytes) -> bytes:
    return b"".join(members) + tar.TRAILER


def read(data: bytes) -> list[TarEntry]:
    return list(TarReader(io.BytesIO(data)))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("type", [tar.REG, tar.DIR])
def test_every_name_is_read_back(name: bytes, type: bytes) -> None:
    data = archive(tar.member(tar.Fields(name, type)))
    suffix = b"/" if type == tar.DIR else b""
    assert read(data)[0].name == name + suffix
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as archived:
        assert os.fsencode(archived.getnames()[0]) == name


@requires("tar", "bsdtar")
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_name_is_extracted_by_others(program: str, name: bytes, tmp_path: Path) -> None:
    parents = [b"/".join(name.split(b"/")[:n]) for n in range(1, name.count(b"/") + 1)]
    members = [tar.member(tar.Fields(parent, tar.DIR, 0o755)) for parent in parents]
    members.append(tar.member(tar.Fields(name, tar.REG, 0o644)))
    members.append(tar.member(tar.Fields(b"zlink", tar.LINK, 0o644, linkname=name)))
    done = subprocess.run(
        [program, "-xf", "-", "-C", str(tmp_path)], input=archive(*members), env={**os.environ, "LC_ALL": "C.UTF-8"},
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    fd = os.open(tmp_path, os.O_PATH)
    for part in name.split(b"/"):  # the path may be longer than PATH_MAX
        child = os.open(part, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = child
    assert os.fstat(fd).st_nlink == 2, done.stderr
    os.close(fd)


def test_header_bytes_of_a_plain_file() -> None:
    header = tar.member(tar.Fields(b"etc/passwd", tar.REG, 0o100644, 1, 2, 3, 4_000_000_000))
    assert len(header) == 512
    assert header[:100] == b"etc/passwd".ljust(100, b"\0")  # name
    assert header[100:108] == b"0000644\0"  # mode, without the type bits
    assert header[108:116] == b"0000001\0"  # uid
    assert header[116:124] == b"0000002\0"  # gid
    assert header[124:136] == b"00000000003\0"  # size
    assert header[136:148] == b"00000000004\0"  # mtime
    assert int(header[148:154], 8) == sum(header[:148]) + 8 * 32 + sum(header[156:])  # checksum
    assert header[154:156] == b"\0 "
    assert header[156:157] == b"0"  # regular file
    assert header[257:265] == b"ustar\00000"  # POSIX magic and version
    assert header[265:329] == bytes(64)  # user and group names: none
    assert header[329:345] == b"0000000\0" * 2  # device
    assert header[345:] == bytes(167)  # prefix, and the rest of the block


MTIMES = {
    0: 0,
    1_500_000_000: 1_500_000_000,
    1: 1,
    -1: -1,
    -1_500_000_000: -1_500_000_000,
    8**11 * 10**9: 8**11 * 10**9,
    1_700_000_000_123_456_789: 1_700_000_000_123_456_789,
}


@pytest.mark.parametrize("ns", MTIMES)
def test_every_time_is_read_back(ns: int) -> None:
    assert read(archive(tar.member(tar.Fields(b"f", tar.REG, mtime_ns=ns))))[0].mtime_ns == ns


def test_whole_seconds_need_no_extended_header() -> None:
    assert len(tar.member(tar.Fields(b"f", tar.REG, mtime_ns=1_700_000_000 * 10**9))) == 512


@given(
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    size=st.integers(0, 2**62),
    ns=st.integers(-(2**62), 2**62),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=9).filter(lambda b: b"=" not in b and b"\0" not in b), st.binary(max_size=20)
    ),
    linkname=st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b),
    name=st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b and not b.endswith(b"/")),
)
def test_all_fields_are_read_back(
    uid: int, gid: int, size: int, ns: int, xattrs: dict[bytes, bytes], linkname: bytes, name: bytes
) -> None:
    names = {b"user." + key: value for key, value in xattrs.items()}
    link = tar.member(tar.Fields(name, tar.SYMLINK, 0o777, uid, gid, 0, ns, linkname), names)
    sized = TarReader(io.BytesIO(tar.member(tar.Fields(b"f", tar.REG, size=size))))
    assert next(iter(sized)).size == size
    (entry,) = read(archive(link))
    assert (entry.name, entry.uid, entry.gid, entry.mtime_ns, entry.linkname) == (name, uid, gid, ns, linkname)
    assert entry.xattrs == names


def test_xattr_name_with_equals_sign_is_refused_by_name() -> None:
    with pytest.raises(ChangesetError, match=r"/d/f: .*'user\.a=b'"):
        tar.member(tar.Fields(b"d/f", tar.REG), {b"user.a=b": b""})


def test_extended_header_beyond_what_go_reads_is_refused_by_name() -> None:
    with pytest.raises(ChangesetError, match="/f: its extended attributes"):
        tar.member(tar.Fields(b"f", tar.REG), {b"user.%d" % n: bytes(65536) for n in range(20)})


def test_length_of_a_record_counts_itself_at_every_carry() -> None:
    for size in (*range(60, 120), *range(960, 1010)):
        (entry,) = read(archive(tar.member(tar.Fields(b"f", tar.REG), {b"user.a": b"v" * size})))
        assert entry.xattrs == {b"user.a": b"v" * size}
