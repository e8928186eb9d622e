"""What a monitor that was killed has left, put right by who looks next."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unionfs.containers import recovery
from unionfs.containers.container import UNSEEN_EXIT, Container, Place, Process, State, boot_id
from unionfs.containers.settings import Settings
from unionfs.containers.store import Containers


def ended() -> Process:
    with subprocess.Popen(["sleep", "60"]) as process:
        found = Process.of(process.pid)
        process.kill()
    return found


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    return Containers(os.fsencode(tmp_path), lambda directory: shutil.rmtree(directory))


def made(containers: Containers, *, auto_remove: bool = False) -> Container:
    def make(id: str, name: str) -> Container:
        return Container(id, name, "", "", 1.0, "h", Settings(("true",)), {}, (), auto_remove=auto_remove)

    return containers.create(make, None)


def test_one_that_could_not_be_written_down_leaves_nothing(containers: Containers) -> None:
    def make(id: str, name: str) -> Container:
        return Container(id, name, "", "", 1.0, "h", Settings(), {"no": {"JSON"}}, ())

    with pytest.raises(TypeError):
        containers.create(make, None)
    assert os.listdir(containers.directory) == [b".lock"]


@pytest.mark.parametrize("running", [False, True], ids=["on its way", "running"])
def test_the_end_of_one_whose_monitor_was_killed(containers: Containers, running: bool) -> None:
    container, unmounted = made(containers), list[Place]()
    process, started = (ended(), 1.0) if running else (None, None)
    containers.write_state(container, State(running, process, ended(), boot_id(), started))
    state = recovery.settle(containers, container, unmounted.append)
    assert state is not None and len(unmounted) == 1
    assert (state.status, state.exit_code, state.monitor) == ("exited" if running else "created", UNSEEN_EXIT, None)
    assert recovery.settle(containers, container, unmounted.append) == state and len(unmounted) == 1


def test_one_that_was_to_vanish_does_so_even_if_it_was_on_its_way(containers: Containers) -> None:
    container = made(containers, auto_remove=True)
    containers.write_state(container, State(monitor=ended(), boot=boot_id()))
    assert recovery.settle(containers, container, lambda place: None) is None
    assert containers.all() == []


def test_nobody_touches_one_whose_monitor_works(containers: Containers) -> None:
    container = made(containers, auto_remove=True)
    state = State(monitor=Process.of(os.getpid()), boot=boot_id())
    containers.write_state(container, state)
    assert recovery.settle(containers, container, lambda place: pytest.fail("unmounted")) == state
