"""Two files in lockstep: `python hold_client.py HOW DIRECTORY` makes A = n, then B = n, for n = 1, 2, … until killed.

So whoever sees one moment sees A == B or A == B + 1. Says "go" once both are there. HOW:

    write    write(2) on descriptors that stay open      mmap     shared mappings, their descriptors closed
    mixed    A by a mapping, B by write(2)               threads  as write, each file by a thread of its own
    rename   a new file in place of the old              unlink   the number is in the name, the last one is removed
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

NAMES: Final = ("a", "b")
Put = Callable[[int], object]


def data(number: int) -> bytes:
    return b"%010d" % number


def by_write(path: Path) -> Put:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    return lambda number: os.pwrite(fd, data(number), 0)


def by_mapping(path: Path) -> Put:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, mmap.PAGESIZE)
    mapping = mmap.mmap(fd, mmap.PAGESIZE)
    os.close(fd)

    def put(number: int) -> None:
        mapping[:10] = data(number)

    return put


def by_rename(path: Path) -> Put:
    new = path.with_name(path.name + ".new")

    def put(number: int) -> None:
        new.write_bytes(data(number))
        os.rename(new, path)

    return put


def by_unlink(path: Path) -> Put:
    def put(number: int) -> None:
        Path(f"{path}-{number}").touch(exist_ok=False)
        if number > 1:
            os.unlink(f"{path}-{number - 1}")

    return put


def by_thread(put: Put) -> Put:
    """The same, each time in one thread that is not this one."""
    wanted, done = threading.Semaphore(0), threading.Semaphore(0)
    numbers: list[int] = []

    def work() -> None:
        while True:
            wanted.acquire()
            put(numbers.pop())
            done.release()

    threading.Thread(target=work, daemon=True).start()

    def hand_over(number: int) -> None:
        numbers.append(number)
        wanted.release()
        done.acquire()

    return hand_over


HOW: Final[dict[str, tuple[Callable[[Path], Put], Callable[[Path], Put]]]] = {
    "write": (by_write, by_write),
    "mmap": (by_mapping, by_mapping),
    "mixed": (by_mapping, by_write),
    "threads": (lambda path: by_thread(by_write(path)), lambda path: by_thread(by_write(path))),
    "rename": (by_rename, by_rename),
    "unlink": (by_unlink, by_unlink),
}


def main(how: str, directory: str) -> None:
    puts = [make(Path(directory, name)) for make, name in zip(HOW[how], NAMES, strict=True)]
    number = 0
    while True:
        number += 1
        for put in puts:
            put(number)
        if number == 1:
            print("go", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
