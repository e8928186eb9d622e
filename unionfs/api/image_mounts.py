"""Mounts of images, and the changes that they keep.

Changes that a mount of an image makes are kept in the store, each mount's in a directory of its own:

    STORE/mounts/NAME/mount.json   the ID of the image, and the mountpoint
    STORE/mounts/NAME/upper, work

NAME is made from the mountpoint, unless one is given. They are there again at the next mount of that image with that
name. An image that changes are kept of is not removed; by name and force it loses the name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from unionfs.api.layers import LayerSpec, remove_temporary
from unionfs.api.mounting import MountResult, mount
from unionfs.changeset.replacing import fsync_path, replace_file
from unionfs.errors import MountError, OptionError
from unionfs.image.image import Image
from unionfs.image.place import store_directory
from unionfs.image.store import Store
from unionfs.mounts.mountpoint import check_mountpoint
from unionfs.mounts.registry import Registry

#: Where in a store the changes of mounts lie.
MOUNTS: Final = b"mounts"
_RECORD: Final = b"mount.json"
_is_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}").fullmatch


def mount_image(
    mountpoint: LayerSpec,
    image: str,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    name: str | None = None,
    read_only: bool = False,
    ephemeral: bool = False,
    store: LayerSpec | None = None,
    platform: str | None = None,
    **others: Any,
) -> MountResult:
    """Mount an image: `mount` with its layers, below `layers`, and a place for the changes that is kept in the store,
    as `name`, unless there is an `upper`, or none is wanted. `others` as in `mount`."""
    images = Store(store_directory(store))
    found = images.resolve(image, platform)
    if name is not None and (upper is not None or read_only or ephemeral):
        raise OptionError("a name is for changes that the store keeps", hint="leave out --name, or -u and the like")
    if upper is None and work is None and not read_only and not ephemeral:
        check_mountpoint(os.fsencode(mountpoint), bool(others.get("nonempty_ok")))
        kept = keep(images, found, mountpoint, name)
        upper, work = kept.upper, kept.work
    return mount(
        mountpoint,
        (*layers, str(found.id)),
        upper,
        work,
        read_only=read_only,
        ephemeral=ephemeral,
        store=images.directory,
        **others,
    )


# what is kept ---------------------------------------------------------------------------------------------------------
class KeptChanges(NamedTuple):
    """What a mount keeps. `image`: its ID. `mountpoint`: where it is mounted now, or None."""

    name: str
    image: str
    upper: bytes
    work: bytes
    mountpoint: bytes | None = None


def kept_changes(store: Store) -> list[KeptChanges]:
    """All of them, by name, with where they are mounted."""
    mounted = {record.upper: record.mountpoint for record in Registry().records() if record.upper is not None}
    return [kept._replace(mountpoint=mounted.get(kept.upper)) for kept in kept_in(store.directory)]


def kept_in(root: bytes) -> Iterable[KeptChanges]:
    """All of them, by name, without looking at mounts."""
    try:
        names = sorted(os.listdir(os.path.join(root, MOUNTS)))
    except FileNotFoundError:
        return
    for name in names:
        found = _read(root, os.fsdecode(name))
        if found is not None:
            yield found


def keep(store: Store, image: Image, mountpoint: LayerSpec, name: str | None = None) -> KeptChanges:
    """A place for the changes of a mount of `image`, made if it is not there.

    MountError where the changes under that name are of another image or mountpoint.
    """
    place = os.path.realpath(os.fsencode(mountpoint))
    called = name or _name_of(place)
    if not _is_name(called):
        raise MountError(f"{called!r} is no name for changes", hint="letters, digits, and _ . - behind the first")
    found = _read(store.directory, called)
    if found is None:
        return _make(store, image, place, called)
    kept, of = found, _mountpoint(store.directory, called)
    if kept.image != image.id:
        raise MountError(
            f"the changes kept as {called} are of another image, {kept.image}",
            hint=f"give --name, or remove them with: unionfs image changes --rm {called}",
        )
    if name is None and of != place:
        raise MountError(f"the changes kept as {called} are of a mount on {os.fsdecode(of)}", hint="give --name")
    return kept


def remove_changes(store: Store, name: str) -> None:
    """Remove what is kept under a name. MountError where nothing is, or it is mounted."""
    found = next((kept for kept in kept_changes(store) if kept.name == name), None)
    if found is None:
        raise MountError(f"no changes are kept as {name}", hint="unionfs image changes lists them")
    if found.mountpoint is not None:
        shown = os.fsdecode(found.mountpoint)
        raise MountError(f"the changes kept as {name} are of the mount on {shown}", hint=f"unionfs umount {shown}")
    directory = os.path.dirname(found.upper)
    with Registry().hold((found.upper, "upper")):
        remove_temporary(directory)


def _name_of(place: bytes) -> str:
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", os.fsdecode(place)).strip("-.")
    return words[-100:].lstrip("-.") or "root"


def _make(store: Store, image: Image, place: bytes, name: str) -> KeptChanges:
    """The record comes last: a directory without one is of a crash, and begun anew."""
    with store.staging():
        pass  # makes the store itself
    directory = os.path.join(store.directory, MOUNTS, os.fsencode(name))
    upper, work = os.path.join(directory, b"upper"), os.path.join(directory, b"work")
    for path in (upper, work):
        os.makedirs(path, 0o755, exist_ok=True)
    record = json.dumps({"image": image.id, "mountpoint": os.fsdecode(place)}).encode()
    replace_file(os.path.join(directory, _RECORD), record)
    for path in (os.path.dirname(directory), store.directory):  # the names of the directories above it
        fsync_path(path)
    return KeptChanges(name, image.id, upper, work)


def _document(root: bytes, name: str) -> dict[str, str] | None:
    try:
        with open(os.path.join(root, MOUNTS, os.fsencode(name), _RECORD), "rb") as file:
            told = json.loads(file.read(1 << 16))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("image"), str) else None


def _read(root: bytes, name: str) -> KeptChanges | None:
    told = _document(root, name)
    if told is None:
        return None
    directory = os.path.join(root, MOUNTS, os.fsencode(name))
    return KeptChanges(name, told["image"], os.path.join(directory, b"upper"), os.path.join(directory, b"work"))


def _mountpoint(root: bytes, name: str) -> bytes:
    return os.fsencode(str((_document(root, name) or {}).get("mountpoint", "")))
