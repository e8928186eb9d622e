"""While one request waits for a disk, others are answered: the order of events, with a gate in the place of the disk.

Each test has one client stand before the shut gate, then uses other files, then sees that the first client still
waits, and only then opens the gate.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.posix.tools import opened
from tests.semantics.gate import LARGE, Gate, gated
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, pytest.mark.needs_fuse]
kernel = pytest.mark.unlike("kernel", "it is not ours to test")
fusepy = pytest.mark.unlike("union-fusepy", "libfuse 2 serves one request after the other where it is told to")

DATA = b"0123456789abcdef" * (2 * LARGE // 16)


def a_tree(d: Path) -> None:
    """What waits is done in `slow`: the kernel locks the directories in which names change."""
    (d / "slow").mkdir()
    (d / "slow" / "large").write_bytes(DATA)
    (d / "slow" / "linked").write_bytes(DATA)
    os.link(d / "slow" / "linked", d / "slow" / "alias")
    (d / "small").write_bytes(b"small")
    (d / "dir").mkdir()
    (d / "dir" / "inner").write_bytes(b"inner")


@contextmanager
def gated_lower(union: Union) -> Iterator[Gate]:
    """The union mounted over one lower layer behind a gate."""
    root, place = union.directory / "behind", union.directory / "gate"
    for path in (root, place):
        path.mkdir()
    a_tree(root)
    with gated(root, place) as gate:
        union.lower(place)
        union.mount()
        try:
            yield gate
        finally:
            gate.open()
            union.unmount()


@contextmanager
def gated_upper(union: Union) -> Iterator[Gate]:
    root, place = union.directory / "behind", union.directory / "gate"
    for path in (root, place):
        path.mkdir()
    a_tree(union.lower())
    with gated(root, place) as gate:
        union.use(place / "private")
        union.mount()
        try:
            yield gate
        finally:
            gate.open()
            union.unmount()


def others(mnt: Path) -> None:
    """What other clients do meanwhile; none of it has been done before, so that no cache can answer."""
    assert os.stat(mnt / "small").st_size == 5
    assert (mnt / "small").read_bytes() == b"small"
    assert (mnt / "dir" / "inner").read_bytes() == b"inner"
    assert sorted(os.listdir(mnt / "dir")) == ["inner"]
    os.mkdir(mnt / "dir" / "new")
    (mnt / "dir" / "new" / "f").write_bytes(b"new")
    os.rename(mnt / "dir" / "new", mnt / "dir" / "moved")
    assert not (mnt / "none").exists()
    os.unlink(mnt / "dir" / "moved" / "f")


def meanwhile(gate: Gate, kind: str, mnt: Path, act: Callable[[], object]) -> None:
    """`act` in a thread, up to the gate; what others do; then the gate is opened and `act` ends."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as e:
            failed.append(e)

    gate.shut(kind)
    client = threading.Thread(target=run)
    client.start()
    try:
        gate.reached()
        others(mnt)
        assert client.is_alive() and not failed, "the request did not wait: nothing was tested"
    finally:
        gate.open()
        client.join(20)
    assert not client.is_alive()
    assert not failed, failed


def read_large(d: Path) -> None:
    assert (d / "large").read_bytes() == DATA


def direct_read(d: Path) -> None:
    with opened(d / "large", os.O_RDONLY) as fd:
        assert os.pread(fd, 4096, LARGE) == DATA[:4096]


def rename_over_a_hard_link(d: Path) -> None:
    (d / "new").write_bytes(b"new")
    os.rename(d / "new", d / "linked")
    assert (d / "alias").read_bytes() == DATA


COPY_UPS: dict[str, Callable[[Path], object]] = {
    "open": lambda d: os.close(os.open(d / "large", os.O_RDWR)),
    "chmod": lambda d: os.chmod(d / "large", 0o600),
    "truncate": lambda d: os.truncate(d / "large", LARGE + 1),
    "link": lambda d: os.link(d / "large", d / "link"),
    "rename": lambda d: os.rename(d / "large", d / "renamed"),
    "setxattr": lambda d: os.setxattr(d / "large", "user.x", b"y"),
    "unlink-a-hard-link": lambda d: os.unlink(d / "linked"),
    "rename-over-a-hard-link": rename_over_a_hard_link,
}


@kernel
@fusepy
@pytest.mark.parametrize("act", [read_large, direct_read], ids=["all", "a-page"])
def test_cold_read_of_a_lower_file_keeps_nobody_waiting(union: Union, act: Callable[[Path], None]) -> None:
    with gated_lower(union) as gate:
        meanwhile(gate, "read", union.mnt, lambda: act(union.mnt / "slow"))


@kernel
@fusepy
@pytest.mark.parametrize("how", COPY_UPS)
def test_copy_up_keeps_nobody_waiting(union: Union, how: str) -> None:
    with gated_lower(union) as gate:
        meanwhile(gate, "read", union.mnt, lambda: COPY_UPS[how](union.mnt / "slow"))


def fsync_file(d: Path) -> None:
    with open(d / "new", "wb") as file:
        file.write(DATA)
        file.flush()
        os.fsync(file.fileno())
    assert (d / "new").read_bytes() == DATA


def fdatasync_file(d: Path) -> None:
    with opened(d / "new", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"data")
        os.fdatasync(fd)


def fsync_directory(d: Path, name: str = "made") -> None:
    (d / name).mkdir()
    with opened(d / name, os.O_RDONLY) as fd:
        os.fsync(fd)


@kernel
@fusepy
@pytest.mark.parametrize(
    ("kind", "act"),
    [("fsync", fsync_file), ("fsync", fdatasync_file), ("fsyncdir", fsync_directory)],
    ids=["fsync", "fdatasync", "directory"],
)
def test_flush_keeps_nobody_waiting(union: Union, kind: str, act: Callable[[Path], None]) -> None:
    with gated_upper(union) as gate:
        # Copied up and flushed beforehand, so that its parent, in which the others make names, need not be flushed
        # now: of a directory that is being flushed fs/fuse, alone of all, holds the lock (fuse_dir_fsync()).
        fsync_directory(union.mnt / "slow", "before")
        meanwhile(gate, kind, union.mnt, lambda: act(union.mnt / "slow"))
