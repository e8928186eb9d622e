"""The results as a picture: a bar per metric and peer from 1 to the ratio, on a logarithmic axis.

One panel per setting and backing. Where the kernel ran, its median is the line at 1; bars to the left are faster than
it, bars to the right slower, and the thin line on a bar spans the fastest and the slowest sample. Variants of a peer,
and figures whose aim is no ratio (latency, memory, commit), are in the tables only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import times

#: Colour-blind safe (Okabe and Ito), one per peer in a fixed order, so that a peer keeps its colour between runs.
_COLOURS = {
    "fuse-overlayfs": "#E69F00",
    "unionfs-fuse": "#CC79A7",
    "ours-devfuse": "#0072B2",
    "ours-cached": "#56B4E9",
    "ours-fusepy": "#D55E00",
}


class NothingToPlot(Exception):
    """No metric was measured with both the kernel and another peer, or matplotlib is missing."""


def plot(content: Mapping[str, Any], path: Path) -> None:
    """Draw a report document to a PNG file. Raises `NothingToPlot`."""
    try:
        import matplotlib
    except ImportError:
        raise NothingToPlot("no Python module matplotlib (pip install matplotlib)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = _panels(content)
    if not panels:
        raise NothingToPlot("no metric has a figure for the kernel and for another peer")
    peers = [name for name in _COLOURS if any(name in bars for panel in panels.values() for bars in panel.values())]
    metrics = [m for m in content["metrics"] if any(m["name"] in panel for panel in panels.values())]
    height = 1.6 + len(metrics) * (0.15 * len(peers) + 0.2)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3.2 + 5.2 * len(panels), height), sharey=True, squeeze=False, layout="constrained"
    )
    titles = {peer["name"]: peer["title"] for peer in content["peers"]}
    for axis, ((backing, setting), panel) in zip(axes[0], panels.items(), strict=True):
        _draw(axis, panel, metrics, peers, titles)
        axis.set_title(f"{setting}, layers on {backing}", fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False, fontsize=10)
    shown = content["options"].get("shown", "wall-clock time")
    figure.supxlabel(f"{shown}, × the kernel's overlayfs (logarithmic; left is faster)", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


_Bars = dict[str, tuple[float, float, float]]  # peer: ratios of median, fastest, slowest


def _panels(content: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, _Bars]]:
    """{(backing, setting): {metric: {peer: ratios}}} of all that can be drawn."""
    timed = {metric["name"] for metric in content["metrics"] if metric["unit"] == "s"}
    kernel = {
        (row["backing"], row["setting"], row["metric"]): row["median"]
        for row in content["results"]
        if row["peer"] == "kernel" and row["median"] and row["metric"] in timed
    }
    panels: dict[tuple[str, str], dict[str, _Bars]] = {}
    for row in content["results"]:
        base = kernel.get((row["backing"], row["setting"], row["metric"]))
        if base and row["median"] and row["peer"] in _COLOURS:
            bars = panels.setdefault((row["backing"], row["setting"]), {}).setdefault(row["metric"], {})
            bars[row["peer"]] = (row["median"] / base, row["min"] / base, row["max"] / base)
    return panels


def _draw(
    axis: Any,
    panel: Mapping[str, _Bars],
    metrics: Sequence[Mapping[str, Any]],
    peers: Sequence[str],
    titles: Mapping[str, str],
) -> None:
    thickness = 0.8 / len(peers)
    for number, peer in enumerate(peers):
        rows = [(i, panel[m["name"]][peer]) for i, m in enumerate(metrics) if peer in panel.get(m["name"], {})]
        places = [i - 0.4 + thickness * (number + 0.5) for i, _ in rows]
        ratios = [bar[0] for _, bar in rows]
        axis.barh(
            places,
            [ratio - 1 for ratio in ratios],
            left=1,
            height=thickness * 0.88,
            color=_COLOURS[peer],
            label=titles[peer],
            xerr=[[bar[0] - bar[1] for _, bar in rows], [bar[2] - bar[0] for _, bar in rows]],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
        for place, ratio, (_, bar) in zip(places, ratios, rows, strict=True):
            right = ratio >= 1
            axis.annotate(
                times(ratio),
                (max(bar) if right else min(bar), place),
                xytext=(3 if right else -3, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=7,
            )
    axis.set_xscale("log")
    axis.set_xlim(*_limits(panel))
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(range(len(metrics)), [metric["title"] for metric in metrics], fontsize=9)
    axis.set_ylim(len(metrics) - 0.5, -0.5)
    axis.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _limits(panel: Mapping[str, _Bars]) -> tuple[float, float]:
    """From the fastest to the slowest sample, with room for the figures beside the bars."""
    values = [value for bars in panel.values() for bar in bars.values() for value in bar]
    return min(0.5, min(values) * 0.6), max(2.0, max(values) * 1.9)
