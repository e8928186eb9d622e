"""How long does a pull take? Ten layers, 500 MB, from a registry on this machine: ours beside skopeo and podman.

    python -m benchmarks.pull [--megabytes 500] [--layers 10] [--repetitions 5] [--work DIR] [--tls]
        [--json FILE]

    skopeo              `skopeo copy docker://… oci:DIR`: the blobs, compared with their digests
    ours --no-unpack    the same, into a store
    ours                in addition each layer decompressed, hashed again and indexed: ready to be mounted
    podman              `podman pull` (vfs): in addition the files of each layer, and copies of those below

Layers are gzip'd tars of files, half of them random and half repetitive, 500 MB compressed. The registry is Debian's
docker-registry, by HTTP, or with --tls by HTTPS. Everything lies in --work (default: /dev/shm). Before each repetition
what came before is removed; the peers take turns; shown are medians of wall clock and processor time (the client's; the
registry's is the same for all).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import command_line
from benchmarks.processes import MARKER, Runner, Step

_FILE = 256 << 10
_OCI = "application/vnd.oci.image."


# the image ------------------------------------------------------------------------------------------------------------
def layer_tar(number: int, size: int) -> bytes:
    """A tar of `size` bytes of files, the same each time."""
    source, out = random.Random(number), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(max(1, size // _FILE)):
            data = source.randbytes(_FILE) if index % 2 else source.randbytes(1 << 10) * (_FILE >> 10)
            member = tarfile.TarInfo(f"usr/share/layer{number}/{index % 16}/file{index}")
            member.size, member.mtime = len(data), 10**9
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write_layout(directory: Path, layers: int, size: int) -> None:
    """An OCI layout of one image, "it", whose compressed layers have `size` bytes together."""

    def put(data: bytes, media_type: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (directory / "blobs/sha256" / name).write_bytes(data)
        return {"mediaType": f"{_OCI}{media_type}", "digest": f"sha256:{name}", "size": len(data)}

    def layer(number: int) -> tuple[str, dict[str, object]]:
        tar = layer_tar(number, 2 * size // layers)  # every other file does not count
        return hashlib.sha256(tar).hexdigest(), put(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip")

    (directory / "blobs/sha256").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(layer, range(layers)))
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id, _ in made]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [descriptor for _, descriptor in made],
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "it"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


@contextmanager
def registry(directory: Path, tls: bool = False) -> Iterator[str]:
    """docker-registry with its data in `directory`; its host and port."""
    directory.mkdir()
    http: dict[str, object] = {"addr": "127.0.0.1:0"}
    if tls:
        key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
        subprocess.run([*make, *subject], check=True, capture_output=True)
        http["tls"] = {"certificate": certificate, "key": key}
    config = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": http,
    }
    (directory / "config.yml").write_text(json.dumps(config))
    with open(directory / "log", "w") as log:
        argv = ["docker-registry", "serve", str(directory / "config.yml")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while (found := re.search(r"listening on (\S+?:\d+)", (directory / "log").read_text())) is None:
            if process.poll() is not None:
                raise SystemExit(f"docker-registry does not start: {(directory / 'log').read_text()}")
            time.sleep(0.02)
        yield found[1]
    finally:
        process.kill()
        process.wait()


# the peers ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Peer:
    """`argv` of one pull into `target` from `image` ("HOST:PORT/NAME:TAG")."""

    name: str
    needs: str
    argv: Callable[[str, Path], Sequence[str]]


def _ours(*options: str) -> Callable[[str, Path], Sequence[str]]:
    def argv(image: str, target: Path) -> Sequence[str]:
        cache = f"import os; os.environ['UNIONFS_CACHE'] = {str(target / 'cache')!r}; "
        program = command_line()
        assert program is not None  # the tree holds it
        python, dash, code = program
        verb = ["image", "pull", "-q", "--insecure", *options]
        return [python, dash, cache + code, "--store", f"{target}/store", *verb, image]

    return argv


def _podman(image: str, target: Path) -> Sequence[str]:
    places = ["--root", f"{target}/root", "--runroot", f"{target}/run", "--storage-driver", "vfs"]
    return ["podman", *places, "pull", "-q", "--tls-verify=false", image]


PEERS = (
    Peer(
        "skopeo",
        "skopeo",
        lambda image, target: [
            "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"oci:{target}/layout:it"
        ],
    ),
    Peer("ours --no-unpack", sys.executable, _ours("--no-unpack")),
    Peer("ours", sys.executable, _ours()),
    Peer("podman", "podman", _podman),
)  # fmt: skip


def measure(work: Path, layers: int, size: int, repetitions: int, tls: bool) -> dict[str, list[Step]]:
    """Steps by peer."""
    write_layout(work / "image", layers, size)
    runner = Runner({**os.environ, MARKER: str(os.getpid())}, 600)
    steps: dict[str, list[Step]] = {}
    with registry(work / "registry", tls) as host:
        image = f"{host}/big:it"
        source, target = f"oci:{work}/image:it", work / "target"
        runner.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{image}"])
        for _ in range(repetitions):
            for peer in PEERS:
                if shutil.which(peer.needs) is None:
                    continue
                target.mkdir()
                try:
                    step = runner.run(peer.argv(image, target), words_expected=True)
                finally:
                    shutil.rmtree(target)
                steps.setdefault(peer.name, []).append(step)
    return steps


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.pull", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500, help="compressed, all layers together")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--work", default="/dev/shm", help="a directory with room for five times that")
    parser.add_argument("--tls", action="store_true", help="the registry speaks HTTPS")
    parser.add_argument("--json", help="write every sample there")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="unionfs-pull-", dir=arguments.work) as work:
        size = arguments.megabytes * 10**6
        steps = measure(Path(work), arguments.layers, size, arguments.repetitions, arguments.tls)
    if arguments.json:
        samples = {name: [(step.seconds, step.cpu_seconds) for step in found] for name, found in steps.items()}
        Path(arguments.json).write_text(json.dumps(samples, indent=1))
    base = statistics.median(step.seconds for step in steps["skopeo"])
    print(f"{'':18}{'seconds':>9}{'CPU':>9}{'x skopeo':>10}")
    for name, found in steps.items():
        seconds = statistics.median(step.seconds for step in found)
        cpu = statistics.median(step.cpu_seconds for step in found)
        print(f"{name:18}{seconds:9.2f}{cpu:9.2f}{seconds / base:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
