"""What volumes need on the host before the container starts: their sources.

    -v SOURCE:TARGET     SOURCE, made as a directory where nothing is, as docker does
    -v TARGET, VOLUME    a directory of the container's own, below its `volumes/`, with what the image has at TARGET

A volume of the container's own lives as long as the container. What is copied into it are all things in TARGET with
their owners, modes, times, links and attributes; TARGET itself gives it its owner and mode. It is copied once: a crash
on the way leaves a directory without its final name, which is made anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from unionfs.containers.root_path import make_directory, resolve
from unionfs.containers.settings import Volume
from unionfs.errors import ContainerError
from unionfs.linux.path import openat2

#: In a container's directory.
VOLUMES: Final = b"volumes"


def prepare(volumes: Iterable[Volume], root_fd: int, directory: bytes) -> dict[str, str]:
    """Have all sources there. Returns those of the container's own (`spec.Surroundings.volumes`), by target.

    `directory`: the container's. Idempotent. ContainerError for a source that cannot be made, and for a TARGET of the
    image that is no directory where one is needed.
    """
    own = {}
    for number, volume in enumerate(volumes):
        if volume.source:
            _make_source(volume)
        else:
            path = os.path.join(directory, VOLUMES, b"%d" % number)
            _fill(path, root_fd, volume.target)
            own[volume.target] = os.fsdecode(path)
    return own


def _make_source(volume: Volume) -> None:
    try:
        if not os.path.lexists(volume.source):
            os.makedirs(volume.source, 0o755, exist_ok=True)
        os.stat(volume.source)
    except OSError as error:
        raise ContainerError(
            f"error while creating mount source path '{volume.source}': {error.strerror}",
            hint="name a directory or file that is there, or where one can be made",
        ) from None


def _fill(path: bytes, root_fd: int, target: str) -> None:
    """The directory `path`, filled, unless it is there."""
    if os.path.isdir(path):
        return
    import shutil

    new = path + b".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new, 0o755)
    name = os.fsencode(target)
    try:
        with resolve(root_fd, name) as place:
            if place.mode is not None and not stat.S_ISDIR(place.mode):
                raise ContainerError(f"a volume cannot be on {target}, which is no directory in the image")
            found = place.mode is not None
    except (FileNotFoundError, NotADirectoryError):
        found = False  # the runtime makes it, or says why it cannot
    if found:
        # make_directory follows links as the runtime will when it mounts.
        with make_directory(root_fd, name) as fd:
            _copy(fd, new, target)
    os.rename(new, path)


def _copy(fd: int, new: bytes, target: str) -> None:
    """cp -a follows no link in what it copies, and knows all kinds of files. The dot makes it the directory's contents,
    its own owner and mode included."""
    import subprocess  # here, since most containers need none

    readable = openat2(fd, b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        copied = subprocess.run(
            ["cp", "-a", "--reflink=auto", f"/proc/self/fd/{readable}/.", new],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(readable,),
        )
    except FileNotFoundError:
        raise ContainerError("there is no cp to fill a volume with", hint="apt-get install coreutils") from None
    finally:
        os.close(readable)
    if copied.returncode:
        said = os.fsdecode(copied.stderr).strip().splitlines() or [f"exit status {copied.returncode}"]
        raise ContainerError(f"the contents of {target} cannot be copied to a volume: {said[-1]}")
