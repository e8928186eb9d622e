"""`unionfs-mount`: the mount program, with the arguments of fuse-overlayfs and of mount.fuse.

    unionfs-mount -o lowerdir=A:B,upperdir=U,workdir=W[,…] MOUNTPOINT
    unionfs-mount SOURCE MOUNTPOINT -o …

It returns 0 once the mount is usable, 1 with a message on stderr if there is none. Arguments are read by
`unionfs.mounts.helper`. No typer, rich or pydantic here or below: this runs once per container.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from unionfs import __version__
from unionfs.api.messages import one_line
from unionfs.api.mounting import MountRequest, run
from unionfs.api.streams import fill_standard_streams
from unionfs.errors import OptionError, UnionFSError
from unionfs.mounts import helper

PROGRAM = "unionfs-mount"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; default: the process's) and return the exit status."""
    if argv is None:
        fill_standard_streams()
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except UnionFSError as e:
        _say(str(e))
        if e.hint:
            print(f"hint: {one_line(e.hint)}", file=sys.stderr)
    except OSError as e:
        name = f"{os.fsdecode(e.filename)}: " if isinstance(e.filename, str | bytes) else ""
        _say(f"{name}{e.strerror or e}")
    return 1


def _has_selinux() -> bool:
    with open("/proc/filesystems", "rb") as file:
        return b"selinuxfs\n" in file.read()


def _say(message: str) -> None:
    print(f"{PROGRAM}: {one_line(message)}", file=sys.stderr)


def _main(argv: Sequence[str]) -> int:
    asked = helper.parse_argv(argv)
    for message in asked.ignored:
        _say(message)
    if asked.action == "version":
        print(f"{PROGRAM}: version {__version__}")
        return 0
    if asked.action == "help":
        print(helper.USAGE)
        return 0
    if "remount" in asked.unknown_options:
        raise OptionError(
            "only the kernel remounts",
            hint="mount -i -o remount,OPTIONS MOUNTPOINT; for changed layers: unionfs remount MOUNTPOINT",
        )
    options = dict(asked.options)
    if asked.source is not None:
        options.setdefault("fsname", os.fsdecode(asked.source))
    labels = helper.LABELS & options.keys()
    if labels and not _has_selinux():
        for label in sorted(labels):  # the kernel would refuse the mount (fs/fuse: "Unknown parameter")
            _say(f"no SELinux, so no {label}={options.pop(label)}")
    run(
        MountRequest(
            mountpoint=asked.mountpoint,
            layers=asked.lowers,
            upper=asked.upper,
            work=asked.work,
            read_only=asked.read_only,
            options=options,
            foreground=asked.foreground or asked.debug,
            # As mount(8) and fuse-overlayfs: whoever calls a mount program has decided what it covers.
            nonempty_ok=True,
            debug=asked.debug,
        )
    )
    return 0
