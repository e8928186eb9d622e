"""What control groups there are, by the mounts of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unionfs.containers.cgroups import Cgroups, look
from unionfs.linux.mount import MountInfo, parse_mountinfo


def mounts(place: Path, *rows: tuple[str, str, str]) -> list[MountInfo]:
    """Rows of (path below the place, type, options of the file system)."""
    lines = [f"36 35 0:30 / {place / path} rw shared:4 - {fstype} {fstype} {options}" for path, fstype, options in rows]
    return parse_mountinfo([b"25 1 8:1 / / rw - ext4 /dev/a rw", *map(os.fsencode, lines)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("memory", "cpu", "unified", "system.slice"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_nothing(place: Path) -> None:
    assert look(mounts(place), os.fsencode(place)) == Cgroups("none", False, False)
    assert look(mounts(place, ("", "tmpfs", "rw")), os.fsencode(place)) == Cgroups("none", False, False)
    beside = mounts(place.parent, (place.name + "2", "cgroup2", "rw"))
    assert look(beside, os.fsencode(place)) == Cgroups("none", False, False)


def test_unified(place: Path) -> None:
    rows = mounts(place, ("", "tmpfs", "rw"), ("memory", "cgroup", "rw,memory"), ("", "cgroup2", "rw,nsdelegate"))
    assert look(rows, os.fsencode(place)) == Cgroups("unified", True, False)  # it is on top of the others
    (place / "system.slice/memory.swap.max").touch()
    assert look(rows, os.fsencode(place)) == Cgroups("unified", True, True)


def test_legacy_and_hybrid(place: Path) -> None:
    legacy = (("", "tmpfs", "ro"), ("memory", "cgroup", "rw,memory"), ("cpu", "cgroup", "rw,cpu,cpuacct"))
    assert look(mounts(place, *legacy), os.fsencode(place)) == Cgroups("legacy", True, False)
    (place / "memory/memory.memsw.limit_in_bytes").touch()
    assert look(mounts(place, *legacy), os.fsencode(place)) == Cgroups("legacy", True, True)
    hybrid = mounts(place, *legacy, ("unified", "cgroup2", "rw"))
    assert look(hybrid, os.fsencode(place)) == Cgroups("hybrid", True, True)


def test_groups_that_may_not_be_made(place: Path) -> None:
    for rows in ([("", "cgroup2", "rw")], [("", "tmpfs", "rw"), ("memory", "cgroup", "rw,memory")]):
        found = mounts(place / "gone", *rows)
        assert not look(found, os.fsencode(place / "gone")).writable
