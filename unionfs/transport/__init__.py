"""Transports carry a `vfs.Filesystem` to the kernel. Each module offers the same one function:

    serve(fs, mountpoint, options, ready)

which mounts `fs` on the directory `mountpoint`, calls `ready()` once the mount answers, and returns after it has
been unmounted, by whomever. It closes its own descriptors, never `fs`. Set-up failures raise `MountError` or
`TransportUnavailable` with a hint, before `ready()`. It installs no signal handlers and does not fork.

A transport knows the vocabulary of `vfs` and the system calls of `linux`; it knows nothing of layers or whiteouts.
"""

from __future__ import annotations

from typing import NamedTuple


class MountOptions(NamedTuple):
    """What a mount looks like from outside, whichever transport makes it.

    `allow_other` None means: as root yes, else no. `extra` are mount options handed on as they are (nosuid, nodev …).
    `passthrough`: let the kernel do reads and writes on the backing files itself, where it can.
    """

    fsname: str = "unionfs"
    subtype: str = "unionfs"
    read_only: bool = False
    allow_other: bool | None = None
    default_permissions: bool = True
    passthrough: bool = True
    debug: bool = False
    extra: tuple[str, ...] = ()
