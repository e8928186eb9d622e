"""The engines that are compared, and the argument vectors that mount them.

A peer is an argv for a stack; making the mount, proving it and removing it is `mounting`'s. Options are the ones a
user of that engine would write, the same for every workload; none is tuned to a question.

    kernel               overlayfs as distributions mount it
    kernel-redirect      overlayfs with redirect_dir=on,index=on: the settings that do what ours does by default
    fuse-overlayfs       the C engine, as root               fuse-overlayfs-user   as an ordinary user
    unionfs-fuse         the older C engine, copy-on-write
    ours-devfuse         unionfs, transport devfuse          ours-user             as an ordinary user (no passthrough)
    ours-cached          the same, --passthrough off         ours-fusepy           unionfs, transport fusepy
    ours-tars            the layers as tars                  ratarmount            another engine for tars (tars.py)

`tar-sha256sum`, `skopeo` and `diff` are no engines but what commits, images and comparisons are measured beside; they
take part in those workloads only.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import USER_ID

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Stack:
    """What is to be mounted. `lowers` topmost first, all children of `base`; `upper` and `work` absolute."""

    base: Path
    lowers: Sequence[Path]
    upper: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """A program that makes a mount. `stays`: it serves the mount until unmounted; else it returns once mounted."""

    argv: Sequence[str]
    stays: bool
    cwd: str = "/"


@dataclass(frozen=True, slots=True)
class Peer:
    """One engine. `fstypes`: what mountinfo may call its mounts. `launch(stack, mountpoint)` for all workloads but
    one; `ready_launch` is the command a user would type, which returns once the mount is usable."""

    name: str
    title: str
    fstypes: frozenset[str]
    version: Callable[[], str]
    missing: Callable[[], str | None]
    launch: Callable[[Stack, Path], Launch]
    ready_launch: Callable[[Stack, Path], Launch]
    user: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    #: It reads the layers as tars; see tars.py.
    packed: bool = False


# --- the kernel ------------------------------------------------------------------------------------------------------


def _kernel_missing() -> str | None:
    with open("/proc/filesystems", encoding="ascii") as file:
        return None if "\toverlay\n" in file.read() else "overlayfs is not in this kernel"


def _kernel(name: str, title: str, extra: str) -> Peer:
    def launch(stack: Stack, mountpoint: Path) -> Launch:
        # Relative lower names: mount(2) takes one page of options, which 64 absolute paths would overflow.
        lowers = ":".join(os.path.relpath(lower, stack.base) for lower in stack.lowers)
        options = f"lowerdir={lowers},upperdir={stack.upper},workdir={stack.work}{extra}"
        return Launch(["mount", "-t", "overlay", "overlay", "-o", options, str(mountpoint)], False, str(stack.base))

    return Peer(
        name, title, frozenset({"overlay"}), lambda: f"Linux {os.uname().release}", _kernel_missing, launch, launch
    )


# --- the C engines ---------------------------------------------------------------------------------------------------


def _program_missing(program: str, package: str, user: bool = False) -> Callable[[], str | None]:
    def missing() -> str | None:
        if shutil.which(program) is None:
            return f"no program {program} (Debian package {package})"
        return _device_missing(user)

    return missing


def _device_missing(user: bool) -> str | None:
    """Why /dev/fuse cannot be used by root, or by `USER_ID`, or None."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if user and os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        return f"/dev/fuse may not be opened by uid {USER_ID} (chmod 666 /dev/fuse)"
    if user and shutil.which("fusermount3") is None:
        return "no program fusermount3 (Debian package fuse3)"
    return None


def _version_of(*argv: str, pattern: str) -> Callable[[], str]:
    def version() -> str:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=30)
        match = re.search(pattern, done.stdout + done.stderr)
        return match.group(0) if match else "unknown version"

    return version


def _fuse_overlayfs(name: str, program: str, *, user: bool) -> Peer:
    def launch(stack: Stack, mountpoint: Path, *, stays: bool = True) -> Launch:
        lowers = ":".join(map(str, stack.lowers))
        options = f"lowerdir={lowers},upperdir={stack.upper},workdir={stack.work}"
        return Launch([program, *(["-f"] if stays else []), "-o", options, str(mountpoint)], stays)

    return Peer(
        name,
        "fuse-overlayfs" + (", as a user" if user else ""),
        frozenset({"fuse.fuse-overlayfs"}),
        _version_of(program, "--version", pattern=r"fuse-overlayfs: version \S+"),
        _program_missing(program, "fuse-overlayfs", user),
        launch,
        lambda stack, mountpoint: launch(stack, mountpoint, stays=False),
        user,
    )


def _unionfs_fuse(program: str) -> Peer:
    def launch(stack: Stack, mountpoint: Path, *, stays: bool = True) -> Launch:
        branches = ":".join([f"{stack.upper}=RW", *(f"{lower}=RO" for lower in stack.lowers)])
        return Launch([program, *(["-f"] if stays else []), "-o", "cow,use_ino", branches, str(mountpoint)], stays)

    return Peer(
        "unionfs-fuse",
        "unionfs-fuse",
        frozenset({"fuse.unionfs-fuse", "fuse.unionfs"}),
        _version_of(program, "--version", pattern=r"unionfs-fuse version: \S+"),
        _program_missing(program, "unionfs-fuse"),
        launch,
        lambda stack, mountpoint: launch(stack, mountpoint, stays=False),
    )


# --- ours ------------------------------------------------------------------------------------------------------------


def command_line() -> list[str] | None:
    """The argv of our `unionfs`: the package installed for this interpreter, else this tree's `cli`.

    Never the `unionfs` on PATH: Debian's package unionfs-fuse has a program of that name.
    """
    for module in ("unionfs_cli", "cli"):
        if importlib.util.find_spec(module) and importlib.util.find_spec(f"{module}.main"):
            return [sys.executable, "-c", f"from {module}.program import program; program()"]
    return None


def _mount_helper(interpreter: str) -> list[str]:
    """The argv of our `unionfs-mount`: what its console script runs, with no import of the command line's."""
    return [interpreter, "-c", "import sys; from unionfs.api.mount_helper import main; sys.exit(main())"]


def _interpreter_for_users() -> str | None:
    """A Python ≥ 3.11 that an ordinary user may execute: this one, or the system's; None if neither.

    Interpreters below root's home directory are not. Nothing but the standard library is needed of it.
    """
    for program in (sys.executable, "/usr/bin/python3"):
        real = Path(program).resolve()
        places = {*Path(program).parents, *real.parents, real}
        if real.exists() and all(place.stat().st_mode & 0o001 for place in places):
            check = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([program, "-c", check], check=False).returncode == 0:
                return program
    return None


def our_environment() -> dict[str, str]:
    """What a child needs to import this tree: the repository first on the path, whatever the working directory."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": ":".join(paths)}


def _our_version() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    import unionfs

    return f"unionfs {unionfs.__version__}" + (f" ({done.stdout.strip()})" if done.returncode == 0 else "")


def _ours(name: str, title: str, transport: str, *options: str, user: bool = False) -> Peer:
    def missing() -> str | None:
        if command_line() is None:
            return "the command line of this tree cannot be imported"
        if transport == "fusepy" and importlib.util.find_spec("fuse") is None:
            return "no Python module fuse (pip install fusepy)"
        if user and _interpreter_for_users() is None:
            return f"no Python ≥ 3.11 that uid {USER_ID} may run (Debian package python3)"
        return _device_missing(user)

    def command(stack: Stack, mountpoint: Path, *, stays: bool) -> Launch:
        lowers = [word for lower in stack.lowers for word in ("-l", str(lower))]
        places = [*lowers, "-u", str(stack.upper), "-w", str(stack.work)]
        words = ["--transport", transport, *options, *(["-f"] if stays else [])]
        return Launch([*(command_line() or ()), "mount", *places, *words, str(mountpoint)], stays)

    def helper(stack: Stack, mountpoint: Path, *, stays: bool) -> Launch:
        lowers = ":".join(map(str, stack.lowers))
        values = f"lowerdir={lowers},upperdir={stack.upper},workdir={stack.work}"
        interpreter = (user and _interpreter_for_users()) or sys.executable
        return Launch([*_mount_helper(interpreter), *(["-f"] if stays else []), "-o", values, str(mountpoint)], stays)

    # The helper's transport is the default one. It is what a user of a container runtime waits for, so it is what
    # `mount-ready` times; and the only one an ordinary user's bare interpreter can import.
    served = helper if user else command
    ready = helper if user or (transport, options) == ("devfuse", ()) else command
    return Peer(
        name,
        title,
        frozenset({"fuse.unionfs"}),
        _our_version,
        missing,
        lambda stack, mountpoint: served(stack, mountpoint, stays=True),
        lambda stack, mountpoint: ready(stack, mountpoint, stays=False),
        user,
        our_environment(),
    )


# --- what commit and the image store are measured beside -------------------------------------------------------------


def _no_mount(stack: Stack, mountpoint: Path) -> Launch:
    raise AssertionError("a tool mounts nothing; workloads name it in `only`")


def _tool(name: str, title: str, pattern: str, programs: Mapping[str, str]) -> Peer:
    """`programs`: with their Debian packages; the version is the first's, by `pattern`."""

    def missing() -> str | None:
        absent = [program for program in programs if shutil.which(program) is None]
        return f"no program {absent[0]} (Debian package {programs[absent[0]]})" if absent else None

    version = _version_of(next(iter(programs)), "--version", pattern=pattern)
    return Peer(name, title, frozenset(), version, missing, _no_mount, _no_mount)


TAR = _tool("tar-sha256sum", "tar -cf - | sha256sum", r"tar \(.*", {"tar": "tar", "sha256sum": "coreutils"})
SKOPEO = _tool("skopeo", "skopeo", r"skopeo version \S+", {"skopeo": "skopeo"})
DIFF = _tool("diff", "diff -rq", r"diff \(.*", {"diff": "diffutils"})
TOOLS = frozenset((TAR.name, SKOPEO.name, DIFF.name))


def all_peers(programs: Mapping[str, str] | None = None) -> dict[str, Peer]:
    """Every peer by name, in the order they are run and shown. `programs` replaces an engine's program by another
    build of it: {"fuse-overlayfs": "/opt/bin/fuse-overlayfs"}."""
    from benchmarks import tars  # which is made of this module

    use = {name: name for name in ("fuse-overlayfs", "unionfs-fuse", "ratarmount")} | dict(programs or {})
    peers = [
        _kernel("kernel", "overlayfs", ""),
        _kernel("kernel-redirect", "overlayfs, redirect_dir=on,index=on", ",redirect_dir=on,index=on"),
        _fuse_overlayfs("fuse-overlayfs", use["fuse-overlayfs"], user=False),
        _fuse_overlayfs("fuse-overlayfs-user", use["fuse-overlayfs"], user=True),
        _unionfs_fuse(use["unionfs-fuse"]),
        _ours("ours-devfuse", "ours", "devfuse"),
        _ours("ours-cached", "ours, passthrough off", "devfuse", "--passthrough", "off"),
        _ours("ours-user", "ours, as a user", "devfuse", user=True),
        _ours("ours-fusepy", "ours, fusepy", "fusepy"),
        tars.our_tars(),
        tars.ratarmount(use["ratarmount"]),
        TAR,
        SKOPEO,
        DIFF,
    ]
    return {peer.name: peer for peer in peers}
