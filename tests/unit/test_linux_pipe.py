"""Pipes large enough for splice."""

from __future__ import annotations

import os

import pytest

from unionfs.linux.pipe import large_pipe


@pytest.mark.parametrize("size", [1 << 18, 1 << 62])
def test_pipe_holds_its_capacity(size: int) -> None:
    read_end, write_end, capacity = large_pipe(size)
    try:
        assert capacity >= 4096
        os.set_blocking(write_end, False)
        assert os.write(write_end, bytes(capacity)) == capacity
        assert not os.get_inheritable(read_end) and not os.get_inheritable(write_end)
    finally:
        os.close(read_end)
        os.close(write_end)
