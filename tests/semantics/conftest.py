"""The `union` fixture, and the mark for what the kernel's overlayfs does differently.

    union                        a `unions.Union` on every rig that is a union
    @unlike_kernel("reason")     the control rig `kernel` does not do this, and why; the test is not generated for it
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import SLOW_TEST_TIMEOUT, TEST_TIMEOUT
from tests.rigs import Backing, Rig, Watchdog
from tests.semantics.unions import Union


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unlike_kernel(reason): not generated for the kernel's overlayfs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gone = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.get_closest_marker("unlike_kernel") is not None
        and hasattr(item, "callspec")
        and isinstance(rig := item.callspec.params.get("rig"), Rig)
        and rig.name == "kernel"
    ]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture
def union(request: pytest.FixtureRequest, rig: Rig, backing: Backing, watchdog: Watchdog) -> Iterator[Union]:
    slow = request.node.get_closest_marker("slow") is not None
    made = Union(rig, backing.directory(f"{rig.name}-union"), watchdog, SLOW_TEST_TIMEOUT if slow else TEST_TIMEOUT)
    yield made
    made.close()
