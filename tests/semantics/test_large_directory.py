"""Directories of ten thousand files: listed once each, changed in bulk, moved as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.tools import DirStream
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]

COUNT = 10_000


def many(d: Path) -> None:
    for i in range(COUNT):
        os.close(os.open(d / f"file-with-a-name-{i:05}", os.O_CREAT | os.O_WRONLY))


def above(d: Path) -> None:
    for i in range(COUNT, COUNT + 100):
        os.close(os.open(d / f"file-with-a-name-{i:05}", os.O_CREAT | os.O_WRONLY))


def test_ten_thousand_lower_files_are_listed_deleted_added_and_moved(union: Union) -> None:
    (union.lower() / "d").mkdir()
    many(union.layers[0] / "d")
    (union.lower() / "d").mkdir()
    above(union.layers[0] / "d")
    mnt = union.mount()
    wanted = {f"file-with-a-name-{i:05}" for i in range(COUNT + 100)}
    listed = os.listdir(mnt / "d")
    assert (len(listed), set(listed)) == (len(wanted), wanted)
    with os.scandir(mnt / "d") as entries:
        assert all(entry.is_file() and entry.inode() == entry.stat().st_ino for entry in entries)
    gone = {name for name in wanted if name.endswith("7")}
    new = {f"new-{i}" for i in range(500)}
    # Deleted and added while somebody reads: the rest appears once, whatever happens.
    with DirStream(mnt / "d") as stream:
        seen = [entry.name.decode() for _ in range(50) if (entry := stream.read()) is not None]
        for name in gone:
            os.unlink(mnt / "d" / name)
        for name in new:
            os.close(os.open(mnt / "d" / name, os.O_CREAT | os.O_WRONLY))
        seen += [entry.name.decode() for entry in stream.rest()]
    wanted -= gone
    assert wanted <= set(seen) <= wanted | gone | new | {".", ".."}
    assert len(seen) == len(set(seen))
    os.rename(mnt / "d", mnt / "moved")
    wanted |= new
    assert set(os.listdir(mnt / "moved")) == wanted
    union.remount()
    listed = os.listdir(mnt / "moved")
    assert (len(listed), set(listed)) == (len(wanted), wanted)
