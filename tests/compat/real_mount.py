"""A mount as people make one, by the command line, on every transport; and the way from its upper to a layer and back.

What the tests on real input (test_real_*.py) share. The fixture `stack` gives a `RealStack`; every command has a time
limit, and whatever happens nothing stays mounted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.requirements import missing
from tests.rigs import connection_of, mount_line
from tests.unit.cli_runner import program

#: name -> (requirements, options of `unionfs mount`)
TRANSPORTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "devfuse": (("root", "fuse"), ("--transport", "devfuse")),
    "devfuse-cached": (("root", "fuse"), ("--transport", "devfuse", "--passthrough", "off")),
    "fusepy": (("root", "fuse", "libfuse"), ("--transport", "fusepy")),
}


def each_transport(*names: str, slow: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Parametrize the argument `transport` by `names`, or all; what a machine lacks skips with its reason."""
    params = []
    for name in names or TRANSPORTS:
        reason = missing(*TRANSPORTS[name][0])
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        params.append(pytest.param(name, marks=[*marks, *([pytest.mark.slow] if name in slow else [])]))
    return pytest.mark.parametrize("transport", params)


@dataclass
class RealStack:
    """`layers` (topmost first) below `upper`, on `mnt`. All lie in `directory`."""

    directory: Path
    transport: str
    layers: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mnt = self.directory / "mnt"
        self.mnt.mkdir()
        self.upper = self.directory / "upper"

    def lower(self) -> Path:
        """One more layer on top, to be filled before the mount."""
        path = self.directory / f"layer{len(self.layers)}"
        path.mkdir()
        self.layers.insert(0, path)
        return path

    def unionfs(self, *argv: str | Path) -> str:
        """Run a command; its stdout. AssertionError if it fails or says anything on stderr."""
        ran = program(*argv)
        assert (ran.status, ran.err) == (0, b""), f"unionfs {argv[0]}: exit {ran.status}: {ran.err.decode()}"
        return ran.out.decode()

    @contextlib.contextmanager
    def mounted(self, *options: str) -> Iterator[Path]:
        layers = [word for layer in self.layers for word in ("-l", str(layer))]
        log = self.directory / "daemon.log"
        more = (*TRANSPORTS[self.transport][1], *options)
        self.unionfs("mount", *layers, "-u", self.upper, "--log-file", log, *more, self.mnt)
        try:
            yield self.mnt
            self.unionfs("umount", self.mnt)
        finally:
            self.abort()
            said = log.read_text() if log.exists() else ""
            print(said)
        assert "Traceback" not in said, said

    def abort(self) -> None:
        """End the mount, if it is still there: its connection first, so that nobody waits for it."""
        if mount_line(self.mnt) is not None:
            with contextlib.suppress(OSError):  # where fusectl is not mounted, the lazy umount must do
                Path(f"/sys/fs/fuse/connections/{connection_of(self.mnt)}/abort").write_text("1")
            run("umount", "-l", str(self.mnt))

    def commit(self, name: str = "layer.tar") -> Path:
        """The layer of the live mount."""
        layer = self.directory / name
        # What cannot be held is warned of, and nobody writes here.
        pause = "--no-pause" if self.transport == "fusepy" else "--pause"
        said = self.unionfs("commit", self.mnt, "-o", layer, pause)
        assert said.startswith("sha256:")
        return layer


def run(*argv: str, timeout: float = 60, stdin: bytes | None = None, cwd: Path | None = None) -> str:
    """Run a command; its stdout. AssertionError with its stderr if it fails."""
    done = subprocess.run(argv, capture_output=True, timeout=timeout, input=stdin, cwd=cwd)
    assert done.returncode == 0, (
        f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout[-3000:]!r}\n{done.stderr[-3000:]!r}"
    )
    return done.stdout.decode(errors="replace")


def chroot(root: Path, *argv: str, timeout: float = 60) -> str:
    """Run a command inside; its stdout. Of the host's environment it gets nothing but a PATH."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return run("env", "-i", path, "LC_ALL=C.UTF-8", "chroot", str(root), *argv, timeout=timeout)


def debian_target() -> tuple[str, str] | None:
    """(mirror, suite) of the running system, as apt knows them; None where it has none."""
    if shutil.which("apt-get") is None:
        return None
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    wanted = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    for line in run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines():
        mirror, codename, component = line.split()
        if codename == suite and component == "main":
            return mirror, suite
    return None


# The same layer, as other programs read it ---------------------------------------------------------------------------
def extract_over(tree: Path, layer: Path, extract: Sequence[str]) -> None:
    """Put a layer on `tree` with a tar program that knows nothing of layers: what it hides goes first, by hand.

    image-spec layer.md in the fewest words: whiteouts and opaque markers are about lower layers only, and an entry of
    another type replaces what is there.
    """
    with tarfile.open(layer) as tar:
        for member in tar:
            place = tree / member.name
            hidden = [place] if not member.isdir() else []
            if place.name == ".wh..wh..opq":
                hidden = list(place.parent.iterdir()) if place.parent.is_dir() else []
            elif place.name.startswith(".wh."):
                hidden = [place.with_name(place.name[4:])]
            elif member.isdir() and (place.is_symlink() or not place.is_dir()):
                hidden = [place]
            for path in hidden:
                if os.path.lexists(path):
                    run("rm", "-rf", str(path))
    run(*extract, "--exclude=.wh.*", "-C", str(tree), "-f", str(layer), timeout=120)


GNU_TAR = ("tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--delay-directory-restore")
BSD_TAR = ("bsdtar", "-xp", "--numeric-owner", "--xattrs", "--acls")


def pack(tree: Path, archive: Path) -> None:
    """A tree as the base layer of an image, by GNU tar."""
    run("tar", "-c", "--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sort=name",
        "-C", str(tree), "-f", str(archive), ".", timeout=120)  # fmt: skip


def umoci_unpack(directory: Path, layers: Sequence[Path]) -> Path:
    """An image of `layers` (bottom first), unpacked by umoci: its root file system."""
    image = directory / "image"
    run("umoci", "init", "--layout", str(image))
    run("umoci", "new", "--image", f"{image}:real")
    for layer in layers:
        run("umoci", "raw", "add-layer", "--image", f"{image}:real", str(layer))
    run("umoci", "unpack", "--image", f"{image}:real", str(directory / "bundle"), timeout=120)
    return directory / "bundle" / "rootfs"
