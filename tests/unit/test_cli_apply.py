"""`unionfs apply`: what it does, what it prints, and its errors."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_runner import PROJECT, call, process_of, refused

Capture = pytest.CaptureFixture[bytes]


def layer(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/old").write_text("old")
    return tmp_path / "tree"


def test_a_layer_adds_and_deletes_and_nothing_is_printed(capsysbinary: Capture, tree: Path) -> None:
    (tree.parent / "layer.tar").write_bytes(layer(".wh.old", "new"))
    ran = call(capsysbinary, "apply", tree.parent / "layer.tar", tree)
    assert (ran.status, ran.out, ran.err) == (0, b"", b"")
    assert [path.name for path in tree.iterdir()] == ["new"]


def test_json_follows_its_schema(capsysbinary: Capture, tree: Path) -> None:
    (tree.parent / "layer.tar.gz").write_bytes(gzip.compress(layer("new")))
    ran = call(capsysbinary, "apply", "--json", tree.parent / "layer.tar.gz", tree)
    told = schemas.Apply.model_validate(json.loads(ran.out))
    assert (told.entries, told.skipped) == (1, [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"this is no tar" * 100, id="garbage"),
        pytest.param(gzip.compress(layer("a", "b"))[:-20], id="truncated gzip"),
        pytest.param(layer("a", "b")[:700], id="truncated tar"),
        pytest.param(layer("../escape"), id="a name with dot-dot"),
    ],
)
def test_a_corrupt_or_hostile_tar_is_one_error_line(capsysbinary: Capture, tree: Path, data: bytes) -> None:
    (tree.parent / "layer.tar").write_bytes(data)
    refused(call(capsysbinary, "apply", tree.parent / "layer.tar", tree), 1, "")
    assert not (tree.parent / "escape").exists()


def test_a_missing_tar_or_directory_is_named(capsysbinary: Capture, tree: Path) -> None:
    missing = tree.parent / "no.tar"
    refused(call(capsysbinary, "apply", missing, tree), 1, f"{missing}: No such file or directory")
    (tree.parent / "layer.tar").write_bytes(layer("new"))
    gone = tree / "gone"
    refused(call(capsysbinary, "apply", tree.parent / "layer.tar", gone), 1, f"{gone}: No such file or directory")


def start(*argv: str | Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*process_of(), *argv], cwd=PROJECT, stdout=subprocess.PIPE, stderr=stderr)


def test_an_interrupt_is_one_line_and_the_death_that_a_shell_looks_for(tree: Path) -> None:
    os.mkfifo(tree.parent / "layer.tar")
    # Opening the other end returns when the command has opened its own: it is at work.
    with start("apply", tree.parent / "layer.tar", tree) as process, open(tree.parent / "layer.tar", "wb"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"error: interrupted\n")


def test_progress_is_shown_on_a_terminal_only(tree: Path) -> None:
    (tree.parent / "layer.tar").write_bytes(layer("new"))
    controller, terminal = pty.openpty()
    with start("apply", tree.parent / "layer.tar", tree, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(controller, 4096):
                shown += data
        except OSError:  # EIO: the last one has closed the terminal
            pass
        assert process.stdout is not None
        assert (process.stdout.read(), process.wait(60)) == (b"", 0)
    os.close(controller)
    assert b"apply" in shown
    with start("apply", tree.parent / "layer.tar", tree) as process:
        assert process.communicate(timeout=60) == (b"", b"")
