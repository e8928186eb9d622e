"""Set-group-ID over copy-up, rename and rotation: handed down, kept, and stripped where POSIX says."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, opened
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, pytest.mark.engine]

GROUP = 4321


def a_shared_tree(d: Path) -> None:
    (d / "shared" / "sub").mkdir(parents=True)
    (d / "shared" / "old").write_bytes(b"#!/bin/sh\n")
    (d / "program").write_bytes(b"#!/bin/sh\n")
    for path in ("shared", "shared/sub"):
        os.chown(d / path, 0, GROUP)
        (d / path).chmod(0o2777)
    os.chown(d / "program", NOBODY, GROUP)
    (d / "program").chmod(0o6755)
    (d / "shared" / "old").chmod(0o666)


def owners(path: Path) -> tuple[int, int, int]:
    st = os.lstat(path)
    return st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)


@pytest.mark.parametrize("when", ["lower", "renamed", "rotated"])
def test_directory_hands_down_group_and_bit(union: Union, when: str) -> None:
    a_shared_tree(union.lower())
    mnt = union.mount()
    shared = mnt / "shared" / "sub"
    if when == "renamed":
        os.rename(mnt / "shared", mnt / "elsewhere")
        shared = mnt / "elsewhere" / "sub"
    elif when == "rotated":
        (mnt / "shared" / "sub" / "x").write_bytes(b"")
        union.rotate()

    def make() -> None:
        os.umask(0o027)
        os.close(os.open(shared / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(shared / "dir", 0o777)
        os.mknod(shared / "fifo", stat.S_IFIFO | 0o666)
        os.mkdir(shared / "dir" / "dir", 0o777)
        os.symlink("x", shared / "symlink")

    as_user(make)
    assert owners(shared / "file") == (NOBODY, GROUP, 0o640)
    assert owners(shared / "fifo") == (NOBODY, GROUP, 0o640)
    assert owners(shared / "dir") == owners(shared / "dir" / "dir") == (NOBODY, GROUP, 0o2750)
    assert owners(shared / "symlink")[:2] == (NOBODY, GROUP)
    assert owners(shared) == (0, GROUP, 0o2777)
    assert owners(shared.parent) == (0, GROUP, 0o2777)


@pytest.mark.populate(base=a_shared_tree)
def test_copy_up_by_another_keeps_set_ids_of_what_it_only_reads_or_renames(mnt: Path) -> None:
    os.rename(mnt / "program", mnt / "shared" / "program")
    os.link(mnt / "shared" / "program", mnt / "second")
    os.setxattr(mnt / "second", "user.note", b"1")
    assert owners(mnt / "second") == (NOBODY, GROUP, 0o6755)


@pytest.mark.populate(base=a_shared_tree)
def test_write_to_a_lower_program_by_its_unprivileged_owner_strips_set_ids(mnt: Path) -> None:
    def write() -> None:
        with opened(mnt / "program", os.O_WRONLY | os.O_APPEND) as fd:
            os.write(fd, b"exit 0\n")

    as_user(write)
    assert owners(mnt / "program") == (NOBODY, GROUP, 0o755)
    assert (mnt / "program").read_bytes() == b"#!/bin/sh\nexit 0\n"


@pytest.mark.populate(base=a_shared_tree)
def test_truncate_and_chown_of_a_lower_program_strip_set_ids(mnt: Path) -> None:
    os.chown(mnt / "program", NOBODY, GROUP + 1)
    assert owners(mnt / "program") == (NOBODY, GROUP + 1, 0o755)
    (mnt / "program").chmod(0o6755)
    as_user(lambda: os.truncate(mnt / "program", 3))
    assert owners(mnt / "program") == (NOBODY, GROUP + 1, 0o755)


@pytest.mark.populate(base=a_shared_tree)
def test_stranger_to_the_group_cannot_set_the_bit(mnt: Path) -> None:
    as_user(lambda: os.chmod(mnt / "program", 0o2755))
    assert owners(mnt / "program") == (NOBODY, GROUP, 0o755)
