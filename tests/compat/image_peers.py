"""Real images, and the tools that others keep them with: skopeo, umoci, and podman with a store of its own.

image = real_image(store, "real:1")      three layers with all that a layer can say, in our store
with Podman(directory) as podman: podman("load", "-i", path)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.compat.real_mount import run
from unionfs.changeset.apply import apply
from unionfs.image.image import Image
from unionfs.image.store import Store

#: Below, what a base system has; above, changed as layers change it.
BASE = """
mkdir -p etc/init.d usr/share/doc/x home/user empty opaque/old; echo welcome > etc/motd; echo one > etc/issue
for i in 1 2 3; do echo "script $i" > etc/init.d/S$i; done
ln etc/init.d/S1 etc/init.d/S1-link; chmod 4755 etc/init.d/S2; ln -s ../etc/motd home/link
chown -h 1000:1000 home/user home/link; echo doc > usr/share/doc/x/doc; echo o > opaque/old/o
head -c 300000 /dev/zero > usr/zeros; head -c 300000 /dev/urandom > usr/random; mkfifo usr/fifo; mknod usr/null c 1 3
setfattr -n user.mime -v text etc/motd; echo 'ünïcode' > 'home/ü ber'; chmod 1777 empty
touch -d '1969-12-31T12:00:00Z' etc/issue
"""
SECOND = """
mkdir -p etc usr/share opaque; echo more > etc/motd; touch etc/.wh.issue; touch usr/share/.wh.doc
touch opaque/.wh..wh..opq; echo n > opaque/new; mkdir -p usr/share/doc2; echo d > usr/share/doc2/d
"""
THIRD = """
mkdir -p etc/init.d home; echo changed > etc/init.d/S2; touch home/.wh.link; echo file > empty2; touch .wh.empty
ln etc/init.d/S2 etc/init.d/S2-again
"""


def layer_tars(directory: Path) -> list[Path]:
    """Three layer tars, base first, the second compressed."""
    tars = []
    for number, script in enumerate((BASE, SECOND, THIRD)):
        tree = directory / f"tree{number}"
        tree.mkdir()
        run("bash", "-c", f"set -e; umask 022; cd {tree}\n{script}")
        tar = directory / f"layer{number}.tar"
        run("tar", "-c", "--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name",
            "-C", str(tree), "-f", str(tar), ".")  # fmt: skip
        tars.append(tar)
    run("gzip", "-kn", str(tars[1]))
    tars[1] = tars[1].with_suffix(".tar.gz")
    return tars


def real_image(store: Store, directory: Path, name: str) -> Image:
    """An image of these layers, in `store`. Its config is as Go writes one: skopeo and podman write anew what they read
    of it, and the ID stays the same only if that gives the same bytes."""
    with store.staging() as staging:
        layers = []
        for tar in layer_tars(directory):
            with open(tar, "rb") as stream:
                layers.append(staging.add_layer(stream))
        config = {
            "created": "2024-05-06T07:08:09.123456789Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "Labels": {"a": "ü"}},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
            "history": [{"created": "2024-05-06T07:08:09Z", "created_by": f"step {at}"} for at in range(3)],
        }
        data = json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode()
        staging.publish({name: staging.add_image(data, [one.descriptor for one in layers])})
    return store.resolve(name)


def applied(store: Store, image: Image, directory: Path) -> Path:
    """The layers of an image, put on an empty directory one after the other by `unionfs apply`."""
    directory.mkdir()
    for blob in image.layers:
        apply(store.layout.blobs.path(blob.digest), os.fsencode(directory))
    return directory


def skopeo(*argv: str | Path) -> str:
    return run("skopeo", *map(str, argv), timeout=120)


def inspect(image: str) -> Any:
    """The config of an image that skopeo can reach; its bytes' digest is the image's ID."""
    return json.loads(skopeo("inspect", "--config", image))


def config_digest(image: str) -> str:
    """The image ID, as skopeo tells it of any kind of image."""
    return str(json.loads(skopeo("inspect", "--raw", image))["config"]["digest"])


class Docker:
    """A docker daemon of its own, that has no network, with `docker` to talk to it. ImageIDs are all that counts."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="docker-"))
        self._host = f"unix://{self.directory}/sock"
        arguments = [
            "dockerd", "-H", self._host, "--data-root", f"{self.directory}/data",
            "--exec-root", f"{self.directory}/run", "--pidfile", f"{self.directory}/pid",
            "--bridge", "none", "--iptables=false", "--storage-driver", "vfs",
        ]  # fmt: skip
        # It starts a containerd, which wants a /run that is free.
        script = 'mount -t tmpfs unionfs-tests /run && exec "$@"'
        self._log = open(self.directory / "log", "wb")  # noqa: SIM115  # closed by close
        self._daemon = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *arguments],
            stdout=self._log,
            stderr=self._log,
        )
        socket = self.directory / "sock"
        while not socket.exists():
            assert self._daemon.poll() is None, (self.directory / "log").read_text()[-3000:]
            os.sched_yield()

    def __call__(self, *argv: str) -> str:
        return run("docker", "-H", self._host, *argv, timeout=120)

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(60)
        self._log.close()
        shutil.rmtree(self.directory)


class Podman:
    """podman with a store of its own, of the driver that needs no mounts."""

    def __init__(self) -> None:
        # podman refuses a --runroot of more than 50 characters.
        self.directory = Path(tempfile.mkdtemp(prefix="podman-"))
        self._options = (
            "podman", "--root", f"{self.directory}/root", "--runroot", f"{self.directory}/run",
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
        )  # fmt: skip

    def __call__(self, *argv: str) -> str:
        return run(*self._options, *argv, timeout=120)

    def images(self) -> dict[str, str]:
        """IDs by name."""
        lines = self("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines)

    def close(self) -> None:
        shutil.rmtree(self.directory)
