"""Mounts: make one (in the background or not), list them, have one notice changed layers, remove one.

`mount` checks everything that can be checked first, so that the usual mistakes are reported at once and with a hint,
and only then forks the daemon (`unionfs.mounts.daemon`), which opens the layers and serves the union through a
transport. What a command needs to know of a live mount stands in the registry (`unionfs.mounts.registry`).

This module imports little, for `unionfs-mount`: from exec to a usable mount there are 150 ms. That is also why its
values, and those of what it imports, are named tuples: `dataclasses` costs a tenth of that, and each class two.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from unionfs.api.describing import describe
from unionfs.api.layers import (
    IMAGES_OPTION,
    LayerSpec,
    StackSpec,
    images_option,
    parts_of,
    plan,
    remove_temporary,
)
from unionfs.api.union import open_union
from unionfs.errors import MountError, OptionError, ProtocolError, UnionFSError
from unionfs.mounts import daemon, helper
from unionfs.mounts.control import ControlServer, Handler, Leased, LeaseHandler, StreamHandler, Streaming, request
from unionfs.mounts.hold import Holds
from unionfs.mounts.mountpoint import Holder, check_dev_fuse, check_mountpoint, detach
from unionfs.mounts.mountpoint import umount as _umount
from unionfs.mounts.registry import Mounted, MountRecord, Registry
from unionfs.mounts.tracing import Listeners
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.transport import MountOptions
from unionfs.vfs import Filesystem

if TYPE_CHECKING:
    from unionfs.api.owners import Owners

TRANSPORTS = ("auto", "devfuse", "fusepy")
#: A refresh reads every directory in use, and waits for copy-ups that hold a directory.
REMOUNT_SECONDS = 600.0
#: A commit that takes longer should not have all who write wait for it.
LONGEST_HOLD_SECONDS = 86_400.0
State = Literal["live", "dead", "foreign", "detached"]

#: How the options of a record begin that are not those of the mount, but ours.
OWN_OPTIONS = "unionfs."
#: Where upper and work of an ephemeral mount lie, to be removed after a daemon that was killed.
TEMPORARY_OPTION = "unionfs.temporary"


class Serve(Protocol):
    """The one function of a transport; see `unionfs.transport`."""

    def __call__(self, fs: Filesystem, mountpoint: bytes, options: MountOptions, ready: Callable[[], None]) -> None: ...


class MountRequest(NamedTuple):
    """A mount as asked for. `options` are mount options as `-o` has them, layers and flags already taken out."""

    mountpoint: bytes
    layers: tuple[LayerSpec, ...]
    upper: LayerSpec | None = None
    work: LayerSpec | None = None
    read_only: bool = False
    ephemeral: bool = False
    options: Mapping[str, str | None] = helper.NO_OPTIONS
    transport: str = "auto"
    passthrough: bool = True
    foreground: bool = False
    nonempty_ok: bool = False
    log_file: bytes | str | None = None
    debug: bool = False
    force: bool = False
    store: LayerSpec | None = None


class MountResult(NamedTuple):
    """A mount that is ready. `pid` is its daemon's; `upper` and `work` are None where nothing can be written."""

    mountpoint: bytes
    pid: int
    transport: str
    layers: tuple[bytes, ...]
    upper: bytes | None
    work: bytes | None


class MountStatus(NamedTuple):
    """A mount as it is now.

    `state`: live; dead (its daemon is gone, every access is ENOTCONN); foreign (no record of it is readable here);
    detached (unmounted lazily and still in use). `started` in seconds since the epoch. `statistics` are the counters of
    a live mount that answers.
    """

    mountpoint: bytes
    state: State
    read_only: bool
    pid: int | None = None
    layers: tuple[bytes, ...] = ()
    upper: bytes | None = None
    work: bytes | None = None
    transport: str | None = None
    options: Mapping[str, str | None] = helper.NO_OPTIONS
    started: float | None = None
    statistics: dict[str, int] | None = None


class RemountResult(NamedTuple):
    """What `remount` noticed. `inodes`: in use, and read again. `gone`: known names that lead to nothing or to another
    object now; `come`: names known to be missing that are there now. `dropped`: of how many names and inodes the kernel
    dropped what it had cached; None where it cannot be told (fusepy)."""

    mountpoint: bytes
    inodes: int
    gone: int
    come: int
    dropped: int | None


def choose_transport(name: str = "auto") -> tuple[str, Serve]:
    """The transport and its `serve`. "auto" is devfuse on Linux, which needs no library, and fusepy elsewhere.

    OptionError for an unknown name, TransportUnavailable where the library or the device is missing.
    """
    if name not in TRANSPORTS:
        raise OptionError(f"unknown transport {name!r}", hint=f"one of {', '.join(TRANSPORTS)}")
    check_dev_fuse()
    if name == "auto":
        name = "devfuse" if sys.platform == "linux" else "fusepy"
    # Imported when chosen: fusepy loads libfuse, which need not be there.
    if name == "devfuse":
        from unionfs.transport import devfuse

        return name, devfuse.serve
    from unionfs.transport import fusepy

    return name, fusepy.serve


# mount ----------------------------------------------------------------------------------------------------------------
def mount(
    mountpoint: LayerSpec,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    *,
    options: Iterable[str] = (),
    read_only: bool = False,
    ephemeral: bool = False,
    transport: str = "auto",
    passthrough: bool = True,
    foreground: bool = False,
    nonempty_ok: bool = False,
    log_file: bytes | str | None = None,
    debug: bool = False,
    force: bool = False,
    store: LayerSpec | None = None,
) -> MountResult:
    """Mount `layers` (topmost first) under `upper` on the directory `mountpoint`.

    `options` are texts as given to `-o`; they may name layers, upper and work too, if the arguments do not. Returns
    when the mount can be used; with `foreground` when it has been unmounted. `force`: use an upper that a volatile
    mount has left, which is refused otherwise. `store`: where images among the layers are looked for by name.

    Raises LayerError, MountError (TransportUnavailable among them) or OptionError; then nothing stays mounted.
    The process forks: call this before starting threads.
    """
    given = helper.from_options([pair for text in options for pair in helper.parse_mount_options(text)])
    if given.unknown:
        raise OptionError(f"unknown mount option {given.unknown[0]!r}", hint="unionfs mount --help")
    layers = tuple(layers)
    for what, here, there in (
        ("layers", layers, given.lowers),
        ("the upper", upper, given.upper),
        ("the work directory", work, given.work),
    ):
        if here and there:
            raise OptionError(f"{what} given twice", hint="use the option or -o, not both")
    return run(
        MountRequest(
            mountpoint=os.fsencode(mountpoint),
            layers=layers or given.lowers,
            upper=upper or given.upper,
            work=work or given.work,
            read_only=read_only or given.read_only,
            ephemeral=ephemeral,
            options=given.options,
            transport=transport,
            passthrough=passthrough,
            foreground=foreground,
            nonempty_ok=nonempty_ok,
            log_file=log_file,
            debug=debug,
            force=force,
            store=store,
        )
    )


def run(asked: MountRequest) -> MountResult:
    """`mount` for a request that is already taken apart."""
    options = asked.options
    mountpoint = check_mountpoint(asked.mountpoint, asked.nonempty_ok or "nonempty" in options)
    registry = Registry()
    union_options, owners = union_options_of(options)._replace(force=asked.force), owners_of(options)
    log_file = options.get("log_file") or asked.log_file
    spec = plan(
        asked.layers,
        asked.upper,
        asked.work,
        read_only=asked.read_only,
        ephemeral=asked.ephemeral,
        registry=registry,
        store=asked.store,
    )._replace(owners=owners)
    try:
        _check_outside_layers(mountpoint, spec)
        transport, serve = choose_transport(options.get("transport") or asked.transport)

        holds = Holds()

        def serve_union(ready: Callable[[], None]) -> None:
            _serve(asked, spec, union_options, transport, serve, mountpoint, registry, holds, ready)

        def unmount(lazy: bool) -> None:
            holds.end()  # who is frozen, or waits, uses the mount
            detach(mountpoint, lazy)

        if asked.foreground:
            daemon.run_in_foreground(serve_union, mountpoint, log_file=log_file, debug=asked.debug, unmount=unmount)
            pid = os.getpid()
        else:
            pid = daemon.run_in_background(serve_union, mountpoint, log_file=log_file, unmount=unmount)
    except BaseException:
        if spec.temporary is not None:
            remove_temporary(spec.temporary)
        raise
    return MountResult(mountpoint, pid, transport, spec.lowers, spec.upper, spec.work)


def _serve(
    asked: MountRequest,
    spec: StackSpec,
    union_options: UnionOptions,
    transport: str,
    serve: Serve,
    mountpoint: bytes,
    registry: Registry,
    holds: Holds,
    ready: Callable[[], None],
) -> None:
    """The life of a daemon: claim the upper, only then open the layers (which sweeps the work directory), and serve."""
    listeners = Listeners()
    shown = dict(asked.options)
    if spec.temporary is not None:
        shown[TEMPORARY_OPTION] = os.fsdecode(spec.temporary)
    if spec.images:
        shown[IMAGES_OPTION] = images_option(spec.images)
    record = MountRecord.for_this_process(mountpoint, spec.lowers, spec.upper, spec.work, transport, shown, time.time())
    try:
        with registry.claim(record) as entry:
            fs = open_union(spec, union_options)
            if _is_on(asked.options, "layer_xattrs", default=True):
                describe(fs, spec)
            holds.attach(fs)
            listeners.attach(fs)
            handlers, streams = _handlers(fs, holds, listeners), _streams(listeners)
            try:
                with ControlServer(entry.control_path, handlers, _leases(holds), streams), _rare_collections():
                    serve(
                        fs,
                        mountpoint,
                        mount_options_of(asked, writable=spec.upper is not None and not spec.read_only),
                        ready,
                    )
                    listeners.end()  # while there is a control socket by which to say so
            finally:
                holds.end()
                listeners.end()
                fs.close()
    finally:
        if spec.temporary is not None:
            remove_temporary(spec.temporary)


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the garbage collector seldom run while a mount is served.

    A walk makes inodes that stay, and no cycles: it would look at all of them again and again to find nothing, which
    is a tenth of the walk. Not switched off, as an exception can form a cycle with its traceback.
    """
    before = gc.get_threshold()
    gc.freeze()  # what was imported stays
    gc.set_threshold(50_000, 20, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _handlers(fs: UnionFilesystem, holds: Holds, listeners: Listeners) -> dict[str, Handler]:
    def statistics(params: dict[str, object]) -> dict[str, object]:
        return {**fs.statistics(), **holds.statistics(), **listeners.statistics()}

    def remount(params: dict[str, object]) -> dict[str, object]:
        found = fs.refresh()
        inodes = len(found.nodes) + len(found.lost)
        return {"inodes": inodes, "gone": len(found.gone), "come": len(found.come), "dropped": found.dropped}

    return {"statistics": statistics, "remount": remount}


def _leases(holds: Holds) -> dict[str, LeaseHandler]:
    def hold(params: dict[str, object], peer: int) -> Leased:
        seconds = params.get("seconds")
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST_HOLD_SECONDS:
            raise ProtocolError(f"a hold lasts more than 0, and at most {LONGEST_HOLD_SECONDS:g} seconds")
        lease = holds.take(frozenset((peer,)))
        moment = lease.moment
        answer = {"unfrozen": list(moment.unfrozen), "unseen": moment.unseen}
        return Leased(answer, seconds, lambda: {"seconds": lease.release(), "whole": lease.whole})

    return {"hold": hold}


def _streams(listeners: Listeners) -> dict[str, StreamHandler]:
    def trace(params: dict[str, object]) -> Streaming:
        from unionfs.explain.trace import Filter  # few mounts ever need it

        recording = params.get("record") is True
        listener = listeners.listen(Filter.from_json(params), recording=recording)
        return Streaming(listeners.header() if recording else {"layers": listeners.layers()}, listener)

    return {"trace": trace}


def union_options_of(options: Mapping[str, str | None]) -> UnionOptions:
    """What mount options say to the engine. OptionError for a value without meaning."""
    metacopy = _is_on(options, "metacopy", default=False)
    redirect_dir = options.get("redirect_dir", "on")
    if redirect_dir not in ("on", "follow", "nofollow", "off"):
        raise OptionError(
            f"redirect_dir={redirect_dir}: not on, follow, nofollow or off", hint="redirect_dir=on or redirect_dir=off"
        )
    for key, conflicts in (("userxattr", "userxattr" in options), ("redirect_dir", redirect_dir != "on")):
        if metacopy and conflicts:  # ovl_fs_params_verify() of fs/overlayfs/params.c
            other = key if options[key] is None else f"{key}={options[key]}"
            raise OptionError(f"metacopy=on and {other} exclude each other", hint="leave one of them out")
    _is_on(options, "layer_xattrs", default=True)  # `_serve` asks again
    return UnionOptions(
        xattr_prefix=b"user." if "userxattr" in options else None,
        index=_is_on(options, "index", default=True),
        volatile="volatile" in options or options.get("fsync") in ("0", "volatile"),
        metacopy=metacopy,
        redirect_dir=redirect_dir == "on",
    )


def _is_on(options: Mapping[str, str | None], key: str, *, default: bool) -> bool:
    value = options.get(key, "on" if default else "off")
    if value not in ("on", "off"):
        raise OptionError(f"{key}={value}: not on or off", hint=f"{key}=on or {key}=off")
    return value == "on"


def owners_of(options: Mapping[str, str | None]) -> Owners | None:
    """How the layers show and store owners and modes; None for the plain way. OptionError as above."""
    if not helper.OWNER_OPTIONS & options.keys():
        return None
    from unionfs.api import owners  # few mounts need it

    return owners.owners_of(options)


def mount_options_of(asked: MountRequest, *, writable: bool) -> MountOptions:
    """What mount options say to the transport."""
    options = asked.options
    return MountOptions(
        fsname=options.get("fsname") or "unionfs",
        subtype=options.get("subtype") or "unionfs",
        read_only=asked.read_only or not writable,
        allow_other=True if "allow_other" in options else None,
        passthrough=asked.passthrough and options.get("passthrough") != "off",
        debug=asked.debug,
        extra=helper.extra_mount_flags(options),
    )


def _check_outside_layers(mountpoint: bytes, spec: StackSpec) -> None:
    """A layer that contains the mountpoint would contain the union itself, and wait for its own answer.

    A mountpoint that *is* a layer works: the layer was opened before it was covered.
    """
    place = os.path.realpath(mountpoint)
    for path in (*spec.lowers, spec.upper, spec.work):
        if path is not None and place.startswith(os.path.realpath(path).rstrip(b"/") + b"/"):
            raise MountError(
                f"mountpoint {os.fsdecode(mountpoint)} lies inside the layer {os.fsdecode(path)}",
                hint="choose a mountpoint outside of all layers",
            )


# live mounts ----------------------------------------------------------------------------------------------------------
def umount(mountpoint: LayerSpec, *, lazy: bool = False) -> tuple[Holder, ...]:
    """Unmount, and wait until the daemon is gone. A dead mount is removed, with what an ephemeral one left behind.

    The result is empty unless the daemon goes on for a copy of the mount in another mount namespace: then it names
    processes that have one. MountError where there is no unionfs mount, or it is busy.
    """
    path = os.fsencode(mountpoint)
    registry = Registry()
    found = registry.find(path)
    held = _umount(path, lazy, registry=registry)
    if found is not None and found.state == "dead" and found.record is not None:
        temporary = found.record.options.get(TEMPORARY_OPTION)
        if temporary is not None:
            remove_temporary(os.fsencode(temporary))
    return held


def remount(mountpoint: LayerSpec) -> RemountResult:
    """Have a live mount notice what has changed in its layers behind its back. What is open stays open.

    The directories given as layers themselves stay those of the mount. MountError where there is no live mount, or it
    is somebody else's.
    """
    record = live_record(os.fsencode(mountpoint))
    if record.control is None:
        raise MountError(f"the mount on {os.fsdecode(mountpoint)} has no control socket", hint="mount it again")
    answer = request(record.control, "remount", timeout=REMOUNT_SECONDS)
    counts = [answer.get(name) for name in ("inodes", "gone", "come", "dropped")]
    if not all(isinstance(count, int) for count in counts):
        raise ProtocolError("the mount's daemon did not say what it noticed")
    inodes, gone, come, dropped = map(int, counts)  # type: ignore[arg-type]  # just checked
    return RemountResult(record.mountpoint, inodes, gone, come, None if record.transport == "fusepy" else dropped)


def mounts() -> list[MountStatus]:
    """All unionfs mounts of this mount namespace, in the order in which they were made."""
    return [_status(mounted) for mounted in Registry().list_mounts()]


def find_stack(mountpoint: LayerSpec) -> StackSpec:
    """The stack behind a live mount that has an upper; MountError where there is none, or it is not ours to know."""
    spec = mounted_stack(mountpoint)
    if spec.upper is None:
        shown = os.fsdecode(mountpoint)
        raise MountError(f"the mount on {shown} has no upper", hint="without an upper there are no changes")
    return spec


def mounted_stack(mountpoint: LayerSpec) -> StackSpec:
    """The same, whether it has an upper or not."""
    path = os.fsencode(mountpoint)
    shown = os.fsdecode(path)
    record = live_record(path, "; name its -l and -u instead")
    inside = os.stat(path).st_dev
    for layer in (*record.layers, *((record.upper,) if record.upper is not None else ())):
        if os.path.isdir(layer) and os.stat(layer).st_dev == inside:
            raise MountError(
                f"{os.fsdecode(layer)}, of which the mount on {shown} is made, is covered by it",
                hint="unmount it first, then name -l and -u",
            )
    owners = owners_of(record.options)
    return StackSpec(
        record.layers,
        record.upper,
        record.work,
        read_only=True,
        owners=None if owners is None else owners.as_stored(),
        images=parts_of(record.options),
    )


def live_record(path: bytes, instead: str = "") -> MountRecord:
    """The record of a live mount; MountError where there is none, `instead` being what may be done if it is unknown."""
    found = Registry().find(path)
    shown = os.fsdecode(path)
    if found is None:
        raise MountError(f"{shown} is not a unionfs mount", hint="unionfs mounts lists them")
    if found.state == "dead":
        raise MountError(
            f"the mount on {shown} is dead: its daemon is gone",
            hint=f"unionfs umount {shown}; its upper is intact and can be used with -l and -u",
        )
    if found.record is None:
        raise MountError(f"nothing is known of the mount on {shown}", hint=f"it was made by another user{instead}")
    return found.record


def _status(mounted: Mounted) -> MountStatus:
    record = mounted.record
    if record is None:
        return MountStatus(mounted.mountpoint, mounted.state, mounted.read_only)
    return MountStatus(
        mountpoint=mounted.mountpoint,
        state=mounted.state,
        read_only=mounted.read_only,
        pid=record.pid,
        layers=record.layers,
        upper=record.upper,
        work=record.work,
        transport=record.transport,
        options={name: value for name, value in record.options.items() if not name.startswith(OWN_OPTIONS)},
        started=record.started,
        statistics=_statistics(mounted),
    )


def _statistics(mounted: Mounted) -> dict[str, int] | None:
    if mounted.state != "live" or mounted.record is None or mounted.record.control is None:
        return None
    try:
        answer = request(mounted.record.control, "statistics")
    except (MountError, ProtocolError, UnionFSError, OSError):
        return None  # it went away, or belongs to another user
    return {name: value for name, value in answer.items() if isinstance(value, int)}
