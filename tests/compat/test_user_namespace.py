"""Mounts of people who are not root: through fusermount3, and as root of a user namespace (`unshare -Urm`).

In a user namespace mount(2) itself mounts FUSE (Linux 4.18), and so the kernel's overlayfs with `userxattr` (5.11), to
compare with. What is done is in userns_program.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.namespace import Namespace
from tests.requirements import need, requires
from tests.rigs import PROJECT, Backing, python_path
from tests.semantics.unions import copy_tree, same_text
from tests.unit.as_user import NOBODY

pytestmark = [*[requires("root", "fuse", "unshare")], pytest.mark.usefixtures("device_for_all")]

#: Ids that /etc/subuid gives to the user, for `unshare --map-auto`.
SUBORDINATE = 200_000
KINDS = {
    "fusermount3": ("root", "fusermount3"),
    "unshare -Urm": ("root",),
    "unshare -rm --map-auto": ("root", "newuidmap"),
}


def fill(root: Path) -> None:
    for name in ("dir", "dir/sub", "emptied"):
        (root / name).mkdir()
        (root / name / "file").write_text(f"{name}\n")
    for name in ("file", "gone", "dir/moved", "dir/sub/below"):
        (root / name).write_text(f"{name}\n")
    (root / "large").write_bytes(bytes(range(256)) * 2000)
    os.link(root / "file", root / "linked")
    (root / "link").symlink_to("file")


@pytest.fixture
def home(backing: Backing) -> Path:
    """A directory of the user's, with the layers for the program."""
    directory = backing.directory("user")
    for name in ("low", "plain", "mnt", "run"):
        (directory / name).mkdir(mode=0o700 if name == "run" else 0o755)
    fill(directory / "low")
    copy_tree(directory / "low", directory / "plain")
    subprocess.run(["chown", "-Rh", f"{NOBODY}:{NOBODY}", str(directory)], check=True)
    return directory


@pytest.fixture
def namespace(home: Path) -> Iterator[Namespace]:
    """Mounts of its own, where the user has subordinate ids."""
    (home / "subids").write_text(f"nobody:{SUBORDINATE}:65536\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": python_path(), "HOME": str(home)}
    environment["XDG_RUNTIME_DIR"] = str(home / "run")
    script = "\n".join(f"touch /etc/{name}; mount --bind {home}/subids /etc/{name}" for name in ("subuid", "subgid"))
    with Namespace(home, script, environment) as made:
        yield made


def words(kind: str) -> list[str]:
    """The command line that makes a process the user's, in the place that `kind` says."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return user if kind == "fusermount3" else [*user, *kind.split()]


def ran(namespace: Namespace, kind: str, what: str, directory: Path) -> dict[str, Any]:
    program = [sys.executable, "-m", "tests.compat.userns_program", what, str(directory)]
    out = namespace.run(*words(kind), "sh", "-c", f'cd {PROJECT} && exec "$@"', "sh", *program)
    return dict(json.loads(out))


@pytest.mark.parametrize("kind", KINDS)
def test_mount_use_commit_and_unmount(namespace: Namespace, home: Path, kind: str) -> None:
    need(*KINDS[kind])
    said = ran(namespace, kind, "ours", home)
    for name, other in (("first", "plain first"), ("second", "plain second"), ("second", "applied")):
        same_text(said[other], said[name], other, name)
    assert {"D /file", "C /gone", "A /gone/file", "A /made/dir-1/sub/file"} <= set(said["diff"])
    (mount,) = said["mounts"]
    assert (mount["state"], mount["mountpoint"]) == ("live", str(home / "mnt")) and mount["statistics"]
    assert said["left"] is None and said["log"] == ""
    options = said["row"][-1].split(",")
    if kind == "fusermount3":
        assert f"user_id={NOBODY}" in options and "allow_other" not in options
    else:
        assert "user_id=0" in options and "allow_other" in options
    # Kernel whiteouts, and marks that its overlayfs heeds with `userxattr`.
    assert any(line.startswith("char") and line.endswith(" gone 0:0") for line in said["upper"])
    assert "user.overlay.opaque" in said["marks"] and not any(name.startswith("trusted.") for name in said["marks"])
    check_doctor({diagnosis["name"]: diagnosis for diagnosis in said["doctor"]}, kind)


def check_doctor(found: dict[str, dict[str, str]], kind: str) -> None:
    """It knows where it is: nothing is a problem that is none there."""
    assert [name for name, diagnosis in found.items() if diagnosis["state"] == "problem"] == []
    assert found["upper-xattrs"]["found"].endswith("user.overlay")
    assert found["upper-whiteouts"]["state"] == "ok"
    assert "outside of user namespaces" in found["passthrough"]["found"]
    if kind == "fusermount3":
        assert found["fusermount3"]["found"].endswith("set-user-ID root")
        return
    for name in ("fusermount3", "user-allow-other"):
        assert found[name]["state"] == "ok" and "not needed" in found[name]["found"], found[name]


@requires("overlayfs")
def test_the_kernels_overlayfs_in_the_same_place(namespace: Namespace, home: Path) -> None:
    kind = "unshare -Urm"
    for name in ("low", "plain"):
        (home / name / "linked").unlink()  # hard links it breaks, without `index=on`, which `userxattr` excludes
    other = home / "kernel"
    for name in ("low", "mnt"):
        (other / name).mkdir(parents=True)
    copy_tree(home / "low", other / "low")
    subprocess.run(["chown", "-Rh", f"{NOBODY}:{NOBODY}", str(other)], check=True)
    its, said = ran(namespace, kind, "kernel", other), ran(namespace, kind, "ours", home)
    for name in ("first", "upper"):
        same_text(its[name], said[name], "kernel", "ours")
    same_text(its["first"], its["ours on its upper"], "kernel", "ours on its upper")
    same_text(its["wanted on ours"], its["it on ours"], "ours", "kernel on ours")
