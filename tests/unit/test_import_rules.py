"""What may import what, as far as import-linter cannot say it; and that its contracts bite."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BELOW_IMAGE = ("mounts", "explain", "transport", "upkeep", "overlay", "changeset", "layers", "linux")

#: Modules of others that are loaded by name, and the one file that may.
LOADED_BY_NAME = {
    ("unionfs/linux/libfuse2.py", "fuse"),
    ("unionfs/changeset/compression.py", "backports.zstd"),
    ("unionfs/changeset/compression.py", "compression.zstd"),
    ("unionfs/changeset/compression.py", "isal.isal_zlib"),
}


def sources() -> list[Path]:
    directories = [PROJECT / "unionfs" / name for name in BELOW_IMAGE]
    found = [path for directory in directories for path in directory.rglob("*.py")]
    return [*found, PROJECT / "unionfs/vfs.py", PROJECT / "unionfs/errors.py"]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_below_the_image_store_only_the_standard_library_is_imported() -> None:
    allowed = sys.stdlib_module_names | {"unionfs"}
    foreign = {
        (str(path.relative_to(PROJECT)), name)
        for path in sources()
        for name in imported(ast.parse(path.read_text()))
        if name.partition(".")[0] not in allowed and name != "_typeshed"
    }
    assert foreign == set()


def test_modules_loaded_by_name_are_loaded_where_they_should_be() -> None:
    loaded = {
        (str(path.relative_to(PROJECT)), text)
        for path in sources()
        if "import_module" in path.read_text()
        for text in re.findall(r'"([a-z_]+(?:\.[a-z_]+)*)"', path.read_text())
        if text in {name for _, name in LOADED_BY_NAME}
    }
    assert loaded == LOADED_BY_NAME
    others = [path for path in sources() if "import_module" in path.read_text()]
    assert {str(path.relative_to(PROJECT)) for path in others} == {path for path, _ in LOADED_BY_NAME}


def test_only_the_registries_package_speaks_to_a_network() -> None:
    found = {
        path.parent.relative_to(PROJECT)
        for top in ("unionfs", "cli")
        for path in (PROJECT / top).rglob("*.py")
        for name in imported(ast.parse(path.read_text()))
        if name.partition(".")[0] in ("httpx2", "http", "urllib3", "requests") or name == "urllib.request"
    }
    assert found == {Path("unionfs/image/registry")}


def test_every_package_is_installed() -> None:
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    listed = config["tool"]["setuptools"]["packages"]
    found = [
        str(path.parent.relative_to(PROJECT)).replace("/", ".").replace("cli", "unionfs_cli")
        for top in ("unionfs", "cli")
        for path in (PROJECT / top).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(found)


#: contract -> (file, import) that breaks it
VIOLATIONS = {
    "Imports go downwards only; siblings do not import each other": ("unionfs/layers/layer.py", "unionfs.overlay"),
    "The command line knows the API and nothing below it": ("cli/diff.py", "unionfs.layers.directory"),
    "No third party below the image store, nor in what mounts": ("unionfs/changeset/diff.py", "pydantic"),
    "A transport sees vfs, linux and errors only": ("unionfs/transport/devfuse/loop.py", "unionfs.layers.whiteout"),
    "Only unionfs.linux speaks to the C library": ("unionfs/overlay/file.py", "fcntl"),
    "The FUSE protocol is bytes in, bytes out": ("unionfs/transport/devfuse/session.py", "unionfs.linux.mount"),
    "The FUSE codec does not even know the operating system": ("unionfs/transport/devfuse/requests.py", "os"),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", [True, False])
def test_the_contracts_bite(tmp_path: Path, broken: bool) -> None:
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert [contract["name"] for contract in config["tool"]["importlinter"]["contracts"]] == list(VIOLATIONS)
    for name in ("unionfs", "cli"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    if broken:
        for file, module in VIOLATIONS.values():
            with open(tmp_path / file, "a") as source:
                source.write(f"\nimport {module}\n")
    command = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    verdict = "BROKEN" if broken else "KEPT"
    assert (done.returncode, [name for name in VIOLATIONS if f"{name} {verdict}" not in done.stdout]) == (
        int(broken),
        [],
    )
