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
from tests.compat.conversation import PROJECT, blocks, own_environment, run
from tests.requirements import requires

README = (PROJECT / "README.md").read_text()
REFERENCE = (PROJECT / "docs/reference.md").read_text()


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with own_environment(tmp_path) as made:
        yield made


@pytest.mark.needs_fuse
@requires("fuse", "tar", "busybox")
@pytest.mark.parametrize("block", blocks(README, "console"), ids=["quick-start", "images", "learn"])
def test_a_conversation_prints_what_it_says(tmp_path: Path, environment: dict[str, str], block: str) -> None:
    run(block, tmp_path, environment)


def test_the_python_example_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    (code,) = blocks(README, "python")
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


@pytest.mark.parametrize("command", re.findall(r"^(\S+) ", "".join(blocks(README, "bash")), re.MULTILINE))
def test_the_two_commands_exist(command: str) -> None:
    assert os.access(PROJECT / command, os.X_OK)
