"""`unionfs ps`: which containers a filter finds, and what stands in the columns, as docker has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cli_images import Cli, tar_of
from tests.unit.cli_runner import refused
from unionfs import api
from unionfs.containers.container import Process, State, boot_id


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Of an image `base`, another name of it, and an image made of it: one container each, the first running."""
    cli = Cli(capsysbinary, monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)  # where nothing is called as an image is
    (tmp_path / "a.tar").write_bytes(tar_of({"a": b"a"}))
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/b").write_text("b")
    cli.run("image", "import", "-c", "EXPOSE 80 443", tmp_path / "a.tar", "base")
    cli.run("image", "tag", "base", "other:v2")
    cli.run("commit", "-l", "base", "-u", tmp_path / "upper", "made")
    made(cli, "base", "web", ports=("81:80", "8000-8001:8000-8001", "127.0.0.1:9000:9000/udp", "8001:8003"))
    made(cli, "other:v2", "web2")
    made(cli, "made", "db", command=("sh", "-c", 'echo "a b"'))
    return cli


def made(
    cli: Cli, image: str, name: str, *, command: tuple[str, ...] = ("sleep", "9"), ports: tuple[str, ...] = ()
) -> None:
    """A container that was not started, or, with ports, one that this process is said to be."""
    containers = api.container_store(cli.store)
    settings = api.container_settings(command, ports=ports)
    container = api.create_container(containers, image, settings, name=name)
    if ports:
        state = State(True, Process.of(os.getpid()), None, boot_id(), started=1.0, ports=settings.ports)
        containers.write_state(container, state)


def test_filters(cli: Cli) -> None:
    for filters, found in (
        (("name=web",), ["web2", "web"]),
        (("name=^web$",), ["web"]),  # a regular expression
        (("name=^/web$",), ["web"]),  # with docker's slash
        (("name=w.b[0-9]", "name=db"), ["db", "web2"]),
        (("name=[",), []),  # none
        (("ancestor=base",), ["db", "web2", "web"]),  # by ID, whatever it was called, and what is made of it
        (("ancestor=other:v2",), ["db", "web2", "web"]),
        (("ancestor=made",), ["db"]),
        (("ancestor=nothing",), []),
    ):
        told = cli.run("ps", "-a", "--format", "{{.Names}}", *(word for one in filters for word in ("-f", one)))
        assert told.splitlines() == found, filters


def test_before_and_since_know_containers_that_do_not_run(cli: Cli) -> None:
    assert cli.run("ps", "--format", "{{.Names}}", "-f", "before=db").splitlines() == ["web"]
    assert cli.run("ps", "--format", "{{.Names}}", "-f", "since=db").splitlines() == []
    refused(cli.call("ps", "-f", "before=nobody"), 2, "No such container: nobody")


def test_ports_as_docker_shows_them(cli: Cli) -> None:
    """Ranges together, and those that the image exposes and nobody has published (docker/cli, DisplayablePorts)."""
    assert cli.run("ps", "--format", "{{.Ports}}") == (
        "443/tcp, 0.0.0.0:8000-8001->8000-8001/tcp, 127.0.0.1:9000->9000/udp, "
        "0.0.0.0:81->80/tcp, 0.0.0.0:8001->8003/tcp"
    )


def test_command_as_docker_shows_it(cli: Cli) -> None:
    assert cli.run("ps", "-a", "--no-trunc", "--format", "{{.Command}}").splitlines() == [
        r'''"sh -c 'echo \"a b\"'"''', '"sleep 9"', '"sleep 9"'
    ]  # fmt: skip
