"""Long names and long paths: 255 bytes and 4,095 bytes work, whatever stands before them in the layers' own paths."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.posix.tools import expect, names, opened
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]

LONG = "n" * 255
#: Three-byte characters: 85 of them are 255 bytes. What counts is bytes.
WIDE = "\u20ac" * 85
#: Of the deepest tree: 25 levels of 200 bytes are more than PATH_MAX.
DEPTH = 25


def long_names(d: Path) -> None:
    for name in (LONG, WIDE):
        (d / name).write_bytes(b"old")
    (d / ("d" * 255)).mkdir()
    (d / ("d" * 255) / ("f" * 255)).write_bytes(b"old")


@pytest.mark.populate(base=long_names)
@pytest.mark.parametrize("name", [LONG, WIDE], ids=["ascii", "wide"])
def test_name_of_255_bytes_is_changed_deleted_and_made_again(mnt: Path, name: str) -> None:
    with open(mnt / name, "ab") as f:
        f.write(b" new")
    assert (mnt / name).read_bytes() == b"old new"
    os.unlink(mnt / name)
    with expect(errno.ENOENT):
        os.stat(mnt / name)
    (mnt / name).mkdir()
    os.rename(mnt / name, mnt / ("r" * 255))
    assert names(mnt) == {LONG, WIDE, "d" * 255, "r" * 255} - {name}


@pytest.mark.populate(base=long_names)
def test_deletion_of_a_directory_with_names_of_255_bytes(mnt: Path) -> None:
    os.unlink(mnt / ("d" * 255) / ("f" * 255))
    os.rename(mnt / ("d" * 255), mnt / ("e" * 255))
    assert os.listdir(mnt / ("e" * 255)) == []
    os.rmdir(mnt / ("e" * 255))
    assert names(mnt) == {LONG, WIDE}


CALLS: dict[str, Callable[[Path], object]] = {
    "stat": os.lstat,
    "open": lambda p: os.open(p, os.O_RDONLY),
    "create": lambda p: os.open(p, os.O_CREAT | os.O_WRONLY),
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "mknod": lambda p: os.mknod(p, stat.S_IFIFO),
    "symlink": lambda p: os.symlink("x", p),
    "readlink": os.readlink,
    "chmod": lambda p: os.chmod(p, 0o600),
    "truncate": lambda p: os.truncate(p, 0),
    "listxattr": os.listxattr,
    "link-to": lambda p: os.link(p.parent / "there", p),
    "link-from": lambda p: os.link(p, p.parent / "new"),
    "rename-to": lambda p: os.rename(p.parent / "there", p),
    "rename-from": lambda p: os.rename(p, p.parent / "new"),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_name_of_256_bytes_is_enametoolong(mnt: Path, call: str) -> None:
    (mnt / "there").write_bytes(b"")
    with expect(errno.ENAMETOOLONG):
        CALLS[call](mnt / ("n" * 256))
    assert names(mnt) == {"there"}


@contextmanager
def level(top: Path, depth: int) -> Iterator[int]:
    """A descriptor of the directory `depth` levels of 200 bytes below `top`: its path may exceed PATH_MAX."""
    here = os.open(top, os.O_RDONLY)
    try:
        for _ in range(depth):
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


@contextmanager
def opened_at(name: str, flags: int, directory: int) -> Iterator[int]:
    fd = os.open(name, flags, 0o644, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def make_levels(d: Path, depth: int) -> None:
    for i in range(depth):
        with level(d, i) as here:
            os.mkdir("d" * 200, dir_fd=here)


def last_level(mnt: Path) -> tuple[int, int]:
    """How many levels, and then how long a name, make a path of 4,095 bytes: PATH_MAX without its zero byte."""
    depth, left = divmod(4095 - len(os.fsencode(mnt)) - 2, 201)
    return depth, left + 1


def the_longest_path(d: Path) -> None:
    # tests/rigs.py: the mount lies beside its layers. In the layer itself the same path is longer than PATH_MAX.
    depth, length = last_level(d.parents[1] / "mnt" / d.name)
    make_levels(d, depth)
    with level(d, depth) as here, opened_at("f" * length, os.O_CREAT | os.O_WRONLY, here) as fd:
        os.write(fd, b"far")


@pytest.mark.populate(base=the_longest_path)
def test_path_of_4095_bytes_in_a_lower_layer_is_copied_up(mnt: Path) -> None:
    depth, length = last_level(mnt)
    path = os.fsencode(mnt) + (b"/" + b"d" * 200) * depth + b"/" + b"f" * length
    assert len(path) == 4095
    with opened(path, os.O_RDWR | os.O_APPEND) as fd:
        os.write(fd, b" away")
    os.chmod(path, 0o600)
    os.setxattr(path, "user.x", b"1")
    other = path[:-1] + b"g"
    os.rename(path, other)
    assert os.getxattr(other, "user.x") == b"1"
    with open(other, "rb") as f:
        assert f.read() == b"far away"
    with expect(errno.ENAMETOOLONG):
        os.stat(other + b"g")
    os.unlink(other)
    assert os.listdir(os.path.dirname(path)) == []


def deep(d: Path) -> None:
    make_levels(d, DEPTH)
    with level(d, DEPTH) as here:
        for length in (1, 100, 255):
            with opened_at("f" * length, os.O_CREAT | os.O_WRONLY, here) as fd:
                os.write(fd, b"deep")


def test_deep_lower_files_are_changed_and_renamed_with_their_ancestors(union: Union) -> None:
    deep(union.lower())
    mnt = union.mount()
    with level(mnt, DEPTH) as here:
        with opened_at("f" * 255, os.O_WRONLY | os.O_APPEND, here) as fd:
            os.write(fd, b" water")
        os.unlink("f", dir_fd=here)
        os.rename("f" * 100, "g" * 255, src_dir_fd=here, dst_dir_fd=here)
    os.rename(mnt / ("d" * 200), mnt / ("e" * 255))
    union.remount()
    with level(mnt / ("e" * 255), DEPTH - 1) as here:
        assert sorted(os.listdir(here)) == ["f" * 255, "g" * 255]
        for name, data in (("f" * 255, b"deep water"), ("g" * 255, b"deep")):
            with opened_at(name, os.O_RDONLY, here) as fd:
                assert os.read(fd, 100) == data
