"""Which owners, modes and attributes a mount shows and stores: the options of fuse-overlayfs for that.

    uidmapping=, gidmapping=, squash_to_root, squash_to_uid=, squash_to_gid=    unionfs.layers.mapped
    xattr_permissions=1|2                                                       unionfs.layers.override

Imported only where one of them is given: other layers are opened as they are.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unionfs.errors import LayerError, OptionError
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.mapped import IdMap, IdMaps, MappedLayer, MappedUpper
from unionfs.layers.override import CONTAINERS, PRIVILEGED, USER, Override, OverrideLayer, OverrideUpper, detect
from unionfs.linux.idmapped import is_idmapped
from unionfs.mounts.helper import parse_id_mapping

_LARGEST = 0xFFFF_FFFE


class Owners(NamedTuple):
    """`override`: 0, or the 1 or 2 of xattr_permissions."""

    ids: IdMaps = IdMaps()
    override: int = 0

    def lower(self, layer: Layer) -> Layer:
        """A lower as it is shown."""
        attribute = detect(layer) if self.override else None
        ids = self.ids
        if attribute is not None:
            layer = OverrideLayer(layer, attribute)
        elif is_idmapped(getattr(layer, "root_fd", -1)):
            # Whoever made the mount of this layer has mapped its ids; to do so again would be of no use to anybody.
            ids = IdMaps(IdMap(squash=ids.uids.squash), IdMap(squash=ids.gids.squash))
        return layer if ids == IdMaps() else MappedLayer(layer, ids)

    def writable(
        self, upper: WritableLayer, work: WritableLayer | None, lowers: Sequence[Layer], *, read_only: bool = False
    ) -> tuple[WritableLayer, WritableLayer | None]:
        """Upper and work directory as they are shown. `lowers` as they are stored: the first whose root has an override
        gives it to the root of an upper that has none."""
        if self.override:
            attribute = self._attribute(upper)
            if not read_only:
                _mark_root(upper, attribute, lowers)
            upper = OverrideUpper(upper, attribute)
            work = None if work is None else OverrideUpper(work, attribute)
        if self.ids == IdMaps():
            return upper, work
        return MappedUpper(upper, self.ids), None if work is None else MappedUpper(work, self.ids)

    def _attribute(self, upper: Layer) -> bytes:
        if self.override == 1:
            return PRIVILEGED
        names = upper.listxattr(b"")
        return USER if USER in names and CONTAINERS not in names else CONTAINERS

    def as_stored(self) -> Owners:
        """The owners that a layer of it has: those on disk, where they are stored."""
        return Owners(override=self.override)


def owners_of(options: Mapping[str, str | None]) -> Owners | None:
    """What mount options say; None where that is nothing. OptionError for a value without meaning."""
    root = 0 if "squash_to_root" in options else None
    ids = IdMaps(
        IdMap(_ranges(options, "uidmapping"), _squash(options, "squash_to_uid", root)),
        IdMap(_ranges(options, "gidmapping"), _squash(options, "squash_to_gid", root)),
    )
    override = options.get("xattr_permissions", "0")
    if override not in ("0", "1", "2"):
        raise OptionError(f"xattr_permissions={override or ''}: not 0, 1 or 2")
    owners = Owners(ids, int(override))
    return None if owners == Owners() else owners


def _ranges(options: Mapping[str, str | None], key: str) -> tuple[tuple[int, int, int], ...]:
    return parse_id_mapping(options[key] or "") if key in options else ()


def _squash(options: Mapping[str, str | None], key: str, otherwise: int | None) -> int | None:
    if key not in options:
        return otherwise
    value = options[key] or ""
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= _LARGEST):
        raise OptionError(f"{key}={value}: not an id", hint="ids are below 2**32 - 1")
    return int(value)


def _mark_root(upper: WritableLayer, attribute: bytes, lowers: Sequence[Layer]) -> None:
    """Say on an upper's root what kind of layer it is, for who reads it later. Idempotent."""
    if upper.getxattr(b"", attribute) is not None:
        return
    st = upper.lstat(b"")
    value = Override(st.st_uid, st.st_gid, st.st_mode & 0o7777, st.st_mode & 0o170000).value()
    sources = (PRIVILEGED,) if attribute == PRIVILEGED else (CONTAINERS, USER)
    for layer in lowers:
        found = next((v for v in (layer.getxattr(b"", name) for name in sources) if v), None)
        if found is not None:
            value = found
            break
    try:
        upper.setxattr(b"", attribute, value)
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        hint = "xattr_permissions=2 does not need privileges" if attribute == PRIVILEGED else None
        raise LayerError(f"upper {upper.name} cannot hold {attribute.decode()}: {e.strerror}", hint=hint) from e
