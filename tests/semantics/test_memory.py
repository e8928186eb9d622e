"""What the server knows is what the kernel knows: memory comes with a walk of a large tree, and goes with FORGET."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

DIRECTORIES, FILES = 300, 1000
#: What may stay: inodes that somebody else still has in use, and a heap's crumbs of 200 MB.
INODES_LEFT, LEFT = 100, 16 << 20


def many(d: Path) -> None:
    for i in range(DIRECTORIES):
        place = d / f"directory-{i}"
        place.mkdir()
        directory = os.open(place, os.O_PATH)
        for j in range(FILES):
            os.mknod(f"file-{j}", 0o100644, dir_fd=directory)
        os.close(directory)


def walk(mnt: Path) -> int:
    """Every inode looked up."""
    count = 0
    for directory in os.scandir(mnt):
        with os.scandir(directory) as entries:
            count += sum(entry.stat().st_size == 0 for entry in entries)
    return count


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def forget(union: Union) -> None:
    """Have the kernel drop what nobody uses, until the server has heard of it."""
    while union.statistics()["inodes"] > INODES_LEFT:
        Path("/proc/sys/vm/drop_caches").write_text("2")


@pytest.mark.slow
@pytest.mark.unlike("kernel", "it has no server")
@pytest.mark.unlike("union-fusepy", "libfuse 2 keeps a table of paths of its own")
def test_memory_of_a_walk_is_bounded_and_given_back(union: Union) -> None:
    many(union.lower())
    mnt = union.mount()
    before = resident(union.server)
    costs: list[int] = []
    for _ in range(3):
        assert walk(mnt) == DIRECTORIES * FILES
        live, grown = union.statistics()["inodes"], resident(union.server) - before
        print(f"{live} inodes, {grown} bytes, {grown / live:.0f} for each")
        assert live > DIRECTORIES * FILES * 9 // 10, "the kernel has dropped many: nothing was measured"
        costs.append(grown)
        forget(union)
        left = resident(union.server) - before
        print(f"{left} bytes left")
        assert left <= LEFT
    assert max(costs) <= costs[0] + LEFT, "the same walk costs more when it is repeated"
