"""`python -m tests.compat.userns_program KIND DIRECTORY`: what is done by who is not root, or root of a user namespace.

DIRECTORY has `low`, the lower layer, and `plain`, a copy of it. KIND "ours" goes through the command line: mount, use,
look, commit, unmount, mount again; all that `plain` gets too. "kernel" mounts the kernel's overlayfs on the same layers
instead. One line of JSON on stdout says what was seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.golden.trees import describe
from tests.rigs import mount_line

#: As in tests/unit/cli_runner.py, which imports pytest.
_CLI = (sys.executable, "-c", "from cli.program import program; program()")


def unionfs(*argv: object) -> str:
    done = subprocess.run([*_CLI, *map(str, argv)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), f"unionfs {argv}: {done.returncode} {done.stderr}"
    return done.stdout


def run(*argv: object) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


def change(root: Path) -> None:
    """What the kernel's overlayfs with userxattr can do as well: no rename of directories."""
    (root / "file").write_text("written\n")
    with open(root / "large", "ab") as f:
        f.write(b"more")
    (root / "gone").unlink()
    run("rm", "-r", root / "emptied")
    (root / "emptied").mkdir()
    (root / "emptied" / "new").write_text("new\n")
    (root / "dir" / "sub" / "below").unlink()
    (root / "dir" / "moved").rename(root / "moved")
    (root / "made").mkdir(mode=0o700)
    (root / "made" / "link").symlink_to("../file")
    os.link(root / "made" / "link", root / "made" / "link2")
    os.mkfifo(root / "made" / "fifo")
    (root / "dir").chmod(0o2750)
    os.chown(root / "dir" / "sub", os.getuid(), os.getgid())
    os.setxattr(root / "file", "user.note", b"mine")
    os.utime(root / "large", ns=(10**18, 10**18 + 1))
    try:
        os.mknod(root / "device", 0o020644, os.makedev(1, 3))
        raise AssertionError("a device was made")
    except PermissionError:
        pass


def again(root: Path) -> None:
    """And what it cannot, after a remount."""
    (root / "dir").rename(root / "made" / "dir-1")
    (root / "made" / "dir-1" / "sub" / "file").write_text("in a renamed directory\n")
    run("rm", "-r", root / "emptied")
    (root / "gone").mkdir()
    (root / "file").rename(root / "gone" / "file")


def stored(upper: Path) -> list[str]:
    """The upper, each whiteout by itself: the kernel's are one inode."""
    lines = [line.split() for line in describe(upper, times=False)]
    whiteouts = {line[4]: line for line in lines if line[0] == "char"}
    made = (
        [*whiteouts[line[2]][:4], line[1], "0:0"] if line[0] == "link" and line[2] in whiteouts else line
        for line in lines
    )
    return [" ".join(line) for line in made]


def ours(directory: Path) -> dict[str, Any]:
    mnt, upper, plain = directory / "mnt", directory / "upper", directory / "plain"
    said: dict[str, Any] = {}
    unionfs("mount", "-l", directory / "low", "-u", upper, "--log-file", directory / "log", mnt)
    said["row"] = mount_line(mnt)
    change(mnt)
    change(plain)
    said["first"], said["plain first"] = describe(mnt, times=False), describe(plain, times=False)
    said["mounts"] = json.loads(unionfs("mounts", "--json"))
    said["doctor"] = json.loads(unionfs("doctor", directory, "--json"))
    unionfs("umount", mnt)
    said["upper"] = stored(upper)
    said["marks"] = sorted(name for path in upper.rglob("*") for name in os.listxattr(path, follow_symlinks=False))
    unionfs("mount", "-l", directory / "low", "-u", upper, "--log-file", directory / "log", mnt)
    again(mnt)
    again(plain)
    unionfs("remount", mnt)
    said["second"], said["plain second"] = describe(mnt, times=False), describe(plain, times=False)
    said["diff"] = unionfs("diff", mnt).splitlines()
    unionfs("commit", mnt, "-o", directory / "layer.tar")
    unionfs("umount", mnt)
    said["left"] = mount_line(mnt)
    unionfs("apply", directory / "layer.tar", directory / "low")
    said["applied"] = describe(directory / "low", times=False)
    said["log"] = (directory / "log").read_text()
    return said


def overlay(directory: Path, mnt: Path) -> None:
    options = ",".join(f"{key}dir={directory / path}" for key, path in
                       (("lower", "low"), ("upper", "upper"), ("work", "upper.work")))  # fmt: skip
    run("mount", "-t", "overlay", "-o", f"{options},userxattr", "overlay", mnt)


def kernel(directory: Path) -> dict[str, Any]:
    mnt, upper = directory / "mnt", directory / "upper"
    for path in (upper, directory / "upper.work"):
        path.mkdir()
    overlay(directory, mnt)
    change(mnt)
    said: dict[str, Any] = {"first": describe(mnt, times=False)}
    run("umount", mnt)
    said["upper"] = stored(upper)
    # In turns on one upper: what each has written the other shows.
    unionfs("mount", "-l", directory / "low", "-u", upper, mnt)
    said["ours on its upper"] = describe(mnt, times=False)
    (mnt / "dir" / "moved").write_text("by us, where the kernel moved one away\n")
    (mnt / "moved").unlink()
    wanted = describe(mnt, times=False)
    unionfs("umount", mnt)
    overlay(directory, mnt)
    said["it on ours"], said["wanted on ours"] = describe(mnt, times=False), wanted
    run("umount", mnt)
    return said


if __name__ == "__main__":
    print(json.dumps((ours if sys.argv[1] == "ours" else kernel)(Path(sys.argv[2]))))
