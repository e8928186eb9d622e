"""`unionfs check` and `unionfs convert` beside real mounts: refused while live, good after a kill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_cli_mount import Place, is_mounted, kill
from tests.requirements import requires
from tests.unit.cli_runner import refused

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.mount("-u", made.upper)
    yield made
    if is_mounted(made.tree):
        made.run("umount", "--lazy", made.tree)
    assert not is_mounted(made.tree)


def test_a_live_upper_is_looked_at_but_not_touched(place: Place) -> None:
    with open(place.tree / "open", "w") as file:
        os.unlink(place.tree / "open")  # lives in the work directory from now on
        assert any(name.startswith("#") for name in os.listdir(place.path / "upper.work/work"))
        assert place.run("check", "-l", place.layer, place.upper).status == 0
        refused(place.run("check", "--repair", place.upper), 1, "is used by another live mount: unionfs mount on")
        refused(place.run("convert", "--to", "aufs", place.upper), 1, "is used by another live mount: unionfs mount on")
        refused(place.run("convert", "--to", "aufs", place.layer), 1, "is used by another live mount: unionfs mount on")
        file.write("still good")


def test_an_upper_whose_daemon_was_killed_is_swept_and_goes_on(place: Place) -> None:
    (place.tree / "etc/motd").unlink()
    (place.tree / "kept").write_text("kept")
    pid = place.status().pid
    assert pid is not None
    with open(place.tree / "open", "w"):
        os.unlink(place.tree / "open")
        kill(pid)
    assert place.run("umount", place.tree).status == 0
    found = place.run("check", "-l", place.layer, place.upper)
    assert found.status == 1 and {line.split("\t")[1] for line in found.lines} == {"work-debris"}
    assert place.run("check", "--repair", place.upper).status == 0
    assert place.run("check", "-l", place.layer, place.upper).out == b""
    assert os.listdir(place.path / "upper.work/work") == []
    for encoding in ("aufs", "fuse-overlayfs", "kernel"):
        assert place.run("convert", "--to", encoding, place.upper).status == 0
        place.mount("-u", place.upper)
        seen = subprocess.run(["ls", "-R", "."], cwd=place.tree, capture_output=True, text=True, check=True)
        assert seen.stdout.split() == [".:", "etc", "kept", "./etc:"]
        assert place.run("umount", place.tree).status == 0
