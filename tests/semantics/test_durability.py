"""What fsync(2) has answered for is there after the machine has lost its power.

The layers lie on a journaling file system on a loop device. The moment the call returns, the device's backing file is
copied: that is what the disk has then. The copy is mounted, which replays its journal, and looked at. The file system
commits nothing by itself meanwhile (commit=), so that what was not flushed is not there: the tests on `volatile` and
on no flush at all show that this is so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.requirements import need
from tests.rigs import Backing, run
from tests.semantics.unions import Union
from tests.unit.overlay_rig import ME, Rig
from tests.unit.overlay_rig import union as open_union
from unionfs.overlay import UnionOptions
from unionfs.vfs import Caller

pytestmark = pytest.mark.needs_root

#: Made on, and mounted with.
FILE_SYSTEMS = {
    "ext4": (48 << 20, "mkfs.ext4 -q -F -b 4096 -J size=4", "commit=3600"),
    "xfs": (320 << 20, "mkfs.xfs -q -f", "nouuid"),
}
SOMEBODY = Caller(1000, 1000, 1, 0o022)


class Disk:
    """A file system on a loop device, whose power can be cut. Below `root`: low/ (a layer), upper/, work/."""

    def __init__(self, directory: Path, kind: str) -> None:
        size, mkfs, self._options = FILE_SYSTEMS[kind]
        self._directory = directory
        self._image = directory / "image"
        self.root = directory / "root"
        self.root.mkdir()
        with open(self._image, "wb") as file:
            file.truncate(size)
        run(*mkfs.split(), str(self._image))
        self._mount(self._image, self.root)
        self._copies = 0

    def _mount(self, image: Path, place: Path) -> None:
        run("mount", "-o", f"loop,{self._options}", str(image), str(place))

    @contextlib.contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """The root, as it would be found now."""
        self._copies += 1
        image, place = (self._directory / f"{name}{self._copies}" for name in ("copy", "cut"))
        subprocess.run(["cp", "--sparse=always", "--reflink=never", self._image, image], check=True, timeout=60)
        place.mkdir()
        self._mount(image, place)
        try:
            yield place
        finally:
            run("umount", "-l", str(place))
            image.unlink()

    def close(self) -> None:
        run("umount", "-l", str(self.root))
        shutil.rmtree(self._directory)


@pytest.fixture(params=list(FILE_SYSTEMS))
def disk(request: pytest.FixtureRequest, backing: Backing) -> Iterator[Disk]:
    need(f"mkfs.{request.param}")
    made = Disk(backing.directory("disk"), request.param)
    try:
        low = made.root / "low"
        (low / "dir/sub/deep").mkdir(parents=True)
        for path in ("file", "dir/sub/deep/file", "one", "gone", "second"):
            (low / path).write_text("old " * 1000)
        os.link(low / "one", low / "dir/pair")
        (low / "empty").mkdir()
        for name in ("upper", "work"):
            (made.root / name).mkdir()
        with open_union(made.root, [low]):
            pass  # what a first mount makes in the work directory
        run("sync", "-f", str(made.root))
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def mounted(disk: Disk, *, volatile: bool = False) -> Iterator[Rig]:
    with open_union(disk.root, [disk.root / "low"], options=UnionOptions(volatile=volatile)) as u:
        yield u


@contextlib.contextmanager
def found(disk: Disk) -> Iterator[Rig]:
    """The union that a power cut would leave."""
    with disk.after_power_cut() as root, open_union(root, [root / "low"], options=UnionOptions(force=True)) as u:
        yield u


# what is done to a file, and how it is flushed ------------------------------------------------------------------------
def overwrite(u: Rig, path: str, datasync: bool | None) -> None:
    """The same length, in place: the one thing that leaves fdatasync no metadata to flush."""
    with u.node(path) as node:
        fh = u.fs.open(node, os.O_RDWR).fh
        u.fs.write(fh, 0, b"new ")
        if datasync is not None:
            u.fs.fsync(fh, datasync)
        u.fs.release(fh)


def make(u: Rig, path: str, datasync: bool, caller: Caller = ME) -> None:
    with u.parent(path) as (parent, name):
        entry, opened = u.fs.create(parent, name, 0o644, os.O_RDWR, caller)
        u.fs.write(opened.fh, 0, b"made")
        u.fs.fsync(opened.fh, datasync)
        u.fs.release(opened.fh)
        u.fs.forget(entry.node, 1)


def flush_directory(u: Rig, path: str) -> None:
    with u.node(path) as node:
        fh = u.fs.opendir(node)
        u.fs.fsyncdir(fh, False)
        u.fs.releasedir(fh)


each_flush = pytest.mark.parametrize("datasync", [False, True], ids=["fsync", "fdatasync"])


def test_what_is_not_flushed_is_not_there(disk: Disk) -> None:
    with mounted(disk) as u:
        overwrite(u, "file", None)
        with found(disk) as after:
            assert after.read("file") == b"old " * 1000


def test_volatile_flushes_nothing(disk: Disk) -> None:
    with mounted(disk, volatile=True) as u:
        overwrite(u, "file", False)
        u.unlink("gone")
        flush_directory(u, "")
        u.fs.syncfs()
        with found(disk) as after:
            assert after.read("file") == b"old " * 1000 and after.exists("gone")


@each_flush
@pytest.mark.parametrize("path", ["file", "dir/sub/deep/file"])
def test_what_is_written_over_a_lower_file(disk: Disk, path: str, datasync: bool) -> None:
    """The copy's name, and those of the directories copied up with it, are as old as people can tell."""
    with mounted(disk) as u:
        overwrite(u, path, datasync)
        with found(disk) as after:
            assert after.read(path) == b"new " + b"old " * 999


@each_flush
def test_what_is_written_again(disk: Disk, datasync: bool) -> None:
    """The second flush, when the name has been flushed."""
    with mounted(disk) as u:
        overwrite(u, "file", False)
        with u.node("file") as node:
            fh = u.fs.open(node, os.O_RDWR).fh
            u.fs.write(fh, 4, b"more")
            u.fs.fsync(fh, datasync)
            u.fs.release(fh)
        with found(disk) as after:
            assert after.read("file") == b"new more" + b"old " * 998


def test_copied_up_by_chmod_and_written_long_after(disk: Disk) -> None:
    with mounted(disk) as u:
        u.setattr("dir/sub/deep/file", mode=0o600)  # the inode is forgotten in between
        overwrite(u, "dir/sub/deep/file", True)
        with found(disk) as after:
            assert after.read("dir/sub/deep/file") == b"new " + b"old " * 999
            assert after.stat("dir/sub/deep/file").mode & 0o777 == 0o600


@each_flush
@pytest.mark.parametrize("name", ["one", "dir/pair"])
def test_every_name_of_a_lower_hard_link(disk: Disk, name: str, datasync: bool) -> None:
    with mounted(disk) as u:
        overwrite(u, name, datasync)
        with found(disk) as after:
            assert after.read("one") == after.read("dir/pair") == b"new " + b"old " * 999
            assert after.stat("one").nlink == 2


@each_flush
@pytest.mark.parametrize("caller", [ME, SOMEBODY], ids=["daemon", "somebody"])
@pytest.mark.parametrize("path", ["new", "dir/sub/deep/new"])
def test_a_new_file(disk: Disk, path: str, caller: Caller, datasync: bool) -> None:
    with mounted(disk) as u:
        make(u, path, datasync, caller)
        with found(disk) as after:
            assert after.read(path) == b"made" and after.stat(path).uid == caller.uid


@each_flush
def test_a_new_file_over_a_whiteout(disk: Disk, datasync: bool) -> None:
    with mounted(disk) as u:
        u.unlink("file")
        make(u, "file", datasync)
        with found(disk) as after:
            assert after.read("file") == b"made"


@each_flush
def test_a_new_file_in_a_new_directory_over_a_whiteout(disk: Disk, datasync: bool) -> None:
    with mounted(disk) as u:
        u.rmdir("empty")
        u.mkdir("empty")
        make(u, "empty/new", datasync)
        with found(disk) as after:
            assert after.list("empty") == ["new"] and after.read("empty/new") == b"made"


def rename_over(u: Rig) -> None:
    """How programs replace a file: the other tries to be safe without the directory, too."""
    make(u, "dir/sub/temporary", False)
    u.rename("dir/sub/temporary", "dir/sub/deep/file")
    flush_directory(u, "dir/sub/deep")


def make_over_whiteout(u: Rig) -> None:
    u.unlink("file")
    u.mkdir("file")
    flush_directory(u, "")


def move_directory(u: Rig) -> None:
    u.rename("dir/sub", "moved")
    flush_directory(u, "")


def remove(u: Rig) -> None:
    u.unlink("dir/sub/deep/file")
    flush_directory(u, "dir/sub/deep")


def unlink_one(u: Rig) -> None:
    u.unlink("one")
    flush_directory(u, "")


DIRECTORIES: dict[str, tuple[Callable[[Rig], None], Callable[[Rig], bool]]] = {
    "rename over": (rename_over, lambda u: u.read("dir/sub/deep/file") == b"made"),
    "unlink": (remove, lambda u: u.list("dir/sub/deep") == []),
    "unlink a hard link": (unlink_one, lambda u: not u.exists("one") and u.stat("dir/pair").nlink == 1),
    "mkdir over a whiteout": (make_over_whiteout, lambda u: u.list("file") == []),
    "rename a directory": (move_directory, lambda u: u.list("moved") == ["deep"] and u.list("dir") == ["pair"]),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_flushing_the_directory_keeps_what_was_done_in_it(disk: Disk, name: str) -> None:
    operate, is_done = DIRECTORIES[name]
    with mounted(disk) as u:
        operate(u)
        with found(disk) as after:
            assert is_done(after)


def test_syncfs_keeps_everything(disk: Disk) -> None:
    with mounted(disk) as u:
        overwrite(u, "file", None)
        u.setattr("dir/sub", mode=0o700)
        u.unlink("gone")
        u.fs.syncfs()
        with found(disk) as after:
            assert after.read("file") == b"new " + b"old " * 999 and not after.exists("gone")
            assert after.stat("dir/sub").mode & 0o777 == 0o700
        overwrite(u, "second", True)  # and afterwards a flush is as good as before
        with found(disk) as after:
            assert after.read("second") == b"new " + b"old " * 999


def test_a_power_cut_without_any_flush_leaves_the_old_or_the_new(disk: Disk) -> None:
    """The data of a copy is flushed before its name, whoever commits the name."""
    with mounted(disk) as u:
        overwrite(u, "file", None)
        upper = os.open(disk.root / "upper", os.O_RDONLY)
        os.fsync(upper)  # the journal is committed, with all names in it
        os.close(upper)
        with found(disk) as after:
            assert after.read("file") in (b"old " * 1000, b"new " + b"old " * 999)


@pytest.mark.needs("union")
def test_fsync_through_a_mount(disk: Disk, union: Union) -> None:
    private = disk.root / "private"
    union.use(private)
    union.lower(disk.root / "low")
    mnt = union.mount()
    try:
        for path in ("file", "dir/sub/deep/file"):
            fd = os.open(mnt / path, os.O_RDWR)
            os.pwrite(fd, b"new ", 0)
            os.fsync(fd)
            os.close(fd)
        with disk.after_power_cut() as root, open_union(root / "private", [root / "low"]) as after:
            assert after.read("file") == after.read("dir/sub/deep/file") == b"new " + b"old " * 999
    finally:
        union.unmount()
