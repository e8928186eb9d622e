"""The README's commands run, and print what it says; the reference describes what `--json` prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import (
    blame_schemas,
    diff_schemas,
    info_schemas,
    replay_schemas,
    schemas,
    show_schemas,
    sim_schemas,
    trace_schemas,
    waste_schemas,
    which_schemas,
)
from tests.requirements import requires

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
REFERENCE = (PROJECT / "docs/reference.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def conversation(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it. A here-document's lines begin with
    the shell's second prompt."""
    turns = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    found = []
    for turn in turns:
        document = re.match(r"[^\n]*<<[^\n]*\n(?:> [^\n]*\n)+", turn)
        command, output = (document[0], turn[document.end() :]) if document else turn.split("\n", 1)
        found.append((re.sub(r"^> ", "", command, flags=re.MULTILINE), output))
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Both commands on PATH, whether installed or not; what stays mounted is unmounted."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, module in {"unionfs": "cli.main", "unionfs-mount": "unionfs.api.mount_helper"}.items():
        script = bin_dir / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "LC_ALL": "C.UTF-8",
        "UNIONFS_STORE": str(tmp_path / "store"),
        "UNIONFS_CACHE": str(tmp_path / "cache"),
    }
    yield env
    subprocess.run(["unionfs", "umount", "--lazy", tmp_path / "tree"], env=env, capture_output=True, check=False)


@pytest.mark.needs_fuse
@requires("fuse", "tar", "busybox")
@pytest.mark.parametrize("block", blocks("console"), ids=["quick-start", "images", "learn"])
def test_a_conversation_prints_what_it_says(tmp_path: Path, environment: dict[str, str], block: str) -> None:
    for command, expected in conversation(block):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        assert (done.returncode, bool(re.fullmatch(pattern, done.stdout))) == (0, True), f"$ {command}\n{done.stdout}"


def test_the_python_example_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    (code,) = blocks("python")
    for name in ("top", "base"):
        (tmp_path / name / "etc").mkdir(parents=True)
    (tmp_path / "base/etc/b").touch()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        timeout=60,
        capture_output=True,
        text=True,
        check=True,
    )
    listing, changes, diff_id = done.stdout.splitlines()
    assert (listing, changes) == ("['b']", "['C /etc', 'A /etc/motd']")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", diff_id)


@pytest.mark.parametrize(
    ("verb", "model"),
    [
        ("which", which_schemas.Which),
        ("trace", trace_schemas.TraceEvent),
        ("replay", replay_schemas.ReplayStep),
        ("blame", blame_schemas.Blame),
        ("blame` of a directory", blame_schemas.BlamedTree),
        ("blame --lines", blame_schemas.BlamedLines),
        ("waste", waste_schemas.Waste),
        ("show", show_schemas.LayerTree),
        ("diff", schemas.Change),
        ("diff` of two trees, `diff --reasons`", diff_schemas.Difference),
        ("diff --stat`, `diff --summary", diff_schemas.Tally),
        ("snapshot", diff_schemas.Snapshot),
        ("commit", schemas.Commit),
        ("apply", schemas.Apply),
        ("mounts", schemas.Mount),
        ("remount", schemas.Remount),
        ("check", schemas.Finding),
        ("convert", schemas.Convert),
        ("doctor", schemas.Diagnosis),
        ("info", info_schemas.Information),
        ("commit` of an image", schemas.CommittedImage),
        ("image verify", schemas.Fault),
        ("image changes", schemas.Kept),
        ("sim", sim_schemas.SimulatedStep),
        ("learn", sim_schemas.Lesson),
    ],
)
def test_the_json_tables_name_every_field(verb: str, model: type[schemas.Model]) -> None:
    row = next(
        line
        for line in REFERENCE.partition("| Command | JSON |")[2].splitlines()
        if line.startswith((f"| `{verb}`", f"| `{verb} |"))
    )
    shown = re.search(r"\{([^}]*)\}", row)
    assert shown is not None and shown[1].split(", ") == list(model.model_fields)


def test_every_path_in_the_tree_exists() -> None:
    tree = README.partition("The tree:\n\n```\n")[2].partition("```")[0]
    paths = [word for line in tree.splitlines() for word in line.split("   ")[0].split()]
    assert len(paths) > 8 and [path for path in paths if not (PROJECT / path).is_dir()] == []


@pytest.mark.parametrize("command", re.findall(r"^(\S+) ", "".join(blocks("bash")), re.MULTILINE))
def test_the_two_commands_exist(command: str) -> None:
    assert os.access(PROJECT / command, os.X_OK)
