"""What inotify tells of a directory."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

import pytest

from unionfs.linux import inotify


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_watch_can_be_read_after_what_was_asked_for_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = inotify.watch(os.fsencode(tmp_path), inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_MOVE_SELF)
    try:
        assert not os.get_inheritable(fd)
        (tmp_path / "file").read_bytes()
        (tmp_path / "other").touch()
        assert not is_readable(fd)
        inotify.drain(fd)
        for happens in (
            lambda: (tmp_path / "file").write_text("more"),
            lambda: (tmp_path / "other").replace(tmp_path / "file"),
            lambda: tmp_path.rename(tmp_path.with_name("moved")),
        ):
            happens()
            assert is_readable(fd)
            inotify.drain(fd)
            assert not is_readable(fd)
    finally:
        os.close(fd)


def test_a_watch_of_what_is_not_there(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError) as caught:
        inotify.watch(os.fsencode(tmp_path / "none"), inotify.IN_MODIFY)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, os.fsencode(tmp_path / "none"))
    assert os.listdir("/proc/self/fd") == before
