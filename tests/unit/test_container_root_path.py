"""Paths in a container's root: wherever its links lead, it is in the root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.containers.root_path import make_directory, resolve


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("s")
    return path


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "srv/www").mkdir(parents=True)
    (root / "srv/www/index.html").write_text("hello")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    (root / "abs").symlink_to("/srv")
    (root / "srv/rel").symlink_to("../abs/www")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("/run/made")
    return root


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "expected", "there"),
    [
        (b"/", b"/", True),
        (b"", b"/", True),
        (b"/..", b"/", True),
        (b"srv/www/index.html", b"/srv/www/index.html", True),
        (b"/abs/www/../www/./index.html", b"/srv/www/index.html", True),
        (b"/srv/rel/index.html", b"/srv/www/index.html", True),
        (b"/srv/rel", b"/srv/www", True),
        (b"/srv/rel/", b"/srv/www", True),
        (b"/srv/rel/.", b"/srv/www", True),
        (b"/../../srv/new", b"/srv/new", False),
        (b"/abs/new", b"/srv/new", False),
        (b"/abs/..", b"/", True),  # of what the link leads to
    ],
)
def test_path(root_fd: int, path: bytes, expected: bytes, there: bool) -> None:
    with resolve(root_fd, path) as place:
        assert (place.path, place.mode is not None) == (expected, there)
        if there:
            assert os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False).st_mode == place.mode


def test_last_link_itself(root_fd: int) -> None:
    with resolve(root_fd, b"/abs/rel", follow=False) as place:
        assert place.path == b"/srv/rel" and place.mode is not None and stat.S_ISLNK(place.mode)
    with resolve(root_fd, b"/loop", follow=False) as place:
        assert place.path == b"/loop"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"/out/secret", errno.ENOENT),  # the host's directory is not there in the root
        (b"/up/secret", errno.ENOENT),
        (b"/srv/www/index.html/x", errno.ENOTDIR),
        (b"/srv/www/index.html/", errno.ENOTDIR),
        (b"/nothing/x", errno.ENOENT),
        (b"/loop", errno.ELOOP),
        (b"/loop/x", errno.ELOOP),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_path_that_leads_nowhere(root_fd: int, path: bytes, code: int) -> None:
    with pytest.raises(OSError) as caught, resolve(root_fd, path):
        pass
    assert caught.value.errno == code


def test_path_through_links_does_not_reach_the_host(root_fd: int, outside: Path) -> None:
    """Where the host's own path exists in the root as well, it is the root's."""
    inside = os.fsencode(outside)
    with make_directory(root_fd, inside):
        pass
    with resolve(root_fd, b"/out/secret") as place:
        assert place.path == inside + b"/secret" and place.mode is None


def test_directory_is_made_with_those_above(root: Path, root_fd: int) -> None:
    previous = os.umask(0o077)
    try:
        with make_directory(root_fd, b"/a/b/../c") as fd:
            os.mkdir(b"d", dir_fd=fd)
    finally:
        os.umask(previous)
    assert (root / "a/b").is_dir() and (root / "a/c/d").is_dir()
    assert stat.S_IMODE((root / "a/c").stat().st_mode) == 0o755


def test_directory_behind_links(root: Path, outside: Path, root_fd: int) -> None:
    with make_directory(root_fd, b"/abs/rel/css"):
        pass
    assert (root / "srv/www/css").is_dir()
    with make_directory(root_fd, b"/dangling/x"):
        pass
    assert (root / "run/made/x").is_dir()
    with make_directory(root_fd, b"/up/x"):
        pass
    assert (root / "outside/x").is_dir() and sorted(os.listdir(outside)) == ["secret"]
    with make_directory(root_fd, b"/") as fd:
        assert os.fstat(fd).st_ino == root.stat().st_ino


@pytest.mark.parametrize("path", [b"/srv/www/index.html", b"/srv/www/index.html/x"])
def test_directory_where_a_file_is(root_fd: int, path: bytes) -> None:
    with pytest.raises(NotADirectoryError), make_directory(root_fd, path):
        pass


def test_directory_behind_a_loop(root_fd: int) -> None:
    with pytest.raises(OSError) as caught, make_directory(root_fd, b"/loop/x"):
        pass
    assert caught.value.errno == errno.ELOOP
