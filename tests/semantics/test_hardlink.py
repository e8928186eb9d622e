"""Hard links across layers: one inode, one count, one content, whatever name the copy-up went by and wherever it went.

What the kernel's overlayfs does with `index=on` is the least; rotation and commit see the upper without its index.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.posix.tools import names, opened
from tests.semantics.unions import Union, copy_tree, same_tree

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]


def a_group(d: Path) -> None:
    (d / "a").write_bytes(b"shared")
    os.mkdir(d / "sub")
    os.link(d / "a", d / "b")
    os.link(d / "a", d / "sub" / "c")
    (d / "single").write_bytes(b"single")


GROUP = ("a", "b", "sub/c")


def seen(mnt: Path) -> set[tuple[int, int, bytes]]:
    """(inode, links, content) of the names of the group: one element when they are one file."""
    return {(os.stat(mnt / n).st_ino, os.stat(mnt / n).st_nlink, (mnt / n).read_bytes()) for n in GROUP}


@pytest.mark.populate(base=a_group)
@pytest.mark.parametrize("by", GROUP)
@pytest.mark.parametrize("how", ["write", "chmod", "open-only"])
def test_group_is_one_file_after_copy_up_by_any_name(mnt: Path, by: str, how: str) -> None:
    ((ino, _, _),) = seen(mnt)
    if how == "write":
        with open(mnt / by, "ab") as f:
            f.write(b" more")
    elif how == "chmod":
        os.chmod(mnt / by, 0o640)
    else:
        os.close(os.open(mnt / by, os.O_RDWR))
    assert seen(mnt) == {(ino, 3, b"shared more" if how == "write" else b"shared")}
    assert {os.stat(mnt / n).st_mode for n in GROUP} == {0o100640 if how == "chmod" else 0o100644}


@pytest.mark.populate(base=a_group)
def test_descriptors_on_all_names_see_one_count(mnt: Path) -> None:
    with opened(mnt / "a", os.O_RDWR) as a, opened(mnt / "b", os.O_RDWR) as b:
        os.pwrite(a, b"S", 0)
        assert os.pread(b, 6, 0) == b"Shared"
        assert os.fstat(a).st_nlink == os.fstat(b).st_nlink == 3
        os.unlink(mnt / "a")
        assert os.fstat(a).st_nlink == os.fstat(b).st_nlink == os.stat(mnt / "sub" / "c").st_nlink == 2
        os.link(mnt / "b", mnt / "d")
        assert os.fstat(a).st_nlink == 3
        for name in ("b", "d", "sub/c"):
            os.unlink(mnt / name)
        assert os.pread(a, 6, 0) == os.pread(b, 6, 0) == b"Shared"


@pytest.mark.populate(base=a_group)
def test_count_follows_unlinks_before_any_copy_up(mnt: Path) -> None:
    os.unlink(mnt / "b")
    assert os.stat(mnt / "a").st_nlink == os.stat(mnt / "sub" / "c").st_nlink == 2
    os.unlink(mnt / "a")
    assert os.stat(mnt / "sub" / "c").st_nlink == 1
    assert (mnt / "sub" / "c").read_bytes() == b"shared"


@pytest.mark.populate(base=a_group)
def test_new_link_to_a_lower_file_joins_the_group(mnt: Path) -> None:
    os.link(mnt / "single", mnt / "sub" / "new")
    os.link(mnt / "a", mnt / "d")
    with open(mnt / "sub" / "new", "ab") as f:
        f.write(b"!")
    assert (mnt / "single").read_bytes() == b"single!"
    assert os.stat(mnt / "single").st_nlink == 2
    assert os.stat(mnt / "a").st_nlink == os.stat(mnt / "d").st_nlink == 4
    os.unlink(mnt / "single")
    assert os.stat(mnt / "sub" / "new").st_nlink == 1


def test_group_and_count_outlive_a_remount(union: Union) -> None:
    a_group(union.lower())
    mnt = union.mount()
    with open(mnt / "b", "ab") as f:
        f.write(b" more")
    os.link(mnt / "sub" / "c", mnt / "d")
    os.unlink(mnt / "a")
    ino = os.stat(mnt / "b").st_ino
    union.remount()
    stats = [os.stat(mnt / name) for name in ("b", "sub/c", "d")]
    assert {(st.st_ino, st.st_nlink) for st in stats} == {(ino, 3)}
    with open(mnt / "sub" / "c", "ab") as f:
        f.write(b" yet")
    assert {(mnt / name).read_bytes() for name in ("b", "sub/c", "d")} == {b"shared more yet"}
    os.unlink(mnt / "d")
    os.unlink(mnt / "b")
    union.remount()
    assert os.stat(mnt / "sub" / "c").st_nlink == 1
    assert names(mnt) == {"sub", "single"}


@pytest.mark.unlike("kernel", "a commit is ours; the kernel has none")
@pytest.mark.parametrize("change", ["write", "unlink", "link", "rename"])
def test_commit_says_what_became_of_a_group(union: Union, tmp_path: Path, change: str) -> None:
    a_group(union.lower())
    mnt = union.mount()
    if change == "write":
        with open(mnt / "b", "ab") as f:
            f.write(b" more")
    elif change == "unlink":
        os.unlink(mnt / "a")
    elif change == "link":
        os.link(mnt / "sub" / "c", mnt / "d")
    else:
        os.rename(mnt / "a", mnt / "sub" / "a")
    seen_by_cp = copy_tree(mnt, tmp_path / "seen")
    same_tree(union.flattened(tmp_path / "flat"), seen_by_cp)


@pytest.mark.unlike("kernel", "a commit is ours; the kernel has none")
@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize("change", ["write", "chmod", "rename"])
@pytest.mark.parametrize("index", ["removed", "elsewhere"])
def test_group_whose_index_is_lost_is_committed_as_it_then_looks(
    union: Union, change: str, by: str, index: str
) -> None:
    """Without the index (another work directory, or index=off) the changed name is a file of its own.

    Elsewhere, it goes on to link to the changed file, whose count says 2 although one name of it is to be seen.
    """
    base = union.lower()
    (base / "a").write_bytes(b"shared")
    os.link(base / "a", base / "b")
    mnt = union.mount()
    if change == "write":
        with open(mnt / by, "ab") as f:
            f.write(b" more")
    elif change == "chmod":
        os.chmod(mnt / by, 0o600)
    else:
        os.rename(mnt / by, mnt / "new")
    union.unmount()
    if index == "removed":
        shutil.rmtree(union.private / "work")
    else:
        (union.private / "work").rename(union.directory / "old-work")
    flat = union.flattened(union.directory / "flat")
    (union.private / "work").mkdir()
    union.mount()
    assert (mnt / ("new" if change == "rename" else by)).read_bytes() == b"shared" + b" more" * (change == "write")
    assert (mnt / ("b" if by == "a" else "a")).read_bytes() == b"shared"
    numbers = {os.stat(path).st_ino for path in mnt.iterdir()}
    assert len(numbers) == 2
    same_tree(flat, copy_tree(mnt, union.directory / "seen"))


def test_new_group_is_one_inode_after_rotation(union: Union) -> None:
    union.lower()
    mnt = union.mount()
    a_group(mnt)
    ((ino, _, _),) = seen(mnt)
    union.rotate()
    assert seen(mnt) == {(ino, 3, b"shared")}
    with open(mnt / "sub" / "c", "ab") as f:
        f.write(b" more")
    assert seen(mnt) == {(ino, 3, b"shared more")}
    union.remount()
    assert seen(mnt) == {(ino, 3, b"shared more")}
