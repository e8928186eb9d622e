"""The Python interface of unionfs, and the one place where its parts are put together.

    Stack            layers as one tree, in process, with no mount: open, listdir, walk, stat, rename, …, diff, commit
    mount, umount    a stack as a FUSE mount with a daemon behind it
    mounts           the live mounts
    remount          have a mount notice changed layers
    diff, commit     what an upper changes: listed, or written as an OCI layer tar
    apply            a layer tar put on a directory
    check, convert   what is wrong with an upper or a layer, mended; its whiteouts in another encoding
    doctor           what this machine has and lacks, and what mounts left behind on it
    demo             all of it, step by step, on throw-away directories

Every failure is an `OSError` (what a file system operation came to) or a `UnionFSError`, whose `hint` says what to do.

Names are imported when first used: `unionfs-mount`, which is in a hurry, comes through here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unionfs.api.changes import AppliedLayer, CommitResult, apply, commit, diff
    from unionfs.api.demonstration import DemoStep, demo
    from unionfs.api.doctor import Diagnosis, doctor
    from unionfs.api.layers import StackSpec, open_layer
    from unionfs.api.mounting import (
        MountResult,
        MountStatus,
        RemountResult,
        choose_transport,
        mount,
        mounts,
        remount,
        umount,
    )
    from unionfs.api.paths import Tree
    from unionfs.api.stack import Stack
    from unionfs.api.upkeep import Checked, Converted, Finding, check, convert
    from unionfs.changeset.change import Change
    from unionfs.errors import (
        ChangesetError,
        LayerError,
        MountError,
        OptionError,
        TarError,
        TransportUnavailable,
        UnionFSError,
    )
    from unionfs.overlay import UnionOptions
    from unionfs.vfs import Caller

__all__ = [
    "Stack",
    "Tree",
    "mount",
    "umount",
    "mounts",
    "remount",
    "diff",
    "commit",
    "apply",
    "check",
    "convert",
    "demo",
    "doctor",
    "open_layer",
    "choose_transport",
    "AppliedLayer",
    "Caller",
    "Change",
    "Checked",
    "CommitResult",
    "Converted",
    "DemoStep",
    "Diagnosis",
    "Finding",
    "MountResult",
    "MountStatus",
    "RemountResult",
    "StackSpec",
    "UnionOptions",
    "ChangesetError",
    "LayerError",
    "MountError",
    "OptionError",
    "TarError",
    "TransportUnavailable",
    "UnionFSError",
]

_HOMES = {
    "unionfs.api.changes": ("AppliedLayer", "CommitResult", "apply", "commit", "diff"),
    "unionfs.api.demonstration": ("DemoStep", "demo"),
    "unionfs.api.doctor": ("Diagnosis", "doctor"),
    "unionfs.api.layers": ("StackSpec", "open_layer"),
    "unionfs.api.mounting": (
        "MountResult",
        "MountStatus",
        "RemountResult",
        "choose_transport",
        "mount",
        "mounts",
        "remount",
        "umount",
    ),
    "unionfs.api.paths": ("Tree",),
    "unionfs.api.stack": ("Stack",),
    "unionfs.api.upkeep": ("Checked", "Converted", "Finding", "check", "convert"),
    "unionfs.changeset.change": ("Change",),
    "unionfs.errors": (
        "ChangesetError",
        "LayerError",
        "MountError",
        "OptionError",
        "TarError",
        "TransportUnavailable",
        "UnionFSError",
    ),
    "unionfs.overlay": ("UnionOptions",),
    "unionfs.vfs": ("Caller",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
