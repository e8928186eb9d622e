"""Layer tars mounted where they lie: trees made by others' tars, commands on them, and mounts without privilege."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.real_mount import pack, umoci_unpack
from tests.golden.hostile_tars import archive, entry
from tests.golden.trees import describe
from tests.requirements import requires
from tests.unit.cli_runner import PROJECT, Ran, process_of, program, refused
from unionfs import api
from unionfs.changeset.tar_format import DIR

pytestmark = [pytest.mark.needs_fuse, requires("fuse", "root")]

TIME = 1_600_000_000_123_456_789


class Place:
    """A directory with a mountpoint, and commands on it, with a cache of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.tree, self.upper = path, path / "tree", path / "upper"
        self.tree.mkdir()

    def run(self, *argv: str | Path) -> Ran:
        return program(*argv, env={"UNIONFS_CACHE": str(self.path / "cache")})

    def mount(self, *layers: Path, options: tuple[str | Path, ...] = ()) -> None:
        arguments = [argument for layer in layers for argument in ("-l", layer)]
        ran = self.run("mount", *arguments, *options, self.tree)
        assert (ran.status, ran.out, ran.err) == (0, b"", b"")

    def umount(self) -> None:
        ran = self.run("umount", self.tree)
        assert (ran.status, ran.err) == (0, b"")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if os.path.ismount(made.tree):
        made.run("umount", "--lazy", made.tree)


def real_tree(path: Path) -> Path:
    """A little of everything that a root file system has."""
    for directory in ("bin", "etc/deep/er", "var/tmp", "empty", "n" * 200):
        (path / directory).mkdir(parents=True)
    (path / "var/tmp").chmod(0o1777)
    (path / "bin/tool").write_bytes(os.urandom(300_000))
    (path / "bin/tool").chmod(0o4755)
    os.link(path / "bin/tool", path / "bin/alias")
    os.symlink("../bin/tool", path / "etc/link")
    (path / "etc/ü").write_text("name")
    (path / "etc/deep/er" / ("x" * 255)).write_text("long")
    os.setxattr(path / "etc/ü", "user.note", b"\0\xff")
    os.mknod(path / "null", 0o020666, os.makedev(1, 3))
    os.mkfifo(path / "pipe")
    os.chown(path / "etc/ü", 1000, 100, follow_symlinks=False)
    with open(path / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    for directory, names, files in os.walk(path, topdown=False):
        for name in (*files, *names):
            os.utime(os.path.join(directory, name), ns=(TIME, TIME), follow_symlinks=False)
    os.utime(path, ns=(TIME, TIME))
    return path


def by_gnu_tar(tree: Path, tar: Path, *options: str) -> None:
    subprocess.run(["tar", "-c", "--numeric-owner", *options, "-C", tree, "-f", tar, "."], check=True)


def by_bsdtar(tree: Path, tar: Path) -> None:
    subprocess.run(["bsdtar", "-c", "--format=pax", "--xattrs", "-C", tree, "-f", tar, "."], check=True)


def by_python(tree: Path, tar: Path) -> None:
    with tarfile.open(tar, "w:xz", format=tarfile.GNU_FORMAT) as out:
        out.add(tree, arcname="")


MADE_BY = {
    "GNU tar": pack,
    "GNU tar, sparse and gzip": lambda tree, tar: by_gnu_tar(
        tree, tar, "-Sz", "--format=pax", "--xattrs", "--xattrs-include=*"
    ),
    "GNU tar, old format and zstd": lambda tree, tar: by_gnu_tar(tree, tar, "-S", "--zstd", "--format=gnu"),
    "bsdtar": by_bsdtar,
    "Python, GNU format and xz": by_python,
}


@requires("bsdtar")
@pytest.mark.parametrize("made_by", MADE_BY)
def test_a_tar_is_mounted_as_what_it_was_made_of(place: Place, made_by: str) -> None:
    source = real_tree(place.path / "source")
    MADE_BY[made_by](source, place.path / "layer")
    place.mount(place.path / "layer")
    wanted, found = describe(source), describe(place.tree)
    if made_by.endswith(("zstd", "xz")):
        # Whole seconds and no xattrs is all that the format holds.
        wanted = [
            line.replace(str(TIME), f"{TIME // 10**9 * 10**9}").replace(" user.note=%00%FF", "") for line in wanted
        ]
    assert found == wanted


@requires("umoci")
def test_a_stack_of_tars_is_what_umoci_unpacks(place: Place) -> None:
    base = real_tree(place.path / "source")
    pack(base, place.path / "base.tar")
    place.mount(place.path / "base.tar", options=("-u", place.upper))
    for command in (
        "rm -r etc/deep",
        "mkdir -p etc/deep/new && echo 1 > etc/deep/new/f",
        "mv bin sbin",
        "echo more >> sbin/tool",
        "rm pipe",
        "ln sbin/tool var/hard",
        "chmod 700 empty",
    ):
        subprocess.run(["sh", "-ec", command], cwd=place.tree, check=True)
    seen = describe(place.tree)
    ran = place.run("commit", place.tree, "-o", place.path / "top.tar")
    assert ran.status == 0
    place.umount()
    unpacked = umoci_unpack(place.path, [place.path / "base.tar", place.path / "top.tar"])
    (place.path / "top.tar.gz").write_bytes(gzip.compress((place.path / "top.tar").read_bytes()))
    place.mount(place.path / "top.tar.gz", place.path / "base.tar")
    assert describe(place.tree) == describe(unpacked) == seen


def test_directories_and_tars_mix(place: Place) -> None:
    (place.path / "top").mkdir()
    (place.path / "top/a").write_text("top")
    (place.path / "base").mkdir()
    (place.path / "base/gone").write_text("base")
    (place.path / "base/kept").write_text("base")
    middle = place.path / "middle.tar.gz"
    middle.write_bytes(gzip.compress(archive(entry(b".wh.gone"), entry(b"a", data=b"middle"), entry(b"b"))))
    place.mount(place.path / "top", middle, place.path / "base")
    assert sorted(os.listdir(place.tree)) == ["a", "b", "kept"]
    assert (place.tree / "a").read_text() == "top"


def test_the_mount_helper_takes_tars_too(place: Place) -> None:
    tar = place.path / "layer.tar"
    tar.write_bytes(archive(entry(b"f", data=b"data")))
    options = f"lowerdir={tar}"
    ran = program("-o", options, place.tree, module="unionfs.api.mount_helper",
                  env={"UNIONFS_CACHE": str(place.path / "cache")})  # fmt: skip
    assert (ran.status, ran.err) == (0, b"")
    assert (place.tree / "f").read_bytes() == b"data"


def test_what_is_no_layer_is_refused_with_a_hint(place: Place) -> None:
    (place.path / "text").write_text("hello")
    refused(place.run("mount", "-l", place.path / "text", place.tree), 1, "is not a layer tar", "plain, gzip, zstd")
    os.mkfifo(place.path / "pipe")
    refused(place.run("mount", "-l", place.path / "pipe", place.tree), 1, "not a directory")
    (place.path / "cut.tar.gz").write_bytes(gzip.compress(archive(entry(b"f", data=b"x" * 999)))[:-20])
    refused(place.run("mount", "-l", place.path / "cut.tar.gz", place.tree), 1, "ends early")


def test_reading_a_tar_shows_how_far_it_is(place: Place) -> None:
    """On a terminal."""
    (place.path / "layer.tar.gz").write_bytes(gzip.compress(archive(entry(b"f", data=os.urandom(1 << 20)))))
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "UNIONFS_CACHE": str(place.path / "cache"), "TERM": "xterm"}
    terminal, stderr = pty.openpty()
    argv: list[str | Path] = [*process_of(), "mount", "-l", place.path / "layer.tar.gz", place.tree]
    done = subprocess.run(argv, stderr=stderr, timeout=60, check=False, env=env)
    os.set_blocking(terminal, False)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    os.close(stderr)
    assert done.returncode == 0, shown
    assert b"read" in shown and b"1.0" in shown, shown
    assert (place.tree / "f").stat().st_size == 1 << 20


def test_diff_and_check_over_a_tar(place: Place) -> None:
    tar = place.path / "layer.tar"
    tar.write_bytes(archive(entry(b"d/", DIR), entry(b"d/f", data=b"1")))
    (place.upper / "d").mkdir(parents=True)
    (place.upper / "d/g").write_text("2")
    ran = place.run("diff", "-l", tar, "-u", place.upper)
    assert (ran.status, ran.lines) == (0, ["C /d", "A /d/g"])
    ran = place.run("check", "-l", tar, place.upper)
    assert ran.status == 0, ran


def test_a_tar_is_checked_as_any_layer(place: Place) -> None:
    (place.path / "base.tar").write_bytes(archive(entry(b"there")))
    (place.path / "top.tar").write_bytes(archive(entry(b".wh.there"), entry(b".wh.nowhere")))
    ran = place.run("check", "-l", place.path / "base.tar", place.path / "top.tar")
    (line,) = ran.lines
    assert ran.status == 1 and "nowhere" in line
    refused(place.run("check", "--repair", place.path / "top.tar"), 1, "is a tar, which is only read", "unionfs apply")


def test_copy_ups_of_a_tar_stay_after_a_remount(place: Place) -> None:
    source = real_tree(place.path / "source")
    pack(source, place.path / "base.tar")
    options: tuple[str | Path, ...] = ("-u", place.upper)
    place.mount(place.path / "base.tar", options=options)
    before = {path: os.lstat(place.tree / path).st_ino for path in ("bin/tool", "bin/alias", "sparse", "etc", "null")}
    with open(place.tree / "bin/tool", "ab") as file:
        file.write(b"more")
    (place.tree / "sparse").chmod(0o600)
    os.chown(place.tree / "null", 1, 1)
    place.umount()
    place.mount(place.path / "base.tar", options=options)
    assert {path: os.lstat(place.tree / path).st_ino for path in before} == before
    assert (place.tree / "bin/alias").read_bytes() == (source / "bin/tool").read_bytes() + b"more"
    assert os.lstat(place.tree / "bin/alias").st_nlink == 2
    assert os.stat(place.upper / "sparse").st_blocks == 0 or os.stat(place.upper / "sparse").st_blocks >= 6144


def test_a_large_file_is_read_in_every_way(place: Place) -> None:
    data = os.urandom(5 << 20)
    (place.path / "source").mkdir()
    (place.path / "source/big").write_bytes(data)
    (place.path / "source/after").write_bytes(b"next")
    pack(place.path / "source", place.path / "big.tar")
    place.mount(place.path / "big.tar")
    big = place.tree / "big"
    assert big.read_bytes() == data
    with open(big, "rb") as file:
        fd = file.fileno()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for at, size in ((0, 1), (4095, 2), (1 << 20, 1 << 20), ((5 << 20) - 10, 100), (5 << 20, 10)):
            assert os.pread(fd, size, at) == data[at : at + size]
    subprocess.run(["cmp", big, place.path / "source/big"], check=True)
    mapped = subprocess.run([sys.executable, "-c", _MAPPED, big], capture_output=True, check=True).stdout
    assert mapped == b"True", "what follows the file in the tar is not seen behind its end"


#: The last page of a mapping is filled with zeros behind the end of a file (mmap(2)).
_MAPPED = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
print(mmap.mmap(fd, size, prot=mmap.PROT_READ)[:] == os.pread(fd, size, 0), end="")
"""


@pytest.mark.usefixtures("device_for_all")
def test_without_privilege(place: Place) -> None:
    """A user mounts what the tar says, devices and others' files too, and changes it in an upper of their own."""
    tar = place.path / "layer.tar"
    tar.write_bytes(
        archive(entry(b"null", b"3", rdev=os.makedev(1, 3)), entry(b"mine", data=b"1", uid=65534, gid=65534))
    )
    for parent in (place.path, *place.path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    for name in ("upper", "tree"):
        (place.path / name).mkdir(exist_ok=True)
        os.chown(place.path / name, 65534, 65534)
    os.chown(place.path, 65534, 65534)
    script = f"""
set -e
export HOME={place.path} PYTHONPATH={PROJECT} UNIONFS_CACHE={place.path}/cache UNIONFS_RUNTIME_DIR={place.path}/run
mkdir -m 700 {place.path}/run
unionfs() {{ {sys.executable} -c 'import sys; from cli.main import main; sys.exit(main())' "$@"; }}
unionfs mount -l {tar} -u {place.upper} {place.tree}
trap 'unionfs umount {place.tree}' EXIT
stat -c '%F %t:%T' {place.tree}/null
echo 2 >> {place.tree}/mine
cat {place.tree}/mine
"""
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == "character special file 1:3\n12\n"


def test_a_stack_in_process_over_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.tar").write_bytes(archive(entry(b"etc/motd", data=b"hello")))
    with api.Stack([tmp_path / "a.tar"], ephemeral=True) as stack:
        assert stack.read_text("etc/motd") == "hello"
        stack.write_text("etc/motd", "changed")
        assert [change.text() for change in stack.diff()] == ["C /etc", "C /etc/motd"]
