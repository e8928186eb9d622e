"""The fixtures of the tests on real input: `stack`, a mount by the command line, and `union`, one on each rig.

`device_for_all` is what ordinary users need to mount and be tested. `registry`, `proxy` and `peer`: a registry of the
test's own, who keeps the requests in between, and the one who uses it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import FaultyProxy
from tests.compat.real_mount import RealStack
from tests.compat.registry_rig import Peer, RegistryServer
from tests.rigs import Backing, Rig, Watchdog
from tests.semantics.unions import Union
from unionfs.transport.devfuse import channel


@pytest.fixture
def stack(transport: str, backing: Backing) -> Iterator[RealStack]:
    """A `RealStack` on the session's private file system, for tests marked with `each_transport`."""
    made = RealStack(backing.directory(f"real-{transport}"), transport)
    yield made
    made.abort()


@pytest.fixture
def device_for_all() -> None:
    """/dev/fuse as udev's rule makes it on every distribution. It stays so: another test process may rely on it now."""
    os.chmod(channel.DEVICE, 0o666)


@pytest.fixture
def union(rig: Rig, backing: Backing, watchdog: Watchdog) -> Iterator[Union]:
    """A `Union` to be filled and mounted, broken when a test takes more than a minute."""
    made = Union(rig, backing.directory(f"{rig.name}-real"), watchdog, 60.0)
    yield made
    made.close()


@pytest.fixture
def plain(backing: Backing) -> Iterator[Path]:
    """A directory of the file system that the layers lie on, for the same thing without a mount."""
    made = backing.directory("plain")
    yield made
    shutil.rmtree(made)


# registries -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(registry: RegistryServer) -> Iterator[FaultyProxy]:
    """Without faults: it keeps the requests."""
    with FaultyProxy(registry.host) as server:
        yield server


@pytest.fixture
def peer(tmp_path: Path) -> Peer:
    return Peer(tmp_path)
