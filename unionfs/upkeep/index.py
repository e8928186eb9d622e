"""What can be wrong in a work directory: what a crash left in `work/`, and hard-link groups in `index/`.

An index entry is one more link of a group's copy, named by the hex of the origin handle that the copy carries in
`overlay.origin`; `overlay.nlink` relates the links stored to those the union shows (overlay/hardlink.py). The kernel
removes, when it mounts, the entries that these rules find (ovl_indexdir_cleanup()); here only those go whose data has
another name, or no name anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from unionfs.layers.layer import Layer, Path
from unionfs.overlay.workdir import INDEX, WORK
from unionfs.upkeep.attributes import is_origin, relative_count
from unionfs.upkeep.rules import Fault
from unionfs.upkeep.steps import Step, Sweep, Unlink
from unionfs.upkeep.stored import Stored, join, read_object

_INCOMPAT = b"incompat"


def judge_work(work: Layer) -> Iterator[Fault]:
    """`work` is the directory that holds `work/` and `index/`, and that no mount uses."""
    for entry in sorted(_names(work, WORK)):
        path = join(WORK, entry)
        if entry == _INCOMPAT and _names(work, path):
            message = "a volatile mount has used the upper: a crash of the machine since then may have damaged it"
            yield Fault(path, "volatile", message, "none: look at the upper, then mount it with --force")
        elif entry != _INCOMPAT:
            yield from _staged(read_object(work, path))
    for entry in sorted(_names(work, INDEX)):
        stored = read_object(work, join(INDEX, entry))
        # The kernel stages here too (ovl_indexdir()), under names that are no handles.
        yield from _staged(stored) if entry.startswith(b"#") else _entry(entry, stored)


def _staged(stored: Stored) -> Iterator[Fault]:
    # The kernel makes whiteouts as links of one, which it leaves behind (ovl_whiteout()).
    if not stored.is_device_whiteout:
        message = "left by a mount that ended early"
        yield Fault(stored.path, "work-debris", message, "remove it", (Sweep(stored.path),))


def _names(work: Layer, directory: Path) -> list[bytes]:
    try:
        return [entry.name for entry in work.scan(directory)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entry(name: bytes, stored: Stored) -> Iterator[Fault]:
    if not _handle(name):
        yield _misnamed(stored, "index-name", "the name is no file handle")
    elif stored.is_dir or stored.is_device_whiteout:
        return  # of the kernel's nfs_export
    elif (stored.own(b"origin") or b"").hex().encode() != name:
        yield _misnamed(stored, "index-origin", "overlay.origin is not the handle that the entry is named by")
    elif stored.st.st_nlink == 1:
        yield from _nameless(stored)


def _handle(name: bytes) -> bool:
    try:
        value = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return False
    return bool(value) and is_origin(value)


def _misnamed(stored: Stored, rule: str, message: str) -> Fault:
    if stored.is_dir:
        return Fault(stored.path, rule, message, "none: look at what is in it")
    steps: tuple[Step, ...] = ()
    repair = "none: nothing else names its data"
    if stored.st.st_nlink > 1 or stored.is_device_whiteout:
        steps, repair = (Unlink(stored.path),), "remove the entry; the file keeps its other names"
    return Fault(stored.path, rule, message, repair, steps)


def _nameless(stored: Stored) -> Iterator[Fault]:
    """A group of which the upper stores no name: fine while lower names lead to it, as overlay.nlink says."""
    counted = relative_count(stored.own(b"nlink"))
    if counted is None:
        message = "no name of this hard-link group is stored, nor how many the layers have"
        yield Fault(stored.path, "index-without-names", message, "none: nothing else names its data")
    elif counted[0] == b"U" and 1 + counted[1] <= 0:
        message = "a hard-link group of which no name is left"
        yield Fault(stored.path, "index-without-names", message, "remove it", (Unlink(stored.path),))
