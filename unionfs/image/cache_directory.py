"""`CacheDirectory`: a directory for what can be made again, which several processes write to at once.

    ROOT/KIND/NAME      complete
    ROOT/new/           being written; each file locked by its writer, so that what a crash left is known

Files appear by rename. Nothing is taken from a directory that others can write to.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, ClassVar, Final, Protocol

from unionfs.changeset.replacing import fsync_path
from unionfs.errors import LayerError
from unionfs.linux.process import flock_exclusive

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Publish(Protocol):
    def __call__(self, target: bytes, flush: bool = True) -> None: ...


def cache_directory(environ: Mapping[str, str] = os.environ) -> bytes:
    """$UNIONFS_CACHE, else $XDG_CACHE_HOME/unionfs, else ~/.cache/unionfs. Not made here.

    Without platformdirs, which says the same: `unionfs-mount` comes through here, and imports no third party."""
    if explicit := environ.get("UNIONFS_CACHE"):
        return os.path.abspath(os.fsencode(explicit))
    base = environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # XDG base directory specification: a relative one is invalid
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(os.fsencode(base), b"unionfs")


class CacheDirectory:
    """See the module. `root` is made (0700) by what first writes to it."""

    KINDS: ClassVar[tuple[str, ...]] = ("tars", "indexes", "merged", "places", "files", "lazy", "new")

    def __init__(self, root: bytes | str) -> None:
        self.root = os.path.abspath(os.fsencode(root))
        self._checked = False

    def _write_small(self, kind: str, name: str, content: bytes) -> None:
        """What is lost in a crash is found out again."""
        with self._new_file() as (file, publish):
            file.write(content)
            publish(self._path(kind, name), flush=False)

    def _path(self, kind: str, name: str) -> bytes:
        return os.path.join(self.root, kind.encode(), name.encode())

    def _names(self, kind: str) -> list[str]:
        try:
            return os.listdir(os.fsdecode(self._path(kind, "")))
        except FileNotFoundError:
            return []

    def _check_root(self) -> None:
        """LayerError where others can write to the cache. An absent one is empty."""
        if self._checked:
            return
        try:
            st = os.stat(self.root)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & 0o022:
            raise LayerError(
                f"the cache {os.fsdecode(self.root)} is not a directory of this user's own",
                hint="set UNIONFS_CACHE to a directory that only you can write to",
            )
        self._checked = True

    def _make_directories(self) -> None:
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)
            self._check_root()
            for kind in self.KINDS:
                os.makedirs(self._path(kind, ""), 0o700, exist_ok=True)
        except OSError as error:
            raise LayerError(
                f"the cache {os.fsdecode(self.root)} cannot be used: {error.strerror}",
                hint="set UNIONFS_CACHE to a directory that you can write to",
            ) from error

    @contextmanager
    def _new_file(self) -> Iterator[tuple[BinaryIO, Publish]]:
        """An empty file, and a function that gives it its name, flushed unless told otherwise. Without, it goes."""
        self._make_directories()
        self._sweep()
        file: BinaryIO
        while True:
            path = self._path("new", f"{os.getpid()}-{secrets.token_hex(8)}")
            # Not by open(): the umask may be 0, which a mount's daemon sets.
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b", 1 << 16)
            flock_exclusive(file.fileno(), blocking=True)  # who sweeps may be looking at it
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()  # somebody swept it before it was locked

        def publish(target: bytes, flush: bool = True) -> None:
            file.flush()
            if flush:
                os.fsync(file.fileno())
            os.rename(path, target)
            if flush:
                fsync_path(os.path.dirname(target))

        try:
            yield file, publish
        finally:
            unlink(path)
            file.close()

    def _sweep(self) -> None:
        """Remove what writers that are gone have left."""
        for name in self._names("new"):
            path = self._path("new", name)
            try:
                fd = os.open(path, _FLAGS)
            except FileNotFoundError:
                continue
            try:
                flock_exclusive(fd)
                unlink(path)
            except BlockingIOError:
                pass  # its writer lives
            finally:
                os.close(fd)


def unlink(path: bytes) -> None:
    """Idempotent."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
