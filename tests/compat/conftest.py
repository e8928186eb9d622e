"""The `stack` fixture of the tests on real input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.real_mount import RealStack
from tests.rigs import Backing


@pytest.fixture
def stack(transport: str, backing: Backing) -> Iterator[RealStack]:
    """A `RealStack` on the session's private file system, for tests marked with `each_transport`."""
    made = RealStack(backing.directory(f"real-{transport}"), transport)
    yield made
    made.abort()
