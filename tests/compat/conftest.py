"""The `stack` fixture of the tests on real input; what ordinary users need to mount and be tested."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.compat.real_mount import RealStack
from tests.rigs import Backing
from unionfs.transport.devfuse import channel


@pytest.fixture
def stack(transport: str, backing: Backing) -> Iterator[RealStack]:
    """A `RealStack` on the session's private file system, for tests marked with `each_transport`."""
    made = RealStack(backing.directory(f"real-{transport}"), transport)
    yield made
    made.abort()


@pytest.fixture
def device_for_all() -> Iterator[None]:
    """/dev/fuse as it is on ordinary distributions; restored afterwards."""
    mode = os.stat(channel.DEVICE).st_mode & 0o7777
    os.chmod(channel.DEVICE, 0o666)
    try:
        yield
    finally:
        os.chmod(channel.DEVICE, mode)
