"""Samples to figures: medians, spreads, ratios; the JSON file and the Markdown tables.

The JSON file (`schema` 1) is one object:

    schema, started, finished   1; ISO 8601 times
    options                     the run's: scale, repeat, workloads, peers, settings, backings
    machine                     `machine.facts()` and `load_after`
    peers[]                     name, title, version, and `reason` where the peer could not run, else null
    metrics[]                   name, title, unit, workload, targets[] (peer or null, ours, pinned, free)
    results[]                   one per (backing, setting, metric, peer): status, reason, samples[], median, min, max,
                                ratios {peer: median / that peer's median}, cpu_samples[]

`status` is "ok", "wrong" (the result was; `reason` says how), "failed" or "timeout"; only "ok" has samples. Samples
are in the metric's unit, in the order they were taken; `cpu_samples` are the seconds of processor time that client
and server took together, for the metrics that are times of a client.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.workloads import Target, Workload

SCHEMA = 1
_REFERENCES = ("kernel", "fuse-overlayfs", "fuse-overlayfs-user", "tar-sha256sum", "skopeo", "diff")


@dataclass(slots=True)
class Result:
    """The samples of one metric with one peer in one setting on one backing, or why there are none."""

    backing: str
    setting: str
    workload: str
    metric: str
    peer: str
    status: str = "ok"
    reason: str | None = None
    samples: list[float] = field(default_factory=list)
    cpu_samples: list[float] = field(default_factory=list)

    def fail(self, status: str, reason: str) -> None:
        """No time is reported beside a result that was wrong once."""
        self.status, self.reason, self.samples, self.cpu_samples = status, reason, [], []


def document(head: Mapping[str, Any], workloads: Sequence[Workload], results: Sequence[Result]) -> dict[str, Any]:
    """The JSON document. `head` has started, finished, options, machine and peers."""
    medians = {(*_key(r), r.peer): statistics.median(r.samples) for r in results if r.samples}
    metrics = [
        {
            "name": metric.name,
            "title": metric.title,
            "unit": metric.unit,
            "workload": workload.name,
            "targets": [_target(target) for target in metric.targets],
        }
        for workload in workloads
        for metric in workload.metrics
    ]
    return {"schema": SCHEMA, **head, "metrics": metrics, "results": [_row(r, medians) for r in results]}


def _target(target: Target) -> dict[str, Any]:
    return {"peer": target.peer, "ours": target.ours, "pinned": target.pinned, "free": target.free}


def _key(result: Result) -> tuple[str, str, str]:
    return (result.backing, result.setting, result.metric)


def _row(result: Result, medians: Mapping[tuple[str, str, str, str], float]) -> dict[str, Any]:
    own = medians.get((*_key(result), result.peer))
    ratios = {}
    for reference in _REFERENCES:
        base = medians.get((*_key(result), reference))
        if own is not None and base and reference != result.peer:
            ratios[reference] = own / base
    return {
        "backing": result.backing,
        "setting": result.setting,
        "workload": result.workload,
        "metric": result.metric,
        "peer": result.peer,
        "status": result.status,
        "reason": result.reason,
        "samples": result.samples,
        "cpu_samples": result.cpu_samples,
        "median": own,
        "min": min(result.samples, default=None),
        "max": max(result.samples, default=None),
        "ratios": ratios,
    }


def of_processor_time(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same document with processor time in the place of wall-clock time; other metrics are left out."""
    names = ("backing", "setting", "workload", "metric", "peer", "status", "reason")
    rows = [row for row in content["results"] if row["cpu_samples"] or row["status"] != "ok"]
    results = [Result(**{name: row[name] for name in names} | {"samples": row["cpu_samples"]}) for row in rows]
    medians = {(*_key(r), r.peer): statistics.median(r.samples) for r in results if r.samples}
    options = {**content["options"], "shown": "processor time of client and server"}
    return {**content, "options": options, "results": [_row(r, medians) for r in results]}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a document. Atomic for readers; a crash leaves the old file or the new, and perhaps `.part`."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any]:
    """A document written by `write_json`. Raises ValueError for anything else."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no benchmark result of schema {SCHEMA}")
    return content


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(content: Mapping[str, Any]) -> str:
    """One table per backing and setting: a row per metric, a column per peer, the target and whether it was met."""
    parts = [_preface(content)]
    options = content["options"]
    for backing in options["backings"]:
        for setting in options["settings"]:
            rows = [r for r in content["results"] if (r["backing"], r["setting"]) == (backing, setting)]
            if rows:
                shown = options.get("shown", "wall clock")
                title = f"**{backing}, {setting}** (median {shown}; × the kernel's)\n\n"
                parts.append(title + _table(content, rows, setting))
    parts.append(_notes(content))
    return "\n\n".join(part for part in parts if part) + "\n"


def _preface(content: Mapping[str, Any]) -> str:
    machine, options = content["machine"], content["options"]
    versions = "; ".join(f"{p['title']}: {p['version']}" for p in content["peers"] if p["reason"] is None)
    return (
        f"Linux {machine['kernel']}, {machine['cpus']} × {machine['cpu']}"
        f"{' (virtual)' if machine['hypervisor'] else ''}, Python {machine['python']}, commit {machine['commit']}; "
        f"{options['repeat']} repetitions, scale {options['scale']}. {versions}."
    )


def _table(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], setting: str) -> str:
    cells = {(row["metric"], row["peer"]): row for row in rows}
    shown = [p for p in content["peers"] if any(row["peer"] == p["name"] for row in rows)]
    lines = [
        "| | " + " | ".join(peer["title"].replace("|", "\\|") for peer in shown) + " | aim |",
        "|---|" + "---:|" * len(shown) + "---|",
    ]
    for metric in content["metrics"]:
        found = [cells.get((metric["name"], peer["name"])) for peer in shown]
        if any(found):
            written = [_cell(row, metric["unit"]) for row in found]
            lines.append(f"| {metric['title']} | " + " | ".join(written) + f" | {_aims(metric, cells, setting)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None, unit: str) -> str:
    if row is None:
        return ""
    if row["status"] != "ok":
        return str(row["status"])
    ratio = row["ratios"].get("kernel")
    return figure(row["median"], unit) + (f" ({times(ratio)} ×)" if ratio is not None else "")


def figure(value: float, unit: str) -> str:
    """A figure with three digits and its unit: "0.154 s", "12.3 ms", "498 B"."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f} {'B' if unit == 'bytes' else unit}"


def times(ratio: float) -> str:
    """A ratio as people read it: 0.75, 1.08, 12.3, 340."""
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"


def _aims(metric: Mapping[str, Any], cells: Mapping[tuple[str, str], Mapping[str, Any]], setting: str) -> str:
    """Each target in words, and what was reached: "≤ 0.8 × fuse-overlayfs: 0.75, yes"."""
    words = []
    for target in metric["targets"]:
        row = cells.get((metric["name"], target["ours"]))
        found = reached(row, target["peer"])
        limit = target[setting]
        aim = f"≤ {figure(limit, metric['unit'])}" if target["peer"] is None else f"≤ {limit:g} × {target['peer']}"
        if found is None:
            words.append(f"{aim}: not measured")
        else:
            words.append(f"{aim}: {times(found)}, {'yes' if found <= limit else 'no'}")
    return "; ".join(words)


def reached(row: Mapping[str, Any] | None, peer: str | None) -> float | None:
    """The figure a target speaks of: the ratio to `peer`, or the median itself; None where not measured."""
    if row is None or row["status"] != "ok":
        return None
    value = row["median"] if peer is None else row["ratios"].get(peer)
    return None if value is None else float(value)


def _notes(content: Mapping[str, Any]) -> str:
    """What did not run or was wrong, and why: once per peer and reason."""
    titles = {peer["name"]: peer["title"] for peer in content["peers"]}
    notes = [f"- {peer['title']} did not run: {peer['reason']}" for peer in content["peers"] if peer["reason"]]
    for row in content["results"]:
        if row["status"] != "ok":
            notes.append(
                f"- {titles[row['peer']]}, {row['workload']} ({row['backing']}, {row['setting']}): "
                f"{row['status']}: {row['reason']}"
            )
    return "\n".join(dict.fromkeys(notes))
