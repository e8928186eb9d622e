"""Built, installed and run: the wheel in one fresh virtual environment, the tree itself (editable) in another.

Dependencies come from the environment that runs the tests, so that nothing is downloaded; that the list of them is
complete is a test of its own.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = ("pyproject.toml", "README.md", "unionfs", "cli", "share")

#: distribution -> the module that it brings
MODULES = {"fusepy": "fuse", "backports.zstd": "backports"}


def run(*argv: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, timeout=200, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged: building leaves things behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bin directory of a fresh environment in which the project is installed."""
    home = tmp_path_factory.mktemp(request.param)
    venv.create(home)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    what: list[str | Path] = [request.getfixturevalue("wheel")] if request.param == "wheel" else ["-e", source]
    pip = (sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "-q")
    run(*pip, "--no-deps", "--no-build-isolation", *what, cwd=home)
    yield home / "bin"


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_no_top_level_cli(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith((".dist-info", ".data"))} == {"unionfs", "unionfs_cli"}
    for needed in (
        "unionfs/py.typed",
        "unionfs_cli/py.typed",
        "unionfs_cli/completions/unionfs.bash",
        "unionfs/explain/lessons/01-layers.toml",
        "unionfs/explain/pages/page.html",
        "unionfs/explain/pages/page.css",
        *(f"unionfs/explain/pages/{name}.js" for name in ("tree", "rows", "history", "page")),
        "unionfs/transport/devfuse/__init__.py",
    ):
        assert needed in names
    modules = {str(p.relative_to(PROJECT)).replace("cli/", "unionfs_cli/", 1) for p in tracked_modules()}
    assert modules == {name for name in names if name.endswith(".py")}


def tracked_modules() -> list[Path]:
    return [path for name in ("unionfs", "cli") for path in (PROJECT / name).rglob("*.py")]


@pytest.mark.slow
def test_both_commands_run_and_both_packages_import(installed: Path, tmp_path: Path) -> None:
    version = tomllib_version()
    assert run(installed / "unionfs", "--version", cwd=tmp_path) == f"unionfs {version}\n"
    assert "commit" in run(installed / "unionfs", "--help", cwd=tmp_path)
    assert run(installed / "unionfs-mount", "--version", cwd=tmp_path) == f"unionfs-mount: version {version}\n"
    assert run(installed / "python", "-m", "unionfs_cli", "--version", cwd=tmp_path) == f"unionfs {version}\n"
    code = "import unionfs, unionfs_cli, unionfs.api; print(unionfs.api.Stack.__name__, unionfs.__version__)"
    assert run(installed / "python", "-c", code, cwd=tmp_path) == f"Stack {version}\n"


@pytest.mark.slow
def test_the_demo_runs_when_installed(installed: Path, tmp_path: Path) -> None:
    assert "equal to the tree above" in run(installed / "unionfs", "demo", "--no-mount", cwd=tmp_path)


@pytest.mark.slow
def test_the_lessons_are_there_when_installed(installed: Path, tmp_path: Path) -> None:
    assert ": 4 questions, ok\n" in run(installed / "unionfs", "learn", "--check", cwd=tmp_path)


@pytest.mark.slow
def test_a_page_is_drawn_when_installed(installed: Path, tmp_path: Path) -> None:
    assert "</html>" in run(installed / "unionfs", "show", "lesson:whiteouts", "--html", cwd=tmp_path)


@pytest.mark.slow
@requires("man")
def test_the_manual_and_the_completion_are_found_when_installed(installed: Path, tmp_path: Path) -> None:
    share = installed.parent / "share"
    if not list(installed.parent.glob("lib/python*/site-packages/unionfs_cli")):
        assert not share.exists()  # an editable install has no data; the tree has it
        return
    found = run(
        "/usr/bin/env", f"PATH={installed}:/usr/bin:/bin", "man", "-w", "unionfs", "unionfs-image", cwd=tmp_path
    )
    assert found.split() == [str(share / f"man/man1/{name}.1") for name in ("unionfs", "unionfs-image")]
    assert (share / "bash-completion/completions/unionfs.bash").exists()
    assert run(installed / "unionfs", "completion", "fish", cwd=tmp_path).startswith("# fish completion")


def tomllib_version() -> str:
    found = re.search(r'__version__ = "([^"]+)"', (PROJECT / "unionfs/__init__.py").read_text())
    assert found is not None
    return found[1]


def test_the_dependencies_are_exactly_what_is_imported() -> None:
    own = {"unionfs", "unionfs_cli", "cli", "_typeshed"}
    used = {"fuse", "backports", "isal"}  # loaded by name; tests/unit/test_import_rules.py says where
    for path in tracked_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add((node.module or "").partition(".")[0])
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    project = config["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["explore"]]
    required = [re.split(r"[><=; ]", line)[0] for line in lines]
    assert used - own - sys.stdlib_module_names == {MODULES.get(name, name) for name in required}
