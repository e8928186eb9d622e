"""tar over the mount: "file changed as we read it" is said of files that somebody changed, and of no others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.semantics.unions import Union, copy_tree, same_tree

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]


def a_tree(d: Path) -> None:
    for i in range(3):
        (d / f"d{i}").mkdir()
        for j in range(30):
            (d / f"d{i}" / f"f{j}").write_bytes(b"%d" % j * (j * 100))
        os.link(d / f"d{i}" / "f1", d / f"d{i}" / "link")
        os.symlink("f2", d / f"d{i}" / "symlink")


def more(d: Path) -> None:
    (d / "d1").mkdir()
    (d / "d1" / "f3").write_bytes(b"from above")
    (d / "d1" / "added").write_bytes(b"added")


def tar(tree: Path) -> bytes:
    """The archive. AssertionError if tar had anything to say (it exits 1 on a file that changed)."""
    done = subprocess.run(
        ["tar", "--sort=name", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs",
         "-C", str(tree), "-cf", "-", "."],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.populate(base=a_tree, above=more)
def test_two_readings_give_the_same_archive(mnt: Path) -> None:
    assert tar(mnt) == tar(mnt)


@pytest.mark.populate(base=a_tree, above=more)
def test_reading_after_changes_gives_the_same_archive_twice(mnt: Path) -> None:
    for i in range(0, 30, 3):
        with open(mnt / "d0" / f"f{i}", "ab") as f:
            f.write(b"appended")
        os.unlink(mnt / "d2" / f"f{i}")
        os.rename(mnt / "d1" / f"f{i + 1}", mnt / "d1" / f"renamed{i}")
    os.rename(mnt / "d2", mnt / "moved")
    first = tar(mnt)
    assert tar(mnt) == first


def test_archive_is_the_same_after_copy_up_and_remount_and_gives_the_tree_back(union: Union) -> None:
    a_tree(union.lower())
    more(union.lower())
    mnt = union.mount()
    first = tar(mnt)
    for directory, _, files in os.walk(mnt):
        for name in files:
            path = Path(directory, name)
            st = os.lstat(path)
            os.chown(path, st.st_uid, st.st_gid, follow_symlinks=False)
    assert tar(mnt) == first
    union.remount()
    assert tar(mnt) == first
    copied, unpacked = union.directory / "copied", union.directory / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-C", str(unpacked), "--xattrs", "-xpf", "-"], input=first, check=True, timeout=60)
    same_tree(unpacked, copy_tree(mnt, copied))
