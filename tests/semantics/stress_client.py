"""`python -m tests.semantics.stress_client ROOT SEED ME COUNT`: one of several processes in the same few directories.

Does COUNT random operations, then writes one line of JSON: {"unexpected": [[operation, errno, detail], …], "done":
{operation: successes}}. An errno is unexpected unless another client could have brought it about. The file
`mine-SEED-ME` in each of the stable directories is this client's alone: it is checked after each of its own appends
and at the end.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable

#: Directories that always are there. What is in them comes and goes.
DIRECTORIES = ("lower", "merged", "merged/deep", "new")
NAMES = tuple("abcdefgh")
AT_FDCWD, AT_SYMLINK_FOLLOW, RENAME_EXCHANGE = -100, 0x400, 2

_libc = ctypes.CDLL(None, use_errno=True)

#: The path led through something that another client has removed or replaced.
_PATH = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NEW = _PATH | {errno.EEXIST}
EXPECTED = {
    "create": _PATH | {errno.EISDIR},
    "exclusive": _NEW,
    "truncate_open": _PATH | {errno.EISDIR},
    "write": _PATH | {errno.EISDIR},
    "append": _PATH | {errno.EISDIR},
    "read": _PATH | {errno.EISDIR},
    "rename": _PATH | {errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL},
    "exchange": _PATH | {errno.EINVAL},
    "link": _NEW | {errno.EPERM},
    "unlink": _PATH | {errno.EISDIR},
    "mkdir": _NEW,
    "rmdir": _PATH | {errno.ENOTEMPTY},
    "symlink": _NEW,
    "chmod": _PATH,
    "chown": _PATH,
    "truncate": _PATH | {errno.EISDIR},
    "utime": _PATH,
    "setxattr": _PATH,
    "getxattr": _PATH | {errno.ENODATA},
    "removexattr": _PATH | {errno.ENODATA},
    "readdir": _PATH,
    "walk": _PATH,
    "tmpfile": _NEW,
    "fsync": _PATH | {errno.EISDIR},
    "mine": set(),
}


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Client:
    def __init__(self, root: str, seed: int, me: int) -> None:
        self._random = random.Random(seed * 100 + me)
        self._root = root
        self._me = me
        self._name = f"mine-{seed}-{me}"
        self._mine = dict.fromkeys(DIRECTORIES, b"")
        self.wrong: list[str] = []

    # choices ------------------------------------------------------------------------------------------------------
    def place(self) -> str:
        """A path: a name in a stable directory, or in a directory of such a name."""
        path = f"{self._root}/{self._random.choice(DIRECTORIES)}/{self._random.choice(NAMES)}"
        return f"{path}/{self._random.choice(NAMES)}" if self._random.random() < 0.2 else path

    def data(self) -> bytes:
        return bytes([65 + self._me]) * self._random.choice((1, 1, 100, 100, 5000, 5000, 200_000, 2_000_000))

    def _with(self, flags: int, act: Callable[[int], object], mode: int = 0o644) -> None:
        fd = os.open(self.place(), flags, mode)
        try:
            act(fd)
        finally:
            os.close(fd)

    # operations ---------------------------------------------------------------------------------------------------
    def create(self) -> None:
        self._with(os.O_CREAT | os.O_WRONLY, lambda fd: os.write(fd, self.data()))

    def exclusive(self) -> None:
        self._with(os.O_CREAT | os.O_EXCL | os.O_RDWR, lambda fd: os.write(fd, self.data()))

    def truncate_open(self) -> None:
        self._with(os.O_TRUNC | os.O_RDWR, lambda fd: os.write(fd, self.data()))

    def write(self) -> None:
        self._with(os.O_RDWR, lambda fd: os.pwrite(fd, self.data(), self._random.randrange(10_000)))

    def append(self) -> None:
        self._with(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, self.data()[:5000]))

    def read(self) -> None:
        self._with(os.O_RDONLY, lambda fd: os.pread(fd, 300_000, 0))

    def rename(self) -> None:
        os.rename(self.place(), self.place())

    def exchange(self) -> None:
        old, new = os.fsencode(self.place()), os.fsencode(self.place())
        _checked(_libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_EXCHANGE))

    def link(self) -> None:
        os.link(self.place(), self.place(), follow_symlinks=False)

    def unlink(self) -> None:
        os.unlink(self.place())

    def mkdir(self) -> None:
        os.mkdir(self.place(), 0o755)

    def rmdir(self) -> None:
        os.rmdir(self.place())

    def symlink(self) -> None:
        os.symlink(self._random.choice(NAMES), self.place())

    def chmod(self) -> None:
        os.chmod(self.place(), self._random.choice((0o644, 0o755, 0o700)))

    def chown(self) -> None:
        os.chown(self.place(), self._random.randrange(3), self._random.randrange(3), follow_symlinks=False)

    def truncate(self) -> None:
        os.truncate(self.place(), self._random.choice((0, 10, 150_000)))

    def utime(self) -> None:
        when = self._random.randrange(10**18)
        os.utime(self.place(), ns=(when, when), follow_symlinks=False)

    def setxattr(self) -> None:
        os.setxattr(self.place(), f"user.{self._random.choice(NAMES)}", b"v" * self._random.choice((1, 200)))

    def getxattr(self) -> None:
        os.getxattr(self.place(), f"user.{self._random.choice(NAMES)}")

    def removexattr(self) -> None:
        os.removexattr(self.place(), f"user.{self._random.choice(NAMES)}")

    def readdir(self) -> None:
        for _ in os.scandir(os.path.dirname(self.place())):
            pass

    def walk(self) -> None:
        with os.scandir(os.path.dirname(self.place())) as entries:
            for entry in entries:
                try:
                    entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    pass

    def tmpfile(self) -> None:
        path, data = self.place(), self.data()
        fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR, 0o644)
        try:
            os.write(fd, data)
            if os.pread(fd, len(data) + 1, 0) != data:
                self.wrong.append("an unnamed file does not hold what was written")
            source = b"/proc/self/fd/%d" % fd
            _checked(_libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))
        finally:
            os.close(fd)

    def fsync(self) -> None:
        self._with(os.O_RDONLY, os.fsync)

    def mine(self) -> None:
        directory = self._random.choice(DIRECTORIES)
        data = b"%d %d\n" % (self._me, len(self._mine[directory]))
        with open(f"{self._root}/{directory}/{self._name}", "ab") as file:
            file.write(data)
        self._mine[directory] += data
        self._check(directory)

    def _check(self, directory: str) -> None:
        with open(f"{self._root}/{directory}/{self._name}", "rb") as file:
            got, wanted = file.read(), self._mine[directory]
        if got != wanted:
            self.wrong.append(f"{directory}/{self._name}: {len(got)} bytes in place of {len(wanted)}")

    def finish(self) -> None:
        for directory, data in self._mine.items():
            if data:
                self._check(directory)

    def run(self, count: int) -> dict[str, object]:
        operations = list(EXPECTED)
        done: Counter[str] = Counter()
        unexpected: list[tuple[str, str, str]] = []
        for i in range(count):
            name = self._random.choice(operations)
            try:
                getattr(self, name)()
                done[name] += 1
            except OSError as e:
                if e.errno not in EXPECTED[name]:
                    unexpected.append((name, errno.errorcode.get(e.errno or 0, str(e.errno)), f"operation {i}: {e}"))
        self.finish()
        return {"unexpected": unexpected, "wrong": self.wrong, "done": done}


if __name__ == "__main__":
    client = Client(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(client.run(int(sys.argv[4]))))
