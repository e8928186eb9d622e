"""`UnmaskedDirectory`: a `WritableDirectory` in a process whose umask is not 0 and not ours to change, since it is the
property of a whole process that is somebody else's program.

What the umask has taken from a mode is given back in a second call, so between the two the object has fewer permissions
than it is to have, never more. Where the parent's default ACL decided (acl(5)), the umask took nothing.
"""

from __future__ import annotations

import os
import stat

from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import Path
from unionfs.layers.upper import WritableDirectory
from unionfs.linux import path as linux_path


class UnmaskedDirectory(WritableDirectory):
    """`umask`: the process's, as long as this is used."""

    def __init__(self, path: bytes | str, umask: int) -> None:
        super().__init__(path)
        self._umask = umask

    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> FdFile:
        file = super().create(path, mode, flags)
        self._give_back_to(file, mode)
        return file

    def tmpfile(self, path: Path, mode: int) -> FdFile:
        file = super().tmpfile(path, mode)
        self._give_back_to(file, mode)
        return file

    def mkdir(self, path: Path, mode: int) -> None:
        super().mkdir(path, mode)
        self._give_back(path, mode)

    def mknod(self, path: Path, mode: int, rdev: int) -> None:
        super().mknod(path, mode, rdev)
        self._give_back(path, mode)

    def _give_back_to(self, file: FdFile, mode: int) -> None:
        if self._took(file.fstat(), mode):
            file.chmod(stat.S_IMODE(mode))

    def _give_back(self, path: Path, mode: int) -> None:
        if self._took(self.lstat(path), mode):
            dir_fd, name = self._at(path)
            linux_path.fchmodat_nofollow(dir_fd, name, stat.S_IMODE(mode))

    def _took(self, st: os.stat_result, mode: int) -> bool:
        return bool(mode & self._umask) and st.st_mode & 0o777 == mode & 0o777 & ~self._umask
