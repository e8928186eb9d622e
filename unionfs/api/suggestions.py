"""What there is to name, for a shell's completion: mounts, images, lessons, registries. Quick, and with no effect: no
lock is waited for, nothing is made, no network is asked.

Each answers with what is there, and with nothing where that cannot be told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from unionfs.image.place import AnyPath, store_directory, stored_names
from unionfs.linux.mount import mountinfo

#: What docker.io implies, in the names that other tools write.
_DEFAULTS = ("docker.io/library/", "docker.io/")
_may_be_an_id = re.compile(r"(?:sha256:)?[0-9a-f]{2,64}").fullmatch


def mountpoints() -> list[bytes]:
    """Of the mounts of this mount namespace, in order, dead ones too, whosever they are: of one in a user namespace the
    records may be out of reach."""
    return list(dict.fromkeys(row.mountpoint for row in mountinfo() if row.fstype == b"fuse.unionfs"))


def image_names(store: AnyPath | None = None) -> list[str]:
    """Names of images in the store, each with a tag."""
    found: dict[str, None] = {}
    for name in stored_names(store_directory(store)):
        for implied in _DEFAULTS:
            name = name.removeprefix(implied)
        found[name if ":" in name.rpartition("/")[2] else f"{name}:latest"] = None
    return list(found)


def image_ids(store: AnyPath | None, begun: str) -> list[tuple[str, str]]:
    """The IDs that begin so, with the names of their images. Nothing for what is no beginning of an ID."""
    if not _may_be_an_id(begun):
        return []
    from unionfs.image.catalog import Catalog
    from unionfs.image.layout import Layout

    layout = Layout(store_directory(store))
    groups = Catalog(layout, layout.entries()).groups()
    prefix = "sha256:" if begun.startswith("sha256:") else ""
    shown = ((prefix + (group.id.hex if prefix else group.id.short), " ".join(group.names)) for group in groups)
    return [(id, names) for id, names in shown if id.startswith(begun)]


def kept_changes(store: AnyPath | None = None) -> list[str]:
    """The names under which changes of mounts of images are kept."""
    from unionfs.api.image_mounts import MOUNTS

    try:
        return sorted(os.fsdecode(name) for name in os.listdir(os.path.join(store_directory(store), MOUNTS)))
    except OSError:
        return []


def containers(store: AnyPath | None, begun: str) -> list[tuple[str, str]]:
    """Names, and IDs that begin so, with the images."""
    from unionfs.containers.store import Containers

    found = Containers(store_directory(store), remove=os.rmdir).all()  # removes nothing
    names = [(one.name, one.image_name) for one in found]
    return names + [
        (one.short_id, f"{one.name} {one.image_name}") for one in found if begun and one.id.startswith(begun)
    ]


def lessons() -> Iterator[tuple[str, str]]:
    """Name and title."""
    from unionfs.explain.lesson import lessons as all_of_them

    return ((lesson.name, lesson.title) for lesson in all_of_them())


def registries() -> list[str]:
    """Those that credentials are kept for."""
    from unionfs.image.registry.credentials import AuthFiles

    return AuthFiles(os.environ, os.geteuid()).registries()
