"""`unionfs commit … NAME`: the image of a stack and its changes, without a mount."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from cli import schemas
from tests.unit.cli_images import Cli, tar_of
from tests.unit.cli_runner import Ran, refused
from tests.unit.image_rig import layer, made_image, old_docker
from unionfs.api import Stack

TIME = "2023-11-14T22:13:20Z"


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    made = Cli(capsysbinary, monkeypatch, tmp_path)
    made.import_("base:1", "-c", "ENV A=1", "-c", 'CMD ["old"]', "-m", "the base", files={"etc/motd": b"hello"})
    return made


def change(cli: Cli, *layers: str | Path, upper: str = "upper") -> Path:
    """An upper over `layers` in which something has changed."""
    with Stack(layers, cli.directory / upper) as stack:
        stack.write_text("etc/motd", "changed")
        stack.write_text("new", "new")
    return cli.directory / upper


def inspect(cli: Cli, name: str) -> dict[str, Any]:
    (image,) = json.loads(cli.image("inspect", name))
    assert isinstance(image, dict)
    return image


def config(cli: Cli, id: str) -> dict[str, Any]:
    """The image's configuration, as it is stored."""
    found = json.loads((cli.store / "blobs/sha256" / id.removeprefix("sha256:")).read_bytes())
    assert isinstance(found, dict)
    return found


def test_the_image_has_the_layers_and_the_configuration_of_its_base(cli: Cli) -> None:
    upper = change(cli, "base:1")
    id = cli.run("commit", "-l", "base:1", "-u", upper, "app:1", "-m", "why", "-a", "who", "-c", "ENV A=2 B=$A")
    image, base = inspect(cli, "app:1"), inspect(cli, "base:1")
    assert image["Id"] == id and cli.names() == ["app:1", "base:1"]
    assert (image["Author"], image["Comment"], image["Created"]) == ("who", "why", TIME)
    assert image["Config"] == {"Cmd": ["old"], "Env": ["A=2", "B=1"]}
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert config(cli, id)["history"] == [
        {"comment": "the base", "created": TIME, "created_by": ""},
        {"author": "who", "comment": "why", "created": TIME, "created_by": "unionfs commit"},
    ]
    assert cli.image("diff", "app:1").splitlines() == ["C /etc", "C /etc/motd", "A /new"]
    with Stack(["app:1"]) as stack:
        assert (stack.read_text("etc/motd"), stack.read_text("new")) == ("changed", "new")


def test_the_same_changes_make_the_same_image(cli: Cli) -> None:
    uppers = [change(cli, "base:1", upper=name) for name in ("one", "two")]
    ids = {
        cli.run("commit", "-l", "base:1", "-u", upper, name, "-m", "x")
        for upper, name in zip(uppers, "ab", strict=True)
    }
    assert len(ids) == 1
    assert sorted(cli.names()) == ["a:latest", "b:latest", "base:1"]
    assert cli.image("verify") == ""


def test_where_nothing_changed_only_the_configuration_is_new(cli: Cli) -> None:
    with Stack(["base:1"], cli.directory / "upper"):
        pass
    told = cli.run("commit", "-l", "base:1", "-u", cli.directory / "upper", "app", "-c", "USER app", "--json")
    result = schemas.CommittedImage.model_validate_json(told)
    assert (result.name, result.diff_id, result.digest, result.size) == ("app:latest", None, None, 0)
    assert config(cli, result.id)["history"][-1]["empty_layer"] is True
    assert inspect(cli, "app")["RootFS"] == inspect(cli, "base:1")["RootFS"]
    assert inspect(cli, "app")["Config"]["User"] == "app"
    assert cli.image("history", "--format", "{{.Size}}", "app").splitlines()[0] == "0B"


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_the_layer_is_stored_as_asked_for(cli: Cli, compression: str) -> None:
    upper = change(cli, "base:1")
    told = cli.run("commit", "-l", "base:1", "-u", upper, "app", "--compression", compression, "--json")
    result = schemas.CommittedImage.model_validate_json(told)
    assert (result.digest == result.diff_id) == (compression in ("auto", "none"))
    assert cli.image("verify") == ""
    with Stack(["app"]) as stack:
        assert stack.read_text("new") == "new"


def test_what_docker_said_of_the_base_is_not_said_of_the_new_image(cli: Cli, tmp_path: Path) -> None:
    base = made_image(
        "docker:1", layer(etc__motd="a"), comment="Imported from -", author="me", docker_version="20.10.24"
    )
    (tmp_path / "docker.tar").write_bytes(old_docker([base]))
    cli.image("load", "-i", tmp_path / "docker.tar")
    upper = change(cli, "docker:1")
    asked = "{{.Author}}|{{.Comment}}|{{.DockerVersion}}"
    for options, told in (((), "||"), (("-m", "why", "-a", "who"), "who|why|")):
        cli.run("commit", "-l", "docker:1", "-u", upper, "app", *options)
        assert cli.image("inspect", "-f", asked, "app") == told


def test_a_name_moves_to_the_new_image_and_the_old_one_stays(cli: Cli) -> None:
    upper = change(cli, "base:1")
    old = cli.image("inspect", "-f", "{{.Id}}", "base:1")
    new = cli.run("commit", "-l", "base:1", "-u", upper, "base:1")
    assert sorted(cli.image("ls", "--no-trunc", "--format", "{{.Repository}} {{.ID}}").splitlines()) == sorted(
        [f"base {new}", f"<none> {old}"]
    )


def test_directories_and_tars_become_layers_of_their_own(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page").write_text("page")
    (tmp_path / "app.tar").write_bytes(tar_of({"bin/app": b"app", "etc/.wh.motd": b""}))
    stack: list[str | Path] = [tmp_path / "app.tar", tmp_path / "site", "base:1"]
    with Stack(stack, tmp_path / "upper") as union:
        assert union.listdir("etc") == []
        union.write_text("new", "new")
    layers = [word for layer in stack for word in ("-l", str(layer))]
    id = cli.run("commit", *layers, "-u", tmp_path / "upper", "app")
    steps = [step["created_by"] for step in config(cli, id)["history"]]
    assert steps == ["", "layer site", "layer app.tar", "unionfs commit"]
    assert inspect(cli, "app")["Config"]["Cmd"] == ["old"]
    with Stack(["app"]) as union:
        assert sorted(union.listdir()) == ["bin", "etc", "new", "page"] and union.listdir("etc") == []


def test_a_stack_of_directories_alone_has_an_image(cli: Cli, tmp_path: Path) -> None:
    for name in ("below", "above"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with Stack([tmp_path / "above", tmp_path / "below"], tmp_path / "upper") as union:
        union.write_text("new", "new")
    argv = ("commit", "-l", tmp_path / "above", "-l", tmp_path / "below", "-u", tmp_path / "upper", "stack")
    id = cli.run(*argv)
    assert cli.run(*argv) == id
    assert config(cli, id)["config"] == {} and len(config(cli, id)["rootfs"]["diff_ids"]) == 3
    with Stack(["stack"]) as union:
        assert (union.read_text("file"), union.read_text("new")) == ("above", "new")


def test_an_image_of_another_store_is_taken_along(cli: Cli, tmp_path: Path) -> None:
    cli.image("save", "--format", "oci-dir", "-o", tmp_path / "layout", "base:1")
    cli.image("save", "-o", tmp_path / "archive.tar", "base:1")
    for number, spec in enumerate((f"oci:{tmp_path}/layout:1", f"docker-archive:{tmp_path}/archive.tar")):
        upper = change(cli, spec, upper=f"upper{number}")
        there = tmp_path / f"store{number}"
        cli.run("--store", there, "commit", "-l", spec, "-u", upper, "app")
        assert cli.run("--store", there, "image", "verify") == ""
        assert cli.run("--store", there, "image", "inspect", "-f", "{{.Config.Cmd}}", "app") == "[old]"


def commit(cli: Cli, *argv: str | Path) -> Ran:
    return cli.call("commit", "-l", "base:1", "-u", change(cli, "base:1"), *argv)


@pytest.mark.parametrize(
    ("argv", "status", "error", "hint"),
    [
        (("Upper",), 1, "repository name (library/Upper) must be lowercase", "try upper"),
        (("app@sha256:" + "0" * 64,), 1, "refusing to create a tag with a digest reference", "NAME[:TAG]"),
        (("app", "-c", "RUN make"), 1, "RUN is not a valid change command", "CMD"),
        (("app", "-c", "ENV A"), 1, "ENV must have two arguments", ""),
        (("app", "-o", "x.tar"), 2, "not both", "commit --help"),
        (("-o", "x.tar", "-c", "USER x"), 2, "-a, -m and -c are about an image", "commit --help"),
        ((), 2, "give NAME[:TAG] for an image, or -o FILE for a layer tar", "commit --help"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    cli: Cli, argv: tuple[str, ...], status: int, error: str, hint: str
) -> None:
    before = sorted(os.listdir(cli.store / "blobs/sha256"))
    refused(commit(cli, *argv), status, error, hint)
    assert cli.names() == ["base:1"] and sorted(os.listdir(cli.store / "blobs/sha256")) == before


def test_a_socket_is_named_and_leaves_no_image(cli: Cli, tmp_path: Path) -> None:
    upper = change(cli, "base:1")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(upper / "socket"))
    before = sorted(os.listdir(cli.store / "blobs/sha256"))
    refused(cli.call("commit", "-l", "base:1", "-u", upper, "app"), 1, "/socket: a layer tar cannot hold a socket")
    assert cli.names() == ["base:1"] and sorted(os.listdir(cli.store / "blobs/sha256")) == before
    cli.run("commit", "-l", "base:1", "-u", upper, "app", "--skip-sockets")


def test_a_base_that_is_gone_is_named(cli: Cli, tmp_path: Path) -> None:
    upper = change(cli, "base:1")
    shutil.rmtree(cli.store)
    ran = cli.call("commit", "-l", "base:1", "-u", upper, "app")
    refused(ran, 1, "layer base:1 does not exist", "no image in the store")
