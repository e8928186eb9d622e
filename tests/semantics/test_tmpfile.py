"""O_TMPFILE in directories of lower layers: nothing in the upper until it is named, everything once it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.tools import names, opened, umask
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union", "tmpfile")]


def a_tree(d: Path) -> None:
    (d / "dir").mkdir()
    (d / "dir" / "old").write_bytes(b"old")


def name_it(fd: int, path: Path) -> None:
    # os.link passes AT_SYMLINK_FOLLOW only where it calls linkat(2), and that only with a directory's descriptor.
    with opened(path.parent, os.O_RDONLY) as directory:
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=directory, follow_symlinks=True)


def test_named_in_a_lower_directory_and_lasting(union: Union) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    with umask(0o027), opened(mnt / "dir", os.O_TMPFILE | os.O_RDWR, 0o666) as fd:
        os.write(fd, b"from nowhere")
        assert os.fstat(fd).st_nlink == 0
        assert names(mnt / "dir") == {"old"}
        name_it(fd, mnt / "dir" / "new")
        st = os.fstat(fd)
        assert (st.st_nlink, st.st_mode, st.st_ino) == (1, 0o100640, os.stat(mnt / "dir" / "new").st_ino)
        os.pwrite(fd, b"FROM", 0)
    union.remount()
    assert (mnt / "dir" / "new").read_bytes() == b"FROM nowhere"
    assert names(mnt / "dir") == {"old", "new"}
    union.rotate()
    assert (mnt / "dir" / "new").read_bytes() == b"FROM nowhere"
    os.unlink(mnt / "dir" / "new")
    with opened(mnt / "dir", os.O_TMPFILE | os.O_RDWR) as fd:
        name_it(fd, mnt / "dir" / "new")  # over a whiteout
    union.remount()
    assert (mnt / "dir" / "new").read_bytes() == b""


def test_closed_without_a_name_leaves_nothing(union: Union) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    with opened(mnt / "dir", os.O_TMPFILE | os.O_RDWR) as fd:
        os.write(fd, b"x" * 100_000)
    union.unmount()
    assert [name for _, _, files in os.walk(union.upper) for name in files] == []
    assert os.listdir(union.private / "work" / "work") == []
