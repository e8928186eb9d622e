"""A minimal Debian as a lower layer: dpkg at work inside the mount, the result committed, applied, and the same.

The root is made by debootstrap from the mirror that the machine's own apt uses, and kept as a tar in pytest's cache
(`pytest --cache-clear` makes it anew). Its packages' archives serve for installing them again over themselves.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compat.real_mount import RealStack, chroot, debian_target, each_transport, pack, run
from tests.requirements import requires
from tests.semantics.unions import copy_tree, same_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # making the root counts for the first test
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "debootstrap", "tar"),
]

#: Fetched beside the root: a program, and a package that is all configuration files.
PACKAGES = ("hello", "netbase")

#: Of a machine without network, say. debootstrap's own checks decide, nothing is probed beforehand.
NO_MIRROR = "missing: a Debian mirror that apt is configured for and can reach"

#: Without these the maintainer scripts would look for terminals and start services of the host.
NONINTERACTIVE = ("env", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true")


@pytest.fixture(scope="module")
def debian(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of the root, with the packages' archives in /packages."""
    target = debian_target()
    if target is None:
        pytest.skip(NO_MIRROR)
    mirror, suite = target
    assert pytestconfig.cache is not None
    kept = pytestconfig.cache.mkdir("debian") / f"{suite}-{platform.machine()}-{'-'.join(PACKAGES)}.tar"
    if not kept.exists():
        root = tmp_path_factory.mktemp("debian") / "root"
        try:
            make_root(root, mirror, suite)
        except subprocess.TimeoutExpired:
            pytest.skip(NO_MIRROR)
        pack(root, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
        shutil.rmtree(root)
    return kept


def make_root(root: Path, mirror: str, suite: str) -> None:
    """AssertionError with what debootstrap or apt said; a mirror that cannot be reached is a skip."""
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", suite, str(root), mirror], capture_output=True, text=True, timeout=240
    )
    said = done.stdout + done.stderr
    if done.returncode and ("Failed getting release file" in said or "Couldn't download" in said):
        pytest.skip(NO_MIRROR)
    assert done.returncode == 0, said[-3000:]
    (root / "packages").mkdir()
    # The archives that debootstrap has fetched; then the others, which the machine's own apt may not know.
    for archive in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        archive.rename(root / "packages" / archive.name)
    fetch = "apt-get -qq update && cd /packages && apt-get -qq download " + " ".join(PACKAGES)
    fetched = subprocess.run(
        ["chroot", str(root), "sh", "-c", fetch],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    if fetched.returncode:
        # Inside, names may not be resolvable; outside, the same lists are there already.
        run("apt-get", "-qq", "download", *PACKAGES, cwd=root / "packages", timeout=120)
    run("chown", "-R", "0:0", str(root / "packages"))
    run("sh", "-c", 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin', "sh", str(root))


@pytest.fixture
def stack(debian: Path, transport: str, tmp_path: Path) -> RealStack:
    """On the disk, not in memory: 300 MB, and a file system of the ordinary kind."""
    made = RealStack(tmp_path, transport)
    base = made.lower()
    run("tar", "-C", str(base), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(debian), timeout=120)
    return made


def dpkg(root: Path, *argv: str) -> str:
    return chroot(root, *NONINTERACTIVE, "dpkg", *argv, timeout=150)


def archive_of(root: Path, package: str) -> str:
    """The path inside of the newest archive of a package."""
    return "/packages/" + sorted(path.name for path in (root / "packages").glob(f"{package}_*.deb"))[-1]


@each_transport("devfuse", "fusepy")
def test_packages_installed_reinstalled_and_removed(stack: RealStack) -> None:
    verified = dpkg(stack.layers[-1], "--verify")
    with stack.mounted() as mnt:
        dpkg(mnt, "-i", archive_of(mnt, "hello"))
        assert chroot(mnt, "hello") == "Hello, world!\n"
        assert dpkg(mnt, "--verify", "hello") == ""
        # Over themselves: every file of a lower layer replaced by the dance of .dpkg-new, link and rename.
        dpkg(mnt, "-i", *(archive_of(mnt, package) for package in ("base-files", "sed")))
        chroot(mnt, "sh", "-c", "echo '# edited' >> /etc/debconf.conf; rm -r /usr/share/doc/perl-base; mv /opt /srv")
        dpkg(mnt, "-i", archive_of(mnt, "netbase"))
        (mnt / "etc" / "services").write_text("# mine\n")
        dpkg(mnt, "-r", "netbase")
        assert (mnt / "etc" / "services").read_text() == "# mine\n"
        dpkg(mnt, "-P", "netbase", "hello")
        assert not (mnt / "etc" / "services").exists()
        dpkg(mnt, "-i", archive_of(mnt, "hello"))
        assert sorted(set(dpkg(mnt, "--verify").splitlines()) - set(verified.splitlines())) == [
            "??5?????? c /etc/debconf.conf", *(line for line in dpkg(mnt, "--verify", "perl-base").splitlines()),
        ]  # fmt: skip
        assert dpkg(mnt, "--audit") == ""
        seen = copy_tree(mnt, stack.directory / "seen")
        layer = stack.commit("layer.tar.gz")
    stack.unionfs("apply", layer, stack.layers[-1])
    same_tree(stack.layers[-1], seen)
    assert chroot(stack.layers[-1], "hello") == "Hello, world!\n"
    shutil.rmtree(stack.directory)
