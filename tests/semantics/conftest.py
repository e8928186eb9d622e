"""The `union` fixture, and the mark for what one rig cannot do.

union                        a `unions.Union` on every rig that is a union
@unlike("rig", "reason")     this rig does not do it, and why; the test is not generated for it. Of our own rigs
                             only for what their library cannot do, and then their README says so
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import SLOW_TEST_TIMEOUT, TEST_TIMEOUT
from tests.rigs import Backing, Rig, Watchdog
from tests.semantics.unions import Union


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unlike(rig, reason): not generated for that rig")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gone = [item for item in items if _rig_of(item) in {mark.args[0] for mark in item.iter_markers("unlike")}]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def _rig_of(item: pytest.Item) -> str | None:
    rig = item.callspec.params.get("rig") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    return rig.name if isinstance(rig, Rig) else None


@pytest.fixture
def union(request: pytest.FixtureRequest, rig: Rig, backing: Backing, watchdog: Watchdog) -> Iterator[Union]:
    slow = request.node.get_closest_marker("slow") is not None
    made = Union(rig, backing.directory(f"{rig.name}-union"), watchdog, SLOW_TEST_TIMEOUT if slow else TEST_TIMEOUT)
    yield made
    made.close()
