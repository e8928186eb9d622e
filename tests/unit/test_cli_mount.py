"""`unionfs mount`, as far as it comes without mounting: every refusal, in the words that people see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import need
from tests.unit.cli_runner import Ran, call, refused

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a layer and a mountpoint."""
    for name in ("layer", "tree"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def other_file_system(place: Path) -> Iterator[Path]:
    """A directory on another file system than `place`."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == place.stat().st_dev:
        need("root")
        pytest.skip("missing: a second writable file system")
    path = shm / f"unionfs-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


def mount(capture: Capture, place: Path, *argv: str | Path, layer: str = "layer") -> Ran:
    return call(capture, "mount", "-l", place / layer, *argv, place / "tree")


def test_a_layer_that_is_missing(capsysbinary: Capture, place: Path) -> None:
    ran = mount(capsysbinary, place, layer="no")
    refused(ran, 1, f"layer {place / 'no'} does not exist", "topmost first")


def test_a_layer_that_is_neither_a_directory_nor_a_tar(capsysbinary: Capture, place: Path) -> None:
    (place / "file").touch()
    ran = mount(capsysbinary, place, layer="file")
    refused(ran, 1, f"layer {place / 'file'} is not a layer tar", "a directory, or")


def test_two_layers_in_one_option_get_the_right_hint(capsysbinary: Capture, place: Path) -> None:
    ran = mount(capsysbinary, place, layer=f"layer:{place}")
    refused(ran, 1, "does not exist", "with -l give one layer at a time")


def test_no_layer_at_all(capsysbinary: Capture, place: Path) -> None:
    refused(call(capsysbinary, "mount", place / "tree"), 1, "no layers to stack", "-l LAYER or -o lowerdir")


def test_an_upper_whose_parent_is_missing(capsysbinary: Capture, place: Path) -> None:
    ran = mount(capsysbinary, place, "-u", place / "no/upper")
    refused(ran, 1, f"upper {place / 'no/upper'} does not exist", f"mkdir -p {place / 'no'}")


def test_an_upper_that_is_a_file(capsysbinary: Capture, place: Path) -> None:
    (place / "file").touch()
    refused(mount(capsysbinary, place, "-u", place / "file"), 1, f"upper {place / 'file'} is not a directory")


def test_upper_and_work_on_different_file_systems(capsysbinary: Capture, place: Path, other_file_system: Path) -> None:
    ran = mount(capsysbinary, place, "-u", place / "upper", "-w", other_file_system)
    refused(ran, 1, "are on different file systems", "give -w a directory on the upper's file system")


@pytest.mark.parametrize(
    ("upper", "work", "error"),
    [
        ("layer/upper", None, "upper {place}/layer/upper lies inside the layer {place}/layer"),
        ("layer", None, "upper {place}/layer is also the layer {place}/layer"),
        (".", None, "layer {place}/layer lies inside the upper {place}/."),
        ("upper", "upper", "upper and work directory are the same"),
        ("upper", "upper/work", "work directory {place}/upper/work lies inside the upper {place}/upper"),
        ("upper", ".", "upper {place}/upper lies inside the work directory {place}/."),
        ("upper", "layer/work", "work directory {place}/layer/work lies inside the layer {place}/layer"),
        ("link", None, "upper {place}/link is also the layer {place}/layer"),
    ],
)
def test_trees_that_overlap(capsysbinary: Capture, place: Path, upper: str, work: str | None, error: str) -> None:
    (place / "link").symlink_to("layer")
    argv = ["-u", f"{place}/{upper}"] + (["-w", f"{place}/{work}"] if work else [])
    ran = mount(capsysbinary, place, *argv)
    refused(ran, 1, error.format(place=place))
    assert ran.errors[1].startswith("hint: ")


def test_a_work_directory_without_an_upper(capsysbinary: Capture, place: Path) -> None:
    refused(mount(capsysbinary, place, "-w", place / "work"), 1, "a work directory without an upper", "-u")


def test_ephemeral_and_an_upper(capsysbinary: Capture, place: Path) -> None:
    refused(mount(capsysbinary, place, "--ephemeral", "-u", place / "upper"), 1, "cannot be ephemeral", "choose one")
    refused(mount(capsysbinary, place, "--ephemeral", "--read-only"), 1, "ephemeral and read-only", "choose one")


def test_a_mountpoint_that_is_missing_or_a_file(capsysbinary: Capture, place: Path) -> None:
    (place / "tree").rmdir()
    refused(mount(capsysbinary, place), 1, f"mountpoint {place / 'tree'} does not exist", "mkdir -p")
    (place / "tree").touch()
    refused(mount(capsysbinary, place), 1, f"mountpoint {place / 'tree'} is not a directory")


def test_a_mountpoint_that_is_not_empty(capsysbinary: Capture, place: Path) -> None:
    (place / "tree/file").touch()
    refused(mount(capsysbinary, place), 1, f"mountpoint {place / 'tree'} is not empty", "nonempty")


def test_a_mountpoint_inside_a_layer(capsysbinary: Capture, place: Path) -> None:
    (place / "layer/tree").mkdir()
    ran = call(capsysbinary, "mount", "-l", place / "layer", place / "layer/tree")
    refused(ran, 1, f"mountpoint {place / 'layer/tree'} lies inside the layer {place / 'layer'}", "outside")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("-o", "lowerdir=/tmp"), "layers given twice"),
        (("-u", "a", "-o", "upperdir=b"), "the upper given twice"),
        (("-o", "colour=green"), "unknown mount option 'colour=green'"),
        (("-o", "lowerdir="), "lowerdir needs a directory"),
        (("-o", "index=perhaps"), "index=perhaps"),
    ],
)
def test_options_without_meaning_are_usage_errors(
    capsysbinary: Capture, place: Path, argv: tuple[str, ...], error: str
) -> None:
    refused(mount(capsysbinary, place, *argv), 2, error)


def test_umount_of_what_is_no_mount(capsysbinary: Capture, place: Path) -> None:
    refused(call(capsysbinary, "umount", place / "tree"), 1, "is not a unionfs mount", "unionfs mounts")
