"""`unionfs diff` and `unionfs commit` on directories: text, JSON, files, errors."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest

from cli import schemas
from tests.unit.cli_runner import Ran, call, refused
from unionfs.api import Stack

Capture = pytest.CaptureFixture[bytes]


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A directory with two layers, and an upper that has been worked in."""
    for name, files in {"base": ("etc/motd", "etc/passwd"), "top": ("srv/index",)}.items():
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
    with Stack([tmp_path / "top", tmp_path / "base"], tmp_path / "upper") as stack:
        stack.write_text("etc/motd", "new")
        stack.unlink("etc/passwd")
        stack.mkdir(b"new-\xff")
    return tmp_path


def run(capture: Capture, changed: Path, verb: str, *more: str | Path) -> Ran:
    return call(capture, verb, "-l", changed / "top", "-l", changed / "base", "-u", changed / "upper", *more)


def test_diff_prints_lines_as_docker_does_with_names_as_they_are(capsysbinary: Capture, changed: Path) -> None:
    ran = run(capsysbinary, changed, "diff")
    assert (ran.status, ran.err) == (0, b"")
    assert ran.out == b"C /etc\nC /etc/motd\nD /etc/passwd\nA /new-\xff\n"


def test_diff_json_follows_its_schema(capsysbinary: Capture, changed: Path) -> None:
    ran = run(capsysbinary, changed, "diff", "--json")
    data = json.loads(ran.out)
    changes = {os.fsencode(change["path"]): schemas.Change.model_validate(change) for change in data}
    assert changes[b"/etc/passwd"].kind == "D" and changes[b"/etc/passwd"].mode is None
    assert (changes[b"/etc/motd"].kind, changes[b"/etc/motd"].type, changes[b"/etc/motd"].size) == ("C", "file", 3)
    assert changes[b"/new-\xff"].type == "dir" and ran.out.isascii()


def test_diff_of_an_untouched_stack_is_empty(capsysbinary: Capture, tmp_path: Path) -> None:
    for name in ("layer", "upper"):
        (tmp_path / name).mkdir()
    ran = call(capsysbinary, "diff", "-l", tmp_path / "layer", "-u", tmp_path / "upper")
    assert (ran.status, ran.out, ran.err) == (0, b"", b"")
    assert call(capsysbinary, "diff", "-l", tmp_path / "layer", "-u", tmp_path / "upper", "--json").out == b"[]\n"


def test_diff_leaves_no_work_directory_behind(capsysbinary: Capture, changed: Path) -> None:
    before = sorted(os.listdir(changed))
    run(capsysbinary, changed, "diff")
    assert sorted(os.listdir(changed)) == before


def test_commit_prints_the_diff_id(capsysbinary: Capture, changed: Path) -> None:
    ran = run(capsysbinary, changed, "commit", "-o", changed / "layer.tar.gz")
    data = gzip.decompress((changed / "layer.tar.gz").read_bytes())
    assert (ran.status, ran.err) == (0, b"")
    assert ran.lines == [f"sha256:{hashlib.sha256(data).hexdigest()}"]
    with tarfile.open(changed / "layer.tar.gz") as tar:
        assert "etc/.wh.passwd" in tar.getnames()


def test_commit_json_tells_of_tar_and_file(capsysbinary: Capture, changed: Path) -> None:
    out = changed / "layer.tar.zst"
    ran = run(capsysbinary, changed, "commit", "-o", out, "--json")
    told = schemas.Commit.model_validate_json(ran.out)
    assert told.digest == f"sha256:{hashlib.sha256(out.read_bytes()).hexdigest()}"
    assert (told.path, told.size) == (str(out), out.stat().st_size)
    assert told.media_type == "application/vnd.oci.image.layer.v1.tar+zstd"


def test_commit_compression_option_beats_the_suffix(capsysbinary: Capture, changed: Path) -> None:
    out = changed / "layer.tar"
    run(capsysbinary, changed, "commit", "-o", out, "--compression", "gzip")
    assert out.read_bytes()[:2] == b"\x1f\x8b"


def test_source_date_epoch_is_the_latest_time_written(
    capsysbinary: Capture, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    run(capsysbinary, changed, "commit", "-o", changed / "layer.tar")
    with tarfile.open(changed / "layer.tar") as tar:
        assert max(member.mtime for member in tar) == 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    refused(run(capsysbinary, changed, "commit", "-o", changed / "other.tar"), 2, "SOURCE_DATE_EPOCH", "commit --help")


def test_commit_refuses_a_socket_by_name_unless_told_to_skip_it(capsysbinary: Capture, changed: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(changed / "upper/sock"))
    ran = run(capsysbinary, changed, "commit", "-o", changed / "layer.tar")
    refused(ran, 1, "/sock: a layer tar cannot hold a socket", "--skip-sockets")
    assert not (changed / "layer.tar").exists()
    assert run(capsysbinary, changed, "commit", "-o", changed / "layer.tar", "--skip-sockets").status == 0


def test_commit_into_a_missing_directory_names_it(capsysbinary: Capture, changed: Path) -> None:
    ran = run(capsysbinary, changed, "commit", "-o", changed / "no/layer.tar")
    assert ran.status == 1 and b"No such file or directory" in ran.err and ran.out == b""


@pytest.mark.parametrize("verb", ["diff", "commit"])
def test_what_is_no_mount_is_said_to_be_none(capsysbinary: Capture, tmp_path: Path, verb: str) -> None:
    more = ("-o", tmp_path / "x.tar") if verb == "commit" else ()
    refused(call(capsysbinary, verb, tmp_path, *more), 1, f"{tmp_path} is not a unionfs mount", "unionfs mounts")


def test_a_missing_upper_is_named(capsysbinary: Capture, tmp_path: Path) -> None:
    ran = call(capsysbinary, "diff", "-l", tmp_path, "-u", tmp_path / "no")
    refused(ran, 1, f"upper {tmp_path / 'no'} does not exist")
    assert not (tmp_path / "no").exists()
