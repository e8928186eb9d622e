"""buildah on `unionfs-mount`: images built in steps, each step a layer over the ones before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.containers import BUILD, Host
from tests.requirements import requires

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer,
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    requires("root", "fuse", "fusermount3", "podman", "buildah", "busybox", "unshare", "tar"),
]

BASE = "localhost/bb:1"

CONTAINERFILE = """\
FROM localhost/bb:1
RUN mkdir -p /big/deep && echo 1 > /big/one && echo 2 > /big/deep/two && echo base > /small
RUN mv /big /moved && mkdir /big && echo fresh > /big/only
RUN mv /moved/deep /big/deep && rm -r /moved && mkdir /moved && rm /small && mkdir /small
RUN mv /etc/init.d /etc/old && mkdir /etc/init.d && mv /etc/old/S01 /etc/init.d/S01 && ln /etc/old/S02 /etc/init.d/link
COPY --chown=5:6 copied /srv/
RUN echo more >> /etc/motd && chmod 600 /etc/motd && rm -r /usr/share/doc && touch /srv/copied
"""

ASK = (
    "find /big /moved /small | sort; cat /big/only /big/deep/two; ls /etc/old | wc -l; ls /etc/init.d;"
    "cat /etc/init.d/S01; stat -c %h /etc/old/S02 /etc/init.d/link; "
    "stat -c %a:%u:%g /etc/motd /srv/copied; cat /srv/copied; ls /usr/share"
)
ANSWERS = [
    "/big", "/big/deep", "/big/deep/two", "/big/only", "/moved", "/small", "fresh", "2", "20", "S01", "link",
    "#!/bin/sh", "exit 1", "2", "2", "600:0:0", "640:5:6", "copied",
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("buildah")) as made:
        made.import_busybox(BASE)
        yield made


@pytest.fixture(autouse=True)
def nothing_stays_mounted(host: Host) -> Iterator[None]:
    yield
    host.until_unmounted()


@pytest.mark.parametrize("layers", ["--layers", "--layers=false"])
def test_a_build_with_directories_renamed_and_made_again(host: Host, tmp_path: Path, layers: str) -> None:
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    (tmp_path / "copied").write_text("copied\n")
    (tmp_path / "copied").chmod(0o640)
    name = f"localhost/built{layers.count('=')}:1"
    steps = host.buildah("build", *BUILD, layers, "-t", name, tmp_path)
    assert "Using cache" not in steps
    container = host.buildah("from", name)
    assert host.buildah("run", *BUILD[:2], container, "--", "/bin/sh", "-c", ASK).splitlines() == ANSWERS
    host.buildah("rm", container)
    if layers == "--layers":
        image = host.buildah("images", "-q", name)
        again = host.buildah("build", *BUILD, layers, "-t", name, tmp_path)
        assert again.count("Using cache") == CONTAINERFILE.count("\n") - 1
        assert host.buildah("images", "-q", name) == image
        assert ".wh.doc" in host.whiteout_files()


def test_from_scratch_by_hand(host: Host) -> None:
    container = host.buildah("from", "scratch")
    root = host.path(host.buildah("mount", container))
    (root / "bin").mkdir()
    (root / "bin/busybox").write_bytes((host.directory / "root/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "bin/sh").symlink_to("busybox")
    host.buildah("umount", container)
    host.buildah("config", "--cmd", "/bin/sh", "--env", "WHO=me", container)
    host.buildah("commit", "-q", container, "localhost/scratch:1")
    host.buildah("rm", container)
    container = host.buildah("from", "localhost/scratch:1")
    assert host.buildah("run", *BUILD[:2], container, "--", "/bin/sh", "-c", "echo $WHO; echo /bin/*") == (
        "me\n/bin/busybox /bin/sh"
    )
    host.buildah("rm", container)
