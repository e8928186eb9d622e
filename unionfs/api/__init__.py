"""The Python interface of unionfs, and the one place where its parts are put together.

    Stack            layers as one tree, in process, with no mount: open, listdir, walk, stat, rename, …, diff, commit
    mount, umount    a stack as a FUSE mount with a daemon behind it
    mounts           the live mounts
    remount          have a mount notice changed layers
    which, which_all the layer that a path comes from, what hides what, where the bytes are
    compare          two trees of any kind: layers, images, mounts, uppers, directories, snapshots; changes_with_reasons
    write_snapshot   a tree written down, to compare with later
    blame, blame_lines, blame_tree    which layer did what to a path, to its lines, to all in a directory
    waste            the bytes of layers that nobody sees
    explorer         a stack to be walked through, layer by layer
    layer_tree       all paths, with what each layer has there; draw_layers: as SVG, or as a page of HTML
    diff, commit     what an upper changes: listed, or written as an OCI layer tar
    apply            a layer tar put on a directory
    held             the changes of a mount wait, so that what is read of its upper is one moment
    check, convert   what is wrong with an upper or a layer, mended; its whiteouts in another encoding
    image_store      the images of a store: listed, named, inspected, saved, loaded, removed, verified
    mount_image      an image as a mount, whose changes the store keeps; kept_changes, remove_changes
    commit_image     what a mount changes, as one more layer of its image
    import_image, diff_images
    pull_image, fetch_image, push_image, login, logout, search
                     with registries (RegistryOptions: how they are reached)
    container_store  the containers of a store; container_settings: what one is asked to be
    run_image, create_container, run_container, stop_container, kill_container, wait_container, remove_container
    list_containers, find_container, inspect_container, read_logs, execute
    copy_from_container, copy_to_container, export_container
    doctor           what this machine has and lacks, and what mounts left behind on it
    demo             all of it, step by step, on throw-away directories
    tracing          (a module) what a live mount is asked and does, while it does; recordings, and their replay
    simulation       (a module) the engine on layers in memory, one command at a time, and the lessons

Every failure is an `OSError` (what a file system operation came to) or a `UnionFSError`, whose `hint` says what to do.

Names are imported when first used: `unionfs-mount`, which is in a hurry, comes through here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unionfs.api.blaming import (
        Blame,
        Blamed,
        BlamedLines,
        BlamedPath,
        BlamedTree,
        Line,
        Touch,
        blame,
        blame_lines,
        blame_tree,
    )
    from unionfs.api.changes import AppliedLayer, CommitResult, apply, commit, diff
    from unionfs.api.comparing import (
        SEMANTIC,
        Comparison,
        Difference,
        Reason,
        State,
        Tally,
        Text,
        changes_with_reasons,
        compare,
        tally,
    )
    from unionfs.api.container_changes import export_container
    from unionfs.api.container_copy import copy_from_container, copy_to_container
    from unionfs.api.container_run import Run, run_image
    from unionfs.api.container_settings import container_settings, execution
    from unionfs.api.containers import (
        Container,
        ContainerState,
        Execution,
        FoundContainer,
        LogEntry,
        container_command,
        container_store,
        create_container,
        execute,
        find_container,
        inspect_container,
        kill_container,
        list_containers,
        read_logs,
        remove_container,
        run_container,
        stop_container,
        wait_container,
    )
    from unionfs.api.demonstration import DemoStep, demo
    from unionfs.api.doctor import Diagnosis, doctor
    from unionfs.api.exploring import Entry, Explorer, explorer
    from unionfs.api.hold import Held, held
    from unionfs.api.image_commit import CommittedImage, commit_image
    from unionfs.api.image_diff import diff_images
    from unionfs.api.image_import import import_image
    from unionfs.api.image_mounts import KeptChanges, kept_changes, mount_image, remove_changes
    from unionfs.api.images import image_store, prune_images
    from unionfs.api.info import ContainersInfo, Information, RegistryInfo, StoreInfo, TransportInfo, info
    from unionfs.api.layer_trees import (
        FoldedRow,
        LayerHeading,
        LayerTree,
        StoredPart,
        TreeRow,
        draw_layers,
        fold_rows,
        layer_tree,
    )
    from unionfs.api.layers import StackSpec, make_ready, open_layer
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
    from unionfs.api.registries import fetch_image, login, logout, pull_image, push_image, search
    from unionfs.api.sources import Hider, Part, Place, Source, Stored, Which, which, which_all
    from unionfs.api.stack import Stack
    from unionfs.api.stacks import LayerInfo
    from unionfs.api.trees import Pausing, Snapshot, write_snapshot
    from unionfs.api.upkeep import Checked, Converted, Finding, check, convert
    from unionfs.api.wasting import Duplicate, LayerWaste, Score, StackWaste, Waste, WastedPath, waste
    from unionfs.changeset.change import Change
    from unionfs.errors import (
        ChangeError,
        ChangesetError,
        ContainerError,
        ImageError,
        ImageFormatError,
        ImageInUse,
        ImageNotFound,
        LayerError,
        MountError,
        OptionError,
        ReferenceFormatError,
        RegistryError,
        SnapshotError,
        TarError,
        TransportUnavailable,
        UnionFSError,
    )
    from unionfs.image.registry.client import RegistryOptions
    from unionfs.image.registry.pull import Pulled
    from unionfs.image.registry.push import Pushed
    from unionfs.image.registry.search import Match
    from unionfs.image.registry.transfer import Transfer
    from unionfs.image.results import Fault, HistoryRow, ImageSummary, Loaded, Pruned, Removed
    from unionfs.image.store import Store
    from unionfs.overlay import UnionOptions
    from unionfs.vfs import Caller

#: The longest that changes of a mount are held for a reader, unless told otherwise. Here, since the help of commands
#: tells it, for which they are not to import what holds.
HOLD_SECONDS: Final = 600.0

__all__ = [
    "Stack",
    "Tree",
    "mount",
    "umount",
    "mounts",
    "remount",
    "which",
    "which_all",
    "blame",
    "blame_lines",
    "blame_tree",
    "waste",
    "explorer",
    "layer_tree",
    "draw_layers",
    "fold_rows",
    "diff",
    "commit",
    "compare",
    "changes_with_reasons",
    "tally",
    "write_snapshot",
    "apply",
    "held",
    "check",
    "convert",
    "demo",
    "doctor",
    "info",
    "open_layer",
    "make_ready",
    "choose_transport",
    "image_store",
    "prune_images",
    "mount_image",
    "kept_changes",
    "remove_changes",
    "commit_image",
    "import_image",
    "diff_images",
    "fetch_image",
    "pull_image",
    "push_image",
    "login",
    "logout",
    "search",
    "container_settings",
    "copy_from_container",
    "copy_to_container",
    "export_container",
    "execution",
    "container_command",
    "container_store",
    "create_container",
    "execute",
    "find_container",
    "inspect_container",
    "kill_container",
    "list_containers",
    "read_logs",
    "remove_container",
    "run_container",
    "run_image",
    "stop_container",
    "wait_container",
    "AppliedLayer",
    "Blame",
    "Blamed",
    "BlamedLines",
    "BlamedPath",
    "BlamedTree",
    "Caller",
    "Change",
    "Checked",
    "Comparison",
    "Difference",
    "Reason",
    "Run",
    "SEMANTIC",
    "State",
    "Tally",
    "Text",
    "Pausing",
    "Snapshot",
    "CommitResult",
    "CommittedImage",
    "Converted",
    "DemoStep",
    "Container",
    "ContainerState",
    "Execution",
    "FoundContainer",
    "LogEntry",
    "Diagnosis",
    "Duplicate",
    "Entry",
    "Explorer",
    "Fault",
    "Finding",
    "FoldedRow",
    "HistoryRow",
    "ImageSummary",
    "KeptChanges",
    "LayerInfo",
    "LayerWaste",
    "Line",
    "Loaded",
    "HOLD_SECONDS",
    "Information",
    "ContainersInfo",
    "RegistryInfo",
    "StoreInfo",
    "TransportInfo",
    "Held",
    "LayerHeading",
    "LayerTree",
    "Match",
    "MountResult",
    "MountStatus",
    "Pruned",
    "Pulled",
    "Pushed",
    "RegistryOptions",
    "RemountResult",
    "Removed",
    "Hider",
    "Part",
    "Place",
    "Score",
    "Source",
    "StackSpec",
    "StackWaste",
    "Store",
    "Stored",
    "Waste",
    "WastedPath",
    "StoredPart",
    "Which",
    "Touch",
    "Transfer",
    "TreeRow",
    "UnionOptions",
    "ChangeError",
    "ChangesetError",
    "ContainerError",
    "ImageError",
    "ImageFormatError",
    "ImageInUse",
    "ImageNotFound",
    "LayerError",
    "MountError",
    "OptionError",
    "ReferenceFormatError",
    "RegistryError",
    "SnapshotError",
    "TarError",
    "TransportUnavailable",
    "UnionFSError",
]

_HOMES = {
    "unionfs.api.blaming": (
        "Blame",
        "Blamed",
        "BlamedLines",
        "BlamedPath",
        "BlamedTree",
        "Line",
        "Touch",
        "blame",
        "blame_lines",
        "blame_tree",
    ),
    "unionfs.api.changes": ("AppliedLayer", "CommitResult", "apply", "commit", "diff"),
    "unionfs.api.comparing": (
        "SEMANTIC",
        "Comparison",
        "Difference",
        "Reason",
        "State",
        "Tally",
        "Text",
        "changes_with_reasons",
        "compare",
        "tally",
    ),
    "unionfs.api.container_changes": ("export_container",),
    "unionfs.api.container_copy": ("copy_from_container", "copy_to_container"),
    "unionfs.api.container_run": ("Run", "run_image"),
    "unionfs.api.container_settings": ("container_settings", "execution"),
    "unionfs.api.containers": (
        "Container",
        "ContainerState",
        "Execution",
        "FoundContainer",
        "LogEntry",
        "container_command",
        "container_store",
        "create_container",
        "execute",
        "find_container",
        "inspect_container",
        "kill_container",
        "list_containers",
        "read_logs",
        "remove_container",
        "run_container",
        "stop_container",
        "wait_container",
    ),
    "unionfs.api.demonstration": ("DemoStep", "demo"),
    "unionfs.api.doctor": ("Diagnosis", "doctor"),
    "unionfs.api.image_commit": ("CommittedImage", "commit_image"),
    "unionfs.api.image_diff": ("diff_images",),
    "unionfs.api.image_import": ("import_image",),
    "unionfs.api.image_mounts": ("KeptChanges", "kept_changes", "mount_image", "remove_changes"),
    "unionfs.api.images": ("image_store", "prune_images"),
    "unionfs.api.exploring": ("Entry", "Explorer", "explorer"),
    "unionfs.api.hold": ("Held", "held"),
    "unionfs.api.info": (
        "ContainersInfo",
        "Information",
        "RegistryInfo",
        "StoreInfo",
        "TransportInfo",
        "info",
    ),
    "unionfs.api.layer_trees": (
        "FoldedRow",
        "LayerHeading",
        "LayerTree",
        "StoredPart",
        "TreeRow",
        "draw_layers",
        "fold_rows",
        "layer_tree",
    ),
    "unionfs.api.layers": ("StackSpec", "make_ready", "open_layer"),
    "unionfs.api.stacks": ("LayerInfo",),
    "unionfs.api.wasting": ("Duplicate", "LayerWaste", "Score", "StackWaste", "Waste", "WastedPath", "waste"),
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
    "unionfs.api.registries": ("fetch_image", "login", "logout", "pull_image", "push_image", "search"),
    "unionfs.api.sources": ("Hider", "Part", "Place", "Source", "Stored", "Which", "which", "which_all"),
    "unionfs.api.stack": ("Stack",),
    "unionfs.api.trees": ("Pausing", "Snapshot", "write_snapshot"),
    "unionfs.api.upkeep": ("Checked", "Converted", "Finding", "check", "convert"),
    "unionfs.changeset.change": ("Change",),
    "unionfs.errors": (
        "ChangeError",
        "ChangesetError",
        "ContainerError",
        "ImageError",
        "ImageFormatError",
        "ImageInUse",
        "ImageNotFound",
        "LayerError",
        "MountError",
        "OptionError",
        "ReferenceFormatError",
        "RegistryError",
        "SnapshotError",
        "TarError",
        "TransportUnavailable",
        "UnionFSError",
    ),
    "unionfs.image.registry.client": ("RegistryOptions",),
    "unionfs.image.registry.pull": ("Pulled",),
    "unionfs.image.registry.push": ("Pushed",),
    "unionfs.image.registry.search": ("Match",),
    "unionfs.image.registry.transfer": ("Transfer",),
    "unionfs.image.results": ("Fault", "HistoryRow", "ImageSummary", "Loaded", "Pruned", "Removed"),
    "unionfs.image.store": ("Store",),
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
