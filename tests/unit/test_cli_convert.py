"""`unionfs convert`: text, JSON, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_runner import call, refused
from tests.unit.upkeep_rig import store

Capture = pytest.CaptureFixture[bytes]


def test_it_tells_how_much_was_changed(capsysbinary: Capture, tmp_path: Path) -> None:
    layer = store(tmp_path / "layer", "dev f", "dir d opaque=y impure=y")
    ran = call(capsysbinary, "convert", "--to", "aufs", layer)
    assert (ran.status, ran.out, ran.err) == (0, b"aufs, user: 5 changes\n", b"")
    assert sorted(os.listdir(layer)) == [".wh..wh.aufs", ".wh.f", "d"] and os.listdir(layer / "d") == [".wh..wh..opq"]
    assert call(capsysbinary, "convert", "--to", "aufs", layer).out == b"aufs, user: 0 changes\n"


def test_json_follows_its_schema(capsysbinary: Capture, tmp_path: Path) -> None:
    layer = store(tmp_path / "layer", "dev f")
    ran = call(capsysbinary, "convert", "--to", "xattr", "--xattrs", "user", "--json", layer)
    told = schemas.Convert.model_validate_json(ran.out)
    assert (told.encoding, told.xattrs, told.steps) == ("xattr", "user", 2)


def test_a_refusal_names_the_path(capsysbinary: Capture, tmp_path: Path) -> None:
    layer = store(tmp_path / "layer", "dir d redirect=/e")
    refused(call(capsysbinary, "convert", "--to", "aufs", layer), 1, "/d: overlay.redirect", "nothing was changed")


def test_an_unknown_encoding_is_a_usage_error(capsysbinary: Capture, tmp_path: Path) -> None:
    refused(call(capsysbinary, "convert", "--to", "ext4", tmp_path), 2, "'--to'", "convert --help")
    refused(call(capsysbinary, "convert", tmp_path), 2, "missing option '--to'", "convert --help")
