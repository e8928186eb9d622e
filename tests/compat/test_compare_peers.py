"""`unionfs diff A B` and `snapshot` beside diff, rsync, mtree, bsdtar, umoci, podman and the kernel's overlayfs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from tests.compat.image_peers import Podman, real_image
from tests.compat.image_rig import Images
from tests.compat.real_mount import RealStack, run
from tests.golden.trees import walk
from tests.requirements import need, requires
from tests.unit.changeset_rig import Unions, copy_tree
from tests.unit.cli_runner import program
from tests.unit.image_rig import open_store
from tests.unit.test_changeset_roundtrip import Meddler
from unionfs import api
from unionfs.errors import MountError

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "tar", "setfattr")]

SEEDS = range(4)


def planted(directory: Path, seed: int) -> tuple[Path, Path]:
    """A tree of everything, and a copy of it that somebody has worked in."""
    old, new = directory / "old", directory / "new"
    for path in (old, new):
        path.mkdir()
    Meddler(old, seed).work(120)
    copy_tree(old, new)
    Meddler(new, seed + 1000).work(30)
    return old, new


def told(old: Path | str, new: Path | str, **options: object) -> dict[str, set[str]]:
    """Reasons by path, "A" and "D" for what only one has."""
    with api.compare(old, new, **options) as comparison:  # type: ignore[arg-type]
        return {
            os.fsdecode(one.path): {str(one.kind)} if one.kind != "C" else {str(reason) for reason in one.reasons}
            for one in comparison
        }


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_of_everything_is_the_same(tmp_path: Path, seed: int) -> None:
    old, _ = planted(tmp_path, seed)
    assert told(old, copy_tree(old, _made(tmp_path / "copy")), exact=True) == {}


def outermost(ours: dict[str, set[str]], *reasons: str) -> set[str]:
    """Paths with one of these reasons, but for what is in a directory that is only in one tree, or where the other has
    something else: there other programs list nothing."""
    ended = {path for path, why in ours.items() if why & {"A", "D", "type"}}

    def is_inside(path: str) -> bool:
        while path := os.path.dirname(path):
            if path in ended:
                return True
        return False

    return {path for path, why in ours.items() if why & set(reasons) and not is_inside(path)}


@pytest.mark.parametrize("seed", SEEDS)
def test_diff_finds_the_same_files(tmp_path: Path, seed: int) -> None:
    """diff -rq: what only one has, other contents, other types, other targets. (Any two special files of one type it
    says to be such.)"""
    old, new = planted(tmp_path, seed)
    done = subprocess.run(
        ["diff", "-rq", "--no-dereference", old, new], capture_output=True, env={**os.environ, "LC_ALL": "C"}
    )
    found = done.stdout.count(b" differ\n") + done.stdout.count(b"\nOnly in ") + done.stdout.startswith(b"Only in ")
    types = re.findall(rb"^File .* is an? (.*) while file .* is an? (.*)$", done.stdout, re.MULTILINE)
    found += sum(one != other for one, other in types)
    ours = outermost(told(old, new), "A", "D", "content", "link", "type")
    assert (found, done.stderr) == (len(ours), b""), (sorted(ours), done.stdout)


#: rsync(1), --itemize-changes: what each letter is to us.
ITEMS = {"c": "content", "s": "size", "t": "mtime", "p": "mode", "o": "owner", "g": "owner", "x": "xattr"}


@requires("rsync")
@pytest.mark.parametrize("seed", SEEDS)
def test_rsync_itemizes_the_same(tmp_path: Path, seed: int) -> None:
    """`rsync -n -i -c` of files, their times, modes, owners and xattrs. (What is of another type, or a link with
    another target, it takes for new or changed as it likes; and files with several names it tells of by one.)"""
    old, new = planted(tmp_path, seed)
    out = run("rsync", "-naicAX", "-8", "--modify-window=-1", "--delete", "--out-format=%i %n", f"{new}/", f"{old}/")
    theirs: dict[str, set[str]] = {}
    for line in out.splitlines():
        items, name = line[:11], re.sub(r" -> .*", "", line[12:]).rstrip("/")
        if items[1] == "f" and "+" not in items:
            theirs[name] = {ITEMS[letter] for letter in items[2:] if letter in ITEMS}
    ours = told(old, new, exact=True, ignore=["hardlink"])
    files = {
        path: why
        for path, why in ours.items()
        if (new / path).is_file() and not (new / path).is_symlink() and not why & {"A", "D", "type"}
    }
    assert {path: why for path, why in theirs.items() if why and os.path.lexists(old / path)} == files


# snapshots ------------------------------------------------------------------------------------------------------------
@requires("mtree")
@pytest.mark.parametrize("seed", SEEDS)
def test_mtree_verifies_our_snapshots_and_finds_what_changed(tmp_path: Path, seed: int) -> None:
    old, new = planted(tmp_path, seed)
    remove_xattrs(old)
    file = tmp_path / "then"
    api.write_snapshot(old, file)
    assert run("mtree", "-f", str(file), "-p", str(old)) == ""
    done = subprocess.run(["mtree", "-f", file, "-p", new], capture_output=True)
    assert done.returncode == 2 and told(file, new) != {}


def remove_xattrs(tree: Path) -> None:
    """mtree(8) of NetBSD refuses keywords that it does not know."""
    for path in walk(os.fsencode(tree)):
        full = os.path.join(os.fsencode(tree), path)
        for name in os.listxattr(full, follow_symlinks=False):
            os.removexattr(full, name, follow_symlinks=False)


@requires("mtree")
def test_what_mtree_writes_is_a_snapshot(tmp_path: Path) -> None:
    old, new = planted(tmp_path, 1)
    text = run("mtree", "-c", "-k", "type,mode,uid,gid,nlink,size,time,link,device,sha256", "-p", str(old))
    (tmp_path / "then").write_text("#mtree\n" + text)
    assert told(tmp_path / "then", old) == {}
    assert set(told(tmp_path / "then", new, ignore=["hardlink"])) == set(told(old, new, ignore=["xattr", "hardlink"]))


@requires("bsdtar")
def test_bsdtar_reads_and_writes_snapshots(tmp_path: Path) -> None:
    old, _ = planted(tmp_path, 2)
    run("bsdtar", "-C", str(old), "--format=mtree", "--options=mtree:all", "-cf", str(tmp_path / "theirs"), ".")
    assert told(tmp_path / "theirs", old) == {}
    remove_xattrs(old)
    api.write_snapshot(old, tmp_path / "ours")
    names = run("bsdtar", "-tf", str(tmp_path / "ours")).splitlines()
    assert len(names) == len(walk(os.fsencode(old)))


@requires("umoci")
def test_what_umoci_writes_down_of_an_image_is_what_we_see_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    monkeypatch.setenv("UNIONFS_CACHE", os.fsdecode(store.cache.root))
    real_image(store, tmp_path, "example.com/real:1")
    run("umoci", "unpack", "--image", f"{tmp_path}/store:example.com/real:1", str(tmp_path / "bundle"), timeout=120)
    image = f"oci:{tmp_path}/store:example.com/real:1"
    (mtree,) = (tmp_path / "bundle").glob("*.mtree")
    assert told(f"snapshot:{mtree}", image) == told(image, f"snapshot:{mtree}") == {}
    assert told(image, tmp_path / "bundle/rootfs") == {}
    (tmp_path / "bundle/rootfs/etc").joinpath("new").write_text("new")
    assert "A" in told(f"snapshot:{mtree}", tmp_path / "bundle/rootfs")["etc/new"]


# images, mounts -------------------------------------------------------------------------------------------------------
@requires("podman")
def test_podman_tells_the_same_of_two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(tmp_path)
    for name, files in (
        ("one", {"etc/motd": "1", "gone/a": "2", "same": "3"}),
        ("two", {"etc/motd": "22", "new/b": "4", "same": "3"}),
    ):
        root = tmp_path / name
        for file, text in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        for path in sorted(root.rglob("*"), reverse=True):
            os.utime(path, (10**9, 10**9))
        tar = subprocess.run(["tar", "-C", root, "--sort=name", "-c", "."], capture_output=True, check=True).stdout
        images.run("image", "import", "-", f"localhost/{name}:1", stdin=tar)
        images.run("image", "save", "-o", tmp_path / f"{name}.tar", f"localhost/{name}:1")
    podman = Podman()
    try:
        for name in ("one", "two"):
            podman("load", "-i", str(tmp_path / f"{name}.tar"))
        theirs = json.loads(podman("diff", "--format", "json", "localhost/two:1", "localhost/one:1"))
        text = podman("diff", "localhost/two:1", "localhost/one:1")
    finally:
        podman.close()
    ran = images.call("diff", "localhost/one:1", "localhost/two:1", "--format", "podman")
    ours = json.loads(ran.out)
    assert ran.status == 1 and {key: sorted(paths) for key, paths in theirs.items()} == ours
    ran = images.call("diff", "localhost/one:1", "localhost/two:1", "--format", "docker")
    assert sorted(ran.lines) == sorted(text.splitlines())


@requires("overlayfs")
def test_the_kernels_overlayfs_shows_what_ours_does(tmp_path: Path) -> None:
    unions = Unions(tmp_path / "unions")
    unions.base.mkdir()
    try:
        lower = unions.base / "lower"
        lower.mkdir()
        Meddler(lower, 5).work(100)
        copy = copy_tree(lower, _made(tmp_path / "copy"))
        union = unions.mount([lower])
        Meddler(union.mnt, 6).work(60)
        after = copy_tree(union.mnt, _made(tmp_path / "after"))
        assert told(union.mnt, after, exact=True) == {}
        layer, _ = union.commit()
        assert (
            told(f"upper:{union.upper}", f"layer:{layer}", ignore=["xattr", "hardlink", "mtime", "size", "content"])
            is not None
        )
        api.apply(layer, copy)
        assert told(copy, union.mnt, exact=True) == {}
    finally:
        unions.close()


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.needs_fuse
def test_a_live_mount_is_compared_as_its_merged_tree_of_one_moment(tmp_path: Path) -> None:
    need("fuse")
    stack = RealStack(tmp_path, "devfuse")
    lower = stack.lower()
    Meddler(lower, 7).work(80)
    copy = copy_tree(lower, _made(tmp_path / "copy"))
    with stack.mounted() as mnt:
        assert told(mnt, copy) == {}
        (mnt / "new").write_text("n")
        assert told(copy, mnt)["new"] == {"A"}
        api.write_snapshot(mnt, tmp_path / "then")
        assert told(tmp_path / "then", mnt, exact=True) == {}
        ran = program("diff", mnt, mnt / "new", env={})
        assert ran.status == 2
        ran = program("snapshot", mnt, "-o", mnt / "inside")
        assert ran.status == 1 and b"lies in the mount whose changes are held" in ran.err
        ran = program("diff", copy, mnt, "--format", "docker")
        assert (ran.status, ran.lines[0]) == (1, "A /new")
        assert program("diff", mnt, "--reasons").lines == ["A /new"]
    assert program("diff", copy, mnt).status == 1


@pytest.mark.needs_fuse
def test_changes_wait_while_a_mount_is_compared(tmp_path: Path) -> None:
    need("fuse")
    stack = RealStack(tmp_path, "devfuse")
    lower = stack.lower()
    for name in ("a", "b"):
        (lower / name).write_text("old")
    copy = copy_tree(lower, _made(tmp_path / "copy"))
    with stack.mounted() as mnt:
        written = threading.Event()

        def write() -> None:
            (mnt / "b").write_text("new!")
            written.set()

        with api.compare(copy, mnt) as comparison:
            writer = threading.Thread(target=write)
            writer.start()
            assert list(comparison) == [] and not written.is_set()
        writer.join(30)
        assert written.is_set() and told(copy, mnt, ignore=["mtime"]) == {"b": {"size", "content"}}


@pytest.mark.needs_fuse
def test_what_was_not_held_to_the_end_is_no_snapshot_and_no_comparison(tmp_path: Path) -> None:
    need("fuse")
    stack = RealStack(tmp_path, "devfuse")
    (stack.lower() / "a").write_text("old")
    copy = copy_tree(stack.layers[0], _made(tmp_path / "copy"))
    with stack.mounted() as mnt:
        written = threading.Event()

        def write(name: str) -> None:
            (mnt / name).write_text("new")
            written.set()

        def until_changes_go_on(name: str) -> None:
            writer = threading.Thread(target=write, args=(name,))
            writer.start()
            assert written.wait(30)
            written.clear()
            writer.join(30)

        soon = api.Pausing(limit=0.3)
        with pytest.raises(MountError, match="not held to the end"):
            api.write_snapshot(mnt, tmp_path / "then", pausing=soon, progress=lambda _: until_changes_go_on("b"))
        assert not (tmp_path / "then").exists()
        with pytest.raises(MountError, match="not held to the end"), api.compare(copy, mnt, pausing=soon) as comparison:
            assert [one.path for one in comparison] == [b"b"]
            until_changes_go_on("c")
