"""The benchmarks' figures: ratios, targets, and that nothing which was wrong gets a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.arena import expect_walk
from benchmarks.mounting import _parse
from benchmarks.processes import WrongResult
from benchmarks.workloads import load_all

WALK = load_all()["walk"]


def _document(*results: report.Result) -> dict[str, Any]:
    machine = {"kernel": "6", "cpus": 2, "cpu": "x", "hypervisor": True, "python": "3", "commit": None}
    peers = [
        {"name": name, "title": f"the {name}", "version": "1", "reason": None}
        for name in ("kernel", "fuse-overlayfs", "ours-devfuse")
    ]
    peers.append({"name": "unionfs-fuse", "title": "the old one", "version": None, "reason": "not installed"})
    options = {"repeat": 3, "scale": "quick", "backings": ["tmpfs"], "settings": ["pinned"]}
    return report.document({"machine": machine, "options": options, "peers": peers}, [WALK], results)


def _result(peer: str, *samples: float) -> report.Result:
    return report.Result("tmpfs", "pinned", "walk", "walk-first", peer, samples=list(samples))


def test_ratios_are_of_medians() -> None:
    document = _document(_result("kernel", 1.0, 9.0, 2.0), _result("fuse-overlayfs", 4.0), _result("ours-devfuse", 3.0))
    ours = document["results"][2]
    assert ours["ratios"] == {"kernel": 1.5, "fuse-overlayfs": 0.75}
    assert (document["results"][0]["min"], document["results"][0]["max"]) == (1.0, 9.0)


def test_table_says_whether_the_aim_was_reached() -> None:
    text = report.markdown(_document(_result("fuse-overlayfs", 4.0), _result("ours-devfuse", 3.0)))
    assert "≤ 0.8 × fuse-overlayfs: 0.75, yes" in text
    text = report.markdown(_document(_result("fuse-overlayfs", 4.0), _result("ours-devfuse", 3.6)))
    assert "≤ 0.8 × fuse-overlayfs: 0.90, no" in text


def test_wrong_result_has_no_time_and_a_reason() -> None:
    wrong = _result("ours-devfuse", 0.001)
    wrong.fail("wrong", "files in the walk: 7 instead of 8")
    document = _document(_result("kernel", 1.0), wrong)
    row = document["results"][1]
    assert (row["median"], row["samples"], row["ratios"]) == (None, [], {})
    text = report.markdown(document)
    assert "| 1.00 s | wrong |" in text
    assert "- the ours-devfuse, walk (tmpfs, pinned): wrong: files in the walk: 7 instead of 8" in text


def test_processor_time_takes_the_place_of_wall_clock_time() -> None:
    kernel, ours = _result("kernel", 1.0, 1.0), _result("ours-devfuse", 5.0, 5.0)
    kernel.cpu_samples, ours.cpu_samples = [0.2, 0.4], [0.6, 0.6]
    document = report.of_processor_time(_document(kernel, ours))
    assert [row["median"] for row in document["results"]] == pytest.approx([0.3, 0.6])
    assert document["results"][1]["ratios"]["kernel"] == pytest.approx(2)
    assert "median processor time" in report.markdown(document)


def test_peer_that_did_not_run_is_named_with_its_reason() -> None:
    assert "- the old one did not run: not installed" in report.markdown(_document(_result("kernel", 1.0)))


def test_json_is_read_back(tmp_path: Path) -> None:
    document = _document(_result("kernel", 1.0))
    report.write_json(tmp_path / "r.json", document)
    assert report.read_json(tmp_path / "r.json") == document
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_foreign_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="no benchmark result of schema 1"):
        report.read_json(tmp_path / "r.json")


@pytest.mark.parametrize(
    "output", [b"d 0\nf 5\n", b"d 0\nf 5\nf 4\n", b"d 0\nd 0\nf 5\nf 5\n", b"f 5\nf 5\n"],
    ids=["file missing", "byte missing", "directory too many", "top missing"],
)  # fmt: skip
def test_walk_with_another_outcome_is_wrong(output: bytes) -> None:
    expect_walk(b"d 0\nf 5\nf 5\n", files=2, directories=0, size=10)
    with pytest.raises(WrongResult):
        expect_walk(output, files=2, directories=0, size=10)


def test_mountinfo_line_with_escaped_space_and_optional_fields() -> None:
    entry = _parse("42 27 0:39 / /tmp/a\\040b rw,nodev shared:5 master:1 - fuse.unionfs unionfs rw,user_id=0\n")
    assert (entry.mountpoint, entry.fstype, entry.major, entry.minor) == ("/tmp/a b", "fuse.unionfs", 0, 39)


def test_every_workload_is_listed_and_names_its_metrics_once() -> None:
    workloads = load_all()
    modules = {path.stem for path in Path(report.__file__).with_name("workloads").glob("*.py")} - {"__init__"}
    assert set(workloads) == modules
    metrics = [metric.name for workload in workloads.values() for metric in workload.metrics]
    assert len(metrics) == len(set(metrics))
