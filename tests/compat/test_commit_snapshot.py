"""A commit where the file system shares data: changes wait for a copy of the upper that costs no data, no longer."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_cli_mount import Place, is_mounted
from tests.compat.test_hold import is_one_moment, lockstep, numbers, running
from tests.requirements import need, requires
from tests.semantics.media import formatted
from unionfs import api
from unionfs.api import snapshot

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, requires("root", "fuse")]

#: name -> mkfs, options
SHARING = {"xfs": ("mkfs.xfs -q", "nouuid"), "btrfs": ("mkfs.btrfs -q", "noatime")}


@contextlib.contextmanager
def mounted_on(medium: Path) -> Iterator[Place]:
    place = Place(medium)
    place.mount("-u", place.upper)
    try:
        yield place
    finally:
        if is_mounted(place.tree):
            place.run("umount", place.tree)


@pytest.fixture(params=SHARING)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    mkfs, options = SHARING[request.param]
    need(mkfs.split()[0])
    medium = tmp_path / "medium"
    medium.mkdir()
    with formatted(medium, 512 << 20, mkfs, options), mounted_on(medium) as place:
        yield place


def enough(tree: Path) -> None:
    """More than a copy is made for, which no file system makes smaller."""
    with open(tree / "ab", "wb") as file:
        for _ in range(9):
            file.write(os.urandom(8 << 20))
    assert snapshot.WORTH < 9 * (8 << 20)


def members(layer: Path) -> dict[str, tuple[bytes, int, int, str]]:
    with tarfile.open(layer) as tar:
        return {entry.name: (entry.type, entry.mode, entry.size, entry.linkname) for entry in tar}


def test_changes_go_on_while_the_layer_is_written(place: Place, tmp_path: Path) -> None:
    """A write from within the writing would wait for itself, if changes were held; and it is not in the layer."""
    enough(place.tree)
    wrote = []

    def progress(done: int) -> None:
        (place.tree / f"late-{done}").write_text("x")
        wrote.append(done)

    result = api.commit(place.tree, output=tmp_path / "layer.tar", progress=progress)
    assert wrote and result.held_seconds is not None
    assert [name for name in members(tmp_path / "layer.tar") if name != "."] == ["ab"]
    assert not [name for name in os.listdir(f"{place.upper}.work") if name.startswith("snapshot")]


def test_layer_of_a_copy_is_that_of_the_upper(place: Place, tmp_path: Path) -> None:
    """Whiteouts, opaque directories, redirects, hard links, owners and attributes."""
    enough(place.tree)
    tree = place.tree
    os.link(tree / "ab", tree / "ab2")
    (tree / "etc/motd").unlink()
    (tree / "etc").rename(tree / "gone")
    (tree / "etc").mkdir(mode=0o700)
    os.chown(tree / "etc", 1, 2)
    os.setxattr(tree / "etc", "user.a", b"b")
    (tree / "link").symlink_to("/nowhere")
    os.mkfifo(tree / "fifo")
    layers = [tmp_path / "copied.tar", tmp_path / "read.tar"]
    copied = api.commit(tree, output=layers[0])
    read = api.commit(tree, output=layers[1], pause=False)
    assert copied.diff_id == read.diff_id and members(layers[0]) == members(layers[1])
    assert copied.held_seconds is not None and read.held_seconds is None


def test_an_upper_that_has_the_name_of_the_index_is_not_mixed_up_with_it(place: Place, tmp_path: Path) -> None:
    place.run("umount", place.tree)
    place.mount("-u", place.path / "index")
    enough(place.tree)
    os.link(place.tree / "etc/motd", place.tree / "motd")  # now there is something in the index
    layers = [tmp_path / "one.tar", tmp_path / "other.tar"]
    assert (
        api.commit(place.tree, output=layers[0]).diff_id
        == api.commit(place.tree, output=layers[1], pause=False).diff_id
    )
    assert [name for name in members(layers[0]) if name != "."] == ["ab", "motd"]


def test_copy_is_one_moment(place: Place, tmp_path: Path) -> None:
    """Of a shared mapping and write(2)."""
    enough(place.tree)
    with running(lockstep("mixed", place.tree)) as client:
        seen = []
        for _ in range(3):
            result = api.commit(place.tree, output=tmp_path / "layer.tar")
            assert (result.unfrozen, result.unseen) == ((), 0)
            seen.append(numbers(tmp_path / "layer.tar"))
            assert is_one_moment(tmp_path / "layer.tar"), seen
        assert client.poll() is None and seen[-1] > seen[0]


def test_copy_that_a_crash_has_left_goes_with_the_next(place: Place, tmp_path: Path) -> None:
    left = Path(f"{place.upper}.work/snapshot-4194303-1")
    left.mkdir()
    (left / "upper").mkdir()
    enough(place.tree)
    api.commit(place.tree, output=tmp_path / "layer.tar")
    assert not left.exists()


def test_file_system_that_shares_nothing(tmp_path: Path) -> None:
    """Changes wait until the layer has been read, as ever."""
    need("mkfs.ext4")
    medium = tmp_path / "medium"
    medium.mkdir()
    with formatted(medium, 256 << 20, "mkfs.ext4 -q -F", "noatime"), mounted_on(medium) as place:
        enough(place.tree)
        holds: list[api.Held] = []
        seen: list[bool] = []
        api.commit(
            place.tree,
            output=tmp_path / "layer.tar",
            on_hold=holds.append,
            progress=lambda done: seen.append(holds[0].holds),
        )
        assert seen[0] is True and holds[0].seconds is not None
