"""How long, and how many bytes, until the first file of a large image can be read: pulled whole, and pulled lazily.

    python -m benchmarks.lazy [--megabytes 500] [--layers 10] [--repetitions 3] [--work DIR]

    whole     `image pull`, `mount --image`, one file read
    lazy      the same with `image pull --lazy`
    all       `pull --lazy`, mount, every file read (tar)

Layers are eStargz, of files of 256 KiB that do not shrink. The registry is Debian's docker-registry on this machine, so
the times are those of a very fast network; bytes are those that came in by the loopback interface meanwhile, the
registry's answers among others: run it in a network namespace of its own where others use that, as
`unshare -n sh -c 'ip link set lo up; python -m benchmarks.lazy'`. Root only.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers import command_line
from benchmarks.pull import registry
from unionfs.changeset.tar_format import REG, TRAILER, Fields, member, padding

_FILE = 256 << 10
_OCI = "application/vnd.oci.image."


def estargz(number: int, size: int) -> tuple[bytes, str, str]:
    """A layer's blob, the digest of its table of contents, and its diff_id (docs/estargz.md of stargz-snapshotter)."""
    source, out, tar = random.Random(number), bytearray(), hashlib.sha256()
    entries, between = [], b""

    def put(data: bytes) -> int:
        tar.update(data)
        out.extend(gzip.compress(data, 1, mtime=0))
        return len(out)

    for index in range(max(1, size // _FILE)):
        name, data = f"usr/share/layer{number}/{index % 16}/file{index}", source.randbytes(_FILE)
        offset = put(between + member(Fields(name.encode(), REG, 0o644, size=_FILE)))
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        entries.append(
            {"name": name, "type": "reg", "mode": 0o644, "size": _FILE, "offset": offset, "chunkDigest": digest}
        )
        put(data)
        between = bytes(padding(_FILE))
    end = put(between) if between else len(out)
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    put(member(Fields(b"stargz.index.json", REG, 0o444, size=len(toc))) + toc + bytes(padding(len(toc))) + TRAILER)
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % end
    out += b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    out += b"\x01\x00\x00\xff\xff" + bytes(8)
    return bytes(out), "sha256:" + hashlib.sha256(toc).hexdigest(), "sha256:" + tar.hexdigest()


def write_layout(directory: Path, layers: int, size: int) -> None:
    """An OCI layout of one image, "it"."""

    def put(data: bytes, media_type: str, **more: object) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (directory / "blobs/sha256" / name).write_bytes(data)
        return {"mediaType": f"{_OCI}{media_type}", "digest": f"sha256:{name}", "size": len(data), **more}

    (directory / "blobs/sha256").mkdir(parents=True)
    descriptors, diff_ids = [], []
    for number in range(layers):
        blob, toc, diff_id = estargz(number, size // layers)
        told = {"containerd.io/snapshot/stargz/toc.digest": toc}
        descriptors.append(put(blob, "layer.v1.tar+gzip", annotations=told))
        diff_ids.append(diff_id)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": descriptors,
    }
    named = {
        **put(json.dumps(manifest).encode(), "manifest.v1+json"),
        "annotations": {"org.opencontainers.image.ref.name": "it"},
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def received() -> int:
    """Bytes that came in by the loopback interface so far."""
    (line,) = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split()[1])


def one_file(mnt: Path) -> None:
    if len((mnt / "usr/share/layer0/1/file1").read_bytes()) != _FILE:
        raise SystemExit("the file is not what it should be")


def every_file(mnt: Path) -> None:
    subprocess.run(f"tar -C {mnt} -cf - . | cat > /dev/null", shell=True, check=True)


def measure(target: Path, image: str, lazy: Sequence[str], read: Callable[[Path], None]) -> tuple[float, int]:
    """Seconds and bytes."""
    mnt = target / "mnt"
    mnt.mkdir(parents=True)
    environ = {**os.environ, "UNIONFS_STORE": f"{target}/store", "UNIONFS_CACHE": f"{target}/cache"}
    program = command_line()
    assert program is not None  # the tree holds it

    def ours(*argv: str | Path) -> None:
        subprocess.run([*program, *argv], check=True, env=environ, stdout=subprocess.DEVNULL)

    begin, before = time.monotonic(), received()
    ours("image", "pull", "-q", *lazy, image)
    ours("mount", "--image", image, "--read-only", mnt)
    try:
        read(mnt)
        return time.monotonic() - begin, received() - before
    finally:
        ours("umount", mnt)
        shutil.rmtree(target)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.lazy", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500, help="all layers together")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--work", default="/dev/shm", help="a directory with room for five times that")
    arguments = parser.parse_args(argv)
    cases = {"whole": ((), one_file), "lazy": (("--lazy",), one_file), "all": (("--lazy",), every_file)}
    found: dict[str, list[tuple[float, int]]] = {}
    with tempfile.TemporaryDirectory(prefix="unionfs-lazy-", dir=arguments.work) as name:
        work = Path(name)
        write_layout(work / "image", arguments.layers, arguments.megabytes * 10**6)
        with registry(work / "registry") as host:
            image = f"{host}/big:it"
            source = ("--dest-tls-verify=false", "--preserve-digests", f"oci:{work}/image:it", f"docker://{image}")
            subprocess.run(["skopeo", "copy", "-q", *source], check=True)
            for _ in range(arguments.repetitions):
                for case, (lazy, read) in cases.items():
                    found.setdefault(case, []).append(measure(work / "target", image, lazy, read))
    print(f"{'':8}{'seconds':>9}{'MB':>9}")
    for case, samples in found.items():
        seconds, size = (statistics.median(values) for values in zip(*samples, strict=True))
        print(f"{case:8}{seconds:9.2f}{size / 1e6:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
