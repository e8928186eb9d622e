"""The log of a container: entries written and read, tails, parts, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unionfs.containers.logs import LINE_LIMIT, LogReader, LogWriter, parse, timestamp


def written(path: Path, *pieces: tuple[int, bytes]) -> bytes:
    """The file after these pieces of output, one each nanosecond from the epoch on."""
    moments = iter(range(1000))
    log = LogWriter(os.fsencode(path), clock=lambda: next(moments))
    for stream, data in pieces:
        log.write(stream, data)
    log.close()
    return path.read_bytes()


def read(path: Path, tail: int | None = None) -> list[tuple[int, bytes]]:
    reader = LogReader(os.fsencode(path))
    if tail is not None:
        reader.seek_tail(tail)
    return [(entry.stream, entry.data) for entry in reader.entries()]


def test_lines_have_time_stream_and_tag(tmp_path: Path) -> None:
    assert written(tmp_path / "log", (1, b"a\nb\n"), (2, b"c\n")) == (
        b"1970-01-01T00:00:00.000000000Z stdout F a\n"
        b"1970-01-01T00:00:00.000000000Z stdout F b\n"
        b"1970-01-01T00:00:00.000000001Z stderr F c\n"
    )


def test_a_line_that_comes_in_pieces_is_one(tmp_path: Path) -> None:
    written(tmp_path / "log", (1, b"one "), (2, b"other\n"), (1, b"line\nrest"))
    assert read(tmp_path / "log") == [(2, b"other\n"), (1, b"one line\n"), (1, b"rest")]


def test_long_lines_are_parts_and_bytes_stay_what_they_are(tmp_path: Path) -> None:
    line = bytes(range(11, 256)) * 200 + b"\r"
    written(tmp_path / "log", (1, line[:30000]), (1, line[30000:] + b"\n"))
    found = read(tmp_path / "log")
    assert b"".join(data for _, data in found) == line + b"\n"
    assert max(len(data) for _, data in found) <= LINE_LIMIT + 1


@pytest.mark.parametrize(("tail", "first"), [(0, None), (1, b"4\n"), (3, b"2\n"), (5, b"0\n"), (9, b"0\n")])
def test_the_last_lines(tmp_path: Path, tail: int, first: bytes | None) -> None:
    written(tmp_path / "log", *((1, b"%d\n" % number) for number in range(5)))
    found = read(tmp_path / "log", tail)
    assert (found[0][1] if found else None) == first
    assert len(found) == min(tail, 5)


def test_a_tail_begins_with_all_parts_of_its_first_line(tmp_path: Path) -> None:
    long = b"x" * (LINE_LIMIT * 5)
    written(tmp_path / "log", (1, b"before\n"), (1, long + b"\n"), (1, b"end"))
    assert b"".join(data for _, data in read(tmp_path / "log", 2)) == long + b"\nend"


def test_what_is_no_entry_is_left_out_and_the_unfinished_waits(tmp_path: Path) -> None:
    good = written(tmp_path / "log", (1, b"a\n"))
    (tmp_path / "log").write_bytes(good + b"\0\0\0\n" + good[:20])
    reader = LogReader(os.fsencode(tmp_path / "log"))
    assert [entry.data for entry in reader.entries()] == [b"a\n"]
    with open(tmp_path / "log", "ab") as log:
        log.write(good[20:])
    assert [entry.data for entry in reader.entries()] == [b"a\n"]
    assert list(reader.entries()) == []


@pytest.mark.parametrize(
    "line", [b"\n", b"x\n", b"T stdout F\n", b"1Z stdin F x\n", b"1Z stdout X x\n", b"1 stdout F x\n"]
)
def test_no_entry(line: bytes) -> None:
    assert parse(line) is None


def test_what_was_removed_meanwhile_is_read_to_its_end(tmp_path: Path) -> None:
    """A container's directory may go with it, before who follows its log has seen its last words."""
    log = LogWriter(os.fsencode(tmp_path / "log"))
    reader = LogReader(os.fsencode(tmp_path / "log"))
    log.write(1, b"first\n")
    assert [entry.data for entry in reader.entries()] == [b"first\n"]
    log.write(1, b"last\n")
    log.close()
    (tmp_path / "log").unlink()
    assert [entry.data for entry in reader.entries()] == [b"last\n"]


def test_what_was_cut_meanwhile_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = LogWriter(os.fsencode(tmp_path / "log"))
    reader = LogReader(os.fsencode(tmp_path / "log"))
    log.write(1, b"a line that is longer\n")
    assert len(list(reader.entries())) == 1
    os.truncate(tmp_path / "log", 0)
    log.write(1, b"after it\n")
    assert [entry.data for entry in reader.entries()] == [b"after it\n"]
    log.close()


def test_there_may_be_no_log_yet(tmp_path: Path) -> None:
    assert read(tmp_path / "none", 3) == []


def test_times_are_of_one_length_so_that_they_compare_as_text() -> None:
    assert timestamp(1_500_000_000_000_000_001) == b"2017-07-14T02:40:00.000000001Z"
