"""`unionfs apply`: what it does, what it prints, and its errors."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_runner import call, refused

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
