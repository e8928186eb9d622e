"""What volumes need on the host before the container starts: their sources.

    -v SOURCE:TARGET     SOURCE, made as a directory where nothing is, as docker does
    -v TARGET, VOLUME    a directory of the container's own, below its `volumes/`, with what the image has at TARGET

Whether a source fits what is at TARGET, a directory or a file, the runtime finds out: only where it mounts is it
certain what TARGET is, below links and other volumes. `misfit` says afterwards what it was, which runtimes do not.

A volume of the container's own lives as long as the container. What is copied into it are all things in TARGET with
their owners, modes, times, links and attributes; TARGET itself gives it its owner and mode. It is copied once: a crash
on the way leaves a directory without its final name, which is made anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from unionfs.containers.root_path import make_directory, resolve
from unionfs.containers.settings import Volume
from unionfs.errors import ContainerError
from unionfs.linux.path import openat2

#: In a container's directory.
VOLUMES: Final = b"volumes"
_WRONG_KIND: Final = re.compile(r"not a directory|is a directory", re.IGNORECASE)


class Misfit(NamedTuple):
    """A volume that cannot be where it was asked for: what is wrong, and what to do."""

    message: str
    hint: str


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


def misfit(volumes: Sequence[Volume], root_fd: int, said: str) -> Misfit | None:
    """Why a runtime has failed, which `said` something: a directory was to be mounted on a file, or a file on a
    directory. None where it was not that."""
    if _WRONG_KIND.search(said):
        # crun names the target without its slash.
        for volume in (one for one in volumes if one.source and one.target[1:] in said):
            with contextlib.suppress(OSError):
                if (found := _misfit_of(volume, volumes, root_fd)) is not None:
                    return found
    return None


def _misfit_of(volume: Volume, volumes: Sequence[Volume], root_fd: int) -> Misfit | None:
    source, target = volume.source, volume.target
    is_directory = os.path.isdir(source)
    try:
        mode = _mode_at(volume, volumes, root_fd)
    except NotADirectoryError:
        what = "directory" if is_directory else "file"
        return Misfit(
            f"cannot mount the {what} {source} on {target}, which is below a file in the container",
            hint="give a target whose parents are directories",
        )
    if mode is None or stat.S_ISDIR(mode) == is_directory:
        return None
    if not is_directory:
        return Misfit(
            f"cannot mount the file {source} on {target}, which is a directory in the container",
            hint=f"mount a directory there, or name the file too: -v {source}:{_inside(target, source)}",
        )
    # That is how most come here (moby's "or vice-versa" leaves it open).
    made = "" if os.listdir(source) else f"; {source} is empty: a source that is not there is made as a directory"
    return Misfit(
        f"cannot mount the directory {source} on {target}, which is a file in the container",
        hint=f"mount a file there, or the directory elsewhere{made}",
    )


def _mode_at(volume: Volume, volumes: Sequence[Volume], root_fd: int) -> int | None:
    """st_mode of what its target is before it is mounted: in the root, or in the volume that it lies in."""
    around = [other for other in volumes if other.source and volume.target.startswith(other.target + "/")]
    if not around:
        with resolve(root_fd, os.fsencode(volume.target)) as place:
            return place.mode
    outer = max(around, key=lambda other: len(other.target))
    outer_fd = os.open(outer.source, os.O_PATH | os.O_CLOEXEC)
    try:
        with resolve(outer_fd, os.fsencode(volume.target[len(outer.target) :])) as place:
            return place.mode
    finally:
        os.close(outer_fd)


def _inside(target: str, source: str) -> str:
    return os.path.join(target, os.path.basename(source))


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
