"""`cp` with `-`: what is below a directory as a tar on a stream, and a tar from a stream put below one.

As docker's: names begin with that of what was copied, or with `./` for a directory's contents; owners, modes and times
of modification are the container's. A tar may be compressed, and comes from the caller himself; where its members go is
resolved in the root all the same, so that no link of the container leads out of it.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import BinaryIO, Final

from unionfs.containers.copying import create, make_directory_in, make_room, set_metadata
from unionfs.containers.root_path import make_directory, resolve
from unionfs.errors import ContainerError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES: Final = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class TarOut:
    """Members being added to a tar that is open for writing."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._links: dict[tuple[int, int], str] = {}

    def add(self, source_fd: int, name: bytes, member: str) -> None:
        """`name` of the directory `source_fd`, as `member`, with all below it."""
        info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISSOCK(info.st_mode):
            return
        entry = self._entry(info, member)
        if stat.S_ISLNK(info.st_mode):
            entry.linkname = os.fsdecode(os.readlink(name, dir_fd=source_fd))
        if stat.S_ISREG(info.st_mode) and entry.type == tarfile.REGTYPE:
            self._file(source_fd, name, entry)
            return
        self._tar.addfile(entry)
        if stat.S_ISDIR(info.st_mode):
            inside = os.open(name, _DIRECTORY, dir_fd=source_fd)
            try:
                for child in sorted(os.listdir(inside)):
                    self.add(inside, os.fsencode(child), f"{member}/{child}")
            finally:
                os.close(inside)

    def _entry(self, info: os.stat_result, member: str) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(member)
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        entry.mtime = info.st_mtime
        entry.type = _TYPES.get(stat.S_IFMT(info.st_mode), tarfile.REGTYPE)
        if entry.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
        elif entry.type == tarfile.REGTYPE and info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), member)
            if first != member:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
        return entry

    def _file(self, source_fd: int, name: bytes, entry: tarfile.TarInfo) -> None:
        with open(os.open(name, _READ, dir_fd=source_fd), "rb") as file:
            # By what is open: it may have grown since it was looked at.
            entry.size = os.fstat(file.fileno()).st_size
            self._tar.addfile(entry, file)


def extract(stream: BinaryIO, root_fd: int, directory: bytes, owner: tuple[int, int] | None) -> None:
    """Put a tar below `directory` of a root. `owner` as in `Copy`. ContainerError for what is no tar."""
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for entry in tar:
                _extract_one(tar, entry, root_fd, directory, owner)
    except tarfile.TarError as error:
        raise ContainerError(f"standard input is no tar: {error}") from None


def _extract_one(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, root_fd: int, directory: bytes, owner: tuple[int, int] | None
) -> None:
    name = _below(entry.name)
    if not name:
        return  # the directory itself
    parent, _, last = name.rpartition(b"/")
    with make_directory(root_fd, directory + b"/" + parent) as parent_fd:
        if entry.isdir():
            make_directory_in(parent_fd, last, name)
        else:
            make_room(parent_fd, last, name)
            _make(tar, entry, root_fd, directory, parent_fd, last)
        if not entry.islnk():
            kept = (entry.uid, entry.gid) if owner is None else owner
            kind = stat.S_IFLNK if entry.issym() else 0
            set_metadata(parent_fd, last, kind | stat.S_IMODE(entry.mode), kept, int(entry.mtime * 10**9))


def _make(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, root_fd: int, directory: bytes, parent_fd: int, name: bytes
) -> None:
    if entry.issym():
        os.symlink(os.fsencode(entry.linkname), name, dir_fd=parent_fd)
    elif entry.islnk():
        with resolve(root_fd, directory + b"/" + _below(entry.linkname), follow=False) as place:
            os.link(place.name, name, src_dir_fd=place.parent_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
    elif entry.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent_fd)
    elif entry.isdev():
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent_fd)
    else:
        source = tar.extractfile(entry)
        with create(parent_fd, name) as file:
            while source is not None and (piece := source.read(1 << 20)):
                file.write(piece)


def _below(name: str) -> bytes:
    """A member's name without what leads out of where it goes."""
    return b"/".join(part for part in os.fsencode(name).split(b"/") if part not in (b"", b".", b".."))
