"""`volatile` on the command lines: the next mount of the upper is refused, with what to do, and `--force` does it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs import mount_line
from tests.unit.cli_runner import Ran, program, refused

pytestmark = pytest.mark.needs_fuse


class Place:
    def __init__(self, path: Path) -> None:
        self.layer, self.upper, self.tree, self.work = (path / name for name in ("layer", "upper", "tree", "work"))
        for directory in (self.layer, self.upper, self.tree, self.work):
            directory.mkdir()
        self.mark = self.work / "work/incompat/volatile"

    def mount(self, *more: str) -> Ran:
        return program("mount", "-l", self.layer, "-u", self.upper, "-w", self.work, *more, self.tree)

    def helper(self, options: str) -> Ran:
        """As containers/storage calls the mount program."""
        where = f"lowerdir={self.layer},upperdir={self.upper},workdir={self.work}"
        return program("-o", f"{where},{options}", self.tree, module="unionfs.api.mount_helper")

    def umount(self) -> None:
        assert program("umount", self.tree).status == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if mount_line(made.tree) is not None:
        program("umount", "--lazy", made.tree)


@pytest.mark.parametrize("option", ["volatile", "fsync=0"])
def test_a_second_mount_is_refused_until_it_is_forced(place: Place, option: str) -> None:
    assert place.mount("-o", option).status == 0
    (place.tree / "file").write_text("kept")
    place.umount()
    assert place.mark.exists()
    refused(place.mount(), 1, f"the upper {place.upper} was last used by a volatile mount", "--force")
    assert mount_line(place.tree) is None
    ran = place.mount("--force")
    assert (ran.status, ran.err) == (0, b"")
    assert (place.tree / "file").read_text() == "kept" and not place.mark.exists()
    place.umount()
    assert place.mount().status == 0


def test_the_mount_program_mounts_again_what_containers_storage_has_unmarked(place: Place) -> None:
    for _ in range(2):
        ran = place.helper("volatile")
        assert (ran.status, ran.err) == (0, b"")
        place.umount()
        shutil.rmtree(place.mark)
    assert place.helper("volatile").status == 0
    place.umount()
    ran = place.helper("volatile")
    assert ran.status == 1 and "volatile mount" in ran.errors[0] and str(place.mark) in ran.errors[1]


def test_an_upper_left_by_a_volatile_mount_is_committed(place: Place, tmp_path: Path) -> None:
    assert place.mount("-o", "volatile").status == 0
    (place.tree / "file").write_text("kept")
    place.umount()
    ran = program("diff", "-l", place.layer, "-u", place.upper, "-w", place.work)
    assert (ran.status, ran.lines) == (0, ["A /file"])
