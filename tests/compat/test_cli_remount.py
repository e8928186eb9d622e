"""`unionfs remount` on live mounts: what the kernel had cached is what the layers say now, and nobody is cut off.

What has to be cached is held by a descriptor: memory, or somebody else, may make the kernel drop the rest at any time.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import schemas
from tests.compat.test_cli_mount import Place, place
from tests.requirements import requires
from tests.unit.cli_runner import refused

__all__ = ["place"]  # the fixture

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]

LARGE = 1 << 20  # read by the kernel itself, where it may
DATA_PATHS = pytest.mark.parametrize("passthrough", ["auto", "off"])


def remount(place: Place) -> schemas.Remount:
    ran = place.run("remount", place.tree, "--json")
    assert (ran.status, ran.err) == (0, b"")
    return schemas.Remount.model_validate_json(ran.out)


def walk(tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))


@DATA_PATHS
def test_new_removed_and_replaced_names(place: Place, passthrough: str) -> None:
    for name in ("gone", "replaced", "kept"):
        (place.layer / name).write_text(name)
    place.mount("-u", place.upper, "--passthrough", passthrough)
    tree, layer = place.tree, place.layer
    before = walk(tree)
    held = [os.open(tree / name, os.O_PATH) for name in ("gone", "replaced", "kept", "etc")]
    assert not (tree / "new").exists() and not (tree / "etc/new").exists()
    kept = (tree / "kept").stat()
    (layer / "gone").unlink()
    (layer / "new").write_text("new")
    (layer / "etc/new").mkdir()
    (layer / "fresh").write_text("replacement")
    os.rename(layer / "fresh", layer / "replaced")
    noticed = remount(place)
    assert (noticed.gone, noticed.come) == (2, 2)
    assert noticed.dropped is not None and noticed.dropped >= 2
    # By name first: reading the directory would tell the kernel, too.
    assert not (tree / "gone").exists()
    assert ((tree / "new").read_text(), (tree / "replaced").read_text()) == ("new", "replacement")
    assert (tree / "etc/new").is_dir()
    assert walk(tree) == sorted({*before, "new", "etc/new"} - {"gone"})
    assert (tree / "kept").stat() == kept
    (tree / "etc/new/made").write_text("made")
    assert (place.upper / "etc/new/made").read_text() == "made"
    for fd in held:
        os.close(fd)
    again = remount(place)
    assert (again.gone, again.come) == (0, 0)


@DATA_PATHS
@pytest.mark.parametrize("size", [5000, LARGE])
def test_pages_and_attributes_of_a_file_changed_in_place(place: Place, passthrough: str, size: int) -> None:
    (place.layer / "file").write_bytes(b"a" * size)
    place.mount("-u", place.upper, "--passthrough", passthrough)
    path = place.tree / "file"
    with path.open("rb", buffering=0) as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert mapping[:] == path.read_bytes() == b"a" * size
        (place.layer / "file").write_bytes(b"b" * (size + 7))
        os.chmod(place.layer / "file", 0o640)
        remount(place)
        assert (path.stat().st_size, path.stat().st_mode & 0o777) == (size + 7, 0o640)
        assert path.read_bytes() == os.pread(reader.fileno(), 2 * size, 0) == b"b" * (size + 7)
        assert mapping[:] == b"b" * size


@DATA_PATHS
@pytest.mark.parametrize("again", [False, True], ids=["first-open", "opened-again"])
@pytest.mark.parametrize("size", [5000, LARGE])
def test_open_file_goes_on_when_another_takes_its_name(place: Place, passthrough: str, size: int, again: bool) -> None:
    (place.layer / "file").write_bytes(b"old" * size)
    place.mount("-u", place.upper, "--passthrough", passthrough)
    path = place.tree / "file"
    if again:
        assert path.read_bytes() == b"old" * size
    with path.open("rb", buffering=0) as reader:
        (place.layer / "fresh").write_bytes(b"new")
        os.rename(place.layer / "fresh", place.layer / "file")
        remount(place)
        assert path.read_bytes() == b"new"
        if again and size < LARGE:
            # The file is opened when it is first read: if the kernel has dropped the pages, there is nothing to read.
            with suppress_stale():
                assert os.pread(reader.fileno(), 4 * size, 0) == b"old" * size
        else:
            assert os.pread(reader.fileno(), 4 * size, 0) == b"old" * size
            assert os.fstat(reader.fileno()).st_size == 3 * size
        with path.open("ab") as writer:
            writer.write(b"er")
        assert path.read_bytes() == b"newer"
    assert (place.upper / "file").read_bytes() == b"newer"


@contextmanager
def suppress_stale() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        assert error.errno == errno.ESTALE


def test_who_stands_in_a_directory(place: Place) -> None:
    """One that stays is not cut off from the tree; one that went is as after rmdir."""
    (place.layer / "gone/below").mkdir(parents=True)
    place.mount("-u", place.upper)
    stays = os.open(place.tree / "etc", os.O_RDONLY)
    goes = os.open(place.tree / "gone/below", os.O_RDONLY)
    try:
        shutil.rmtree(place.layer / "gone")
        (place.layer / "etc/new").touch()
        assert remount(place).gone == 2
        assert os.readlink(f"/proc/self/fd/{stays}") == str(place.tree / "etc")
        assert sorted(os.listdir(stays)) == ["motd", "new"]
        assert os.listdir(goes) == []
        with pytest.raises(FileNotFoundError):
            os.mkdir("new", dir_fd=goes)
        with pytest.raises(FileNotFoundError):
            os.stat(place.tree / "gone")
    finally:
        os.close(stays)
        os.close(goes)


def test_file_becomes_directory_becomes_file(place: Place) -> None:
    (place.layer / "file").touch()
    place.mount("-u", place.upper)
    for _ in range(3):
        (place.layer / "file").unlink()
        (place.layer / "file").mkdir()
        (place.layer / "file/inside").write_text("inside")
        remount(place)
        assert (place.tree / "file/inside").read_text() == "inside"
        shutil.rmtree(place.layer / "file")
        (place.layer / "file").write_text("file")
        remount(place)
        assert (place.tree / "file").read_text() == "file"


def test_what_people_read(place: Place) -> None:
    place.mount("-u", place.upper)
    assert not (place.tree / "new").exists()
    (place.layer / "new").touch()
    ran = place.run("remount", place.tree)
    assert (ran.status, ran.err) == (0, b"")
    assert ran.lines == [f"{place.tree}: 0 names gone or replaced, 1 new, 1 inodes read again"]


@requires("libfuse")
def test_through_libfuse_the_engine_notices_and_the_command_says_what_stays(place: Place) -> None:
    (place.layer / "file").write_bytes(b"a" * 5000)
    place.mount("-u", place.upper, "--transport", "fusepy")
    assert (place.tree / "file").read_bytes() == b"a" * 5000
    assert os.listdir(place.tree / "etc") == ["motd"]
    (place.layer / "file").write_bytes(b"b" * 5000)
    (place.layer / "etc/new").touch()
    (place.layer / "etc/motd").unlink()
    assert remount(place).dropped is None
    assert ((place.tree / "file").read_bytes(), os.listdir(place.tree / "etc")) == (b"b" * 5000, ["new"])
    ran = place.run("remount", place.tree)
    assert ran.status == 0 and ran.errors[0].startswith("hint: the kernel may still show")


def test_of_what_is_no_mount_or_a_dead_one(place: Place) -> None:
    refused(place.run("remount", place.tree), 1, "is not a unionfs mount", "unionfs mounts")
    place.mount("-u", place.upper)
    pid = place.status().pid
    assert pid is not None
    gone = os.pidfd_open(pid)
    os.kill(pid, 9)
    assert select.select([gone], [], [], 20)[0]
    os.close(gone)
    refused(place.run("remount", place.tree), 1, "is dead", "unionfs umount")
