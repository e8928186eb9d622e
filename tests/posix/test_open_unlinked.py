"""Files that are open and have no name any more."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import names, opened


def lower_files(d: Path) -> None:
    (d / "f").write_bytes(b"0123456789")
    (d / "two").write_bytes(b"shared")
    os.link(d / "two", d / "other")


@pytest.fixture(params=["old", "new"])
def path(request: pytest.FixtureRequest, mnt: Path) -> Path:
    """A file of ten bytes: one that existed before the mount, or one made now."""
    if request.param == "old":
        return mnt / "f"
    (mnt / "n").write_bytes(b"0123456789")
    return mnt / "n"


@pytest.mark.populate(base=lower_files)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_it_is_read_and_stat_works(path: Path, flags: int) -> None:
    with opened(path, flags) as fd:
        before = os.fstat(fd)
        os.unlink(path)
        after = os.fstat(fd)
        assert os.read(fd, 20) == b"0123456789"
    assert path.name not in names(path.parent)
    assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)


@pytest.mark.populate(base=lower_files)
def test_its_link_count_is_zero(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        assert os.fstat(fd).st_nlink == 1
        os.unlink(path)
        assert os.fstat(fd).st_nlink == 0


@pytest.mark.populate(base=lower_files)
def test_its_link_count_is_zero_for_readers(path: Path) -> None:
    with opened(path, os.O_RDONLY) as fd:
        os.unlink(path)
        assert os.fstat(fd).st_nlink == 0


@pytest.mark.populate(base=lower_files)
def test_it_is_written_truncated_and_read_again(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.unlink(path)
        assert os.pwrite(fd, b"ABC", 8) == 3
        assert os.fstat(fd).st_size == 11
        os.ftruncate(fd, 9)
        assert os.fstat(fd).st_size == 9
        os.ftruncate(fd, 12)
        assert os.pread(fd, 20, 0) == b"01234567A\0\0\0"
        os.fsync(fd)


@pytest.mark.populate(base=lower_files)
def test_its_mode_times_and_attributes_change(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.unlink(path)
        os.fchmod(fd, 0o600)
        os.utime(fd, ns=(1, 2))
        st = os.fstat(fd)
        assert (stat.S_IMODE(st.st_mode), st.st_atime_ns, st.st_mtime_ns) == (0o600, 1, 2)
        os.setxattr(fd, "user.x", b"1")
        assert os.getxattr(fd, "user.x") == b"1"


@pytest.mark.populate(base=lower_files)
def test_its_mode_changes_through_a_readonly_descriptor(path: Path) -> None:
    with opened(path, os.O_RDONLY) as fd:
        os.unlink(path)
        os.fchmod(fd, 0o600)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        assert os.read(fd, 20) == b"0123456789"


@pytest.mark.populate(base=lower_files)
def test_its_name_can_be_taken_by_another(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.unlink(path)
        path.write_bytes(b"another")
        os.pwrite(fd, b"X", 0)
        assert os.pread(fd, 20, 0) == b"X123456789"
    assert path.read_bytes() == b"another"


@pytest.mark.populate(base=lower_files)
def test_file_replaced_by_rename_lives_on_the_same_way(path: Path) -> None:
    (path.parent / "new").write_bytes(b"new")
    with opened(path, os.O_RDWR) as fd:
        os.rename(path.parent / "new", path)
        os.pwrite(fd, b"X", 0)
        os.ftruncate(fd, 5)
        assert os.pread(fd, 20, 0) == b"X1234"
    assert path.read_bytes() == b"new"


@pytest.mark.populate(base=lower_files)
def test_other_names_of_the_file_stay(mnt: Path) -> None:
    with opened(mnt / "two", os.O_RDWR) as fd:
        os.unlink(mnt / "two")
        assert os.fstat(fd).st_nlink == 1
        os.write(fd, b"SH")
    assert (mnt / "other").read_bytes() == b"SHared"
    assert os.stat(mnt / "other").st_nlink == 1


@pytest.mark.populate(base=lower_files)
def test_its_directory_can_be_removed(mnt: Path) -> None:
    os.mkdir(mnt / "d")
    with opened(mnt / "d" / "f", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"data")
        os.unlink(mnt / "d" / "f")
        assert os.listdir(mnt / "d") == []
        os.rmdir(mnt / "d")
        assert os.pread(fd, 10, 0) == b"data"
        os.pwrite(fd, b"D", 0)
        assert os.pread(fd, 10, 0) == b"Data"


@pytest.mark.populate(base=lower_files)
def test_descriptor_through_proc_opens_it_again(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.unlink(path)
        with opened(f"/proc/self/fd/{fd}", os.O_RDONLY) as again:
            assert os.read(again, 20) == b"0123456789"


@pytest.mark.populate(base=lower_files)
def test_two_descriptors_share_it(path: Path) -> None:
    with opened(path, os.O_RDWR) as one, opened(path, os.O_RDONLY) as two:
        os.unlink(path)
        os.pwrite(one, b"shared", 0)
        assert os.pread(two, 6, 0) == b"shared"


def test_create_write_unlink_close_leaves_an_empty_directory(mnt: Path) -> None:
    for i in range(50):
        with opened(mnt / f"t{i}", os.O_CREAT | os.O_RDWR) as fd:
            os.write(fd, b"x" * 5000)
            os.unlink(mnt / f"t{i}")
    assert os.listdir(mnt) == []
