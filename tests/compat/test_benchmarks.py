"""The benchmark runner at work: real engines on small trees. No figure is looked at, only what surrounds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peers, run
from benchmarks.arena import Arena
from benchmarks.backing import backing, fuse_control
from benchmarks.mounting import mount_entries
from benchmarks.processes import MARKER, Runner, StepError, StepTimedOut, WrongResult, marked_pids
from benchmarks.report import Result
from benchmarks.trees import QUICK, Trees
from benchmarks.workloads import load_all
from tests.requirements import requires

pytestmark = [pytest.mark.needs_root, requires("root", "overlayfs")]

RUNNER = Runner({**os.environ, "LC_ALL": "C", MARKER: f"test-{os.getpid()}"}, 30)


def _mounted_below(path: Path) -> list[str]:
    return [entry.mountpoint for entry in mount_entries() if entry.mountpoint.startswith(str(path))]


@pytest.mark.needs_fuse
@requires("fuse")
def test_quick_run_writes_samples_tables_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="missing: the Python module matplotlib (pip install matplotlib)")
    argv = [sys.executable, "-m", "benchmarks", "--quick", "--pinned", "--markdown", "--workload", "walk"]
    argv += ["--peer", "kernel", "--peer", "ours-devfuse", "--work", str(tmp_path / "work")]
    argv += ["--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    done = subprocess.run(argv, cwd=peers.REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["schema"] == 1
    assert [peer["reason"] for peer in document["peers"]] == [None, None], done.stderr
    assert [(row["metric"], row["peer"], row["status"]) for row in document["results"]] == [
        ("walk-first", "kernel", "ok"),
        ("walk-second", "kernel", "ok"),
        ("walk-first", "ours-devfuse", "ok"),
        ("walk-second", "ours-devfuse", "ok"),
    ]
    assert all(len(row["samples"]) == 1 and row["median"] > 0 for row in document["results"])
    assert document["results"][2]["ratios"].keys() == {"kernel"}
    assert document["machine"]["kernel"] == os.uname().release
    assert "| first walk + stat, 20k files |" in done.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert _mounted_below(tmp_path) == []


def test_trees_are_what_they_say(tmp_path: Path) -> None:
    trees = Trees(tmp_path, QUICK)
    tree = trees.small()
    packed = subprocess.run(["tar", "-cf", "-", "-C", tree.path, "."], check=True, capture_output=True).stdout
    assert len(packed) == tree.tar_bytes
    assert sum(1 for path in tree.path.rglob("*") if path.is_file()) == tree.files == QUICK.files
    assert sum(1 for path in tree.path.rglob("*") if path.is_dir()) == tree.directories
    layers, union = trees.layered()
    names = [path.relative_to(layer) for layer in layers for path in layer.rglob("*") if path.is_file()]
    assert len(layers) == QUICK.layers
    assert len(names) == len(set(names)) == union.files
    assert union.bytes == tree.bytes


def test_trees_are_the_same_everywhere(tmp_path: Path) -> None:
    files = [Trees(tmp_path / name, QUICK).archive()[0] for name in ("a", "b")]
    listings = [subprocess.run(["tar", "-tvf", file], check=True, capture_output=True).stdout for file in files]
    names = [{line for line in listing.splitlines() if line.startswith(b"-")} for listing in listings]
    assert names[0] == names[1]
    assert len(names[0]) == QUICK.unpacked


def test_changed_lower_layer_is_a_wrong_result(tmp_path: Path) -> None:
    with fuse_control(tmp_path / "ctl") as control, backing("tmpfs", tmp_path, QUICK.room, control) as place:
        trees = Trees(place.trees, QUICK)
        arena = Arena(peers.all_peers()["kernel"], trees, place, RUNNER, control)
        tree = trees.five_k()
        with pytest.raises(WrongResult, match="a lower layer was changed"), arena.mount([tree.path]):
            (tree.path / "unpacked" / "intruder").touch()
    assert _mounted_below(tmp_path) == []


def test_failure_in_one_repetition_takes_all_times_away(tmp_path: Path) -> None:
    with fuse_control(tmp_path / "ctl") as control, backing("tmpfs", tmp_path, QUICK.room, control) as place:
        trees = Trees(place.trees, QUICK)
        arena = Arena(peers.all_peers()["kernel"], trees, place, RUNNER, control)
        results = [Result("tmpfs", "pinned", "walk", metric.name, "kernel") for metric in load_all()["walk"].metrics]
        run._once(load_all()["walk"], arena, results)
        assert [len(result.samples) for result in results] == [1, 1]
        next(trees.small().path.rglob("*.txt")).unlink()
        run._once(load_all()["walk"], arena, results)
    assert [(result.status, result.samples) for result in results] == [("wrong", []), ("wrong", [])]
    assert "files in the walk: 599 instead of 600" in str(results[0].reason)


@pytest.mark.needs_fuse
@pytest.mark.peer
@requires("fuse", "fuse-overlayfs")
def test_hanging_server_is_a_timeout_and_leaves_nothing_behind(tmp_path: Path) -> None:
    runner = Runner(RUNNER.environment, 0.5)
    with fuse_control(tmp_path / "ctl") as control, backing("tmpfs", tmp_path, QUICK.room, control) as place:
        trees = Trees(place.trees, QUICK)
        arena = Arena(peers.all_peers()["fuse-overlayfs"], trees, place, runner, control)
        with pytest.raises(StepTimedOut, match="ls: not done after"), arena.mount([trees.five_k().path]) as mount:
            os.kill(mount.pids()[0], signal.SIGSTOP)
            mount.runner.run(["ls", str(mount.path)])
        assert [name for name in _mounted_below(place.root) if name != str(place.root)] == []
    assert marked_pids(runner.environment) == []
    assert _mounted_below(tmp_path) == []


@pytest.mark.needs_fuse
@pytest.mark.peer
@requires("fuse", "fuse-overlayfs")
def test_mount_that_is_busy_is_removed_all_the_same(tmp_path: Path) -> None:
    with fuse_control(tmp_path / "ctl") as control, backing("tmpfs", tmp_path, QUICK.room, control) as place:
        trees = Trees(place.trees, QUICK)
        arena = Arena(peers.all_peers()["fuse-overlayfs"], trees, place, RUNNER, control)
        with arena.mount([trees.five_k().path]) as mount:
            held = os.open(mount.path / "unpacked", os.O_RDONLY)
        os.close(held)
        assert marked_pids(RUNNER.environment) == []
    assert _mounted_below(tmp_path) == []


def test_client_that_prints_an_error_has_failed() -> None:
    with pytest.raises(StepError, match="exit 0: lost half of it"):
        RUNNER.run(["sh", "-c", "echo lost half of it >&2"])
    assert RUNNER.run(["sh", "-c", "echo a summary >&2"], words_expected=True).stderr == b"a summary\n"


@pytest.mark.parametrize("argv", [["--peer", "aufs"], ["--workload", "nap"], ["--repeat", "0"], ["--pinned", "--free"]])
def test_usage_errors_exit_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run.main(argv)
    assert raised.value.code == 2
