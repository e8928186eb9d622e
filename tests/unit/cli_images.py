"""A store to work with by the command line in process, and tars to fill it with."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.unit.cli_runner import Ran, call

EPOCH = 1_700_000_000  # 2023-11-14T22:13:20Z


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar of small files, as root's, of one time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), EPOCH
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Cli:
    """`unionfs` with a store and a cache of its own."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self._capture, self.directory, self.store = capture, directory, directory / "store"
        for name, value in {
            "UNIONFS_STORE": str(self.store),
            "UNIONFS_CACHE": str(directory / "cache"),
            "UNIONFS_RUNTIME_DIR": str(directory / "run"),
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "TZ": "UTC",
        }.items():
            monkeypatch.setenv(name, value)

    def call(self, *argv: str | Path) -> Ran:
        return call(self._capture, *argv)

    def run(self, *argv: str | Path) -> str:
        """The stdout of a command that succeeds and says nothing on stderr, without the newline at its end."""
        ran = self.call(*argv)
        assert (ran.status, ran.err) == (0, b""), ran
        return ran.out.decode().removesuffix("\n")

    def image(self, *argv: str | Path) -> str:
        return self.run("image", *argv)

    def import_(self, name: str | None = None, *options: str, files: dict[str, bytes] | None = None) -> str:
        """An image of a tar with `files`; its ID."""
        path = self.directory / "import.tar"
        path.write_bytes(tar_of(files or {"file": b"content"}))
        return self.image("import", *options, path, *([name] if name is not None else []))

    def names(self) -> list[str]:
        return self.image("ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
