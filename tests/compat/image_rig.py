"""A store of images of a test's own, worked with by the command line as people do, and small roots for images."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.main import main
from tests.compat.real_mount import pack
from tests.rigs import connection_of, mount_line
from tests.unit.cli_runner import PROJECT, Ran, process_of

#: A moment of the past, for images that are to be the same each time.
EPOCH = "1000000000"


@dataclass
class Images:
    """Store, cache and mounts in `directory`. `user`: who works, by number; None is who runs the tests."""

    directory: Path
    user: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = self.directory / "store"
        self.run_directory = self.directory / "run"
        self.run_directory.mkdir(mode=0o700)
        self._mounted: list[Path] = []
        if self.user is not None:
            for path in (self.directory, self.run_directory):
                os.chown(path, self.user, self.user)

    @property
    def environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        return {
            **outer,
            "PYTHONPATH": str(PROJECT),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "UNIONFS_STORE": str(self.store),
            "UNIONFS_CACHE": str(self.directory / "cache"),
            "UNIONFS_RUNTIME_DIR": str(self.run_directory),
            **self.env,
        }

    def call(self, *argv: str | Path, stdin: bytes | None = None) -> Ran:
        """`unionfs ARGV`: as a process of its own where it forks, or is another user's, else in this one, which is
        sooner."""
        if self.user is None and argv[0] != "mount":
            return self._here([os.fsdecode(argument) for argument in argv], stdin or b"")
        who = [] if self.user is None else ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        done = subprocess.run(
            [*who, *process_of(), *argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=60,
            env=self.environment,
            cwd=self.directory,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def _here(self, argv: list[str], stdin: bytes) -> Ran:
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main(argv)
        return Ran(status, *(stream.buffer.getvalue() for stream in (out, err)))

    def run(self, *argv: str | Path, stdin: bytes | None = None) -> str:
        """The stdout of a command that succeeds and says nothing on stderr, without the newline at its end."""
        ran = self.call(*argv, stdin=stdin)
        assert (ran.status, ran.err) == (0, b""), f"unionfs {' '.join(map(str, argv))}: {ran}"
        return ran.out.decode().removesuffix("\n")

    @contextlib.contextmanager
    def mounted(self, *argv: str | Path) -> Iterator[Path]:
        """`unionfs mount ARGV MNT`, unmounted at the end, whatever happens."""
        mnt = self.directory / "mnt"
        if not mnt.exists():
            mnt.mkdir()
            if self.user is not None:
                os.chown(mnt, self.user, self.user)
        self.run("mount", *argv, mnt)
        try:
            yield mnt
            self.run("umount", mnt)
        finally:
            if mount_line(mnt) is not None:
                with contextlib.suppress(OSError):
                    Path(f"/sys/fs/fuse/connections/{connection_of(mnt)}/abort").write_text("1")
                subprocess.run(["umount", "-l", mnt], check=False)

    def names(self) -> list[str]:
        """What there is, as `NAME:TAG ID`."""
        return self.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()


def web_root(root: Path, owner: int = 0) -> Path:
    """A root with nothing but busybox and a directory for pages."""
    for name in ("bin", "dev", "etc", "tmp", "var/www"):
        (root / name).mkdir(parents=True)
    program = shutil.which("busybox")
    assert program is not None
    shutil.copy(program, root / "bin/busybox")
    for applet in ("sh", "httpd", "ls", "cat"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for path in [root, *root.rglob("*")]:
        os.lchown(path, owner, owner)
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    return root


def web_tar(directory: Path, owner: int = 0) -> Path:
    """The same as a tar."""
    tar = directory / "rootfs.tar"
    root = directory / "root"
    root.mkdir()
    pack(web_root(root, owner), tar)
    return tar


def page(root: Path, path: str = "/", chrooted: bool = True) -> str:
    """What busybox's httpd in `root` answers, one request by its standard input (as inetd runs it)."""
    command = ["chroot", str(root), "/bin/httpd"] if chrooted else [str(root / "bin/busybox"), "httpd"]
    pages = "/var/www/" if chrooted else str(root / "var/www")
    done = subprocess.run(
        [*command, "-i", "-h", pages],
        input=f"GET {path} HTTP/1.0\r\n\r\n".encode(),
        capture_output=True,
        timeout=20,
        check=True,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.0 200 OK" or head.startswith(b"HTTP/1.1 200"), done.stdout
    return body.decode()
