"""Lower layers that change while they are mounted: an errno at worst, and after `unionfs remount` what is there now.

The first part runs in process and by chance: the same seeds, the same changes.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.semantics.unions import Union, contents
from tests.unit.overlay_rig import ME, Rig
from tests.unit.overlay_rig import union as engine_union
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import SetAttr

NAMES = "a", "b", "c"
PATHS = [*NAMES, *(f"{x}/{y}" for x in NAMES for y in NAMES), *(f"{x}/{y}/a" for x in NAMES for y in NAMES)]


class Vandal:
    """Changes layers at random, as somebody would who does not know that they are mounted."""

    def __init__(self, chance: random.Random, layers: list[Path]) -> None:
        self._chance = chance
        self._layers = layers
        self._count = 0

    def strike(self) -> None:
        path = self._chance.choice(self._layers) / self._chance.choice(PATHS)
        with suppress(OSError):
            self._chance.choice([self.remove, self.file, self.directory, self.link, self.whiteout, self.replace])(path)

    def remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def file(self, path: Path) -> None:
        self._count += 1
        path.write_text("x" * self._count)

    def directory(self, path: Path) -> None:
        path.mkdir()

    def link(self, path: Path) -> None:
        os.link(self._chance.choice(self._layers) / self._chance.choice(PATHS), path)

    def whiteout(self, path: Path) -> None:
        (path.parent / f".wh.{path.name}").touch()

    def replace(self, path: Path) -> None:
        with suppress(OSError):
            self.remove(path)
        self._chance.choice([self.file, self.directory, self.link])(path)


def operations(rig: Rig, path: str, other: str) -> list[Callable[[], object]]:
    return [
        lambda: rig.stat(path),
        lambda: rig.list(path),
        lambda: rig.read(path),
        lambda: rig.write(path, b"written"),
        lambda: rig.write(path, b"", flags=os.O_TRUNC),
        lambda: rig.create(path, b"created"),
        lambda: rig.mkdir(path),
        lambda: rig.unlink(path),
        lambda: rig.rmdir(path),
        lambda: rig.rename(path, other),
        lambda: rig.link(path, other),
        lambda: rig.setattr(path, mode=0o640),
        lambda: rig.setattr(path, size=3),
    ]


class Holder:
    """Nodes and open files that somebody keeps, and goes on using whatever they have become."""

    def __init__(self, rig: Rig, chance: random.Random, held: ExitStack) -> None:
        self._fs, self._chance, self._held = rig.fs, chance, held
        self._rig = rig
        self.nodes: list[int] = []

    def hold(self, path: str) -> None:
        with suppress(OSError):
            node = self._held.enter_context(self._rig.node(path))
            self.nodes.append(node)
            if stat.S_ISDIR(self._rig.stat(path).mode):
                self._held.callback(self._fs.releasedir, self._fs.opendir(node))
            else:
                fh = self._fs.open(node, os.O_RDONLY).fh
                self._held.callback(self._fs.release, fh)

    def use(self) -> None:
        node, fs = self._chance.choice(self.nodes or [1]), self._fs
        uses: list[Callable[[], object]] = [
            lambda: fs.getattr(node),
            lambda: fs.release(fs.open(node, os.O_RDWR).fh),
            lambda: fs.setattr(node, SetAttr(mode=0o600), ME),
            lambda: fs.listxattr(node),
            lambda: fs.getxattr(node, b"user.x"),
            lambda: fs.setxattr(node, b"user.x", b"1", 0),
            lambda: fs.readlink(node),
            lambda: fs.forget(fs.lookup(node, b"a").node, 1),
            lambda: fs.forget(fs.mkdir(node, b"b", 0o755, ME).node, 1),
        ]
        with suppress(OSError):
            self._chance.choice(uses)()


def shown(fs: UnionFilesystem, directory: Path) -> list[tuple[object, ...]]:
    """Every path, its type, links and content."""
    rig = Rig(fs, directory)
    found: list[tuple[object, ...]] = []
    todo = [""]
    while todo:
        path = todo.pop()
        st = rig.stat(path)
        if stat.S_ISDIR(st.mode):
            found.append((path, "dir"))
            todo += [f"{path}/{name}".lstrip("/") for name in rig.list(path)]
        else:
            found.append((path, st.nlink, rig.read(path)))
    return sorted(found)


def as_mounted_anew(layers: list[Path], base: Path) -> list[tuple[object, ...]]:
    fs = UnionFilesystem(
        [DirectoryLayer(str(layer)) for layer in layers],
        WritableDirectory(str(base / "upper")),
        WritableDirectory(str(base / "work")),
        UnionOptions(read_only=True),
    )
    try:
        return shown(fs, base / "upper")
    finally:
        fs.close()


@pytest.mark.parametrize("seed", range(40))
def test_engine_under_a_vandal(tmp_path: Path, seed: int) -> None:
    """Without a refresh any operation may fail, with an errno; after it the tree is the one of a new mount."""
    chance = random.Random(seed)
    layers = [tmp_path / "top", tmp_path / "base"]
    for layer in layers:
        layer.mkdir()
    vandal = Vandal(chance, layers)
    for _ in range(30):
        vandal.strike()
    with engine_union(tmp_path, layers) as rig, ExitStack() as held:
        checked, rig.fs.check_invariants = rig.fs.check_invariants, lambda: None  # type: ignore[method-assign]
        holder = Holder(rig, chance, held)
        for _ in range(6):
            for _ in range(12):
                with suppress(OSError):
                    chance.choice(operations(rig, chance.choice(PATHS), chance.choice(PATHS)))()
            holder.hold(chance.choice(PATHS))
            for _ in range(6):
                vandal.strike()
            for _ in range(12):
                holder.use()
                with suppress(OSError):
                    chance.choice(operations(rig, chance.choice(PATHS), chance.choice(PATHS)))()
            rig.fs.refresh()
            checked()
            assert shown(rig.fs, rig.upper) == as_mounted_anew(layers, tmp_path)
            for _ in range(6):
                holder.use()
            checked()


# Over a mount --------------------------------------------------------------------------------------------------------
Test = Callable[[tuple[Path, Path, Path]], None]


def over_a_union(test: Test) -> Test:
    for mark in (
        pytest.mark.needs("union"),
        pytest.mark.unlike("kernel", "undefined there (overlayfs.rst, Changes to underlying filesystems)"),
    ):
        test = mark(test)
    return test


@pytest.fixture
def changed(union: Union) -> tuple[Path, Path, Path]:
    """(mount, upper layer, base): each change below is made to layers whose names and attributes are in all caches."""
    base, top = union.lower(), union.lower()
    for name in ("file", "gone", "short", "removed/inside", "turned/inside", "link", "large"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_bytes(b"content" * (100_000 if name == "large" else 1))
    (base / "link").unlink()
    os.symlink("file", base / "link")
    (top / "removed").mkdir()
    mnt = union.mount("--changed-layers")
    contents(mnt)
    return mnt, top, base


def harmless(*actions: Callable[[], object]) -> None:
    """Each may fail, as long as it does with an errno. What the fixture says at the end: nothing was logged."""
    for action in actions:
        with suppress(OSError):
            action()


def copy_up(path: Path) -> None:
    path.open("ab").close()


@over_a_union
def test_file_that_vanished(changed: tuple[Path, Path, Path]) -> None:
    mnt, _, base = changed
    path = mnt / "gone"
    with path.open("rb", buffering=0) as reader:
        (base / "gone").unlink()
        assert reader.read() == b"content"
        harmless(
            path.stat, path.read_bytes, lambda: path.write_bytes(b"new"), lambda: path.chmod(0o600), path.unlink,
            lambda: os.listxattr(path), lambda: os.fstat(reader.fileno()), lambda: path.rename(mnt / "other"),
        )  # fmt: skip
    harmless(lambda: os.listdir(mnt), path.stat)
    assert (mnt / "file").read_bytes() == b"content"


@over_a_union
def test_file_and_directory_that_changed_places(changed: tuple[Path, Path, Path]) -> None:
    mnt, _, base = changed
    with (mnt / "file").open("rb") as reader:
        (base / "file").unlink()
        (base / "file").mkdir()
        (base / "file/new").touch()
        shutil.rmtree(base / "turned")
        (base / "turned").write_text("a file now")
        for path in (mnt / "file", mnt / "turned"):
            harmless(
                path.stat, path.read_bytes, partial(os.listdir, path), partial(path.write_bytes, b"new"),
                (path / "inside").read_bytes, (path / "new").touch, partial(path.chmod, 0o700),
                partial(path.rename, mnt / f"other-{path.name}"), path.unlink, path.rmdir,
            )  # fmt: skip
        harmless(lambda: os.fstat(reader.fileno()), reader.read)
    assert (mnt / "short").read_bytes() == b"content"


@over_a_union
def test_file_that_was_cut_while_it_is_read(changed: tuple[Path, Path, Path]) -> None:
    mnt, _, base = changed
    for name in ("short", "large"):
        path = mnt / name
        with path.open("rb", buffering=0) as reader:
            os.truncate(base / name, 2)
            assert reader.read() in (b"co", b"co" + bytes(5), b"content", b"content" * 100_000)
            harmless(path.read_bytes, partial(copy_up, path), path.stat)
    assert (mnt / "file").read_bytes() == b"content"


@over_a_union
def test_directory_that_vanished_under_its_users(changed: tuple[Path, Path, Path]) -> None:
    mnt, top, base = changed
    path = mnt / "removed"
    directory = os.open(path, os.O_RDONLY)
    try:
        shutil.rmtree(base / "removed")
        harmless(
            lambda: os.listdir(directory), lambda: os.stat("inside", dir_fd=directory), (path / "inside").read_bytes,
            lambda: (path / "inside").write_bytes(b"new"), (path / "inside").unlink,
        )  # fmt: skip
        shutil.rmtree(top / "removed")
        harmless(
            lambda: os.listdir(directory), path.stat, (path / "new").touch, (path / "dir").mkdir,
            lambda: path.rename(mnt / "other"), lambda: os.listdir(mnt), path.rmdir, lambda: os.fstat(directory),
        )  # fmt: skip
    finally:
        os.close(directory)
    assert (mnt / "file").read_bytes() == b"content"


@over_a_union
def test_layer_that_was_removed_as_a_whole(changed: tuple[Path, Path, Path]) -> None:
    mnt, top, base = changed
    shutil.rmtree(top)
    harmless(lambda: os.listdir(mnt), (mnt / "removed/inside").read_bytes, (mnt / "removed/new").touch)
    assert (mnt / "file").read_bytes() == b"content"
    shutil.rmtree(base)
    harmless(lambda: os.listdir(mnt), (mnt / "file").read_bytes, lambda: contents(mnt), lambda: os.statvfs(mnt))
    (mnt / "made").write_bytes(b"made")
    assert (mnt / "made").read_bytes() == b"made"
