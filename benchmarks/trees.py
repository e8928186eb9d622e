"""Deterministic input trees. The same scale gives the same names, sizes, bytes and times on every machine.

    small      20,000 files of 0–8 KiB in 400 directories      layered   the same files dealt over 64 layers
    archive    a tar of 5,000 such files                       five_k    the same 5,000 files as a directory
    big        one incompressible file of 1 GiB                many      100,000 empty files in 1,000 directories
    images     20,000 files, 1 GiB in all, as an upper to commit
    million    a tar of 1,000,000 empty files in directories of 1,000, which is nowhere unpacked

(The full scale's figures; `QUICK` has small ones.) A tree is built under a temporary name and renamed when complete,
so one that exists is whole. Trees are read-only by agreement: they serve as lowers, and `arena` compares a digest of
their listing before and after a workload. Text is base64 of a seeded generator; `NEEDLE` cannot occur in it by chance.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unionfs.changeset.tar_format import DIR, REG, TRAILER, Fields, member

NEEDLE = "#needle#"
_MTIME_NS = 1_700_000_000_000_000_000
_SEED = "unionfs benchmarks 1"


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the trees are. Counts and bytes."""

    name: str
    files: int
    directories: int
    unpacked: int
    big: int
    small_writes: int
    layers: int
    many: int
    image_bytes: int
    million: int

    @property
    def room(self) -> int:
        """Bytes a backing needs for all trees, and for what one workload at a time writes beside them."""
        small = (3 * self.files + 3 * self.unpacked) * 12288 + self.many * 1024
        small += self.million * 1400  # a header for each, and indexes
        return small + 3 * self.big + 2 * self.image_bytes + self.small_writes + (512 << 20)


FULL = Scale("full", 20_000, 400, 5_000, 1 << 30, 200 << 20, 64, 100_000, 1 << 30, 1_000_000)
QUICK = Scale("quick", 600, 12, 200, 16 << 20, 4 << 20, 8, 2_000, 8 << 20, 5_000)


@dataclass(frozen=True, slots=True)
class Tree:
    """What a built tree holds. `path` its top; `directories` without the top; `bytes` of all files."""

    path: Path
    files: int
    directories: int
    bytes: int
    needles: int
    tar_bytes: int


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size: int
    needle: bool


class Trees:
    """The trees of one scale below `root`, each built when first asked for."""

    def __init__(self, root: Path, scale: Scale) -> None:
        self.scale = scale
        version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
        self._root = root / f"{scale.name}-{version}"
        if not self._root.exists():  # trees kept from an older version of this module are other trees
            shutil.rmtree(root, ignore_errors=True)
        self._pool = base64.encodebytes(random.Random(_SEED).randbytes(1 << 20))
        self._root.mkdir(parents=True, exist_ok=True)

    def small(self) -> Tree:
        """Many small files, one layer."""
        files = list(_small_files(self.scale.files, self.scale.directories))
        return _describe(self._built("small", lambda top: self._write(top, files)), files)

    def layered(self) -> tuple[list[Path], Tree]:
        """The files of `small` dealt in the order of their names, so that most layers have most directories: (layers
        topmost first, what their union holds)."""
        files = sorted(_small_files(self.scale.files, self.scale.directories), key=lambda file: file.name)
        count = self.scale.layers

        def build(top: Path) -> None:
            for layer in range(count):
                self._write(top / f"{layer:02d}", files[layer::count])

        top = self._built("layered", build)
        return [top / f"{layer:02d}" for layer in range(count)], _describe(top, files)

    def five_k(self) -> Tree:
        """The files that `archive` packs, below one directory `unpacked` at the top of the tree."""
        files = list(_small_files(self.scale.unpacked, max(4, self.scale.unpacked // 50)))
        top = self._built("five_k", lambda top: self._write(top / "unpacked", files))
        tree = _describe(top, files)
        return Tree(top, tree.files, tree.directories, tree.bytes, tree.needles, tree.tar_bytes)

    def archive(self) -> tuple[Path, Tree]:
        """A tar of `five_k`, for unpacking: (the file, what it holds)."""
        tree = self.five_k()

        def build(top: Path) -> None:
            top.mkdir()
            fixed = ["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]
            subprocess.run(["tar", *fixed, "-cf", top / "5k.tar", "-C", tree.path / "unpacked", "."], check=True)

        return self._built("archive", build) / "5k.tar", tree

    def big(self) -> Tree:
        """One large incompressible file, named `big`."""

        def build(top: Path) -> None:
            top.mkdir()
            write_incompressible(top / "big", self.scale.big)
            _stamp(top / "big")

        return _describe(self._built("big", build), [_File("big", self.scale.big, False)])

    def many(self) -> Tree:
        """Very many empty files: what a walk makes a server remember."""
        files = [_File(f"m{i % 1000:03d}/f{i:06d}", 0, False) for i in range(self.scale.many)]
        return _describe(self._built("many", lambda top: self._write(top, files)), files)

    def million(self) -> tuple[Path, int]:
        """A layer that is there only as its tar (tars.packed): (where it would be unpacked, directories at its top)."""
        count = self.scale.million

        def build(top: Path) -> None:
            top.mkdir()
            with open(top / "layer.tar", "wb") as tar:
                for i in range(count):
                    if i % 1000 == 0:
                        tar.write(member(Fields(b"d%04d" % (i // 1000), DIR, 0o755)))
                    tar.write(member(Fields(b"d%04d/f%07d" % (i // 1000, i), REG, 0o644)))
                tar.write(TRAILER)
            (top / "layer").mkdir()

        return self._built("million", build) / "layer", -(-count // 1000)

    def images(self) -> Tree:
        """A tree to commit: the small files' names, each of equal size, incompressible."""
        size = self.scale.image_bytes // self.scale.files
        files = [_File(file.name, size, False) for file in _small_files(self.scale.files, self.scale.directories)]

        def build(top: Path) -> None:
            source = random.Random(f"{_SEED} images")
            for directory in sorted({os.path.dirname(file.name) for file in files}):
                (top / directory).mkdir(parents=True, exist_ok=True)
            for file in files:
                (top / file.name).write_bytes(source.randbytes(size))
                _stamp(top / file.name)

        return _describe(self._built("images", build), files)

    def _built(self, name: str, build: Callable[[Path], None]) -> Path:
        top = self._root / name
        if not top.exists():
            building = self._root / f"{name}.new"
            shutil.rmtree(building, ignore_errors=True)
            build(building)
            building.chmod(0o755)
            building.rename(top)
        return top

    def _write(self, top: Path, files: list[_File]) -> None:
        top.mkdir(parents=True)
        for directory in sorted({os.path.dirname(file.name) for file in files}):
            (top / directory).mkdir(parents=True, exist_ok=True)
        for file in files:
            content = self._content(file)
            fd = os.open(top / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, content)
            os.close(fd)
            _stamp(top / file.name)

    def _content(self, file: _File) -> bytes:
        start = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:3], "big") % (len(self._pool) - 16384)
        content = self._pool[start : start + file.size]
        return NEEDLE.encode() + content[len(NEEDLE) :] if file.needle else content


def _small_files(count: int, directories: int) -> Iterator[_File]:
    """Names in two levels, `directories` leaves; sizes 0–8 KiB, most of them small; a needle in each 100th."""
    source = random.Random(f"{_SEED} {count} {directories}")
    for i in range(count):
        leaf = i * 7919 % directories  # neighbours in time are not neighbours in a directory
        needle = i % 100 == 50
        size = min(8192, int(source.expovariate(1 / 1800)))
        yield _File(f"d{leaf // 20:02d}/s{leaf % 20:02d}/file-{i:05d}.txt", max(64, size) if needle else size, needle)


def _describe(path: Path, files: list[_File]) -> Tree:
    directories = {parent for file in files for parent in _parents(file.name)}
    blocks = sum(512 + -(-file.size // 512) * 512 for file in files) + 512 * (len(directories) + 1)
    tar_bytes = -(-(blocks + 1024) // 10240) * 10240  # two zero blocks, then padded to a record of 20
    total, needles = sum(file.size for file in files), sum(file.needle for file in files)
    return Tree(path, len(files), len(directories), total, needles, tar_bytes)


def _parents(name: str) -> Iterator[str]:
    while name := os.path.dirname(name):
        yield name


def write_incompressible(path: Path, size: int) -> None:
    """`size` bytes of a seeded generator, in pieces of 1 MiB: piece k is `incompressible_piece(k)`."""
    with open(path, "wb", buffering=0) as file:
        for piece in range(-(-size // (1 << 20))):
            file.write(incompressible_piece(piece)[: size - (piece << 20)])


def incompressible_piece(piece: int) -> bytes:
    """The 1 MiB at offset `piece` MiB of every incompressible file."""
    return random.Random(f"{_SEED} piece {piece}").randbytes(1 << 20)


def _stamp(path: Path) -> None:
    """A fixed time, so that listings and archives of a tree are the same on every machine."""
    os.utime(path, ns=(_MTIME_NS, _MTIME_NS))
