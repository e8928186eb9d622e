"""What a crash has left of a container, put right: of a monitor that was killed, or a machine that lost its power.

    the state says      the init      the monitor     the container
    running             runs          runs            runs
    running             runs          is gone         runs, but nobody sees its output, nor will see its exit status
    running             is gone       runs            is about to be exited
    running             is gone       is gone         exited: here that is written down (`settle`)
    its monitor's name  -             is gone         was being started: the same
    anything else       -             -               is as it says

Whoever looks at containers settles them. Nobody knows the exit status then: it is UNSEEN_EXIT, as docker has it. The
control group still says whether memory was wanting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from unionfs.containers import cgroups, runtime
from unionfs.containers.container import UNSEEN_EXIT, Container, Place, State
from unionfs.containers.store import Containers
from unionfs.errors import ContainerError

#: Takes the root of a container away, if it is mounted.
Unmount = Callable[[Place], None]

UNSEEN = "its monitor was killed, or the machine went down: nobody saw it end"


def settle(containers: Containers, container: Container, unmount: Unmount) -> State | None:
    """The container's state, put right if it was lost; None where the container is gone, or goes by that (--rm)."""
    try:
        state = containers.state(container)
        if not state.lost:
            return state
        with containers.locked(container):
            state = containers.state(container)
            return _settle_locked(containers, container, state, unmount) if state.lost else state
    except BlockingIOError:
        return state
    except ContainerError:
        return None


def _settle_locked(containers: Containers, container: Container, state: State, unmount: Unmount) -> State | None:
    starved = cgroups.killed_for_memory(cgroups.look(), container.id)
    clean_locked(containers, container, state, unmount)
    if container.auto_remove:
        containers.remove(container)
        return None
    state = state._replace(
        running=False, process=None, monitor=None, finished=time.time(), exit_code=UNSEEN_EXIT, error=UNSEEN,
        oom_killed=starved,
    )  # fmt: skip
    containers.write_state(container, state, flush=True)
    return state


def clean_locked(containers: Containers, container: Container, state: State, unmount: Unmount) -> None:
    """Take away what is left of a run that nobody has cleaned up. Hold the container's lock; its init is gone."""
    place = containers.place(container.id)
    if state.runtime and os.path.exists(state.runtime[0]):
        runtime.call(state.runtime, "delete", "--force", container.id)
    unmount(place)
