"""The promise: applying a commit to a copy of the lowers gives the union, object by object, whatever was done to it.

Unions are the kernel's, driven by random operations from a seed (a failure names it); `describe` compares type, mode,
owner, times in nanoseconds, contents, hard-link groups, devices and xattrs. umoci unpacks the same layers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.trees import describe, walk
from tests.requirements import requires
from tests.unit.changeset_rig import Union, Unions, copy_tree
from unionfs.changeset.apply import apply
from unionfs.changeset.compression import compressor
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.changeset.tar_writer import write_layer
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.linux.path import RENAME_EXCHANGE, renameat2
from unionfs.overlay import UnionFilesystem

pytestmark = requires("root", "overlayfs")

NAMES = ["a", "b", "c", "dir", "e-f", "ü", "n" * 110]


#: A block device that no machine has.
NO_DISK = os.makedev(259, 1048575)


def other_than_file(path: Path) -> bool:
    """Something stands there that opening for writing would block on, follow, or do harm to."""
    return os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)


class Meddler:
    """Random changes to a tree, from a seed. What the file system refuses did not happen."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.done: list[str] = []

    def work(self, count: int) -> None:
        operations = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        for _ in range(count):
            operation = self.random.choice(operations)
            one, other = self.pick(), self.pick()
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                operation(one, other)
                self.done.append(f"{operation.__name__} {one} {other}")

    def pick(self) -> Path:
        """Something that exists, or a new name beside it."""
        path = self.root / os.fsdecode(self.random.choice(walk(os.fsencode(self.root))))
        if self.random.random() < 0.4:
            path = (path if path.is_dir() and not path.is_symlink() else path.parent) / self.random.choice(NAMES)
        return path if path != self.root else self.root / self.random.choice(NAMES)

    def do_write(self, one: Path, other: Path) -> None:
        if not other_than_file(one):
            one.write_bytes(self.random.randbytes(self.random.choice([0, 3, 100, 70_000])))

    def do_edit_keeping_size_and_time(self, one: Path, other: Path) -> None:
        st = one.lstat()
        if stat.S_ISREG(st.st_mode):
            one.write_bytes(self.random.randbytes(st.st_size))
            os.utime(one, ns=(st.st_atime_ns, st.st_mtime_ns))

    def do_same_again(self, one: Path, other: Path) -> None:
        """A new file that looks exactly as the old one, links apart."""
        if not stat.S_ISREG(one.lstat().st_mode):
            return
        subprocess.run(["cp", "-a", str(one), f"{one}.copy"], check=True, stderr=subprocess.DEVNULL)
        os.rename(f"{one}.copy", one)

    def do_sparse(self, one: Path, other: Path) -> None:
        if other_than_file(one):
            return
        with open(one, "r+b" if one.exists() else "wb") as f:
            f.truncate(self.random.randrange(300_000))
            f.seek(self.random.randrange(400_000))
            f.write(b"x")

    def do_mkdir(self, one: Path, other: Path) -> None:
        one.mkdir(mode=self.random.choice([0o755, 0o700, 0o2775, 0o1777]))

    def do_remove(self, one: Path, other: Path) -> None:
        shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()

    def do_recreate_directory(self, one: Path, other: Path) -> None:
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
            one.mkdir()
            (one / self.random.choice(NAMES)).write_text("anew")

    def do_rename(self, one: Path, other: Path) -> None:
        one.rename(other)

    def do_exchange(self, one: Path, other: Path) -> None:
        renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE)

    def do_link(self, one: Path, other: Path) -> None:
        os.link(one, other, follow_symlinks=False)

    def do_symlink(self, one: Path, other: Path) -> None:
        os.symlink(self.random.choice(["t", "/abs/olute", "u" * 150]), one)

    def do_mknod(self, one: Path, other: Path) -> None:
        kind, rdev = self.random.choice([(stat.S_IFIFO, 0), (stat.S_IFCHR, 0x103), (stat.S_IFBLK, NO_DISK)])
        os.mknod(one, kind | 0o640, rdev)

    def do_chmod(self, one: Path, other: Path) -> None:
        if not one.is_symlink():
            one.chmod(self.random.choice([0o644, 0o600, 0o4755, 0o2711, 0o1777]))

    def do_chown(self, one: Path, other: Path) -> None:
        os.chown(one, self.random.choice([0, 7, 3_000_000]), self.random.choice([0, 9]), follow_symlinks=False)

    def do_utime(self, one: Path, other: Path) -> None:
        ns = self.random.choice([0, 1, -1, 1_500_000_000_000_000_000, 1_234_567_890_987_654_321])
        os.utime(one, ns=(ns, ns), follow_symlinks=False)

    def do_set_xattr(self, one: Path, other: Path) -> None:
        namespace = "trusted." if one.is_symlink() else self.random.choice(["user.", "trusted."])
        value = self.random.randbytes(self.random.choice([0, 1, 300]))
        os.setxattr(one, namespace + self.random.choice("xyz"), value, follow_symlinks=False)

    def do_remove_xattrs(self, one: Path, other: Path) -> None:
        for name in os.listxattr(one, follow_symlinks=False):
            os.removexattr(one, name, follow_symlinks=False)

    def do_acl(self, one: Path, other: Path) -> None:
        if not one.is_symlink() and shutil.which("setfacl"):
            default = ["-d"] if one.is_dir() and self.random.random() < 0.5 else []
            subprocess.run(["setfacl", *default, "-m", "u:1000:r", str(one)], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def unions(tmp_path: Path) -> Iterator[Unions]:
    made = Unions(tmp_path)
    yield made
    made.close()


def random_union(unions: Unions, seed: int) -> tuple[Union, Meddler]:
    lowers = []
    for number in range(1 + seed % 3):
        low = unions.base / f"low{number}"
        low.mkdir()
        Meddler(low, 1000 * seed + number).work(60)
        lowers.append(low)
    union = unions.mount(lowers)
    meddler = Meddler(union.mnt, seed)
    meddler.work(1 + seed * 7 % 60)
    return union, meddler


def check_round_trip(unions: Unions, seed: int) -> None:
    union, meddler = random_union(unions, seed)
    suffix = ["tar", "tar.gz", "tar.zst"][seed % 3]
    path, written = union.commit(f"layer.{suffix}")
    target = unions.base / "target"
    target.mkdir()
    copy_tree(union.before, target)
    applied = apply(str(path), str(target))
    assert applied.skipped == ()
    assert (applied.diff_id, applied.digest, applied.entries) == (written.diff_id, written.digest, written.entries)
    # Where nothing changed, the root's time is that of the making of the upper directory, and no change.
    start = 0 if written.entries else 1
    assert describe(target)[start:] == describe(union.mnt)[start:], (seed, meddler.done)
    again, rewritten = union.commit(f"again.{suffix}")
    assert rewritten == written
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("seed", range(15))
def test_applied_commit_is_the_union(unions: Unions, seed: int) -> None:
    check_round_trip(unions, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15, 300))
def test_applied_commit_is_the_union_many_times(unions: Unions, seed: int) -> None:
    check_round_trip(unions, seed)


@pytest.mark.parametrize("seed", range(15))
def test_the_engine_commits_the_same_bytes(unions: Unions, seed: int) -> None:
    """The kernel made the union; our engine reads the upper and index it left."""
    check_engine(unions, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15, 150))
def test_the_engine_commits_the_same_bytes_many_times(unions: Unions, seed: int) -> None:
    check_engine(unions, seed)


def check_engine(unions: Unions, seed: int) -> None:
    union, meddler = random_union(unions, seed)
    path, written = union.commit("kernel.tar")
    unions.unmount(union)
    lowers = [str(lower) for lower in union.lowers]
    before = UnionFilesystem([DirectoryLayer(lower) for lower in lowers])
    after = UnionFilesystem(
        [DirectoryLayer(lower) for lower in lowers],
        WritableDirectory(str(union.upper)),
        WritableDirectory(str(union.work)),
    )
    upper = DirectoryLayer(str(union.upper))
    try:
        ours = write_layer(before, after, upper, str(unions.base / "engine.tar"))
    finally:
        for each in (before, after, upper):
            each.close()
    assert members(unions.base / "engine.tar") == members(path), meddler.done
    assert ours == written


def members(path: Path) -> list[TarEntry]:
    with open(path, "rb") as f:
        return list(TarReader(f))


# umoci ------------------------------------------------------------------------------------------------------------
def write_image(layout: Path, layers: list[bytes]) -> None:
    """An OCI image layout, by hand, with one image `t` of plain layer tars."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    vnd = "application/vnd.oci.image."
    descriptors = [blob(data, vnd + "layer.v1.tar+gzip") for data in map(_gzip, layers)]
    diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": vnd + "manifest.v1+json",
        "config": blob(json.dumps(config).encode(), vnd + "config.v1+json"),
        "layers": descriptors,
    }
    named = blob(json.dumps(manifest).encode(), vnd + "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _gzip(data: bytes) -> bytes:
    made = compressor("gzip")
    assert made is not None
    pieces = [made.feed(memoryview(data)[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20)]
    return b"".join([*pieces, made.finish()])


@requires("umoci")
@pytest.mark.peer
@pytest.mark.parametrize("seed", [1, 4, 7])
def test_umoci_unpacks_the_union(unions: Unions, seed: int) -> None:
    """The lowers as one layer, our commit as the next; umoci (Go's archive/tar) makes the union of them."""
    union, meddler = random_union(unions, seed)
    empty = unions.base / "empty"
    empty.mkdir()
    base = Union(unions.base, [], union.before, empty, empty, union.before)
    base_path, _ = base.commit("base.tar")
    path, _ = union.commit()
    write_image(unions.base / "image", [base_path.read_bytes(), path.read_bytes()])
    bundle = unions.base / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{unions.base}/image:t", str(bundle)], check=True)
    ours, theirs = describe(union.mnt)[1:], describe(bundle / "rootfs")[1:]
    assert theirs == ours, meddler.done
