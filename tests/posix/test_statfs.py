"""statvfs(3): the figures of the file system that takes the writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.tools import opened
from tests.rigs import Mounted


def test_figures_are_those_of_the_storage(mnt: Path, mounted: Mounted) -> None:
    seen, stored = os.statvfs(mnt), os.statvfs(mounted.directory)
    assert seen.f_namemax == 255
    assert seen.f_frsize == stored.f_frsize
    assert seen.f_blocks == stored.f_blocks
    assert 0 < seen.f_bavail <= seen.f_bfree <= seen.f_blocks
    assert 0 < seen.f_ffree <= seen.f_files


def test_free_space_shrinks_with_data(mnt: Path) -> None:
    before = os.statvfs(mnt)
    (mnt / "f").write_bytes(os.urandom(1 << 22))
    after = os.statvfs(mnt)
    assert (before.f_bfree - after.f_bfree) * before.f_frsize >= 1 << 22


@pytest.mark.populate(base=lambda d: (d / "old").write_bytes(b"x"))
def test_descriptors_and_files_answer_too(mnt: Path) -> None:
    blocks = os.statvfs(mnt).f_blocks
    assert os.statvfs(mnt / "old").f_blocks == blocks
    with opened(mnt / "old", os.O_RDONLY) as fd:
        assert os.fstatvfs(fd).f_blocks == blocks


@pytest.mark.populate(base=lambda d: ((d / "dir").mkdir(), (d / "old").write_bytes(b"x")))
def test_one_device_number_for_everything(mnt: Path) -> None:
    (mnt / "new").write_bytes(b"x")
    (mnt / "newdir").mkdir()
    assert {os.lstat(mnt / name).st_dev for name in ("dir", "old", "new", "newdir", ".")} == {os.stat(mnt).st_dev}
