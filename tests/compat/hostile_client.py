"""`python -m tests.compat.hostile_client swap ROOT PAIR…` and `… use MNT SEED COUNT`: two sides of a race.

`swap` exchanges the two names of each PAIR ("d:link") in ROOT, again and again, until its stdin ends; it says "ready"
after the first round, and at the end how many rounds there were. `use` does COUNT random operations on what MNT shows,
as root in a chroot there, so that a link it follows leads nowhere else than into MNT; then it writes one line of JSON:
{"done": {operation: successes}, "refused": {errno: count}, "secrets": [path, …]}, the last if it has seen the canary.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import select
import sys
from collections import Counter
from collections.abc import Callable

from tests.canary import is_secret

RENAME_EXCHANGE = 2
DIRECTORIES = ("d", "d/sub", "up", "up/sub", ".")
NAMES = ("file", "other", "sub", "link", "new")
_libc = ctypes.CDLL(None, use_errno=True)


def _exchange(dir_fd: int, one: bytes, other: bytes) -> None:
    if _libc.renameat2(dir_fd, one, dir_fd, other, RENAME_EXCHANGE) < 0:
        number = ctypes.get_errno()
        if number != errno.ENOENT:  # somebody has removed it
            raise OSError(number, os.strerror(number))


def swap(root: str, *pairs: str) -> None:
    dir_fd = os.open(root, os.O_PATH)
    rounds = 0
    while not select.select([0], [], [], 0)[0]:
        for pair in pairs:
            one, other = pair.encode().split(b":")
            _exchange(dir_fd, one, other)
        rounds += 1
        if rounds == 1:
            print("ready", flush=True)
    print(rounds, flush=True)


class _Seen(Exception):
    """The canary."""


def _read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if is_secret(os.read(fd, 4096)):
            raise _Seen
    finally:
        os.close(fd)


def _write(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CREAT, 0o644)
    try:
        os.write(fd, b"written")
        os.fsync(fd)
    finally:
        os.close(fd)


def _list(path: str) -> None:
    for name in os.listdir(path):
        os.lstat(f"{path}/{name}")


def _make(path: str) -> None:
    os.mkdir(path)
    os.rmdir(path)


OPERATIONS: dict[str, Callable[[str, str], object]] = {
    "read": lambda a, b: _read(a),
    "write": lambda a, b: _write(a),
    "list": lambda a, b: _list(os.path.dirname(a) or "."),
    "stat": lambda a, b: os.stat(a),
    "chmod": lambda a, b: os.chmod(a, 0o755),
    "chown": lambda a, b: os.lchown(a, 1, 1),
    "utime": lambda a, b: os.utime(a, ns=(1, 1), follow_symlinks=False),
    "truncate": lambda a, b: os.truncate(a, 3),
    "setxattr": lambda a, b: os.setxattr(a, "trusted.label", b"1", follow_symlinks=False),
    "removexattr": lambda a, b: os.removexattr(a, "trusted.label", follow_symlinks=False),
    "listxattr": lambda a, b: os.listxattr(a, follow_symlinks=False),
    "readlink": lambda a, b: os.readlink(a),
    "mkdir": lambda a, b: _make(f"{a}-made"),
    "symlink": lambda a, b: os.symlink("/d/file", b),
    "link": lambda a, b: os.link(a, b),
    "rename": lambda a, b: os.rename(a, b),
    "unlink": lambda a, b: os.unlink(a),
    "mknod": lambda a, b: os.mknod(b, 0o010644),
}


def use(mnt: str, seed: str, count: str) -> None:
    os.chroot(mnt)
    os.chdir("/")
    chance = random.Random(int(seed))
    done: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    secrets = []
    for _ in range(int(count)):
        operation = chance.choice([*OPERATIONS])
        a, b = (f"{chance.choice(DIRECTORIES)}/{chance.choice(NAMES)}" for _ in "ab")
        try:
            OPERATIONS[operation](a, b)
            done[operation] += 1
        except OSError as e:
            refused[errno.errorcode[e.errno or 0]] += 1
        except _Seen:
            secrets.append(a)
    print(json.dumps({"done": done, "refused": refused, "secrets": secrets}), flush=True)


if __name__ == "__main__":
    (swap if sys.argv[1] == "swap" else use)(*sys.argv[2:])
