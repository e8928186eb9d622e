"""Who a container runs as: `USER` of an image and `-u`, by the root's own `etc/passwd` and `etc/group`.

    NAME | UID [:GROUP | :GID]

The rules are those of docker and the runtimes (opencontainers/runc libcontainer/user, GetExecUser): what is a number is
an ID, whether the files know it or not; a name must be in them. A user that the files know has the home of his entry,
and, unless a group was given, its group and those that name him as a member.

The files are the image's, so not to be trusted: they are read in the root, whatever links they are, a line that makes
no sense is none, and no more than MAX_FILE bytes are looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from unionfs.errors import ContainerError
from unionfs.linux.path import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

MAX_FILE: Final = 8 << 20
#: runc libcontainer/user, minID and maxID.
MAX_ID: Final = (1 << 31) - 1
_NUMBER: Final = frozenset("0123456789")


class User(NamedTuple):
    """`groups`: the supplementary ones, the user's own first (CVE-2022-36109: it must not be left out)."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def find_user(root_fd: int, wanted: str) -> User:
    """The user `wanted` ("" is the root user) of the tree below `root_fd`. ContainerError where there is none."""
    user, _, group = wanted.partition(":")
    account = _find_account(root_fd, user)
    members = account.name if account.name else None
    uid, gid, home = account.uid, account.gid, account.home
    if group:
        gid = _find_group(root_fd, group)
        others: list[int] = []
    else:
        others = [entry.gid for entry in _groups(root_fd) if members is not None and members in entry.members]
    return User(uid, gid, tuple(dict.fromkeys((gid, *others))), home)


def _find_account(root_fd: int, user: str) -> _Account:
    number = _identity(user) if user else 0
    for account in _accounts(root_fd):
        if account.uid == number if number is not None else account.name == user:
            return account
    if number is None:
        raise ContainerError(
            f"unable to find user {user}: no matching entries in passwd file",
            hint="give a user of the image, or a UID",
        )
    return _Account("", number, 0, "/")


def _find_group(root_fd: int, group: str) -> int:
    number = _identity(group)
    if number is not None:
        return number
    for entry in _groups(root_fd):
        if entry.name == group:
            return entry.gid
    raise ContainerError(
        f"unable to find group {group}: no matching entries in group file",
        hint="give a group of the image, or a GID",
    )


def _identity(text: str) -> int | None:
    """The number that `text` is; None for a name."""
    if not text or not _NUMBER.issuperset(text):
        return None
    # No more digits than can matter are made into a number: that would take a while for a long text.
    number = int(text) if len(text) <= 20 else MAX_ID + 1
    if number > MAX_ID:
        raise ContainerError(f"{text[:40]}: uids and gids must be in range 0-{MAX_ID}")
    return number


def _accounts(root_fd: int) -> Iterator[_Account]:
    for fields in _lines(root_fd, b"etc/passwd"):
        if len(fields) >= 6 and (ids := _numbers(fields[2], fields[3])):
            yield _Account(fields[0], ids[0], ids[1], fields[5] or "/")


def _groups(root_fd: int) -> Iterator[_Group]:
    for fields in _lines(root_fd, b"etc/group"):
        if len(fields) >= 4 and (ids := _numbers(fields[2])):
            yield _Group(fields[0], ids[0], tuple(fields[3].split(",")))


def _numbers(*texts: str) -> tuple[int, ...]:
    """All of them as IDs, or none."""
    if any(not text or len(text) > 10 or not _NUMBER.issuperset(text) or int(text) > MAX_ID for text in texts):
        return ()
    return tuple(map(int, texts))


def _lines(root_fd: int, path: bytes) -> Iterator[list[str]]:
    try:
        # O_NONBLOCK: one may be a fifo.
        fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return  # not there, or leads nowhere: an image need not have any
    with open(fd, "rb") as file:
        data = file.read(MAX_FILE) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    for line in data.split(b"\n"):
        text = os.fsdecode(line.strip())
        if text and not text.startswith("#"):
            yield text.split(":")
