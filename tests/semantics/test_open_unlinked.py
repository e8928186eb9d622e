"""Files that are open and have no name any more: st_nlink 0, and everything a descriptor can do, lower or upper."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.tools import expect, names, opened, python
from tests.rigs import Mounted

pytestmark = [pytest.mark.needs("union")]


def a_tree(d: Path) -> None:
    (d / "dir").mkdir()
    (d / "dir" / "f").write_bytes(b"content")
    os.link(d / "dir" / "f", d / "dir" / "g")


def ways(mnt: Path, how: str) -> None:
    if how == "unlink":
        os.unlink(mnt / "dir" / "f")
    elif how == "rename-over":
        (mnt / "other").write_bytes(b"other")
        os.rename(mnt / "other", mnt / "dir" / "f")
    os.unlink(mnt / "dir" / "g")


@pytest.mark.unlike("kernel", "fstat of an unlinked lower file that is open for reading still counts its links")
@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("how", ["unlink", "rename-over"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["lower", "copied-up"])
def test_link_count_of_the_last_name_gone_is_zero(mnt: Path, how: str, flags: int) -> None:
    with opened(mnt / "dir" / "f", flags) as fd:
        ino = os.fstat(fd).st_ino
        assert os.fstat(fd).st_nlink == 2
        ways(mnt, how)
        st = os.fstat(fd)
        assert (st.st_nlink, st.st_ino, st.st_size) == (0, ino, 7)
        assert os.pread(fd, 10, 0) == b"content"


@pytest.mark.populate(base=a_tree)
def test_writer_goes_on_and_nothing_is_left_behind(mnt: Path, mounted: Mounted) -> None:
    with opened(mnt / "dir" / "f", os.O_RDWR) as fd:
        ways(mnt, "unlink")
        os.pwrite(fd, b"CON", 0)
        os.ftruncate(fd, 5)
        os.fsync(fd)
        assert os.pread(fd, 10, 0) == b"CONte"
        assert os.fstat(fd).st_size == 5
        with expect(errno.ENOENT):
            os.stat(mnt / "dir" / "f")
        assert [name for name in os.listdir(mnt / "dir") if not name.startswith(".fuse_hidden")] == []
    os.rmdir(mnt / "dir")
    assert names(mnt) == set()
    assert mounted.upper is not None
    assert [name for name in names(mounted.upper / mnt.name) if name != "dir"] == []


@pytest.mark.unlike("union-fusepy", "libfuse 2 asks for attributes by path, and the directory has none any more")
@pytest.mark.populate(base=a_tree)
def test_reader_of_a_deleted_lower_file_in_a_deleted_directory(mnt: Path) -> None:
    with opened(mnt / "dir" / "f", os.O_RDONLY) as fd:
        ways(mnt, "unlink")
        os.rmdir(mnt / "dir")
        assert os.pread(fd, 10, 0) == b"content"
        assert os.fstat(fd).st_size == 7


@pytest.mark.unlike("union-fusepy", "libfuse 2 opens by path, and there is none any more")
@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("where", ["lower", "upper"])
def test_path_descriptor_of_an_unlinked_file_can_still_be_opened(mnt: Path, where: str) -> None:
    """No request tells the server of an O_PATH open: that the kernel remembers the inode must be enough."""
    if where == "upper":
        os.chmod(mnt / "dir" / "f", 0o600)
    with opened(mnt / "dir" / "f", os.O_PATH) as handle:
        ways(mnt, "unlink")
        assert os.fstat(handle).st_size == 7
        with opened(f"/proc/self/fd/{handle}", os.O_RDONLY) as fd:
            assert os.pread(fd, 10, 0) == b"content"
        with opened(f"/proc/self/fd/{handle}", os.O_RDWR) as fd:
            assert os.pwrite(fd, b"CON", 0) == 3
            assert os.pread(fd, 10, 0) == b"CONtent"


STANDING = """
import errno, os, sys
os.chdir(sys.argv[1])
print("standing", flush=True)
sys.stdin.readline()
st = os.stat(".")
print(st.st_nlink, os.listdir("."), flush=True)
for call in (lambda: os.mkdir("x"), lambda: open("x", "w"), lambda: os.getcwd()):
    try:
        call()
        print("worked")
    except OSError as e:
        print(errno.errorcode[e.errno])
os.chdir("/")
"""


@pytest.mark.needs("removed_listing")
@pytest.mark.unlike("kernel", "it leaves the link count of a removed lower directory at 1")
@pytest.mark.populate(base=a_tree)
def test_process_that_stands_in_a_removed_directory(mnt: Path) -> None:
    process = python(STANDING, str(mnt / "dir"))
    assert process.stdout is not None
    assert process.stdout.readline() == b"standing\n"
    ways(mnt, "unlink")
    os.rmdir(mnt / "dir")
    said, _ = process.communicate(b"\n", timeout=20)
    assert said.split(b"\n")[:4] == [b"0 []", b"ENOENT", b"ENOENT", b"ENOENT"]
