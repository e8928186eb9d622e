"""st_ino and st_dev: one number a file, over copy-up, remount, rotation, and with several lower file systems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import rigs
from tests.posix.tools import DirStream, opened, python
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, pytest.mark.engine]


def a_tree(d: Path) -> None:
    (d / "file").write_bytes(b"file")
    (d / "dir").mkdir()
    (d / "dir" / "inner").write_bytes(b"inner")
    os.symlink("file", d / "symlink")
    os.mkfifo(d / "fifo")


ALL = ("file", "dir", "dir/inner", "symlink", "fifo")


def numbers(mnt: Path) -> dict[str, int]:
    """st_ino of everything, each checked against d_ino."""
    found = {}
    for directory, dirs, files in os.walk(mnt):
        with DirStream(Path(directory)) as stream:
            listed = {entry.name: entry.ino for entry in stream.rest()}
        for name in [*dirs, *files]:
            path = Path(directory, name)
            found[str(path.relative_to(mnt))] = os.lstat(path).st_ino
            assert listed[os.fsencode(name)] == os.lstat(path).st_ino, f"d_ino of {path}"
    return found


def copy_up_everything(mnt: Path) -> None:
    for name in ALL:
        os.chown(mnt / name, 1, 1, follow_symlinks=False)


def test_numbers_are_kept_over_copy_up_and_remount(union: Union) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    before = numbers(mnt)
    assert set(before) == set(ALL)
    assert len({*before.values(), os.stat(mnt).st_ino}) == len(ALL) + 1
    copy_up_everything(mnt)
    assert numbers(mnt) == before
    union.remount()
    assert numbers(mnt) == before
    for name in ("file", "symlink", "fifo", "dir/inner", "dir"):
        os.rename(mnt / name, mnt / f"{name}-moved")
    union.remount()
    assert {name.replace("-moved", ""): ino for name, ino in numbers(mnt).items()} == before


def test_numbers_of_what_was_never_copied_up_are_kept_over_rotation(union: Union) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    (mnt / "new").mkdir()
    a_tree(mnt / "new")
    before = numbers(mnt)
    union.rotate()
    assert numbers(mnt) == before
    for name in before:
        os.chown(mnt / name, 1, 1, follow_symlinks=False)
    assert numbers(mnt) == before
    union.remount()
    assert numbers(mnt) == before


@pytest.mark.populate(base=a_tree)
def test_one_device_for_everything_in_the_mount(mnt: Path) -> None:
    (mnt / "new").mkdir()
    a_tree(mnt / "new")
    os.chown(mnt / "file", 1, 1)
    device = os.stat(mnt.parent).st_dev
    for directory, dirs, files in os.walk(mnt):
        for name in [*dirs, *files, "."]:
            assert os.lstat(Path(directory, name)).st_dev == device
    with opened(mnt / "dir" / "inner", os.O_RDONLY) as fd:
        assert os.fstat(fd).st_dev == device
        os.chown(mnt / "dir" / "inner", 1, 1)
        assert os.fstat(fd).st_dev == device


@pytest.mark.populate(base=a_tree)
def test_reader_that_watches_sees_no_other_file_after_copy_up(mnt: Path) -> None:
    """As `tail -F` and tar do: fstat of the descriptor against stat of the name, from another process."""
    watcher = python(
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "while True:\n"
        "    held, named = os.fstat(fd), os.stat(sys.argv[1])\n"
        "    print((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino), held.st_ino, flush=True)\n"
        "    if not sys.stdin.readline(): break\n",
        str(mnt / "file"),
    )
    assert watcher.stdin is not None and watcher.stdout is not None
    try:
        first = watcher.stdout.readline().split()
        assert first[0] == b"True"
        for change in (
            lambda: os.close(os.open(mnt / "file", os.O_RDWR)),
            lambda: os.chmod(mnt / "file", 0o600),
            lambda: (mnt / "file").write_bytes(b"rewritten"),
            lambda: os.replace(mnt / "file", mnt / "file2"),
            lambda: os.replace(mnt / "file2", mnt / "file"),
        ):
            change()
            if not (mnt / "file").exists():
                continue
            watcher.stdin.write(b"\n")
            watcher.stdin.flush()
            assert watcher.stdout.readline().split() == first
    finally:
        watcher.stdin.close()
        watcher.stdout.close()
        watcher.wait(10)


@pytest.mark.populate(base=a_tree)
def test_name_unlinked_and_made_again_is_another_file(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDONLY) as old:
        before = os.fstat(old).st_ino
        os.unlink(mnt / "file")
        (mnt / "file").write_bytes(b"another")
        assert os.stat(mnt / "file").st_ino != before
        assert os.fstat(old).st_ino == before
        assert os.pread(old, 10, 0) == b"file"
        assert (mnt / "file").read_bytes() == b"another"
    assert numbers(mnt)["file"] == os.stat(mnt / "file").st_ino


# Several file systems below ----------------------------------------------------------------------------------------
@contextmanager
def two_file_systems(union: Union) -> Iterator[tuple[Path, Path]]:
    """Two lower layers, each on a tmpfs of its own: fresh ones give out the same inode numbers."""
    places = (union.directory / "fs0", union.directory / "fs1")
    mounted: list[Path] = []
    try:
        for place in places:
            place.mkdir()
            rigs.run("mount", "-t", "tmpfs", "-o", "inode64,mode=755,size=16m", "unionfs-tests", str(place))
            mounted.append(place)
            union.lower(place)
        yield places
    finally:
        union.unmount()
        for place in mounted:
            rigs.run("umount", str(place))


def test_same_number_in_two_lower_file_systems_is_two_files(union: Union) -> None:
    with two_file_systems(union) as (first, second):
        for place, text in ((first, b"first"), (second, b"second")):
            (place / text.decode()).write_bytes(text)
            # Two links each, or nobody would take them for one file.
            os.link(place / text.decode(), place / f"{text.decode()}-link")
            (place / "both").mkdir()
            (place / "both" / text.decode()).write_bytes(text)
        assert os.stat(first / "first").st_ino == os.stat(second / "second").st_ino, "the premise: one number"
        mnt = union.mount()
        assert os.lstat(mnt / "first").st_ino != os.lstat(mnt / "second").st_ino
        assert os.lstat(mnt / "first").st_ino == os.lstat(mnt / "first-link").st_ino
        inos = [ino for name, ino in numbers(mnt).items() if not name.endswith("-link")]
        assert len(set(inos)) == len(inos)
        assert len({os.lstat(mnt / name).st_dev for name in ("first", "second", "both", "both/first")}) == 1
        with open(mnt / "first", "ab") as f:
            f.write(b" written")
        assert (mnt / "second").read_bytes() == (mnt / "second-link").read_bytes() == b"second"
        assert (mnt / "first-link").read_bytes() == b"first written"
        # tar goes by (st_dev, st_ino): a wrong number makes "second" a link to "first".
        copied = union.directory / "copied"
        copied.mkdir()
        subprocess.run(
            ["sh", "-c", 'tar -C "$1" -cf - . | tar -C "$2" -xf -', "sh", str(mnt), str(copied)],
            check=True,
            timeout=60,
        )
        assert (copied / "second").read_bytes() == b"second"
        assert (copied / "first").read_bytes() == b"first written"
        assert os.stat(copied / "first").st_nlink == os.stat(copied / "second").st_nlink == 2


def test_numbers_across_file_systems_are_kept_over_copy_up(union: Union) -> None:
    with two_file_systems(union) as (first, second):
        for place in (first, second):
            (place / "d").mkdir()
            a_tree(place / "d")
        (first / "only").write_bytes(b"1")
        mnt = union.mount()
        before = numbers(mnt)
        for name in before:
            os.chown(mnt / name, 1, 1, follow_symlinks=False)
        assert numbers(mnt) == before
