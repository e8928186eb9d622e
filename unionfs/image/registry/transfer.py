"""Blobs on their way, several at once, and what is told of them meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from unionfs.errors import RegistryError
from unionfs.image.registry.client import Client

#: Blobs at a time.
WIDTH: Final = 4


class Transfer(NamedTuple):
    """`id`: twelve digits of a blob's digest, a tag, or "". `status` in docker's words. `done` of `total` bytes, where
    it is about bytes."""

    id: str
    status: str
    done: int = 0
    total: int = 0


#: Gets what there is to tell, one at a time.
Report = Callable[[Transfer], None]


class Cancelled(RegistryError):
    """Another blob has failed, or a person had enough."""


def one_at_a_time(report: Report | None) -> Report:
    """For several threads."""
    lock = threading.Lock()

    def tell(transfer: Transfer) -> None:
        with lock:
            if report is not None:
                report(transfer)

    return tell


def all_of(client: Client, tasks: Iterable[Callable[[], None]]) -> None:
    """Run the tasks, `WIDTH` at a time; the first error ends all, and is raised when they have ended."""
    waiting, errors = deque(tasks), list[BaseException]()

    def work() -> None:
        while not client.cancelled.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:
                errors.append(error)
                client.cancelled.set()

    threads = [threading.Thread(target=work, name="registry", daemon=True) for _ in range(min(WIDTH, len(waiting)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C
        client.cancelled.set()
        client.close()
        for thread in threads:
            thread.join(1)  # one may wait for a byte
        raise
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
