"""What `unionfs __complete` answers; tests/compat/test_completion.py has the shells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import complete
from cli.commands import Command, root
from tests.unit.cli_images import Cli
from tests.unit.cli_runner import PROJECT
from unionfs.containers.container import Container
from unionfs.containers.settings import Settings

BREAKS = " \t\n\"'><=;|&(:"


def everything(group: Command) -> Iterator[Command]:
    for verb in group.verbs():
        yield verb
        yield from everything(verb)


def test_of_every_value_it_is_known_what_may_stand_there() -> None:
    unknown = [
        f"{verb.path} {parameter.usage}"
        for verb in everything(root())
        for parameter in (*verb.arguments, *verb.options)
        if parameter.metavar is not None and not parameter.choices and complete.source(verb, parameter) is None
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("unionfs image rm -", ["-f", "--force", "-h", "--help"]),
        ("unionfs convert --to=", ["kernel", "xattr", "aufs", "fuse-overlayfs"]),
        ("unionfs convert --to x", ["xattr"]),
        ("unionfs commit -l a -u b --comp", ["--compression"]),
        ("unionfs run --network h", ["host"]),
        ("unionfs run image sh -", []),  # the container's own
        ("unionfs stop --signal TE", ["TERM"]),
        ("unionfs mount -ful", []),  # -u takes the rest
        ("unionfs learn -- wh", ["whiteouts"]),
        ("unionfs nonsuch ", []),
        ("unionfs completion z", ["zsh"]),
        ("unionfs image ls --format ", ["table", "json"]),
        ("unionfs sim <", ["a\\ b/", "plain.txt", "t.tar.zst"]),
        ("unionfs sim 2>pl", ["plain.txt"]),
        ("unionfs apply t", ["t.tar.zst"]),
        ('unionfs apply t.tar.zst "a', ["a b/"]),
        ("unionfs apply t.tar.zst 'a", ["a b/"]),
        ("unionfs apply t.tar.zst a\\ ", ["a\\ b/"]),
        ("unionfs apply t.tar.zst pl", []),
        ("unionfs mount --log-file=./pl", ["./plain.txt"]),
        ("unionfs mount -o upperdir=a,workdir=", ["a\\ b/"]),
    ],
)
def test_a_line_of_bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, found: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    for name in ("plain.txt", "t.tar.zst", ".hidden.tar"):
        (tmp_path / name).touch()
    assert complete.answer("bash", BREAKS, line)[1:] == found


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(capsysbinary, monkeypatch, tmp_path)


def test_an_id_is_offered_once_it_is_begun(cli: Cli) -> None:
    id = cli.import_("app:1")
    given = ("zsh", "--store", str(cli.store), "image", "rm")
    assert complete.answer(*given, "") == ["- 0", "app:1"]
    assert complete.answer(*given, id[7:10]) == ["- 0", f"{id[7:19]}\tapp:1"]
    assert complete.answer(*given, id[:14]) == ["- 0", f"{id}\tapp:1"]


def test_a_container_is_offered_by_name_and_by_a_begun_id(tmp_path: Path) -> None:
    made = Container("5e" * 32, "eager_darwin", "sha256:0", "app:1", 0.0, "host", Settings(), {}, ())
    directory = tmp_path / "containers" / made.id
    directory.mkdir(parents=True)
    (directory / "container.json").write_bytes(made.to_json())
    given = ("zsh", "--store", str(tmp_path), "stop")
    assert complete.answer(*given, "") == ["- 0", "eager_darwin\tapp:1"]
    assert complete.answer(*given, "5e5") == ["- 0", "5e5e5e5e5e5e\teager_darwin app:1"]


def test_latest_is_offered_with_and_without_its_tag(cli: Cli) -> None:
    cli.import_("app")
    assert complete.answer("fish", "--store", str(cli.store), "image", "rm", "ap")[1:] == ["app:latest", "app"]


def test_a_failure_is_no_candidate(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert complete.main(["bash", BREAKS, "unionfs apply /nonsuch/directory/x"]) == 0
    assert complete.main([]) == 0
    assert complete.main(["bash"]) == 0
    assert capfdbinary.readouterr() == (b"- 0\n" * 3, b"")


_PROGRAM = """
import sys
from cli.main import main
main(["__complete", "zsh", *sys.argv[1:]])
print(*{name.partition(".")[0] for name in sys.modules} & {"httpx2", "pydantic", "rich", "ssl", "tarfile", "asyncio"})
"""


@pytest.mark.parametrize("words", [("",), ("umount", ""), ("mount", "-l", ""), ("commit", "-"), ("image", "rm", "")])
def test_it_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "UNIONFS_STORE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "" and run.stderr == ""
    assert list(tmp_path.iterdir()) == []
