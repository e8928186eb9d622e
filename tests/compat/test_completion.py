"""What the shells make of a tab, with the scripts that `unionfs completion` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.shells import Shell
from tests.requirements import need

PROJECT = Path(__file__).resolve().parents[2]
#: Names that a store made by another tool may hold.
HOSTILE = ("$(touch boom)", "`touch boom`", "x;touch boom", "two\nlines", "\x1b[31mred", "'; touch boom; '")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers with odd names, and a store with images."""
    directory = tmp_path_factory.mktemp("shells")
    for name in ("my layer", "trees", "tree of mine"):
        (directory / name).mkdir()
    (directory / "rootfs.tar.gz").touch()
    (directory / "notes.txt").touch()
    names = ("site.example:5000/team/app:v1", "busybox:latest", "docker.io/library/debian:12", *HOSTILE)
    descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{0:064}", "size": 2}
    manifests = [descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}} for name in names]
    (directory / "store").mkdir()
    (directory / "store/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "store/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    script = directory / "bin/unionfs"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def environment(place: Path) -> dict[str, str]:
    return {
        "PATH": f"{place}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "UNIONFS_STORE": str(place / "store"),
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, place: Path, environment: dict[str, str]) -> Iterator[Shell]:
    need(request.param)
    with Shell(request.param, place, environment) as made:
        yield made


@pytest.mark.parametrize(
    ("begun", "line"),
    [
        ("unionfs umo", "unionfs umount "),
        ("unionfs image his", "unionfs image history "),
        ("unionfs mount --eph", "unionfs mount --ephemeral "),
        ("unionfs mount --transport fu", "unionfs mount --transport fusepy "),
        ("unionfs mount --transport=fu", "unionfs mount --transport=fusepy "),
        ("unionfs image rm busy", "unionfs image rm busybox"),  # with or without the tag
        ("unionfs image rm site.ex", "unionfs image rm site.example:5000/team/app:v1 "),
        ("unionfs image rm site.example:5000/te", "unionfs image rm site.example:5000/team/app:v1 "),
        ("unionfs image history debian:", "unionfs image history debian:12 "),
        ("unionfs --store nowhere image rm site", "unionfs --store nowhere image rm site"),
        ("unionfs mount -l site.example:5", "unionfs mount -l site.example:5000/team/app:v1 "),
        ("unionfs mount -l my", "unionfs mount -l my\\ layer/"),
        ("unionfs mount -l root", "unionfs mount -l rootfs.tar.gz "),
        ("unionfs mount -l not", "unionfs mount -l not"),
        ("unionfs mount -l oci:my", "unionfs mount -l oci:my\\ layer/"),
        ("unionfs mount -o lowerdir=trees:my", "unionfs mount -o lowerdir=trees:my\\ layer/"),
        ("unionfs mount -o ro,uppe", "unionfs mount -o ro,upperdir="),
        ("unionfs learn whit", "unionfs learn whiteouts "),
        ("unionfs bogus x", "unionfs bogus x"),
        ("unionfs image load -i not", "unionfs image load -i notes.txt "),
    ],
)
def test_a_tab_completes_what_is_begun(shell: Shell, begun: str, line: str) -> None:
    assert (
        shell.typed(begun + "\t").replace(r"lowerdir\=", "lowerdir=").replace("--transport\\=", "--transport=") == line
    )


def test_verbs_are_listed(shell: Shell) -> None:
    shell.typed("unionfs \t\t")
    assert [verb for verb in ("mount", "commit", "learn", "image") if verb not in shell.shown] == []


def test_a_name_is_never_a_command(shell: Shell, place: Path) -> None:
    shell.typed("unionfs image rm \t\t")
    for keys in ("$", "'", "x", "\\"):
        shell.typed(f"unionfs image rm {keys}\t\t")
    shell.typed("unionfs image rm x\t\n")
    assert not (place / "boom").exists()
    assert "Traceback" not in shell.shown and "\x1b[31mred" not in shell.shown


def test_a_damaged_store_is_silence(shell: Shell, place: Path) -> None:
    (place / "damaged").mkdir(exist_ok=True)
    (place / "damaged/index.json").write_text('{"manifests": [[], {"annotations": 3}')
    assert shell.typed("unionfs --store damaged image rm ab\t") == "unionfs --store damaged image rm ab"
    assert "rror" not in shell.shown and "Traceback" not in shell.shown


@pytest.mark.needs_fuse
@pytest.mark.parametrize(
    ("begun", "line"),
    [
        ("unionfs umount tr", "unionfs umount tree\\ of\\ mine "),
        ("unionfs commit ./tree", "unionfs commit ./tree\\ of\\ mine "),
        ("unionfs umount trees", "unionfs umount trees"),  # a directory, but no mount
    ],
)
def test_a_mountpoint_is_offered(shell: Shell, place: Path, environment: dict[str, str], begun: str, line: str) -> None:
    program, mountpoint = place / "bin/unionfs", place / "tree of mine"
    if not os.path.ismount(mountpoint):
        subprocess.run([program, "mount", "-l", "trees", mountpoint], cwd=place, env=environment, check=True)
    try:
        assert shell.typed(begun + "\t") == line
    finally:
        subprocess.run([program, "umount", "--lazy", mountpoint], env=environment, check=True)
