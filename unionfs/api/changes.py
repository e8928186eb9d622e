"""What an upper changes: listed (`diff`), written as an OCI layer tar (`commit`), put on a directory (`apply`).

`diff` and `commit` take a live mount, a container, or the layers and the upper of a stack that is not mounted. They
open the same directories once more, read-only. The changes of a mount are held meanwhile (`unionfs.api.hold`), so that
they are those of one moment; without that, somebody who goes on writing may be seen in part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from unionfs.api import HOLD_SECONDS
from unionfs.api.container_changes import Target, find_target
from unionfs.api.container_inside import call_inside, is_elsewhere
from unionfs.api.hold import Held, held
from unionfs.api.layers import LayerSpec, StackSpec, open_layer, plan
from unionfs.api.mounting import find_stack
from unionfs.api.snapshot import pays, snapshot
from unionfs.api.union import open_union
from unionfs.changeset.apply import AppliedLayer
from unionfs.changeset.apply import apply as _apply
from unionfs.changeset.change import Change, Kind
from unionfs.changeset.compression import Compression
from unionfs.changeset.diff import diff as _diff
from unionfs.changeset.tar_writer import write_layer
from unionfs.errors import LayerError, MountError
from unionfs.layers.layer import Layer
from unionfs.overlay import UnionOptions
from unionfs.vfs import Attr, Filesystem

__all__ = [
    "AppliedLayer",
    "CommitResult",
    "Progress",
    "OnHold",
    "apply",
    "changed",
    "changed_stack",
    "check_outside",
    "commit",
    "commit_spec",
    "diff",
    "diff_spec",
    "holding",
]

#: Called now and then with the bytes done so far.
Progress = Callable[[int], None]
#: Called with the hold once there is one, or was to be: see Held.warnings.
OnHold = Callable[[Held], None]


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A layer that was written.

    `diff_id` is the digest of the uncompressed tar, `digest` and `size` are of the bytes in the file `path`, all as
    "sha256:…". `entries` counts the members of the tar. `held_seconds`: for how long the changes of a mount were held;
    None where they were not. `unfrozen`, `unseen`: see Held.
    """

    path: bytes
    diff_id: str
    digest: str
    size: int
    uncompressed_size: int
    media_type: str
    entries: int
    held_seconds: float | None = None
    unfrozen: tuple[int, ...] = ()
    unseen: int = 0


def diff(
    mountpoint: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: OnHold | None = None,
) -> list[Change]:
    """What the upper changes, in order of paths, as `docker diff` lists it.

    Give a live mount, the name of a container, or the layers (topmost first) and the upper, with its work directory,
    which knows of hard links, unless that is UPPER.work. `store`: where containers, and images among the layers, are
    looked for. MountError, ContainerError or LayerError where they are not there. `pause`: hold the mount's changes
    meanwhile, for `pause_limit` seconds at most; MountError where that is not enough.
    """
    spec, place, container = changed(mountpoint, layers, upper, work, store)
    if container is not None and is_elsewhere(container):
        told = call_inside(
            container,
            lambda: [
                [os.fsdecode(change.path), change.kind, change.attr, change.was]
                for change in diff(mountpoint, store=store, pause=pause, pause_limit=pause_limit, on_hold=on_hold)
            ],
        )
        return [
            Change(os.fsencode(path), Kind(kind), None if attr is None else Attr(*attr), was)
            for path, kind, attr, was in told
        ]
    with holding(place, pause, pause_limit, on_hold):
        found = diff_spec(spec)
    return found if container is None else container.made_by_people(found)


def commit(
    mountpoint: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    output: LayerSpec,
    compression: Compression | None = None,
    clamp_mtime: int | None = None,
    skip_sockets: bool = False,
    progress: Progress | None = None,
    store: LayerSpec | None = None,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: OnHold | None = None,
) -> CommitResult:
    """Write what the upper changes as an OCI layer tar to the file `output`.

    The stack, and the pause, as in `diff`. `compression` None goes by the suffix (.tar, .tar.gz, .tar.zst).
    `clamp_mtime`: no later time (in seconds, SOURCE_DATE_EPOCH) is written. The same changes give the same bytes.
    Atomic: `output` appears complete, or stays as it was. ChangesetError names what a layer cannot hold.
    """
    spec, place, container = changed(mountpoint, layers, upper, work, store)
    if container is not None and is_elsewhere(container):
        # Without the progress: it is this process's to show.
        told = call_inside(
            container,
            lambda: _told(
                commit(
                    mountpoint, output=output, compression=compression, clamp_mtime=clamp_mtime,
                    skip_sockets=skip_sockets, store=store, pause=pause, pause_limit=pause_limit, on_hold=on_hold,
                )
            ),
        )  # fmt: skip
        return CommitResult(**{**told, "path": os.fsencode(told["path"]), "unfrozen": tuple(told["unfrozen"])})
    return commit_spec(
        spec,
        output,
        Holding(place, pause, pause_limit, on_hold),
        compression=compression,
        clamp_mtime=clamp_mtime,
        skip_sockets=skip_sockets,
        progress=progress,
    )


def _told(result: CommitResult) -> dict[str, Any]:
    """As JSON, for another process."""
    return asdict(result) | {"path": os.fsdecode(result.path)}


def apply(
    file: LayerSpec,
    directory: LayerSpec,
    *,
    owner: bool | None = None,
    skip_devices: bool = False,
    progress: Progress | None = None,
) -> AppliedLayer:
    """Apply the layer tar `file` (plain, gzip, zstd, bzip2 or xz) to the tree `directory`.

    `owner`: set owners and privileged attributes; None means if root. `skip_devices`: leave out devices that may not
    be made, instead of failing. Nothing outside of `directory` is touched, whatever the tar holds; TarError for what
    no layer may hold. Not atomic: a failure leaves what was applied so far, and applying the whole again mends that.
    """
    return _apply(os.fsencode(file), os.fsencode(directory), progress=progress, owner=owner, skip_devices=skip_devices)


def diff_spec(spec: StackSpec) -> list[Change]:
    """`diff` of a checked stack."""
    with views(spec) as (before, after, upper):
        return list(_diff(before, after, upper))


class Holding(NamedTuple):
    """How the changes of the mount on `place` wait, as in `diff`. None: there is no mount."""

    place: LayerSpec | None = None
    pause: bool = True
    limit: float = HOLD_SECONDS
    on_hold: OnHold | None = None


def commit_spec(
    spec: StackSpec,
    output: LayerSpec,
    asked: Holding,
    *,
    compression: Compression | None,
    clamp_mtime: int | None,
    skip_sockets: bool,
    progress: Progress | None,
) -> CommitResult:
    """`commit` of a checked stack."""
    path = os.path.abspath(os.fsencode(output))
    if asked.place is not None and asked.pause:
        check_outside(output, asked.place)
    copied = asked.place is not None and asked.pause and pays(spec)
    with (
        holding(asked.place, asked.pause, asked.limit, asked.on_hold) as hold,
        snapshot(spec, hold, copied) as seen,
        views(seen) as (before, after, upper),
    ):
        written = write_layer(
            before,
            after,
            upper,
            path,
            compression,
            clamp_mtime=clamp_mtime,
            skip_sockets=skip_sockets,
            progress=progress,
            all_read=hold.end,
        )
    return CommitResult(
        path,
        written.diff_id,
        written.digest,
        written.size,
        written.uncompressed_size,
        written.media_type,
        written.entries,
        hold.seconds,
        hold.unfrozen,
        hold.unseen,
    )


def changed(
    mountpoint: LayerSpec | None,
    layers: Iterable[LayerSpec],
    upper: LayerSpec | None,
    work: LayerSpec | None,
    store: LayerSpec | None = None,
) -> tuple[StackSpec, LayerSpec | None, Target | None]:
    """`changed_stack`, where it is mounted, and the container that it is of: `mountpoint` may be the name of one."""
    if mountpoint is not None and not (layers or upper or work):
        container = find_target(mountpoint, store)
        if container is not None:
            return container.spec, container.mountpoint, container
    return changed_stack(mountpoint, layers, upper, work, store), mountpoint, None


def changed_stack(
    mountpoint: LayerSpec | None,
    layers: Iterable[LayerSpec],
    upper: LayerSpec | None,
    work: LayerSpec | None,
    store: LayerSpec | None = None,
) -> StackSpec:
    """The stack of a live mount, or of layers and an upper; the one or the other."""
    layers = tuple(layers)
    if mountpoint is not None:
        if layers or upper is not None or work is not None:
            raise LayerError("a mountpoint and layers given at once", hint="give one or the other")
        return find_stack(mountpoint)
    if not layers or upper is None:
        raise LayerError("neither a mountpoint nor layers and an upper given", hint="give MOUNTPOINT, or -l and -u")
    return plan(layers, upper, work, read_only=True, store=store)


@contextmanager
def holding(mountpoint: LayerSpec | None, pause: bool, limit: float, on_hold: OnHold | None) -> Iterator[Held]:
    """`held`, where there is a mount."""
    if mountpoint is None:
        yield Held(None, limit)
        return
    with held(mountpoint, pause, limit=limit) as hold:
        if on_hold is not None:
            on_hold(hold)
        yield hold


def check_outside(output: LayerSpec, mountpoint: LayerSpec) -> None:
    """What is written into the mount would wait for its own end."""
    directory = os.path.dirname(os.path.abspath(os.fsencode(output)))
    try:
        inside = os.stat(directory).st_dev == os.stat(mountpoint).st_dev
    except FileNotFoundError:
        return  # it cannot be written either, and that will be said
    if inside:
        raise MountError(
            f"{os.fsdecode(output)} lies in the mount whose changes are held meanwhile",
            hint="write it to a place outside, or commit with --no-pause",
        )


@contextmanager
def views(spec: StackSpec) -> Iterator[tuple[Filesystem, Filesystem, Layer]]:
    """The tree of the lowers alone, the whole tree, and the upper as it is stored, of a checked stack."""
    if spec.upper is None:
        raise LayerError("a stack that has no upper has no changes", hint="give an upper")
    with ExitStack() as stack:
        # Metacopies are looked for everywhere: few files are looked at.
        before = open_union(StackSpec(spec.lowers, owners=spec.owners), UnionOptions(metacopy=True))
        stack.callback(before.close)
        after = open_union(spec._replace(read_only=True), UnionOptions(metacopy=True))
        stack.callback(after.close)
        upper = open_layer(spec.upper)
        if spec.owners is not None:
            upper = spec.owners.lower(upper)
        stack.callback(upper.close)
        yield before, after, upper
