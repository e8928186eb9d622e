"""The server runs out of file descriptors: EMFILE or ENFILE for who asks, and everything else goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

import pytest

from tests.posix.tools import names
from tests.semantics.unions import Union, contents

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

FILES = 300


def many(d: Path) -> None:
    (d / "many").mkdir()
    for i in range(FILES):
        (d / "many" / f"f{i}").write_bytes(b"%d" % i)


def open_until_refused(place: Path, flags: int) -> tuple[list[int], int]:
    """Descriptors of different files, and the errno of the first that could not be had (0: all could)."""
    held: list[int] = []
    for i in range(FILES):
        try:
            held.append(os.open(place / f"f{i}", flags))
        except OSError as e:
            return held, e.errno or 0
    return held, 0


@pytest.mark.unlike("kernel", "it has no descriptors")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["read", "copy-up"])
def test_server_without_descriptors_refuses_and_lives_on(union: Union, flags: int) -> None:
    lower = union.lower()
    many(lower)
    mnt = union.mount()
    wanted = contents(lower)  # not through the mount: what the kernel has read before takes no descriptor to open
    # Those it has, and a few for the clients.
    limit = len(os.listdir(f"/proc/{union.server}/fd")) + 40
    resource.prlimit(union.server, resource.RLIMIT_NOFILE, (limit, limit))
    held, refused = open_until_refused(mnt / "many", flags)
    try:
        assert refused in (errno.EMFILE, errno.ENFILE), errno.errorcode.get(refused, refused)
        assert len(held) >= 10
        # What is open is still served.
        assert os.pread(held[3], 10, 0) == b"3"
        if flags == os.O_RDWR:
            os.pwrite(held[3], b"!", 1)
            wanted["many/f3"] = b"3!"
        with contextlib.suppress(OSError):  # it may have one left, or not; neither may hurt
            os.mkdir(mnt / "x")
    finally:
        for fd in held:
            os.close(fd)
    # A release is sent after its close has returned; what is asked next is answered behind it.
    assert len(names(mnt / "many")) == FILES
    (mnt / "x").mkdir(exist_ok=True)
    os.unlink(mnt / "many" / "f299")
    wanted["x"] = None
    del wanted["many/f299"]
    assert contents(mnt) == wanted
    (mnt / "after").write_bytes(b"alive")
    union.remount()
    assert contents(mnt) == {**wanted, "after": b"alive"}
    # No half copy in the upper, no debris beside it.
    for copied in (union.upper / "many").iterdir():
        if copied.is_file():
            assert copied.read_bytes() == wanted[f"many/{copied.name}"]
    assert os.listdir(union.private / "work" / "work") == []


@pytest.mark.unlike("kernel", "it has no descriptors")
def test_walk_of_many_files_leaves_no_descriptor_behind(union: Union) -> None:
    many(union.lower())
    mnt = union.mount()
    held = len(os.listdir(f"/proc/{union.server}/fd"))
    for name in names(mnt / "many"):
        os.stat(mnt / "many" / name)
        os.listxattr(mnt / "many" / name)
        (mnt / "many" / name).read_bytes()
        os.chmod(mnt / "many" / name, 0o600)
    # A release is sent after the close has returned; what is asked next is answered behind it.
    names(mnt)
    assert len(os.listdir(f"/proc/{union.server}/fd")) <= held + 20
