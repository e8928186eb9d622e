"""What `unionfs mounts --json` counts on a live mount, and that the reference names it all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.test_cli_mount import Place, place
from tests.requirements import missing, requires

__all__ = ["place"]  # the fixture

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]

PROJECT = Path(__file__).resolve().parents[2]


class Counted:
    """The difference that a block makes to the counters."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._before = self._now()

    def _now(self) -> Mapping[str, int]:
        statistics = self._place.status().statistics
        assert statistics is not None
        return statistics

    def since(self) -> dict[str, int]:
        before, self._before = self._before, self._now()
        return {name: count - before.get(name, 0) for name, count in self._before.items()}


@pytest.fixture
def names(place: Place) -> Place:
    (place.layer / "small").write_bytes(b"s" * 1000)
    (place.layer / "large").write_bytes(b"l" * 1_000_000)
    (place.layer / "many").mkdir()
    for i in range(20):
        (place.layer / f"many/{i}").touch()
    return place


def test_lookups_and_listings(names: Place) -> None:
    names.mount("-u", names.upper)
    counted = Counted(names)
    held = [os.open(names.tree / f"many/{i}", os.O_PATH) for i in range(20)]
    for i in range(10):
        assert not (names.tree / f"many/no{i}").exists()
    since = counted.since()
    assert since["lookups"] >= 20 and since["request_lookup"] >= 30
    assert 10 <= since["negative_lookups"] <= since["request_lookup"] - 20
    assert since["listings"] >= 1 and since["listing_hits"] >= 25
    for fd in held:
        os.close(fd)


def test_attributes_from_memory_and_from_the_layer(names: Place) -> None:
    names.mount("-u", names.upper, "--passthrough", "off")
    path = names.tree / "small"
    counted = Counted(names)
    with path.open("r+b", buffering=0) as file:
        for _ in range(10):
            file.write(b"x")
            os.fstat(file.fileno())
    since = counted.since()
    # While somebody writes, attributes have to be asked for anew.
    assert since["attribute_misses"] >= 10
    assert since["attribute_hits"] == since["request_getattr"] - since["attribute_misses"]


def test_copy_ups_and_the_bytes_of_the_daemon(names: Place) -> None:
    names.mount("-u", names.upper, "--passthrough", "off")
    counted = Counted(names)
    assert len((names.tree / "large").read_bytes()) == 1_000_000
    since = counted.since()
    assert 1_000_000 <= since["bytes_read"] < 1_100_000 and since["bytes_written"] == since["copy_ups"] == 0
    assert since["request_open"] == 1 and since["request_read"] >= 1
    assert len((names.tree / "small").read_bytes()) == 1000
    since = counted.since()
    assert since["bytes_read"] == 1000
    with (names.tree / "large").open("ab") as file:
        file.write(b"x" * 5000)
    since = counted.since()
    assert (since["copy_ups"], since["copy_up_bytes"], since["bytes_written"]) == (1, 1_000_000, 5000)


@requires("root")
def test_files_that_the_kernel_reads_itself(names: Place) -> None:
    names.mount("-u", names.upper)
    counted = Counted(names)
    with (names.tree / "large").open("rb") as file:
        assert len(file.read()) == 1_000_000
        since = counted.since()
        if since["passthrough_open"] == 0:
            pytest.skip("missing: a kernel with FUSE passthrough for this file system")
        assert (since["passthrough_open"], since["bytes_read"]) == (1, 0)
    assert counted.since()["passthrough_open"] == -1


@requires("libfuse")
def test_through_libfuse(names: Place) -> None:
    names.mount("-u", names.upper, "--transport", "fusepy")
    counted = Counted(names)
    assert len((names.tree / "large").read_bytes()) == 1_000_000
    (names.tree / "new").write_bytes(b"123")
    since = counted.since()
    assert (since["bytes_written"], since["request_create"], since["request_write"]) == (3, 1, 1)
    assert since["bytes_read"] >= 1_000_000 and since["request_open"] >= 1


@pytest.mark.parametrize("transport", ["devfuse", "fusepy"])
def test_the_readme_names_every_counter(names: Place, transport: str) -> None:
    if transport == "fusepy" and (reason := missing("libfuse")) is not None:
        pytest.skip(reason)
    names.mount("-u", names.upper, "--transport", transport)
    statistics = names.status().statistics
    assert statistics is not None
    table = (PROJECT / "docs/reference.md").read_text().partition("| Counter | |\n")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z_]+)`", table))
    assert documented == {name for name in statistics if not name.startswith("request_")} | {"request_lookup"}
