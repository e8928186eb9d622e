"""The layer tar: order, contents, refusals, and the same bytes every time."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import resource
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.requirements import requires
from tests.unit.changeset_rig import copy_tree, views
from unionfs.changeset.apply import apply
from unionfs.changeset.tar_reader import TarReader
from unionfs.changeset.tar_writer import WrittenLayer, write_layer, write_layer_stream
from unionfs.errors import ChangesetError, OptionError


class Trees:
    """Three plain directories: `before`, the stored `upper`, and `after`, which a union of the two would show."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.before, self.after, self.upper = (base / name for name in ("before", "after", "upper"))
        for path in (self.before, self.after, self.upper):
            path.mkdir()

    def add(self, name: str, data: bytes = b"") -> Path:
        """A new file, in the upper and so in the union."""
        for top in (self.upper, self.after):
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return path

    def commit(self, name: str = "layer.tar", *args: object, **options: object) -> WrittenLayer:
        with views(self.before, self.after, self.upper) as three:
            return write_layer(*three, str(self.base / name), *args, **options)  # type: ignore[arg-type]

    def members(self, name: str = "layer.tar") -> list[str]:
        with open(self.base / name, "rb") as f:
            return [os.fsdecode(entry.name) for entry in TarReader(f)]


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


def test_digests_are_those_of_the_file(trees: Trees) -> None:
    trees.add("big", os.urandom(3_500_000))
    trees.add("dir/small", b"x")
    for name in ("l.tar", "l.tar.gz", "l.tgz", "l.tar.zst"):
        layer = trees.commit(name)
        data = (trees.base / name).read_bytes()
        assert layer.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        assert layer.size == len(data)
        assert layer.entries == 4  # the root, big, dir, dir/small
        reader = TarReader(io.BytesIO(data))
        assert len(list(reader)) == 4
        assert reader.diff_id == layer.diff_id
        assert layer.media_type.endswith({"l.tar": ".tar", "l.tar.zst": "+zstd"}.get(name, "+gzip"))
    assert gzip.decompress((trees.base / "l.tgz").read_bytes()) == (trees.base / "l.tar").read_bytes()
    assert layer.uncompressed_size == (trees.base / "l.tar").stat().st_size


@requires("zstd")
def test_zstd_and_gzip_programs_read_it(trees: Trees) -> None:
    trees.add("f", os.urandom(100_000) * 30)
    plain = trees.commit("l.tar")
    for name, program in (("l.tar.gz", "gzip"), ("l.tar.zst", "zstd")):
        trees.commit(name)
        data = subprocess.run([program, "-dc", str(trees.base / name)], stdout=subprocess.PIPE, check=True).stdout
        assert "sha256:" + hashlib.sha256(data).hexdigest() == plain.diff_id


def test_compression_by_option_beats_the_suffix(trees: Trees) -> None:
    trees.add("f")
    trees.commit("l.tar", "gzip")
    assert (trees.base / "l.tar").read_bytes()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no time, no name
    with pytest.raises(OptionError, match="lz4"):
        trees.commit("l.tar", "lz4")
    assert not list(trees.base.glob(".l.tar*"))


def test_same_tree_same_bytes(trees: Trees) -> None:
    for n in range(50):
        trees.add(f"d{n % 7}/f{n}", bytes([n]) * n * 1000)
    os.link(trees.after / "d0/f0", trees.after / "z")
    os.link(trees.upper / "d0/f0", trees.upper / "z")
    (trees.base / "elsewhere").mkdir()
    other = Trees(trees.base / "elsewhere")
    for name in ("before", "after", "upper"):
        copy_tree(trees.base / name, other.base / name)
    for suffix in ("tar", "tar.gz", "tar.zst"):
        assert trees.commit(f"l.{suffix}") == other.commit(f"l.{suffix}")


def test_times_are_clamped_from_above_only(trees: Trees) -> None:
    old, new = trees.add("old"), trees.add("new")
    os.utime(old, ns=(0, 1_000_000_000_000_000_001))
    os.utime(new, ns=(0, 1_900_000_000_000_000_001))
    trees.commit(clamp_mtime=1_500_000_000)
    with open(trees.base / "layer.tar", "rb") as f:
        times = {entry.name: entry.mtime_ns for entry in TarReader(f)}
    assert times == {b"./": 1_500_000_000 * 10**9, b"old": 1_000_000_000_000_000_001, b"new": 1_500_000_000 * 10**9}


def test_whiteouts_stand_before_their_siblings(trees: Trees) -> None:
    (trees.before / "d").mkdir()
    for name in ("+gone", "zgone", "stays"):
        (trees.before / "d" / name).touch()
    (trees.after / "d").mkdir()
    for name in ("+new", "a", "stays"):
        (trees.after / "d" / name).touch()
    (trees.upper / "d").mkdir()
    for name in ("+new", "a", "+gone", "zgone"):
        (trees.upper / "d" / name).touch()
    trees.commit()
    got = trees.members()
    assert got[got.index("d/") :] == ["d/", "d/.wh.+gone", "d/.wh.zgone", "d/+new", "d/a"]


def test_opaque_stands_first_and_covers_whiteouts(trees: Trees) -> None:
    for top in (trees.before, trees.after, trees.upper):
        (top / "d").mkdir()
    (trees.before / "d/gone").touch()
    (trees.after / "d/#new").touch()
    (trees.upper / "d/#new").touch()
    os.setxattr(trees.upper / "d", "user.overlay.opaque", b"y")
    trees.commit()
    assert trees.members() == ["./", "d/", "d/.wh..wh..opq", "d/#new"]


def test_private_xattrs_never_leave(trees: Trees) -> None:
    trees.add("d/f")
    for name in ("user.overlay.origin", "user.overlay.impure", "user.fuseoverlayfs.opaque", "user.kept"):
        os.setxattr(trees.after / "d", name, b"y")
    trees.commit()
    with open(trees.base / "layer.tar", "rb") as f:
        found = {entry.name: set(entry.xattrs) for entry in TarReader(f)}
    assert found[b"d/"] == {b"user.kept"}


def test_holes_are_written_as_zeros_without_being_read(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    for top in (trees.after, trees.upper):
        with open(top / "s", "wb") as f:
            f.seek(100 << 20)
            f.write(b"end")
            f.truncate(150 << 20)
    read: list[int] = []
    preadv = os.preadv

    def counting(fd: int, buffers: list[memoryview], offset: int) -> int:
        read.append(preadv(fd, buffers, offset))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counting)
    layer = trees.commit("l.tar.zst")
    assert 3 <= sum(read) <= 1 << 20
    assert layer.uncompressed_size > 150 << 20
    assert layer.size < 200_000
    with tarfile.open(fileobj=io.BytesIO(_plain(trees.base / "l.tar.zst"))) as made:
        data = made.extractfile("s")
        assert data is not None
        data.seek(100 << 20)
        assert data.read(4) == b"end\0"


def _plain(path: Path) -> bytes:
    return subprocess.run(["zstd", "-dc", str(path)], stdout=subprocess.PIPE, check=True).stdout


def test_hard_links_first_name_has_the_data(trees: Trees) -> None:
    trees.add("b/second", b"data")
    for top in (trees.after, trees.upper):
        (top / "a").mkdir()
        os.link(top / "b/second", top / "a/first")
    trees.commit()
    with open(trees.base / "layer.tar", "rb") as f:
        entries = {entry.name: entry for entry in TarReader(f)}
    assert entries[b"a/first"].size == 4
    assert entries[b"b/second"].linkname == b"a/first"


# refusals ------------------------------------------------------------------------------------------------------
def test_name_with_whiteout_prefix_is_refused_by_name(trees: Trees) -> None:
    trees.add("d/.wh.x")
    with pytest.raises(ChangesetError, match=r"/d/\.wh\.x: a layer tar cannot hold"):
        trees.commit()
    assert sorted(os.listdir(trees.base)) == ["after", "before", "upper"]


def test_socket_is_refused_by_name_or_skipped(trees: Trees) -> None:
    trees.add("run/keep")
    for top in (trees.after, trees.upper):
        os.mknod(top / "run/sock", stat.S_IFSOCK | 0o600)
    with pytest.raises(ChangesetError, match="/run/sock: a layer tar cannot hold a socket") as raised:
        trees.commit()
    assert raised.value.hint is not None
    assert "--skip-sockets" in raised.value.hint
    trees.commit(skip_sockets=True)
    assert trees.members() == ["./", "run/", "run/keep"]


def test_skipped_socket_still_removes_what_it_replaced(trees: Trees) -> None:
    (trees.before / "x").write_text("was a file")
    for top in (trees.after, trees.upper):
        os.mknod(top / "x", stat.S_IFSOCK | 0o600)
    trees.commit(skip_sockets=True)
    assert trees.members() == ["./", ".wh.x"]


def test_file_that_shrinks_meanwhile_is_an_error(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trees.add("f", b"x" * 10_000)
    path = trees.after / "f"
    with views(trees.before, trees.after, trees.upper) as (before, after, upper):
        opened = after.open

        def cut_then_open(node: int, flags: int):  # type: ignore[no-untyped-def]
            os.truncate(path, 100)
            return opened(node, flags)

        monkeypatch.setattr(after, "open", cut_then_open)
        with pytest.raises(ChangesetError, match="/f: it became shorter"):
            write_layer(before, after, upper, str(trees.base / "layer.tar"))
    assert sorted(os.listdir(trees.base)) == ["after", "before", "upper"]


# the output file -------------------------------------------------------------------------------------------------
def test_failure_keeps_the_old_file_and_leaves_nothing(trees: Trees) -> None:
    trees.add("f", os.urandom(5_000_000))
    (trees.base / "layer.tar").write_text("old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limit[1]))
    try:
        with pytest.raises(OSError) as raised:
            trees.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert raised.value.errno == errno.EFBIG
    assert (trees.base / "layer.tar").read_text() == "old"
    assert sorted(os.listdir(trees.base)) == ["after", "before", "layer.tar", "upper"]


def test_output_is_replaced_whole_and_readable(trees: Trees) -> None:
    trees.add("f")
    (trees.base / "layer.tar").write_text("old")
    held = open(trees.base / "layer.tar")  # noqa: SIM115
    trees.commit()
    assert held.read() == "old"
    held.close()
    assert stat.S_IMODE((trees.base / "layer.tar").stat().st_mode) == 0o644


def test_output_directory_missing(trees: Trees) -> None:
    with pytest.raises(FileNotFoundError):
        trees.commit("no/such/layer.tar")


def test_stream_gets_the_same_bytes(trees: Trees) -> None:
    trees.add("f", os.urandom(2_500_000))
    layer = trees.commit("l.tar.gz")
    out = io.BytesIO()
    with views(trees.before, trees.after, trees.upper) as three:
        assert write_layer_stream(*three, out, "gzip") == layer
    assert out.getvalue() == (trees.base / "l.tar.gz").read_bytes()


def test_fifo_as_output_is_written_to(trees: Trees) -> None:
    trees.add("f", b"x" * 100_000)
    os.mkfifo(trees.base / "pipe")
    with subprocess.Popen(["cat", str(trees.base / "pipe")], stdout=subprocess.PIPE) as reader:
        layer = trees.commit("pipe", "none")
        assert reader.stdout is not None
        assert "sha256:" + hashlib.sha256(reader.stdout.read()).hexdigest() == layer.digest
    assert stat.S_ISFIFO((trees.base / "pipe").stat().st_mode)


def test_progress_counts_up_to_the_whole(trees: Trees) -> None:
    trees.add("f", bytes(3_000_000))
    seen: list[int] = []
    layer = trees.commit(progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == layer.uncompressed_size


def test_nothing_changed_is_an_empty_layer(trees: Trees) -> None:
    layer = trees.commit()
    assert layer.entries == 0
    assert (trees.base / "layer.tar").read_bytes() == bytes(1024)
    # The digest that every registry knows for the empty layer's tar
    assert layer.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def test_threads_and_descriptors_are_gone_afterwards(trees: Trees) -> None:
    trees.add("f", bytes(3_000_000))
    trees.commit("warm.tar.gz")
    threads, fds = threading.active_count(), os.listdir("/proc/self/fd")
    trees.commit("l.tar.gz")
    trees.add(".wh.x")
    with pytest.raises(ChangesetError):
        trees.commit("l.tar.gz")
    assert (threading.active_count(), os.listdir("/proc/self/fd")) == (threads, fds)


@requires("tar", "bsdtar")
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_others_extract_the_same_tree(trees: Trees, program: str) -> None:
    for name in ("plain", "dir/deep/" + "n" * 150, "ü", "d2/" + "x" * 120 + "/" + "y" * 120):
        trees.add(name, name.encode() * 100)
    os.symlink("t" * 200, trees.after / "sl")
    os.symlink("t" * 200, trees.upper / "sl")
    os.setxattr(trees.after / "plain", "user.bin", b"\0=\n\xff")
    os.utime(trees.after / "plain", ns=(0, 1_234_567_890_123_456_789))
    trees.commit()
    out, ours = trees.base / "out", trees.base / "ours"
    out.mkdir()
    ours.mkdir()
    options = {"tar": ["--xattrs", "--xattrs-include=*"], "bsdtar": ["--xattrs"]}[program]
    subprocess.run([program, *options, "-xpf", str(trees.base / "layer.tar"), "-C", str(out)], check=True)
    apply(str(trees.base / "layer.tar"), str(ours))
    assert describe(ours) == describe(trees.after)
    # bsdtar sets the time of "." before it is done with it
    assert describe(out)[1:] == describe(trees.after)[1:]


def test_missing_zstd_says_what_to_install(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ChangesetError, match="zstd is not available") as raised:
        trees.commit("l.tar.zst")
    assert raised.value.hint is not None
    assert "backports.zstd" in raised.value.hint
    assert not list(trees.base.glob("*.zst"))
