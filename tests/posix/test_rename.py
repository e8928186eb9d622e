"""rename(2) and renameat2(2): every pair of types, every flag, lower and upper things."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.tools import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, expect, names, opened, renameat2

KINDS = ("file", "dir", "full", "link", "fifo")


def make(place: Path, kind: str) -> None:
    """A thing of this kind, recognisable by `look`."""
    if kind == "file":
        place.write_bytes(place.name.encode())
    elif kind == "link":
        place.symlink_to(place.name + "-target")
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
        if kind == "full":
            (place / "entry").write_bytes(place.name.encode())


def look(place: Path) -> tuple[str, object]:
    """What stands at `place`: (kind, what tells it from another)."""
    if place.is_symlink():
        return "link", os.readlink(place)
    if place.is_dir():
        inside = os.listdir(place)
        return ("full", (place / "entry").read_bytes()) if inside else ("dir", None)
    return ("file", place.read_bytes()) if place.is_file() else ("fifo", None)


def all_kinds(d: Path) -> None:
    for role in ("old", "new"):
        for kind in KINDS:
            make(d / f"{role}-{kind}", kind)


def linked(d: Path) -> None:
    (d / "a").write_bytes(b"one")
    os.link(d / "a", d / "b")


def merged_below(d: Path) -> None:
    (d / "m").mkdir()
    (d / "m" / "below").write_bytes(b"below")
    (d / "m" / "sub").mkdir()
    (d / "m" / "sub" / "deep").write_bytes(b"deep")
    (d / "other").mkdir()


def merged_above(d: Path) -> None:
    (d / "m").mkdir(exist_ok=True)
    (d / "m" / "above").write_bytes(b"above")


def verdict(old: str, new: str) -> int | None:
    """The errno of rename(2) for a thing of kind `old` onto one of kind `new`; None: it succeeds."""
    old_is_dir, new_is_dir = old in ("dir", "full"), new in ("dir", "full")
    if old_is_dir and not new_is_dir:
        return errno.ENOTDIR
    if new_is_dir and not old_is_dir:
        return errno.EISDIR
    return errno.ENOTEMPTY if new == "full" else None


def check_replacing(mnt: Path, old: str, new: str) -> None:
    source, target = mnt / f"old-{old}", mnt / f"new-{new}"
    moved, before = look(source), names(mnt)
    number = verdict(old, new)
    if number is None:
        os.rename(source, target)
        assert look(target) == moved
        assert names(mnt) == before - {source.name}
        with expect(errno.ENOENT):
            os.lstat(source)
    else:
        kept = look(target)
        with expect(number):
            os.rename(source, target)
        assert (look(source), look(target)) == (moved, kept)
        assert names(mnt) == before


@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_rename_of_old_things_onto_each_other(mnt: Path, old: str, new: str) -> None:
    check_replacing(mnt, old, new)


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_rename_of_new_things_onto_each_other(mnt: Path, old: str, new: str) -> None:
    all_kinds(mnt)
    check_replacing(mnt, old, new)


@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("kind", KINDS)
def test_rename_to_a_free_name_keeps_the_inode(mnt: Path, kind: str) -> None:
    old, new = mnt / f"old-{kind}", mnt / "free"
    moved, ino = look(old), os.lstat(old).st_ino
    os.rename(old, new)
    assert look(new) == moved
    assert os.lstat(new).st_ino == ino
    assert old.name not in names(mnt)


@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("kind", KINDS)
def test_rename_into_another_directory_and_back(mnt: Path, kind: str) -> None:
    old, new = mnt / f"old-{kind}", mnt / "new-dir" / "moved"
    moved, before = look(old), names(mnt)
    os.rename(old, new)
    assert look(new) == moved
    assert names(mnt) == before - {old.name}
    os.rename(new, old)
    assert look(old) == moved
    assert names(mnt) == before


@pytest.mark.populate(base=merged_below, above=merged_above)
def test_rename_of_a_merged_directory_takes_everything_along(mnt: Path) -> None:
    (mnt / "m" / "fresh").write_bytes(b"fresh")
    os.rename(mnt / "m", mnt / "other" / "moved")
    moved = mnt / "other" / "moved"
    assert names(moved) == {"below", "above", "fresh", "sub"}
    assert (moved / "below").read_bytes() == b"below"
    assert (moved / "above").read_bytes() == b"above"
    assert (moved / "sub" / "deep").read_bytes() == b"deep"
    with expect(errno.ENOENT):
        os.stat(mnt / "m")
    os.mkdir(mnt / "m")
    assert os.listdir(mnt / "m") == []


@pytest.mark.populate(base=merged_below, above=merged_above)
def test_rename_of_a_directory_seen_through_descriptors_and_cwd(mnt: Path) -> None:
    with opened(mnt / "m", os.O_RDONLY | os.O_DIRECTORY) as directory, opened(mnt / "m" / "below", os.O_RDWR) as file:
        os.rename(mnt / "m", mnt / "moved")
        assert set(os.listdir(directory)) == {"below", "above", "sub"}
        os.write(file, b"BELOW")
        new = os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        os.write(new, b"n")
        os.close(new)
    assert (mnt / "moved" / "below").read_bytes() == b"BELOW"
    assert (mnt / "moved" / "new").read_bytes() == b"n"


@pytest.mark.populate(base=merged_below, above=merged_above)
def test_rename_of_a_file_then_of_its_directory_then_removal(mnt: Path) -> None:
    os.rename(mnt / "m" / "below", mnt / "m" / "renamed")
    os.rename(mnt / "m", mnt / "n")
    assert names(mnt / "n") == {"renamed", "above", "sub"}
    os.unlink(mnt / "n" / "renamed")
    os.rename(mnt / "n", mnt / "m")
    assert names(mnt / "m") == {"above", "sub"}


@pytest.mark.populate(base=merged_below)
def test_rename_of_a_directory_below_itself_is_einval(mnt: Path) -> None:
    with expect(errno.EINVAL):
        os.rename(mnt / "m", mnt / "m" / "sub" / "m")
    with expect(errno.EINVAL):
        os.rename(mnt / "m", mnt / "m" / "x")
    assert names(mnt / "m") == {"below", "sub"}


@pytest.mark.populate(base=merged_below)
def test_rename_onto_an_own_ancestor_is_enotempty(mnt: Path) -> None:
    with expect(errno.ENOTEMPTY):
        os.rename(mnt / "m" / "sub", mnt / "m")


@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("kind", KINDS)
def test_rename_onto_itself_does_nothing(mnt: Path, kind: str) -> None:
    path = mnt / f"old-{kind}"
    before, there = look(path), names(mnt)
    os.rename(path, path)
    assert look(path) == before
    assert names(mnt) == there


@pytest.mark.populate(base=linked)
def test_rename_between_hard_links_of_one_file_does_nothing(mnt: Path) -> None:
    os.rename(mnt / "a", mnt / "b")
    assert names(mnt) == {"a", "b"}
    assert os.stat(mnt / "a").st_nlink == 2
    os.link(mnt / "a", mnt / "c")
    os.rename(mnt / "c", mnt / "b")
    assert names(mnt) == {"a", "b", "c"}


@pytest.mark.populate(base=all_kinds)
def test_rename_of_bad_names(mnt: Path) -> None:
    with expect(errno.ENOENT):
        os.rename(mnt / "no", mnt / "x")
    with expect(errno.ENOENT):
        os.rename(mnt / "old-file", mnt / "no" / "x")
    with expect(errno.ENOTDIR):
        os.rename(mnt / "old-file", mnt / "new-file" / "x")
    with expect(errno.ENOTDIR):
        os.rename(mnt / "old-file", f"{mnt}/x/")
    with expect(errno.ENAMETOOLONG):
        os.rename(mnt / "old-file", mnt / ("x" * 256))
    with expect(errno.EBUSY):
        os.rename(f"{mnt}/old-dir/.", mnt / "x")
    with expect(errno.EBUSY):
        os.rename(f"{mnt}/old-dir", f"{mnt}/new-dir/..")


@pytest.mark.populate(base=all_kinds)
def test_replaced_file_lives_on_in_its_descriptor(mnt: Path) -> None:
    with opened(mnt / "new-file", os.O_RDONLY) as fd:
        os.rename(mnt / "old-file", mnt / "new-file")
        assert os.read(fd, 20) == b"new-file"
    assert (mnt / "new-file").read_bytes() == b"old-file"


def test_renamed_open_file_is_still_written(mnt: Path) -> None:
    with opened(mnt / "a", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"one")
        os.rename(mnt / "a", mnt / "b")
        os.write(fd, b"two")
        assert os.stat(mnt / "b").st_size == 6
    assert (mnt / "b").read_bytes() == b"onetwo"


# Flags ---------------------------------------------------------------------------------------------------------------
@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("kind", KINDS)
def test_noreplace_over_anything_is_eexist(mnt: Path, kind: str) -> None:
    before = look(mnt / "old-file"), look(mnt / f"new-{kind}")
    with expect(errno.EEXIST):
        renameat2(mnt / "old-file", mnt / f"new-{kind}", RENAME_NOREPLACE)
    assert (look(mnt / "old-file"), look(mnt / f"new-{kind}")) == before


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("kind", KINDS)
def test_noreplace_onto_a_free_or_freed_name_renames(mnt: Path, kind: str) -> None:
    moved = look(mnt / f"old-{kind}")
    renameat2(mnt / f"old-{kind}", mnt / "free", RENAME_NOREPLACE)
    assert look(mnt / "free") == moved
    os.unlink(mnt / "new-file")
    renameat2(mnt / "free", mnt / "new-file", RENAME_NOREPLACE)
    assert look(mnt / "new-file") == moved


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=all_kinds)
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_exchange_of_any_two_kinds(mnt: Path, old: str, new: str) -> None:
    first, second = mnt / f"old-{old}", mnt / f"new-{new}"
    was, before = (look(first), look(second)), names(mnt)
    inodes = os.lstat(first).st_ino, os.lstat(second).st_ino
    renameat2(first, second, RENAME_EXCHANGE)
    assert (look(second), look(first)) == was
    assert (os.lstat(second).st_ino, os.lstat(first).st_ino) == inodes
    assert names(mnt) == before


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=merged_below, above=merged_above)
def test_exchange_of_a_merged_directory_and_a_new_file_across_directories(mnt: Path) -> None:
    (mnt / "other" / "f").write_bytes(b"new")
    renameat2(mnt / "m", mnt / "other" / "f", RENAME_EXCHANGE)
    assert (mnt / "m").read_bytes() == b"new"
    assert names(mnt / "other" / "f") == {"below", "above", "sub"}


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=all_kinds)
def test_exchange_with_nothing_is_enoent(mnt: Path) -> None:
    with expect(errno.ENOENT):
        renameat2(mnt / "old-file", mnt / "no", RENAME_EXCHANGE)
    assert (mnt / "old-file").exists()


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=merged_below)
def test_exchange_with_an_own_descendant_is_einval(mnt: Path) -> None:
    with expect(errno.EINVAL):
        renameat2(mnt / "m", mnt / "m" / "sub", RENAME_EXCHANGE)
    with expect(errno.EINVAL):
        renameat2(mnt / "m" / "sub", mnt / "m", RENAME_EXCHANGE)


@pytest.mark.needs("rename_flags")
@pytest.mark.populate(base=all_kinds)
def test_unknown_and_contradicting_flags_are_einval(mnt: Path) -> None:
    for flags in (RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_WHITEOUT | RENAME_EXCHANGE, 1 << 7):
        with expect(errno.EINVAL):
            renameat2(mnt / "old-file", mnt / "new-file", flags)


@pytest.mark.needs("rename_whiteout")
@pytest.mark.needs_root
@pytest.mark.populate(base=all_kinds)
def test_whiteout_flag_moves_the_file(mnt: Path) -> None:
    renameat2(mnt / "old-file", mnt / "free", RENAME_WHITEOUT)
    assert (mnt / "free").read_bytes() == b"old-file"
