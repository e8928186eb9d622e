"""Set-group-ID: directories that hand down their group, and where the bit is dropped."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, ids, mode, opened

pytestmark = pytest.mark.needs_root
GROUP = 1000


def lower_tree(d: Path) -> None:
    (d / "g").mkdir()
    os.chown(d / "g", 0, GROUP)
    os.chmod(d / "g", 0o2777)


@pytest.fixture(params=["old", "new"])
def shared(request: pytest.FixtureRequest, mnt: Path) -> Path:
    """A directory 02777 of group GROUP: from below, or made now."""
    if request.param == "old":
        return mnt / "g"
    (mnt / "n").mkdir()
    os.chown(mnt / "n", 0, GROUP)
    os.chmod(mnt / "n", 0o2777)
    return mnt / "n"


@pytest.mark.populate(base=lower_tree)
def test_new_file_gets_the_directory_s_group(shared: Path) -> None:
    as_user(lambda: (shared / "f").write_bytes(b"x"))
    assert ids(shared / "f") == (NOBODY, GROUP)
    assert mode(shared / "f") == 0o644


@pytest.mark.populate(base=lower_tree)
def test_new_directory_gets_group_and_bit(shared: Path) -> None:
    as_user(lambda: os.mkdir(shared / "d"))
    assert ids(shared / "d") == (NOBODY, GROUP)
    assert mode(shared / "d") == 0o2755
    as_user(lambda: os.mkdir(shared / "d" / "e", 0o700))
    assert ids(shared / "d" / "e") == (NOBODY, GROUP)
    assert mode(shared / "d" / "e") == 0o2700


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG])
def test_new_special_file_gets_the_group(shared: Path, kind: int) -> None:
    as_user(lambda: os.mknod(shared / "s", kind | 0o644))
    assert ids(shared / "s") == (NOBODY, GROUP)
    assert mode(shared / "s") == 0o644


@pytest.mark.populate(base=lower_tree)
def test_new_symlink_gets_the_group(shared: Path) -> None:
    as_user(lambda: os.symlink("x", shared / "l"))
    assert ids(shared / "l") == (NOBODY, GROUP)


@pytest.mark.needs("tmpfile")
@pytest.mark.populate(base=lower_tree)
def test_tmpfile_gets_the_group(shared: Path) -> None:
    def owner() -> tuple[int, int]:
        with opened(shared, os.O_TMPFILE | os.O_RDWR, 0o644) as fd:
            st = os.fstat(fd)
            return st.st_uid, st.st_gid

    assert as_user(owner) == (NOBODY, GROUP)


@pytest.mark.populate(base=lower_tree)
def test_stranger_to_the_group_gets_no_setgid_executable(shared: Path) -> None:
    # mode_strip_sgid (fs/inode.c): S_ISGID with S_IXGRP goes when the creator is not in the group.
    as_user(lambda: os.close(os.open(shared / "f", os.O_CREAT | os.O_WRONLY, 0o2755)))
    assert mode(shared / "f") == 0o755
    as_user(lambda: os.close(os.open(shared / "g", os.O_CREAT | os.O_WRONLY, 0o2755)), groups=(GROUP,))
    assert mode(shared / "g") == 0o2755


@pytest.mark.populate(base=lower_tree)
def test_things_moved_in_keep_their_group(shared: Path) -> None:
    (shared.parent / "f").write_bytes(b"x")
    os.rename(shared.parent / "f", shared / "f")
    assert ids(shared / "f") == (0, 0)
    os.link(shared / "f", shared / "l")
    assert ids(shared / "l") == (0, 0)


def test_directory_without_the_bit_gives_the_caller_s_group(mnt: Path) -> None:
    os.chown(mnt, 0, GROUP)
    os.chmod(mnt, 0o777)
    as_user(lambda: os.mkdir(mnt / "d"))
    assert ids(mnt / "d") == (NOBODY, NOBODY)
    assert mode(mnt / "d") == 0o755


@pytest.mark.populate(base=lower_tree)
def test_write_by_a_user_strips_setgid_of_an_executable_only(mnt: Path) -> None:
    for name, bits, left in (("x", 0o2777, 0o777), ("plain", 0o2767, 0o2767)):
        (mnt / name).write_bytes(b"x")
        os.chown(mnt / name, 0, GROUP)
        os.chmod(mnt / name, bits)

        def write(path: Path = mnt / name) -> None:
            with opened(path, os.O_WRONLY) as fd:
                os.write(fd, b"y")

        as_user(write, groups=(GROUP,))
        assert mode(mnt / name) == left
