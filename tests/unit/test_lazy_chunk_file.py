"""The file of what has come of a layer: what a crash of the machine, of a process, and damage leave of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from unionfs.image.lazy import chunk_file
from unionfs.image.lazy.chunk_file import HERE, ChunkFile, ChunkFileDamaged, digest_of_zeros, write
from unionfs.image.lazy.contents import DATA_START, Chunk, Contents

KEY = bytes(range(32))
DATA = [b"one" * 1000, b"two" * 500, bytes(3_000_000)]


def made(path: Path) -> Path:
    chunks, at = [], DATA_START
    for number, data in enumerate(DATA):
        end = 0 if number == 2 else 100 * (number + 1)
        chunks.append(Chunk(at, len(data), 10 * number, end, 0, hashlib.sha256(data).digest()))
        at += -(-len(data) // 4096) * 4096
    with open(path, "wb") as file:
        write(file, KEY, Contents([], chunks, at))
    return path


def opened(path: Path, key: bytes = KEY) -> ChunkFile:
    return ChunkFile(os.open(path, os.O_RDWR), key)


def test_what_came_is_seen_by_others_at_once(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    one, other = opened(path), opened(path)
    first = one.chunk(0)
    assert list(other.missing(0, 3)) == [0, 1, 2] and not other.has(first.start, first.start + 1)
    one.put(0, DATA[0])
    assert other.has(first.start, first.start + first.size) and list(other.missing(0, 3)) == [1, 2]
    assert not other.has(first.start, other.chunk(1).start + 1)
    assert os.pread(other.fd, first.size, first.start) == DATA[0]
    one.put(2, None)
    assert other.come() == 2
    one.close()
    other.close()


def test_after_another_boot_what_is_there_is_compared_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "f")
    file = opened(path)
    for number, data in enumerate(DATA[:2]):
        file.put(number, data)
    # The machine goes down; one chunk's bytes were not written, its state was.
    os.pwrite(file.fd, bytes(100), file.chunk(1).start)
    file.close()
    monkeypatch.setattr(chunk_file, "boot_id", lambda: b"another".ljust(36))
    again = opened(path)
    assert not again.has(again.chunk(0).start, again.chunk(0).start + 1)
    assert list(again.missing(0, 2)) == [1]
    assert again.has(again.chunk(0).start, again.chunk(0).start + 1)
    again.put(1, DATA[1])
    again.close()
    third = opened(path)
    assert list(third.missing(0, 2)) == []
    third.close()


def test_zeros_are_written_over_what_a_lost_machine_has_left(tmp_path: Path) -> None:
    file = opened(made(tmp_path / "f"))
    chunk = file.chunk(2)
    os.pwrite(file.fd, b"left", chunk.start + 2_000_000)
    file.put(2, None)
    assert os.pread(file.fd, chunk.size, chunk.start) == DATA[2]
    file.close()


@pytest.mark.parametrize("at", [0, 20, 60, -80, -10])
def test_damage_is_noticed(tmp_path: Path, at: int) -> None:
    path = made(tmp_path / "f")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChunkFileDamaged):
        opened(path)


def test_a_file_that_was_cut_or_is_of_another_layer_is_noticed(tmp_path: Path) -> None:
    path = made(tmp_path / "f")
    with pytest.raises(ChunkFileDamaged):
        opened(path, bytes(32))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ChunkFileDamaged):
        opened(path)


def test_a_layer_without_data_has_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as out:
        write(out, KEY, Contents([], [], DATA_START))
    file = opened(tmp_path / "f")
    assert (file.count, file.come(), list(file.missing(0, 0))) == (0, 0, [])
    file.close()


def test_digest_of_zeros() -> None:
    for size in (0, 1, 1 << 20, (3 << 20) + 7):
        assert digest_of_zeros(size) == hashlib.sha256(bytes(size)).digest()


def test_states_are_numbers_that_stay() -> None:
    assert (chunk_file.ABSENT, HERE, chunk_file.DOUBTFUL) == (0, 1, 2)
