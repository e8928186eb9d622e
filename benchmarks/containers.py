"""How long does a container take from start to end? `run --rm IMAGE true`, beside podman on the kernel's overlayfs.

    python -m benchmarks.containers [--repetitions 20] [--work DIR] [--json FILE] [--program UNIONFS]

    podman          `podman run --rm --network none`, native overlay, an image of one layer, imported
    podman bridge   with a network of its own, as podman gives it to root by default, where this machine can do that
    ours            `unionfs run --rm --network none`, the same tar
    ours private    with a network of its own, by slirp4netns

An editable install takes some 20 ms longer to start than another; `--program` names one to be measured.

Root only. All is done in a mount namespace with cgroup v2 alone, since crun refuses both versions at once, and
read-only, so that neither makes groups, which needs privileges that a virtual machine may lack. The peers take turns;
the first repetition of each is not counted; shown are medians, fastest and slowest, of wall clock, and of the
processor time of what each command waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_SETUP = """
mkdir -p /run /dev/shm
for place in /run /dev/shm; do mount -t tmpfs benchmark $place; done
if mountpoint -q /sys/fs/cgroup; then umount -R -l /sys/fs/cgroup; fi
mount -t cgroup2 -o ro benchmark /sys/fs/cgroup
exec "$@"
"""
#: What a machine may lack the privilege for (raising limits), or cannot do in a namespace (its own control groups).
_PODMAN = ("--cgroups", "disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def image(directory: Path) -> Path:
    """A tar of busybox and its name `true`."""
    program = shutil.which("busybox")
    if program is None:
        raise SystemExit("error: there is no busybox\nhint: apt-get install busybox-static")
    root = directory / "root"
    for name in ("bin", "dev", "etc", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "bin/busybox")
    (root / "bin/true").symlink_to("busybox")
    with tarfile.open(directory / "image.tar", "w") as tar:
        tar.add(root, ".")
    return directory / "image.tar"


def peers(directory: Path, tar: Path, program: Path) -> dict[str, list[str]]:
    """The commands by name; their images are there."""
    found = {}
    ours = [str(program), "--store", str(directory / "store")]
    subprocess.run([*ours, "image", "import", str(tar), "busybox"], check=True, stdout=subprocess.DEVNULL)
    if shutil.which("podman"):
        podman = [
            "podman", "--root", str(directory / "podman"), "--runroot", str(directory / "podman-run"),
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
        ]  # fmt: skip
        subprocess.run([*podman, "import", "-q", str(tar), "busybox"], check=True, stdout=subprocess.DEVNULL)
        found["podman"] = [*podman, "run", "--rm", "--network", "none", *_PODMAN, "busybox", "true"]
        bridge = [*podman, "run", "--rm", *_PODMAN, "busybox", "true"]
        if subprocess.run(bridge, capture_output=True, check=False).returncode == 0:
            found["podman bridge"] = bridge
    found["ours"] = [*ours, "run", "--rm", "--network", "none", "busybox", "true"]
    if shutil.which("slirp4netns"):
        found["ours private"] = [*ours, "run", "--rm", "busybox", "true"]
    return found


def measure(commands: dict[str, list[str]], repetitions: int) -> dict[str, list[tuple[float, float]]]:
    """Wall clock and processor time of each, in seconds."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(repetitions + 1):
        for name, argv in commands.items():
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
            spent = time.monotonic() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if turn:
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                samples[name].append((spent, used))
    return samples


def report(samples: dict[str, list[tuple[float, float]]]) -> str:
    base = statistics.median(wall for wall, _ in samples["podman"]) if "podman" in samples else None
    lines = ["| | median | fastest | slowest | × podman | processor |", "|---|---:|---:|---:|---:|---:|"]
    for name, both in samples.items():
        walls = [wall for wall, _ in both]
        median = statistics.median(walls)
        factor = f"{median / base:.2f}" if base else "–"
        used = statistics.median(cpu for _, cpu in both)
        lines.append(f"| {name} | {median:.3f} | {min(walls):.3f} | {max(walls):.3f} | {factor} | {used:.3f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--work", type=Path, default=Path("/tmp"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--program", type=Path, default=Path(sys.executable).parent / "unionfs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        raise SystemExit("error: this needs root")
    if not options.inside:
        again = [sys.executable, "-m", "benchmarks.containers", "--inside", *(sys.argv[1:] if argv is None else argv)]
        unshare = ["unshare", "-m", "--propagation", "private", "sh", "-ec", _SETUP, "sh"]
        return subprocess.run([*unshare, *again], check=False).returncode
    with tempfile.TemporaryDirectory(dir=options.work, prefix="unionfs-containers-") as name:
        directory = Path(name)
        os.environ["UNIONFS_CACHE"] = str(directory / "cache")
        samples = measure(peers(directory, image(directory), options.program), options.repetitions)
    print(report(samples))
    if options.json is not None:
        options.json.write_text(json.dumps(samples, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
