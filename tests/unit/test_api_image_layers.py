"""Images as layers: what the specifications mean, and what is refused."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from tests.unit.cli_images import Cli, tar_of
from unionfs.api import Stack, image_store
from unionfs.api.layers import ImagePart, expand, images_option, parts_of
from unionfs.errors import LayerError


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    made = Cli(capsysbinary, monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    made.import_("base:1", files={"base": b"1"})
    made.import_("example.com/app:2", files={"app": b"2"})
    return made


def listing(*specs: str | Path) -> list[str]:
    with Stack(specs) as stack:
        return sorted(stack.listdir())


def test_a_name_an_id_and_a_digest_are_images_of_the_store(cli: Cli) -> None:
    id = cli.image("inspect", "-f", "{{.Id}}", "base:1")
    digest = cli.image("ls", "--format", "{{.Digest}}", "base")
    for spec in ("base:1", "docker.io/library/base:1", id, id[7:], id[7:15], f"base@{digest}"):
        assert listing(spec) == ["base"]
    assert listing("example.com/app:2", "base:1") == ["app", "base"]


def test_layers_of_all_kinds_are_one_stack(cli: Cli, tmp_path: Path) -> None:
    cli.image("save", "--format", "oci-dir", "-o", "layout", "base:1")
    cli.image("save", "--format", "oci-archive", "-o", "oci.tar", "base:1")
    cli.image("save", "-o", "docker.tar", "base:1", "example.com/app:2")
    (tmp_path / "docker.tar.gz").write_bytes(gzip.compress((tmp_path / "docker.tar").read_bytes()))
    (tmp_path / "app.tar").write_bytes(tar_of({"tar": b""}))
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/dir").touch()
    assert listing("oci:layout") == listing("oci:layout:base:1") == listing("oci:layout:1") == ["base"]
    assert listing("oci-archive:oci.tar") == listing("oci-archive:oci.tar:base:1") == ["base"]
    assert listing("docker-archive:docker.tar:base:1") == ["base"]
    assert (
        listing("docker-archive:docker.tar.gz:example.com/app:2")
        == listing("docker-archive:docker.tar.gz:2")
        == ["app"]
    )
    assert listing("app.tar", "directory", "example.com/app:2", "oci:layout") == ["app", "base", "dir", "tar"]


def test_a_tag_is_meant_before_the_beginning_of_an_id(cli: Cli) -> None:
    for digit in "0123456789abcdef":  # one of which the other image's ID begins with
        cli.image("tag", "base:1", f"base:{digit}")
    cli.image("save", "-o", "docker.tar", "base", "example.com/app:2")
    id = cli.image("inspect", "-f", "{{.Id}}", "example.com/app:2").removeprefix("sha256:")
    if id[0] != "2":  # that tag is of both
        assert listing(f"docker-archive:docker.tar:{id[0]}") == ["base"]
    assert listing(f"docker-archive:docker.tar:{id[:12]}") == ["app"]


def test_an_archive_is_unpacked_once_and_again_when_it_changed(cli: Cli, tmp_path: Path) -> None:
    cli.image("save", "-o", "a.tar", "base:1")
    assert listing("docker-archive:a.tar") == listing("docker-archive:a.tar") == ["base"]
    stores = tmp_path / "cache/archives"
    assert len(os.listdir(stores)) == 1
    cli.image("save", "-o", "a.tar", "example.com/app:2")
    assert listing("docker-archive:a.tar") == ["app"]


def test_what_exists_is_a_path_and_what_looks_like_one_too(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "base:1").mkdir()
    assert listing("base:1") == []
    for spec in ("./base:2", "../base:1", str(tmp_path / "nonsuch")):
        with pytest.raises(LayerError, match="does not exist"):
            listing(spec)


def test_which_layers_are_of_which_image_is_known(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    lowers, parts = expand(["top", "example.com/app:2", "base:1"])
    ids = [cli.image("inspect", "-f", "{{.Id}}", name) for name in ("example.com/app:2", "base:1")]
    store = os.fsencode(cli.store)
    assert parts == (ImagePart(1, 1, ids[0], store), ImagePart(2, 1, ids[1], store))
    assert [os.path.dirname(path) for path in lowers[1:]] == [store + b"/blobs/sha256"] * 2
    assert parts_of({"unionfs.images": images_option(parts)}) == parts
    assert parts_of({}) == ()


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        (
            "nonsuch",
            "layer nonsuch does not exist",
            "no directory or layer tar has that name, and no image in the store",
        ),
        ("Upper/Case:x:y", "layer Upper/Case:x:y does not exist", "no image in the store"),
        ("oci:nonsuch", "layer oci:nonsuch: nonsuch is not a directory", "oci:PATH[:NAME]"),
        ("oci:layout:none", "layer oci:layout:none: there is no image none in it", "add one of: base:1"),
        ("oci:file", "layer oci:file: file is not a directory", "oci:PATH[:NAME]"),
        (
            "docker-archive:nonsuch",
            "layer docker-archive:nonsuch: nonsuch does not exist",
            "docker-archive:PATH[:NAME]",
        ),
        ("docker-archive:both.tar", "there are 2 images in it", "add one of: "),
        ("docker-archive:file", "file: this is no image archive", "docker save"),
        ("oci:empty", "is no image store", "OCI image layout"),
    ],
)
def test_what_is_no_image_is_refused_with_a_hint(cli: Cli, tmp_path: Path, spec: str, message: str, hint: str) -> None:
    cli.image("save", "--format", "oci-dir", "-o", "layout", "base:1")
    cli.image("save", "-o", "both.tar", "base:1", "example.com/app:2")
    (tmp_path / "file").write_bytes(b"x" * 600)
    (tmp_path / "empty/other").mkdir(parents=True)
    with pytest.raises(LayerError) as caught:
        listing(spec)
    assert message in str(caught.value) and hint in (caught.value.hint or "")
    assert spec == "docker-archive:both.tar" or not os.path.exists("cache/archives") or not os.listdir("cache/archives")


def test_what_was_just_taken_in_is_not_read_again(cli: Cli) -> None:
    store = image_store()
    (layer,) = store.resolve("base:1").layers
    added = store.cache.add(store.layout.blobs.path(layer.digest))
    assert added.digest is None  # which tells that the file was known


def test_an_image_whose_blob_is_lost_is_said_to_be_so(cli: Cli) -> None:
    with image_store().staging():
        pass
    blob = max((cli.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.unlink()
    with pytest.raises(LayerError, match=f"the blob sha256:{blob.name} is missing") as caught:
        listing("example.com/app:2", "base:1")
    assert caught.value.hint == "load the image again"
