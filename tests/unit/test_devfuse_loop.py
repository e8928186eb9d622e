"""The parts of the loop that need no mount: workers, waiting, placement, reading."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Set
from pathlib import Path

import pytest

from unionfs.transport.devfuse import placement
from unionfs.transport.devfuse.loop import _Patience
from unionfs.transport.devfuse.placement import RUN, Placement, cpu_of
from unionfs.transport.devfuse.reading import SENT, FileReader, Splicer
from unionfs.transport.devfuse.workers import Workers


# workers -----------------------------------------------------------------------------------------------------------
def test_each_request_is_run_once() -> None:
    done: list[bytes] = []
    workers = Workers(done.append)
    for i in range(100):
        workers.submit(i, b"%d" % i)
    workers.stop()
    assert sorted(done) == sorted(b"%d" % i for i in range(100))


def test_slow_requests_run_beside_each_other() -> None:
    meeting = threading.Barrier(4)

    def run(request: bytes) -> None:
        meeting.wait(timeout=10)

    workers = Workers(run)
    for i in range(4):
        workers.submit(i, b"")
    workers.stop()
    assert not meeting.broken


def test_request_that_waits_can_be_cancelled_and_one_that_runs_is_told() -> None:
    started, finish = threading.Event(), threading.Event()
    done: list[bytes] = []
    told: list[bool] = []

    def run(request: bytes) -> None:
        told.append(workers.interrupted())
        started.set()
        finish.wait(10)
        told.append(workers.interrupted())
        done.append(request)

    workers = Workers(run, limit=1)
    workers.submit(1, b"running")
    assert started.wait(10)
    workers.submit(2, b"waiting")
    assert not workers.cancel(1)
    assert workers.cancel(2)
    assert not workers.cancel(2)
    assert not workers.cancel(3)
    finish.set()
    workers.submit(4, b"next")
    workers.stop()
    assert done == [b"running", b"next"]
    assert told == [False, True, False, False]


def test_threads_are_reused_and_limited() -> None:
    threads: set[int] = set()
    workers = Workers(lambda request: threads.add(threading.get_ident()), limit=3)
    for i in range(200):
        workers.submit(i, b"")
    workers.stop()
    assert len(threads) <= 3


# patience ----------------------------------------------------------------------------------------------------------
def test_looking_stops_where_it_finds_nothing_and_is_tried_again_ever_later() -> None:
    patience = _Patience(True)
    pauses = []
    for _ in range(3):
        assert patience.pause == 0
        for _ in range(_Patience.TRIALS):
            patience.looked(False)
        pauses.append(patience.pause)
        patience.pause = 0  # the loop has counted it down
    assert pauses == [_Patience.PAUSE, 2 * _Patience.PAUSE, 4 * _Patience.PAUSE]


def test_looking_goes_on_where_it_pays() -> None:
    patience = _Patience(True)
    for i in range(10 * _Patience.TRIALS):
        patience.looked(i % 2 == 0)
    assert patience.pause == 0


def test_on_one_cpu_nothing_is_looked_for() -> None:
    assert _Patience(False).pause < 0


# placement ---------------------------------------------------------------------------------------------------------
class Place:
    """A Placement over CPUs 0 and 1 that notes its moves; `client` says where clients are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "PAUSE", 60.0)  # no pause by itself
        self.moves: list[Set[int]] = []
        self.client = 1
        self.placement = Placement({0, 1}, self.moves.append, lambda pid: self.client)
        monkeypatch.setattr(self.placement, "_watch", threading.current_thread())
        self.now = 0.0

    def requests(self, pid: int, count: int, every: float = 0.001) -> None:
        for _ in range(count):
            self.now += every
            self.placement.sample(pid, self.now)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def test_a_client_alone_is_followed(place: Place) -> None:
    place.requests(7, RUN)
    assert place.moves == []
    place.requests(7, 1)
    assert place.moves == [{1}]
    place.client = 0
    place.requests(7, 1)
    assert place.moves == [{1}, {0}]


def test_another_client_ends_it(place: Place) -> None:
    place.requests(7, RUN + 1)
    place.requests(8, 1)
    assert place.moves == [{1}, {0, 1}]
    assert not place.placement.following


def test_clients_in_turn_are_not_followed(place: Place) -> None:
    for pid in (7, 8) * 20:
        place.requests(pid, 1)
    assert place.moves == []


def test_requests_of_the_kernel_do_not_count(place: Place) -> None:
    place.requests(7, RUN + 1)
    place.requests(0, 5)
    assert place.moves == [{1}]


def test_a_slow_client_is_not_followed(place: Place) -> None:
    place.requests(7, 20, every=0.01)
    assert place.moves == []


def test_a_client_on_a_cpu_that_is_not_ours_is_not_followed(place: Place) -> None:
    place.client = 5
    place.requests(7, 20)
    assert place.moves == []


def test_a_pause_ends_it() -> None:
    home, at_home = os.sched_getaffinity(0), threading.Event()
    cpu = min(home)

    def move(cpus: Set[int]) -> None:
        if cpus == home and watched.following is False:
            at_home.set()

    watched = Placement(home, move, lambda pid: cpu)
    for i in range(RUN + 2):
        watched.sample(7, i * 0.001)
    assert watched.following
    assert at_home.wait(10)
    watched.close()


def test_closing_ends_the_watch_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "PAUSE", 0.0001)
    cpu = min(os.sched_getaffinity(0))
    for round_ in range(200):
        followed = Placement({cpu}, lambda cpus: None, lambda pid: cpu)
        for i in range(RUN + 2 + round_ % 3):
            followed.sample(7, i * 0.001)
        followed.close()
        assert followed._watch is not None and not followed._watch.is_alive()


def test_cpu_of_this_process() -> None:
    assert cpu_of(os.getpid()) in range(os.cpu_count() or 1)
    assert cpu_of(0x7FFFFFFF) == -1


# reading -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("may_wait", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, 10), (0, 100), (95, 100), (100, 5), (1000, 5), (0, 1 << 20)])
def test_read_reply_is_short_only_at_the_end(may_wait: bool, offset: int, size: int) -> None:
    content = bytes(range(100))
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        reply = FileReader()(9, file.fileno(), offset, size, may_wait)
    if reply is None:
        pytest.fail("just written, and yet not in memory")
    body = content[offset : offset + size]
    assert bytes(reply[:16]) == (16 + len(body)).to_bytes(4, "little") + bytes(4) + (9).to_bytes(8, "little")
    assert bytes(reply[16:]) == body


def test_more_than_the_buffer_is_for_a_worker() -> None:
    with tempfile.TemporaryFile() as file:
        assert FileReader()(9, file.fileno(), 0, (1 << 20) + 1, False) is None
        assert FileReader()(9, file.fileno(), 0, (1 << 20) + 1, True) is not None


def test_read_errors_come_through(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError):
            FileReader()(9, fd, 0, 10, False)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("offset", "size"), [(0, 65536), (1, 65536), (4095, 131072)])
def test_large_reads_are_spliced_behind_their_header(offset: int, size: int) -> None:
    content = bytes(i % 251 for i in range(300_000))
    body = content[offset : offset + size]
    with tempfile.TemporaryFile() as file, Device() as device:
        file.write(content)
        file.flush()
        for unique in (9, 10):  # the pipe is used again
            assert FileReader(device.fd)(unique, file.fileno(), offset, size, False) is SENT
            assert device.take() == header(len(body), unique) + body


@pytest.mark.parametrize(("offset", "size"), [(0, 1000), (100_000, 1 << 20), (290_000, 1 << 20), (400_000, 65536)])
def test_small_reads_and_the_ends_of_files_are_copied(offset: int, size: int) -> None:
    content = bytes(300_000)
    with tempfile.TemporaryFile() as file, Device() as device:
        file.write(content)
        file.flush()
        reply = FileReader(device.fd)(9, file.fileno(), offset, size, False)
        assert reply is not None
        assert bytes(reply) == header(len(content[offset : offset + size]), 9) + content[offset : offset + size]


def test_a_failed_splice_leaves_nothing_behind() -> None:
    content = bytes(i % 251 for i in range(100_000))
    closed = os.open(os.devnull, os.O_RDONLY)  # takes no data
    with tempfile.TemporaryFile() as file, Device() as device:
        file.write(content)
        file.flush()
        splicer = Splicer(closed)
        assert not splicer.send(9, file.fileno(), 0, 65536)
        splicer._device = device.fd
        assert splicer.send(10, file.fileno(), 0, 65536)
        assert device.take() == header(65536, 10) + content[:65536]
        splicer.close()
    os.close(closed)


class Device:
    """Stands where /dev/fuse does: a file that takes what is spliced to it."""

    def __enter__(self) -> Device:
        self._file = tempfile.TemporaryFile()
        self.fd = self._file.fileno()
        return self

    def take(self) -> bytes:
        """What has arrived since the last time."""
        size = os.lseek(self.fd, 0, os.SEEK_CUR)
        content = os.pread(self.fd, size, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return content

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def header(size: int, unique: int) -> bytes:
    return (16 + size).to_bytes(4, "little") + bytes(4) + unique.to_bytes(8, "little")
