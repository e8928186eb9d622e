"""File handles (name_to_handle_at(2)): good while the mount lasts and the file is known, and never another file's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.semantics.unions import Union
from unionfs.linux.handle import FileHandle, name_to_handle_at, open_by_handle_at

pytestmark = [
    pytest.mark.needs("union"),
    pytest.mark.needs_root,
    pytest.mark.unlike("kernel", "handles need nfs_export=on"),
    pytest.mark.unlike("union-fusepy", "libfuse's numbers of nodes begin anew with each mount, all of one generation"),
]


def handle(path: Path) -> FileHandle:
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return name_to_handle_at(fd, os.fsencode(path.name))
    finally:
        os.close(fd)


def opened(mnt: Path, found: FileHandle) -> str:
    """Where the file of a handle is, below the mount."""
    mount_fd = os.open(mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = open_by_handle_at(mount_fd, found.type, found.handle, os.O_PATH)
        try:
            return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), mnt)
        finally:
            os.close(fd)
    finally:
        os.close(mount_fd)


@pytest.mark.parametrize("name", ["dir", "dir/file"])
def test_handle_leads_to_its_file_while_that_is_known(union: Union, name: str) -> None:
    base = union.lower()
    (base / "dir").mkdir()
    (base / "dir/file").write_text("content")
    mnt = union.mount()
    assert opened(mnt, handle(mnt / name)) == name


def test_handle_of_an_earlier_mount_is_stale_though_its_number_is_in_use(union: Union) -> None:
    base = union.lower()
    for i in range(5):
        (base / f"f{i}").write_text(str(i))
    mnt = union.mount()
    for i in range(5):
        os.stat(mnt / f"f{i}")
    earlier = [handle(mnt / f"f{i}") for i in range(5)]
    union.remount()
    for i in reversed(range(5)):
        os.stat(mnt / f"f{i}")
    for found in earlier:
        with pytest.raises(OSError) as caught:
            opened(mnt, found)
        assert caught.value.errno == errno.ESTALE
