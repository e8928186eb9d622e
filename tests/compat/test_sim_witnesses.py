"""What the simulator and the lessons say of others, asked of them: the kernel's overlayfs and fuse-overlayfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.sim_real import RealWorld
from tests.requirements import need, requires
from tests.rigs import Backing
from unionfs.explain.lesson import Lesson, lessons
from unionfs.explain.script import Command, parse
from unionfs.explain.simulator import Simulator, choose
from unionfs.layers.memory import MemoryLayer
from unionfs.overlay.inode import join
from unionfs.vfs import DT_DIR

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "overlayfs")]

Mount = Callable[[list[Path], Path, Path, Path, list[str]], None]

#: What fuse-overlayfs leaves beside the file `.wh..wh..opq` where whiteouts are devices; readers ignore it.
DEBRIS = ".wh..opq"


def kernel(options: str) -> Mount:
    def make(lowers: list[Path], upper: Path, work: Path, mnt: Path, more: list[str]) -> None:
        layers = ":".join(map(str, lowers))
        metacopy = "on" if "metacopy" in more else "off"
        places = f"lowerdir={layers},upperdir={upper},workdir={work},{options},metacopy={metacopy}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", places, mnt], check=True)

    return make


def fuse_overlayfs(lowers: list[Path], upper: Path, work: Path, mnt: Path, more: list[str]) -> None:
    places = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    subprocess.run(["fuse-overlayfs", "-o", places, mnt], check=True, stderr=subprocess.DEVNULL)


#: With what the kernel does as we do, and as it does by default.
LIKE_US = kernel("redirect_dir=on,index=on")
BY_DEFAULT = kernel("redirect_dir=off,index=off")
MOUNTS = {"unionfs": LIKE_US, "kernel": BY_DEFAULT, "docker": BY_DEFAULT, "fuse-overlayfs": fuse_overlayfs}


@contextmanager
def both(backing: Backing, name: str, as_: str) -> Iterator[tuple[Simulator, RealWorld]]:
    home = backing.directory(f"sim-{name}-{as_}")
    world = RealWorld(home, MOUNTS[as_])
    try:
        yield Simulator(*choose(as_)), world
    finally:
        world.close()


def give(simulator: Simulator, world: RealWorld, commands: Iterable[Command]) -> None:
    """The same to both, and the same answers; then the same trees."""
    for command in commands:
        step = simulator.run(command)
        real = world.run(command)
        if step.failure is not None:
            assert step.failure.split()[0] == real, command.text
        elif real is not None and step.output:
            assert list(step.output) == [line for line in real if line != DEBRIS], command.text
    if world.mounted:
        assert simulated_merged(simulator) == world.merged()
        assert without_optimisation(simulator, stored(simulator)) == without_optimisation(simulator, real_stored(world))


def real_stored(world: RealWorld) -> dict[str, tuple[object, ...]]:
    return {path: found for path, found in world.stored().items() if os.path.basename(path) != DEBRIS}


def simulated_merged(simulator: Simulator) -> dict[str, tuple[object, ...]]:
    world = simulator.world
    found: dict[str, tuple[object, ...]] = {}
    for path in world.shell.find(""):
        with world.shell.existing(path, follow=False) as (tree, node):
            attr = world.seen(node)
            kind = {0o040000: "dir", 0o100000: "file", 0o120000: "symlink"}[attr.mode & 0o170000]
            row: tuple[object, ...] = (kind, oct(attr.mode & 0o7777), attr.uid, attr.gid)
            if kind == "file":
                opened = tree.fs.open(node.node, os.O_RDONLY)
                row += (tree.fs.read(opened.fh, 0, attr.size), attr.nlink)
                tree.fs.release(opened.fh)
            found[path] = row
    return found


def stored(simulator: Simulator) -> dict[str, tuple[object, ...]]:
    upper = simulator.world.upper
    assert upper is not None
    return dict(_stored(upper, b""))


def _stored(layer: MemoryLayer, directory: bytes) -> Iterator[tuple[str, tuple[object, ...]]]:
    for entry in layer.scan(directory):
        path = join(directory, entry.name)
        st = layer.lstat(path)
        kind = {0o040000: "dir", 0o100000: "file", 0o120000: "symlink", 0o020000: "whiteout"}[st.st_mode & 0o170000]
        marks = {
            mark: value
            for mark in ("opaque", "redirect", "metacopy")
            if (value := layer.getxattr(path, b"trusted.overlay." + mark.encode())) is not None
        }
        data = layer.open(path).pread(st.st_size, 0) if kind == "file" and "metacopy" not in marks else b""
        rest = (oct(st.st_mode & 0o7777), st.st_uid, st.st_gid, data, marks)
        yield os.fsdecode(path), (kind,) if kind == "whiteout" else (kind, *rest)
        if entry.type == DT_DIR:
            yield from _stored(layer, path)


def without_optimisation(simulator: Simulator, found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """The kernel marks every new directory in a merged one opaque; we do where a layer has the name."""
    if simulator.personality.opaque_new:
        return found
    below = {path for column in simulator.picture.columns[1:] for path in column.stored}
    return {
        path: (*row[:5], {}) if path not in below and row[0] == "dir" and row[5] == {"opaque": b"y"} else row
        for path, row in found.items()
    }


LESSONS = [lesson for lesson in lessons() if lesson.encoding == "kernel"]


@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
def test_a_lesson_tells_of_the_kernel_what_it_does(backing: Backing, lesson: Lesson) -> None:
    """All commands of a lesson, given to the kernel with the options that make it do as we do; and what is asked of
    another is asked of that one."""
    for as_ in ("unionfs", *sorted({question.as_ for question in lesson.questions if question.as_})):
        with both(backing, lesson.name, as_) as (simulator, world):
            given = list(parse(lesson.scene))
            for question in lesson.questions:
                given += parse(question.run)
                if (question.as_ or "unionfs") == as_:
                    given += parse([question.look])
            # A mapping is where we differ (unionfs/overlay/README.md); what the other refuses it is not given.
            refused = "read mapping" if as_ == "unionfs" else "mv srv/site srv/www"
            give(simulator, world, [command for command in given if command.fails or command.text != refused])


QUIRKS = """
layer base
write f one
ln f g
write d/x in
write o/x in
mount
open descriptor f
append f two
read descriptor
cat g
fails mv d e
mkdir n
mv n n2
mkdir n2/inner
rm -r o
mkdir o
ls upper:o
rm g
write d/x other
"""


@pytest.mark.parametrize("as_", ["kernel", "docker", "fuse-overlayfs"])
def test_what_is_known_of_another_is_so(backing: Backing, as_: str) -> None:
    need("fuse-overlayfs" if as_ == "fuse-overlayfs" else "overlayfs")
    with both(backing, "quirks", as_) as (simulator, world):
        give(simulator, world, parse(QUIRKS.splitlines()))


@pytest.mark.parametrize(("as_", "refused"), [("kernel", False), ("fuse-overlayfs", True)])
def test_names_that_begin_as_whiteouts_do(backing: Backing, as_: str, refused: bool) -> None:
    need("fuse-overlayfs" if as_ == "fuse-overlayfs" else "overlayfs")
    with both(backing, "names", as_) as (simulator, world):
        give(simulator, world, parse(["layer base", "write a x", "mount", f"{'fails ' * refused}touch .wh.b"][:3]))
        command = next(parse([f"{'fails ' * refused}write .wh.b x"]))
        failure = simulator.run(command).failure
        assert (failure or "").split(" ")[0] == (world.run(command) or "")[: 6 * refused]


def test_hard_links_have_parted_on_the_disk_of_fuse_overlayfs(backing: Backing) -> None:
    """Its next mount shows one number for both, and the data of that which was asked for first."""
    need("fuse-overlayfs")
    with both(backing, "again", "fuse-overlayfs") as (simulator, world):
        give(simulator, world, parse(["layer base", "write f one", "ln f g", "mount", "append f two", "cat g"]))
        simulator.run(Command("remount", ("remount",)))
        assert (simulator.world.shell.cat("f"), simulator.world.shell.cat("g")) == (["one", "two"], ["one"])
        assert stored(simulator) == real_stored(world) and (world.home / "base/g").read_text() == "one\n"
        world.remount()
        assert (world.mnt / "f").stat().st_ino == (world.mnt / "g").stat().st_ino
