"""open(O_CREAT) of regular files: content, owner, mode, exclusiveness, names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, expect, ids, mode, names, opened


def lower_file(d: Path) -> None:
    (d / "old").write_bytes(b"lower")


def test_new_file_is_empty_regular_with_one_link(mnt: Path) -> None:
    with opened(mnt / "f", os.O_CREAT | os.O_EXCL | os.O_RDWR):
        st = (mnt / "f").stat()
    assert stat.S_ISREG(st.st_mode)
    assert (st.st_size, st.st_nlink, st.st_blocks) == (0, 1, 0)
    assert names(mnt) == {"f"}


def test_written_data_is_read_back_after_close(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"hello")
    assert (mnt / "f").read_bytes() == b"hello"


@pytest.mark.populate(base=lower_file)
def test_exclusive_create_of_existing_file_is_eexist(mnt: Path) -> None:
    with expect(errno.EEXIST):
        os.open(mnt / "old", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert (mnt / "old").read_bytes() == b"lower"


def test_exclusive_create_over_dangling_symlink_is_eexist(mnt: Path) -> None:
    (mnt / "link").symlink_to("nowhere")
    with expect(errno.EEXIST):
        os.open(mnt / "link", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert names(mnt) == {"link"}


def test_create_through_dangling_symlink_makes_the_target(mnt: Path) -> None:
    (mnt / "link").symlink_to("target")
    (mnt / "link").write_bytes(b"x")
    assert (mnt / "target").read_bytes() == b"x"
    assert (mnt / "link").is_symlink()


@pytest.mark.populate(base=lower_file)
def test_create_over_existing_file_opens_it(mnt: Path) -> None:
    with opened(mnt / "old", os.O_CREAT | os.O_RDWR, 0o600) as fd:
        assert os.read(fd, 10) == b"lower"
    assert mode(mnt / "old") == 0o644


@pytest.mark.populate(base=lower_file)
def test_create_with_truncate_empties_existing_file(mnt: Path) -> None:
    with opened(mnt / "old", os.O_CREAT | os.O_TRUNC | os.O_WRONLY):
        assert (mnt / "old").stat().st_size == 0


@pytest.mark.populate(base=lower_file)
def test_recreate_after_unlink_starts_anew(mnt: Path) -> None:
    os.unlink(mnt / "old")
    with opened(mnt / "old", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640) as fd:
        assert os.read(fd, 10) == b""
    assert mode(mnt / "old") == 0o640
    assert names(mnt) == {"old"}


@pytest.mark.parametrize("bits", [0o000, 0o400, 0o777, 0o1644, 0o4755, 0o2755, 0o6711])
def test_mode_of_new_file_is_as_given(mnt: Path, bits: int) -> None:
    os.close(os.open(mnt / "f", os.O_CREAT | os.O_WRONLY, bits))
    assert mode(mnt / "f") == bits & ~0o022


def test_file_created_without_permissions_can_be_written_by_its_creator(mnt: Path) -> None:
    with opened(mnt / "f", os.O_CREAT | os.O_WRONLY, 0o000) as fd:
        assert os.write(fd, b"secret") == 6
    assert (mnt / "f").stat().st_size == 6


@pytest.mark.needs_root
def test_new_file_belongs_to_the_caller(mnt: Path) -> None:
    mnt.chmod(0o777)
    as_user(lambda: (mnt / "f").write_bytes(b"x"), 1234, 4321)
    assert ids(mnt / "f") == (1234, 4321)


@pytest.mark.needs_root
def test_readonly_file_created_by_user_can_be_written_through_its_descriptor(mnt: Path) -> None:
    mnt.chmod(0o777)

    def create() -> None:
        with opened(mnt / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444) as fd:
            os.write(fd, b"data")

    as_user(create)
    assert (mnt / "f").read_bytes() == b"data"
    assert ids(mnt / "f") == (NOBODY, NOBODY)


def test_create_in_missing_directory_is_enoent(mnt: Path) -> None:
    with expect(errno.ENOENT):
        os.open(mnt / "no" / "f", os.O_CREAT | os.O_WRONLY)


@pytest.mark.populate(base=lower_file)
def test_create_below_a_file_is_enotdir(mnt: Path) -> None:
    with expect(errno.ENOTDIR):
        os.open(mnt / "old" / "f", os.O_CREAT | os.O_WRONLY)


def test_name_of_255_bytes_works_and_256_is_enametoolong(mnt: Path) -> None:
    (mnt / ("n" * 255)).write_bytes(b"x")
    assert names(mnt) == {"n" * 255}
    with expect(errno.ENAMETOOLONG):
        os.open(mnt / ("n" * 256), os.O_CREAT | os.O_WRONLY)
    with expect(errno.ENAMETOOLONG):
        os.stat(mnt / ("n" * 256))


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"\x01", b"caf\xe9", "日本".encode(), b" ", b"a:b,c\\d"])
def test_names_are_bytes(mnt: Path, name: bytes) -> None:
    path = os.fsencode(mnt) + b"/" + name
    with opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) as fd:
        os.write(fd, name)
    assert os.listdir(os.fsencode(mnt)) == [name]
    assert os.lstat(path).st_size == len(name)
    os.unlink(path)
    assert os.listdir(os.fsencode(mnt)) == []
