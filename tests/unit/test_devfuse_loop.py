"""The parts of the loop that need no mount: workers, waiting, reading."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

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
