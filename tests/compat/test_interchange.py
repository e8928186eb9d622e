"""One upper used by our mount and the kernel's in turns, in every combination of options that the kernel has.

A scenario of three acts: one of the two makes changes of every kind, the other shows the same and makes more, and the
first again. After each act both show the same tree: names, data, owners, modes, times, xattrs, link counts and groups,
and the blocks of files. Every view is that of a new mount, which knows only what is stored.
"""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.golden.trees import describe, walk
from tests.requirements import requires
from tests.unit.cli_runner import program

pytestmark = [
    pytest.mark.peer,
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    requires("root", "overlayfs", "fuse"),
]

#: More than one block, and than we copy up without a thought.
LARGE = 300_000


class Options(NamedTuple):
    userxattr: bool
    redirect_dir: bool
    indexed: bool  # `index` is a tuple's
    metacopy: bool

    def __str__(self) -> str:
        """Every option in full: our default of `redirect_dir` is on, where the kernel follows none with `userxattr`."""
        redirect_dir = "on" if self.redirect_dir else "nofollow" if self.userxattr else "off"
        index, metacopy = ("on" if value else "off" for value in (self.indexed, self.metacopy))
        namespace = "userxattr," if self.userxattr else ""
        return f"{namespace}redirect_dir={redirect_dir},index={index},metacopy={metacopy}"


#: What the kernel refuses (ovl_fs_params_verify() of fs/overlayfs/params.c), and so do we, or not.
REFUSED: dict[str, Callable[[Options], bool]] = {
    "conflicting options: metacopy=on,redirect_dir=off": lambda o: o.metacopy and not o.redirect_dir,
    "conflicting options: userxattr,redirect_dir=on": lambda o: o.userxattr and o.redirect_dir,
    "conflicting options: userxattr,metacopy=on": lambda o: o.userxattr and o.metacopy,
}
EVERY = [Options(*values) for values in itertools.product((False, True), repeat=4)]
GOOD = [options for options in EVERY if not any(rule(options) for rule in REFUSED.values())]
BAD = [options for options in EVERY if options not in GOOD]


class Rig:
    """A stack of two layers and an upper in `directory`."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory, self.options = directory, options
        self.mnt = directory / "mnt"
        for name in ("top", "base", "upper", "work", "mnt"):
            (directory / name).mkdir()
        shell(directory, LAYERS)
        self.layers = [directory / "top", directory / "base"]

    @contextmanager
    def kernel(self) -> Iterator[Path]:
        layers = ":".join(str(layer) for layer in self.layers)
        places = f"lowerdir={layers},upperdir={self.directory}/upper,workdir={self.directory}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"{places},{self.options}", self.mnt], check=True)
        try:
            yield self.mnt
        finally:
            subprocess.run(["umount", self.mnt], check=True)

    @contextmanager
    def ours(self) -> Iterator[Path]:
        layers = [word for layer in self.layers for word in ("-l", str(layer))]
        made = ["-u", f"{self.directory}/upper", "-w", f"{self.directory}/work", "-o", str(self.options)]
        ran = program("mount", *layers, *made, self.mnt)
        assert ran.status == 0, ran.err.decode()
        try:
            yield self.mnt
        finally:
            ran = program("umount", self.mnt)
        assert ran.status == 0, ran.err.decode()


def shell(directory: Path, script: str) -> None:
    subprocess.run(["sh", "-ec", script], cwd=directory, check=True, timeout=60)


LAYERS = f"""
cd base
mkdir -p d/sub deep/er gone emptied
echo file > d/file; echo other > d/other; echo sub > d/sub/file; echo deeper > deep/er/file
echo gone > gone/file; echo e > emptied/file; echo written > written; echo short > short
head -c {LARGE} /dev/urandom > large; head -c {LARGE} /dev/urandom > deep/large
echo one > one; ln one two; ln one d/three
echo four > four; ln four d/four; echo five > five; ln five d/five
ln -s nowhere symlink; mkfifo fifo
setfattr -n user.note -v below short; chmod 4755 d/other
cd ../top
mkdir d; echo top > d/top; echo covers > d/file; mknod d/other c 0 0; mkdir plain
"""

#: What a person does with a tree. mv copies where it has to.
ACTS = [
    """
    chown 5:6 large; chmod 600 deep/large; touch -d 2001-02-03 short
    setfattr -n user.note -v above short; setfattr -n user.more -v 1 d/sub/file
    mv d moved; mv deep/er moved/inner
    echo more >> written; echo top >> moved/top
    echo two >> two; chown 7 four; ln one plain/linked; rm moved/three
    rm -r gone; mkdir gone; echo new > gone/new; rm emptied/file
    mv deep/large plain/large; ln plain/large moved/large2
    chown -h 8 symlink; chmod 600 fifo
    mknod null c 1 3; mkdir fresh; echo fresh > fresh/file; rm moved/sub/file
    chown 3 five; mkdir pure; mv five pure/five
    """,
    """
    chmod 640 large; echo tail >> plain/large
    mv moved again; mkdir moved; echo anew > moved/file; chown 9 again/inner/file
    echo three >> one; mv two gone/two; rm again/four
    mv again/file file; setfattr -x user.note short; chmod 700 written
    rm -r emptied; mv fresh emptied; mkdir fresh
    mv large larger; chown 11:12 larger; rm symlink
    """,
    """
    echo tail >> larger; chmod 604 file; echo more >> file
    mv again d; rm -r moved; mv emptied deep/emptied; chown -R 13 d
    echo last >> gone/two; ln four again; rm plain/linked; mv plain gone/plain
    touch -d 2003-04-05 short; setfattr -n user.last -v 1 gone/new; rm fifo; mkfifo fifo
    """,
]


def look(mounted: AbstractContextManager[Path]) -> list[str]:
    """What a new mount shows."""
    with mounted as mnt:
        found = describe(mnt)
        for path in walk(os.fsencode(mnt)):
            full = os.path.join(os.fsencode(mnt), path)
            st = os.lstat(full)
            names = sorted(os.listxattr(full, follow_symlinks=False))
            if not stat.S_ISDIR(st.st_mode):
                blocks = st.st_blocks if stat.S_ISREG(st.st_mode) else 0
                found.append(f"{os.fsdecode(path)}: {st.st_nlink} links, {blocks} blocks, {names}")
        return found


def name_of(options: Options) -> str:
    return "-".join(name for name, value in options._asdict().items() if value) or "none"


@pytest.mark.parametrize("first", ["ours", "kernel"])
@pytest.mark.parametrize("options", GOOD, ids=name_of)
def test_an_upper_goes_to_and_fro(tmp_path: Path, options: Options, first: str) -> None:
    rig = Rig(tmp_path, options)
    sides = [rig.ours, rig.kernel] if first == "ours" else [rig.kernel, rig.ours]
    for number, act in enumerate(ACTS):
        actor, other = sides[number % 2], sides[(number + 1) % 2]
        with actor() as mnt:
            shell(mnt, act)
        shown = look(actor())
        assert look(other()) == shown, f"after act {number + 1}, by {'ours' if actor == rig.ours else 'the kernel'}"


@pytest.mark.parametrize("options", BAD, ids=name_of)
def test_what_is_left_out_the_kernel_refuses(tmp_path: Path, options: Options) -> None:
    rig = Rig(tmp_path, options)
    with pytest.raises(subprocess.CalledProcessError), rig.kernel():
        raise AssertionError("mounted")


@pytest.mark.parametrize("options", [options for options in BAD if options.metacopy], ids=name_of)
def test_we_refuse_metacopies_that_the_kernel_does_not_follow(tmp_path: Path, options: Options) -> None:
    rig = Rig(tmp_path, options)
    refusal = pytest.raises(AssertionError, match=r"metacopy=on and (userxattr|redirect_dir=[a-z]+) exclude each other")
    with refusal, rig.ours():
        pass
