"""What copy-up keeps, and what it leaves on disk."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.unit.overlay_rig import tree, union
from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import LayerFile, WritableLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.vfs import Attr, SetAttr

AS_ROOT = os.geteuid() == 0


def test_everything_about_a_file_is_kept(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", d__x="data")
    path = a / "d/x"
    os.setxattr(path, "user.color", b"blue")
    if AS_ROOT:
        os.chown(path, 1234, 2345)
        os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.chmod(path, 0o4755)
    os.utime(path, ns=(1_111_111_111_123_456_789, -1_500_000_001))
    os.utime(a / "d", ns=(5, 6))
    before = os.lstat(path)
    with union(tmp_path, [a]) as u:
        ino = u.stat("d/x").ino
        u.write("d/x", b"")
        attr = u.stat("d/x")
        assert (attr.mode, attr.uid, attr.gid, attr.ino) == (before.st_mode, before.st_uid, before.st_gid, ino)
        assert (attr.atime_ns, attr.mtime_ns) == (before.st_atime_ns, before.st_mtime_ns)
        with u.node("d/x") as node:
            names = {b"user.color"} | ({b"security.capability"} if AS_ROOT else set())
            assert set(u.fs.listxattr(node)) == names
        assert u.stat("d").mtime_ns == 6, "parents are copied up with their times"
        assert u.mark("d/x", "origin") is not None
        assert u.mark("d", "impure") == b"y"
    assert os.lstat(tmp_path / "upper/d").st_mtime_ns == 6
    assert not list((tmp_path / "work/work").iterdir())


def test_number_is_kept_over_copy_up_remount_and_rename(tmp_path: Path) -> None:
    if not AS_ROOT:
        pytest.skip("needs root: finding a renamed file's origin takes open_by_handle_at(2)")
    a = tree(tmp_path / "a", x="1", d__y="2")
    with union(tmp_path, [a]) as u:
        numbers = u.stat("x").ino, u.stat("d/y").ino, u.stat("d").ino
        u.write("x", b"!")
        u.rename("x", "renamed")
        u.write("d/y", b"!")
        u.rename("d", "e")
        assert (u.stat("renamed").ino, u.stat("e/y").ino, u.stat("e").ino) == numbers
        u.list(), u.list("e")
    with union(tmp_path, [a]) as u:
        assert (u.stat("renamed").ino, u.stat("e/y").ino, u.stat("e").ino) == numbers
        u.list(), u.list("e")


def test_holes_stay_holes(tmp_path: Path) -> None:
    a = tree(tmp_path / "a")
    with open(a / "sparse", "wb") as f:
        f.seek(64 << 20)
        f.write(b"end")
        f.truncate(128 << 20)
    with union(tmp_path, [a]) as u:
        u.write("sparse", b"start")
        st = os.stat(tmp_path / "upper/sparse")
        assert st.st_size == 128 << 20
        assert st.st_blocks * 512 < 1 << 20
        with open(tmp_path / "upper/sparse", "rb") as f:
            f.seek(64 << 20)
            assert f.read(4) == b"end\0"


def test_truncating_open_copies_no_data(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", big="x" * 100_000, part="y" * 100_000)
    with union(tmp_path, [a]) as u:
        u.write("big", b"", flags=os.O_TRUNC)
        assert u.stat("big").size == 0
        u.setattr("part", size=10)
        assert u.read("part") == b"y" * 10
        assert u.fs.statistics()["copy_up_bytes"] == 10


@pytest.mark.parametrize("kind", ["fifo", "socket", "symlink", "device"])
def test_special_objects(tmp_path: Path, kind: str) -> None:
    if kind == "device" and not AS_ROOT:
        pytest.skip("needs root: devices")
    a = tree(tmp_path / "a")
    if kind == "symlink":
        (a / "x").symlink_to("target")
    else:
        form = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFBLK}[kind]
        os.mknod(a / "x", form | 0o640, os.makedev(7, 3) if kind == "device" else 0)
    before = os.lstat(a / "x")
    with union(tmp_path, [a]) as u:
        ino = u.stat("x").ino
        u.setattr("x", mtime_ns=12345)
        after = u.stat("x")
        assert (after.mode, after.rdev, after.ino, after.mtime_ns) == (before.st_mode, before.st_rdev, ino, 12345)


def test_reader_sees_the_copy_once_there_is_one(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", x="old data")
    with union(tmp_path, [a]) as u, u.node("x") as node:
        reader = u.fs.open(node, os.O_RDONLY).fh
        assert u.fs.read(reader, 0, 100) == b"old data"
        u.write("x", b"new")
        assert u.fs.read(reader, 0, 100) == b"new data"
        u.fs.release(reader)


def test_failed_copy_up_leaves_the_lower_and_no_debris(tmp_path: Path) -> None:
    class FullFile(FdFile):
        def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
            raise OSError(errno.ENOSPC, "no space")

        def pwrite(self, data: bytes | memoryview, offset: int) -> int:
            raise OSError(errno.ENOSPC, "no space")

    class Full(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return FullFile(super().create(path, mode, flags).fd)

    a = tree(tmp_path / "a", x="data", big="x" * 300_000)
    with union(tmp_path, [a], upper=Full) as u:
        for name in ("x", "big"):
            with pytest.raises(OSError) as caught, u.node(name) as node:
                u.fs.open(node, os.O_WRONLY)
            assert caught.value.errno == errno.ENOSPC
        assert u.read("x") == b"data"
        assert u.stored() == []
    assert not list((tmp_path / "work/work").iterdir())


def test_unlink_during_copy_up_leaves_an_open_file_without_a_name(tmp_path: Path) -> None:
    entered, resume = threading.Event(), threading.Event()

    class SlowFile(FdFile):
        def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
            entered.set()
            assert resume.wait(10)
            return super().copy_range(source, source_offset, offset, length)

    class Slow(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return SlowFile(super().create(path, mode, flags).fd)

    a = tree(tmp_path / "a", x="data" * 50_000, other="o")
    with union(tmp_path, [a], upper=Slow) as u, u.node("x") as node:
        opened: list[int] = []
        writer = threading.Thread(target=lambda: opened.append(u.fs.open(node, os.O_WRONLY).fh))
        writer.start()
        assert entered.wait(10)
        assert u.read("other") == b"o", "a copy-up must not hold up other files"
        assert u.stat("x").size == 200_000
        u.unlink("x")
        resume.set()
        writer.join(10)
        assert not u.exists("x")
        u.fs.write(opened[0], 0, b"DA")
        assert u.fs.read(opened[0], 0, 10) == b"DAtadatada"
        from unionfs.vfs import Attr

        assert Attr.unpack(u.fs.getattr(node, opened[0])).nlink == 0
        u.fs.setattr(node, SetAttr(size=1), None, opened[0])  # type: ignore[arg-type]
        assert u.fs.read(opened[0], 0, 10) == b"D"
        u.fs.release(opened[0])
    assert not list((tmp_path / "work/work").iterdir())


def test_short_write_into_a_full_file_system_is_no_copy(tmp_path: Path) -> None:
    """write(2) that finds room for a part says so, and only the next one says ENOSPC."""

    class AlmostFullFile(FdFile):
        def pwrite(self, data: bytes | memoryview, offset: int) -> int:
            if offset:
                raise OSError(errno.ENOSPC, "no space")
            return super().pwrite(data[:3], offset)

    class AlmostFull(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return AlmostFullFile(super().create(path, mode, flags).fd)

    a = tree(tmp_path / "a", x="data")
    with union(tmp_path, [a], upper=AlmostFull) as u:
        with pytest.raises(OSError) as caught:
            u.setattr("x", mode=0o600)
        assert caught.value.errno == errno.ENOSPC
        assert u.read("x") == b"data" and u.stored() == []


def test_changes_of_attributes_are_made_on_the_copy_before_it_is_seen(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", x="data")
    os.chmod(a / "x", 0o4755)
    seen: list[os.stat_result] = []

    class Watching(WritableDirectory):
        def rename(self, path: bytes, to: WritableLayer, to_path: bytes, flags: int = 0) -> None:
            seen.append(self.lstat(path))
            super().rename(path, to, to_path, flags)

    with union(tmp_path, [a], upper=Watching) as u:
        attr = u.setattr("x", mode=0o600, mtime_ns=5)
        assert (attr.mode, attr.mtime_ns) == (stat.S_IFREG | 0o600, 5) == (u.stat("x").mode, u.stat("x").mtime_ns)
    assert (seen[-1].st_mode, seen[-1].st_mtime_ns) == (stat.S_IFREG | 0o600, 5)


def test_a_flush_that_takes_long_is_not_waited_for_under_the_lock(tmp_path: Path) -> None:
    entered, resume = threading.Event(), threading.Event()

    class SlowFile(FdFile):
        def fsync(self, datasync: bool) -> None:
            entered.set()
            assert resume.wait(10)

    class Slow(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return SlowFile(super().create(path, mode, flags).fd)

    a = tree(tmp_path / "a", first="1", second="2", other="o")
    with union(tmp_path, [a], upper=Slow) as u:
        threading.Timer(0.1, resume.set).start()
        u.setattr("first", mode=0o600)  # finds out
        entered.clear()
        resume.clear()
        with u.node("second") as node:
            assert u.fs.slow(node)
            writer = threading.Thread(target=lambda: u.setattr("second", mode=0o600))
            writer.start()
            assert entered.wait(10)
            assert u.read("other") == b"o"
            resume.set()
            writer.join(10)
        assert u.stat("second").mode == stat.S_IFREG | 0o600


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", x="1")
    tree(tmp_path / "work")
    tree(tmp_path / "work/work", **{"#1": "half a file", "#2__deep__er": "half a tree"})
    with union(tmp_path, [a]):
        pass
    assert not list((tmp_path / "work/work").iterdir())


def test_reading_leaves_no_trace_in_a_layer_and_moves_an_old_atime_in_the_upper(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", x="data", y="data")
    for path in (a / "x", a / "y"):
        os.utime(path, ns=(5, 10**18))
    with union(tmp_path, [a]) as u:
        assert u.read("x") == b"data"
        assert os.lstat(a / "x").st_atime_ns == u.stat("x").atime_ns == 5
        u.setattr("y", mode=0o600)
        with u.node("y") as node:
            u.fs.getattr(node)
            assert u.read("y") == b"data"
            stored = os.lstat(tmp_path / "upper/y").st_atime_ns
            assert Attr.unpack(u.fs.getattr(node)).atime_ns == stored > 5
