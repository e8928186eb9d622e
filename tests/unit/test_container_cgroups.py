"""What control groups there are, by the mounts of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unionfs.containers.cgroups import Cgroups, Mode, killed_for_memory, look
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
    top = os.fsencode(place)
    assert look(rows, top) == Cgroups("unified", True, False, top)  # it is on top of the others
    (place / "system.slice/memory.swap.max").touch()
    assert look(rows, top) == Cgroups("unified", True, True, top)


def test_legacy_and_hybrid(place: Path) -> None:
    legacy = (("", "tmpfs", "ro"), ("memory", "cgroup", "rw,memory"), ("cpu", "cgroup", "rw,cpu,cpuacct"))
    memory = os.fsencode(place / "memory")
    assert look(mounts(place, *legacy), os.fsencode(place)) == Cgroups("legacy", True, False, memory)
    (place / "memory/memory.memsw.limit_in_bytes").touch()
    assert look(mounts(place, *legacy), os.fsencode(place)) == Cgroups("legacy", True, True, memory)
    hybrid = mounts(place, *legacy, ("unified", "cgroup2", "rw"))
    assert look(hybrid, os.fsencode(place)) == Cgroups("hybrid", True, True, memory)
    assert look(mounts(place, legacy[0], legacy[2]), os.fsencode(place)) == Cgroups("legacy", True, False)


def test_groups_that_may_not_be_made(place: Path) -> None:
    for rows in ([("", "cgroup2", "rw")], [("", "tmpfs", "rw"), ("memory", "cgroup", "rw,memory")]):
        found = mounts(place / "gone", *rows)
        assert not look(found, os.fsencode(place / "gone")).writable


@pytest.mark.parametrize(
    ("mode", "file", "text"),
    [
        ("unified", "memory.events", "low 0\nhigh 0\nmax 12\noom {0}\noom_kill {0}\noom_group_kill 0\n"),
        ("legacy", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {0}\n"),
        ("hybrid", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {0}\n"),
    ],
)
def test_processes_killed_for_want_of_memory(tmp_path: Path, mode: Mode, file: str, text: str) -> None:
    found = Cgroups(mode, True, True, os.fsencode(tmp_path))
    assert not killed_for_memory(found, "x")  # no such group
    group = tmp_path / "unionfs/x"
    group.mkdir(parents=True)
    assert not killed_for_memory(found, "x")  # memory is not counted
    for count in (0, 1, 25):
        (group / file).write_text(text.format(count))
        assert killed_for_memory(found, "x") is (count > 0)
    (group / file).write_text("oom_kill_disable 0\nunder_oom 0\n")  # before Linux 4.13
    assert not killed_for_memory(found, "x")
    assert not killed_for_memory(Cgroups("none", False, False), "x")
