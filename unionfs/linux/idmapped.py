"""Is what a descriptor leads to shown with other ids already, by an idmapped mount (mount_setattr(2))?"""

from __future__ import annotations

from unionfs.linux.mount import mountinfo


def is_idmapped(fd: int) -> bool:
    """False too where that mount is not in this process's mount namespace, or proc is not there to ask."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            mount_id = next((int(line.split()[1]) for line in info if line.startswith(b"mnt_id:")), -1)
        return any(row.mount_id == mount_id and b"idmapped" in row.options for row in mountinfo())
    except OSError:
        return False
