"""What FUSE this kernel speaks, found out by a mount that is never served: only its INIT is read."""

from __future__ import annotations

import os
import select

from unionfs.errors import MountError, TransportUnavailable
from unionfs.transport import MountOptions
from unionfs.transport.devfuse import abi, channel, requests
from unionfs.transport.devfuse.requests import InitIn

#: The kernel queues INIT before mount(2) returns (fuse_fill_super); fusermount3 may take a moment.
_SECONDS = 10.0
_BUFFER = 1 << 17  # FUSE_MIN_READ_BUFFER and more


def offer(directory: bytes) -> InitIn:
    """The kernel's INIT. `directory`: an empty one of this user's, on which it is mounted for a moment.

    TransportUnavailable, MountError where there can be no mount.
    """
    fd = channel.mount(directory, MountOptions(fsname="unionfs-probe", extra=("nosuid", "nodev")))
    try:
        # Polled, so that a kernel that sends nothing does not keep us.
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_SECONDS * 1000):
            raise TransportUnavailable("the kernel sends no FUSE request", hint="see dmesg")
        buffer = os.read(fd, _BUFFER)
    finally:
        os.close(fd)  # ends the connection: whoever had looked at the mount has an error now, and nobody waits
        try:
            channel.unmount(directory, lazy=True)
        except (OSError, MountError) as error:
            raise MountError(f"{os.fsdecode(directory)} stays mounted: {error}", hint="umount it") from error
    opcode, _, _ = requests.check(buffer, len(buffer))
    if opcode != abi.Opcode.INIT:
        raise TransportUnavailable(f"the kernel begins with {requests.opcode_name(opcode)}, not with INIT")
    return requests.init(buffer, len(buffer))
