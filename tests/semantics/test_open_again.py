"""A small file that was read before is opened without its file being opened; what else happens to it must not show.

The kernel is made to ask for the data again by dropping the file's pages (POSIX_FADV_DONTNEED)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BEFORE, AFTER = b"before " * 100, b"after " * 200


def _base(base: Path) -> None:
    (base / "lower").write_bytes(BEFORE)
    (base / "other").write_bytes(AFTER)


pytestmark = [pytest.mark.populate(base=_base), pytest.mark.parametrize("name", ["lower", "upper"])]


@pytest.fixture
def file(mnt: Path, name: str) -> Path:
    """A file whose data the kernel has, closed."""
    path = mnt / name
    if name == "upper":
        path.write_bytes(BEFORE)
    for _ in range(3):
        assert path.read_bytes() == BEFORE
    return path


def _drop_and_read(fd: int) -> bytes:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, 1 << 16, 0)


def test_data_that_the_kernel_dropped_comes_back(file: Path) -> None:
    with open(file, "rb") as f:
        assert _drop_and_read(f.fileno()) == BEFORE
    assert file.read_bytes() == BEFORE


def test_file_unlinked_before_its_first_read(file: Path) -> None:
    with open(file, "rb") as f:
        file.unlink()
        assert _drop_and_read(f.fileno()) == BEFORE
        assert os.fstat(f.fileno()).st_size == len(BEFORE)


def test_file_replaced_before_its_first_read(file: Path) -> None:
    with open(file, "rb") as f:
        os.rename(file.with_name("other"), file)
        assert _drop_and_read(f.fileno()) == BEFORE
    assert file.read_bytes() == AFTER


def test_file_renamed_before_its_first_read(file: Path) -> None:
    with open(file, "rb") as f:
        os.rename(file, file.with_name("moved"))
        assert _drop_and_read(f.fileno()) == BEFORE


def test_file_written_before_its_first_read(file: Path) -> None:
    with open(file, "rb") as f:
        with open(file, "r+b") as writer:
            writer.write(AFTER)
        assert _drop_and_read(f.fileno()) == AFTER
        assert os.pread(f.fileno(), 1 << 16, 0) == AFTER
    assert file.read_bytes() == AFTER


def test_file_written_and_read_in_turns(file: Path) -> None:
    for size in (10, 5000, 1, 70_000, 4096, 200_000, 3):
        file.write_bytes(b"x" * size)
        assert file.read_bytes() == b"x" * size and file.read_bytes() == b"x" * size
        with open(file, "ab") as f:
            f.write(b"more")
        assert file.read_bytes() == b"x" * size + b"more"
        os.truncate(file, size // 2)
        assert file.read_bytes() == b"x" * (size // 2) == file.read_bytes()


def test_file_that_is_mapped_while_it_is_opened_again(file: Path) -> None:
    import mmap

    with open(file, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as shared:
        with open(file, "r+b") as writer:
            writer.write(AFTER[: len(BEFORE)])
        assert file.read_bytes() == AFTER[: len(BEFORE)]
        assert shared[:] in (BEFORE, AFTER[: len(BEFORE)])
