"""Paths in a container's root, resolved as the container would itself: a link is followed in the root, whatever it is.

    with resolve(root_fd, b"/var/run/x") as place:        the directory that holds it, and its name there
    with make_directory(root_fd, b"/srv/www") as fd:      mkdir -p

A path is relative to the root, absolute or not; `..` at the root stays there (chroot(2)). Every step is opened beneath
the root without following anything, so who changes links meanwhile leads nobody out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from unionfs.linux.path import fchmodat_nofollow, openat2

#: MAXSYMLINKS, include/linux/namei.h
MAX_LINKS: Final = 40
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY
_ITSELF: Final = os.O_PATH | os.O_NOFOLLOW


class Place(NamedTuple):
    """Where a path leads: `name` in the directory `parent_fd`, b"." for the root. `path`: from the root, without links.

    `mode`: st_mode of what is there, None where nothing is."""

    parent_fd: int
    name: bytes
    path: bytes
    mode: int | None

    @property
    def is_directory(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)


@contextmanager
def resolve(root_fd: int, path: bytes, *, follow: bool = True) -> Iterator[Place]:
    """Where `path` leads. `follow`: what the last component names is followed too, if it is a link.

    All but the last component must be there: ENOENT, ENOTDIR, and ELOOP for links without end.
    """
    walk = _Walk(root_fd, path, make=False)
    here = walk.run(follow or path.endswith((b"/", b"/.")))
    mode = walk.mode(here)
    if path.endswith((b"/", b"/.")) and mode is not None and not stat.S_ISDIR(mode):
        raise _error(errno.ENOTDIR, path)
    parent_fd = openat2(root_fd, b"/".join(here[:-1]) or b".", _DIRECTORY)
    try:
        yield Place(parent_fd, here[-1] if here else b".", b"/" + b"/".join(here), mode)
    finally:
        os.close(parent_fd)


@contextmanager
def make_directory(root_fd: int, path: bytes, mode: int = 0o755) -> Iterator[int]:
    """The directory `path` as an O_PATH descriptor, made with those above it where they are missing; a link to what is
    missing has that made, as docker does. NotADirectoryError where something else is in the way."""
    here = _Walk(root_fd, path, make=True, new_mode=mode).run(True)
    fd = openat2(root_fd, b"/".join(here) or b".", _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


class _Walk:
    """One path, component by component. `make`: directories that are missing are made."""

    def __init__(self, root_fd: int, path: bytes, *, make: bool, new_mode: int = 0o755) -> None:
        self._root_fd, self._path, self._make, self._new_mode = root_fd, path, make, new_mode
        self._todo = _parts(path)[::-1]

    def run(self, follow_last: bool) -> list[bytes]:
        """The components from the root, none of them a link (but a last one that is not followed)."""
        here: list[bytes] = []
        links = 0
        while self._todo:
            name = self._todo.pop()
            if name == b"..":
                del here[-1:]
                continue
            here.append(name)
            mode = self.mode(here)
            last = not self._todo
            if mode is not None and stat.S_ISLNK(mode) and (not last or follow_last):
                links += 1
                if links > MAX_LINKS:
                    raise _error(errno.ELOOP, self._path)
                here = self._follow(here)
            elif mode is None and self._make:
                self._mkdir(here)
            elif not last or self._make:
                self._check_directory(mode)
        return here

    def mode(self, here: list[bytes]) -> int | None:
        try:
            fd = openat2(self._root_fd, b"/".join(here) or b".", _ITSELF)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _error(error.errno or errno.EIO, self._path) from None
        try:
            return os.fstat(fd).st_mode
        finally:
            os.close(fd)

    def _check_directory(self, mode: int | None) -> None:
        if mode is None:
            raise _error(errno.ENOENT, self._path)
        if not stat.S_ISDIR(mode):
            raise _error(errno.ENOTDIR, self._path)

    def _follow(self, here: list[bytes]) -> list[bytes]:
        fd = openat2(self._root_fd, b"/".join(here), _ITSELF)
        try:
            target = os.readlink(b"", dir_fd=fd)
        except OSError as error:
            raise _error(error.errno or errno.EIO, self._path) from None
        finally:
            os.close(fd)
        self._todo += _parts(target)[::-1]
        return [] if target.startswith(b"/") else here[:-1]

    def _mkdir(self, here: list[bytes]) -> None:
        fd = openat2(self._root_fd, b"/".join(here[:-1]) or b".", _DIRECTORY)
        try:
            os.mkdir(here[-1], self._new_mode, dir_fd=fd)
            fchmodat_nofollow(fd, here[-1], self._new_mode)  # whatever the caller's umask
        except FileExistsError:
            pass  # somebody was faster
        finally:
            os.close(fd)


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _error(code: int, path: bytes) -> OSError:
    return OSError(code, os.strerror(code), os.fsdecode(path))
