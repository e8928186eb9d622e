"""USER and -u, by a root's own passwd and group, which may hold anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.containers.users import MAX_FILE, User, find_user
from unionfs.errors import ContainerError

PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:100:An App:/srv/app:/bin/false

redis:x:101:101::/var/lib/redis
homeless:x:102:102:::
123:x:900:900::/numeric:
half:x:7
bad:x:seven:7::/bad:
big:x:4294967296:7::/big:
"""
GROUP = """\
root:x:0:
users:x:100:
audio:x:29:app,redis
video:x:44:app
redis:x:101:
nonsense
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("app", User(1000, 100, (100, 29, 44), "/srv/app")),
        ("1000", User(1000, 100, (100, 29, 44), "/srv/app")),  # of a known ID all that is known
        ("app:redis", User(1000, 101, (101,), "/srv/app")),  # a group that is given is the only one
        ("app:4242", User(1000, 4242, (4242,), "/srv/app")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:29", User(4242, 29, (29,), "/")),
        ("redis", User(101, 101, (101, 29), "/var/lib/redis")),
        ("homeless", User(102, 102, (102,), "/")),
        ("123", User(123, 0, (0,), "/")),  # a number is an ID, not the name of user 900
        (":audio", User(0, 29, (29,), "/root")),
    ],
)
def test_user(root_fd: int, wanted: str, expected: User) -> None:
    assert find_user(root_fd, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("app:wheel", "unable to find group wheel: no matching entries in group file"),
        ("half", "unable to find user half"),
        ("bad", "unable to find user bad"),
        ("big", "unable to find user big"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("0:" + "9" * 5000, "uids and gids must be in range"),
        ("-1", "unable to find user -1"),
        ("۱", "unable to find user"),
    ],
)
def test_user_that_is_none(root_fd: int, wanted: str, complaint: str) -> None:
    with pytest.raises(ContainerError, match=complaint):
        find_user(root_fd, wanted)


def test_image_without_accounts(root: Path, root_fd: int) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/group").unlink()
    assert find_user(root_fd, "") == User(0, 0, (0,), "/")
    assert find_user(root_fd, "5:6") == User(5, 6, (6,), "/")
    with pytest.raises(ContainerError):
        find_user(root_fd, "root")


def test_accounts_behind_links_are_those_of_the_root(root: Path, root_fd: int) -> None:
    """An absolute link, and one that climbs, lead to the root's own file, never to the host's."""
    (root / "accounts").write_text("inside:x:77:77::/inside:\n")
    for target in ("/accounts", "../../../../accounts"):
        (root / "etc/passwd").unlink()
        (root / "etc/passwd").symlink_to(target)
        assert find_user(root_fd, "inside").uid == 77
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/etc/passwd")  # itself
    with pytest.raises(ContainerError):
        find_user(root_fd, "root")


def test_accounts_that_are_no_files(root: Path, root_fd: int) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")  # nobody writes to it
    (root / "etc/group").unlink()
    (root / "etc/group").mkdir()
    assert find_user(root_fd, "1:2") == User(1, 2, (2,), "/")


def test_accounts_that_never_end(root: Path, root_fd: int) -> None:
    with open(root / "etc/passwd", "wb") as file:
        file.truncate(10 * MAX_FILE)
        file.seek(2 * MAX_FILE)
        file.write(b"\nlate:x:5:5::/:\n")
    with pytest.raises(ContainerError):
        find_user(root_fd, "late")
