"""An upper without room: ENOSPC or EDQUOT reaches the caller, and nothing else has happened.

Each operation has a directory of its own, in a lower layer and copied up. It is refused; then the tree is as before,
no half object lies in the upper or the work directory, no room is lost; and with room again it succeeds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.golden.trees import describe
from tests.posix.tools import RENAME_EXCHANGE, opened, renameat2
from tests.semantics.media import MEDIA, Medium
from tests.semantics.unions import Union, same_text

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, pytest.mark.engine]

LARGE = b"large" * 60_000  # passthrough


def a_tree(d: Path) -> None:
    for name, data in {"small": b"small", "large": LARGE, "one": b"linked", "other": b"other"}.items():
        (d / name).write_bytes(data)
    os.link(d / "one", d / "two")
    (d / "empty").mkdir()
    (d / "dir" / "sub").mkdir(parents=True)
    (d / "dir" / "inner").write_bytes(b"inner")


class Op(NamedTuple):
    """`operate` in a directory made by `a_tree`, after `prepare` there."""

    operate: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda d: None
    needs: str = "union"


def with_hole(d: Path) -> None:
    (d / "hole").touch()
    os.truncate(d / "hole", 1 << 20)


def write(name: str, offset: int, size: int) -> Callable[[Path], None]:
    def operate(d: Path) -> None:
        with opened(d / name, os.O_RDWR) as fd:
            os.pwrite(fd, b"w" * size, offset)
            os.fsync(fd)

    return operate


def tmpfile(d: Path) -> None:
    with opened(d, os.O_TMPFILE | os.O_RDWR) as fd, opened(d, os.O_PATH) as directory:
        # With a directory's descriptor os.link() passes AT_SYMLINK_FOLLOW.
        os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=directory)


def emptied(d: Path) -> None:
    (d / "dir" / "inner").unlink()
    (d / "dir" / "sub").rmdir()


OPS: dict[str, Op] = {
    "write-into-a-hole": Op(write("hole", 1 << 19, 4096), with_hole),
    "write-to-a-lower-file": Op(write("small", 2, 1)),
    "write-to-a-large-lower-file": Op(write("large", 1000, 1)),
    "write-to-a-lower-hard-link": Op(write("one", 1, 1)),
    "open-and-truncate": Op(lambda d: (d / "large").write_bytes(b"new")),
    "chmod": Op(lambda d: os.chmod(d / "small", 0o600)),
    "chown": Op(lambda d: os.chown(d / "large", 1, 2)),
    "utime": Op(lambda d: os.utime(d / "small", ns=(10**18, 10**18))),
    "truncate": Op(lambda d: os.truncate(d / "large", 100_000)),
    "link": Op(lambda d: os.link(d / "small", d / "new")),
    "link-of-a-hard-link": Op(lambda d: os.link(d / "one", d / "new")),
    "rename": Op(lambda d: os.rename(d / "small", d / "new")),
    "rename-over": Op(lambda d: os.rename(d / "large", d / "other")),
    "rename-into-a-lower-directory": Op(lambda d: os.rename(d / "small", d / "dir" / "new")),
    "rename-a-directory": Op(lambda d: os.rename(d / "dir", d / "new")),
    "rename-a-copied-up-directory": Op(lambda d: os.rename(d / "dir", d / "new"), lambda d: os.chmod(d / "dir", 0o700)),
    "rename-a-directory-over-whiteouts": Op(lambda d: os.rename(d / "empty", d / "dir"), emptied),
    "exchange": Op(lambda d: renameat2(d / "small", d / "dir", RENAME_EXCHANGE), needs="rename_flags"),
    "mkdir": Op(lambda d: os.mkdir(d / "new")),
    "create": Op(lambda d: (d / "new").touch()),
    "create-over-a-whiteout": Op(lambda d: (d / "small").touch(), lambda d: (d / "small").unlink()),
    "mkdir-over-a-whiteout": Op(lambda d: (d / "small").mkdir(), lambda d: (d / "small").unlink()),
    "symlink": Op(lambda d: os.symlink("t" * 200, d / "new")),
    "mkfifo": Op(lambda d: os.mkfifo(d / "new")),
    "tmpfile": Op(tmpfile, needs="tmpfile"),
    "setxattr": Op(lambda d: os.setxattr(d / "small", "user.x", b"v" * 2000)),
    "setxattr-of-a-copy": Op(
        lambda d: os.setxattr(d / "small", "user.x", b"v" * 3000), lambda d: os.chmod(d / "small", 0o600)
    ),
    "setxattr-of-a-directory": Op(lambda d: os.setxattr(d / "dir", "user.x", b"v" * 2000)),
    "unlink": Op(lambda d: os.unlink(d / "small")),
    "unlink-a-copy": Op(lambda d: os.unlink(d / "small"), lambda d: os.chmod(d / "small", 0o600)),
    "unlink-a-hard-link": Op(lambda d: os.unlink(d / "one")),
    "rmdir": Op(lambda d: os.rmdir(d / "empty")),
    "rmdir-of-whiteouts": Op(lambda d: os.rmdir(d / "dir"), emptied),
}


class Full:
    """A union whose upper lies on a medium."""

    def __init__(self, union: Union, medium: Medium) -> None:
        self.union = union
        self.medium = medium

    def used(self) -> tuple[int, int]:
        st = os.statvfs(self.medium.root)
        return st.f_blocks - st.f_bfree, st.f_files - st.f_ffree

    def refused(self, name: str, op: Op) -> bool:
        """Whether the operation was refused for want of room; AssertionError where anything is different then."""
        directory = self.union.mnt / name
        # write(2) sets the times before it looks for room.
        times = not name.startswith("write-into")
        before, used = describe(directory, times=times), self.used()
        try:
            op.operate(directory)
        except OSError as e:
            assert e.errno == self.medium.error, f"{errno.errorcode.get(e.errno or 0)} in place of the right errno"
        else:
            return False
        same_text(before, describe(directory, times=times), "before", "after the refusal")
        assert self.union.debris() == []
        assert self.used() == used, "room is lost"
        return True


@pytest.mark.unlike("kernel", "what a failure leaves in its work directory is its own affair")
@pytest.mark.parametrize("kind", MEDIA)
def test_upper_without_room(union: Union, kind: str) -> None:
    lower = union.lower()
    ops = {name: op for name, op in OPS.items() if union.rig.has(op.needs)}
    for name in ops:
        (lower / name).mkdir()
        a_tree(lower / name)
    stored = describe(lower)
    place = union.directory / kind
    place.mkdir()
    with MEDIA[kind](place) as medium:
        union.use(medium.root / "private")
        try:
            sweep(Full(union, medium), ops)
        finally:
            union.unmount()
    assert describe(lower) == stored


def sweep(full: Full, ops: dict[str, Op]) -> None:
    mnt = full.union.mount()
    for name, op in ops.items():
        os.chmod(mnt / name, 0o755)  # copied up, with its listing
        op.prepare(mnt / name)
    while full.union.debris():
        os.statvfs(mnt)  # the kernel forgets what was unlinked after it has told us, and only then its blocks are free
    wrong: list[str] = []
    full.medium.fill()
    refused = []
    for name, op in ops.items():
        try:
            if full.refused(name, op):
                refused.append(name)
        except AssertionError as e:
            wrong.append(f"{name}: {e}")
    full.medium.drain()
    assert not wrong, "\n".join(wrong)
    assert refused == list(ops), "something found room"
    for name in refused:
        before = describe(mnt / name)
        ops[name].operate(mnt / name)
        assert describe(mnt / name) != before, name
    live = describe(mnt)
    full.union.unmount()
    assert full.union.debris() == []
    same_text(live, describe(full.union.mount()), "the live mount", "a fresh one")
