"""`run_image`: a container made of an image and started at once, by this process's worker where it has one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unionfs.api import container_worker
from unionfs.errors import UnionFSError

if TYPE_CHECKING:
    from unionfs.api.layers import LayerSpec
    from unionfs.containers.terminal import Ended


class Run(NamedTuple):
    """A container, by its ID, and how it came to an end."""

    id: str
    ended: Ended


def run_image(
    image: str,
    settings: Mapping[str, Any],
    *,
    store: LayerSpec | None = None,
    name: str | None = None,
    auto_remove: bool = False,
    platform: str | None = None,
    attach: bool = True,
) -> Run:
    """`create_container` of what `container_settings` makes of `settings`, and `run_container`."""
    asked = {
        "store": None if store is None else os.fsdecode(store),
        "image": image,
        "settings": dict(settings),
        "name": name,
        "auto_remove": auto_remove,
        "platform": platform,
    }
    worker = container_worker.taken()
    id = None if worker is None else worker.create(asked)
    if worker is not None and id is not None:
        from unionfs.containers import terminal

        its_own = bool(settings.get("terminal"))
        stdin = 0 if attach and settings.get("interactive") else None
        with terminal.catching(terminal=its_own) as signals, worker.start() as monitor:
            return Run(id, terminal.follow(monitor, signals, attach=attach, stdin=stdin, terminal=its_own))

    from unionfs.api.containers import run_container

    containers, container = container_worker.created(asked)
    interactive = container.settings.interactive
    try:
        return Run(container.id, run_container(containers, container.id, attach=attach, interactive=interactive))
    except (UnionFSError, OSError):
        container_worker.discard(containers, container)
        raise
