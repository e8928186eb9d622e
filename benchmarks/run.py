"""The command line of the benchmarks, and the order in which things are asked.

    python -m benchmarks [--workload NAME]... [--peer NAME]... [--repeat N] [--quick] [--pinned | --free | --both]
                         [--backing tmpfs|ext4|both] [--json FILE] [--plot FILE.png] [--markdown] [--cpu]

For each backing, setting and workload, the peers take turns within each repetition, so that a machine that grows
slower grows slower for all. *Pinned* puts the runner, and with it every client and server, on one CPU: steady figures,
pure cost. *Free* leaves them to the scheduler: what a user sees, wake-ups across CPUs included. A peer that cannot
mount is left out with its reason; one whose result was wrong, that failed or hung in a workload gets no time in it.

Exit status: 0 the run was made, whatever the figures; 1 it could not be; 2 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from benchmarks import machine, report
from benchmarks.arena import Arena
from benchmarks.backing import Backing, BackingFailed, backing, fuse_control
from benchmarks.mounting import MountFailed
from benchmarks.peers import TOOLS, Peer, all_peers
from benchmarks.plot import NothingToPlot, plot
from benchmarks.processes import MARKER, Runner, Step, StepError, StepTimedOut, WrongResult, kill_pids, marked_pids
from benchmarks.trees import FULL, QUICK, Scale, Trees
from benchmarks.workloads import Workload, load_all

#: Without --peer. Each start of a Python server takes a good part of a quick workload's time.
_QUICK_PEERS = ("kernel", "fuse-overlayfs", "unionfs-fuse", "ours-devfuse", "ours-fusepy", "ours-tars", *sorted(TOOLS))

Choice = TypeVar("Choice", Peer, Workload)


def main(argv: Sequence[str]) -> int:
    """Run with the arguments of a command line. Returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.read is not None:
        try:
            content = report.read_json(arguments.read)
        except (OSError, ValueError) as error:
            return _error(str(error))
        return _show(content, arguments)
    if os.geteuid() != 0:
        return _error("benchmarks mount the kernel's overlayfs and a tmpfs: root only")
    try:
        wanted = arguments.peer or (_QUICK_PEERS if arguments.quick else None)
        peers = _chosen("peer", wanted, all_peers(dict(arguments.program)))
        workloads = _chosen("workload", arguments.workload, load_all())
    except KeyError as error:
        parser.error(error.args[0])
    os.umask(0o022)
    signal.signal(signal.SIGTERM, _terminated)
    session = Session(arguments, peers, workloads)
    try:
        content = session.run()
    except BackingFailed as error:
        return _error(str(error))
    except KeyboardInterrupt:
        return _error("interrupted; everything is unmounted")
    return _show(content, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time union file systems side by side.")
    parser.add_argument("--workload", action="append", metavar="NAME", help=f"one of {', '.join(load_all())}")
    parser.add_argument("--peer", action="append", metavar="NAME", help=f"one of {', '.join(all_peers())}")
    parser.add_argument("--repeat", type=_positive, metavar="N", help="repetitions (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small trees: does everything run? Figures mean little")
    setting = parser.add_mutually_exclusive_group()
    for name, text in (
        ("pinned", "all on one CPU"),
        ("free", "no pinning"),
        ("both", "one after the other (default; with --quick: pinned)"),
    ):
        setting.add_argument(f"--{name}", action="store_const", const=name, dest="setting", help=text)
    parser.add_argument("--backing", choices=("tmpfs", "ext4", "both"), default="tmpfs")
    parser.add_argument("--timeout", type=_positive, metavar="S", help="seconds a client may take (300; quick 30)")
    parser.add_argument("--program", type=_assignment, action="append", default=[], metavar="PEER=PATH",
                        help="another build of fuse-overlayfs, unionfs-fuse or ratarmount")  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="DIR", help="where to mount and to keep the ext4 image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and medians, after each workload")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios to the kernel as PNG")
    parser.add_argument("--markdown", action="store_true", help="print tables (default without --json and --plot)")
    parser.add_argument("--cpu", action="store_true", help="show processor time, which other load disturbs less")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: show an earlier --json file")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or name not in ("fuse-overlayfs", "unionfs-fuse", "ratarmount"):
        raise argparse.ArgumentTypeError("must be fuse-overlayfs=PATH, unionfs-fuse=PATH or ratarmount=PATH")
    return name, value


def _chosen(what: str, names: Sequence[str] | None, known: dict[str, Choice]) -> list[Choice]:
    for name in names or ():
        if name not in known:
            raise KeyError(f"unknown {what} {name!r}: one of {', '.join(known)}")
    return [value for name, value in known.items() if not names or name in names]


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM unwinds like ^C, so that every mount is removed."""
    raise KeyboardInterrupt


def _error(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _show(content: dict[str, Any], arguments: argparse.Namespace) -> int:
    if arguments.cpu:
        content = report.of_processor_time(content)
    if arguments.markdown or (arguments.json is None and arguments.plot is None):
        print(report.markdown(content), end="")
    if arguments.plot is not None:
        try:
            plot(content, arguments.plot)
        except NothingToPlot as error:
            return _error(str(error))
    return 0


@dataclass(slots=True)
class Session:
    """One run: its choices, what it has measured so far, and the JSON file it keeps up to date."""

    arguments: argparse.Namespace
    peers: list[Peer]
    workloads: list[Workload]
    results: list[report.Result] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    _head: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Measure everything. Returns the report document. Nothing stays mounted, however this ends."""
        scale = QUICK if self.arguments.quick else FULL
        work = _work_directory(self.arguments.work)
        environment = {**os.environ, "LC_ALL": "C", MARKER: uuid.uuid4().hex}
        runner = Runner(environment, self.arguments.timeout or (30 if self.arguments.quick else 300))
        cpus = os.sched_getaffinity(0)
        self._head = self._facts(scale)
        with fuse_control(work / "fusectl") as control:
            for kind in self._backings():
                with backing(kind, work, scale.room, control) as place, _left_as_found(cpus, environment):
                    trees = Trees(place.trees, scale)
                    if not self._head["peers"]:
                        self._probe(trees, place, runner, control)
                    for setting in self._settings():
                        os.sched_setaffinity(0, {max(cpus)} if setting == "pinned" else cpus)
                        for workload in self.workloads:
                            self._ask(workload, setting, trees, place, runner, control)
        return self._document()

    def _backings(self) -> list[str]:
        return ["tmpfs", "ext4"] if self.arguments.backing == "both" else [self.arguments.backing]

    def _settings(self) -> list[str]:
        chosen = self.arguments.setting or ("pinned" if self.arguments.quick else "both")
        return ["pinned", "free"] if chosen == "both" else [chosen]

    def _repeat(self) -> int:
        return int(self.arguments.repeat or (1 if self.arguments.quick else 5))

    def _facts(self, scale: Scale) -> dict[str, Any]:
        options = {
            "scale": scale.name,
            "repeat": self._repeat(),
            "workloads": [workload.name for workload in self.workloads],
            "peers": [peer.name for peer in self.peers],
            "settings": self._settings(),
            "backings": self._backings(),
        }
        return {"started": _now(), "finished": None, "options": options, "machine": machine.facts(), "peers": []}

    def _probe(self, trees: Trees, place: Backing, runner: Runner, control: Path) -> None:
        """Mount each peer once: finds those that cannot, and warms what a first start reads from the disk."""
        for peer in self.peers:
            reason = peer.missing()
            if reason is None and peer.fstypes:
                arena = Arena(peer, trees, place, runner, control)
                try:
                    with arena.mount([trees.five_k().path]) as mount:
                        mount.runner.run(["ls", str(mount.path / "unpacked")])
                except (MountFailed, StepError, WrongResult) as error:
                    reason = str(error)
            if reason is not None:
                self.reasons[peer.name] = reason
                _say(f"{peer.name}: left out: {reason}")
            self._head["peers"].append(
                {
                    "name": peer.name,
                    "title": peer.title,
                    "version": None if reason else peer.version(),
                    "reason": reason,
                }
            )

    def _ask(
        self, workload: Workload, setting: str, trees: Trees, place: Backing, runner: Runner, control: Path
    ) -> None:
        """All repetitions of one workload, the peers in turns."""
        peers = [peer for peer in self.peers if peer.name not in self.reasons and _takes_part(peer, workload)]
        table = {
            peer.name: [report.Result(place.kind, setting, workload.name, m.name, peer.name) for m in workload.metrics]
            for peer in peers
        }
        for results in table.values():
            self.results.extend(results)
        for _ in range(self._repeat()):
            for peer in peers:
                if all(result.status == "ok" for result in table[peer.name]):
                    _once(workload, Arena(peer, trees, place, runner, control), table[peer.name])
        for results in table.values():
            for result in results:
                figures = " ".join(f"{sample:.4g}" for sample in result.samples)
                _say(f"{place.kind} {setting} {result.metric} {result.peer}: {figures or result.status}"
                     + (f": {result.reason}" if result.reason else ""))  # fmt: skip
        self._document()

    def _document(self) -> dict[str, Any]:
        """The report so far; also written to the JSON file, so that an interrupted run leaves what it has."""
        self._head["finished"] = _now()
        self._head["machine"]["load_after"] = os.getloadavg()[0]
        content = report.document(self._head, self.workloads, self.results)
        if self.arguments.json is not None:
            report.write_json(self.arguments.json, content)
        return content


@contextlib.contextmanager
def _left_as_found(cpus: set[int], environment: dict[str, str]) -> Iterator[None]:
    """Undo the pinning; kill a server that an interrupt lost sight of between its start and its mount."""
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        kill_pids(marked_pids(environment))


def _takes_part(peer: Peer, workload: Workload) -> bool:
    if workload.only is not None:
        return peer.name in workload.only
    return peer.name not in TOOLS and (workload.user or not peer.user) and (workload.packed or not peer.packed)


def _once(workload: Workload, arena: Arena, results: Sequence[report.Result]) -> None:
    """One repetition with one peer; its figures, or its failure, go to `results` (one per metric)."""
    status, reason = "ok", ""
    figures: dict[str, Step | float] = {}
    try:
        figures = dict(workload.run(arena))
    except StepTimedOut as error:
        status, reason = "timeout", str(error)
    except WrongResult as error:
        status, reason = "wrong", str(error)
    except (StepError, MountFailed) as error:
        status, reason = "failed", str(error)
    for result in results:
        if status == "ok":
            figure = figures[result.metric]
            result.samples.append(figure.seconds if isinstance(figure, Step) else figure)
            result.cpu_samples.extend([figure.cpu_seconds] if isinstance(figure, Step) else [])
        else:
            result.fail(status, reason)


def _work_directory(wanted: Path | None) -> Path:
    """The directory the run mounts below; by default one of its own name in the temporary directory."""
    work = (wanted or Path(tempfile.gettempdir()) / "unionfs-benchmarks").absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = os.lstat(work)
    # In /tmp anybody can make a name first: never mount below a link or a directory of somebody else's.
    if work.is_symlink() or found.st_uid != os.geteuid():
        raise BackingFailed(f"{work} is a link or belongs to uid {found.st_uid}; choose another with --work")
    work.chmod(0o755)
    return work.resolve()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
